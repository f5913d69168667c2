//! Graphs: the symbols that users build, what is known of their shapes, their files, and the program they are lowered to.
//!
//! A [`Symbol`] is a handle to shared, named [`Node`]s. Binding it to shapes lowers it to a [`Program`]: a flat list of
//! kernel calls in which compositions are expanded and gradients are calls like any other. The passes work on
//! programs, one file each. Memory and running are `exec`'s.

mod infer;
mod lower;
pub mod passes;
mod program;
mod symbol;

pub use infer::{Dims, Inferred, Known, infer};
pub use lower::{Lowered, Wanted, lower};
pub use program::{Instr, Program, ValueId, Work};
pub use symbol::{Call, Entry, Node, NodeKey, NodeRef, Symbol};
