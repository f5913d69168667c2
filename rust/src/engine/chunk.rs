//! Memory with a queue of readers and writers.

use super::held;
use super::queue::Task;
use crate::device::{Buffer, Context, Storage};
use mxrs_base::{Error, Result};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub type ChunkRef = Arc<Chunk>;

/// One allocation, the operations that wait for it, and the error that the last writer left.
///
/// The queue is the only thing that orders access to the memory: whoever reads through [`Chunk::ptr`] must have been
/// granted the chunk (inside an operation) or have waited for it.
pub struct Chunk {
    pub(super) state: Mutex<State>,
    storage: Storage,
    context: Context,
    bytes: usize,
    /// How many writes were issued, in program order; the tape compares it to see whether a saved value was replaced.
    version: AtomicU64,
}

#[derive(Default)]
pub(super) struct State {
    /// Operations that read now.
    pub readers: u32,
    /// An operation writes now.
    pub writer: bool,
    /// Operations that wait, in program order.
    pub queue: VecDeque<Waiter>,
    pub error: Option<Parked>,
}

pub(super) struct Waiter {
    pub task: Arc<Task>,
    pub write: bool,
}

/// An error left by a writer, and whether anybody has seen it yet.
#[derive(Clone)]
pub(super) struct Parked {
    pub error: Error,
    pub seen: Arc<AtomicBool>,
}

impl Parked {
    pub fn new(error: Error) -> Parked {
        Parked { error, seen: Arc::new(AtomicBool::new(false)) }
    }
    pub fn surface(&self) -> Error {
        self.seen.store(true, Ordering::Relaxed);
        self.error.clone()
    }
}

impl State {
    /// No writer is active or waiting: the content is what the program order says it is.
    pub fn readable(&self) -> bool {
        !self.writer && self.queue.is_empty()
    }
    /// Nobody uses it or waits for it.
    pub fn idle(&self) -> bool {
        self.readable() && self.readers == 0
    }
}

impl Chunk {
    /// `bytes` of undefined content on `context`.
    pub fn new(bytes: usize, context: Context) -> Result<ChunkRef> {
        match Storage::new(bytes, context) {
            Ok(storage) => Ok(Chunk::over(storage, bytes, context)),
            Err(_) if held::any() && !context.is_host() => {
                // What is held back may be the last to need some memory.
                held::settle_all();
                Ok(Chunk::over(Storage::new(bytes, context)?, bytes, context))
            }
            Err(error) => Err(error),
        }
    }

    /// `bytes` on a GPU whose memory [`Chunk::fill`] provides: for results of operations that are held back.
    pub fn unfilled(bytes: usize, context: Context) -> ChunkRef {
        Chunk::over(Storage::unfilled(), bytes, context)
    }

    /// Provides the memory of a chunk that was made without.
    pub fn fill(&self) -> Result<()> {
        self.storage.fill(self.bytes, self.context)
    }

    /// A chunk over storage that already exists.
    pub fn over(storage: Storage, bytes: usize, context: Context) -> ChunkRef {
        Arc::new(Chunk {
            state: Mutex::new(State::default()),
            storage,
            context,
            bytes,
            version: AtomicU64::new(0),
        })
    }

    #[inline]
    pub fn ptr(&self) -> *mut u8 {
        self.storage.host_ptr()
    }
    /// Where the memory is, if that is on a GPU.
    #[inline]
    pub fn buffer(&self) -> Option<&Buffer> {
        self.storage.buffer()
    }
    #[inline]
    pub fn context(&self) -> Context {
        self.context
    }
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }
    /// Counts one more write, at the time it is issued.
    #[inline]
    pub fn bump(&self) {
        self.version.fetch_add(1, Ordering::Relaxed);
    }
}
