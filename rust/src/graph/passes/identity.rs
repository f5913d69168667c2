//! Calls that change nothing, to the last bit, are left out: a product with 1, a cast to the same type, a copy, a
//! repetition to the same shape, two transpositions that cancel. Two in a row that are one become one.
//!
//! A sum with 0 stays where numbers have signed zeros: -0 + 0 is 0.

use super::mutated;
use crate::graph::program::{Instr, Program, ValueId, Work};
use crate::ops::{Attrs, registry};
use mxrs_base::AttrValue;
use smallvec::smallvec;

pub fn run(program: &mut Program) {
    let mutated = mutated(program);
    let mut to: Vec<ValueId> = (0..program.specs.len() as ValueId).collect();
    let mut producer = vec![usize::MAX; program.specs.len()];
    let mut keep = vec![true; program.instrs.len()];
    for (n, keep) in keep.iter_mut().enumerate() {
        program.instrs[n].ins.iter_mut().for_each(|v| *v = to[*v as usize]);
        let instr = &program.instrs[n];
        let (Some(&x), &[y]) = (instr.ins.first(), &instr.outs[..]) else { continue };
        if mutated[x as usize] || mutated[y as usize] {
            continue;
        }
        if changes_nothing(instr, program) {
            to[y as usize] = x;
            *keep = false;
            continue;
        }
        // What was a result of the forward phase before must still be one: its producer may be merged within a phase only.
        let before = producer[x as usize];
        if before != usize::MAX && (before < program.forward) == (n < program.forward) {
            match merged(instr, &program.instrs[before], program) {
                Some(Merged::Nothing(source)) if !mutated[source as usize] => {
                    to[y as usize] = source;
                    *keep = false;
                    continue;
                }
                Some(Merged::One(call)) if !mutated[call.ins[0] as usize] => program.instrs[n] = *call,
                _ => {}
            }
        }
        producer[y as usize] = n;
    }
    super::rename(program, &to);
    super::retain(program, &keep);
}

/// Whether the only result is the first input, bit for bit.
fn changes_nothing(instr: &Instr, program: &Program) -> bool {
    let (x, y) = (&program.specs[instr.ins[0] as usize], &program.specs[instr.outs[0] as usize]);
    let Work::Op { op, attrs } = &instr.work else { return false };
    if x != y {
        return false;
    }
    let scalar = |wanted: f64| attrs.has("scalar") && attrs.number("scalar").to_bits() == wanted.to_bits();
    match op.name {
        "_mul_scalar" | "_div_scalar" => scalar(1.0),
        "_minus_scalar" => scalar(0.0),
        "_plus_scalar" => scalar(0.0) && !x.dtype.is_float(),
        "Cast" | "amp_cast" | "broadcast_to" | "broadcast_axis" | "broadcast_like" | "_sum_to" => true,
        "transpose" => axes(attrs, x.shape.ndim()).iter().enumerate().all(|(i, a)| i == *a),
        _ => instr.is_view(),
    }
}

/// What two calls come to.
enum Merged {
    Nothing(ValueId),
    One(Box<Instr>),
}

/// `instr`, whose first input `before` makes, on the input of `before`.
fn merged(instr: &Instr, before: &Instr, program: &Program) -> Option<Merged> {
    let (Work::Op { op, attrs }, Work::Op { op: inner, attrs: first }) = (&instr.work, &before.work) else {
        return None;
    };
    let source = before.ins[0];
    let (x, y) = (&program.specs[source as usize], &program.specs[instr.outs[0] as usize]);
    if instr.is_view() && before.is_view() {
        if x == y {
            return Some(Merged::Nothing(source));
        }
        // Under a name of its own: the attributes of a view say what to do with its own input.
        return Some(Merged::One(Box::new(on(source, instr, "_view_shape", ("shape", (&y.shape).into()))?)));
    }
    if op.name != "transpose" || inner.name != "transpose" {
        return None;
    }
    let (a, b) = (axes(first, x.shape.ndim()), axes(attrs, x.shape.ndim()));
    let both: Vec<usize> = b.iter().map(|i| a[*i]).collect();
    if both.iter().enumerate().all(|(i, axis)| i == *axis) {
        return Some(Merged::Nothing(source));
    }
    let given = AttrValue::Ints(both.iter().map(|i| Some(*i as i64)).collect());
    Some(Merged::One(Box::new(on(source, instr, "transpose", ("axes", given))?)))
}

/// A call of another operator on `source` in the place of `instr`.
fn on(source: ValueId, instr: &Instr, name: &str, attr: (&str, AttrValue)) -> Option<Instr> {
    let op = registry::expect(name);
    let work = Work::Op { op, attrs: Attrs::new(op, &[attr]).ok()? };
    Some(Instr { work, ins: smallvec![source], outs: instr.outs.clone(), node: instr.node, then: None })
}

/// The axes of a transposition of `ndim` axes, counted from the first.
fn axes(attrs: &Attrs, ndim: usize) -> Vec<usize> {
    let given: Vec<usize> = match attrs.is_none("axes") {
        true => Vec::new(),
        false => attrs.ints("axes").iter().map(|a| a.rem_euclid(ndim.max(1) as i64) as usize).collect(),
    };
    if given.len() == ndim { given } else { (0..ndim).rev().collect() }
}
