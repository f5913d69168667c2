//! A program: calls of kernels and formulas in order, on numbered values. What graphs are lowered to.
//!
//! A program is a [`Build`]: calling an operator on it adds the call, with compositions expanded, so gradient rules
//! write their calls into the program that they differentiate.

use crate::array::Array;
use crate::device::Device;
use crate::ops::{
    self, Attrs, Body, Build, Ctx, GpuCtx, GpuThen, GpuView, GradArgs, OpRef, RngPos, Sig, Spec, Specs,
    Value, Values, View, promote,
};
use mxrs_base::{Error, Result};
use mxrs_formula::Formula;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;

/// The number of a value.
pub type ValueId = u32;

/// What a call does.
#[derive(Clone)]
pub enum Work {
    /// The body of an operator.
    Op { op: OpRef, attrs: Attrs },
    /// Several formulas in one, with the numbers of their parameters.
    Fused { formula: Arc<Formula>, params: SmallVec<[f64; 4]> },
}

/// One call.
#[derive(Clone)]
pub struct Instr {
    pub work: Work,
    pub ins: SmallVec<[ValueId; 4]>,
    pub outs: SmallVec<[ValueId; 2]>,
    /// The node it comes from, for messages and pictures.
    pub node: u32,
    /// What is done to a kernel's result while it is in the cache.
    pub then: Option<Arc<Then>>,
}

/// A formula of a kernel's result and of further values: the call's last inputs.
pub struct Then {
    pub formula: Formula,
    pub params: SmallVec<[f64; 4]>,
    /// Which of the formula's inputs is the result; the others are the further values in their order.
    pub at: usize,
}

impl Instr {
    /// The values that the call writes in place: states.
    pub fn mutated(&self) -> impl Iterator<Item = ValueId> {
        let places: &[usize] = match &self.work {
            Work::Op { op, .. } => &op.mutates,
            Work::Fused { .. } => &[],
        };
        places.iter().filter_map(|i| self.ins.get(*i).copied())
    }
    pub fn is_random(&self) -> bool {
        matches!(&self.work, Work::Op { op, .. } if op.random)
    }
    /// The call as a scalar expression with its parameters, where it is one.
    pub fn formula(&self) -> Option<(&Formula, SmallVec<[f64; 4]>)> {
        match &self.work {
            Work::Fused { formula, params } => Some((formula, params.clone())),
            Work::Op { op, attrs } => match &op.body {
                Body::Formula { formula, .. } => {
                    Some((formula, formula.params().iter().map(|name| attrs.number(name)).collect()))
                }
                _ => None,
            },
        }
    }
    /// Whether the output is the first input under another shape.
    pub fn is_view(&self) -> bool {
        matches!(&self.work, Work::Op { op, .. } if op.views)
    }
    /// Makes the call on memory.
    pub fn run(&self, ins: &[View], outs: &[View], train: bool, rng: RngPos) -> Result<()> {
        match &self.work {
            Work::Op { op, attrs } => match &self.then {
                None => ops::run(&Ctx { op, attrs, ins, outs, train, rng, then: None }),
                Some(then) => {
                    let (ins, more) = ins.split_at(ins.len() + 1 - then.formula.arity());
                    let mut views: SmallVec<[View; 4]> = more.into();
                    views.insert(then.at, outs[0]);
                    let ctx = Ctx { op, attrs, ins, outs, train, rng, then: None };
                    ops::run_then(&ctx, &then.formula, &then.params, &views)
                }
            },
            Work::Fused { formula, params } => {
                ops::run_formula(formula, params, ins, &outs[0]);
                Ok(())
            }
        }
    }

    /// Sends the call to a GPU.
    pub fn send(
        &self,
        ins: &[GpuView],
        outs: &[GpuView],
        (train, rng): (bool, RngPos),
        device: &Device,
    ) -> Result<()> {
        match &self.work {
            Work::Op { op, attrs } => {
                let own = self.then.as_ref().map_or(ins.len(), |then| ins.len() + 1 - then.formula.arity());
                let (ins, more) = ins.split_at(own);
                let run = |then| ops::run_gpu(&GpuCtx { op, attrs, ins, outs, train, rng, device, then });
                let Some(then) = &self.then else { return run(None) };
                let mut views: SmallVec<[GpuView; 4]> = more.into();
                views.insert(then.at, outs[0]);
                let others = GpuThen::others(more, &outs[0]);
                run(Some(&GpuThen::new(&then.formula, &then.params, then.at, &views, others.as_deref())))
            }
            Work::Fused { formula, params } => {
                ops::run_formula_gpu(device, formula, params, ins, &outs[0], "fused")
            }
        }
    }

