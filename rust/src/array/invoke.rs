//! From a call to an engine operation, and to a node of the tape.

use super::deferred;
use super::eager::EagerBuild;
use super::handle::Array;
use super::mode::{is_recording, is_training};
use super::node::{Link, Node, NodeState, OpNode, Slot};
use super::rng;
use super::transfer::{run_on_gpu, transfer};
use crate::device::Context;
use crate::engine::{self, ChunkRef};
use crate::ops::{self, Attrs, Body, Ctx, Gradient, OpRef, RngPos, Sig, Spec, View};
use mxrs_base::{AttrValue, Error, Result};
use smallvec::SmallVec;
use std::sync::OnceLock;

/// A call's outputs.
pub type Arrays = SmallVec<[Array; 2]>;

/// Below this estimate a call runs on the calling thread: handing it over would cost more. Nanoseconds.
const INLINE_BELOW: f64 = 10_000.0;

/// Where a call comes from in the user's program, for errors that surface later.
type OriginHook = fn() -> Option<String>;
static ORIGIN: OnceLock<OriginHook> = OnceLock::new();

/// Sets what tells the user's source line. The border to Python does.
pub fn set_origin_hook(hook: OriginHook) {
    let _ = ORIGIN.set(hook);
}

/// The user's source line that is running.
pub fn origin() -> Option<String> {
    ORIGIN.get().and_then(|hook| hook())
}

/// Calls `op`. `out` gives arrays to write the visible outputs into.
///
/// The result holds all outputs, hidden ones included. `context` is where an operator without inputs makes its output.
pub fn invoke(
    op: OpRef,
    attrs: &Attrs,
    ins: &[&Array],
    out: Option<&[&Array]>,
    context: Option<Context>,
) -> Result<Arrays> {
    if let Some(expected) = op.arity(attrs)
        && expected != ins.len()
    {
        return Err(wrong_count(op, expected, ins.len()));
    }
    if op.promotes && ins.len() > 1 && ins[1..].iter().any(|a| a.dtype() != ins[0].dtype()) {
        return invoke_promoted(op, attrs, ins, out, context);
    }
    let recorded = is_recording() && ins.iter().any(|a| a.is_linked());
    let composition = match &op.body {
        Body::Compose(body) => Some(body),
        _ if recorded => op.equivalent.as_ref(),
        _ => None,
    };
    if let Some(body) = composition {
        let mut build = EagerBuild::new(context_of(attrs, ins, context)?);
        let values: SmallVec<[ops::Value; 4]> = ins.iter().map(|a| build.array((*a).clone())).collect();
        let results = body(&mut build, attrs, &values)?;
        let results = results.iter().map(|v| build.take(*v)).collect::<Result<Arrays>>()?;
        return deliver(results, out);
    }
    let specs: SmallVec<[&Spec; 4]> = ins.iter().map(|a| a.spec()).collect();
    let sig = Sig { op, attrs, ins: &specs };
    let outs = (op.infer)(&sig)?;
    // Without inputs, the array to be written says where.
    let context = match (ins, out) {
        ([], Some([first, ..])) => first.context(),
        _ => context_of(attrs, ins, context)?,
    };
    let visible = op.visible(attrs, outs.len());
    let held = deferred::joins(op, ins, &outs, context);
    let small = held || ops::estimate(&sig, &outs) < INLINE_BELOW;
    let mut results = Arrays::new();
    for (i, spec) in outs.into_iter().enumerate() {
        results.push(match out {
            Some(given) if i < visible => {
                check_out(op, i, given, visible, &spec)?;
                if aliases(op, i, given[i], ins) {
                    // The kernel must not see its input change under it: it writes elsewhere, and the result is copied.
                    Array::empty(spec, context)?
                } else {
                    given[i].detach()
                }
            }
            _ => Array::result(spec, context, held)?,
        });
    }
    match held && results[0].context() == context {
        true => deferred::hold(op, attrs, ins, &results[0]),
        false => execute(op, attrs, ins, &results, small, context)?,
    }
    if recorded {
        record(op, attrs, ins, &mut results);
    }
    match out {
        Some(given) if results.iter().zip(given).any(|(r, g)| !r.same_memory(g)) => deliver(results, out),
        _ => Ok(results),
    }
}

fn wrong_count(op: OpRef, expected: usize, given: usize) -> Error {
    let names: Vec<&str> = op.inputs.iter().take(expected).map(|i| i.name).collect();
    Error::op(format!(
        "{}: {expected} arrays ({}) are expected, {given} were given",
        op.name,
        names.join(", ")
    ))
}

