//! A plan: the calls of a lowered graph in order, with a place in memory for every value.
//!
//! Places are decided once. Values that live at different times share one block, views share their source's memory, a
//! formula may write over an input that nobody reads again, and outputs and gradients are written where they belong.

use super::budget::Budget;
use super::memory::Arena;
use crate::array::{Array, GradReq};
use crate::device::{Context, Device};
use crate::graph::{self, Instr, Known, Lowered, NodeKey, NodeRef, Program, Symbol, ValueId, Wanted, passes};
use crate::ops::{self, Attrs, Ctx, GpuCtx, GpuView, OpRef, RngPos, Spec, View, registry};
use mxrs_base::{Result, Shape, dispatch};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;

/// Where a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Not needed, or not placed yet.
    Nowhere,
    /// A variable.
    Input(u32),
    /// The gradient that was given for an output.
    Head(u32),
    /// An output's array.
    Output(u32),
    /// The array of an argument's gradient.
    Grad(u32),
    /// Computed when the plan was made.
    Const(u32),
    /// So many bytes into the plan's own memory.
    Arena(usize),
}

/// One thing to do.
pub enum Step {
    /// Call `instrs[n]`.
    Call { instr: u32, ins: SmallVec<[Place; 4]>, outs: SmallVec<[Place; 2]> },
    /// Copy a value to where it is wanted as well.
    Copy { value: ValueId, from: Place, to: Place },
    /// Add a value to the gradient that is there.
    Add { value: ValueId, from: Place, to: Place },
    /// Fill a gradient on which nothing depends.
    Zero { value: ValueId, to: Place },
}

/// What a plan is made for: one signature of a graph.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Request {
    /// Of the arguments, then the auxiliary states.
    pub specs: Vec<Spec>,
    pub train: bool,
    /// What to do with the gradient of each argument (0 nothing, 1 write, 2 add); empty if there is no backward.
    pub grads: Vec<u8>,
    /// How many of the outputs are differentiated; further ones are only looked at.
    pub heads: usize,
    /// How much working memory the plan may need.
    pub budget: Budget,
}

impl Request {
    pub fn code(req: GradReq) -> u8 {
        match req {
            GradReq::Null => 0,
            GradReq::Write => 1,
            GradReq::Add => 2,
        }
    }
}

/// The plan.
pub struct Plan {
    pub program: Program,
    pub steps: Vec<Step>,
    /// Steps of the forward phase.
    pub forward: usize,
    pub arena: usize,
    pub variables: Vec<ValueId>,
    pub outputs: Vec<ValueId>,
    pub heads: Vec<ValueId>,
    /// Whether the gradient depends on what is given for each output: losses need no head gradient.
    pub head_used: Vec<bool>,
    /// Variables that each phase writes in place.
    pub mutates: [Vec<usize>; 2],
    /// Variables that the backward phase reads.
    pub reads_back: Vec<usize>,
    pub consts: Vec<Array>,
    /// The constants again, on each GPU that ran the plan.
    placed: Mutex<Vec<(Context, Arc<Vec<Array>>)>>,
    pub train: bool,
    /// Estimated nanoseconds of the forward and of the backward phase.
    pub cost: [f64; 2],
    /// Positions of the random stream that the forward phase takes, per random call.
    pub draws: Vec<(u32, u64)>,
}

/// Working memory for which cached blocks are given back first. Bytes.
const LARGE: usize = 64 << 20;

impl Plan {
    /// Lowers, optimises and places `symbol` for `request`.
    pub fn new(symbol: &Symbol, request: &Request) -> Result<Plan> {
        Plan::searched(symbol, request, None)
    }

    /// The same, where the search for a memory budget tries so many sizes of segments.
    pub fn searched(symbol: &Symbol, request: &Request, trials: Option<usize>) -> Result<Plan> {
        let wanted = Wanted {
            train: request.train,
            grads: request.grads.iter().map(|g| *g != 0).collect(),
            heads: request.heads,
        };
        let sources = open_sources(symbol, &request.specs)?;
        let mut lowered = graph::lower(symbol, &request.specs, &sources, &wanted)?;
        let roots = lowered.outputs.iter().copied().chain(lowered.grads.iter().flatten().copied());
        lowered.program.outputs = roots.collect();
        passes::run(passes::REDUCE, &mut lowered.program);
        let plan = super::budget::plan(lowered, request, trials)?;
        if plan.arena >= LARGE {
            // Blocks that were used while parameters were made fit no plan: the system may have them.
            crate::memory::trim();
        }
        if std::env::var("MXRS_DEBUG").is_ok_and(|v| v.split(',').any(|w| w == "plan")) {
            eprintln!("{}", super::describe(&plan));
        }
        Ok(plan)
    }

