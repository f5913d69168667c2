//! Writing formulas down: [`E`] is a node of the formula under construction, operators and methods add nodes.
//!
//! Nodes are simplified as they are added: equal nodes are shared, constants fold, neutral elements vanish. Nothing
//! is multiplied away by a zero (0 * inf is not 0); derivatives of constants are never written down instead.

use crate::{Id, Node};
use mxrs_simd::{Binary, Unary};
use std::cell::RefCell;

/// A node of the formula under construction. Only meaningful inside the closure given to `Formula::build`.
#[derive(Clone, Copy, Debug)]
pub struct E {
    pub(crate) id: Id,
}

/// What the closure of `Formula::build` receives: the formula's inputs, parameters and constants.
pub struct Args {
    arity: usize,
    params: Vec<&'static str>,
}

impl Args {
    /// Input `i`.
    pub fn x(&self, i: usize) -> E {
        assert!(i < self.arity, "input {i} of a formula of {} inputs", self.arity);
        add(Node::Input(i as u8))
    }

    /// The parameter of this name.
    pub fn param(&self, name: &str) -> E {
        match self.params.iter().position(|p| *p == name) {
            Some(i) => self.param_at(i),
            None => panic!("the formula has no parameter '{name}'; it has {:?}", self.params),
        }
    }

    pub(crate) fn param_at(&self, i: usize) -> E {
        add(Node::Param(i as u8))
    }

    /// A constant.
    pub fn c(&self, v: f64) -> E {
        E::from(v)
    }
}

thread_local! {
    /// The formulas under construction on this thread, the innermost last.
    static BUILDING: RefCell<Vec<Vec<Node>>> = const { RefCell::new(Vec::new()) };
}

/// Removes the innermost formula even when its closure panics.
struct Building;
impl Drop for Building {
    fn drop(&mut self) {
        BUILDING.with_borrow_mut(|stack| stack.pop());
    }
}

