//! The cached operator: a graph called like one operator, with a plan per signature. What `hybridize` makes of a block.

use super::budget::Budget;
use super::memory::Spares;
use super::plan::{Plan, Request};
use super::run::Run;
use crate::array::{
    Array, CustomGrad, DrawAgain, EagerBuild, Link, Mode, custom_node, is_recording, is_training,
};
use crate::device::Context;
use crate::graph::Symbol;
use crate::ops::{Build, Value};
use crate::tape;
use mxrs_base::{Error, Result};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;

/// A graph and the plans made of it so far.
pub struct CachedOp {
    symbol: Arc<Symbol>,
    /// How many of the variables are arguments; auxiliary states come after them.
    arguments: usize,
    /// Where each of the caller's arrays goes: the symbol's variables in the order of the plan.
    places: Vec<usize>,
    plans: Mutex<HashMap<Request, Arc<Plan>>>,
    /// Working memory that goes from call to call.
    spares: Arc<Spares>,
    budget: Budget,
}

/// Plans of one graph before the oldest signature is forgotten: shapes that never repeat must not fill the memory.
const MAX_PLANS: usize = 256;

impl CachedOp {
    /// `order` names the variables in the order in which calls give their arrays; `budget` is the working memory that a
    /// recorded call may need.
    pub fn new(symbol: Symbol, order: &[String], budget: Budget) -> Result<CachedOp> {
        let (args, aux) = symbol.inputs();
        let mut places = Vec::new();
        for node in args.iter().chain(&aux) {
            let at = order.iter().position(|n| **n == *node.name);
            places.push(at.ok_or_else(|| Error::value(format!("CachedOp: {} is not given", node.name)))?);
        }
        Ok(CachedOp {
            symbol: Arc::new(symbol),
            arguments: args.len(),
            places,
            plans: Mutex::default(),
            spares: Arc::default(),
            budget,
        })
    }

    /// Runs the graph on `given` (in the order of [`CachedOp::new`]); recorded as one call while recording.
    pub fn call(&self, given: &[Array], context: Context) -> Result<Vec<Array>> {
        let mut inputs: Vec<Array> = self
            .places
            .iter()
            .map(|i| {
                given.get(*i).cloned().ok_or_else(|| {
                    Error::value(format!("CachedOp: {} arrays were given, more are needed", given.len()))
                })
            })
            .collect::<Result<_>>()?;
        let recorded = is_recording() && inputs.iter().any(Array::is_linked);
        // What comes from a graph that was freed is a constant of this one.
        inputs.iter_mut().for_each(|a| a.link = a.live_link());
        let grads = match recorded {
            true => inputs.iter().take(self.arguments).map(|a| u8::from(a.link.is_some())).collect(),
            false => Vec::new(),
        };
        let specs = inputs.iter().map(|a| a.spec().clone()).collect();
        let heads = self.symbol.heads.len();
        let plan = self.plan(Request { specs, train: is_training(), grads, heads, budget: self.budget })?;
        let context = inputs.first().map_or(context, Array::context);
        let mut outputs = Vec::new();
        for v in &plan.outputs {
            outputs.push(Array::empty(plan.spec(*v).clone(), context)?);
        }
        let memory = self.spares.lease(plan.arena, context)?;
        if !recorded {
            Run::forward(plan, inputs, outputs.clone(), memory)?;
            return Ok(outputs);
        }
        let links: Vec<Option<Link>> = inputs.iter().map(|a| a.link.clone()).collect();
        let run = Run::forward(plan, inputs.clone(), outputs.clone(), memory)?;
        let rule = self.rule(run, inputs);
        let node = custom_node(links, &outputs, context, rule);
        for (i, output) in outputs.iter_mut().enumerate() {
            output.link = Some(Link { node: node.clone(), index: i as u32 });
        }
        Ok(outputs)
    }

    fn plan(&self, request: Request) -> Result<Arc<Plan>> {
        if let Some(plan) = self.plans.lock().get(&request) {
            return Ok(plan.clone());
        }
        let plan = Arc::new(Plan::new(&self.symbol, &request)?);
        let mut plans = self.plans.lock();
        if plans.len() >= MAX_PLANS {
            plans.clear();
        }
        plans.insert(request, plan.clone());
        Ok(plan)
    }

    /// What the tape calls to go backward through the call.
    fn rule(&self, run: Run, inputs: Vec<Array>) -> CustomGrad {
        let (symbol, count) = (self.symbol.clone(), self.arguments);
        Box::new(move |heads, into| {
            if is_recording() {
                // In the mode, and with the draws, of the call.
                let _mode = Mode::set(true, run.plan().train);
                let _draws = DrawAgain::at(run.draws());
                return replay(&symbol, &inputs, heads);
            }
            let plan = run.plan().clone();
            let arguments = plan.variables.len().min(inputs.len());
            let mut grads: Vec<Option<Array>> = vec![None; arguments];
            for (i, grad) in grads.iter_mut().enumerate().take(count) {
                if inputs[i].link.is_some() {
                    *grad = Some(match into.get(i) {
                        Some(Some(target)) if target.spec() == inputs[i].spec() => target.clone(),
                        _ => Array::empty(inputs[i].spec().clone(), inputs[i].context())?,
                    });
                }
            }
            run.backward(heads.into_iter().map(Some).collect(), grads.clone())?;
            Ok(grads)
        })
    }
}

/// Gradients that are differentiated again: the graph's calls are made one by one on the tape, and the tape is asked.
fn replay(symbol: &Symbol, inputs: &[Array], heads: Vec<Array>) -> Result<Vec<Option<Array>>> {
    let context = inputs.first().map_or(Context::CPU, Array::context);
    let mut build = EagerBuild::new(context);
    let (args, aux) = symbol.inputs();
    let mut values: HashMap<*const crate::graph::Node, SmallVec<[Value; 2]>> = HashMap::new();
    for (node, array) in args.iter().chain(&aux).zip(inputs) {
        values.insert(Arc::as_ptr(node), smallvec::smallvec![build.array(array.clone())]);
    }
    for node in symbol.order() {
        let Some(call) = &node.call else { continue };
        let ins: SmallVec<[Value; 4]> =
            node.inputs.iter().map(|e| values[&Arc::as_ptr(&e.node)][e.index as usize]).collect();
        let outs = build.call(call.op, call.attrs.clone(), &ins)?;
        values.insert(Arc::as_ptr(&node), outs);
    }
    let outputs: Vec<Array> = symbol
        .heads
        .iter()
        .map(|e| build.take(values[&Arc::as_ptr(&e.node)][e.index as usize]))
        .collect::<Result<_>>()?;
    let wanted: Vec<Array> = inputs.iter().filter(|a| a.link.is_some()).cloned().collect();
    let options = tape::Options { retain: true, create_graph: true, train: is_training() };
    let heads: Vec<Option<Array>> = heads.into_iter().map(Some).collect();
    let mut found = tape::grad(&outputs, &heads, &wanted, options)?.into_iter();
    Ok(inputs.iter().map(|a| a.link.is_some().then(|| found.next()).flatten()).collect())
}
