//! Element types, with the numbers that MXNet's files and C interface give them.

use crate::{Error, Result};
use half::f16;
use std::fmt;

/// The type of an array's elements. The discriminants are the type flags of MXNet's `.params` files.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum DType {
    F32 = 0,
    F64 = 1,
    F16 = 2,
    U8 = 3,
    I32 = 4,
    I8 = 5,
    I64 = 6,
    Bool = 7,
}

impl DType {
    pub const ALL: [DType; 8] =
        [DType::F32, DType::F64, DType::F16, DType::U8, DType::I32, DType::I8, DType::I64, DType::Bool];

    /// Bytes of one element.
    #[inline]
    pub const fn size(self) -> usize {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::F16 => 2,
            DType::U8 | DType::I8 | DType::Bool => 1,
        }
    }

    /// NumPy's and MXNet's name of the type.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "float32",
            DType::F64 => "float64",
            DType::F16 => "float16",
            DType::U8 => "uint8",
            DType::I32 => "int32",
            DType::I8 => "int8",
            DType::I64 => "int64",
            DType::Bool => "bool",
        }
    }

    #[inline]
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64 | DType::F16)
    }

    #[inline]
    pub const fn is_int(self) -> bool {
        matches!(self, DType::U8 | DType::I32 | DType::I8 | DType::I64)
    }

    /// The type whose file flag is `flag`.
    pub fn from_flag(flag: i64) -> Result<DType> {
        DType::ALL
            .into_iter()
            .find(|d| *d as i64 == flag)
            .ok_or_else(|| Error::typ(format!("unknown element type flag {flag}; known are 0 to 7")))
    }

    pub fn from_name(name: &str) -> Result<DType> {
        DType::ALL.into_iter().find(|d| d.name() == name).ok_or_else(|| {
            let known: Vec<_> = DType::ALL.iter().map(|d| d.name()).collect();
            Error::typ(format!("dtype '{name}' is not supported; allowed are {}", known.join(", ")))
        })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that can be an array element.
///
/// `to_f64`/`from_f64` convert as MXNet casts: toward zero, wrapping into the integer's width
/// (not-a-number and values beyond 64 bits become the 64-bit minimum first); to bool by `!= 0`.
pub trait Elem: Copy + Send + Sync + Default + PartialEq + PartialOrd + fmt::Debug + 'static {
    const DTYPE: DType;
    /// The type in which reductions of this type accumulate.
    type Acc: Elem;
    fn to_f64(self) -> f64;
    fn from_f64(v: f64) -> Self;
    fn to_i64(self) -> i64;
    fn from_i64(v: i64) -> Self;
    #[inline(always)]
    fn is_nan(self) -> bool {
        false
    }
}

macro_rules! float_elem {
    ($t:ty, $d:ident, $acc:ty, $to:expr, $from:expr) => {
        impl Elem for $t {
            const DTYPE: DType = DType::$d;
            type Acc = $acc;
            #[inline(always)]
            fn to_f64(self) -> f64 {
                $to(self)
            }
            #[inline(always)]
            fn from_f64(v: f64) -> Self {
                $from(v)
            }
            #[inline(always)]
            fn to_i64(self) -> i64 {
                wrap_i64($to(self))
            }
            #[inline(always)]
            fn from_i64(v: i64) -> Self {
                $from(v as f64)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                self != self
            }
        }
    };
}
float_elem!(f32, F32, f32, |v| v as f64, |v| v as f32);
float_elem!(f64, F64, f64, |v| v, |v| v);
float_elem!(f16, F16, f32, f16::to_f64, f16::from_f64);

/// The x86 conversion: toward zero, everything that does not fit becomes the minimum.
#[inline(always)]
fn wrap_i64(v: f64) -> i64 {
    const LIMIT: f64 = (1u64 << 63) as f64;
    if (-LIMIT..LIMIT).contains(&v) { v as i64 } else { i64::MIN }
}

macro_rules! int_elem {
    ($t:ty, $d:ident, $conv:expr) => {
        impl Elem for $t {
            const DTYPE: DType = DType::$d;
            type Acc = i64;
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn from_f64(v: f64) -> Self {
                $conv(v)
            }
            #[inline(always)]
            fn to_i64(self) -> i64 {
                self as i64
            }
            #[inline(always)]
            fn from_i64(v: i64) -> Self {
                v as $t
            }
        }
    };
}
int_elem!(i64, I64, wrap_i64);
// What does not fit 32 bits becomes the minimum, as the processor's conversion has it; narrower types wrap.
int_elem!(i32, I32, |v: f64| if v > -2147483649.0 && v < 2147483648.0 { v as i32 } else { i32::MIN });
int_elem!(i8, I8, |v: f64| wrap_i64(v) as i8);
int_elem!(u8, U8, |v: f64| wrap_i64(v) as u8);

impl Elem for bool {
    const DTYPE: DType = DType::Bool;
    type Acc = i64;
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self as u8 as f64
    }
    #[inline(always)]
    fn from_f64(v: f64) -> Self {
        v != 0.0
    }
    #[inline(always)]
    fn to_i64(self) -> i64 {
        self as i64
    }
    #[inline(always)]
    fn from_i64(v: i64) -> Self {
        v != 0
    }
}
