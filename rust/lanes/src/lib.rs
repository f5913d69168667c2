//! The lanes: fork-join over index ranges on a pool of threads.
//!
//! A call cuts its range into chunks and offers them; the caller claims chunks like every lane does and
//! returns when all of them are done. Nobody waits at a barrier for a thread that has not come: on a machine
//! shared with others a late lane finds the work finished and goes back to sleep, and the caller waits only
//! for chunks that a lane has already begun. What to cut and how finely is left to the kernels; queues and
//! dependencies between operations are the engine's.
//!
//! Chunk boundaries depend on the sizes and on [`count`], never on timing. Sums that must not change with the
//! number of lanes use [`for_each_block`], whose partition depends on the sizes alone.

mod pool;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Chunks offered per lane: enough for a lane that was late or slow to be made up for by the others.
const CHUNKS_PER_LANE: usize = 4;

/// More lanes than this are never started, whatever the environment says.
const MAX_LANES: usize = 1024;

/// The number of lanes; 0 until it is first asked for.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The number of lanes: threads that share a fork-join, the caller included. At least 1.
///
/// Taken once from `MXRS_NUM_THREADS`, else `OMP_NUM_THREADS`, else the processors this process may use;
/// values that are not positive numbers are passed over.
#[inline]
pub fn count() -> usize {
    match COUNT.load(Ordering::Relaxed) {
        0 => count_from_environment(),
        n => n,
    }
}

/// Sets the number of lanes, the caller included (0 counts as 1). Calls under way finish with the lanes they have.
pub fn set_count(n: usize) {
    COUNT.store(n.clamp(1, MAX_LANES), Ordering::Relaxed);
    pool::count_changed();
}

#[cold]
fn count_from_environment() -> usize {
    let from = |name: &str| {
        // OpenMP allows a list, one number per nesting level; the first is the outermost.
        let value = std::env::var(name).ok()?;
        value.split(',').next()?.trim().parse::<usize>().ok().filter(|n| *n > 0)
    };
    let n = from("MXRS_NUM_THREADS")
        .or_else(|| from("OMP_NUM_THREADS"))
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
        .clamp(1, MAX_LANES);
    // A concurrent `set_count` wins over the environment.
    match COUNT.compare_exchange(0, n, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => n,
        Err(set) => set,
    }
}

/// Calls `body` on disjoint ranges that cover `0..n`, in parallel; returns when all are done.
///
/// Ranges begin at multiples of `grain` (0 counts as 1) and all but the last are at least that long. With
/// `n <= grain`, with one lane, or inside another call's body, `body(0..n)` runs on the caller at once. A panic in
/// `body` reaches the caller after the chunks under way have ended.
#[inline]
pub fn for_each(n: usize, grain: usize, body: impl Fn(Range<usize>) + Sync) {
    if n == 0 {
        return;
    }
    let grain = grain.max(1);
    let lanes = count();
    if n <= grain || lanes == 1 || pool::inside() {
        return body(0..n);
    }
    let chunk = grain.saturating_mul(n.div_ceil(grain).div_ceil(lanes * CHUNKS_PER_LANE));
    pool::fork_join(n.div_ceil(chunk), lanes, &|i: usize| {
        let start = i * chunk;
        body(start..n.min(start.saturating_add(chunk)));
    });
}

/// Takes part in a call under way on another thread, if one has chunks left and a lane missing; whether it did.
///
/// For threads that wait for something else: on a machine with few processors, one that spins beside the lanes takes from them what it
/// could give.
#[inline]
pub fn help() -> bool {
    pool::help()
}

/// Calls `body(index, range)` for every block of `block` indices of `0..n` (the last may be shorter), in parallel.
///
/// The partition is the same for any number of lanes, so partial sums kept by block index and added in order
/// repeat exactly. Blocks of one call may run in any order and on any lane.
#[inline]
pub fn for_each_block(n: usize, block: usize, body: impl Fn(usize, Range<usize>) + Sync) {
    let block = block.max(1);
    for_each(n.div_ceil(block), 1, |blocks| {
        for i in blocks {
            let start = i * block;
            body(i, start..n.min(start.saturating_add(block)));
        }
    });
}