/// Runs the closure and returns the nodes it added, with its result.
pub(crate) fn collect(arity: usize, params: &[&'static str], f: impl FnOnce(&Args) -> E) -> (Vec<Node>, Id) {
    BUILDING.with_borrow_mut(|stack| stack.push(Vec::new()));
    let building = Building;
    let out = f(&Args { arity, params: params.to_vec() });
    let nodes = BUILDING.with_borrow_mut(|stack| std::mem::take(stack.last_mut().expect("pushed above")));
    drop(building);
    (nodes, out.id)
}

fn add(node: Node) -> E {
    BUILDING.with_borrow_mut(|stack| {
        let nodes = stack.last_mut().expect("formula nodes are written inside Formula::build");
        // Newest first: shared subexpressions are mostly near.
        let id = match nodes.iter().rposition(|n| *n == node) {
            Some(id) => id,
            None => {
                nodes.push(node);
                nodes.len() - 1
            }
        };
        E { id: id as Id }
    })
}

fn node(e: E) -> Node {
    BUILDING.with_borrow(|stack| stack.last().expect("inside Formula::build")[e.id as usize])
}

fn constant(e: E) -> Option<f64> {
    match node(e) {
        Node::Const(v) => Some(v),
        _ => None,
    }
}

impl From<f64> for E {
    fn from(v: f64) -> E {
        add(Node::Const(v))
    }
}

impl E {
    /// Instruction `op` of `x`.
    pub fn unary(op: Unary, x: E) -> E {
        match (op, node(x)) {
            (_, Node::Const(v)) => {
                let mut out = [0.0];
                mxrs_simd::unary(op, &[v], &mut out);
                E::from(out[0])
            }
            (Unary::Neg, Node::Unary(Unary::Neg, inner)) => E { id: inner },
            _ => add(Node::Unary(op, x.id)),
        }
    }

    /// Instruction `op` of `a` and `b`.
    pub fn binary(op: Binary, a: E, b: E) -> E {
        let (ca, cb) = (constant(a), constant(b));
        if let (Some(x), Some(y)) = (ca, cb) {
            let mut out = [0.0];
            mxrs_simd::binary(op, &[x], &[y], &mut out);
            return E::from(out[0]);
        }
        match (op, ca, cb) {
            (Binary::Add, Some(0.0), _) | (Binary::Mul, Some(1.0), _) => b,
            (Binary::Add | Binary::Sub, _, Some(0.0)) => a,
            (Binary::Mul | Binary::Div | Binary::Pow, _, Some(1.0)) => a,
            (Binary::Mul, Some(-1.0), _) | (Binary::Sub, Some(0.0), _) => -b,
            (Binary::Mul, _, Some(-1.0)) => -a,
            (Binary::Pow, _, Some(2.0)) => a.square(),
            (Binary::Pow, _, Some(0.0)) => E::from(1.0),
            (Binary::Mul, ..) if a.id == b.id => a.square(),
            _ => add(Node::Binary(op, a.id, b.id)),
        }
    }

    /// `a` where this node is not zero, else `b`.
    pub fn select(self, a: impl Into<E>, b: impl Into<E>) -> E {
        let (a, b) = (a.into(), b.into());
        match constant(self) {
            Some(c) => {
                if c != 0.0 {
                    a
                } else {
                    b
                }
            }
            None if a.id == b.id => a,
            None => add(Node::Select(self.id, a.id, b.id)),
        }
    }

    /// This node to a constant power.
    pub fn powf(self, exponent: f64) -> E {
        self.pow(exponent)
    }
}

macro_rules! unary_methods {
    ($($method:ident $op:ident;)*) => {
        impl E { $(
            #[doc = concat!("Instruction `", stringify!($op), "`.")]
            pub fn $method(self) -> E {
                E::unary(Unary::$op, self)
            }
        )* }
    };
}

unary_methods! {
    abs Abs; sign Sign; exp Exp; log Log; log2 Log2; log10 Log10; log1p Log1p; expm1 Expm1; sqrt Sqrt; rsqrt Rsqrt;
    cbrt Cbrt; rcbrt Rcbrt; square Square; recip Recip; sin Sin; cos Cos; tan Tan; asin Asin; acos Acos; atan Atan;
    sinh Sinh; cosh Cosh; tanh Tanh; asinh Asinh; acosh Acosh; atanh Atanh; sigmoid Sigmoid; softplus Softplus;
    relu Relu; erf Erf; erfinv Erfinv; gamma Gamma; lgamma LogGamma; digamma Digamma; floor Floor; ceil Ceil;
    round Round; rint Rint; trunc Trunc; logical_not LogicalNot; is_nan IsNan; is_inf IsInf; is_finite IsFinite;
    degrees Degrees; radians Radians;
}

macro_rules! binary_methods {
    ($($method:ident $op:ident;)*) => {
        #[allow(clippy::should_implement_trait)] // comparisons give a node, not a bool
        impl E { $(
            #[doc = concat!("Instruction `", stringify!($op), "`.")]
            pub fn $method(self, other: impl Into<E>) -> E {
                E::binary(Binary::$op, self, other.into())
            }
        )* }
    };
}

binary_methods! {
    modulo Mod; pow Pow; max Max; min Min; hypot Hypot; arctan2 Arctan2; eq Eq; ne Ne; gt Gt; ge Ge; lt Lt; le Le;
    and And; or Or; xor Xor; ldexp Ldexp; copysign Copysign;
}

macro_rules! operators {
    ($($trait:ident $method:ident $op:ident;)*) => { $(
        impl std::ops::$trait<E> for E {
            type Output = E;
            fn $method(self, other: E) -> E {
                E::binary(Binary::$op, self, other)
            }
        }
        impl std::ops::$trait<f64> for E {
            type Output = E;
            fn $method(self, other: f64) -> E {
                E::binary(Binary::$op, self, E::from(other))
            }
        }
        impl std::ops::$trait<E> for f64 {
            type Output = E;
            fn $method(self, other: E) -> E {
                E::binary(Binary::$op, E::from(self), other)
            }
        }
    )* };
}
operators! { Add add Add; Sub sub Sub; Mul mul Mul; Div div Div; Rem rem Mod; }

impl std::ops::Neg for E {
    type Output = E;
    fn neg(self) -> E {
        E::unary(Unary::Neg, self)
    }
}
