//! The ground floor: element types, shapes, typed attribute values and the one error type.
//!
//! Nothing here allocates arrays or runs arithmetic over them; every other room may use this one.

mod attr;
mod dtype;
mod error;
mod shape;

pub use attr::{AttrValue, Ints};
pub use dtype::{DType, Elem};
pub use error::{Error, ErrorKind, Result};
pub use half::f16;
pub use shape::{Dims, Shape};

/// Runs `$body` with the type alias `$T` standing for the Rust type of `$dtype`.
///
/// ```
/// use mxrs_base::{DType, dispatch};
/// let size = dispatch!(DType::F64, T => std::mem::size_of::<T>());
/// assert_eq!(size, 8);
/// ```
#[macro_export]
macro_rules! dispatch {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            $crate::DType::F16 => {
                type $T = $crate::f16;
                $body
            }
            $crate::DType::U8 => {
                type $T = u8;
                $body
            }
            $crate::DType::I32 => {
                type $T = i32;
                $body
            }
            $crate::DType::I8 => {
                type $T = i8;
                $body
            }
            $crate::DType::I64 => {
                type $T = i64;
                $body
            }
            $crate::DType::Bool => {
                type $T = bool;
                $body
            }
        }
    };
}

/// Like [`dispatch!`], for the floating types only; any other dtype evaluates `$other`.
#[macro_export]
macro_rules! dispatch_float {
    ($dtype:expr, $T:ident => $body:expr, else $other:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            $crate::DType::F16 => {
                type $T = $crate::f16;
                $body
            }
            _ => $other,
        }
    };
}
