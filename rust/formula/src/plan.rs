//! From nodes to steps: which values are the same for all elements, and which tile registers the others use.

use crate::{Id, Node};
use mxrs_simd::{Binary, Unary};
use smallvec::SmallVec;

/// Where a step finds an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Src {
    Input(u8),
    /// A value that is the same for all elements of a call.
    Uniform(u16),
    /// A tile of intermediate results.
    Reg(u16),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Copy(Src),
    Unary(Unary, Src),
    Binary(Binary, Src, Src),
    Select(Src, Src, Src),
}

/// How a uniform value comes about; operands are earlier uniform values.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Uniform {
    Param(u8),
    Const(f64),
    Unary(Unary, u16),
    Binary(Binary, u16, u16),
    Select(u16, u16, u16),
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub uniforms: Box<[Uniform]>,
    /// Each with the register it writes; the last writes the result instead.
    pub steps: Box<[(Step, u16)]>,
    pub registers: usize,
    pub cost: f64,
}

impl Plan {
    pub(crate) fn of(nodes: &[Node]) -> Plan {
        let last_use = last_uses(nodes);
        let mut places: Vec<Src> = Vec::with_capacity(nodes.len());
        let mut uniforms: Vec<Uniform> = Vec::new();
        let mut steps: Vec<(Step, u16)> = Vec::new();
        let mut free: Vec<u16> = Vec::new();
        let mut registers = 0u16;
        let mut cost = 0;
        for (i, node) in nodes.iter().enumerate() {
            if let Node::Input(input) = node {
                places.push(Src::Input(*input));
                continue;
            }
            let slots: Option<SmallVec<[u16; 3]>> =
                node.operands().map(|id| uniform(places[id as usize])).collect();
            if let Some(slots) = slots {
                places.push(Src::Uniform(uniforms.len() as u16));
                uniforms.push(uniform_of(node, &slots));
                continue;
            }
            // The result's register is chosen before the operands' are freed: no step writes what it reads.
            let target = free.pop().unwrap_or_else(|| {
                registers += 1;
                registers - 1
            });
            let (step, price) = step_of(node, &places);
            cost += price;
            steps.push((step, target));
            places.push(Src::Reg(target));
            let mut operands: SmallVec<[Id; 3]> = node.operands().collect();
            operands.sort_unstable();
            operands.dedup();
            for id in operands {
                if let (Src::Reg(r), true) = (places[id as usize], last_use[id as usize] == i) {
                    free.push(r);
                }
            }
        }
        if steps.is_empty() {
            steps.push((Step::Copy(places[nodes.len() - 1]), 0));
            registers = 1;
            cost = 50;
        }
        Plan {
            uniforms: uniforms.into(),
            steps: steps.into(),
            registers: registers as usize,
            cost: (cost as f64 / 1000.0).max(0.05),
        }
    }
}

fn last_uses(nodes: &[Node]) -> Vec<usize> {
    let mut last = vec![usize::MAX; nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        node.operands().for_each(|id| last[id as usize] = i);
    }
    last
}

fn uniform(src: Src) -> Option<u16> {
    match src {
        Src::Uniform(slot) => Some(slot),
        _ => None,
    }
}

fn uniform_of(node: &Node, slots: &[u16]) -> Uniform {
    match *node {
        Node::Param(p) => Uniform::Param(p),
        Node::Const(v) => Uniform::Const(v),
        Node::Unary(op, _) => Uniform::Unary(op, slots[0]),
        Node::Binary(op, ..) => Uniform::Binary(op, slots[0], slots[1]),
        Node::Select(..) => Uniform::Select(slots[0], slots[1], slots[2]),
        Node::Input(_) => unreachable!("an input is not the same for all elements"),
    }
}

fn step_of(node: &Node, places: &[Src]) -> (Step, u32) {
    let at = |id: Id| places[id as usize];
    match *node {
        Node::Unary(op, x) => (Step::Unary(op, at(x)), op.cost()),
        Node::Binary(op, a, b) => (Step::Binary(op, at(a), at(b)), op.cost()),
        Node::Select(c, a, b) => (Step::Select(at(c), at(a), at(b)), 60),
        Node::Input(_) | Node::Param(_) | Node::Const(_) => unreachable!("leaves are placed, not computed"),
    }
}
