//! What a device has done, counted: for tests that bound the work of a step, and for users who ask.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[derive(Default)]
        pub(crate) struct Counters { $(pub $name: AtomicU64),* }

        /// Counts since the device was opened or since they were last reset.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counts { $($(#[$doc])* pub $name: u64),* }

        impl Counters {
            pub fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Relaxed)),* }
            }
            pub fn reset(&self) {
                $(self.$name.store(0, Relaxed);)*
            }
        }

        impl Counts {
            /// Name and value of each count.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

counters! {
    dispatches,
    /// Compute passes opened.
    passes,
    /// Batches of commands handed to the device.
    submits,
    bytes_written,
    bytes_read,
    /// From buffer to buffer on the device.
    bytes_copied,
    /// Of the arrays that operators on the device read and wrote, as their callers tell.
    bytes_touched,
    /// Pipelines compiled.
    pipelines,
    /// Bind-group and pipeline layouts created.
    layouts,
    /// Bind groups created: a set of buffers that was not used together lately.
    bind_groups,
    /// Buffers that the pool had to ask the driver for.
    buffers,
    /// Staging and readback buffers created.
    staging_buffers,
    /// Waits for the device.
    waits,
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}