    /// Arranges the calls of `lowered`, whose program was reduced, and gives every value its place.
    pub(super) fn placed(mut lowered: Lowered, request: &Request) -> Result<Plan> {
        passes::run(passes::ARRANGE, &mut lowered.program);
        restore_roots(&mut lowered);
        Placer::new(lowered, request)?.finish()
    }

    /// The nodes whose results are computed again, by their places among the graph's calls.
    pub fn again(&self) -> Vec<usize> {
        // Not read from the calls: a fused one stands for several nodes.
        let mut nodes: Vec<usize> = self.program.repeats.values().map(|n| *n as usize).collect();
        nodes.sort();
        nodes
    }

    pub fn spec(&self, value: ValueId) -> &Spec {
        &self.program.specs[value as usize]
    }

    /// The constants as arrays of `context`.
    pub fn consts_on(&self, context: Context) -> Result<Arc<Vec<Array>>> {
        let place = if context.is_host() { Context::CPU } else { context };
        let mut placed = self.placed.lock();
        if let Some((_, consts)) = placed.iter().find(|(c, _)| *c == place) {
            return Ok(consts.clone());
        }
        let copy = |a: &Array| dispatch!(a.dtype(), T => Array::from_slice(&a.to_vec::<T>()?, a.shape().clone(), place));
        let consts = Arc::new(self.consts.iter().map(copy).collect::<Result<Vec<Array>>>()?);
        placed.push((place, consts.clone()));
        Ok(consts)
    }

    /// The name of the node that a call comes from.
    pub fn node(&self, instr: &Instr) -> &str {
        self.program.names.get(instr.node as usize).map_or("", |n| n)
    }
}

/// The shapes of calls without inputs whose attributes leave dimensions open (`zeros(shape=(0, 5))`).
fn open_sources(symbol: &Symbol, specs: &[Spec]) -> Result<HashMap<NodeKey, Shape>> {
    let order = symbol.order();
    let open = |n: &NodeRef| {
        let Some(call) = n.call.as_ref().filter(|_| n.inputs.is_empty()) else { return false };
        call.attrs.has("shape") && call.attrs.opt_ints("shape").contains(&Some(0))
    };
    if !order.iter().any(open) {
        return Ok(HashMap::new());
    }
    let mut known = Known::default();
    let (args, aux) = symbol.inputs();
    for (node, spec) in args.iter().chain(&aux).zip(specs) {
        known.shapes.insert(node.name.to_string(), spec.shape.iter().copied().collect());
        known.dtypes.insert(node.name.to_string(), spec.dtype);
    }
    Ok(graph::infer(symbol, &known, false)?.sources)
}

/// Reads the renamed outputs and gradients back from the program's list.
fn restore_roots(lowered: &mut Lowered) {
    let mut roots = lowered.program.outputs.iter().copied();
    for v in &mut lowered.outputs {
        *v = roots.next().unwrap_or(*v);
    }
    for v in lowered.grads.iter_mut().flatten() {
        *v = roots.next().unwrap_or(*v);
    }
}

struct Placer {
    program: Program,
    variables: Vec<ValueId>,
    outputs: Vec<ValueId>,
    heads: Vec<ValueId>,
    grads: Vec<Option<ValueId>>,
    reqs: Vec<u8>,
    train: bool,
    places: Vec<Place>,
    /// The value whose memory a value shares: itself, or what it is a view of.
    root: Vec<ValueId>,
    /// The last call that reads the memory of a root.
    last: Vec<usize>,
    mutated: Vec<bool>,
    consts: Vec<Array>,
    /// Calls that need not be made: views.
    folded: Vec<bool>,
    /// Copies, additions and zeros at the end of the forward and the backward phase.
    tails: [Vec<Step>; 2],
}

impl Placer {
    fn new(lowered: Lowered, request: &Request) -> Result<Placer> {
        let Lowered { program, variables, outputs, heads, grads, .. } = lowered;
        let n = program.specs.len();
        let mut placer = Placer {
            places: vec![Place::Nowhere; n],
            root: (0..n as ValueId).collect(),
            last: vec![0; n],
            mutated: vec![false; n],
            consts: Vec::new(),
            folded: vec![false; program.instrs.len()],
            tails: [Vec::new(), Vec::new()],
            program,
            variables,
            outputs,
            heads,
            grads,
            reqs: request.grads.clone(),
            train: request.train,
        };
        placer.place_given();
        placer.place_outputs();
        placer.place_grads();
        placer.find_views();
        placer.find_last();
        Ok(placer)
    }

