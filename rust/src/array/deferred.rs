//! The deferred window: calls of formulas that are held back, so that several become one kernel.
//!
//! On a device that defers (today every GPU), a call of a formula is put into the device's window when it is called; its
//! results are arrays like any others, only without memory. The window is issued when it is full, when anything but a
//! formula touches the device, or when somebody waits ([`engine::held`] sees to both). Then calls whose results nobody
//! else reads are computed inside those that read them, results that nobody holds any more are never written, and what
//! remains is handed to the engine in program order.
//!
//! The order of the calls is kept: none is computed inside another one that comes after a write to what it reads, and what
//! touches an array written in the window under another shape issues the window first. So the outcome is that of single
//! calls, which `mx.engine.set_bulk_size(0)` gives for comparison.
//!
//! How a window is arranged depends only on its wiring, not on sizes and numbers, and is remembered. What was seen
//! once is run as it stands: kernels are compiled for what programs repeat.

use super::arrange::{Plan, arrange};
use super::handle::Array;
use super::transfer;
use crate::device::{self, Context};
use crate::engine::{self, ChunkRef, held};
use crate::ops::{self, Attrs, Body, OpRef, Spec};
use mxrs_base::{DType, Result};
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

/// What a word of a wiring says; without, it is the address of an operator's record.
const VALUE: u64 = 1 << 60;
const INPUT: u64 = 2 << 60;
const WANTED: u64 = 3 << 60;

static SIZE: AtomicUsize = AtomicUsize::new(32);
static WINDOWS: Mutex<Vec<(Context, Window)>> = Mutex::new(Vec::new());

/// Sets how many calls a window holds (0 or 1: none is held back), and returns the number before.
pub fn set_size(size: usize) -> usize {
    held::settle_all();
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
    /// The first value in the same chunk.
    pub root: Id,
    /// The first value over the same elements.
    pub place: Id,
    /// The first value of the same shape.
    pub shape: Id,
}

impl Value {
    pub fn dtype(&self) -> DType {
        self.array.dtype()
    }
}

/// Calls that are held back, in program order.
#[derive(Default)]
pub(super) struct Window {
    pub calls: Vec<Call>,
    pub values: Vec<Value>,
    /// Whether a call writes to the chunk; one for each value, those of roots count.
    written: Vec<bool>,
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
        && ins.iter().all(|a| a.context() == context && known(a.dtype()) && !is_lost(a))
        // An array that comes from nowhere tells at once that its device is not there.
        && (!ins.is_empty() || device::gpu(context).is_ok())
}

