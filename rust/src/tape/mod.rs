//! Walking the tape backward.
//!
//! Recording happens where calls are made (`array::invoke`); here the recorded calls are visited from the heads to
//! the variables, each once, and every gradient rule is run through the eager `Build`. With `create_graph` the rules'
//! own calls are recorded, so that gradients of gradients need nothing more.

use crate::array::{Array, EagerBuild, GradReq, Link, Mode, Node, NodeState, OpNode, invoke};
use crate::ops::{self, Attrs, Build, GradArgs, Spec, Value};
use mxrs_base::{Error, Result};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;

/// How to walk.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The graph stays for another walk.
    pub retain: bool,
    /// The gradients are recorded.
    pub create_graph: bool,
    pub train: bool,
}

/// Makes `array` a variable: its gradient will be put into `grad`.
pub fn mark(array: &mut Array, grad: Array, req: GradReq) {
    array.link = Some(Node::variable(grad.detach(), req));
}

/// The gradient array of a variable.
pub fn grad_of(array: &Array) -> Option<Array> {
    match &*array.link.as_ref()?.node.state.lock() {
        NodeState::Variable { grad, .. } => Some(grad.clone()),
        _ => None,
    }
}

/// Puts the gradient of the sum of `heads` (weighted by `head_grads`) into every variable they depend on.
pub fn backward(heads: &[Array], head_grads: &[Option<Array>], options: Options) -> Result<()> {
    let mut walk = Walk::new(heads, head_grads, None)?;
    if !walk.leads.iter().any(|l| *l) {
        return Err(Error::op(
            "backward: no array that the result depends on asks for a gradient; call attach_grad() on one before \
             computing inside autograd.record()",
        ));
    }
    let _mode = Mode::set(options.create_graph, options.train);
    walk.run(options)?;
    let assigned = walk.assign();
    if !options.retain && !options.create_graph {
        walk.free();
    }
    assigned
}

/// The gradients of the sum of `heads` with respect to `variables`; arrays marked elsewhere are left alone.
pub fn grad(
    heads: &[Array],
    head_grads: &[Option<Array>],
    variables: &[Array],
    options: Options,
) -> Result<Vec<Array>> {
    let mut targets = Vec::new();
    for (i, v) in variables.iter().enumerate() {
        let link = v.link.clone().ok_or_else(|| {
            Error::op(format!("autograd.grad: variable {i} is not part of the recorded computation"))
        })?;
        targets.push(link);
    }
    let mut walk = Walk::new(heads, head_grads, Some(&targets))?;
    let _mode = Mode::set(options.create_graph, options.train);
    walk.run(options)?;
    let mut out = Vec::new();
    for (target, variable) in targets.iter().zip(variables) {
        let found = walk
            .index
            .get(&Arc::as_ptr(&target.node))
            .and_then(|n| walk.grads[*n].get(target.index as usize));
        out.push(match found.copied().flatten() {
            Some(value) => walk.build.take(value)?,
            None => zeros(variable)?,
        });
    }
    if !options.retain && !options.create_graph {
        walk.free();
    }
    Ok(out)
}

fn zeros(like: &Array) -> Result<Array> {
    let op = ops::registry::expect("zeros_like");
    Ok(invoke(op, &Attrs::new(op, &[])?, &[like], None, None)?.swap_remove(0))
}

type Slots = SmallVec<[Option<Value>; 1]>;

struct Walk {
    /// Every node the heads depend on, each after all it depends on.
    order: Vec<Arc<Node>>,
    index: HashMap<*const Node, usize>,
    /// Whether a gradient is wanted at or below the node.
    leads: Vec<bool>,
    /// Whether the node itself is one of the targets of `grad`.
    is_target: Vec<bool>,
    grads: Vec<Slots>,
    /// How many calls and heads contribute to the gradient of each node.
    uses: Vec<u32>,
    /// Gradients are results (`grad`), so variables' own arrays are left alone.
    targeted: bool,
    build: EagerBuild,
}

impl Walk {
    fn new(heads: &[Array], head_grads: &[Option<Array>], targets: Option<&[Link]>) -> Result<Walk> {
        let first = heads.first().ok_or_else(|| Error::value("backward: there is no head"))?;
        let mut walk = Walk {
            order: Vec::new(),
            index: HashMap::new(),
            leads: Vec::new(),
            is_target: Vec::new(),
            grads: Vec::new(),
            uses: Vec::new(),
            targeted: targets.is_some(),
            build: EagerBuild::new(first.context()),
        };
        for head in heads {
            let link = head.link.as_ref().ok_or_else(not_recorded)?;
            walk.visit(&link.node, targets)?;
        }
        for (i, head) in heads.iter().enumerate() {
            let given = head_grads.get(i).and_then(Option::as_ref);
            let grad = match given {
                Some(grad) if grad.shape() != head.shape() => {
                    return Err(Error::op(format!(
                        "backward: the head gradient has shape {}; its head has {}",
                        grad.shape(),
                        head.shape()
                    )));
                }
                Some(grad) => grad.clone(),
                None => ones(head)?,
            };
            let link = head.link.as_ref().ok_or_else(not_recorded)?;
            let value = walk.build.array(grad);
            if let Some(n) = walk.index.get(&Arc::as_ptr(&link.node)) {
                walk.uses[*n] += 1;
            }
            walk.add(link, value)?;
        }
        Ok(walk)
    }

