//! Values of operator attributes after parsing.

use crate::DType;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Integers of a tuple attribute; `None` entries stand for Python's `None` (slices have them).
pub type Ints = Arc<[Option<i64>]>;

/// One attribute's value, cheap to clone. Equality and hashing are by bits, so that values can key caches.
#[derive(Clone, Debug)]
pub enum AttrValue {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Arc<str>),
    DType(DType),
    Ints(Ints),
    Floats(Arc<[f64]>),
}

impl PartialEq for AttrValue {
    fn eq(&self, other: &AttrValue) -> bool {
        use AttrValue::*;
        match (self, other) {
            (None, None) => true,
            (Bool(a), Bool(b)) => a == b,
            (Int(a), Int(b)) => a == b,
            (Float(a), Float(b)) => a.to_bits() == b.to_bits(),
            (Str(a), Str(b)) => a == b,
            (DType(a), DType(b)) => a == b,
            (Ints(a), Ints(b)) => a == b,
            (Floats(a), Floats(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(x, y)| x.to_bits() == y.to_bits())
            }
            _ => false,
        }
    }
}

impl Eq for AttrValue {}

impl Hash for AttrValue {
    fn hash<H: Hasher>(&self, h: &mut H) {
        std::mem::discriminant(self).hash(h);
        match self {
            AttrValue::None => {}
            AttrValue::Bool(v) => v.hash(h),
            AttrValue::Int(v) => v.hash(h),
            AttrValue::Float(v) => v.to_bits().hash(h),
            AttrValue::Str(v) => v.hash(h),
            AttrValue::DType(v) => v.hash(h),
            AttrValue::Ints(v) => v.hash(h),
            AttrValue::Floats(v) => v.iter().for_each(|x| x.to_bits().hash(h)),
        }
    }
}

impl From<bool> for AttrValue {
    fn from(v: bool) -> Self {
        AttrValue::Bool(v)
    }
}
impl From<i64> for AttrValue {
    fn from(v: i64) -> Self {
        AttrValue::Int(v)
    }
}
impl From<i32> for AttrValue {
    fn from(v: i32) -> Self {
        AttrValue::Int(v as i64)
    }
}
impl From<usize> for AttrValue {
    fn from(v: usize) -> Self {
        AttrValue::Int(v as i64)
    }
}
impl From<f64> for AttrValue {
    fn from(v: f64) -> Self {
        AttrValue::Float(v)
    }
}
impl From<&str> for AttrValue {
    fn from(v: &str) -> Self {
        AttrValue::Str(v.into())
    }
}
impl From<DType> for AttrValue {
    fn from(v: DType) -> Self {
        AttrValue::DType(v)
    }
}
impl From<&[i64]> for AttrValue {
    fn from(v: &[i64]) -> Self {
        AttrValue::Ints(v.iter().map(|x| Some(*x)).collect())
    }
}
impl<const N: usize> From<[i64; N]> for AttrValue {
    fn from(v: [i64; N]) -> Self {
        AttrValue::from(&v[..])
    }
}
impl From<&crate::Shape> for AttrValue {
    fn from(v: &crate::Shape) -> Self {
        AttrValue::Ints(v.iter().map(|x| Some(*x as i64)).collect())
    }
}
