//! Formulas: scalar expressions over elements, as data.
//!
//! A [`Formula`] is built once from a closure ([`Formula::build`]), then evaluated over arrays on the CPU, printed as
//! WGSL, differentiated into further formulas, and composed with others. It is a list of instructions of
//! `mxrs-simd`, each the input of later ones. Operators, attributes and arrays are unknown here; callers pass
//! pointers, extents and strides.

mod broadcast;
mod build;
mod derivative;
mod eval;
mod merge;
mod plan;
mod print;
mod sign;
#[cfg(test)]
mod tests;

pub use build::{Args, E};
pub use eval::{Operand, Prepared};
pub use merge::{Merged, Most};
use mxrs_simd::{Binary, Unary};
use plan::Plan;

/// The place of a node in its formula.
pub(crate) type Id = u32;

/// One step of a formula. Operands stand before the nodes that use them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Node {
    Input(u8),
    Param(u8),
    Const(f64),
    Unary(Unary, Id),
    Binary(Binary, Id, Id),
    /// cond != 0 ? a : b
    Select(Id, Id, Id),
}

impl PartialEq for Node {
    /// By bits, so that equal nodes are interchangeable: 0.0 and -0.0 are not.
    fn eq(&self, other: &Node) -> bool {
        use Node::*;
        match (*self, *other) {
            (Input(a), Input(b)) | (Param(a), Param(b)) => a == b,
            (Const(a), Const(b)) => a.to_bits() == b.to_bits(),
            (Unary(f, x), Unary(g, y)) => (f, x) == (g, y),
            (Binary(f, a, b), Binary(g, c, d)) => (f, a, b) == (g, c, d),
            (Select(a, b, c), Select(d, e, f)) => (a, b, c) == (d, e, f),
            _ => false,
        }
    }
}

impl Node {
    /// The operands.
    pub(crate) fn operands(&self) -> impl Iterator<Item = Id> {
        let (ids, n) = match *self {
            Node::Input(_) | Node::Param(_) | Node::Const(_) => ([0; 3], 0),
            Node::Unary(_, a) => ([a, 0, 0], 1),
            Node::Binary(_, a, b) => ([a, b, 0], 2),
            Node::Select(c, a, b) => ([c, a, b], 3),
        };
        ids.into_iter().take(n)
    }

    /// The same node with its operands renamed.
    pub(crate) fn renamed(&self, mut name: impl FnMut(Id) -> Id) -> Node {
        match *self {
            Node::Unary(op, a) => Node::Unary(op, name(a)),
            Node::Binary(op, a, b) => Node::Binary(op, name(a), name(b)),
            Node::Select(c, a, b) => Node::Select(name(c), name(a), name(b)),
            leaf => leaf,
        }
    }
}

/// A scalar expression of inputs (one element of each array) and parameters (scalars of a call).
#[derive(Clone, Debug)]
pub struct Formula {
    /// Every node is used by a later one, but for the last, which is the result.
    pub(crate) nodes: Box<[Node]>,
    arity: usize,
    params: Box<[&'static str]>,
    pub(crate) plan: Plan,
    fingerprint: u64,
}

/// What stands for an input of the outer formula in [`Formula::compose`].
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// An input of the new formula.
    Input(usize),
    /// A formula, with the new formula's inputs that it reads in place of its own.
    Formula(&'a Formula, &'a [usize]),
}