/// Whether the device on which the array is was lost: then the call tells at once.
fn is_lost(array: &Array) -> bool {
    array.gpu_view().is_some_and(|view| view.buffer.device().is_lost())
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
    if full || ins.iter().chain([&out]).any(|a| window.sees_otherwise(a)) {
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
    /// The latest value in the same chunk as `array`.
    fn latest(&self, array: &Array) -> Option<Id> {
        let same = |v: &Value| Arc::ptr_eq(v.array.chunk(), array.chunk());
        self.values.iter().rposition(same).map(|i| i as Id)
    }

    /// Whether a held call writes the array's chunk, but other elements of it or under another shape.
    fn sees_otherwise(&self, array: &Array) -> bool {
        self.latest(array)
            .map(|id| &self.values[id as usize])
            .is_some_and(|latest| self.written[latest.root as usize] && !latest.array.same_memory(array))
    }

    /// The number of a new value.
    fn add(&mut self, array: &Array) -> Id {
        let id = self.values.len() as Id;
        let root = self.latest(array).map_or(id, |v| self.values[v as usize].root);
        let same = self.values.iter().rfind(|v| v.array.same_memory(array));
        let alike = self.values.iter().rfind(|v| v.array.shape() == array.shape());
        let (place, shape) = (same.map_or(id, |v| v.place), alike.map_or(id, |v| v.shape));
        self.values.push(Value { array: array.detach(), root, place, shape });
        self.written.push(false);
        let numbers = (root as u64) << 32 | (place as u64) << 16 | shape as u64;
        self.key.push(VALUE | (array.dtype() as u64) << 48 | numbers);
        id
    }

    pub fn push(&mut self, op: OpRef, attrs: &Attrs, ins: &[&Array], out: &Array) {
        let mut call = Call { op, ins: SmallVec::new(), out: 0, params: SmallVec::new() };
        for a in ins {
            let known = self.values.iter().rposition(|v| v.array.same_memory(a)).map(|i| i as Id);
            let id = known.unwrap_or_else(|| {
                self.bytes += a.size() * a.dtype().size();
                self.add(a)
            });
            call.ins.push(id);
        }
        call.out = self.add(out);
        let root = self.values[call.out as usize].root as usize;
        self.written[root] = true;
        call.params.extend(call.formula().params().iter().map(|p| attrs.number(p)));
        self.key.push(std::ptr::from_ref(op) as u64);
        self.key.extend(call.ins.iter().map(|id| INPUT | *id as u64));
        self.calls.push(call);
    }

    /// For each value, whether it must be in memory afterwards: it is what a call leaves there, and somebody holds it.
    pub fn wanted(&self) -> Vec<bool> {
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
        if self.calls.is_empty() {
            return;
        }
        let wanted = self.wanted();
        let plan = self.plan(&wanted, context);
        let mut reads = plan.reads(self.values.len());
        // The window is empty before anything can go wrong.
        let mut calls = std::mem::take(&mut self.calls);
        let mut values: Vec<Option<Array>> = self.values.drain(..).map(|v| Some(v.array)).collect();
        self.written.clear();
        self.key.clear();
        self.bytes = 0;
        let _issued = held::Issued(calls.len());
        for step in &plan.steps {
            let params: SmallVec<[f64; 8]> =
                step.params.iter().flat_map(|c| calls[*c as usize].params.iter().copied()).collect();
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
        calls.clear();
        self.calls = calls;
    }

    /// What to run, from memory or made now.
    fn plan(&mut self, wanted: &[bool], context: Context) -> Arc<Plan> {
        for bits in wanted.chunks(32) {
            self.key.push(WANTED | bits.iter().fold(0, |word, bit| word << 1 | *bit as u64));
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        match self.known.get_mut(&self.key[..]) {
            Some(known) => known
                .get_or_insert_with(|| {
                    Arc::new(arrange(&self.calls, &self.values, wanted, Some(most(context))))
                })
                .clone(),
            None => {
                self.known.insert(self.key[..].into(), None);
                Arc::new(arrange(&self.calls, &self.values, wanted, None))
            }
        }
    }
}

/// What one kernel of a device may read and carry. One of the buffers that it binds is its result's.
fn most(context: Context) -> Most {
    let inputs = device::gpu(context).map_or(4, |d| d.limits().storage_buffers as usize - 1);
    let usual = Most::default();
    Most { inputs: inputs.min(usual.inputs), ..usual }
}

/// Hands one kernel to the engine.
fn launch(
    formula: &Arc<Formula>,
    params: SmallVec<[f64; 8]>,
    ins: SmallVec<[Array; 4]>,
    out: Array,
    label: &'static str,
) {
    let chunk = out.chunk();
    let reads: SmallVec<[&ChunkRef; 4]> = ins.iter().map(Array::chunk).collect();
    let now = || send(formula, &params, &ins, &out, label);
    let later = || -> Box<dyn FnOnce() -> Result<()> + Send> {
        let (formula, params, ins, out) = (formula.clone(), params.clone(), ins.clone(), out.clone());
        Box::new(move || send(&formula, &params, &ins, &out, label))
    };
    let done = chunk.fill().and_then(|()| engine::issue(&reads, &[chunk], true, 0, now, later));
    if let Err(error) = done {
        engine::park(&[chunk], error.within(label));
    }
}

fn send(formula: &Formula, params: &[f64], ins: &[Array], out: &Array, label: &'static str) -> Result<()> {
    let views = transfer::views(label, ins.iter())?;
    let view = transfer::views(label, std::iter::once(out))?[0];
    let what = || (label.to_string(), view.spec.bytes().unwrap_or(0));
    let run = || ops::run_formula_gpu(&view.buffer.device(), formula, params, &views, &view, label);
    engine::trace::span("imperative", what, run)
}
