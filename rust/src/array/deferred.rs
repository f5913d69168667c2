//! The deferred window: calls of formulas that are held back, so that several become one kernel.
//!
//! On a device that defers (today every GPU), a call of a formula is put into the device's window when it is called; its
//! results are arrays like any others, only without memory. The window is issued when it is full, when anything but a
//! formula touches the device, or when somebody waits ([`engine::held`] sees to both). Then calls whose results nobody
//! else reads are computed inside those that read them, results that nobody holds any more are never written, and what
//! remains is handed to the engine in program order.
//!
//! The order of the calls is never changed, and a call that could see the difference does not join: writing an array that
//! a held call reads, or reading a written array under another shape, issues the window first. So the outcome is that of
//! single calls, which `mx.engine.set_bulk_size(0)` gives for comparison.
//!
//! How a window is arranged depends only on its wiring, not on sizes and numbers, and is remembered. What was seen
//! once is run as it stands: kernels are compiled for what programs repeat.

use super::arrange::{Plan, arrange};
use super::handle::Array;
use crate::device::{self, Context};
use crate::engine::{self, ChunkRef, held};
use crate::ops::{self, Attrs, Body, GpuView, OpRef, Spec};
use mxrs_base::{DType, Error, Result};
use mxrs_formula::{Formula, Most};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Calls that a window holds at most.
const MOST: usize = 64;
/// Bytes of arrays from outside that a window may keep alive, unless one call alone reads more.
const MOST_BYTES: usize = 256 << 20;
/// Wirings that are remembered.
const REMEMBERED: usize = 4096;

static SIZE: AtomicUsize = AtomicUsize::new(32);
static WINDOWS: Mutex<Vec<(Context, Window)>> = Mutex::new(Vec::new());

/// Sets how many calls a window holds (0 or 1: none is held back), and returns the number before.
pub fn set_size(size: usize) -> usize {
    engine::held::settle_all();
    SIZE.swap(size.min(MOST), Relaxed)
}

/// Number of a value in its window.
pub(super) type Id = u32;

/// A held call.
pub(super) struct Call {
    pub op: OpRef,
    pub ins: SmallVec<[Id; 4]>,
    pub out: Id,
    params: SmallVec<[f64; 4]>,
}

impl Call {
    pub fn formula(&self) -> &'static Formula {
        match &self.op.body {
            Body::Formula { formula, .. } => formula,
            // Only formulas join.
            _ => unreachable!("{} is no formula", self.op.name),
        }
    }
}

/// A value of a window: an array at a point of the program.
pub(super) struct Value {
    array: Array,
    /// The first value over the same memory.
    root: Id,
    /// The first value of the same shape.
    pub shape: Id,
}

impl Value {
    pub fn dtype(&self) -> DType {
        self.array.dtype()
    }
}

/// What is known of memory that values lie in; kept with the root.
#[derive(Clone, Copy, Default)]
struct Memory {
    written: bool,
    /// A call reads it that writes elsewhere.
    read: bool,
}

#[derive(Default)]
struct Window {
    calls: Vec<Call>,
    values: Vec<Value>,
    /// One for each value; those of roots count.
    memory: Vec<Memory>,
    /// Bytes of the values from outside.
    bytes: usize,
    /// The wiring in words.
    key: Vec<u64>,
    /// The wirings seen, with their kernels from the second time on.
    known: HashMap<Box<[u64]>, Option<Arc<Plan>>>,
}

/// Whether a call of `op` on `context` is held back.
pub fn joins(op: OpRef, ins: &[&Array], outs: &[Spec], context: Context) -> bool {
    let Body::Formula { .. } = &op.body else { return false };
    let known = |dtype: DType| !matches!(dtype, DType::F64 | DType::I64);
    !context.is_host()
        && SIZE.load(Relaxed) > 1
        && !engine::is_naive()
        && outs.len() == 1
        && known(outs[0].dtype)
        && (1..=u32::MAX as usize).contains(&outs[0].shape.size())
        && ins.iter().all(|a| a.context() == context && known(a.dtype()))
        // An array that comes from nowhere tells at once that its device is not there.
        && (!ins.is_empty() || device::gpu(context).is_ok())
}