    /// Adds `root` and what it depends on to the order, without recursion.
    fn visit(&mut self, root: &Arc<Node>, targets: Option<&[Link]>) -> Result<()> {
        let mut stack = vec![(root.clone(), false)];
        while let Some((node, entered)) = stack.pop() {
            let key = Arc::as_ptr(&node);
            if self.index.contains_key(&key) {
                continue;
            }
            let state = node.state.lock();
            if !entered {
                if matches!(*state, NodeState::Freed) {
                    return Err(freed());
                }
                let parents: SmallVec<[Arc<Node>; 4]> = links(&state)
                    .filter(|l| !self.index.contains_key(&Arc::as_ptr(&l.node)))
                    .map(|l| l.node.clone())
                    .collect();
                drop(state);
                stack.push((node, true));
                // The first input's history comes first, as in a graph: states shared by two calls depend on the order.
                stack.extend(parents.into_iter().rev().map(|p| (p, false)));
                continue;
            }
            let is_target = targets.is_some_and(|t| t.iter().any(|l| Arc::ptr_eq(&l.node, &node)));
            for link in links(&state) {
                if let Some(n) = self.index.get(&Arc::as_ptr(&link.node)) {
                    self.uses[*n] += 1;
                }
            }
            let below =
                links(&state).any(|l| self.index.get(&Arc::as_ptr(&l.node)).is_some_and(|i| self.leads[*i]));
            let (wanted, outputs) = match &*state {
                NodeState::Variable { req, .. } => (targets.is_none() && *req != GradReq::Null, 1),
                NodeState::Op(op) => (false, op.outs.len()),
                NodeState::Custom(custom) => (false, custom.outs.len()),
                NodeState::Freed => (false, 0),
            };
            drop(state);
            self.index.insert(key, self.order.len());
            self.order.push(node);
            self.leads.push(wanted || is_target || below);
            self.is_target.push(is_target);
            self.grads.push(smallvec::smallvec![None; outputs]);
            self.uses.push(0);
        }
        Ok(())
    }

    /// Adds a contribution to the gradient of what `link` names.
    fn add(&mut self, link: &Link, value: Value) -> Result<()> {
        let Some(&n) = self.index.get(&Arc::as_ptr(&link.node)) else { return Ok(()) };
        let i = link.index as usize;
        let sum = match self.grads[n][i] {
            Some(before) => {
                let build: &mut dyn Build = &mut self.build;
                build.op1("elemwise_add", &[before, value], &[])?
            }
            None => value,
        };
        self.grads[n][i] = Some(sum);
        Ok(())
    }

    fn run(&mut self, _options: Options) -> Result<()> {
        for n in (0..self.order.len()).rev() {
            if !self.leads[n] || self.grads[n].iter().all(Option::is_none) {
                continue;
            }
            let node = self.order[n].clone();
            let state = node.state.lock();
            let contributions = match &*state {
                NodeState::Op(op) => self.through_op(n, op)?,
                NodeState::Custom(_) => self.through_custom(n, &state)?,
                NodeState::Variable { .. } | NodeState::Freed => continue,
            };
            drop(state);
            for (link, value) in contributions {
                self.add(&link, value)?;
            }
        }
        Ok(())
    }

    fn leads(&self, link: &Option<Link>) -> bool {
        link.as_ref().is_some_and(|l| self.index.get(&Arc::as_ptr(&l.node)).is_some_and(|i| self.leads[*i]))
    }

    fn through_op(&mut self, n: usize, node: &OpNode) -> Result<SmallVec<[(Link, Value); 3]>> {
        let mut ins: SmallVec<[Value; 4]> = SmallVec::new();
        for (i, slot) in node.ins.iter().enumerate() {
            let restored = slot.restore(node.op, &format!("input {i}"))?;
            ins.push(self.hold(restored, &slot.spec));
        }
        let mut outs: SmallVec<[Value; 2]> = SmallVec::new();
        for (i, slot) in node.outs.iter().enumerate() {
            let mut restored = slot.restore(node.op, "output")?;
            if let Some(array) = &mut restored {
                array.link = Some(Link { node: self.order[n].clone(), index: i as u32 });
            }
            outs.push(self.hold(restored, &slot.spec));
        }
        let need: SmallVec<[bool; 4]> = node.ins.iter().map(|s| self.leads(&s.link)).collect();
        let heads = self.grads[n].clone();
        // What the rule makes out of nothing belongs beside the call's results, wherever the first head was.
        if let Some(head) = heads.iter().flatten().next() {
            let context = self.build.get(*head)?.context();
            self.build.place(context);
        }
        let args = GradArgs {
            op: node.op,
            attrs: &node.attrs,
            ins: &ins,
            outs: &outs,
            heads: &heads,
            need: &need,
            train: node.train,
        };
        let grads = ops::gradients(&mut self.build, &args)
            .map_err(|e| e.within(&format!("gradient of {}", node.op.name)))?;
        let mut out = SmallVec::new();
        for ((slot, grad), need) in node.ins.iter().zip(grads).zip(&need) {
            if let (Some(link), Some(value), true) = (&slot.link, grad, need) {
                out.push((link.clone(), value));
            }
        }
        Ok(out)
    }