    fn place_given(&mut self) {
        for (i, v) in self.variables.iter().enumerate() {
            self.places[*v as usize] = Place::Input(i as u32);
        }
        for (i, v) in self.heads.iter().enumerate() {
            self.places[*v as usize] = Place::Head(i as u32);
        }
        for (i, (v, array)) in self.program.consts.iter().enumerate() {
            self.places[*v as usize] = Place::Const(i as u32);
            self.consts.push(array.clone());
        }
        for instr in &self.program.instrs {
            instr.mutated().for_each(|v| self.mutated[v as usize] = true);
        }
    }

    /// Values computed for an output are written into its array; others are copied there.
    fn place_outputs(&mut self) {
        for (k, v) in self.outputs.iter().enumerate() {
            let to = Place::Output(k as u32);
            let own = &mut self.places[*v as usize];
            match own {
                Place::Nowhere => *own = to,
                _ => self.tails[0].push(Step::Copy { value: *v, from: *own, to }),
            }
        }
    }

    fn place_grads(&mut self) {
        // A value of the forward phase can be a gradient; it is copied when the backward phase runs.
        let mut made_back = vec![false; self.places.len()];
        for instr in &self.program.instrs[self.program.forward..] {
            instr.outs.iter().for_each(|v| made_back[*v as usize] = true);
        }
        for (i, grad) in self.grads.iter().enumerate() {
            let (to, argument) = (Place::Grad(i as u32), self.variables[i]);
            match (grad, self.reqs.get(i).copied().unwrap_or(0)) {
                (_, 0) | (None, 2) => {}
                (None, _) => self.tails[1].push(Step::Zero { value: argument, to }),
                (Some(v), 2) => self.tails[1].push(Step::Add { value: *v, from: Place::Nowhere, to }),
                (Some(v), _) => match &mut self.places[*v as usize] {
                    own @ Place::Nowhere if made_back[*v as usize] => *own = to,
                    _ => self.tails[1].push(Step::Copy { value: *v, from: Place::Nowhere, to }),
                },
            }
        }
    }

    /// Views share their source's memory where nothing else decides their place.
    fn find_views(&mut self) {
        for (n, instr) in self.program.instrs.iter().enumerate() {
            if !instr.is_view() || self.folded[n] || instr.outs.len() != 1 {
                continue;
            }
            let (from, to) = (instr.ins[0], instr.outs[0]);
            let source = self.root[from as usize];
            // An output's array belongs to the user as soon as the forward phase is over.
            let shared = !matches!(self.places[source as usize], Place::Output(_) | Place::Grad(_));
            if self.places[to as usize] == Place::Nowhere && shared && !self.mutated[source as usize] {
                self.root[to as usize] = source;
                self.folded[n] = true;
            }
        }
    }

    fn find_last(&mut self) {
        for (n, instr) in self.program.instrs.iter().enumerate() {
            if !self.folded[n] {
                instr.ins.iter().for_each(|v| self.last[self.root[*v as usize] as usize] = n);
            }
        }
        // What is copied at the end of a phase lives until then.
        let ends = [self.program.forward.saturating_sub(1), self.program.instrs.len().saturating_sub(1)];
        for (tail, end) in self.tails.iter().zip(ends) {
            for step in tail {
                if let Step::Copy { value, .. } | Step::Add { value, .. } = step {
                    let root = self.root[*value as usize] as usize;
                    self.last[root] = self.last[root].max(end + 1);
                }
            }
        }
    }

    fn place_of(&self, v: ValueId) -> Place {
        self.places[self.root[v as usize] as usize]
    }

    /// Walks the calls, giving memory to results and taking it back after their last use.
    fn finish(mut self) -> Result<Plan> {
        let mut arena = Arena::default();
        let mut dying: Vec<SmallVec<[ValueId; 2]>> = vec![SmallVec::new(); self.program.instrs.len() + 2];
        let mut steps = Vec::new();
        let mut forward = 0;
        for n in 0..=self.program.instrs.len() {
            if n == self.program.forward {
                self.finish_phase(0, &mut steps);
                forward = steps.len();
            }
            if n == self.program.instrs.len() {
                break;
            }
            if !self.folded[n] {
                self.place_results(n, &mut arena, &mut dying)?;
                let instr = &self.program.instrs[n];
                let ins = instr.ins.iter().map(|v| self.place_of(*v)).collect();
                let outs = instr.outs.iter().map(|v| self.place_of(*v)).collect();
                steps.push(Step::Call { instr: n as u32, ins, outs });
            }
            for v in std::mem::take(&mut dying[n]) {
                if let Place::Arena(start) = self.places[v as usize] {
                    arena.give(start, self.program.specs[v as usize].bytes()?);
                }
            }
        }
        self.finish_phase(1, &mut steps);
        self.into_plan(steps, forward, arena.peak())
    }

