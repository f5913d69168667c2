//! The executor: a graph bound to arrays. Its outputs are the same arrays in every run.

use super::budget::Budget;
use super::memory::Lease;
use super::plan::{Plan, Request};
use super::run::Run;
use crate::array::{Array, GradReq};
use crate::device::Context;
use crate::graph::Symbol;
use crate::ops::Spec;
use mxrs_base::{Error, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// A symbol with the arrays of its arguments, their gradients and its auxiliary states.
pub struct Executor {
    symbol: Symbol,
    /// Arguments, then auxiliary states.
    inputs: Vec<Array>,
    grads: Vec<Option<Array>>,
    reqs: Vec<GradReq>,
    outputs: Vec<Array>,
    plans: HashMap<(bool, bool), (Arc<Plan>, Arc<Lease>)>,
    /// The last forward run, if it kept what backward needs.
    run: Option<Run>,
    trained: bool,
    ran: bool,
    context: Context,
    /// The symbol's own outputs; further ones are watched.
    own: usize,
    budget: Budget,
}

impl Executor {
    /// Binds. `contexts` are those of the outputs, `own` of which are differentiated; `grads` and `reqs` go with the
    /// arguments, `budget` with the working memory of training.
    #[allow(clippy::too_many_arguments)] // what binding takes
    pub fn new(
        symbol: Symbol,
        args: Vec<Array>,
        grads: Vec<Option<Array>>,
        reqs: Vec<GradReq>,
        aux: Vec<Array>,
        contexts: &[Context],
        own: usize,
        budget: Budget,
    ) -> Result<Executor> {
        for (i, grad) in grads.iter().enumerate() {
            if let Some(grad) = grad
                && reqs[i] != GradReq::Null
                && grad.spec() != args[i].spec()
            {
                return Err(Error::value(format!(
                    "bind: argument {i} is {} {}, its gradient array {} {}",
                    args[i].dtype(),
                    args[i].shape(),
                    grad.dtype(),
                    grad.shape()
                )));
            }
        }
        let context = contexts.first().copied().unwrap_or(Context::CPU);
        let inputs = args.into_iter().chain(aux).collect();
        let mut made = Executor {
            symbol,
            inputs,
            grads,
            reqs,
            outputs: Vec::new(),
            plans: HashMap::new(),
            run: None,
            trained: false,
            ran: false,
            context,
            own,
            budget,
        };
        let (plan, _) = made.plan(made.wants_grads(), made.wants_grads())?;
        for (i, v) in plan.outputs.iter().enumerate() {
            let context = contexts.get(i).copied().unwrap_or(context);
            made.outputs.push(Array::empty(plan.spec(*v).clone(), context)?);
        }
        Ok(made)
    }

    fn wants_grads(&self) -> bool {
        self.reqs.iter().zip(&self.grads).any(|(r, g)| *r != GradReq::Null && g.is_some())
    }

    fn plan(&mut self, train: bool, back: bool) -> Result<(Arc<Plan>, Arc<Lease>)> {
        if let Some((plan, arena)) = self.plans.get(&(train, back)) {
            return Ok((plan.clone(), arena.clone()));
        }
        let specs: Vec<Spec> = self.inputs.iter().map(|a| a.spec().clone()).collect();
        let code = |(r, g): (&GradReq, &Option<Array>)| match g {
            Some(_) => Request::code(*r),
            None => 0,
        };
        let grads = match back {
            true => self.reqs.iter().zip(&self.grads).map(code).collect(),
            false => Vec::new(),
        };
        let request = Request { specs, train, grads, heads: self.own, budget: self.budget };
        let plan = Arc::new(Plan::new(&self.symbol, &request)?);
        let arena = Lease::own(plan.arena, self.context)?;
        self.plans.insert((train, back), (plan.clone(), arena.clone()));
        Ok((plan, arena))
    }

    pub fn outputs(&self) -> &[Array] {
        &self.outputs
    }

    /// Computes the outputs from what the arrays hold now.
    pub fn forward(&mut self, train: bool) -> Result<()> {
        let back = train && self.wants_grads();
        let (plan, arena) = self.plan(train, back)?;
        let run = Run::forward(plan, self.inputs.clone(), self.outputs.clone(), arena)?;
        self.run = back.then_some(run);
        self.trained = train;
        self.ran = true;
        Ok(())
    }

    /// Computes the gradients of the last forward pass into the bound gradient arrays.
    pub fn backward(&mut self, heads: Vec<Option<Array>>) -> Result<()> {
        if !self.ran {
            return Err(Error::op("backward: call forward first"));
        }
        if !self.wants_grads() {
            // As in MXNet: programs switch training off by grad_req and keep their loop.
            return Ok(());
        }
        if self.run.is_none() {
            // The forward pass was one without training, which keeps nothing: do it again and keep.
            let (plan, arena) = self.plan(self.trained, true)?;
            self.run = Some(Run::forward(plan, self.inputs.clone(), self.outputs.clone(), arena)?);
        }
        let Some(run) = &self.run else { return Ok(()) };
        let heads = check_heads(run.plan(), &self.outputs[..self.own], heads)?;
        run.backward(heads, self.grads.clone())
    }

    /// The plan of training (or of inference, where nothing is trained), for pictures.
    pub fn training_plan(&mut self) -> Result<Arc<Plan>> {
        let wants = self.wants_grads();
        self.plan(wants, wants).map(|p| p.0)
    }
}

/// The head gradients with zeros' place taken by nothing: outputs of losses need none.
fn check_heads(plan: &Plan, outputs: &[Array], mut heads: Vec<Option<Array>>) -> Result<Vec<Option<Array>>> {
    if heads.len() > outputs.len() {
        return Err(Error::value(format!(
            "backward: {} head gradients were given for {} outputs",
            heads.len(),
            outputs.len()
        )));
    }
    heads.resize(outputs.len(), None);
    for (i, (head, output)) in heads.iter().zip(outputs).enumerate() {
        match head {
            Some(head) if head.spec() != output.spec() => {
                return Err(Error::value(format!(
                    "backward: the head gradient of output {i} is {} {}; the output is {} {}",
                    head.dtype(),
                    head.shape(),
                    output.dtype(),
                    output.shape()
                )));
            }
            None if plan.head_used[i] => {
                return Err(Error::op(format!(
                    "backward: output {i} is not the output of a loss, so its head gradient must be given \
                     (backward(out_grads)); to minimise the output itself, pass it through make_loss"
                )));
            }
            _ => {}
        }
    }
    Ok(heads)
}
