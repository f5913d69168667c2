//! Shapes: up to four dimensions inline, sizes only by checked arithmetic.

use crate::{Error, Result};
use smallvec::SmallVec;
use std::fmt;
use std::ops::Deref;

/// A list of dimensions or strides.
pub type Dims = SmallVec<[usize; 4]>;

/// The extents of an array, outermost first. Arrays are always contiguous in this order.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(Dims);

impl Shape {
    /// More dimensions than any MXNet program has; beyond it we refuse rather than overflow somewhere.
    pub const MAX_NDIM: usize = 32;

    #[inline]
    pub fn new(dims: &[usize]) -> Shape {
        Shape(Dims::from_slice(dims))
    }

    /// A shape from signed sizes, as users write them; refuses negative ones and sizes beyond 2^62 elements.
    pub fn from_i64(dims: &[i64]) -> Result<Shape> {
        let mut out = Dims::with_capacity(dims.len());
        for &d in dims {
            out.push(usize::try_from(d).map_err(|_| {
                Error::value(format!(
                    "shape {dims:?} has the negative dimension {d}; dimensions are 0 or more"
                ))
            })?);
        }
        let shape = Shape(out);
        shape.checked_size()?;
        Ok(shape)
    }

    #[inline]
    pub fn ndim(&self) -> usize {
        self.0.len()
    }

    /// The number of elements. Shapes that reach arrays have passed [`Shape::checked_size`].
    #[inline]
    pub fn size(&self) -> usize {
        self.0.iter().product()
    }

    /// The number of elements, or an error where it does not fit (or there are too many dimensions).
    pub fn checked_size(&self) -> Result<usize> {
        if self.ndim() > Self::MAX_NDIM {
            return Err(Error::value(format!(
                "an array of {} dimensions was asked for; at most {} are allowed",
                self.ndim(),
                Self::MAX_NDIM
            )));
        }
        // Zero-sized dimensions must not hide an overflow of the others: strides are computed from them too.
        let nonzero = self.0.iter().filter(|d| **d != 0).try_fold(1usize, |n, d| n.checked_mul(*d));
        match nonzero {
            Some(n) if n <= 1 << 62 => Ok(self.size()),
            _ => Err(Error::memory(format!("shape {self} has more elements than memory can address"))),
        }
    }

    /// Row-major strides in elements.
    pub fn strides(&self) -> Dims {
        let mut strides = Dims::from_elem(1, self.ndim());
        for i in (0..self.ndim().saturating_sub(1)).rev() {
            strides[i] = strides[i + 1] * self.0[i + 1];
        }
        strides
    }

    /// `axis` as an index, negative ones counted from the end.
    pub fn axis(&self, axis: i64) -> Result<usize> {
        let n = self.ndim() as i64;
        if axis < -n || axis >= n {
            return Err(Error::value(format!(
                "axis {axis} is out of bounds for an array of {n} dimensions; allowed are {} to {}",
                -n,
                n - 1
            )));
        }
        Ok(if axis < 0 { axis + n } else { axis } as usize)
    }

    /// The axes as sorted distinct indices.
    pub fn axes(&self, axes: &[i64]) -> Result<Dims> {
        let mut out = Dims::new();
        for &a in axes {
            let a = self.axis(a)?;
            if out.contains(&a) {
                return Err(Error::value(format!("axis {a} is given twice in {axes:?}")));
            }
            out.push(a);
        }
        out.sort_unstable();
        Ok(out)
    }

    /// `(outer, extent, inner)`: the sizes before, at and after `axis`.
    pub fn around(&self, axis: usize) -> (usize, usize, usize) {
        (self.0[..axis].iter().product(), self.0[axis], self.0[axis + 1..].iter().product())
    }

    /// The shape both broadcast to by NumPy's rule, or `None`.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        if self == other {
            return Some(self.clone());
        }
        let n = self.ndim().max(other.ndim());
        let mut out = Dims::from_elem(1, n);
        for i in 0..n {
            let a = if i + self.ndim() >= n { self.0[i + self.ndim() - n] } else { 1 };
            let b = if i + other.ndim() >= n { other.0[i + other.ndim() - n] } else { 1 };
            out[i] = match (a, b) {
                (a, b) if a == b => a,
                (1, b) => b,
                (a, 1) => a,
                _ => return None,
            };
        }
        Some(Shape(out))
    }

    pub fn push(&mut self, dim: usize) {
        self.0.push(dim);
    }
    pub fn set(&mut self, axis: usize, dim: usize) {
        self.0[axis] = dim;
    }
    pub fn insert(&mut self, axis: usize, dim: usize) {
        self.0.insert(axis, dim);
    }
    pub fn remove(&mut self, axis: usize) -> usize {
        self.0.remove(axis)
    }
    pub fn to_i64(&self) -> Vec<i64> {
        self.0.iter().map(|d| *d as i64).collect()
    }
}

impl Deref for Shape {
    type Target = [usize];
    #[inline]
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl FromIterator<usize> for Shape {
    fn from_iter<I: IntoIterator<Item = usize>>(iter: I) -> Shape {
        Shape(iter.into_iter().collect())
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Shape {
        Shape::new(&dims)
    }
}

impl From<Dims> for Shape {
    fn from(dims: Dims) -> Shape {
        Shape(dims)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "({one},)"),
            dims => {
                f.write_str("(")?;
                for (i, d) in dims.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{d}")?;
                }
                f.write_str(")")
            }
        }
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