    /// Estimated nanoseconds.
    pub fn cost(&self, specs: &[Spec]) -> f64 {
        let spec = |v: &ValueId| &specs[*v as usize];
        match &self.work {
            Work::Fused { formula, .. } => spec(&self.outs[0]).shape.size() as f64 * formula.cost(),
            Work::Op { op, attrs } => {
                let ins: SmallVec<[&Spec; 4]> = self.ins.iter().map(spec).collect();
                let outs: SmallVec<[Spec; 1]> = self.outs.iter().map(spec).cloned().collect();
                ops::estimate(&Sig { op, attrs, ins: &ins }, &outs)
            }
        }
    }

    pub fn name(&self) -> &'static str {
        match &self.work {
            Work::Op { op, .. } => op.name,
            Work::Fused { .. } => "fused",
        }
    }
}

/// The calls, and the values by number.
#[derive(Default, Clone)]
pub struct Program {
    pub specs: Vec<Spec>,
    pub instrs: Vec<Instr>,
    /// Values that come from outside.
    pub inputs: Vec<ValueId>,
    /// Values that were computed when the plan was made.
    pub consts: Vec<(ValueId, Array)>,
    /// Values that must be there at the end.
    pub outputs: Vec<ValueId>,
    /// How many of the calls belong to the forward phase; the others are the gradient's.
    pub forward: usize,
    /// Names of nodes, for [`Instr::node`].
    pub names: Vec<Arc<str>>,
    /// The node whose calls are being added.
    pub current: u32,
    pub train: bool,
    /// Neither trains nor has gradients: operators take the form that they have for inference.
    pub frozen: bool,
    /// For each node, whether the user asks that its results be computed again rather than kept, or that they be kept
    /// (the attribute `force_mirroring`).
    pub mirrored: Vec<Option<bool>>,
    /// Numbers of [`Instr::node`] that stand for a node computed again, and that node's.
    pub repeats: HashMap<u32, u32>,
}

impl Program {
    /// A new value.
    pub fn value(&mut self, spec: Spec) -> ValueId {
        self.specs.push(spec);
        self.specs.len() as ValueId - 1
    }

    /// A new value from outside.
    pub fn input(&mut self, spec: Spec) -> ValueId {
        let value = self.value(spec);
        self.inputs.push(value);
        value
    }

    fn push(&mut self, op: OpRef, attrs: Attrs, inputs: &[Value], outs: Specs) -> Values {
        let outs: SmallVec<[ValueId; 2]> = outs.into_iter().map(|s| self.value(s)).collect();
        self.instrs.push(Instr {
            work: Work::Op { op, attrs },
            ins: inputs.iter().map(|v| v.0).collect(),
            outs: outs.clone(),
            node: self.current,
            then: None,
        });
        outs.into_iter().map(Value).collect()
    }

    /// Casts inputs of different types to the common one, as calls on arrays do.
    fn promoted(&mut self, inputs: &[Value]) -> Result<SmallVec<[Value; 4]>> {
        let common = inputs.iter().map(|v| self.specs[v.0 as usize].dtype).reduce(promote);
        inputs
            .iter()
            .map(|v| match common {
                Some(common) => (self as &mut dyn Build).cast(*v, common),
                None => Ok(*v),
            })
            .collect()
    }