/// Casts every input to the common type first.
fn invoke_promoted(
    op: OpRef,
    attrs: &Attrs,
    ins: &[&Array],
    out: Option<&[&Array]>,
    context: Option<Context>,
) -> Result<Arrays> {
    let common = ins.iter().map(|a| a.dtype()).reduce(ops::promote).unwrap_or(ins[0].dtype());
    let cast = ops::registry::expect("Cast");
    let to = Attrs::new(cast, &[("dtype", common.into())])?;
    let mut casts: SmallVec<[Array; 4]> = SmallVec::new();
    for a in ins {
        casts.push(match a.dtype() == common {
            true => (*a).clone(),
            false => invoke(cast, &to, &[a], None, None)?.swap_remove(0),
        });
    }
    let refs: SmallVec<[&Array; 4]> = casts.iter().collect();
    invoke(op, attrs, &refs, out, context)
}

fn context_of(attrs: &Attrs, ins: &[&Array], given: Option<Context>) -> Result<Context> {
    if let Some(first) = ins.first() {
        return Ok(first.context());
    }
    if attrs.has("ctx")
        && let AttrValue::Str(text) = attrs.get("ctx")
        && !text.is_empty()
    {
        return Context::parse(text);
    }
    Ok(given.unwrap_or(Context::CPU))
}

fn check_out(op: OpRef, i: usize, given: &[&Array], visible: usize, spec: &Spec) -> Result<()> {
    if given.len() != visible {
        return Err(Error::op(format!(
            "{}: out has {} arrays; the operator has {visible} outputs",
            op.name,
            given.len()
        )));
    }
    let target = given[i];
    if target.spec() != spec {
        return Err(Error::op(format!(
            "{}: out is {} {}; the result is {} {}",
            op.name,
            target.dtype(),
            target.shape(),
            spec.dtype,
            spec.shape
        )));
    }
    if is_recording() && target.is_linked() {
        return Err(Error::op(format!(
            "{}: writing to an array that is part of a recorded computation would make its gradient wrong; \
             write to a copy, or call backward first",
            op.name
        )));
    }
    Ok(())
}

/// Whether writing output `i` into `target` could disturb an input that the kernel still reads.
fn aliases(op: OpRef, i: usize, target: &Array, ins: &[&Array]) -> bool {
    ins.iter().enumerate().any(|(j, a)| {
        let shared = std::sync::Arc::ptr_eq(a.chunk(), target.chunk());
        let elementwise = matches!(op.body, Body::Formula { .. }) && a.same_memory(target);
        let in_place = a.same_memory(target) && op.updates.contains(&(i, j));
        shared && !elementwise && !in_place
    })
}

/// Hands the call to the engine.
fn execute(
    op: OpRef,
    attrs: &Attrs,
    ins: &[&Array],
    outs: &Arrays,
    small: bool,
    context: Context,
) -> Result<()> {
    let rng = match op.random {
        // Every element may draw a few numbers; the stream is long enough to be generous.
        true => rng::next(context, outs.iter().map(|o| o.size() as u64).sum::<u64>()),
        false => RngPos::default(),
    };
    let train = is_training();
    if ins.iter().copied().chain(outs).any(|a| !a.context().is_host()) {
        return execute_on_gpu(op, attrs, ins, outs, (train, rng), context);
    }
    let reads: SmallVec<[&ChunkRef; 4]> = ins.iter().map(|a| a.chunk()).collect();
    let mut writes: SmallVec<[&ChunkRef; 4]> = outs.iter().map(|a| a.chunk()).collect();
    writes.extend(op.mutates.iter().filter_map(|i| ins.get(*i)).map(|a| a.chunk()));
    let now = || {
        let ins: SmallVec<[View; 4]> = ins.iter().map(|a| a.view()).collect();
        let outs: SmallVec<[View; 2]> = outs.iter().map(|a| a.view()).collect();
        run_noted(&Ctx { op, attrs, ins: &ins, outs: &outs, train, rng, then: None })
    };
    let later = || -> Box<dyn FnOnce() -> Result<()> + Send> {
        let attrs = attrs.clone();
        let ins: SmallVec<[Array; 4]> = ins.iter().map(|a| a.detach()).collect();
        let outs: SmallVec<[Array; 2]> = outs.iter().map(|a| a.detach()).collect();
        let origin = origin();
        Box::new(move || {
            let views: SmallVec<[View; 4]> = ins.iter().map(|a| a.view()).collect();
            let out_views: SmallVec<[View; 2]> = outs.iter().map(|a| a.view()).collect();
            let result =
                run_noted(&Ctx { op, attrs: &attrs, ins: &views, outs: &out_views, train, rng, then: None });
            result.map_err(|e| match origin {
                Some(line) => e.note(&format!("called at {line}")),
                None => e,
            })
        })
    };
    engine::run(&reads, &writes, small, 0, now, later)
}

