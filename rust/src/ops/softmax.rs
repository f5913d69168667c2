//! Softmax along an axis, its logarithm and its negative, and the fused cross-entropy.
//!
//! The layers that only make a loss out of a softmax (SoftmaxOutput) are in the loss family.

use super::registry::Registry;
use super::{
    Attrs, Build, Ctx, GpuCtx, GradArgs, Grads, Param, Sig, Spec, Specs, Value, Values, choice, draw, dtype,
    flag,
};
use super::{float, int, one};
use crate::shaders::softmax as shaders;
use mxrs_base::{DType, Elem, Error, Result, Shape, dispatch_float};
use mxrs_kernels::parts;
use mxrs_kernels::real::Float;
use mxrs_kernels::softmax::{self as kernels, Kind};

const KINDS: &[&str] = &["softmax", "log_softmax", "softmin"];

pub fn register(r: &mut Registry) {
    let row: [(&'static str, &'static [&'static str], &'static str); 3] = [
        ("softmax", &["_npx_softmax"], "exp(x / temperature) divided by its sum along `axis`."),
        (
            "log_softmax",
            &["_npx_log_softmax"],
            "The logarithm of the softmax along `axis`, accurate for small ones.",
        ),
        ("softmin", &[], "The softmax of the negated input along `axis`."),
    ];
    for (name, aliases, doc) in row {
        public(r, name, aliases, doc);
    }
    backward(r);
    softmax_activation(r);
    cross_entropy(r);
}

fn kind(name: &str) -> Kind {
    match name {
        "log_softmax" => Kind::LogSoftmax,
        "softmin" => Kind::Softmin,
        _ => Kind::Softmax,
    }
}

fn nullable_flag(name: &'static str, doc: &'static str) -> Param {
    let mut param = flag(name, doc).or_none();
    param.default = Some(false.into());
    param
}

fn public(r: &mut Registry, name: &'static str, aliases: &'static [&'static str], doc: &'static str) {
    let op = r.op(name, doc).alias(aliases).method(&[name]).input("data", "values of any shape");
    if name == "softmax" {
        op.input(
            "length",
            "with use_length: how many elements of each row count; the shape of data without `axis`",
        )
        .input_count(|a| 1 + usize::from(a.bool("use_length")));
    }
    op.params([
        int("axis", "the axis along which the results sum to 1").or(-1i64),
        float("temperature", "divides the input first; None is 1").or_none(),
        dtype("dtype", "the element type of the result; None is the input's").or_none(),
        nullable_flag("use_length", "rows have the lengths of the second input"),
    ])
    .infer(infer)
    .kernel(forward)
    .gpu(forward_on_gpu)
    .keeps(&[1], &[0])
    .grad(rule)
    .cost(|s, _| s.shape(0).size() as f64 * 1.5)
    .sample(&[draw(&[2, 3])], &[])
    .sample(&[draw(&[2, 3, 2])], &[("axis", 1i64.into()), ("temperature", 1.7.into())]);
    if name == "softmax" {
        let length = draw(&[2]).indices(4).of(DType::I32);
        op.sample(&[draw(&[2, 3]), length], &[("use_length", true.into())]);
    }
}

fn infer(s: &Sig) -> Result<Specs> {
    let from = s.expect_float(0)?;
    let to = s.attrs.opt_dtype("dtype").unwrap_or(from);
    if !to.is_float() {
        return Err(s.fail(format!("argument dtype = {to}; float16, float32 and float64 are allowed")));
    }
    let axis = s.axis(0, s.attrs.int("axis"))?;
    if s.attrs.bool("use_length") {
        if s.ins.len() < 2 {
            return Err(s.fail("argument use_length = True; only softmax takes lengths"));
        }
        if !matches!(s.dtype(1), DType::I32 | DType::I64) {
            return Err(s.fail(format!("length is {}; int32 and int64 are allowed", s.dtype(1))));
        }
        let mut rows = s.shape(0).clone();
        rows.remove(axis);
        s.expect_shape(1, &rows)?;
    }
    s.one(s.shape(0).clone(), to)
}

fn temperature(a: &Attrs) -> f64 {
    a.opt_float("temperature").unwrap_or(1.0)
}

fn forward(c: &Ctx) -> Result<()> {
    let axis = c.shape(0).axis(c.attrs.int("axis"))?;
    let lengths = c.attrs.bool("use_length").then(|| c.indices(1));
    let job = Job {
        kind: kind(c.op.name),
        around: c.shape(0).around(axis),
        temperature: temperature(c.attrs),
        lengths: lengths.as_deref(),
    };
    dispatch_float!(c.dtype(0), T => dispatch_float!(c.out_dtype(0), O => {
        job.run(c.x::<T>(0), c.y::<O>(0));
        Ok(())
    }, else c.bad_dtype(c.out_dtype(0))), else c.bad_dtype(c.dtype(0)))
}

fn forward_on_gpu(c: &GpuCtx) -> Result<()> {
    let around = c.shape(0).around(c.shape(0).axis(c.attrs.int("axis"))?);
    let lengths = c.attrs.bool("use_length").then(|| c.x(1));
    let temperature = temperature(c.attrs);
    shaders::launch_softmax(
        c.device,
        kind(c.op.name),
        around,
        temperature,
        c.x(0),
        lengths,
        c.y(0),
        c.op.name,
    )
}

struct Job<'a> {
    kind: Kind,
    around: (usize, usize, usize),
    temperature: f64,
    lengths: Option<&'a [i64]>,
}

impl Job<'_> {
    /// Computes in the wider of the two types.
    fn run<T: Float, O: Float>(&self, x: &[T], out: &mut [O]) {
        if size_of::<O>() >= size_of::<T>() {
            let mut wide = Vec::new();
            self.same(converted(x, &mut wide), out);
        } else {
            let mut wide = vec![T::default(); x.len()];
            self.same(x, &mut wide);
            mxrs_simd::cast(&wide, out);
        }
    }

    fn same<T: Float>(&self, x: &[T], out: &mut [T]) {
        kernels::softmax(self.kind, x, self.around, self.temperature, self.lengths, out);
    }
}

