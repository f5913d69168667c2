//! Formulas against plain loops: derivatives by central differences, broadcasting by indices, in every type.

use crate::{Args, E, Formula, Operand, Part};
use mxrs_base::{DType, Elem, dispatch, f16};
use mxrs_simd::{Binary, Unary};

struct Random(u64);
impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
    fn below(&mut self, n: usize) -> usize {
        ((self.next() * n as f64) as usize).min(n - 1)
    }
}

/// One element, in double precision.
fn at(f: &Formula, x: &[f64], params: &[f64]) -> f64 {
    let ins: Vec<Operand> =
        x.iter().map(|x| Operand { ptr: (x as *const f64).cast(), strides: &[] }).collect();
    let mut out = 0.0f64;
    // SAFETY: one element each.
    unsafe { f.eval(DType::F64, params, &[], &ins, (&raw mut out).cast(), DType::F64) };
    out
}

/// d f / d x_wrt with head 1 by the formula, and by a central difference.
fn slopes(f: &Formula, wrt: usize, x: &[f64]) -> (f64, f64) {
    let slope = f.derivative(wrt).map_or(0.0, |d| {
        let mut all = vec![1.0];
        all.extend(x);
        all.push(at(f, x, &[]));
        at(&d, &all, &[])
    });
    let h = 1e-5 * x[wrt].abs().max(0.1);
    let moved = |d: f64| {
        let mut x = x.to_vec();
        x[wrt] += d;
        at(f, &x, &[])
    };
    // Five points: the error is of the fourth order.
    let numeric = (8.0 * (moved(h) - moved(-h)) - (moved(2.0 * h) - moved(-2.0 * h))) / (12.0 * h);
    (slope, numeric)
}

/// The derivative as a formula of the inputs alone: head 1, y written out.
fn closed(f: &Formula, wrt: usize) -> Option<Formula> {
    let n = f.arity();
    let d = f.derivative(wrt)?;
    let one = Formula::build(0, &[], |a| a.c(1.0));
    let inputs: Vec<usize> = (0..n).collect();
    let mut parts = vec![Part::Formula(&one, &[])];
    parts.extend((0..n).map(Part::Input));
    parts.push(Part::Formula(f, &inputs));
    Some(d.compose(n, &parts))
}

fn check_slopes(f: &Formula, x: &[f64]) {
    for wrt in 0..x.len() {
        let (slope, numeric) = slopes(f, wrt, x);
        let tolerance = 1e-6 * numeric.abs().max(1e-2);
        assert!((slope - numeric).abs() <= tolerance, "d{wrt} {} at {x:?}: {slope}, not {numeric}", f.text());
        let Some(d) = closed(f, wrt) else { continue };
        for second in 0..x.len() {
            let (slope, numeric) = slopes(&d, second, x);
            let tolerance = 1e-5 * numeric.abs().max(1e-1);
            assert!(
                (slope - numeric).abs() <= tolerance,
                "d{wrt}d{second} {} at {x:?}: {slope} {numeric}",
                f.text()
            );
        }
    }
}

#[test]
fn unary_derivatives() {
    use Unary::*;
    for &op in Unary::ALL {
        let f = Formula::build(1, &[], |a| E::unary(op, a.x(0)));
        let points: &[f64] = match op {
            Log | Log2 | Log10 | Sqrt | Rsqrt => &[0.3, 1.7, 4.2],
            Log1p => &[-0.6, 0.2, 3.1],
            Asin | Acos | Atanh | Erfinv => &[-0.7, 0.13, 0.62],
            Acosh => &[1.2, 3.4],
            Gamma | LogGamma | Digamma => &[0.3, 1.6, 4.4, 12.3, -0.4, -2.7],
            _ => &[-2.3, -0.6, 0.37, 1.2, 2.6],
        };
        points.iter().for_each(|x| check_slopes(&f, &[*x]));
    }
}

#[test]
fn binary_derivatives() {
    for &op in Binary::ALL {
        let f = Formula::build(2, &[], |a| E::binary(op, a.x(0), a.x(1)));
        for (a, b) in [(1.3, 2.4), (3.7, 0.6), (0.8, -1.7), (2.2, 1.4)] {
            check_slopes(&f, &[a, b]);
        }
    }
}

