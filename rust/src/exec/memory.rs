//! Places in one block of memory for values that live at different times; and the blocks of runs, which go from one run
//! to the next.

use crate::array::Array;
use crate::device::Context;
use crate::engine::Chunk;
use crate::ops::Spec;
use mxrs_base::{DType, Result, Shape};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};

/// Values start at multiples of this, a cache line.
pub const ALIGN: usize = 64;

/// Gives out and takes back ranges; the block grows as far as its fullest moment needs.
#[derive(Default)]
pub struct Arena {
    /// Free ranges below the top, by start.
    free: Vec<(usize, usize)>,
    top: usize,
    peak: usize,
}

impl Arena {
    /// The start of a range of `bytes`: the smallest free one that fits, or new memory at the top.
    pub fn take(&mut self, bytes: usize) -> usize {
        let bytes = bytes.max(1).next_multiple_of(ALIGN);
        let fits = self.free.iter().enumerate().filter(|(_, f)| f.1 >= bytes).min_by_key(|(_, f)| f.1);
        if let Some((i, &(start, len))) = fits {
            match len == bytes {
                true => drop(self.free.remove(i)),
                false => self.free[i] = (start + bytes, len - bytes),
            }
            return start;
        }
        // A free range at the very top grows instead of being left behind.
        let start = match self.free.last() {
            Some(&(start, len)) if start + len == self.top => {
                self.free.pop();
                start
            }
            _ => self.top,
        };
        self.top = start + bytes;
        self.peak = self.peak.max(self.top);
        start
    }

    /// Takes a range back.
    pub fn give(&mut self, start: usize, bytes: usize) {
        let mut len = bytes.max(1).next_multiple_of(ALIGN);
        let mut start = start;
        let mut i = self.free.partition_point(|f| f.0 < start);
        if i < self.free.len() && start + len == self.free[i].0 {
            len += self.free[i].1;
            self.free.remove(i);
        }
        if i > 0 && self.free[i - 1].0 + self.free[i - 1].1 == start {
            i -= 1;
            start = self.free[i].0;
            len += self.free[i].1;
            self.free.remove(i);
        }
        self.free.insert(i, (start, len));
    }

    /// Bytes of the whole block.
    pub fn peak(&self) -> usize {
        self.peak
    }
}

/// Blocks of runs that are over for the caller, but not for the engine: issued and still going on. The next run may have
/// one at once, since the engine lets it wait for the one before; a block of its own would double the memory.
#[derive(Default)]
pub struct Spares {
    waiting: Mutex<Vec<Array>>,
    /// The block that was let go last. The operation that ended with it may hold it for another moment.
    last: Mutex<Weak<Chunk>>,
}

/// How often a run looks whether the last block has come back, before it takes a new one.
const LOOKS: usize = 10_000;

impl Spares {
    /// Memory for a run: the smallest waiting block that is large enough, or a new one.
    pub fn lease(self: &Arc<Spares>, bytes: usize, context: Context) -> Result<Arc<Lease>> {
        let found = {
            let mut waiting = self.waiting.lock();
            let fits = |a: &Array| a.size() >= bytes && a.context() == context;
            let best = (0..waiting.len()).filter(|i| fits(&waiting[*i])).min_by_key(|i| waiting[*i].size());
            best.map(|i| waiting.swap_remove(i))
        };
        let block = match found {
            Some(block) => block,
            None => {
                let last = std::mem::take(&mut *self.last.lock());
                for _ in 0..LOOKS {
                    if last.strong_count() == 0 {
                        break;
                    }
                    std::thread::yield_now();
                }
                block(bytes, context)?
            }
        };
        Ok(Arc::new(Lease { block, home: Some(self.clone()), offered: AtomicBool::new(false) }))
    }
}

/// `bytes` of undefined content.
fn block(bytes: usize, context: Context) -> Result<Array> {
    Array::empty(Spec::new(Shape::new(&[bytes]), DType::U8), context)
}

/// The block of one run, held by it and by the operations that it issued.
pub struct Lease {
    block: Array,
    home: Option<Arc<Spares>>,
    /// Whether it was offered to the next run.
    offered: AtomicBool,
}

impl Lease {
    /// A block that is used run after run by its owner.
    pub fn own(bytes: usize, context: Context) -> Result<Arc<Lease>> {
        Ok(Arc::new(Lease { block: block(bytes, context)?, home: None, offered: AtomicBool::new(false) }))
    }

    pub fn block(&self) -> &Array {
        &self.block
    }

    /// Offers the block to the next run, unless it is idle: then it goes back to the pool, where anyone finds it.
    pub fn pass_on(self: &Arc<Lease>) {
        if let Some(home) = &self.home
            && Arc::strong_count(self) > 1
        {
            self.offered.store(true, Relaxed);
            home.waiting.lock().push(self.block.clone());
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The run is over for the engine too. If nobody took the block, it is free.
        if let Some(home) = &self.home {
            let mut waiting = home.waiting.lock();
            let offers = waiting.len();
            waiting.retain(|a| !Arc::ptr_eq(a.chunk(), self.block.chunk()));
            // Where it was offered and is gone, another run has it.
            if waiting.len() < offers || !self.offered.load(Relaxed) {
                *home.last.lock() = Arc::downgrade(self.block.chunk());
            }
        }
    }
}
