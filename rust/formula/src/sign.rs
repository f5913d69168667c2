//! What a formula says about signs: a derivative that asks only whether an input is positive may ask the result of a
//! function that keeps that, so the input need not be kept.

use crate::{Formula, Id, Node};
use mxrs_simd::{Binary, Unary};

impl Formula {
    /// Whether the input is read, and only to see whether it is above zero.
    ///
    /// ```
    /// use mxrs_formula::Formula;
    /// let slope = Formula::build(2, &[], |a| a.x(1).gt(0.0).select(a.x(0), 0.0));
    /// assert!(slope.reads_only_sign(1) && !slope.reads_only_sign(0));
    /// ```
    pub fn reads_only_sign(&self, input: usize) -> bool {
        let is_zero = |id: Id| matches!(self.nodes[id as usize], Node::Const(v) if v == 0.0);
        let mut read = false;
        for node in &self.nodes {
            if !node.operands().any(|id| self.is_input_at(id, input)) {
                continue;
            }
            match *node {
                Node::Binary(Binary::Gt, a, b) if self.is_input_at(a, input) && is_zero(b) => read = true,
                _ => return false,
            }
        }
        read && !self.is_input(input)
    }

    /// Whether the result, with these parameters, is above zero exactly where the only input is: `max(x, 0)`, or x
    /// where it is positive and something that is not positive elsewhere. Not-a-number is not above zero.
    pub fn keeps_sign(&self, params: &[f64]) -> bool {
        let Some(result) = self.nodes.last().filter(|_| self.arity() == 1) else { return false };
        match *result {
            Node::Unary(Unary::Relu, x) => self.is_input_at(x, 0),
            Node::Select(condition, x, rest) => {
                self.is_input_at(x, 0) && self.asks_positive(condition) && self.is_not_positive(rest, params)
            }
            _ => false,
        }
    }

    fn is_input_at(&self, id: Id, input: usize) -> bool {
        matches!(self.nodes[id as usize], Node::Input(i) if i as usize == input)
    }

    /// Whether a node is `x > 0`.
    fn asks_positive(&self, id: Id) -> bool {
        match self.nodes[id as usize] {
            Node::Binary(Binary::Gt, a, b) => {
                self.is_input_at(a, 0) && matches!(self.nodes[b as usize], Node::Const(v) if v == 0.0)
            }
            _ => false,
        }
    }

    /// Whether a node is not positive wherever x is not: a number that is not, or x times one that is not negative.
    fn is_not_positive(&self, id: Id, params: &[f64]) -> bool {
        let number = |id: Id| match self.nodes[id as usize] {
            Node::Const(v) => Some(v),
            Node::Param(p) => params.get(p as usize).copied(),
            _ => None,
        };
        match self.nodes[id as usize] {
            Node::Binary(Binary::Mul, a, b) => {
                let slope = if self.is_input_at(a, 0) { b } else { a };
                (self.is_input_at(a, 0) || self.is_input_at(b, 0)) && number(slope).is_some_and(|v| v >= 0.0)
            }
            _ => number(id).is_some_and(|v| v <= 0.0),
        }
    }
}
