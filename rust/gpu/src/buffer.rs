//! A handle to device memory.

use crate::device::Shared;
use crate::pool::Chunk;
use std::sync::Arc;

/// Bytes on a device. Clones share them; when the last is dropped the memory goes back to the device's pool.
///
/// It may be dropped while commands that use it are still under way: whatever uses the memory next stands later in
/// the same queue.
#[derive(Clone)]
pub struct Buffer(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub chunk: Arc<Chunk>,
    pub len: u64,
    pub shared: Arc<Shared>,
}

impl Buffer {
    /// The bytes asked for. What lies behind them up to the next multiple of four may be overwritten.
    pub fn len(&self) -> u64 {
        self.0.len
    }
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }
    /// Bytes of memory that it occupies.
    pub fn capacity(&self) -> u64 {
        self.0.chunk.size
    }
    /// Whether both are the same memory.
    pub fn same_memory(&self, other: &Buffer) -> bool {
        self.0.chunk.id == other.0.chunk.id
    }
    /// The device it lives on.
    pub fn device(&self) -> crate::Device {
        crate::Device(self.0.shared.clone())
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes, #{})", self.0.len, self.0.chunk.id)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.pool.give_back(self.chunk.clone());
    }
}