#[test]
fn composite_derivatives() {
    let gelu = |a: &Args| a.x(0) * 0.5 * ((a.x(0) / 2f64.sqrt()).erf() + 1.0);
    let swish = |a: &Args| a.x(0) * (a.x(0) * 1.5).sigmoid() + a.x(1).exp() * a.x(0).tanh();
    let pick = |a: &Args| a.x(0).gt(a.x(1)).select(a.x(0).square() * a.x(1), (a.x(0) + a.x(1)).sin());
    for x in [[-1.2, 0.4], [0.7, -0.3], [2.1, 1.1]] {
        check_slopes(&Formula::build(1, &[], gelu), &x[..1]);
        check_slopes(&Formula::build(2, &[], swish), &x);
        check_slopes(&Formula::build(2, &[], pick), &x);
    }
}

#[test]
fn conventions_at_kinks() {
    let slope = |f: &Formula, wrt: usize, x: &[f64]| slopes(f, wrt, x).0;
    let unary = |op| Formula::build(1, &[], |a| E::unary(op, a.x(0)));
    assert_eq!(slope(&unary(Unary::Relu), 0, &[0.0]), 0.0);
    assert_eq!(slope(&unary(Unary::Abs), 0, &[0.0]), 0.0);
    assert_eq!(slope(&unary(Unary::Sqrt), 0, &[0.0]), f64::INFINITY);
    for op in [Unary::Sign, Unary::Floor, Unary::Round, Unary::LogicalNot] {
        assert!(unary(op).derivative(0).is_none());
    }
    for op in [Binary::Max, Binary::Min] {
        let f = Formula::build(2, &[], |a| E::binary(op, a.x(0), a.x(1)));
        assert_eq!((slope(&f, 0, &[2.0, 2.0]), slope(&f, 1, &[2.0, 2.0])), (1.0, 0.0));
    }
    // What the tape may drop: exp needs its value only, log its argument only.
    let exp = unary(Unary::Exp).derivative(0).unwrap();
    assert!(exp.uses(0) && !exp.uses(1) && exp.uses(2));
    let log = unary(Unary::Log).derivative(0).unwrap();
    assert!(log.uses(1) && !log.uses(2));
}

#[test]
fn simplifies() {
    let text = |f: fn(&Args) -> E| Formula::build(2, &["p"], f).text();
    assert_eq!(text(|a| a.x(0) * 1.0 + 0.0), "x0");
    assert_eq!(text(|a| a.x(0) * (a.c(2.0) + 3.0)), "x0 * 5");
    assert_eq!(text(|a| a.x(0) * 0.0), "x0 * 0");
    assert_eq!(text(|a| a.x(0).pow(2.0) + a.x(1) * a.x(1)), "square(x0) + square(x1)");
    assert_eq!(text(|a| -(-a.x(0)) - a.param("p")), "x0 - p");
    let shared = Formula::build(1, &[], |a| (a.x(0) + 1.0).exp() * (a.x(0) + 1.0));
    assert_eq!(shared.nodes.len(), 5);
}

fn formulas() -> Vec<Formula> {
    let ps = &["p", "q"];
    vec![
        Formula::build(2, ps, |a| a.x(0) + a.x(1)),
        Formula::build(2, ps, |a| a.x(0).max(a.x(1))),
        Formula::build(2, ps, |a| a.x(0) * a.param("p")),
        Formula::build(2, ps, |a| a.param("p") - a.x(1)),
        Formula::build(2, ps, |a| -a.x(1)),
        Formula::build(2, ps, |a| a.x(1)),
        Formula::build(2, ps, |a| a.param("p") * a.param("q") + 1.0),
        Formula::build(2, ps, |a| a.x(0).gt(a.x(1)).select(a.x(0) * 2.0, a.x(1) - a.param("q")).abs()),
        Formula::build(2, ps, |a| a.x(0).lt(a.x(1))),
        Formula::build(2, ps, |a| {
            (a.x(0) * a.x(0) + a.x(1) * (a.param("p") + a.param("q"))).min(a.x(0) + 3.0)
        }),
    ]
}

/// The formula node by node for one element, in the arithmetic of `T`.
fn plainly<T: Elem>(f: &Formula, x: [T; 2], params: &[f64]) -> T {
    use crate::Node;
    let mut values: Vec<T> = Vec::new();
    for node in &f.nodes {
        let at = |id: u32| values[id as usize];
        let mut out = [T::default()];
        match *node {
            Node::Input(i) => out[0] = x[i as usize],
            Node::Param(p) => out[0] = T::from_f64(params[p as usize]),
            Node::Const(v) => out[0] = T::from_f64(v),
            Node::Unary(op, a) => mxrs_simd::unary(op, &[at(a)], &mut out),
            Node::Binary(op, a, b) => mxrs_simd::binary(op, &[at(a)], &[at(b)], &mut out),
            Node::Select(c, a, b) => out[0] = if at(c) != T::default() { at(a) } else { at(b) },
        }
        values.push(out[0]);
    }
    values[values.len() - 1]
}

