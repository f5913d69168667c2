//! Shapes and types: what an operator's rule sees, and the rules that many share.

use super::attrs::Attrs;
use super::def::OpRef;
use mxrs_base::{DType, Error, Result, Shape};
use smallvec::{SmallVec, smallvec};

/// No process has more than this: what 46 bits address. Wider sums of a few such sizes do not overflow.
const MOST_BYTES: usize = usize::MAX >> (usize::BITS.saturating_sub(46));

/// The shape and element type of a value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Spec {
    pub shape: Shape,
    pub dtype: DType,
}

pub type Specs = SmallVec<[Spec; 1]>;

impl Spec {
    pub fn new(shape: Shape, dtype: DType) -> Spec {
        Spec { shape, dtype }
    }
    /// Bytes of the value, if a machine can have them.
    pub fn bytes(&self) -> Result<usize> {
        let size = self.shape.checked_size()?;
        size.checked_mul(self.dtype.size())
            .filter(|bytes| *bytes <= MOST_BYTES)
            .ok_or_else(|| Error::memory(format!("an array of shape {} is too large", self.shape)))
    }
}

/// A call as the shape rule sees it.
pub struct Sig<'a> {
    pub op: OpRef,
    pub attrs: &'a Attrs,
    pub ins: &'a [&'a Spec],
}

impl Sig<'_> {
    #[inline]
    pub fn shape(&self, i: usize) -> &Shape {
        &self.ins[i].shape
    }
    #[inline]
    pub fn dtype(&self, i: usize) -> DType {
        self.ins[i].dtype
    }
    /// One output like input `i`.
    #[inline]
    pub fn same(&self, i: usize) -> Result<Specs> {
        Ok(smallvec![self.ins[i].clone()])
    }
    /// One output of this shape, with the type of input 0.
    pub fn shaped(&self, shape: Shape) -> Result<Specs> {
        Ok(smallvec![Spec::new(shape, self.dtype(0))])
    }
    /// One output.
    pub fn one(&self, shape: Shape, dtype: DType) -> Result<Specs> {
        Ok(smallvec![Spec::new(shape, dtype)])
    }

    /// An error about this call: the operator's name goes before it and the inputs' shapes after.
    pub fn fail(&self, text: impl std::fmt::Display) -> Error {
        let shapes: Vec<String> = self
            .ins
            .iter()
            .enumerate()
            .map(|(i, s)| format!("{} {} {}", self.op.input_name(i), s.dtype, s.shape))
            .collect();
        Error::op(format!("{}: {text} (given {})", self.op.name, shapes.join(", ")))
    }

    /// All inputs have one type.
    #[inline]
    pub fn one_dtype(&self) -> Result<DType> {
        let first = self.dtype(0);
        match self.ins.iter().position(|s| s.dtype != first) {
            None => Ok(first),
            Some(i) => Err(self.fail(format!(
                "{} is {} and {} is {}; they must be of one type",
                self.op.input_name(0),
                first,
                self.op.input_name(i),
                self.dtype(i)
            ))),
        }
    }

    /// All inputs have one shape and one type, and so has the output.
    #[inline]
    pub fn elementwise(&self) -> Result<Specs> {
        self.one_dtype()?;
        for (i, s) in self.ins.iter().enumerate().skip(1) {
            if s.shape != self.ins[0].shape {
                return Err(self.fail(format!(
                    "{} has shape {} and {} has shape {}; they must be equal",
                    self.op.input_name(0),
                    self.shape(0),
                    self.op.input_name(i),
                    s.shape
                )));
            }
        }
        self.same(0)
    }

    /// The inputs broadcast to one another; one type.
    #[inline]
    pub fn broadcast(&self) -> Result<Specs> {
        let dtype = self.one_dtype()?;
        let mut shape = self.ins[0].shape.clone();
        for s in &self.ins[1..] {
            if s.shape != shape {
                shape = shape
                    .broadcast(&s.shape)
                    .ok_or_else(|| self.fail("the shapes cannot be broadcast to one another"))?;
            }
        }
        Ok(smallvec![Spec { shape, dtype }])
    }

    /// The input has `allowed` dimensions.
    pub fn expect_ndim(&self, i: usize, allowed: std::ops::RangeInclusive<usize>) -> Result<()> {
        if allowed.contains(&self.shape(i).ndim()) {
            return Ok(());
        }
        let range = if allowed.start() == allowed.end() {
            format!("{}", allowed.start())
        } else {
            format!("{} to {}", allowed.start(), allowed.end())
        };
        Err(self.fail(format!(
            "{} has {} dimensions; {range} are allowed",
            self.op.input_name(i),
            self.shape(i).ndim()
        )))
    }

    /// Input `i` has exactly this shape.
    pub fn expect_shape(&self, i: usize, shape: &Shape) -> Result<()> {
        if self.shape(i) == shape {
            return Ok(());
        }
        Err(self.fail(format!("{} has shape {}; {shape} is expected", self.op.input_name(i), self.shape(i))))
    }

    /// Input `i` is float32, float64 or float16.
    pub fn expect_float(&self, i: usize) -> Result<DType> {
        let dtype = self.dtype(i);
        if dtype.is_float() {
            return Ok(dtype);
        }
        Err(self
            .fail(format!("{} is {dtype}; float32, float64 and float16 are allowed", self.op.input_name(i))))
    }

    /// An attribute as an axis of input `i`.
    pub fn axis(&self, i: usize, axis: i64) -> Result<usize> {
        self.shape(i).axis(axis).map_err(|e| self.fail(e.message()))
    }
}

/// The type both operands are cast to, by NumPy's rules.
pub fn promote(a: DType, b: DType) -> DType {
    use DType::*;
    if a == b {
        return a;
    }
    match (a, b) {
        (Bool, other) | (other, Bool) => other,
        (F64, _) | (_, F64) => F64,
        (F32, I32 | I64) | (I32 | I64, F32) => F32,
        (F32, _) | (_, F32) => F32,
        (F16, I32 | I64) | (I32 | I64, F16) => F32,
        (F16, _) | (_, F16) => F16,
        (I64, _) | (_, I64) => I64,
        (I32, _) | (_, I32) => I32,
        (U8, I8) | (I8, U8) => I32,
        (a, _) => a,
    }
}
