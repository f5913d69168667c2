//! The dependency engine: operations run when, and only when, the chunks they touch are free.
//!
//! A [`Chunk`] is memory with a queue: many granted readers or one writer. An operation names the chunks it reads and
//! those it writes; [`run`] either executes it at once on the calling thread (the *inline path*: every chunk idle, the
//! work tiny) or queues it and returns. Two operations with no chunk in common run side by side. An operation that
//! fails parks its error on the chunks it would have written; whoever waits for one of them gets the error.
//!
//! `MXNET_ENGINE_TYPE=NaiveEngine` makes every operation run at once, in program order: the twin for debugging and
//! for the randomized test of this engine against it.
//!
//! What an operation does, and how large it is, the rooms above decide.

mod chunk;
pub mod held;
mod queue;
pub mod trace;
mod wait;

pub use chunk::{Chunk, ChunkRef};
pub use queue::{
    after_fork_in_child, before_fork, is_naive, issue, panic_error, park, pending, run, set_naive,
};
pub use wait::{Waited, wait_all, wait_read, wait_write};

#[cfg(test)]
mod tests;
