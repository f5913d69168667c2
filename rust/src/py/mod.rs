//! The border to Python, and the only room that knows it.
//!
//! `object` is the array's Python type, `arith` its operators, `call` the functions and methods generated from the
//! registry, `symbol` graphs, `record` gradients, `convert` values and exceptions, `module` the extension module with everything that need not be fast.

mod arith;
mod call;
mod convert;
mod docs;
mod exec;
mod gpu;
mod module;
mod numpy;
mod object;
mod record;
mod symbol;