/// Holds back a call that [`joins`]; `out` is what it writes.
pub fn hold(op: OpRef, attrs: &Attrs, ins: &[&Array], out: &Array) {
    let context = out.context();
    let mut windows = WINDOWS.lock();
    let at = windows.iter().position(|(c, _)| *c == context).unwrap_or_else(|| {
        windows.push((context, Window::default()));
        windows.len() - 1
    });
    let window = &mut windows[at].1;
    let full = window.calls.len() >= SIZE.load(Relaxed) || window.bytes > MOST_BYTES;
    if full || window.disturbed(ins, out) {
        held::issuing(|| window.issue(context));
    }
    window.push(op, attrs, ins, out);
    out.chunk().bump();
    held::add(settle);
}

/// Issues the window of `which`, or every window.
fn settle(which: Option<Context>) {
    let mut windows = WINDOWS.lock();
    for (context, window) in windows.iter_mut().filter(|(c, _)| which.is_none_or(|w| w == *c)) {
        window.issue(*context);
    }
}

impl Window {
    /// The latest value over the same memory as `array`.
    fn latest(&self, array: &Array) -> Option<Id> {
        let same = |v: &Value| Arc::ptr_eq(v.array.chunk(), array.chunk());
        self.values.iter().rposition(same).map(|i| i as Id)
    }

    /// Whether the call would see what a held call wrote under another shape, or write what one reads.
    fn disturbed(&self, ins: &[&Array], out: &Array) -> bool {
        let memory = |id: Id| self.memory[self.values[id as usize].root as usize];
        let other = |id: Id, array: &Array| !self.values[id as usize].array.same_memory(array);
        let reads = |a: &&Array| self.latest(a).is_some_and(|id| memory(id).written && other(id, a));
        let writes = self.latest(out).is_some_and(|id| memory(id).read || other(id, out));
        writes || ins.iter().any(reads)
    }

    /// The number of a new value.
    fn add(&mut self, array: &Array) -> Id {
        let id = self.values.len() as Id;
        let root = self.latest(array).map_or(id, |v| self.values[v as usize].root);
        let alike = |v: &Value| v.array.shape() == array.shape();
        let shape = self.values.iter().rfind(|v| alike(v)).map_or(id, |v| v.shape);
        self.values.push(Value { array: array.detach(), root, shape });
        self.memory.push(Memory::default());
        self.key.push((array.dtype() as u64) << 32 | shape as u64);
        id
    }

    fn push(&mut self, op: OpRef, attrs: &Attrs, ins: &[&Array], out: &Array) {
        let mut call = Call { op, ins: SmallVec::new(), out: 0, params: SmallVec::new() };
        for a in ins {
            let known = self.values.iter().rposition(|v| v.array.same_memory(a)).map(|i| i as Id);
            let id = known.unwrap_or_else(|| {
                self.bytes += a.size() * a.dtype().size();
                self.add(a)
            });
            call.ins.push(id);
            let root = self.values[id as usize].root as usize;
            self.memory[root].read |= !Arc::ptr_eq(a.chunk(), out.chunk());
        }
        call.out = self.add(out);
        let root = self.values[call.out as usize].root as usize;
        self.memory[root].written = true;
        call.params.extend(call.formula().params().iter().map(|p| attrs.number(p)));
        self.key.push(std::ptr::from_ref(op) as u64);
        self.key.extend(call.ins.iter().map(|id| 1 << 40 | *id as u64));
        self.calls.push(call);
    }

    /// For each value, whether it must be in memory afterwards: it is what a call leaves there, and somebody holds it.
    fn wanted(&self) -> Vec<bool> {
        let mut own = vec![0usize; self.values.len()];
        let mut last = vec![None; self.values.len()];
        self.values.iter().for_each(|v| own[v.root as usize] += 1);
        self.calls.iter().for_each(|c| last[self.values[c.out as usize].root as usize] = Some(c.out));
        let mut wanted = vec![false; self.values.len()];
        for (root, id) in last.iter().enumerate() {
            if let Some(id) = id {
                // Nobody can begin to hold what only the window holds.
                wanted[*id as usize] = Arc::strong_count(self.values[root].array.chunk()) > own[root];
            }
        }
        wanted
    }