impl Formula {
    /// The formula that `f` writes down, of `arity` inputs and the named parameters.
    ///
    /// ```
    /// use mxrs_formula::Formula;
    /// let f = Formula::build(2, &["scale"], |a| (a.x(0) * a.param("scale") + 1.0).max(a.x(1)));
    /// assert_eq!(f.text(), "((x0 * scale) + 1) max x1");
    /// ```
    pub fn build(arity: usize, params: &[&'static str], f: impl FnOnce(&Args) -> E) -> Formula {
        assert!(
            arity <= u8::MAX as usize && params.len() <= u8::MAX as usize,
            "a formula has up to 255 inputs"
        );
        let (nodes, out) = build::collect(arity, params, f);
        Formula::finish(nodes, out, arity, params.into())
    }

    /// Drops what the result does not need and plans the evaluation.
    fn finish(nodes: Vec<Node>, out: Id, arity: usize, params: Box<[&'static str]>) -> Formula {
        let mut used = vec![false; nodes.len()];
        used[out as usize] = true;
        for i in (0..=out as usize).rev() {
            if used[i] {
                nodes[i].operands().for_each(|id| used[id as usize] = true);
            }
        }
        let mut name = vec![0; nodes.len()];
        let mut kept = Vec::new();
        for (i, node) in nodes.iter().enumerate().take(out as usize + 1) {
            if used[i] {
                name[i] = kept.len() as Id;
                kept.push(node.renamed(|id| name[id as usize]));
            }
        }
        let plan = Plan::of(&kept);
        let fingerprint = print::fingerprint(&kept, arity, params.len());
        Formula { nodes: kept.into(), arity, params, plan, fingerprint }
    }

    /// The number of inputs.
    pub fn arity(&self) -> usize {
        self.arity
    }

    /// A number that equal formulas share and different ones do not, but for a chance of one in 2^64.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The names of the parameters, in the order in which [`Formula::eval`] takes their values.
    pub fn params(&self) -> &[&'static str] {
        &self.params
    }

    /// Whether the input appears: one that does not need not be kept for a later evaluation.
    pub fn uses(&self, input: usize) -> bool {
        self.nodes.iter().any(|n| matches!(n, Node::Input(i) if *i as usize == input))
    }

    /// Whether the result is the input itself.
    pub fn is_input(&self, input: usize) -> bool {
        matches!(self.nodes.last(), Some(Node::Input(i)) if *i as usize == input)
    }

    /// Nanoseconds per float32 element on one core, roughly; at least 0.05.
    pub fn cost(&self) -> f64 {
        self.plan.cost
    }

    /// This formula with each input replaced by a part; `arity` is the new formula's.
    ///
    /// The parameters are this formula's, then those of the parts in their order.
    ///
    /// # Panics
    /// If `parts` or a part's inputs do not fit the formulas' arities.
    pub fn compose(&self, arity: usize, parts: &[Part]) -> Formula {
        assert_eq!(parts.len(), self.arity, "one part for each input");
        let mut params: Vec<&'static str> = self.params.to_vec();
        for part in parts {
            if let Part::Formula(f, _) = part {
                params.extend(&*f.params);
            }
        }
        assert!(params.len() <= u8::MAX as usize, "a formula has up to 255 parameters");
        let names: Box<[&'static str]> = params.into();
        let (nodes, out) = build::collect(arity, &names, |args| {
            let mut offset = self.params.len();
            let values: Vec<E> = parts
                .iter()
                .map(|part| match part {
                    Part::Input(i) => args.x(*i),
                    Part::Formula(f, inputs) => {
                        assert_eq!(inputs.len(), f.arity, "one input for each of the part's");
                        let first = offset;
                        offset += f.params.len();
                        f.emit(&|i| args.x(inputs[i]), &|p| args.param_at(first + p))
                    }
                })
                .collect();
            self.emit(&|i| values[i], &|p| args.param_at(p))
        });
        Formula::finish(nodes, out, arity, names)
    }

    /// Writes this formula's nodes into the formula being built; the last is the result.
    fn emit(&self, input: &dyn Fn(usize) -> E, param: &dyn Fn(usize) -> E) -> E {
        let all = self.emit_all(input, param);
        all[all.len() - 1]
    }

    pub(crate) fn emit_all(&self, input: &dyn Fn(usize) -> E, param: &dyn Fn(usize) -> E) -> Vec<E> {
        let mut values: Vec<E> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let at = |id: Id| values[id as usize];
            let value = match *node {
                Node::Input(i) => input(i as usize),
                Node::Param(p) => param(p as usize),
                Node::Const(v) => E::from(v),
                Node::Unary(op, a) => E::unary(op, at(a)),
                Node::Binary(op, a, b) => E::binary(op, at(a), at(b)),
                Node::Select(c, a, b) => at(c).select(at(a), at(b)),
            };
            values.push(value);
        }
        values
    }
}
