//! Runs of a plan: one engine operation for the forward phase and one for the backward phase.

use super::memory::Lease;
use super::plan::{Place, Plan, Step, simple, simple_on_gpu};
use crate::array::{Array, next_rng};
use crate::engine::{self, ChunkRef};
use crate::graph::Instr;
use crate::ops::{GpuView, RngPos, View};
use mxrs_base::{Error, Result};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Below this estimate a phase runs on the calling thread. Nanoseconds.
const INLINE_BELOW: f64 = 10_000.0;

/// A plan with the memory of one run: what its backward phase needs.
pub struct Run {
    plan: Arc<Plan>,
    inputs: Arc<[Array]>,
    outputs: Arc<[Array]>,
    arena: Arc<Lease>,
    consts: Arc<Vec<Array>>,
    rng: Arc<HashMap<u32, RngPos>>,
    /// The contents of the inputs that the backward phase reads, as the forward phase saw them.
    versions: Vec<(usize, u64)>,
    /// Whether the backward phase ran, which frees what the forward phase kept.
    spent: Mutex<bool>,
}

/// The arrays of a phase, detached.
struct Bound {
    plan: Arc<Plan>,
    inputs: Arc<[Array]>,
    outputs: Arc<[Array]>,
    heads: Vec<Option<Array>>,
    grads: Vec<Option<Array>>,
    arena: Arc<Lease>,
    /// The plan's constants, where the run is.
    consts: Arc<Vec<Array>>,
    rng: Arc<HashMap<u32, RngPos>>,
}

impl Run {
    /// Runs the forward phase into `outputs`, with `arena` as working memory.
    pub fn forward(
        plan: Arc<Plan>,
        inputs: Vec<Array>,
        outputs: Vec<Array>,
        arena: Arc<Lease>,
    ) -> Result<Run> {
        let context = arena.block().context();
        let rng: HashMap<u32, RngPos> =
            plan.draws.iter().map(|(n, count)| (*n, next_rng(context, *count))).collect();
        let inputs: Arc<[Array]> = inputs.iter().map(Array::detach).collect();
        let outputs: Arc<[Array]> = outputs.iter().map(Array::detach).collect();
        let consts = plan.consts_on(context)?;
        let mut run = Run {
            plan,
            inputs,
            outputs,
            arena,
            consts,
            rng: Arc::new(rng),
            versions: Vec::new(),
            spent: Mutex::new(false),
        };
        run.issue(0, Vec::new(), Vec::new())?;
        let kept = run.plan.reads_back.iter().filter(|i| !run.plan.mutates.iter().any(|m| m.contains(i)));
        run.versions = kept.map(|i| (*i, run.inputs[*i].chunk().version())).collect();
        Ok(run)
    }

    /// Where the forward phase drew from the random stream, in order.
    pub fn draws(&self) -> impl Iterator<Item = RngPos> {
        self.plan.draws.iter().filter_map(|(n, _)| self.rng.get(n).copied())
    }

    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Runs the backward phase: `heads` are the outputs' gradients, `grads` where the arguments' gradients go.
    pub fn backward(&self, heads: Vec<Option<Array>>, grads: Vec<Option<Array>>) -> Result<()> {
        for (i, version) in &self.versions {
            if self.inputs[*i].chunk().version() != *version {
                return Err(Error::op(format!(
                    "backward: input {i} of the graph was written after the forward pass, so its gradient cannot \
                     be computed; call backward first"
                )));
            }
        }
        let mut spent = self.spent.lock();
        if std::mem::replace(&mut *spent, true) {
            // The first backward pass wrote over what the forward pass kept: compute it again.
            self.issue(0, Vec::new(), Vec::new())?;
        }
        self.issue(1, heads, grads)
    }

    fn issue(&self, phase: usize, heads: Vec<Option<Array>>, grads: Vec<Option<Array>>) -> Result<()> {
        let plan = &self.plan;
        let range = if phase == 0 { 0..plan.forward } else { plan.forward..plan.steps.len() };
        if range.is_empty() {
            return Ok(());
        }
        let bound = Bound {
            plan: plan.clone(),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            heads: heads.iter().map(|a| a.as_ref().map(Array::detach)).collect(),
            grads: grads.iter().map(|a| a.as_ref().map(Array::detach)).collect(),
            arena: self.arena.clone(),
            consts: self.consts.clone(),
            rng: self.rng.clone(),
        };
        let mut reads: Vec<&ChunkRef> = bound.inputs.iter().map(Array::chunk).collect();
        let mut writes: Vec<&ChunkRef> = vec![bound.arena.block().chunk()];
        match phase {
            0 => writes.extend(bound.outputs.iter().map(Array::chunk)),
            _ => {
                reads.extend(bound.outputs.iter().map(Array::chunk));
                reads.extend(bound.heads.iter().flatten().map(Array::chunk));
                // A gradient that is added to is read as well.
                writes.extend(bound.grads.iter().flatten().map(Array::chunk));
            }
        }
        writes.extend(plan.mutates[phase].iter().map(|i| bound.inputs[*i].chunk()));
        // What is written need not be valid before, but states and gradients that are added to must be.
        if phase == 1 {
            reads.push(bound.arena.block().chunk());
        }
        // A GPU's commands are only sent here, which is soon done.
        let small = plan.cost[phase] < INLINE_BELOW || !bound.arena.block().context().is_host();
        let now = || bound.run(range.clone());
        let later = || -> Box<dyn FnOnce() -> Result<()> + Send> {
            let bound = bound.clone_for_worker();
            let range = range.clone();
            let origin = crate::array::origin();
            Box::new(move || {
                bound.run(range).map_err(|e| match origin {
                    Some(line) => e.note(&format!("called at {line}")),
                    None => e,
                })
            })
        };
        engine::run(&reads, &writes, small, 0, now, later)
    }
}

