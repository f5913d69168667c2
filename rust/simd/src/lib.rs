//! The scalar instruction set of formulas and its vector loops, vector math, and casts between element types.
//!
//! Loops are plain Rust that the compiler vectorises; [`vectorize`] and the kernel tables compile them for several
//! targets (AVX-512, AVX2+FMA, the baseline; NEON is aarch64's baseline) and choose at run time. That was taken
//! over `pulp`'s dispatch because a loop here must also know *whether* it has fused multiply-add ([`Level::FMA`]),
//! and because formulas want plain function pointers to resolve once and call per tile.
//! Derivatives of instructions, tiles, broadcasting and threads belong to the formula room above.

mod cast;
mod instr;
mod kernels;
mod level;
mod math32;
mod math64;
mod ops;
mod special;
mod wgsl;

pub use cast::{CastFn, cast, cast_bytes, cast_dyn, cast_kernel};
pub use instr::{Binary, Unary};
pub use kernels::{
    BinaryFn, Form, SelectFn, UnaryFn, binary, binary_in_place, binary_kernel, binary_left_scalar,
    binary_right_scalar, select, select_kernel, unary, unary_in_place, unary_kernel,
};
pub use level::{Kernel, Level, vectorize, vectorize_kernel};
pub use wgsl::{wgsl_helper, wgsl_helpers_for};

/// Vector functions for other kernels: `#[inline(always)]`, without branches that stop vectorisation.
///
/// Call them inside a [`Kernel`] (`f32::exp` is a libm call and would stop vectorisation).
pub mod math {
    pub use crate::math32::{erf, exp, log, sigmoid, softplus, tanh};
    /// The same in double precision.
    pub mod f64 {
        pub use crate::math64::{exp, expm1, log, log1p, sigmoid, tanh};
    }
}
