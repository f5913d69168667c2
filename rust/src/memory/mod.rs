//! Host memory from a pool of size classes.
//!
//! A freed block goes back to the list of its class and is handed out again: a training loop that asks for the same
//! sizes every step stops calling the allocator after the first. Blocks are aligned to 64 bytes. What a block is used
//! for, and when it may be freed, is the business of `engine::Chunk`.

use mxrs_base::{Error, Result};
use parking_lot::Mutex;
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const ALIGN: usize = 64;
/// Four classes per power of two, from 64 bytes up: at most a quarter of a block is unused.
const CLASSES: usize = 4 * 42;

/// An aligned block of host memory; dropping it returns it to the pool. Its content starts undefined.
#[derive(Debug)]
pub struct Block {
    ptr: NonNull<u8>,
    class: u32,
}

// SAFETY: a block is plain memory that it alone owns; who may touch it when is decided by the engine.
unsafe impl Send for Block {}
// SAFETY: as above; `Block` hands out only a raw pointer.
unsafe impl Sync for Block {}

/// Bytes held by the pool, for users (`mx.context.cpu_memory_info`) and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// In blocks that are in use.
    pub used: usize,
    /// In free blocks kept for reuse.
    pub cached: usize,
    /// The highest `used` so far.
    pub peak: usize,
}

struct Pool {
    free: [Mutex<Vec<NonNull<u8>>>; CLASSES],
    used: AtomicUsize,
    cached: AtomicUsize,
    peak: AtomicUsize,
    /// `cached` never grows beyond this many bytes.
    keep: usize,
    /// A request beyond this is refused at once: the machine does not have it.
    limit: usize,
}

// SAFETY: the raw pointers in the free lists are owned by the pool and only moved under each list's lock.
unsafe impl Sync for Pool {}
// SAFETY: as above.
unsafe impl Send for Pool {}

fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        let limit = env_bytes("MXRS_CPU_MEM_LIMIT").unwrap_or_else(physical_memory);
        Pool {
            free: std::array::from_fn(|_| Mutex::new(Vec::new())),
            used: AtomicUsize::new(0),
            cached: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            keep: env_bytes("MXRS_CPU_MEM_KEEP").unwrap_or(limit / 2),
            limit,
        }
    })
}

fn env_bytes(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.trim().parse().ok()
}

/// The machine's memory in bytes, where the system tells; else a bound no machine reaches.
fn physical_memory() -> usize {
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let kib = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
        kib.trim().trim_end_matches("kB").trim().parse::<usize>().ok()?.checked_mul(1024)
    });
    total.unwrap_or(1 << 42)
}

/// The class whose blocks hold `bytes`.
fn class_of(bytes: usize) -> usize {
    let units = bytes.div_ceil(ALIGN).max(1);
    if units <= 4 {
        return units - 1;
    }
    let octave = usize::BITS as usize - 1 - (units - 1).leading_zeros() as usize;
    let quarter = (units - 1) >> (octave - 2) & 3;
    4 * (octave - 1) + quarter
}

/// Bytes of a block of `class`.
fn class_bytes(class: usize) -> usize {
    if class < 4 {
        return (class + 1) * ALIGN;
    }
    let (octave, quarter) = (class / 4 + 1, class % 4);
    ((1usize << octave) + ((quarter + 1) << (octave - 2))) * ALIGN
}

impl Block {
    /// A block of at least `bytes`; an error where the machine does not have them.
    pub fn new(bytes: usize) -> Result<Block> {
        let pool = pool();
        if bytes > pool.limit {
            return Err(Error::memory(format!(
                "an array of {bytes} bytes was asked for; this machine has {} (MXRS_CPU_MEM_LIMIT)",
                pool.limit
            )));
        }
        let class = class_of(bytes);
        let size = class_bytes(class);
        let used = pool.used.fetch_add(size, Relaxed) + size;
        if used > pool.peak.load(Relaxed) {
            pool.peak.fetch_max(used, Relaxed);
        }
        if let Some(ptr) = pool.free[class].lock().pop() {
            pool.cached.fetch_sub(size, Relaxed);
            return Ok(Block { ptr, class: class as u32 });
        }
        let layout = layout(class);
        // SAFETY: the layout's size is never zero.
        let mut ptr = unsafe { std::alloc::alloc(layout) };
        if ptr.is_null() {
            trim();
            // SAFETY: as above.
            ptr = unsafe { std::alloc::alloc(layout) };
        }
        match NonNull::new(ptr) {
            Some(ptr) => Ok(Block { ptr, class: class as u32 }),
            None => {
                pool.used.fetch_sub(size, Relaxed);
                Err(Error::memory(format!("out of memory: {bytes} bytes beside {used} in use")))
            }
        }
    }

    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }
}

fn layout(class: usize) -> Layout {
    // Class sizes are multiples of 64 below 2^50, so this cannot fail.
    Layout::from_size_align(class_bytes(class), ALIGN).expect("class sizes are valid layouts")
}

impl Drop for Block {
    fn drop(&mut self) {
        let pool = pool();
        let class = self.class as usize;
        let size = class_bytes(class);
        pool.used.fetch_sub(size, Relaxed);
        if pool.cached.load(Relaxed) + size > pool.keep {
            // SAFETY: allocated with this very layout and owned by this block alone.
            unsafe { std::alloc::dealloc(self.ptr.as_ptr(), layout(class)) };
            return;
        }
        pool.cached.fetch_add(size, Relaxed);
        pool.free[class].lock().push(self.ptr);
    }
}

/// Gives every cached block back to the system.
pub fn trim() {
    let pool = pool();
    for (class, list) in pool.free.iter().enumerate() {
        for ptr in std::mem::take(&mut *list.lock()) {
            pool.cached.fetch_sub(class_bytes(class), Relaxed);
            // SAFETY: blocks in a list were allocated with its class's layout and have no other owner.
            unsafe { std::alloc::dealloc(ptr.as_ptr(), layout(class)) };
        }
    }
}

pub fn stats() -> Stats {
    let pool = pool();
    Stats { used: pool.used.load(Relaxed), cached: pool.cached.load(Relaxed), peak: pool.peak.load(Relaxed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_fits_its_class_with_little_waste() {
        for bytes in (0..4096).chain((12..36).flat_map(|p| [(1 << p) - 1, 1 << p, (1 << p) + 1])) {
            let size = class_bytes(class_of(bytes));
            assert!(size >= bytes, "{bytes} bytes in a class of {size}");
            assert!(size <= bytes + bytes / 4 + ALIGN, "{bytes} bytes waste a class of {size}");
        }
    }

    #[test]
    fn a_freed_block_is_handed_out_again() {
        let first = Block::new(1_000_003).unwrap();
        let address = first.as_ptr();
        drop(first);
        assert_eq!(Block::new(1_000_001).unwrap().as_ptr(), address);
    }

    #[test]
    fn more_than_the_machine_has_is_refused() {
        let error = Block::new(usize::MAX / 2).unwrap_err();
        assert_eq!(error.kind(), mxrs_base::ErrorKind::Memory);
    }
}
