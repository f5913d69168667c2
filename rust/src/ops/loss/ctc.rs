//! Connectionist temporal classification (Graves and others, 2006) as an operator.

use crate::ops::registry::Registry;
use crate::ops::{Attrs, Ctx, GpuCtx, OpBuilder, Param, Sig, choice, draw, flag};
use crate::shaders::ctc as gpu;
use mxrs_base::{Result, Shape, dispatch_float};
use mxrs_kernels::loss::{self as kernels, Ctc};

pub fn register(r: &mut Registry) {
    let op = r.op("CTCLoss", "The negative log-likelihood of each label sequence over all its alignments.");
    inputs(op)
        .input_count(|a| 2 + lengths(a))
        .input_names(|a| match (a.bool("use_data_lengths"), a.bool("use_label_lengths")) {
            (false, false) => &["data", "label"],
            (true, false) => &["data", "label", "data_lengths"],
            (false, true) => &["data", "label", "label_lengths"],
            (true, true) => &["data", "label", "data_lengths", "label_lengths"],
        })
        .params(params())
        .alias(&["ctc_loss", "_contrib_CTCLoss", "_contrib_ctc_loss"])
        .file_outputs(|_| 2)
        .infer(|s| {
            check(s, 0)?;
            s.shaped(Shape::new(&[s.shape(0)[1]]))
        })
        .kernel(|c| {
            dispatch_float!(c.dtype(0), T => {
                let job = Job::new(c, 0);
                let (data, label) = (job.data_lengths.as_deref(), job.label_lengths.as_deref());
                kernels::ctc_loss(&job.how, c.x::<T>(0), &job.labels, data, label, c.y::<T>(0), None);
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .gpu(|c| {
            let (how, batch) = on_gpu(c, 0);
            gpu::launch_ctc(c.device, &how, batch, c.y(0), c.op.name)
        })
        .keeps(&[0, 1, 2, 3], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let mut inputs = vec![head];
            inputs.extend(g.ins);
            let names = ["use_data_lengths", "use_label_lengths", "blank_label"];
            let attrs = names.map(|name| (name, g.attrs.get(name).clone()));
            let grad = b.op1("_backward_CTCLoss", &inputs, &attrs)?;
            g.first(grad)
        })
        .cost(cost)
        .sample(&[draw(&[4, 2, 3]), draw(&[2, 2]).indices(3)], &[]);
    let op = r.op("_backward_CTCLoss", "The gradient of CTCLoss by its activations.");
    op.input("head", "the gradient of the losses, shape (batch,)");
    inputs(op)
        .input_count(|a| 3 + lengths(a))
        .params(params())
        .hidden()
        .infer(|s| {
            check(s, 1)?;
            s.expect_shape(0, &Shape::new(&[s.shape(1)[1]]))?;
            if s.dtype(0) != s.dtype(1) {
                return Err(s.fail("head and data must be of one type"));
            }
            s.same(1)
        })
        .kernel(|c| {
            dispatch_float!(c.dtype(1), T => {
                let job = Job::new(c, 1);
                let (data, label) = (job.data_lengths.as_deref(), job.label_lengths.as_deref());
                let mut loss = vec![T::default(); job.how.batch];
                let out = c.y::<T>(0);
                kernels::ctc_loss(&job.how, c.x::<T>(1), &job.labels, data, label, &mut loss, Some(&mut *out));
                kernels::scale_samples(&job.how, c.x::<T>(0), out);
                Ok(())
            }, else c.bad_dtype(c.dtype(1)))
        })
        .gpu(|c| {
            let (how, batch) = on_gpu(c, 1);
            gpu::launch_ctc_grad(c.device, &how, batch, (c.x(0), c.y(0)), c.op.name)
        })
        .cost(|s, o| 2.0 * cost(s, o))
        .sample(&[draw(&[2]), draw(&[4, 2, 3]), draw(&[2, 2]).indices(3)], &[]);
}

fn inputs(op: &mut OpBuilder) -> &mut OpBuilder {
    op.input("data", "activations before the softmax, shape (steps, batch, classes)")
        .input("label", "class numbers, shape (batch, width), padded with 0 (blank first) or -1 (blank last)")
        .input("data_lengths", "with use_data_lengths: steps of each sample, shape (batch,)")
        .input("label_lengths", "with use_label_lengths: labels of each sample, shape (batch,)")
}

fn params() -> [Param; 3] {
    [
        flag("use_data_lengths", "samples have the lengths given").or(false),
        flag("use_label_lengths", "labels have the lengths given, and no padding").or(false),
        choice("blank_label", &["first", "last"], "whether the blank is class 0 or the last class")
            .or("first"),
    ]
}

fn lengths(a: &Attrs) -> usize {
    usize::from(a.bool("use_data_lengths")) + usize::from(a.bool("use_label_lengths"))
}

fn cost(s: &Sig, _: &[crate::ops::Spec]) -> f64 {
    s.ins.iter().map(|i| i.shape.size()).max().unwrap_or(0) as f64 * 40.0
}

/// The inputs from `data` (the one numbered `first`) on fit together.
fn check(s: &Sig, first: usize) -> Result<()> {
    s.expect_float(first)?;
    s.expect_ndim(first, 3..=3)?;
    s.expect_ndim(first + 1, 2..=2)?;
    let data = s.shape(first);
    if data[2] == 0 {
        return Err(s.fail("data has no classes"));
    }
    if s.shape(first + 1)[0] != data[1] {
        return Err(s.fail(format!("label has {} rows; the batch has {}", s.shape(first + 1)[0], data[1])));
    }
    for i in first + 2..s.ins.len() {
        s.expect_shape(i, &Shape::new(&[data[1]]))?;
    }
    Ok(())
}

struct Job {
    how: Ctc,
    labels: Vec<i64>,
    data_lengths: Option<Vec<i64>>,
    label_lengths: Option<Vec<i64>>,
}

impl Job {
    fn new(c: &Ctx, first: usize) -> Job {
        let given = given(c.attrs, first);
        Job {
            how: how(c.attrs, c.shape(first), c.shape(first + 1)),
            labels: c.indices(first + 1),
            data_lengths: given[0].map(|i| c.indices(i)),
            label_lengths: given[1].map(|i| c.indices(i)),
        }
    }
}

fn how(attrs: &Attrs, data: &Shape, label: &Shape) -> Ctc {
    let blank_first = attrs.str("blank_label") == "first";
    Ctc { steps: data[0], batch: data[1], classes: data[2], label_width: label[1], blank_first }
}

/// The inputs that hold the lengths of samples and of labels, where they are given.
fn given(attrs: &Attrs, first: usize) -> [Option<usize>; 2] {
    let (data, label) = (attrs.bool("use_data_lengths"), attrs.bool("use_label_lengths"));
    [data.then_some(first + 2), label.then_some(first + 2 + usize::from(data))]
}

fn on_gpu<'a>(c: &GpuCtx<'a>, first: usize) -> (Ctc, gpu::Batch<'a>) {
    let [data_lengths, label_lengths] = given(c.attrs, first).map(|i| i.map(|i| c.x(i)));
    let batch = gpu::Batch { data: c.x(first), labels: c.x(first + 1), data_lengths, label_lengths };
    (how(c.attrs, c.shape(first), c.shape(first + 1)), batch)
}
