//! CPU compute cores.

pub mod conv;
pub mod gemm;
pub mod loss;
pub mod norm;
pub mod norm_rows;
pub mod philox;
pub mod pool;
pub mod real;
pub mod reduce;
mod reduce_ops;
pub mod sample;
pub mod scan;
pub mod softmax;
pub mod copy;
pub mod index;
pub mod pad;
pub mod seq;
pub mod sort;
pub mod update;
