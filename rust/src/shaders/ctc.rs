//! Connectionist temporal classification: forward and backward variables of each sample, in float32 logarithms.
//!
//! A workgroup has a sample and goes step by step, its invocations side by side along the label with blanks between.
//! As on the host (`mxrs_kernels::loss`), a label that no alignment reaches has loss and gradient 0.

use crate::shaders::copy::{launch_cast, launch_fill};
use crate::shaders::each::{Each, Read};
use crate::shaders::elem::Span;
use crate::shaders::softmax::launch_softmax;
use mxrs_base::{DType, Result};
use mxrs_gpu::{Buffer, Device, Key, Params, Shader, Slot, linear_groups};
pub use mxrs_kernels::loss::Ctc;
use mxrs_kernels::softmax::Kind;

/// The arrays of a batch; lengths where they are given.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Activations before the softmax, (steps, batch, classes).
    pub data: Span<'a>,
    /// (batch, width).
    pub labels: Span<'a>,
    pub data_lengths: Option<Span<'a>>,
    pub label_lengths: Option<Span<'a>>,
}

/// What the walk leaves.
struct Walked {
    /// Logarithms of probabilities.
    logs: Buffer,
    labels: Buffer,
    /// For each sample its steps and the length of its label; 0 steps where nothing can be aligned.
    lengths: Buffer,
    /// The probability of being at each place of the path, (batch, steps, path), where a gradient was asked for.
    posterior: Buffer,
    loss: Buffer,
}

fn walk(device: &Device, how: &Ctc, of: Batch, back: bool, label: &'static str) -> Result<Walked> {
    let (steps, batch, width) = (how.steps, how.batch, how.label_width);
    let path = 2 * width + 1;
    let room = |n: usize| device.alloc(4 * n.max(1) as u64);
    let w = Walked {
        logs: room(steps * batch * how.classes)?,
        labels: room(batch * width)?,
        lengths: room(2 * batch)?,
        posterior: room(batch * steps * path)?,
        loss: room(batch)?,
    };
    let logs = Span::new(&w.logs, DType::F32);
    launch_softmax(
        device,
        Kind::LogSoftmax,
        (steps * batch, how.classes, 1),
        1.0,
        of.data,
        None,
        logs,
        label,
    )?;
    launch_cast(device, batch * width, of.labels, Span::new(&w.labels, DType::I32), label)?;
    for (first, given, absent) in [(0, of.data_lengths, steps as f64), (batch, of.label_lengths, -1.0)] {
        let to = Span { buffer: &w.lengths, dtype: DType::I32, offset: first };
        match given {
            Some(lengths) => launch_cast(device, batch, lengths, to, label)?,
            None => launch_fill(device, &[batch], absent, to.strided(&[1]), label)?,
        }
    }
    let beta = room(2 * batch * path)?;
    let pipeline = device.pipeline(&Key::new("ctc"), || {
        let mut shader = Shader::new("ctc", include_str!("ctc.wgsl")).slot(Slot::read("logs", "f32"));
        shader = shader.slot(Slot::read("labels", "i32"));
        for (name, element) in [("lengths", "i32"), ("alpha", "f32"), ("beta", "f32"), ("loss", "f32")] {
            shader = shader.slot(Slot::write(name, element));
        }
        for name in ["steps", "batch", "classes", "width", "blank", "given", "back"] {
            shader = shader.param(name, "u32");
        }
        Ok(shader)
    })?;
    let blank = if how.blank_first { 0 } else { how.classes - 1 };
    let params = Params::new().size(steps)?.size(batch)?.size(how.classes)?.size(width)?.size(blank)?;
    let params = params.u32(u32::from(of.label_lengths.is_some())).u32(u32::from(back));
    let buffers = [&w.logs, &w.labels, &w.lengths, &w.posterior, &beta, &w.loss];
    device.dispatch(&pipeline, &buffers, params, linear_groups(batch as u64)?, label)?;
    Ok(w)
}

/// The loss of each sample.
///
/// # Errors
/// Where a type is not one of GPUs.
pub fn launch_ctc(device: &Device, how: &Ctc, of: Batch, loss: Span, label: &'static str) -> Result<()> {
    if how.batch == 0 {
        return Ok(());
    }
    let walked = walk(device, how, of, false, label)?;
    launch_cast(device, how.batch, Span::new(&walked.loss, DType::F32), loss, label)
}

/// The gradient by the activations, each sample times its number of `head`.
pub fn launch_ctc_grad(
    device: &Device,
    how: &Ctc,
    of: Batch,
    (head, grad): (Span, Span),
    label: &'static str,
) -> Result<()> {
    let n = how.steps * how.batch * how.classes;
    if n == 0 {
        return Ok(());
    }
    let walked = walk(device, how, of, true, label)?;
    let each = Each::new("ctc grad", grad)
        .input("head", head, Read::Value)
        .input("logs", Span::new(&walked.logs, DType::F32), Read::Value)
        .input("labels", Span::new(&walked.labels, DType::I32), Read::Index)
        .input("lengths", Span::new(&walked.lengths, DType::I32), Read::Index)
        .input("posterior", Span::new(&walked.posterior, DType::F32), Read::Value);
    let blank = if how.blank_first { 0 } else { how.classes - 1 };
    let each = each.size("steps", how.steps)?.size("batch", how.batch)?.size("classes", how.classes)?;
    let each = each.size("width", how.label_width)?.size("blank", blank)?;
    let body = || {
        "fn element(e: u32) -> VALUE {
    let symbol = e % p.classes;
    let sample = e / p.classes % p.batch;
    let step = e / p.classes / p.batch;
    if (i32(step) >= lengths(sample)) { return 0.0; }
    let size = u32(lengths(p.batch + sample));
    let base = (sample * p.steps + step) * (2u * p.width + 1u);
    var sum = 0.0;
    for (var i = 0u; i < size; i++) {
        if (u32(labels(sample * p.width + i)) == symbol) { sum += posterior(base + 2u * i + 1u); }
    }
    if (symbol == p.blank) {
        for (var i = 0u; i <= size; i++) { sum += posterior(base + 2u * i); }
    }
    return (exp(logs(e)) - sum) * head(sample);
}\n"
        .into()
    };
    each.launch(device, n, body, label)
}
