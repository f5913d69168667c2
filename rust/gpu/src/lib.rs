//! Graphics processors: adapters, devices, buffers and dispatches, through wgpu and nowhere else.
//!
//! The tour, from the ground up:
//! - [`adapters`] lists what the machine has; [`describe`] says what was looked for and found.
//! - [`Device::get`] opens one, [`devices`] are those that are open: a worker thread owns the command encoder, calls send it commands and return at once.
//! - [`Device::alloc`] hands out a [`Buffer`] from a pool of size classes.
//! - [`Device::write`], [`Device::read`], [`Device::copy`] and [`Device::fill`] move bytes, in order with dispatches.
//! - [`Device::pipeline`] compiles a [`Shader`] once; [`Device::dispatch`] runs it over buffers with [`Params`].
//! - [`Device::wait`], [`Ticket::wait`] and [`Fence::wait`] are where a caller waits, and where errors surface.
//! - [`Device::counts`] counts what was done, [`Device::profile_start`] takes device timestamps.
//!
//! Arrays, element types, operators and attributes are unknown here: a buffer is bytes, a shader is text.

mod adapter;
mod buffer;
mod command;
mod counters;
mod device;
mod error;
mod open;
mod pipeline;
mod pool;
mod profile;
mod progress;
mod readback;
mod shader;
mod staging;
mod transfer;
mod worker;

pub use adapter::{Adapter, Features, Kind, Limits, Profile, adapters, all_adapters, describe};
pub use buffer::Buffer;
pub use counters::Counts;
pub use device::{Device, Fence};
pub use open::{after_fork_in_child, devices, profile_all, shutdown, wait_all};
pub use pipeline::{Key, Pipeline};
pub use pool::Memory;
pub use profile::Span;
pub use readback::Ticket;
pub use shader::{Access, LINEAR_X, Params, Shader, Slot, linear_groups};