    /// Adds the gradient's calls: `heads[i]` is the gradient of the `i`-th output (or `None`), the result the gradient
    /// of each of `wanted` (`None` where nothing depends on it).
    pub fn differentiate(
        &mut self,
        outputs: &[ValueId],
        heads: &[Option<ValueId>],
        wanted: &[ValueId],
    ) -> Result<Vec<Option<ValueId>>> {
        let forward = self.instrs.len();
        let leads = self.leads_to(wanted);
        let mut grads: HashMap<ValueId, SmallVec<[Value; 2]>> = HashMap::new();
        for (output, head) in outputs.iter().zip(heads) {
            if let Some(head) = head {
                grads.entry(*output).or_default().push(Value(*head));
            }
        }
        for n in (0..forward).rev() {
            let instr = self.instrs[n].clone();
            if !instr.ins.iter().any(|v| leads[*v as usize]) {
                continue;
            }
            let mut heads: SmallVec<[Option<Value>; 2]> = SmallVec::new();
            for v in &instr.outs {
                heads.push(self.total(&mut grads, *v)?);
            }
            if heads.iter().all(Option::is_none) {
                continue;
            }
            let Work::Op { op, attrs } = &instr.work else { continue };
            self.current = instr.node;
            let need: SmallVec<[bool; 4]> = instr.ins.iter().map(|v| leads[*v as usize]).collect();
            let ins: SmallVec<[Value; 4]> = instr.ins.iter().map(|v| Value(*v)).collect();
            let outs: SmallVec<[Value; 2]> = instr.outs.iter().map(|v| Value(*v)).collect();
            let train = self.train;
            let args = GradArgs { op, attrs, ins: &ins, outs: &outs, heads: &heads, need: &need, train };
            let found =
                ops::gradients(self, &args).map_err(|e| e.within(&format!("gradient of {}", op.name)))?;
            for ((v, grad), need) in instr.ins.iter().zip(found).zip(need) {
                if let (Some(grad), true) = (grad, need) {
                    grads.entry(*v).or_default().push(grad);
                }
            }
        }
        wanted.iter().map(|v| Ok(self.total(&mut grads, *v)?.map(|v| v.0))).collect()
    }

    /// For every value, whether one of `wanted` is it or below it.
    fn leads_to(&self, wanted: &[ValueId]) -> Vec<bool> {
        let mut leads = vec![false; self.specs.len()];
        wanted.iter().for_each(|v| leads[*v as usize] = true);
        for instr in &self.instrs {
            let any = instr.ins.iter().any(|v| leads[*v as usize]);
            let stops =
                matches!(&instr.work, Work::Op { op, .. } if matches!(op.gradient, ops::Gradient::Zero));
            if any && !stops {
                instr.outs.iter().for_each(|v| leads[*v as usize] = true);
            }
        }
        leads
    }

    /// The sum of the contributions to a value's gradient, made once.
    fn total(
        &mut self,
        grads: &mut HashMap<ValueId, SmallVec<[Value; 2]>>,
        of: ValueId,
    ) -> Result<Option<Value>> {
        let Some(parts) = grads.get(&of).cloned() else { return Ok(None) };
        let build: &mut dyn Build = self;
        let sum = match &parts[..] {
            [] => return Ok(None),
            [one] => *one,
            [a, b] => build.op1("elemwise_add", &[*a, *b], &[])?,
            many => build.op1("add_n", many, &[])?,
        };
        grads.insert(of, smallvec::smallvec![sum]);
        Ok(Some(sum))
    }
}

impl Build for Program {
    fn call(&mut self, op: OpRef, attrs: Attrs, inputs: &[Value]) -> Result<Values> {
        if let Some(expected) = op.arity(&attrs)
            && expected != inputs.len()
        {
            return Err(Error::op(format!(
                "{}: {expected} inputs are expected, {} were given",
                op.name,
                inputs.len()
            )));
        }
        let cast;
        let inputs = match op.promotes {
            true => {
                cast = self.promoted(inputs)?;
                &cast[..]
            }
            false => inputs,
        };
        if let Body::Compose(body) = &op.body {
            return body(self, &attrs, inputs);
        }
        if self.frozen
            && let Some(form) = &op.inference
            && let Some(outs) = form(self, &attrs, inputs)?
        {
            return Ok(outs);
        }
        let outs = {
            let specs: SmallVec<[&Spec; 4]> = inputs.iter().map(|v| &self.specs[v.0 as usize]).collect();
            (op.infer)(&Sig { op, attrs: &attrs, ins: &specs })?
        };
        Ok(self.push(op, attrs, inputs, outs))
    }

    fn spec(&self, value: Value) -> &Spec {
        &self.specs[value.0 as usize]
    }
}
