//! The array handle, and invoking operators on arrays.
//!
//! An [`Array`] is a window on a chunk: offset, shape, element type; always contiguous. It holds no operators. This
//! room turns a call into an engine operation, at once or with others (`deferred`), and, while recording, into a node of
//! the tape (`node`); walking the tape backward is `tape`'s business.

mod arrange;
mod deferred;
mod eager;
mod handle;
mod invoke;
mod mode;
mod node;
mod rng;
mod transfer;

pub use deferred::set_size as set_window_size;
pub use eager::EagerBuild;
pub use handle::Array;
pub use invoke::{Arrays, invoke, origin, set_origin_hook, view};
pub use mode::{Mode, is_recording, is_training, set_recording, set_training};
pub use node::{CustomGrad, GradReq, Link, Node, NodeState, OpNode, Slot, custom_node};
pub use rng::{DrawAgain, next as next_rng, seed};