    fn through_custom(&mut self, n: usize, state: &NodeState) -> Result<SmallVec<[(Link, Value); 3]>> {
        let NodeState::Custom(custom) = state else { return Ok(SmallVec::new()) };
        let mut heads = Vec::new();
        self.build.place(custom.context);
        for (slot, spec) in self.grads[n].clone().iter().zip(&custom.outs) {
            heads.push(match slot {
                Some(value) => self.build.take(*value)?,
                None => {
                    let build: &mut dyn Build = &mut self.build;
                    let value = build.zeros(&spec.shape, spec.dtype)?;
                    self.build.take(value)?
                }
            });
        }
        let into: Vec<Option<Array>> = custom.ins.iter().map(|l| self.destination(l.as_ref()?)).collect();
        let grads = (custom.backward)(heads, &into)?;
        let mut out = SmallVec::new();
        for (link, grad) in custom.ins.iter().zip(grads) {
            if let (Some(link), Some(grad)) = (link, grad) {
                out.push((link.clone(), self.build.array(grad)));
            }
        }
        Ok(out)
    }

    /// The gradient array of a variable to which one contribution alone goes, and which may be overwritten.
    fn destination(&self, link: &Link) -> Option<Array> {
        let n = *self.index.get(&Arc::as_ptr(&link.node))?;
        if self.uses[n] != 1 || self.targeted {
            return None;
        }
        match &*link.node.state.lock() {
            NodeState::Variable { grad, req: GradReq::Write, .. } => Some(grad.clone()),
            _ => None,
        }
    }

    fn hold(&mut self, array: Option<Array>, spec: &Spec) -> Value {
        match array {
            Some(array) => self.build.array(array),
            None => self.build.shape_only(spec.clone()),
        }
    }

    /// Writes the gradients of the variables where they belong.
    fn assign(&mut self) -> Result<()> {
        let _mode = Mode::set(false, false);
        let copy = ops::registry::expect("_copyto");
        let add = ops::registry::expect("elemwise_add");
        for n in 0..self.order.len() {
            let node = self.order[n].clone();
            let state = node.state.lock();
            let NodeState::Variable { grad: target, req, .. } = &*state else { continue };
            let (target, req) = (target.clone(), *req);
            drop(state);
            node.set_fresh(true);
            match (self.grads[n][0], req) {
                (_, GradReq::Null) | (None, GradReq::Add) => {}
                (None, GradReq::Write) => {
                    let op = ops::registry::expect("zeros_like");
                    invoke(op, &Attrs::new(op, &[])?, &[&target], Some(&[&target]), None)?;
                }
                (Some(value), GradReq::Write) if self.build.get(value)?.same_memory(&target) => {}
                (Some(value), GradReq::Write) => {
                    let cast = (&mut self.build as &mut dyn Build).cast(value, target.dtype())?;
                    invoke(copy, &Attrs::new(copy, &[])?, &[self.build.get(cast)?], Some(&[&target]), None)?;
                }
                (Some(value), GradReq::Add) => {
                    let cast = (&mut self.build as &mut dyn Build).cast(value, target.dtype())?;
                    let sum = self.build.get(cast)?;
                    invoke(add, &Attrs::new(add, &[])?, &[&target, sum], Some(&[&target]), None)?;
                }
            }
        }
        Ok(())
    }

    /// Empties the graph: its kept values are no longer needed.
    fn free(&mut self) {
        for node in self.order.drain(..) {
            let mut state = node.state.lock();
            if !matches!(*state, NodeState::Variable { .. }) {
                node.freed.store(true, std::sync::atomic::Ordering::Relaxed);
                let before = std::mem::replace(&mut *state, NodeState::Freed);
                drop(state);
                drop(before);
            }
        }
    }
}

fn links(state: &NodeState) -> Box<dyn Iterator<Item = &Link> + '_> {
    match state {
        NodeState::Op(op) => Box::new(op.ins.iter().filter_map(|s| s.link.as_ref())),
        NodeState::Custom(custom) => Box::new(custom.ins.iter().flatten()),
        NodeState::Variable { .. } | NodeState::Freed => Box::new(std::iter::empty()),
    }
}

fn ones(like: &Array) -> Result<Array> {
    let op = ops::registry::expect("ones_like");
    Ok(invoke(op, &Attrs::new(op, &[])?, &[&like.detach()], None, None)?.swap_remove(0))
}

fn not_recorded() -> Error {
    Error::op(
        "backward: this array was not computed inside autograd.record() from an array with attach_grad(), or its \
         graph was freed by an earlier backward (retain_graph=True keeps it)",
    )
}

fn freed() -> Error {
    Error::op("backward: the graph was freed by an earlier backward; pass retain_graph=True to the first one")
}
