//! Statistics that end in a few numbers: finite checks and sums of squares over lists of arrays, closeness, histograms.
//!
//! None is differentiable. Those of lists are what gradient clipping and loss scaling ask at every step.

use super::super::registry::Registry;
use super::super::{Ctx, GpuCtx, Sig, Spec, Specs, draw, flag, float, floats, int};
use super::cast_input;
use crate::shaders::each::{Each, Read};
use crate::shaders::elem::Span;
use crate::shaders::reduce::launch_reduce;
use crate::shaders::rows::BITS;
use mxrs_base::{DType, Elem, Error, Result, Shape, dispatch, f16};
use mxrs_kernels::reduce::{self, Reduction};

pub fn register(r: &mut Registry) {
    sums_of_squares(r);
    finite(r);
    allclose(r);
    histogram(r);
}

/// All inputs are of a float type, and as many as `num_arrays` says.
fn expect_floats(s: &Sig, counted: bool) -> Result<()> {
    let count = if counted { s.attrs.size("num_arrays") } else { 1 };
    if s.ins.len() != count {
        return Err(s.fail(format!("num_arrays is {count} and {} arrays were given", s.ins.len())));
    }
    (0..s.ins.len()).try_for_each(|i| s.expect_float(i).map(|_| ()))
}

fn cost(s: &Sig, _: &[Spec]) -> f64 {
    300.0 + s.ins.iter().map(|v| v.shape.size()).sum::<usize>() as f64 * 0.3
}

fn square_sum(c: &Ctx, i: usize) -> Result<f32> {
    fn of<T: reduce::Reduce>(x: &[T]) -> f64 {
        let mut out = [T::default()];
        reduce::reduce(Reduction::SumSq, x, &[x.len()], &[0], &mut out);
        out[0].to_f64()
    }
    let sum = match c.dtype(i) {
        DType::F64 => of(c.x::<f64>(i)),
        DType::F32 => of(c.x::<f32>(i)),
        // Squares of float16 leave its range early.
        _ => of(&cast_input::<f32>(c, i)?),
    };
    Ok(sum as f32)
}

fn sums_of_squares(r: &mut Registry) {
    r.op("multi_sum_sq", "The sum of squares of each array, as float32.")
        .variadic("data", "arrays of any shape", "num_arrays")
        .param(int("num_arrays", "the number of arrays").at_least(1.0))
        .infer(|s| {
            expect_floats(s, true)?;
            s.one(Shape::new(&[s.ins.len()]), DType::F32)
        })
        .cost(cost)
        .kernel(|c| {
            let out = c.y::<f32>(0);
            for (i, v) in out.iter_mut().enumerate() {
                *v = square_sum(c, i)?;
            }
            Ok(())
        })
        .gpu(|c| (0..c.ins.len()).try_for_each(|i| reduce_whole(c, Reduction::SumSq, i, place(c.y(0), i))))
        .sample(&[draw(&[2, 3]), draw(&[4])], &[("num_arrays", 2.into())]);
}

fn all_finite<T: Elem>(x: &[T], finite: impl Fn(T) -> bool) -> bool {
    // Whole blocks without a way out, so that the loop over them is vector code.
    x.chunks(4096).all(|block| block.iter().fold(true, |all, v| all & finite(*v)))
}

fn is_finite(c: &Ctx, i: usize) -> bool {
    mxrs_simd::vectorize(|| match c.dtype(i) {
        DType::F64 => all_finite(c.x::<f64>(i), f64::is_finite),
        DType::F32 => all_finite(c.x::<f32>(i), f32::is_finite),
        _ => all_finite(c.x::<f16>(i), f16::is_finite),
    })
}

/// 1 where all inputs are finite; with `init_output` false, and what the output held was not 0.
fn check_finite(c: &Ctx) -> Result<()> {
    let out = &mut c.y::<f32>(0)[0];
    let before = c.attrs.bool("init_output") || *out != 0.0;
    *out = f32::from(before && (0..c.ins.len()).all(|i| is_finite(c, i)));
    Ok(())
}

/// Element `i` of a span.
fn place(span: Span, i: usize) -> Span {
    Span { offset: span.offset + i, ..span }
}

/// All of input `i` as one number.
fn reduce_whole(c: &GpuCtx, op: Reduction, i: usize, to: Span) -> Result<()> {
    launch_reduce(c.device, op, &[c.shape(i).size()], &[0], c.x(i).strided(&[1]), to, c.op.name)
}

