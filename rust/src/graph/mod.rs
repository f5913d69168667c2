//! Graphs: the symbols that users build, what is known of their shapes, their files, and the program they are lowered to.
//!
//! A [`Symbol`] is a handle to shared, named [`Node`]s. Binding it to shapes lowers it to a [`Program`]: a flat list of
//! kernel calls in which compositions are expanded and gradients are calls like any other. The passes work on
//! programs, one file each. Memory and running are `exec`'s.

mod compose;
mod infer;
mod json;
mod lower;
mod names;
pub mod passes;
mod program;
mod symbol;

pub use compose::{Inits, apply, counted, counter, input_names, refuse_input_key};
pub use infer::{Dims, Inferred, Known, infer};
pub use json::{load, save};
pub use lower::{Lowered, Wanted, lower};
pub use names::{COMMON_KEYS, Texts, is_reserved, stored_key, unknown_key};
pub use program::{Instr, Program, ValueId, Work};
pub use symbol::{Call, Entry, Node, NodeKey, NodeRef, Symbol};
