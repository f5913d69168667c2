//! GPU kernels: WGSL templates and the functions that launch them.
//!
//! One file per kernel shape. A `launch_...` function takes sizes, strides and buffers, and sends dispatches; what
//! shapes mean and which operator asks is the business of the rooms above. A template is printed once per variant and
//! compiled once per device ([`mxrs_gpu::Device::pipeline`]).
//!
//! Elements on a device: float32, int32 and, where the adapter has it, float16 lie as they are; bool, uint8 and int8
//! are packed four to a word, as on the host, and an invocation writes whole words. float64 and int64 are
//! moved, cast and read as indices; what would compute in them is refused by name, for no portable shading language has
//! them.

pub mod channels;
pub mod columns;
pub mod conv;
pub mod copy;
pub mod ctc;
pub mod draws;
pub mod each;
pub mod elem;
pub mod epilogue;
pub mod extreme;
pub mod index;
pub mod map;
pub mod matmul;
pub mod norm;
pub mod pool;
pub mod random;
pub mod reduce;
pub mod resample;
pub mod rows;
pub mod scan;
pub mod share;
pub mod softmax;
pub mod solve;
pub mod sort;
pub mod tile;
pub mod update;

#[cfg(test)]
mod conv_tests;
#[cfg(test)]
mod ctc_tests;
#[cfg(test)]
mod draws_tests;
#[cfg(test)]
mod index_tests;
#[cfg(test)]
mod map_tests;
#[cfg(test)]
mod matmul_tests;
#[cfg(test)]
mod reduce_tests;
#[cfg(test)]
mod rows_tests;
#[cfg(test)]
mod scan_tests;
#[cfg(test)]
mod solve_tests;
#[cfg(test)]
mod sort_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod wide_tests;
#[cfg(test)]
mod window_tests;

pub use elem::{Place, Span};
