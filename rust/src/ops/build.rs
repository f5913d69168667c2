//! How gradient rules and compositions speak: through a [`Build`], which calls operators.
//!
//! There are two interpreters. The eager one (`array::EagerBuild`) runs each call at once; the graph's adds a node.
//! A rule is written once and cannot tell which one it talks to: it sees handles and their shapes, never elements.

use super::attrs::Attrs;
use super::def::OpRef;
use super::infer::Spec;
use super::registry;
use mxrs_base::{AttrValue, DType, Error, Result, Shape};
use smallvec::SmallVec;

/// A handle to a value inside one `Build`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Value(pub u32);

pub type Values = SmallVec<[Value; 2]>;
/// One entry per input; `None` where the gradient is zero or not asked for.
pub type Grads = SmallVec<[Option<Value>; 4]>;

/// What calls operators.
pub trait Build {
    /// Calls `op`; all outputs, hidden ones included.
    fn call(&mut self, op: OpRef, attrs: Attrs, inputs: &[Value]) -> Result<Values>;
    fn spec(&self, value: Value) -> &Spec;
    /// The elements of `value` as whole numbers, waited for: what output shapes that depend on data need. A graph has
    /// no elements yet and refuses.
    fn read(&self, _value: Value) -> Result<Vec<i64>> {
        Err(Error::not_implemented(
            "a shape that depends on data is not known in a graph; call the operator on arrays",
        ))
    }
}

/// What a gradient rule is given.
pub struct GradArgs<'a> {
    pub op: OpRef,
    pub attrs: &'a Attrs,
    /// The call's inputs and outputs. The *data* of those not named in `keeps` must not be used; their shapes may.
    pub ins: &'a [Value],
    pub outs: &'a [Value],
    /// The gradient of each output, `None` where nothing depends on it.
    pub heads: &'a [Option<Value>],
    /// Whether each input's gradient is wanted.
    pub need: &'a [bool],
    pub train: bool,
}

impl GradArgs<'_> {
    /// The gradient of output `i`, zeros where there is none.
    pub fn head(&self, b: &mut dyn Build, i: usize) -> Result<Value> {
        match self.heads[i] {
            Some(v) => Ok(v),
            None => {
                // The output itself need not be kept: its shape is enough.
                let spec = b.spec(self.outs[i]).clone();
                b.zeros(&spec.shape, spec.dtype)
            }
        }
    }

    /// No gradient for any input.
    pub fn none(&self) -> Grads {
        self.ins.iter().map(|_| None).collect()
    }

    /// A gradient for the first input only.
    pub fn first(&self, v: Value) -> Result<Grads> {
        let mut grads = self.none();
        grads[0] = Some(v);
        Ok(grads)
    }
}

/// Words for rules: each is one operator call.
impl dyn Build + '_ {
    /// Calls the operator of this name.
    pub fn op(&mut self, name: &str, inputs: &[Value], attrs: &[(&str, AttrValue)]) -> Result<Values> {
        let op = registry::find(name)
            .ok_or_else(|| Error::not_implemented(format!("operator {name} is not built yet")))?;
        self.call(op, Attrs::new(op, attrs)?, inputs)
    }
    /// Calls the operator of this name and gives its first output.
    pub fn op1(&mut self, name: &str, inputs: &[Value], attrs: &[(&str, AttrValue)]) -> Result<Value> {
        Ok(self.op(name, inputs, attrs)?[0])
    }

    pub fn shape(&self, v: Value) -> &Shape {
        &self.spec(v).shape
    }
    pub fn dtype(&self, v: Value) -> DType {
        self.spec(v).dtype
    }

    pub fn add(&mut self, a: Value, b: Value) -> Result<Value> {
        self.op1("broadcast_add", &[a, b], &[])
    }
    pub fn sub(&mut self, a: Value, b: Value) -> Result<Value> {
        self.op1("broadcast_sub", &[a, b], &[])
    }
    pub fn mul(&mut self, a: Value, b: Value) -> Result<Value> {
        self.op1("broadcast_mul", &[a, b], &[])
    }
    pub fn div(&mut self, a: Value, b: Value) -> Result<Value> {
        self.op1("broadcast_div", &[a, b], &[])
    }
    /// `a * factor`
    pub fn scale(&mut self, a: Value, factor: f64) -> Result<Value> {
        if factor == 1.0 { Ok(a) } else { self.op1("_mul_scalar", &[a], &[("scalar", factor.into())]) }
    }
    /// `a + term`
    pub fn shift(&mut self, a: Value, term: f64) -> Result<Value> {
        self.op1("_plus_scalar", &[a], &[("scalar", term.into())])
    }
    /// Any operator of one input without attributes: `negative`, `exp`, `sqrt`, ...
    pub fn unary(&mut self, name: &str, a: Value) -> Result<Value> {
        self.op1(name, &[a], &[])
    }
    pub fn zeros_like(&mut self, a: Value) -> Result<Value> {
        self.op1("zeros_like", &[a], &[])
    }
    pub fn zeros(&mut self, shape: &Shape, dtype: DType) -> Result<Value> {
        self.op1("_zeros", &[], &[("shape", shape.into()), ("dtype", dtype.into())])
    }
    /// The same elements in another shape.
    pub fn reshape(&mut self, a: Value, shape: &Shape) -> Result<Value> {
        if self.shape(a) == shape { Ok(a) } else { self.op1("_view_shape", &[a], &[("shape", shape.into())]) }
    }
    pub fn cast(&mut self, a: Value, dtype: DType) -> Result<Value> {
        if self.dtype(a) == dtype { Ok(a) } else { self.op1("Cast", &[a], &[("dtype", dtype.into())]) }
    }
    /// Sums what broadcasting repeated: the gradient of broadcasting `shape` to the shape of `a`.
    pub fn sum_to(&mut self, a: Value, shape: &Shape) -> Result<Value> {
        if self.shape(a) == shape { Ok(a) } else { self.op1("_sum_to", &[a], &[("shape", shape.into())]) }
    }
    /// Sum over axes (`keepdims` keeps them as 1).
    pub fn sum(&mut self, a: Value, axes: &[i64], keepdims: bool) -> Result<Value> {
        self.op1("sum", &[a], &[("axis", axes.into()), ("keepdims", keepdims.into())])
    }
    pub fn broadcast_to(&mut self, a: Value, shape: &Shape) -> Result<Value> {
        if self.shape(a) == shape {
            Ok(a)
        } else {
            self.op1("broadcast_to", &[a], &[("shape", shape.into())])
        }
    }
    /// Permutes the axes.
    pub fn transpose(&mut self, a: Value, axes: &[i64]) -> Result<Value> {
        self.op1("transpose", &[a], &[("axes", axes.into())])
    }
}