/// `x` as elements of `O`: itself where the types are equal, else a copy in `buf`.
fn converted<'a, T: Elem, O: Elem>(x: &'a [T], buf: &'a mut Vec<O>) -> &'a [O] {
    parts::same_type(x).unwrap_or_else(|| {
        buf.resize(x.len(), O::default());
        mxrs_simd::cast(x, buf);
        buf
    })
}

fn rule(b: &mut dyn Build, g: &GradArgs) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let mut inputs = vec![g.outs[0], head];
    inputs.extend(g.ins.get(1));
    let attrs = [
        ("kind", g.op.name.into()),
        ("axis", g.attrs.get("axis").clone()),
        ("temperature", temperature(g.attrs).into()),
        ("use_length", g.attrs.bool("use_length").into()),
    ];
    let to = b.dtype(g.ins[0]);
    let grad = b.op1("_backward_softmax", &inputs, &attrs)?;
    let grad = b.cast(grad, to)?;
    g.first(grad)
}

fn backward(r: &mut Registry) {
    r.op("_backward_softmax", "The gradient of a softmax from its result.")
        .input("y", "the result of the forward pass")
        .input("head", "its gradient")
        .input("length", "with use_length: the rows' lengths")
        .input_count(|a| 2 + usize::from(a.bool("use_length")))
        .params([
            choice("kind", KINDS, "which function").or("softmax"),
            int("axis", "its axis").or(-1i64),
            float("temperature", "its temperature").or(1.0),
            flag("use_length", "rows have lengths").or(false),
        ])
        .hidden()
        .infer(|s| {
            s.expect_float(0)?;
            s.axis(0, s.attrs.int("axis"))?;
            if s.dtype(1) != s.dtype(0) || s.shape(1) != s.shape(0) {
                return Err(s.fail("head must be like y"));
            }
            if let Some(length) = s.ins.get(2)
                && length.shape.size().checked_mul(s.shape(0)[s.axis(0, s.attrs.int("axis"))?])
                    != Some(s.shape(0).size())
            {
                return Err(s.fail("length must have one number per row"));
            }
            s.same(0)
        })
        .kernel(|c| {
            let axis = c.shape(0).axis(c.attrs.int("axis"))?;
            let lengths = c.attrs.bool("use_length").then(|| c.indices(2));
            let (kind, temperature) = (kind(c.attrs.str("kind")), c.attrs.float("temperature"));
            let around = c.shape(0).around(axis);
            dispatch_float!(c.dtype(0), T => {
                let (y, head) = (c.x::<T>(0), c.x::<T>(1));
                kernels::softmax_grad(kind, y, head, around, temperature, lengths.as_deref(), c.y::<T>(0));
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .gpu(|c| {
            let around = c.shape(0).around(c.shape(0).axis(c.attrs.int("axis"))?);
            let lengths = c.attrs.bool("use_length").then(|| c.x(2));
            let (kind, temperature) = (kind(c.attrs.str("kind")), c.attrs.float("temperature"));
            let pair = (c.x(0), c.x(1));
            shaders::launch_softmax_grad(
                c.device,
                kind,
                around,
                temperature,
                pair,
                lengths,
                c.y(0),
                c.op.name,
            )
        })
        .equivalent(backward_equivalent)
        .sample(&[draw(&[2, 3]).within(0.1, 0.9), draw(&[2, 3])], &[]);
}

/// Masked elements have y = 0, so that their gradient is 0 here as well (use_length goes with softmax alone).
fn backward_equivalent(b: &mut dyn Build, a: &Attrs, v: &[Value]) -> Result<Values> {
    let (y, head, axis) = (v[0], v[1], [a.int("axis")]);
    let kind = kind(a.str("kind"));
    let scale = if kind == Kind::Softmin { -1.0 } else { 1.0 } / a.float("temperature");
    let slope = if kind == Kind::LogSoftmax {
        let total = b.sum(head, &axis, true)?;
        let p = b.unary("exp", y)?;
        let share = b.mul(p, total)?;
        b.sub(head, share)?
    } else {
        let product = b.mul(y, head)?;
        let total = b.sum(product, &axis, true)?;
        let centred = b.sub(head, total)?;
        b.mul(y, centred)?
    };
    Ok(one(b.scale(slope, scale)?))
}

fn softmax_activation(r: &mut Registry) {
    r.op("SoftmaxActivation", "The softmax along the last axis, or over channels.")
        .keeps_shape()
        .input("data", "values, shape (batch, ...)")
        .param(
            choice("mode", &["channel", "instance"], "channel: along axis 1; instance: along the last axis")
                .or("instance"),
        )
        .infer(|s| {
            s.expect_float(0)?;
            s.expect_ndim(0, if s.attrs.str("mode") == "channel" { 3 } else { 1 }..=usize::MAX)?;
            s.same(0)
        })
        .compose(|b, a, v| {
            let shape = b.shape(v[0]).clone();
            if a.str("mode") == "channel" {
                if shape.ndim() < 3 {
                    return Err(Error::op(format!(
                        "SoftmaxActivation: mode = 'channel' needs at least 3 dimensions; data has shape {shape}"
                    )));
                }
                return b.op("softmax", v, &[("axis", 1i64.into())]);
            }
            b.op("softmax", v, &[])
        })
        .sample(&[draw(&[2, 3])], &[])
        .sample(&[draw(&[2, 3, 2])], &[("mode", "channel".into())]);
}

fn cross_entropy(r: &mut Registry) {
    r.op("softmax_cross_entropy", "The sum over rows of -log(softmax(data)[label]).")
        .input("data", "activations, shape (rows, classes)")
        .input("label", "class numbers, shape (rows,)")
        .infer(|s| {
            check_rows(s)?;
            s.shaped(Shape::new(&[1]))
        })
        .kernel(|c| {
            let labels = classes(c)?;
            let n = c.shape(0)[1];
            dispatch_float!(c.dtype(0), T => {
                let loss = kernels::softmax_cross_entropy(c.x::<T>(0), &labels, n);
                c.y::<T>(0)[0] = <T as Elem>::from_f64(loss);
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        // A GPU cannot refuse a label: one that is no class gives not-a-number.
        .gpu(|c| {
            let sizes = (c.shape(0)[0], c.shape(0)[1]);
            shaders::launch_cross_entropy(c.device, sizes, c.x(0), c.x(1), c.y(0), c.op.name)
        })
        .complete(|_, shapes| {
            if let (Some(data), None) = (&shapes[0], &shapes[1])
                && data.ndim() == 2
            {
                shapes[1] = Some(Shape::new(&[data[0]]));
            }
            Ok(())
        })
        .keeps(&[0, 1], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let grad = b.op1("_backward_softmax_cross_entropy", &[g.ins[0], g.ins[1], head], &[])?;
            g.first(grad)
        })
        .cost(exponentials)
        .sample(&[draw(&[2, 3]), draw(&[2]).indices(3)], &[]);
    r.op("_backward_softmax_cross_entropy", "(softmax(data) - onehot(label)) * head.")
        .input("data", "activations, shape (rows, classes)")
        .input("label", "class numbers, shape (rows,)")
        .input("head", "the gradient of the loss, shape (1,)")
        .hidden()
        .infer(|s| {
            check_rows(s)?;
            s.expect_shape(2, &Shape::new(&[1]))?;
            if s.dtype(2) != s.dtype(0) {
                return Err(s.fail("head and data must be of one type"));
            }
            s.same(0)
        })
        .kernel(|c| {
            let labels = classes(c)?;
            let n = c.shape(0)[1];
            dispatch_float!(c.dtype(0), T => {
                let head = c.x::<T>(2)[0].to_f64();
                kernels::softmax_cross_entropy_grad(c.x::<T>(0), &labels, n, head, c.y::<T>(0));
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .gpu(|c| {
            let (sizes, ins) = ((c.shape(0)[0], c.shape(0)[1]), (c.x(0), c.x(1), c.x(2)));
            shaders::launch_cross_entropy_grad(c.device, sizes, ins, c.y(0), c.op.name)
        })
        .equivalent(|b, _, v| {
            let (n, dtype) = (b.shape(v[0])[1], b.dtype(v[0]));
            let p = b.op1("softmax", &[v[0]], &[])?;
            let hot = b.op1("one_hot", &[v[1]], &[("depth", n.into()), ("dtype", dtype.into())])?;
            let slope = b.sub(p, hot)?;
            Ok(one(b.mul(slope, v[2])?))
        })
        .cost(exponentials)
        .sample(&[draw(&[2, 3]), draw(&[2]).indices(3), draw(&[1])], &[]);
}

fn exponentials(s: &Sig, _: &[Spec]) -> f64 {
    s.shape(0).size() as f64 * 1.5
}

fn check_rows(s: &Sig) -> Result<()> {
    s.expect_float(0)?;
    s.expect_ndim(0, 2..=2)?;
    s.expect_shape(1, &Shape::new(&[s.shape(0)[0]]))
}

/// The labels, each of which must be a class.
fn classes(c: &Ctx) -> Result<Vec<i64>> {
    let n = c.shape(0)[1] as i64;
    let labels = c.indices(1);
    match labels.iter().find(|l| !(0..n).contains(*l)) {
        None => Ok(labels),
        Some(l) => Err(c.fail(format!("label {l} is not a class; 0 to {} are allowed", n - 1))),
    }
}