fn check_broadcast<T: Elem>(random: &mut Random, f: &Formula, dims: &[usize]) {
    let n: usize = dims.iter().product();
    let mut arrays: Vec<(Vec<T>, Vec<usize>)> = Vec::new();
    for _ in 0..2 {
        let kind = random.below(4);
        let mut strides = vec![0; dims.len()];
        let mut size = 1;
        let order: Vec<usize> =
            if kind == 3 { (0..dims.len()).collect() } else { (0..dims.len()).rev().collect() };
        for d in order {
            // Kind 0 is laid out as the output, 1 broadcasts some dimensions, 2 all, 3 is transposed.
            let repeat = kind == 2 || kind == 1 && random.below(2) == 0;
            if !repeat {
                strides[d] = size;
                size *= dims[d];
            }
        }
        let data =
            (0..size.max(1)).map(|_| T::from_f64((random.next() * 20.0).floor() * 0.5 - 4.0)).collect();
        arrays.push((data, strides));
    }
    let params = [1.5, -2.0];
    let ins: Vec<Operand> =
        arrays.iter().map(|(d, s)| Operand { ptr: d.as_ptr().cast(), strides: s }).collect();
    let mut out = vec![T::default(); n];
    let mut flags = vec![false; n];
    // SAFETY: arrays were made for their strides.
    unsafe {
        f.eval(T::DTYPE, &params, dims, &ins, out.as_mut_ptr().cast(), T::DTYPE);
        f.eval(T::DTYPE, &params, dims, &ins, flags.as_mut_ptr().cast(), DType::Bool);
    }
    for flat in 0..n {
        let element = |(data, strides): &(Vec<T>, Vec<usize>)| {
            let (mut rest, mut offset) = (flat, 0);
            for d in (0..dims.len()).rev() {
                offset += rest % dims[d] * strides[d];
                rest /= dims[d];
            }
            data[offset]
        };
        let want = plainly(f, [element(&arrays[0]), element(&arrays[1])], &params);
        let got = out[flat];
        let near = T::DTYPE == DType::F16
            && (got.to_f64() - want.to_f64()).abs() <= 4e-3 * want.to_f64().abs() + 0.01;
        let what =
            || format!("{} {} {dims:?} {:?} at {flat}", T::DTYPE, f.text(), [&arrays[0].1, &arrays[1].1]);
        assert!(got == want || near, "{}: {got:?}, not {want:?}", what());
        if !near {
            assert_eq!(flags[flat], want != T::default(), "{}", what());
        }
    }
}

#[test]
fn broadcasting() {
    let mut random = Random(7);
    let formulas = formulas();
    for round in 0..40 {
        let ndim = random.below(5);
        let dims: Vec<usize> = (0..ndim).map(|_| [1, 2, 3, 5, 17, 70][random.below(6)]).collect();
        if dims.iter().product::<usize>() > 30_000 {
            continue;
        }
        for f in &formulas {
            let dtype = DType::ALL[(round + random.below(3)) % 8];
            dispatch!(dtype, T => check_broadcast::<T>(&mut random, f, &dims));
            check_broadcast::<f32>(&mut random, f, &dims);
        }
    }
    for f in &formulas {
        check_broadcast::<f32>(&mut random, f, &[300, 257]);
        check_broadcast::<f64>(&mut random, f, &[400_001]);
        check_broadcast::<f16>(&mut random, f, &[0, 3]);
    }
}

#[test]
fn in_place() {
    for f in formulas() {
        for n in [1, 10, 5000] {
            let a: Vec<f32> = (0..n).map(|i| i as f32 * 0.25 - 3.0).collect();
            let b: Vec<f32> = (0..n).map(|i| 2.0 - (i % 7) as f32).collect();
            let run = |out: Option<usize>| {
                let (mut a, mut b, mut c) = (a.clone(), b.clone(), vec![0.0f32; n]);
                let (pa, pb) = (a.as_mut_ptr(), b.as_mut_ptr());
                let strides: &[usize] = &[1];
                let ins = [pa, pb].map(|p| Operand { ptr: p.cast_const().cast(), strides });
                let to = [Some(pa), Some(pb), Some(c.as_mut_ptr())][out.unwrap_or(2)].unwrap();
                // SAFETY: n elements each; the output is one of the inputs or its own.
                unsafe { f.eval(DType::F32, &[1.5, -2.0], &[n], &ins, to.cast(), DType::F32) };
                vec![a, b, c].swap_remove(out.unwrap_or(2))
            };
            assert!(run(Some(0)) == run(None) && run(Some(1)) == run(None), "{}", f.text());
        }
    }
}

