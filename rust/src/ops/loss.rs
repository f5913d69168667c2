//! Output layers: what they give is a prediction, and their gradient is that of a loss, whatever the head gradient is.
//! CTC, whose output is the loss itself, is here too.

mod ctc;

use super::registry::Registry;
use super::{
    Attrs, Build, Ctx, GpuCtx, GradArgs, Grads, OpBuilder, Shapes, Sig, Specs, Value, choice, draw, flag,
    float,
};
use crate::shaders::{copy as copies, map::launch_map, softmax as shaders};
use mxrs_base::{DType, Result, Shape, dispatch_float};
use mxrs_formula::Formula;
use mxrs_kernels::softmax::{self as kernels, Kind, Normalization, OutputGrad};

pub fn register(r: &mut Registry) {
    softmax_output(r);
    softmax_output_backward(r);
    regressions(r);
    svm(r);
    make_loss(r);
    ctc::register(r);
}

const NORMALIZATIONS: &[&str] = &["batch", "null", "valid"];

fn normalization() -> super::Param {
    choice(
        "normalization",
        NORMALIZATIONS,
        "what the gradient is divided by: batch: the batch size; valid: the number of valid entries; null: nothing",
    )
    .or("null")
}

fn softmax_output(r: &mut Registry) {
    r.op("SoftmaxOutput", "The softmax of data, with the gradient of its cross-entropy with the labels.")
        .input("data", "activations, shape (batch, classes), or with classes on axis 1 or last")
        .input("label", "class numbers, of data's shape without classes, or probabilities of data's shape")
        .params([
            float("grad_scale", "multiplies the gradient").or(1.0),
            float("ignore_label", "with use_ignore: the label whose positions get no gradient").or(-1.0),
            flag("multi_output", "classes are on axis 1").or(false),
            flag("use_ignore", "positions labelled ignore_label get no gradient").or(false),
            flag("preserve_shape", "the softmax runs along the last axis").or(false),
            normalization(),
            flag("out_grad", "multiplies the gradient by the output").or(false),
            float("smooth_alpha", "probability that the label gives away to the other classes").or(0.0),
        ])
        .alias(&["Softmax"])
        .infer(|s| {
            s.expect_float(0)?;
            s.expect_ndim(0, 2..=usize::MAX)?;
            check_labels(s, 0, 1)?;
            s.same(0)
        })
        .complete(|a, shapes| {
            if let (Some(data), None) = (&shapes[0], &shapes[1])
                && data.ndim() >= 2
            {
                let mut label = data.clone();
                label.remove(if a.bool("multi_output") { 1 } else { data.ndim() - 1 });
                shapes[1] = Some(label);
            }
            Ok(())
        })
        .kernel(|c| {
            let around = output_around(c.attrs, c.shape(0));
            dispatch_float!(c.dtype(0), T => {
                kernels::softmax(Kind::Softmax, c.x::<T>(0), around, 1.0, None, c.y::<T>(0));
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .gpu(|c| {
            let around = output_around(c.attrs, c.shape(0));
            shaders::launch_softmax(c.device, Kind::Softmax, around, 1.0, c.x(0), None, c.y(0), c.op.name)
        })
        .keeps(&[1], &[0])
        .grad(softmax_output_rule)
        .cost(|s, _| s.shape(0).size() as f64 * 1.5)
        .sample(&[draw(&[2, 3]), draw(&[2]).indices(3)], &[])
        .sample(
            &[draw(&[2, 3, 2]), draw(&[2, 2]).indices(3)],
            &[("multi_output", true.into()), ("normalization", "valid".into())],
        );
}

/// The softmax runs along the classes, or along all of a sample.
fn output_around(a: &Attrs, x: &Shape) -> (usize, usize, usize) {
    match (a.bool("multi_output"), a.bool("preserve_shape")) {
        (true, _) => x.around(1),
        (_, true) => x.around(x.ndim() - 1),
        _ => (x[0], x[1..].iter().product(), 1),
    }
}

/// Labels have data's shape, or that without the axis of classes (the other axes of multi_output may be merged).
fn check_labels(s: &Sig, data: usize, label: usize) -> Result<()> {
    let (data, label) = (s.shape(data), s.shape(label));
    let mut rows = data.clone();
    let multi = s.attrs.bool("multi_output");
    rows.remove(if multi { 1 } else { data.ndim() - 1 });
    let merged = multi && label.ndim() >= 2 && label[0] == data[0] && label.size() == rows.size();
    if label == data || *label == rows || merged {
        return Ok(());
    }
    Err(s.fail(format!(
        "label has shape {label}; {rows} (class numbers) or {data} (probabilities) is expected"
    )))
}

/// Only the product with the output depends on `out_grad`: MXNet takes the output there, not the head gradient.
fn softmax_output_rule(b: &mut dyn Build, g: &GradArgs) -> Result<Grads> {
    if g.heads[0].is_none() {
        return Ok(g.none());
    }
    let (out, label) = (g.outs[0], g.ins[1]);
    let mut grad = if b.shape(out) == b.shape(label) {
        let to = b.dtype(out);
        let label = b.cast(label, to)?;
        let diff = b.sub(out, label)?;
        b.scale(diff, g.attrs.float("grad_scale"))?
    } else {
        let label = match b.dtype(label) {
            of if label_dtype(of) => label,
            DType::I64 => b.cast(label, DType::F64)?,
            _ => b.cast(label, DType::F32)?,
        };
        let names =
            ["grad_scale", "ignore_label", "multi_output", "use_ignore", "normalization", "smooth_alpha"];
        let attrs = names.map(|name| (name, g.attrs.get(name).clone()));
        b.op1("_backward_SoftmaxOutput", &[out, label], &attrs)?
    };
    if g.attrs.bool("out_grad") {
        grad = b.mul(grad, out)?;
    }
    g.first(grad)
}

fn softmax_output_backward(r: &mut Registry) {
    r.op("_backward_SoftmaxOutput", "(out - onehot(label)) times the scales of SoftmaxOutput.")
        .input("out", "probabilities")
        .input("label", "class numbers: float32, float64 or int32")
        .params([
            float("grad_scale", "multiplies the gradient").or(1.0),
            float("ignore_label", "the label without gradient").or(-1.0),
            flag("multi_output", "classes are on axis 1").or(false),
            flag("use_ignore", "ignore_label counts").or(false),
            normalization(),
            float("smooth_alpha", "probability that the label gives away").or(0.0),
        ])
        .hidden()
        .infer(|s| {
            s.expect_float(0)?;
            s.expect_ndim(0, 2..=usize::MAX)?;
            check_labels(s, 0, 1)?;
            if !label_dtype(s.dtype(1)) || s.shape(0) == s.shape(1) {
                return Err(s.fail("labels must be class numbers as float32, float64 or int32"));
            }
            s.same(0)
        })
        .kernel(|c| {
            let (how, around) = output_grad(c.attrs, c.shape(0));
            dispatch_float!(c.dtype(0), T => {
                let (p, dx) = (c.x::<T>(0), c.y::<T>(0));
                match c.dtype(1) {
                    DType::F32 => kernels::softmax_output_grad(p, c.x::<f32>(1), around, &how, dx),
                    DType::I32 => kernels::softmax_output_grad(p, c.x::<i32>(1), around, &how, dx),
                    _ => kernels::softmax_output_grad(p, c.x::<f64>(1), around, &how, dx),
                }
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .gpu(|c| {
            let (how, around) = output_grad(c.attrs, c.shape(0));
            shaders::launch_output_grad(c.device, &how, around, c.x(0), c.x(1), c.y(0), c.op.name)
        })
        .sample(&[draw(&[2, 3]).within(0.1, 0.9), draw(&[2]).indices(3)], &[])
        .sample(&[draw(&[2, 3]).within(0.1, 0.9), draw(&[2]).indices(3).of(DType::F64)], &[]);
}

/// The types of labels that the gradient takes as they are.
fn label_dtype(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::I32)
}

fn output_grad(a: &Attrs, x: &Shape) -> (OutputGrad, (usize, usize, usize)) {
    let multi_output = a.bool("multi_output");
    let how = OutputGrad {
        grad_scale: a.float("grad_scale"),
        ignore_label: a.float("ignore_label"),
        use_ignore: a.bool("use_ignore"),
        multi_output,
        normalization: match a.str("normalization") {
            "batch" => Normalization::Batch,
            "valid" => Normalization::Valid,
            _ => Normalization::Null,
        },
        smooth_alpha: a.float("smooth_alpha"),
    };
    (how, x.around(if multi_output { 1 } else { x.ndim() - 1 }))
}

/// Writes input 0 to output 0.
fn copy(c: &Ctx) -> Result<()> {
    c.y_bytes(0).copy_from_slice(c.x_bytes(0));
    Ok(())
}

fn copy_on_gpu(c: &GpuCtx) -> Result<()> {
    copies::launch_cast(c.device, c.shape(0).size(), c.x(0), c.y(0), c.op.name)
}

fn regressions(r: &mut Registry) {
    let op = r.op("LinearRegressionOutput", "data itself, with the gradient of half the squared error.");
    regression(op, "_sparse_LinearRegressionOutput")
        .kernel(copy)
        .gpu(copy_on_gpu)
        .grad(|b, g| slope(b, g, |_, diff| Ok(diff)));
    let op = r.op("MAERegressionOutput", "data itself, with the gradient of the absolute error.");
    regression(op, "_sparse_MAERegressionOutput")
        .kernel(copy)
        .gpu(copy_on_gpu)
        .grad(|b, g| slope(b, g, |b, diff| b.unary("sign", diff)));
    let op = r.op("LogisticRegressionOutput", "sigmoid(data), with the gradient of the cross-entropy.");
    regression(op, "_sparse_LogisticRegressionOutput")
        .kernel(|c| {
            dispatch_float!(c.dtype(0), T => {
                mxrs_simd::unary(mxrs_simd::Unary::Sigmoid, c.x::<T>(0), c.y::<T>(0));
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .gpu(|c| {
            let formula = Formula::build(1, &[], |a| a.x(0).sigmoid());
            let (x, y) = (c.x(0).strided(&[1]), c.y(0).strided(&[1]));
            launch_map(c.device, &formula, &[], &[c.shape(0).size()], &[x], y, c.op.name)
        })
        .grad(|b, g| slope(b, g, |_, diff| Ok(diff)));
}

fn regression<'a>(op: &'a mut OpBuilder, alias: &'static str) -> &'a mut OpBuilder {
    op.input("data", "predictions, shape (batch, ...)")
        .input("label", "targets, as many as predictions")
        .param(float("grad_scale", "multiplies the gradient").or(1.0))
        .alias(&[alias])
        .infer(|s| {
            s.expect_float(0)?;
            let (data, label) = (s.shape(0), s.shape(1));
            let fits = data.size() == label.size() && data.first() == label.first();
            if !fits {
                return Err(s.fail(format!("label has shape {label}; {data} is expected")));
            }
            s.same(0)
        })
        .complete(|_, shapes| {
            if let (Some(data), None) = (&shapes[0], &shapes[1]) {
                let column = data.ndim() == 2 && data[1] == 1;
                shapes[1] = Some(if column { Shape::new(&[data[0]]) } else { data.clone() });
            }
            Ok(())
        })
        .keeps(&[1], &[0])
        .sample(&[draw(&[2, 3]), draw(&[2, 3])], &[])
        .sample(&[draw(&[3, 1]), draw(&[3])], &[("grad_scale", 2.0.into())])
}

/// `f(out - label)` times grad_scale over the number of targets of a sample.
fn slope(b: &mut dyn Build, g: &GradArgs, f: fn(&mut dyn Build, Value) -> Result<Value>) -> Result<Grads> {
    if g.heads[0].is_none() {
        return Ok(g.none());
    }
    let (shape, to) = (b.shape(g.outs[0]).clone(), b.dtype(g.outs[0]));
    let label = b.cast(g.ins[1], to)?;
    let label = b.reshape(label, &shape)?;
    let diff = b.sub(g.outs[0], label)?;
    let grad = f(b, diff)?;
    let per_sample = shape.iter().skip(1).product::<usize>().max(1);
    let grad = b.scale(grad, g.attrs.float("grad_scale") / per_sample as f64)?;
    g.first(grad)
}

fn svm(r: &mut Registry) {
    r.op("SVMOutput", "data itself, with the gradient of the hinge loss of each class against the others.")
        .input("data", "scores, shape (batch, ..., classes)")
        .input("label", "class numbers, data's shape without the last axis")
        .params([
            float("margin", "the margin").or(1.0),
            float("regularization_coefficient", "multiplies the gradient").or(1.0),
            flag("use_linear", "the hinge loss instead of its square").or(false),
        ])
        .infer(|s| {
            s.expect_float(0)?;
            s.expect_ndim(0, 2..=usize::MAX)?;
            let mut rows = s.shape(0).clone();
            rows.remove(rows.ndim() - 1);
            s.expect_shape(1, &rows)?;
            s.same(0)
        })
        .complete(|_, shapes| {
            if let (Some(data), None) = (&shapes[0], &shapes[1])
                && data.ndim() >= 2
            {
                let mut rows = data.clone();
                rows.remove(rows.ndim() - 1);
                shapes[1] = Some(rows);
            }
            Ok(())
        })
        .kernel(copy)
        .gpu(copy_on_gpu)
        .keeps(&[1], &[0])
        .grad(|b, g| {
            if g.heads[0].is_none() {
                return Ok(g.none());
            }
            let (depth, dtype) = (*b.shape(g.outs[0]).last().unwrap_or(&0), b.dtype(g.outs[0]));
            let hot = b.op1("one_hot", &[g.ins[1]], &[("depth", depth.into()), ("dtype", dtype.into())])?;
            let name = if g.attrs.bool("use_linear") { "_hinge_slope" } else { "_square_hinge_slope" };
            let grad = b.op1(name, &[g.outs[0], hot], &[("margin", g.attrs.get("margin").clone())])?;
            let grad = b.scale(grad, g.attrs.float("regularization_coefficient"))?;
            g.first(grad)
        })
        .sample(&[draw(&[2, 3]), draw(&[2]).indices(3)], &[])
        .sample(&[draw(&[2, 3]), draw(&[2]).indices(3)], &[("use_linear", true.into())]);
    let hinge = [draw(&[2, 3]), draw(&[2, 3]).indices(2)];
    // The sign with which a score counts: plus for the label's class, minus for the others.
    r.op("_hinge_slope", "The slope of max(margin - s * data, 0), s = 1 where hot else -1.")
        .input("data", "scores")
        .input("hot", "1 for the label's class, else 0")
        .param(float("margin", "the margin"))
        .formula(Shapes::Same, |a| {
            let sign = a.x(1) * 2.0 - 1.0;
            a.param("margin").gt(a.x(0) * sign).select(-sign, 0.0)
        })
        .hidden()
        .sample(&hinge, &[("margin", 1.5.into())]);
    r.op("_square_hinge_slope", "The slope of max(margin - s * data, 0)^2, s = 1 where hot else -1.")
        .input("data", "scores")
        .input("hot", "1 for the label's class, else 0")
        .param(float("margin", "the margin"))
        .formula(Shapes::Same, |a| {
            let sign = a.x(1) * 2.0 - 1.0;
            (a.param("margin") - a.x(0) * sign).relu() * sign * -2.0
        })
        .hidden()
        .sample(&hinge, &[("margin", 1.5.into())]);
}

fn make_loss(r: &mut Registry) {
    r.op("MakeLoss", "data itself, as a loss: its gradient is grad_scale, whatever the head gradient is.")
        .views()
        .keeps_shape()
        .input("data", "losses, shape (batch, ...)")
        .params([
            float("grad_scale", "the gradient").or(1.0),
            float("valid_thresh", "with normalization = 'valid': entries above it are valid").or(0.0),
            normalization(),
        ])
        .infer(floats)
        .kernel(copy)
        .keeps(&[0], &[])
        .grad(|b, g| {
            if g.heads[0].is_none() {
                return Ok(g.none());
            }
            let ones = b.op1("ones_like", &[g.ins[0]], &[])?;
            let scale = g.attrs.float("grad_scale");
            let grad = match g.attrs.str("normalization") {
                "batch" => {
                    let batch = b.shape(g.ins[0]).first().copied().unwrap_or(1).max(1);
                    b.scale(ones, scale / batch as f64)?
                }
                "valid" => {
                    let threshold = [("scalar", g.attrs.get("valid_thresh").clone())];
                    let valid = b.op1("_greater_scalar", &[g.ins[0]], &threshold)?;
                    let axes: Vec<i64> = (0..b.shape(valid).ndim() as i64).collect();
                    // Not counted in half precision, which ends at 65504.
                    let wide = if b.dtype(valid) == DType::F64 { DType::F64 } else { DType::F32 };
                    let valid = b.cast(valid, wide)?;
                    let count = b.sum(valid, &axes, true)?;
                    let count = b.op1("_maximum_scalar", &[count], &[("scalar", 1.0.into())])?;
                    let share = b.op1("_rdiv_scalar", &[count], &[("scalar", scale.into())])?;
                    let to = b.dtype(ones);
                    let share = b.cast(share, to)?;
                    b.mul(ones, share)?
                }
                _ => b.scale(ones, scale)?,
            };
            g.first(grad)
        })
        .sample(&[draw(&[2, 3])], &[])
        .sample(&[draw(&[2, 3])], &[("normalization", "valid".into()), ("grad_scale", 0.5.into())]);
    r.op("make_loss", "data itself, as a loss: its gradient is 1, whatever the head gradient is.")
        .views()
        .keeps_shape()
        .input("data", "losses of any shape")
        .alias(&["_sparse_make_loss"])
        .output_names(&["loss"])
        .infer(floats)
        .kernel(copy)
        .keeps(&[0], &[])
        .grad(|b, g| {
            if g.heads[0].is_none() {
                return Ok(g.none());
            }
            let ones = b.op1("ones_like", &[g.ins[0]], &[])?;
            g.first(ones)
        })
        .sample(&[draw(&[2, 3])], &[]);
}

fn floats(s: &Sig) -> Result<Specs> {
    s.expect_float(0)?;
    s.same(0)
}
