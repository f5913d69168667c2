//! Issuing operations: the inline path, the queues of the chunks, the ready list and its workers.

use super::chunk::{ChunkRef, Parked, State, Waiter};
use super::{held, wait};
use mxrs_base::{Error, Result};
use parking_lot::{Condvar, Mutex, MutexGuard};
use smallvec::SmallVec;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicI8, AtomicPtr, AtomicUsize, Ordering::*};
use std::sync::{Arc, OnceLock};

type Body = Box<dyn FnOnce() -> Result<()> + Send>;
type Chunks = SmallVec<[ChunkRef; 4]>;

/// A queued operation.
pub(super) struct Task {
    /// Read and not written.
    reads: Chunks,
    writes: Chunks,
    /// Everything that is read, also what is written as well: an error there is inherited.
    sources: Chunks,
    /// Chunks not yet granted, plus one while it is being issued.
    missing: AtomicUsize,
    body: Mutex<Option<Body>>,
    priority: i32,
    serial: usize,
}

impl PartialEq for Task {
    fn eq(&self, other: &Task) -> bool {
        self.serial == other.serial
    }
}
impl Eq for Task {}
impl PartialOrd for Task {
    fn partial_cmp(&self, other: &Task) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Task {
    /// Higher priority first; among equals, program order.
    fn cmp(&self, other: &Task) -> std::cmp::Ordering {
        (self.priority, std::cmp::Reverse(self.serial))
            .cmp(&(other.priority, std::cmp::Reverse(other.serial)))
    }
}

/// What all threads share.
pub(super) struct Shared {
    ready: Mutex<Ready>,
    wake: Condvar,
    /// Operations issued and not finished.
    pending: AtomicUsize,
    serial: AtomicUsize,
    pub errors: Mutex<Vec<Parked>>,
    pub bell: wait::Bell,
}

#[derive(Default)]
struct Ready {
    tasks: BinaryHeap<Arc<Task>>,
    workers: usize,
    sleeping: usize,
}

/// Null until first used.
static SHARED: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());

#[inline]
pub(super) fn shared() -> &'static Shared {
    let shared = SHARED.load(Acquire);
    if shared.is_null() {
        return first();
    }
    // SAFETY: what the pointer names was leaked.
    unsafe { &*shared }
}

#[cold]
fn first() -> &'static Shared {
    let made = Box::into_raw(Box::new(Shared::new()));
    match SHARED.compare_exchange(std::ptr::null_mut(), made, AcqRel, Acquire) {
        // SAFETY: leaked just now, and nobody takes it back.
        Ok(_) => unsafe { &*made },
        Err(other) => {
            // SAFETY: nobody has seen `made`; `other` was leaked.
            unsafe {
                drop(Box::from_raw(made));
                &*other
            }
        }
    }
}

impl Shared {
    fn new() -> Shared {
        Shared {
            ready: Mutex::new(Ready::default()),
            wake: Condvar::new(),
            pending: AtomicUsize::new(0),
            serial: AtomicUsize::new(0),
            errors: Mutex::new(Vec::new()),
            bell: wait::Bell::default(),
        }
    }
}

/// -1: not asked yet; else whether the naive twin is chosen.
static NAIVE: AtomicI8 = AtomicI8::new(-1);

/// Whether every operation runs at once on the calling thread.
#[inline]
pub fn is_naive() -> bool {
    match NAIVE.load(Relaxed) {
        -1 => {
            let naive = std::env::var("MXNET_ENGINE_TYPE").is_ok_and(|v| v == "NaiveEngine");
            NAIVE.store(naive as i8, Relaxed);
            naive
        }
        v => v == 1,
    }
}

/// Chooses the naive twin, or the threaded engine, from now on. Waits for what is queued.
pub fn set_naive(naive: bool) {
    wait::drain();
    NAIVE.store(naive as i8, Relaxed);
}

/// Operations issued and not finished.
pub fn pending() -> usize {
    shared().pending.load(Acquire)
}

/// Runs an operation that reads `reads` and writes `writes`.
///
/// `small` says that it takes less time than handing it to a worker would. If it is small (or the engine naive) and
/// every chunk is idle, `now` runs on this thread before the call returns, and its error is this call's error.
/// Otherwise `later` makes the operation to be queued, and an error is parked on `writes`.
pub fn run(
    reads: &[&ChunkRef],
    writes: &[&ChunkRef],
    small: bool,
    priority: i32,
    now: impl FnOnce() -> Result<()>,
    later: impl FnOnce() -> Body,
) -> Result<()> {
    held::settle(reads.iter().chain(writes).copied());
    for chunk in writes {
        chunk.bump();
    }
    if issue(reads, writes, small, priority, now, later)? && shared().pending.load(Relaxed) > RUN_AHEAD {
        // The program is far ahead of the workers: what it issued holds memory, so it lends them a hand.
        help();
    }
    Ok(())
}

