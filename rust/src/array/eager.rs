//! The `Build` that runs every call at once.

use super::handle::Array;
use super::invoke::invoke;
use crate::device::Context;
use crate::ops::{Attrs, Build, OpRef, Spec, Value, Values};
use mxrs_base::{Elem, Error, Result, dispatch};
use smallvec::SmallVec;

/// Values are arrays, or shapes of arrays that were not kept.
pub struct EagerBuild {
    values: Vec<Held>,
    context: Context,
}

enum Held {
    Array(Array),
    Shape(Spec),
}

impl EagerBuild {
    pub fn new(context: Context) -> EagerBuild {
        EagerBuild { values: Vec::with_capacity(8), context }
    }

    /// Where calls without inputs run from now on.
    pub fn place(&mut self, context: Context) {
        self.context = context;
    }

    fn push(&mut self, held: Held) -> Value {
        self.values.push(held);
        Value(self.values.len() as u32 - 1)
    }

    /// Takes an array in.
    pub fn array(&mut self, array: Array) -> Value {
        self.push(Held::Array(array))
    }

    /// Takes in the shape of a value whose data is not there.
    pub fn shape_only(&mut self, spec: Spec) -> Value {
        self.push(Held::Shape(spec))
    }

    pub fn get(&self, value: Value) -> Result<&Array> {
        match &self.values[value.0 as usize] {
            Held::Array(array) => Ok(array),
            Held::Shape(spec) => Err(Error::op(format!(
                "internal error: a gradient rule used a value of shape {} that its operator does not keep",
                spec.shape
            ))),
        }
    }

    pub fn take(&self, value: Value) -> Result<Array> {
        self.get(value).cloned()
    }
}

impl Build for EagerBuild {
    fn call(&mut self, op: OpRef, attrs: Attrs, inputs: &[Value]) -> Result<Values> {
        let results = {
            let mut ins: SmallVec<[&Array; 4]> = SmallVec::new();
            for v in inputs {
                ins.push(self.get(*v)?);
            }
            invoke(op, &attrs, &ins, None, Some(self.context))?
        };
        Ok(results.into_iter().map(|a| self.array(a)).collect())
    }

    fn spec(&self, value: Value) -> &Spec {
        match &self.values[value.0 as usize] {
            Held::Array(array) => array.spec(),
            Held::Shape(spec) => spec,
        }
    }

    fn read(&self, value: Value) -> Result<Vec<i64>> {
        let array = self.get(value)?;
        dispatch!(array.dtype(), T => Ok(array.to_vec::<T>()?.iter().map(|v| v.to_i64()).collect()))
    }
}