#[test]
fn parameters_take_the_type_first() {
    let f = Formula::build(1, &["s"], |a| a.x(0) + a.param("s"));
    let (x, mut out) = ([1i32, 2, 3], [0i32; 3]);
    let ins = [Operand { ptr: x.as_ptr().cast(), strides: &[1] }];
    // SAFETY: three elements each.
    unsafe { f.eval(DType::I32, &[0.5], &[3], &ins, out.as_mut_ptr().cast(), DType::I32) };
    assert_eq!(out, x);
    let _ = f16::ONE;
}

#[test]
fn many_registers_leave_the_stack() {
    // Two hundred values alive at once.
    let f = Formula::build(1, &[], |a| {
        let terms: Vec<E> = (0..200).map(|i| (a.x(0) + i as f64).sqrt()).collect();
        let forward = terms.iter().fold(a.c(0.0), |s, t| s + *t);
        terms.iter().rev().fold(forward, |s, t| s * 0.5 + *t)
    });
    let x: Vec<f64> = (0..1000).map(|i| i as f64).collect();
    let mut out = vec![0.0f64; x.len()];
    let ins = [Operand { ptr: x.as_ptr().cast(), strides: &[1] }];
    // SAFETY: a thousand elements each.
    unsafe { f.eval(DType::F64, &[], &[x.len()], &ins, out.as_mut_ptr().cast(), DType::F64) };
    for (x, y) in x.iter().zip(&out) {
        let terms: Vec<f64> = (0..200).map(|i| (x + i as f64).sqrt()).collect();
        let forward: f64 = terms.iter().sum();
        let want = terms.iter().rev().fold(forward, |s, t| s * 0.5 + t);
        assert!((y - want).abs() < 1e-9);
    }
}

#[test]
fn wgsl_text() {
    let f = Formula::build(2, &["p"], |a| (a.x(0) * a.param("p")).tanh().max(a.x(1)));
    let body = f.wgsl(&["a[i]", "b[i]"], &["args.p"]);
    assert!(body.contains("let t0: f32 = a[i];") && body.contains("let result: f32 = mx_max("), "{body}");
    let helpers = f.wgsl_helpers();
    assert!(helpers.contains("fn mx_tanh(") && helpers.contains("fn mx_max("), "{helpers}");
    for op in Unary::ALL {
        let f = Formula::build(1, &[], |a| E::unary(*op, a.x(0)));
        let (body, helpers) = (f.wgsl(&["x"], &[]), f.wgsl_helpers());
        for called in body.split("mx_").skip(1).map(|s| s.split('(').next().unwrap()) {
            assert!(helpers.contains(&format!("fn mx_{called}(")), "{op:?} calls mx_{called}");
        }
    }
}

#[test]
fn signs_are_told_from_the_nodes() {
    let relu = Formula::build(1, &[], |a| a.x(0).gt(0.0).select(a.x(0), 0.0));
    let leaky = Formula::build(1, &["slope"], |a| a.x(0).gt(0.0).select(a.x(0), a.param("slope") * a.x(0)));
    assert!(
        relu.keeps_sign(&[])
            && leaky.keeps_sign(&[0.1])
            && Formula::build(1, &[], |a| a.x(0).relu()).keeps_sign(&[])
    );
    assert!(!leaky.keeps_sign(&[-0.1]), "a negative slope turns signs round");
    assert!(!Formula::build(1, &[], |a| a.x(0).gt(0.0).select(a.x(0), 1.0)).keeps_sign(&[]));
    assert!(!Formula::build(1, &[], |a| a.x(0).gt(1.0).select(a.x(0), 0.0)).keeps_sign(&[]));
    for f in [relu, leaky] {
        let slope = f.derivative(0).unwrap();
        assert!(slope.reads_only_sign(1), "{}", slope.text());
        assert!(!slope.reads_only_sign(0) && !slope.reads_only_sign(2), "{}", slope.text());
    }
    let square = Formula::build(1, &[], |a| a.x(0).square()).derivative(0).unwrap();
    assert!(!square.reads_only_sign(1));
}