/// Like [`run`], for what was held back: its writes were counted when it was called, and nothing is issued before it. Whether it
/// was queued.
pub fn issue(
    reads: &[&ChunkRef],
    writes: &[&ChunkRef],
    small: bool,
    priority: i32,
    now: impl FnOnce() -> Result<()>,
    later: impl FnOnce() -> Body,
) -> Result<bool> {
    if small || is_naive() {
        if let Some(held) = Held::acquire(reads, writes)? {
            let result = now();
            drop(held);
            return result.map(|()| false);
        }
        if is_naive() {
            // Another thread is in the middle of a small operation on one of these chunks, or a queue is draining.
            loop {
                wait::drain();
                std::thread::yield_now();
                if let Some(held) = Held::acquire(reads, writes)? {
                    let result = now();
                    drop(held);
                    return result.map(|()| false);
                }
            }
        }
    }
    push(reads, writes, priority, later());
    Ok(true)
}

/// The locks of idle chunks, held while a small operation runs.
struct Held<'a>(#[allow(dead_code)] SmallVec<[MutexGuard<'a, State>; 6]>);

impl<'a> Held<'a> {
    /// Locks every chunk if all are idle; `None` where one is busy. Errors parked on what is read come out here.
    #[inline]
    fn acquire(reads: &[&'a ChunkRef], writes: &[&'a ChunkRef]) -> Result<Option<Held<'a>>> {
        let mut guards: SmallVec<[MutexGuard<'a, State>; 6]> = SmallVec::new();
        // A chunk that stands twice is locked already. That is asked only where the lock is taken: there can be hundreds.
        let among = |chunk: &ChunkRef, list: &[&ChunkRef]| list.iter().any(|c| Arc::ptr_eq(c, chunk));
        for (i, chunk) in writes.iter().enumerate() {
            match chunk.state.try_lock() {
                Some(mut state) if state.idle() => {
                    // What was parked here is overwritten, unless this operation also reads it.
                    if state.error.is_some() && !among(chunk, reads) {
                        state.error = None;
                    }
                    if let Some(parked) = &state.error {
                        return Err(parked.surface());
                    }
                    guards.push(state);
                }
                None if among(chunk, &writes[..i]) => {}
                _ => return Ok(None),
            }
        }
        for (i, chunk) in reads.iter().enumerate() {
            match chunk.state.try_lock() {
                Some(state) if state.readable() => {
                    if let Some(parked) = &state.error {
                        return Err(parked.surface());
                    }
                    guards.push(state);
                }
                None if among(chunk, writes) || among(chunk, &reads[..i]) => {}
                _ => return Ok(None),
            }
        }
        Ok(Some(Held(guards)))
    }
}

fn unique(chunks: &[&ChunkRef], except: &[ChunkRef]) -> Chunks {
    let mut out = Chunks::new();
    for chunk in chunks {
        if !out.iter().chain(except).any(|c| Arc::ptr_eq(c, chunk)) {
            out.push(Arc::clone(chunk));
        }
    }
    out
}

fn push(reads: &[&ChunkRef], writes: &[&ChunkRef], priority: i32, body: Body) {
    let shared = shared();
    let sources = unique(reads, &[]);
    let writes = unique(writes, &[]);
    let reads = unique(reads, &writes);
    shared.pending.fetch_add(1, AcqRel);
    let task = Arc::new(Task {
        missing: AtomicUsize::new(1 + reads.len() + writes.len()),
        reads,
        writes,
        sources,
        body: Mutex::new(Some(body)),
        priority,
        serial: shared.serial.fetch_add(1, Relaxed),
    });
    let mut granted = 1;
    for chunk in &task.reads {
        let mut state = chunk.state.lock();
        if state.readable() {
            state.readers += 1;
            granted += 1;
        } else {
            state.queue.push_back(Waiter { task: task.clone(), write: false });
        }
    }
    for chunk in &task.writes {
        let mut state = chunk.state.lock();
        if state.idle() {
            state.writer = true;
            granted += 1;
        } else {
            state.queue.push_back(Waiter { task: task.clone(), write: true });
        }
    }
    if task.missing.fetch_sub(granted, AcqRel) == granted {
        make_ready(task);
    }
}

/// Leaves an error on the chunks that an operation would have written, once what uses them is done.
pub fn park(writes: &[&ChunkRef], error: Error) {
    push(&[], writes, 0, Box::new(|| Err(error)));
}

/// Operations that may be pending before the issuing thread helps out. Enough to hide every pause of the program.
const RUN_AHEAD: usize = 128;

fn make_ready(task: Arc<Task>) {
    let shared = shared();
    let mut ready = shared.ready.lock();
    ready.tasks.push(task);
    if ready.workers < worker_count() {
        ready.workers += 1;
        let name = format!("mxrs-worker-{}", ready.workers);
        drop(ready);
        if std::thread::Builder::new().name(name).spawn(work).is_err() {
            // No thread to be had: waiting threads run what is ready themselves, so nothing is lost.
            shared.ready.lock().workers -= 1;
        }
    } else {
        let sleeping = ready.sleeping > 0;
        // Before the bell: a waiting thread holds the bell's lock while it asks for this one.
        drop(ready);
        if sleeping {
            shared.wake.notify_one();
        }
    }
    wait::notify();
}