/// The part of [`execute`] for calls of which some array is on a GPU.
#[cold]
fn execute_on_gpu(
    op: OpRef,
    attrs: &Attrs,
    ins: &[&Array],
    outs: &Arrays,
    state: (bool, RngPos),
    context: Context,
) -> Result<()> {
    match ins.iter().copied().chain(outs).find(|a| a.context() != context) {
        None => run_on_gpu(op, attrs, ins, outs, state, context),
        Some(_) if op.name == "_copyto" => transfer(ins[0], &outs[0]),
        Some(other) => Err(Error::op(format!(
            "{}: all arrays must be on one device; given were {context} and {}; as_in_context moves an array",
            op.name,
            other.context()
        ))),
    }
}

/// Runs the body, with a note for the profiler.
#[inline]
fn run_noted(ctx: &Ctx) -> Result<()> {
    let what = || {
        let bytes = ctx.outs.iter().map(|v| v.spec.bytes().unwrap_or(0)).sum();
        (ctx.op.name.to_string(), bytes)
    };
    engine::trace::span("imperative", what, || ops::run(ctx))
}

/// Puts results into `out` where they are not there already.
fn deliver(results: Arrays, out: Option<&[&Array]>) -> Result<Arrays> {
    let Some(given) = out else { return Ok(results) };
    let copy = ops::registry::expect("_copyto");
    let attrs = Attrs::new(copy, &[])?;
    let mut delivered = Arrays::new();
    for (i, result) in results.into_iter().enumerate() {
        delivered.push(match given.get(i) {
            Some(target) if !result.same_memory(target) => {
                if target.spec() != result.spec() {
                    return Err(Error::op(format!(
                        "out is {} {}; the result is {} {}",
                        target.dtype(),
                        target.shape(),
                        result.dtype(),
                        result.shape()
                    )));
                }
                let flat = [&result.detach()];
                execute(copy, &attrs, &flat, &smallvec::smallvec![target.detach()], false, target.context())?;
                Array { link: result.link, ..target.detach() }
            }
            _ => result,
        });
    }
    Ok(delivered)
}

/// Adds the call to the tape and links its outputs to it.
fn record(op: OpRef, attrs: &Attrs, ins: &[&Array], outs: &mut Arrays) {
    let keeps = op.kept();
    let linkable = !matches!(op.gradient, Gradient::Zero);
    // States that a gradient rule names in `keeps` are handed to it as they are at backward time.
    let states = linkable && keeps.ins != u32::MAX;
    let slot = |(i, a): (usize, &&Array)| match op.is_state(i) {
        true if states && keeps.input(i) => Slot::state(a),
        mutated => Slot::new(a, linkable && keeps.input(i) && !mutated, a.live_link()),
    };
    let node = OpNode {
        op,
        attrs: attrs.clone(),
        ins: ins.iter().enumerate().map(slot).collect(),
        outs: outs.iter().enumerate().map(|(i, a)| Slot::new(a, linkable && keeps.output(i), None)).collect(),
        train: is_training(),
    };
    let node = Node::new(NodeState::Op(Box::new(node)));
    for (i, array) in outs.iter_mut().enumerate() {
        array.link = Some(Link { node: node.clone(), index: i as u32 });
    }
}

/// The elements from `skip` on as an array of `shape` over the same memory, recorded like a call.
pub fn view(array: &Array, skip: usize, shape: mxrs_base::Shape) -> Result<Array> {
    let mut window = array.window(skip, shape.clone())?;
    if is_recording() && array.is_linked() {
        let op = ops::registry::expect("_window");
        let attrs = Attrs::new(op, &[("skip", skip.into()), ("shape", (&shape).into())])?;
        let mut outs: Arrays = smallvec::smallvec![window];
        record(op, &attrs, &[array], &mut outs);
        window = outs.swap_remove(0);
    }
    Ok(window)
}
