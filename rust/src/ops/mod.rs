//! The operators. Everything about one stands in one record ([`OpDef`]) in the file of its family.
//!
//! To add an operator: write its record in a family's `register`. To add a family: a file here and a line in
//! [`FAMILIES`]. This room knows shapes, attributes and slices; arrays, the engine's scheduling and the tape are above.

mod attrs;
mod build;
mod def;
mod gpu;
mod grad;
mod infer;
mod kernel;
pub mod registry;

mod activation;
mod attention;
mod basic;
mod contrib;
mod conv;
mod create;
mod dense;
mod dropout;
mod elemwise;
mod factor;
mod image;
mod index;
mod join;
mod linalg;
mod loss;
mod norm;
mod order;
mod pool;
mod random;
mod reduce;
mod resample;
mod sequence;
mod shape;
mod slice;
mod softmax;
mod update;
mod update_lamb;
mod update_multi;

pub use attrs::{Attrs, Kind, Param, choice, dtype, empty, flag, float, floats, int, ints, show, string};
pub use build::{Build, GradArgs, Grads, Value, Values};
pub use def::{
    Body, Gradient, Input, Keeps, OpBuilder, OpDef, OpRef, Sample, SampleInput, Shapes, draw, one,
};
pub use gpu::{GpuCtx, GpuThen, GpuView, has_gpu_body, run_formula_gpu, run_gpu};
pub use grad::gradients;
pub use infer::{Sig, Spec, Specs, promote};
pub use kernel::{Ctx, RngPos, View, estimate, run, run_formula, run_then};
pub use registry::Registry;
pub use shape::movement::Movement;

/// The families, each of which registers its operators.
const FAMILIES: &[fn(&mut Registry)] = &[
    basic::register,
    elemwise::register,
    conv::register,
    dense::register,
    linalg::register,
    factor::register,
    pool::register,
    resample::register,
    norm::register,
    softmax::register,
    activation::register,
    dropout::register,
    loss::register,
    shape::register,
    slice::register,
    join::register,
    create::register,
    index::register,
    order::register,
    sequence::register,
    reduce::register,
    random::register,
    update::register,
    update_lamb::register,
    update_multi::register,
    image::register,
    attention::register,
    contrib::register,
];