    fn finish_phase(&mut self, phase: usize, steps: &mut Vec<Step>) {
        for mut step in std::mem::take(&mut self.tails[phase]) {
            if let Step::Copy { value, from, .. } | Step::Add { value, from, .. } = &mut step {
                *from = self.place_of(*value);
            }
            steps.push(step);
        }
    }

    fn place_results(
        &mut self,
        n: usize,
        arena: &mut Arena,
        dying: &mut [SmallVec<[ValueId; 2]>],
    ) -> Result<()> {
        let instr = self.program.instrs[n].clone();
        for out in &instr.outs {
            if self.places[*out as usize] != Place::Nowhere {
                continue;
            }
            let end = self.last[*out as usize].max(n);
            if instr.outs.len() == 1
                && let Some(over) = self.writes_over(n, &instr)
            {
                self.places[*out as usize] = self.places[over as usize];
                dying[n].retain(|v| *v != over);
                dying[end].push(*out);
                continue;
            }
            let bytes = self.program.specs[*out as usize].bytes()?;
            self.places[*out as usize] = Place::Arena(arena.take(bytes));
            dying[end].push(*out);
        }
        Ok(())
    }

    /// An input of a formula that nobody reads again and whose memory its result can take.
    fn writes_over(&self, n: usize, instr: &Instr) -> Option<ValueId> {
        instr.formula()?;
        let out = &self.program.specs[instr.outs[0] as usize];
        instr.ins.iter().find_map(|v| {
            let root = self.root[*v as usize];
            let spec = &self.program.specs[*v as usize];
            let fits = spec.shape == out.shape
                && spec.dtype.size() == out.dtype.size()
                && self.program.specs[root as usize].bytes().ok() == out.bytes().ok();
            let free = self.last[root as usize] == n && matches!(self.places[root as usize], Place::Arena(_));
            // The same memory under another shape would be read at other places than it is written.
            let alone = instr.ins.iter().all(|w| {
                self.root[*w as usize] != root || self.program.specs[*w as usize].shape == spec.shape
            });
            (fits && free && alone).then_some(root)
        })
    }

    fn into_plan(self, steps: Vec<Step>, forward: usize, arena: usize) -> Result<Plan> {
        let split = self.program.forward;
        let phases = [&self.program.instrs[..split], &self.program.instrs[split..]];
        let number = |v: ValueId| self.variables.iter().position(|w| *w == v);
        let mutates = phases.map(|instrs| {
            let mut out: Vec<usize> = instrs.iter().flat_map(Instr::mutated).filter_map(number).collect();
            out.sort();
            out.dedup();
            out
        });
        let mut used = vec![false; self.program.specs.len()];
        for (n, instr) in self.program.instrs.iter().enumerate().skip(split) {
            if !self.folded[n] {
                instr.ins.iter().for_each(|v| used[self.root[*v as usize] as usize] = true);
            }
        }
        for step in &steps[forward..] {
            if let Step::Copy { value, .. } | Step::Add { value, .. } = step {
                used[self.root[*value as usize] as usize] = true;
            }
        }
        let head_used = self.heads.iter().map(|v| used[*v as usize]).collect();
        let reads_back = (0..self.variables.len()).filter(|i| used[self.variables[*i] as usize]).collect();
        let mut draws = Vec::new();
        for (n, instr) in self.program.instrs.iter().enumerate().filter(|(_, i)| i.is_random()) {
            let count = instr.outs.iter().map(|v| self.program.specs[*v as usize].shape.size() as u64).sum();
            draws.push((n as u32, count));
        }
        let cost = phases.map(|instrs| instrs.iter().map(|i| i.cost(&self.program.specs)).sum());
        Ok(Plan {
            steps,
            forward,
            arena,
            variables: self.variables,
            outputs: self.outputs,
            heads: self.heads,
            head_used,
            mutates,
            reads_back,
            placed: Mutex::new(vec![(Context::CPU, Arc::new(self.consts.clone()))]),
            consts: self.consts,
            train: self.train,
            cost,
            draws,
            program: self.program,
        })
    }
}

/// Sends an operator without attributes to a GPU.
pub fn simple_on_gpu(name: &str, ins: &[GpuView], outs: &[GpuView], device: &Device) -> Result<()> {
    let op: OpRef = registry::expect(name);
    let attrs = Attrs::new(op, &[])?;
    let (train, rng) = (false, RngPos::default());
    ops::run_gpu(&GpuCtx { op, attrs: &attrs, ins, outs, train, rng, device, then: None })
}

/// Runs an operator without attributes on memory.
pub fn simple(name: &str, ins: &[View], outs: &[View]) -> Result<()> {
    let op: OpRef = registry::expect(name);
    let attrs = Attrs::new(op, &[])?;
    ops::run(&Ctx { op, attrs: &attrs, ins, outs, train: false, rng: RngPos::default(), then: None })
}
