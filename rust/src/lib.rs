//! The core of mxrs. The rooms from the ground up; a room uses only rooms above it in this list
//! (and the crates `mxrs-base`, `mxrs-lanes`, `mxrs-simd`, `mxrs-formula`, `mxrs-kernels` and `mxrs-gpu`, which are the ground).

pub mod memory;

pub mod device;

pub mod engine;

pub mod shaders;

pub mod ops;

pub mod array;

pub mod tape;

pub mod graph;

pub mod exec;

#[cfg(feature = "python")]
pub mod py;