    /// Hands everything to the engine. Errors stay with the arrays that were to be written.
    fn issue(&mut self, context: Context) {
        let n = self.calls.len();
        if n == 0 {
            return;
        }
        let wanted = self.wanted();
        let plan = self.plan(&wanted, context);
        let mut reads = plan.reads(self.values.len());
        let mut values: Vec<Option<Array>> =
            std::mem::take(&mut self.values).into_iter().map(|v| Some(v.array)).collect();
        for step in &plan.steps {
            let params: SmallVec<[f64; 8]> =
                step.params.iter().flat_map(|c| self.calls[*c as usize].params.iter().copied()).collect();
            let ins: SmallVec<[Array; 4]> =
                step.ins.iter().filter_map(|id| values[*id as usize].clone()).collect();
            if let Some(out) = &values[step.out as usize] {
                launch(&step.formula, params, ins, out.clone(), step.label);
            }
            // What no later step reads goes back to the pool at once.
            for id in step.ins.iter().chain([&step.out]) {
                let left = &mut reads[*id as usize];
                *left = left.saturating_sub(1);
                if *left == 0 {
                    values[*id as usize] = None;
                }
            }
        }
        self.calls.clear();
        self.memory.clear();
        self.key.clear();
        self.bytes = 0;
        held::issued(n);
    }

    /// What to run, from memory or made now.
    fn plan(&mut self, wanted: &[bool], context: Context) -> Arc<Plan> {
        for bits in wanted.chunks(32) {
            self.key.push(bits.iter().fold(1 << 32, |word, bit| word << 1 | *bit as u64));
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        // One of the buffers that a kernel binds is its result's.
        let inputs = device::gpu(context).map_or(4, |d| d.limits().storage_buffers as usize - 1);
        let usual = Most::default();
        let most = Most { inputs: inputs.min(usual.inputs), ..usual };
        match self.known.get_mut(&self.key[..]) {
            Some(known) => known
                .get_or_insert_with(|| Arc::new(arrange(&self.calls, &self.values, wanted, Some(most))))
                .clone(),
            None => {
                self.known.insert(self.key[..].into(), None);
                Arc::new(arrange(&self.calls, &self.values, wanted, None))
            }
        }
    }
}

/// Hands one kernel to the engine.
fn launch(
    formula: &Arc<Formula>,
    params: SmallVec<[f64; 8]>,
    ins: SmallVec<[Array; 4]>,
    out: Array,
    label: &'static str,
) {
    let chunk = out.chunk().clone();
    let reads: SmallVec<[ChunkRef; 4]> = ins.iter().map(|a| a.chunk().clone()).collect();
    let reads: SmallVec<[&ChunkRef; 4]> = reads.iter().collect();
    let now = || send(formula, &params, &ins, &out, label);
    let later = || -> Box<dyn FnOnce() -> Result<()> + Send> {
        let (formula, params, ins, out) = (formula.clone(), params.clone(), ins.clone(), out.clone());
        Box::new(move || send(&formula, &params, &ins, &out, label))
    };
    let done = chunk.fill().and_then(|()| engine::issue(&reads, &[&chunk], true, 0, now, later));
    if let Err(error) = done {
        engine::park(&[&chunk], error.within(label));
    }
}

fn send(formula: &Formula, params: &[f64], ins: &[Array], out: &Array, label: &'static str) -> Result<()> {
    let lost = || Error::op(format!("{label}: internal error: an array is not on the GPU"));
    let views: SmallVec<[GpuView; 4]> =
        ins.iter().map(|a| a.gpu_view().ok_or_else(lost)).collect::<Result<_>>()?;
    let device = device::gpu(out.context())?;
    ops::run_formula_gpu(&device, formula, params, &views, &out.gpu_view().ok_or_else(lost)?, label)
}
