//! CPU compute cores.

pub mod conv;
pub mod copy;
pub mod gemm;
pub mod index;
pub mod loss;
pub mod norm;
pub mod norm_rows;
pub mod pad;
pub mod parts;
pub mod philox;
mod planes;
pub mod pool;
pub mod real;
pub mod reduce;
mod reduce_ops;
pub mod sample;
pub mod scan;
pub mod seq;
pub mod softmax;
pub mod sort;
pub mod update;