/// All are finite where the largest and the smallest are: not-a-number is both.
fn check_finite_on_gpu(c: &GpuCtx) -> Result<()> {
    let given: Vec<usize> = (0..c.ins.len()).filter(|i| c.shape(*i).size() > 0).collect();
    let ends = c.device.alloc(8 * given.len().max(1) as u64)?;
    let ends = Span::new(&ends, DType::F32);
    for (k, i) in given.iter().enumerate() {
        reduce_whole(c, Reduction::Max, *i, place(ends, 2 * k))?;
        reduce_whole(c, Reduction::Min, *i, place(ends, 2 * k + 1))?;
    }
    let init = c.attrs.bool("init_output");
    let each = Each::new("all finite", c.y(0)).input("ends", ends, Read::Value);
    let each = each.input("old", c.y(0), Read::Truth).size("count", 2 * given.len())?;
    let body = || {
        "fn element(e: u32) -> VALUE {
    var fine = p.init == 1u || old(0u);
    for (var i = 0u; i < p.count; i++) {
        fine = fine && (bitcast<u32>(ends(i)) & 0x7fffffffu) < 0x7f800000u;
    }
    return select(0.0, 1.0, fine);
}\n"
        .into()
    };
    each.size("init", usize::from(init))?.launch(c.device, 1, body, c.op.name)
}

fn finite(r: &mut Registry) {
    let init = || flag("init_output", "False combines with what the array given as `out` holds").or(true);
    r.op("all_finite", "1 (float32) where every element is finite, else 0.")
        .input("data", "a float array of any shape")
        .param(init())
        .infer(|s| {
            expect_floats(s, false)?;
            s.one(Shape::new(&[1]), DType::F32)
        })
        .cost(cost)
        .kernel(check_finite)
        .gpu(check_finite_on_gpu)
        .sample(&[draw(&[2, 3])], &[]);
    r.op("multi_all_finite", "1 (float32) where every element of every array is finite, else 0.")
        .variadic("data", "float arrays of any shape", "num_arrays")
        .param(int("num_arrays", "the number of arrays").or(1).at_least(1.0))
        .param(init())
        .infer(|s| {
            expect_floats(s, true)?;
            s.one(Shape::new(&[1]), DType::F32)
        })
        .cost(cost)
        .kernel(check_finite)
        .gpu(check_finite_on_gpu)
        .sample(&[draw(&[2, 3]), draw(&[4])], &[("num_arrays", 2.into())]);
}

fn allclose(r: &mut Registry) {
    r.op(
        "_contrib_allclose",
        "1 (uint8, shape ()) where |a - b| <= atol + rtol |b| for all elements, else 0.",
    )
    .input("a", "values of any shape")
    .input("b", "values of the same shape and type")
    .param(float("rtol", "tolerance relative to b").or(1e-5f32 as f64))
    .param(float("atol", "absolute tolerance").or(1e-8f32 as f64))
    .param(flag("equal_nan", "whether two not-a-numbers are equal").or(true))
    .infer(|s| {
        s.elementwise()?;
        s.one(Shape::new(&[]), DType::U8)
    })
    .kernel(|c| {
        let (rtol, atol) = (c.attrs.float("rtol"), c.attrs.float("atol"));
        let equal_nan = c.attrs.bool("equal_nan");
        let close = |a: f64, b: f64| {
            a == b || (a - b).abs() <= atol + rtol * b.abs() || (equal_nan && a.is_nan() && b.is_nan())
        };
        let all = dispatch!(c.dtype(0), T => {
            c.x::<T>(0).iter().zip(c.x::<T>(1)).all(|(a, b)| close(a.to_f64(), b.to_f64()))
        });
        c.y::<u8>(0)[0] = u8::from(all);
        Ok(())
    })
    .gpu(close_on_gpu)
    .sample(&[draw(&[2, 3]), draw(&[2, 3])], &[]);
}

