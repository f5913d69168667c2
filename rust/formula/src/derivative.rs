//! Derivatives of formulas: one rule per instruction, applied backwards from the result.
//!
//! Rules are written with the nodes of formulas, so that a derivative is a formula and has derivatives itself. Where
//! a function has no derivative (a kink, a tie) the rules give MXNet's choice. An operand that the result does not
//! depend on smoothly gets no term at all, rather than a zero.

use crate::build::collect;
use crate::{Args, E, Formula, Node};
use mxrs_simd::{Binary, Unary};
use std::f64::consts::{FRAC_2_SQRT_PI, LN_2, LN_10, PI};

impl Formula {
    /// d(result)/d(input `wrt`) * head: a formula of (head, x_0, ..., x_{n-1}, y), where y is this formula's value,
    /// with the same parameters. `None` where it is zero everywhere.
    pub fn derivative(&self, wrt: usize) -> Option<Formula> {
        let depends = self.smooth_dependence(wrt);
        if !depends[depends.len() - 1] {
            return None;
        }
        let arity = self.arity() + 2;
        let (nodes, out) = collect(arity, self.params(), |args| self.walk_back(args, wrt, &depends));
        Some(Formula::finish(nodes, out, arity, self.params().into()))
    }

    /// Which nodes have a derivative with respect to the input that is not zero everywhere.
    fn smooth_dependence(&self, wrt: usize) -> Vec<bool> {
        let mut depends: Vec<bool> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let at = |id: u32| depends[id as usize];
            depends.push(match *node {
                Node::Input(i) => i as usize == wrt,
                Node::Param(_) | Node::Const(_) => false,
                Node::Unary(op, x) => !is_step(op) && at(x),
                Node::Binary(op, a, b) => match op {
                    Binary::Eq | Binary::Ne | Binary::Gt | Binary::Ge | Binary::Lt | Binary::Le => false,
                    Binary::And | Binary::Or | Binary::Xor => false,
                    Binary::Copysign => at(a),
                    _ => at(a) || at(b),
                },
                Node::Select(_, a, b) => at(a) || at(b),
            });
        }
        depends
    }

    fn walk_back(&self, args: &Args, wrt: usize, depends: &[bool]) -> E {
        let values = self.emit_all(&|i| args.x(i + 1), &|p| args.param_at(p));
        let root = self.nodes.len() - 1;
        // The gradient that has reached each node so far.
        let mut grads: Vec<Option<E>> = vec![None; self.nodes.len()];
        grads[root] = Some(args.x(0));
        let mut result: Option<E> = None;
        for i in (0..=root).rev() {
            let (true, Some(grad)) = (depends[i], grads[i]) else { continue };
            let y = if i == root { args.x(self.arity() + 1) } else { values[i] };
            let value = |id: u32| values[id as usize];
            let mut send = |id: u32, term: &dyn Fn() -> E| {
                if depends[id as usize] {
                    let term = term();
                    let slot = &mut grads[id as usize];
                    *slot = Some(slot.map_or(term, |sum| sum + term));
                }
            };
            match self.nodes[i] {
                Node::Input(input) if input as usize == wrt => result = Some(grad),
                Node::Input(_) | Node::Param(_) | Node::Const(_) => {}
                Node::Unary(op, x) => send(x, &|| unary_rule(op, grad, value(x), y)),
                Node::Binary(op, a, b) => {
                    send(a, &|| left_rule(op, grad, value(a), value(b), y));
                    if op != Binary::Copysign {
                        send(b, &|| right_rule(op, grad, value(a), value(b), y));
                    }
                }
                Node::Select(c, a, b) => {
                    send(a, &|| value(c).select(grad, 0.0));
                    send(b, &|| value(c).select(0.0, grad));
                }
            }
        }
        result.expect("the result depends on the input")
    }
}

/// Whether the instruction is constant between its jumps.
fn is_step(op: Unary) -> bool {
    use Unary::*;
    matches!(op, Sign | Floor | Ceil | Round | Rint | Trunc | LogicalNot | IsNan | IsInf | IsFinite)
}

