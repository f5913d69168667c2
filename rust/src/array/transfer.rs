//! Copies between the host and GPUs, and calls on GPUs: commands for a device are sent while the chunks are held, and the
//! device does them in that order, so the engine waits for none of them.

use super::handle::Array;
use crate::device::{self, Context, Device};
use crate::engine::{self, ChunkRef};
use crate::ops::{self, Attrs, GpuCtx, GpuView, OpRef, RngPos};
use mxrs_base::{Error, Result};
use mxrs_gpu::Ticket;
use smallvec::SmallVec;
use std::cell::Cell;

pub(super) const TO_GPU: &str = "copy to the GPU";
const FROM_GPU: &str = "copy from the GPU";

/// Runs `op` on a GPU.
pub fn run_on_gpu(
    op: OpRef,
    attrs: &Attrs,
    ins: &[&Array],
    outs: &[Array],
    (train, rng): (bool, RngPos),
    context: Context,
) -> Result<()> {
    let device = device::gpu(context)?;
    // An array whose held-back writer failed may have no memory yet.
    outs.iter().try_for_each(|a| a.chunk().fill())?;
    let reads: SmallVec<[&ChunkRef; 4]> = ins.iter().map(|a| a.chunk()).collect();
    let mut writes: SmallVec<[&ChunkRef; 4]> = outs.iter().map(|a| a.chunk()).collect();
    writes.extend(op.mutates.iter().filter_map(|i| ins.get(*i)).map(|a| a.chunk()));
    let state = (train, rng);
    let now = || send(op, attrs, ins.iter().copied(), outs, state, &device);
    let later = || -> Box<dyn FnOnce() -> Result<()> + Send> {
        let (attrs, device) = (attrs.clone(), device.clone());
        let ins: SmallVec<[Array; 4]> = ins.iter().map(|a| a.detach()).collect();
        let outs: SmallVec<[Array; 2]> = outs.iter().map(|a| a.detach()).collect();
        Box::new(move || send(op, &attrs, ins.iter(), &outs, state, &device))
    };
    // Sending takes microseconds, whatever the device then has to do.
    engine::run(&reads, &writes, true, 0, now, later)
}

/// Sends the call's commands, with a note of the host's time for the profiler.
fn send<'a>(
    op: OpRef,
    attrs: &Attrs,
    ins: impl Iterator<Item = &'a Array>,
    outs: &[Array],
    (train, rng): (bool, RngPos),
    device: &Device,
) -> Result<()> {
    let ins: SmallVec<[GpuView; 4]> = views(op.name, ins)?;
    let outs: SmallVec<[GpuView; 4]> = views(op.name, outs.iter())?;
    let what = || (op.name.to_string(), outs.iter().map(|v| v.spec.bytes().unwrap_or(0)).sum());
    let ctx = GpuCtx { op, attrs, ins: &ins, outs: &outs, train, rng, device, then: None };
    engine::trace::span("imperative", what, || ops::run_gpu(&ctx))
}

/// Where arrays lie on their GPU, for the call `name`.
pub(super) fn views<'a>(
    name: &str,
    arrays: impl Iterator<Item = &'a Array>,
) -> Result<SmallVec<[GpuView<'a>; 4]>> {
    let lost = || Error::op(format!("{name}: internal error: an array is not on the GPU"));
    arrays.map(|a| a.gpu_view().ok_or_else(lost)).collect()
}

/// Copies the elements of `from` to `to`, of the same shape and type, where at least one is on a GPU.
pub fn transfer(from: &Array, to: &Array) -> Result<()> {
    match (from.context().is_host(), to.context().is_host()) {
        (true, _) => upload(from, to),
        (false, true) => download(from, to),
        // Between devices through the host.
        (false, false) => {
            let host = Array::empty(from.spec().clone(), Context::CPU)?;
            download(from, &host)?;
            upload(&host, to)
        }
    }
}

/// Bytes of the elements, and where they begin in their buffer.
fn range(array: &Array) -> (u64, u64) {
    let size = array.dtype().size();
    ((array.offset * size) as u64, (array.size() * size) as u64)
}

fn upload(from: &Array, to: &Array) -> Result<()> {
    fn send(from: &Array, to: &Array) -> Result<()> {
        to.chunk().fill()?;
        let Some(view) = to.gpu_view() else { return Ok(()) };
        view.buffer.device().write(view.buffer, range(to).0, from.bytes(), TO_GPU)
    }
    let later = || -> Box<dyn FnOnce() -> Result<()> + Send> {
        let (from, to) = (from.detach(), to.detach());
        Box::new(move || send(&from, &to))
    };
    // The bytes are copied either way; the caller may as well do it if they are there.
    engine::run(&[from.chunk()], &[to.chunk()], true, 0, || send(from, to), later)
}

/// Queues the read of an array's elements, in order with the device's work.
pub(super) fn ask(from: &Array) -> Result<Ticket> {
    let (at, bytes) = range(from);
    match from.gpu_view() {
        Some(view) => view.buffer.device().read(view.buffer, at, bytes, FROM_GPU),
        None => Err(Error::op("internal error: an array is not on the GPU")),
    }
}

/// The read is queued now, in order with the device's work; the host's array is written when it has come.
fn download(from: &Array, to: &Array) -> Result<()> {
    fn receive(ticket: Ticket, to: &Array) -> Result<()> {
        ticket.wait_into(to.bytes_mut())
    }
    // Asked for now, in order with what the device does; only where the host has yet to send something to this chunk, later.
    let ticket = Cell::new(None);
    let asked = || ask(from).map(|t| ticket.set(Some(t)));
    engine::run(&[from.chunk()], &[], true, 0, asked, || Box::new(|| Ok(())))?;
    let arrives =
        |ticket: Option<Ticket>, from: &Array, to: &Array| receive(ticket.map_or_else(|| ask(from), Ok)?, to);
    let reads = [from.chunk()];
    let ticket = ticket.take();
    let reads = if ticket.is_some() { &[][..] } else { &reads[..] };
    let ticket = Cell::new(ticket);
    let now = || arrives(ticket.take(), from, to);
    let later = || -> Box<dyn FnOnce() -> Result<()> + Send> {
        let (ticket, from, to) = (ticket.take(), from.detach(), to.detach());
        Box::new(move || arrives(ticket, &from, &to))
    };
    engine::run(reads, &[to.chunk()], false, 0, now, later)
}
