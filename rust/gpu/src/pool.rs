//! Device memory by size class.
//!
//! A freed chunk is handed out again at once: the queue runs in order, so whoever gets it next uses it after whoever
//! had it before. Lists are last in, first out, which gives a training loop the same chunks in every step, and with
//! them the bind groups of the step before.

use mxrs_base::{Error, Result};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// One buffer of wgpu's; `id` is never used twice.
pub(crate) struct Chunk {
    pub id: u64,
    pub size: u64,
    pub raw: wgpu::Buffer,
}

/// Bytes of a device's pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// In buffers that are in use.
    pub used: u64,
    /// In free buffers kept for reuse.
    pub pooled: u64,
    /// The highest `used` so far.
    pub peak: u64,
    /// What `used` and `pooled` may reach together, if there is a bound.
    pub limit: Option<u64>,
}

#[derive(Default)]
struct State {
    free: HashMap<u64, Vec<Arc<Chunk>>>,
    memory: Memory,
    ids: u64,
}

pub(crate) struct Pool {
    state: Mutex<State>,
    /// Bytes of the largest buffer that shaders can see.
    largest: u64,
}

/// Bytes of the chunks that hold `len`: four classes per power of two, from 256 bytes up, so that at most a fifth of a
/// chunk is unused.
pub(crate) fn class_bytes(len: u64) -> Option<u64> {
    if len <= 256 {
        return Some(256);
    }
    let step = ((len - 1).ilog2() as u64).checked_sub(2).map(|s| 1u64 << s)?;
    len.checked_next_multiple_of(step)
}

impl Pool {
    pub fn new(largest: u64, limit: Option<u64>) -> Pool {
        let memory = Memory { limit, ..Memory::default() };
        Pool { state: Mutex::new(State { memory, ..State::default() }), largest }
    }

    pub fn memory(&self) -> Memory {
        self.state.lock().memory
    }

    pub fn set_limit(&self, limit: Option<u64>) {
        self.state.lock().memory.limit = limit;
    }

    pub fn reset_peak(&self) {
        let mut state = self.state.lock();
        state.memory.peak = state.memory.used;
    }

    /// The chunk size for `len` bytes, or why there is none.
    pub fn class(&self, len: u64) -> Result<u64> {
        let class =
            class_bytes(len).map(|c| if c > self.largest && len <= self.largest { self.largest } else { c });
        class.filter(|c| *c <= self.largest).ok_or_else(|| {
            Error::memory(format!(
                "a GPU buffer of {len} bytes is larger than the {} bytes that this device can bind",
                self.largest
            ))
        })
    }

    /// A free chunk of the class, now in use.
    pub fn reuse(&self, class: u64) -> Option<Arc<Chunk>> {
        let mut state = self.state.lock();
        let chunk = state.free.get_mut(&class)?.pop()?;
        state.memory.pooled -= class;
        state.take(class);
        Some(chunk)
    }

    /// Whether a new chunk of the class stays within the limit.
    pub fn fits(&self, class: u64) -> bool {
        let memory = self.state.lock().memory;
        memory.limit.is_none_or(|limit| memory.used + memory.pooled + class <= limit)
    }

    /// Takes a new buffer into the books as in use.
    pub fn adopt(&self, raw: wgpu::Buffer, class: u64) -> Arc<Chunk> {
        let mut state = self.state.lock();
        state.ids += 1;
        state.take(class);
        Arc::new(Chunk { id: state.ids, size: class, raw })
    }

    pub fn give_back(&self, chunk: Arc<Chunk>) {
        let mut state = self.state.lock();
        state.memory.used -= chunk.size;
        state.memory.pooled += chunk.size;
        state.free.entry(chunk.size).or_default().push(chunk);
    }

    /// Empties the pool; the caller lets go of what it returns where no command can need it any more.
    pub fn drain(&self) -> Vec<Arc<Chunk>> {
        let mut state = self.state.lock();
        state.memory.pooled = 0;
        state.free.drain().flat_map(|(_, chunks)| chunks).collect()
    }
}

impl State {
    fn take(&mut self, class: u64) {
        self.memory.used += class;
        self.memory.peak = self.memory.peak.max(self.memory.used);
    }
}