fn close_on_gpu(c: &GpuCtx) -> Result<()> {
    let n = c.shape(0).size();
    let close = c.device.alloc(4 * n.max(1) as u64)?;
    let close = Span::new(&close, DType::I32);
    let each = Each::new("close", close).input("a", c.x(0), Read::Value).input("b", c.x(1), Read::Value);
    let bits = |name| (c.attrs.float(name) as f32).to_bits() as usize;
    let each = each.size("rtol", bits("rtol"))?.size("atol", bits("atol"))?;
    let body = || {
        BITS.to_string()
            + "fn element(e: u32) -> VALUE {
    if (a(e) == b(e)) { return VALUE(1); }
    let x = f32(a(e));
    let y = f32(b(e));
    let nans = u32(mx_is_nan(x)) + u32(mx_is_nan(y));
    if (nans > 0u) { return VALUE(nans == 2u && p.equal_nan == 1u); }
    return VALUE(abs(x - y) <= bitcast<f32>(p.atol) + bitcast<f32>(p.rtol) * abs(y));
}\n"
    };
    let each = each.size("equal_nan", usize::from(c.attrs.bool("equal_nan")))?;
    each.launch(c.device, n, body, c.op.name)?;
    launch_reduce(c.device, Reduction::All, &[n], &[0], close.strided(&[1]), c.y(0), c.op.name)
}

// ---- histogram ---------------------------------------------------------------------------------------------------

fn infer_histogram(s: &Sig) -> Result<Specs> {
    if s.dtype(0) == DType::Bool {
        return Err(s.fail("bool is not supported; cast to another type first"));
    }
    let edges = match s.attrs.opt_int("bin_cnt") {
        Some(count) => {
            let range = s.attrs.floats("range");
            let fine = range.len() == 2 && range.iter().all(|v| v.is_finite()) && range[0] < range[1];
            if !fine {
                return Err(s.fail(format!(
                    "range = {range:?} is not valid; (low, high) with low < high is expected"
                )));
            }
            count as usize + 1
        }
        None => {
            s.expect_ndim(1, 1..=1)?;
            if s.dtype(1) != s.dtype(0) {
                return Err(s.fail("data and bins must be of one type"));
            }
            if s.shape(1)[0] < 2 {
                return Err(s.fail("bins has two edges or more"));
            }
            s.shape(1)[0]
        }
    };
    let count = Spec::new(Shape::new(&[edges - 1]), DType::I64);
    Ok([count, Spec::new(Shape::new(&[edges]), s.dtype(0))].into_iter().collect())
}

/// The bin of `v` among ascending `edges`; the last bin includes its upper edge.
fn bin(edges: &[f64], v: f64) -> Option<usize> {
    let last = edges.len() - 1;
    if v == edges[last] {
        return Some(last - 1);
    }
    match edges.partition_point(|e| *e <= v) {
        0 => None,
        i if i > last || v.is_nan() => None,
        i => Some(i - 1),
    }
}

fn histogram(r: &mut Registry) {
    r.op(
        "_histogram",
        "How many elements fall into each bin (int64), and the bins' edges in the input's type.",
    )
    .input("data", "values of any shape")
    .input("bins", "the ascending edges, where `bin_cnt` is not given")
    .param(int("bin_cnt", "the number of equal bins over `range`").or_none().at_least(1.0).at_most(1e9))
    .param(floats("range", "(low, high) of the equal bins").or_none())
    .alias(&["_npi_histogram"])
    .input_count(|attrs| if attrs.is_none("bin_cnt") { 2 } else { 1 })
    .visible(|_| 2)
    .infer(infer_histogram)
    .cost(|s, _| 300.0 + s.shape(0).size() as f64 * 20.0)
    .kernel(|c| {
        let edges: Vec<f64> = match c.attrs.opt_int("bin_cnt") {
            Some(n) => {
                let (low, high) = (c.attrs.floats("range")[0], c.attrs.floats("range")[1]);
                let width = (high - low) / n as f64;
                (0..=n).map(|i| if i == n { high } else { low + width * i as f64 }).collect()
            }
            None => dispatch!(c.dtype(1), T => c.x::<T>(1).iter().map(|v| v.to_f64()).collect()),
        };
        if !edges.is_sorted() {
            return Err(Error::value("histogram: bins must be ascending"));
        }
        let counts = c.y::<i64>(0);
        counts.fill(0);
        dispatch!(c.dtype(0), T => {
            c.y::<T>(1).iter_mut().zip(&edges).for_each(|(o, e)| *o = T::from_f64(*e));
            c.x::<T>(0).iter().filter_map(|v| bin(&edges, v.to_f64())).for_each(|i| counts[i] += 1);
        });
        Ok(())
    })
    .sample(
        &[draw(&[10])],
        &[("bin_cnt", 4.into()), ("range", mxrs_base::AttrValue::Floats([-1.0, 1.0].into()))],
    );
}