/// Makes a call, with a note for the profiler.
fn noted<V>(
    instr: &Instr,
    outs: &[V],
    bytes: impl Fn(&V) -> usize,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let what = || (instr.name().to_string(), outs.iter().map(bytes).sum());
    engine::trace::span("symbolic", what, work)
}

impl Drop for Run {
    fn drop(&mut self) {
        self.arena.pass_on();
    }
}

impl Bound {
    fn clone_for_worker(&self) -> Bound {
        Bound {
            plan: self.plan.clone(),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            heads: self.heads.clone(),
            grads: self.grads.clone(),
            arena: self.arena.clone(),
            consts: self.consts.clone(),
            rng: self.rng.clone(),
        }
    }

    /// The array that holds a place, and where in it the place begins, in bytes.
    fn array(&self, place: Place) -> Result<(&Array, usize)> {
        let lost = |what: &str| Error::op(format!("internal error in a plan: {what}"));
        Ok(match place {
            Place::Input(i) => (&self.inputs[i as usize], 0),
            Place::Output(i) => (&self.outputs[i as usize], 0),
            Place::Const(i) => (&self.consts[i as usize], 0),
            Place::Arena(start) => (self.arena.block(), start),
            Place::Head(i) => match self.heads.get(i as usize) {
                Some(Some(array)) => (array, 0),
                _ => return Err(lost("a head gradient is missing")),
            },
            Place::Grad(i) => match self.grads.get(i as usize) {
                Some(Some(array)) => (array, 0),
                _ => return Err(lost("a gradient array is missing")),
            },
            Place::Nowhere => return Err(lost("a value has no place")),
        })
    }

    fn view(&self, place: Place, value: u32) -> Result<View<'_>> {
        let (array, start) = self.array(place)?;
        Ok(View { ptr: array.ptr().wrapping_add(start), spec: self.plan.spec(value) })
    }

    fn gpu_view(&self, place: Place, value: u32) -> Result<GpuView<'_>> {
        let (array, start) = self.array(place)?;
        let view =
            array.gpu_view().ok_or_else(|| Error::op("a graph on a GPU was given an array elsewhere"))?;
        let spec = self.plan.spec(value);
        let bytes = view.offset * view.spec.dtype.size() + start;
        Ok(GpuView { buffer: view.buffer, offset: bytes / spec.dtype.size(), spec })
    }

    /// Sends the commands of `range` to the device.
    fn send(&self, range: Range<usize>) -> Result<()> {
        let plan = &*self.plan;
        let device = crate::device::gpu(self.arena.block().context())?;
        let views = |places: &[Place], values: &[u32]| {
            places
                .iter()
                .zip(values)
                .map(|(p, v)| self.gpu_view(*p, *v))
                .collect::<Result<SmallVec<[GpuView; 8]>>>()
        };
        for step in &plan.steps[range] {
            match step {
                Step::Call { instr: n, ins, outs } => {
                    let instr = &plan.program.instrs[*n as usize];
                    let (ins, outs) = (views(ins, &instr.ins)?, views(outs, &instr.outs)?);
                    let rng = self.rng.get(n).copied().unwrap_or_default();
                    let send = || instr.send(&ins, &outs, (plan.train, rng), &device);
                    noted(instr, &outs, |v| v.spec.bytes().unwrap_or(0), send)
                        .map_err(|e| e.within(&format!("node {}", plan.node(instr))))?;
                }
                Step::Copy { value, from, to } => {
                    let (from, to) = (self.gpu_view(*from, *value)?, self.gpu_view(*to, *value)?);
                    simple_on_gpu("_copyto", &[from], &[to], &device)?;
                }
                Step::Add { value, from, to } => {
                    let (from, sum) = (self.gpu_view(*from, *value)?, self.gpu_view(*to, *value)?);
                    simple_on_gpu("elemwise_add", &[sum, from], &[sum], &device)?;
                }
                Step::Zero { value, to } => {
                    let out = self.gpu_view(*to, *value)?;
                    simple_on_gpu("zeros_like", &[out], &[out], &device)?;
                }
            }
        }
        Ok(())
    }

    fn run(&self, range: Range<usize>) -> Result<()> {
        if !self.arena.block().context().is_host() {
            return self.send(range);
        }
        let plan = &*self.plan;
        for step in &plan.steps[range] {
            match step {
                Step::Call { instr, ins, outs } => {
                    let n = *instr;
                    let instr = &plan.program.instrs[n as usize];
                    let ins: SmallVec<[View; 4]> =
                        ins.iter().zip(&instr.ins).map(|(p, v)| self.view(*p, *v)).collect::<Result<_>>()?;
                    let outs: SmallVec<[View; 2]> = outs
                        .iter()
                        .zip(&instr.outs)
                        .map(|(p, v)| self.view(*p, *v))
                        .collect::<Result<_>>()?;
                    let rng = self.rng.get(&n).copied().unwrap_or_default();
                    noted(
                        instr,
                        &outs,
                        |v| v.spec.bytes().unwrap_or(0),
                        || instr.run(&ins, &outs, plan.train, rng),
                    )
                    .map_err(|e| e.within(&format!("node {}", plan.node(instr))))?;
                }
                Step::Copy { value, from, to } => {
                    simple("_copyto", &[self.view(*from, *value)?], &[self.view(*to, *value)?])?;
                }
                Step::Add { value, from, to } => {
                    let sum = self.view(*to, *value)?;
                    simple("elemwise_add", &[sum, self.view(*from, *value)?], &[sum])?;
                }
                Step::Zero { value, to } => {
                    let out = self.view(*to, *value)?;
                    simple("zeros_like", &[out], &[out])?;
                }
            }
        }
        Ok(())
    }
}