/// How often an idle worker looks before it sleeps. Few: on a small machine it takes the place of a lane.
const SPINS: usize = 20;

/// One for two lanes: an operation spreads over the lanes by itself, and waiting threads run what is ready as well, so that more
/// workers would only take processors from each other.
fn worker_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let asked = std::env::var("MXNET_CPU_WORKER_NTHREADS").ok().and_then(|v| v.parse::<usize>().ok());
        asked.filter(|n| *n > 0).unwrap_or_else(|| (mxrs_lanes::count() / 2).clamp(1, 8))
    })
}

/// A worker's life: take what is ready, lend a hand to what others compute, look again for some ten microseconds, then sleep.
fn work() {
    let shared = shared();
    loop {
        let mut spins = 0;
        let task = loop {
            let mut ready = shared.ready.lock();
            if let Some(task) = ready.tasks.pop() {
                break task;
            }
            if spins < SPINS {
                drop(ready);
                if mxrs_lanes::help() {
                    spins = 0;
                    continue;
                }
                spins += 1;
                for _ in 0..64 {
                    std::hint::spin_loop();
                }
            } else {
                ready.sleeping += 1;
                shared.wake.wait(&mut ready);
                ready.sleeping -= 1;
                spins = 0;
            }
        };
        execute(task);
    }
}

/// Runs one ready operation on the calling thread, if there is one.
pub(super) fn help() -> bool {
    let task = shared().ready.lock().tasks.pop();
    match task {
        Some(task) => {
            execute(task);
            true
        }
        None => false,
    }
}

/// Whether some operation is ready and not taken.
pub(super) fn has_ready() -> bool {
    !shared().ready.lock().tasks.is_empty()
}

fn execute(task: Arc<Task>) {
    // What it reads is not there: its results share the error of what they come from.
    let inherited = task.sources.iter().find_map(|c| c.state.lock().error.clone());
    let body = task.body.lock().take();
    let error = match (inherited, body) {
        (Some(parked), _) => Some(parked),
        (None, Some(body)) => match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(remember(error)),
            Err(panic) => Some(remember(panic_error(panic))),
        },
        (None, None) => None,
    };
    finish(&task, error);
}

fn remember(error: Error) -> Parked {
    let parked = Parked::new(error);
    shared().errors.lock().push(parked.clone());
    parked
}

/// What a panic becomes: the error that was thrown, or one that asks for a report.
pub fn panic_error(panic: Box<dyn std::any::Any + Send>) -> Error {
    if let Some(error) = panic.downcast_ref::<Error>() {
        return error.clone();
    }
    let text = panic
        .downcast_ref::<&str>()
        .map(|s| s.to_string())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_string());
    Error::op(format!("internal error in mxrs (please report it): {text}"))
}

fn finish(task: &Arc<Task>, error: Option<Parked>) {
    let mut granted: SmallVec<[Arc<Task>; 4]> = SmallVec::new();
    for chunk in &task.reads {
        let mut state = chunk.state.lock();
        state.readers -= 1;
        grant(&mut state, &mut granted);
    }
    for chunk in &task.writes {
        let mut state = chunk.state.lock();
        state.writer = false;
        state.error = error.clone();
        grant(&mut state, &mut granted);
    }
    for task in granted {
        if task.missing.fetch_sub(1, AcqRel) == 1 {
            make_ready(task);
        }
    }
    shared().pending.fetch_sub(1, AcqRel);
    wait::notify();
}

/// Hands the chunk to the front of its queue: one writer, or every reader up to the next writer.
fn grant(state: &mut State, granted: &mut SmallVec<[Arc<Task>; 4]>) {
    while let Some(front) = state.queue.front() {
        let free = if front.write { !state.writer && state.readers == 0 } else { !state.writer };
        if !free {
            return;
        }
        let Some(waiter) = state.queue.pop_front() else { return };
        if waiter.write {
            state.writer = true;
        } else {
            state.readers += 1;
        }
        granted.push(waiter.task);
    }
}

/// Before a fork: everything queued finishes.
pub fn before_fork() {
    wait::drain();
}

/// After a fork, in the child: the workers are gone, and locks may be in the hands of threads that do not exist here, so the child
/// begins with queues of its own; the next operation starts new workers.
pub fn after_fork_in_child() {
    held::forget();
    if !SHARED.load(Acquire).is_null() {
        SHARED.store(Box::into_raw(Box::new(Shared::new())), Release);
    }
}

/// For tests: whether a chunk is idle.
#[cfg(test)]
pub(super) fn is_idle(chunk: &super::Chunk) -> bool {
    chunk.state.lock().idle()
}