/// grad * op'(x), where y = op(x).
fn unary_rule(op: Unary, grad: E, x: E, y: E) -> E {
    use Unary::*;
    match op {
        Neg => -grad,
        Abs => grad * x.sign(),
        Exp => grad * y,
        Log => grad / x,
        Log2 => grad / (x * LN_2),
        Log10 => grad / (x * LN_10),
        Log1p => grad / (x + 1.0),
        Expm1 => grad * (y + 1.0),
        Sqrt => grad * 0.5 / y,
        Rsqrt => grad * -0.5 * y / x,
        Cbrt => grad / (y.square() * 3.0),
        Rcbrt => grad * (-1.0 / 3.0) * y / x,
        Square => grad * 2.0 * x,
        Recip => -(grad * y.square()),
        Sin => grad * x.cos(),
        Cos => -(grad * x.sin()),
        Tan => grad * (y.square() + 1.0),
        Asin => grad * (1.0 - x.square()).rsqrt(),
        Acos => -(grad * (1.0 - x.square()).rsqrt()),
        Atan => grad / (x.square() + 1.0),
        Sinh => grad * x.cosh(),
        Cosh => grad * x.sinh(),
        Tanh => grad * (1.0 - y.square()),
        Asinh => grad * (x.square() + 1.0).rsqrt(),
        Acosh => grad * (x.square() - 1.0).rsqrt(),
        Atanh => grad / (1.0 - x.square()),
        Sigmoid => grad * y * (1.0 - y),
        Softplus => grad * x.sigmoid(),
        Relu => y.gt(0.0).select(grad, 0.0),
        Erf => grad * FRAC_2_SQRT_PI * (-x.square()).exp(),
        Erfinv => grad * (1.0 / FRAC_2_SQRT_PI) * y.square().exp(),
        Gamma => grad * y * x.digamma(),
        LogGamma => grad * x.digamma(),
        Digamma => grad * trigamma(x),
        Degrees => grad.degrees(),
        Radians => grad.radians(),
        Sign | Floor | Ceil | Round | Rint | Trunc | LogicalNot | IsNan | IsInf | IsFinite => {
            unreachable!("{op:?} is a step function: nothing depends on it smoothly")
        }
    }
}

/// grad * d op(a, b) / da, where y = op(a, b).
fn left_rule(op: Binary, grad: E, a: E, b: E, y: E) -> E {
    use Binary::*;
    match op {
        Add | Sub | Mod => grad,
        Mul => grad * b,
        Div => grad / b,
        Pow => grad * b * a.pow(b - 1.0),
        Max => a.ge(b).select(grad, 0.0),
        Min => a.le(b).select(grad, 0.0),
        Hypot => grad * a / y,
        Arctan2 => grad * b / (a.square() + b.square()),
        Ldexp => grad.ldexp(b),
        Copysign => grad * a.sign() * E::from(1.0).copysign(b),
        Eq | Ne | Gt | Ge | Lt | Le | And | Or | Xor => {
            unreachable!("{op:?} is a step function: nothing depends on it smoothly")
        }
    }
}

/// grad * d op(a, b) / db, where y = op(a, b).
fn right_rule(op: Binary, grad: E, a: E, b: E, y: E) -> E {
    use Binary::*;
    match op {
        Add => grad,
        Sub => -grad,
        Mul => grad * a,
        Div => -(grad * a / b.square()),
        Mod => -(grad * (a / b).floor()),
        Pow => grad * y * a.log(),
        Max => a.lt(b).select(grad, 0.0),
        Min => a.gt(b).select(grad, 0.0),
        Hypot => grad * b / y,
        Arctan2 => -(grad * a / (a.square() + b.square())),
        Ldexp => grad * y * LN_2,
        Copysign | Eq | Ne | Gt | Ge | Lt | Le | And | Or | Xor => {
            unreachable!("{op:?} is a step function of its right operand")
        }
    }
}

/// The derivative of digamma: the recurrence eight steps up, then the asymptotic series (Abramowitz & Stegun 6.4.12),
/// and the reflection 6.4.7 left of 1/2. Written in formula nodes, so that it has derivatives of every order.
fn trigamma(x: E) -> E {
    let left = x.lt(0.5);
    let right = left.select(1.0 - x, x);
    let mut sum = right.square().recip();
    for k in 1..8 {
        sum = sum + (right + k as f64).square().recip();
    }
    let r = (right + 8.0).recip();
    let z = r.square();
    // Bernoulli numbers B2, B4, ... are the coefficients of 1/x^3, 1/x^5, ...
    let bernoulli = [1.0 / 6.0, -1.0 / 30.0, 1.0 / 42.0, -1.0 / 30.0, 5.0 / 66.0, -691.0 / 2730.0, 7.0 / 6.0];
    let mut series = E::from(0.0);
    for c in bernoulli.into_iter().rev() {
        series = series * z + c;
    }
    let value = sum + r + z * 0.5 + r * z * series;
    // The sine has the period of the integers up to its sign, which the square drops: reduce for accuracy.
    let sine = ((x - x.rint()) * PI).sin();
    left.select((PI * PI) / sine.square() - value, value)
}
