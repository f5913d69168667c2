//! What ran when, for the profiler: recorded only while it is switched on.

use parking_lot::Mutex;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::time::Instant;

/// One piece of work.
pub struct Event {
    pub name: String,
    /// `imperative` for a call, `symbolic` for a step of a plan.
    pub category: &'static str,
    /// A small number per thread.
    pub thread: u64,
    /// Microseconds since the recording began.
    pub begin: f64,
    pub end: f64,
    /// Bytes of the outputs.
    pub bytes: usize,
}

static ON: AtomicBool = AtomicBool::new(false);
static EVENTS: Mutex<(Option<Instant>, Vec<Event>)> = Mutex::new((None, Vec::new()));

/// Starts recording, with the clock at 0.
pub fn start() {
    *EVENTS.lock() = (Some(Instant::now()), Vec::new());
    ON.store(true, Release);
}

/// Stops recording; what was recorded can still be taken.
pub fn stop() {
    ON.store(false, Release);
}

/// What was recorded since the last time, in the order in which it ended.
pub fn take() -> Vec<Event> {
    std::mem::take(&mut EVENTS.lock().1)
}

/// A moment in microseconds since the recording began; `None` where nothing was recorded yet.
pub fn moment(at: Instant) -> Option<f64> {
    let zero = EVENTS.lock().0?;
    Some(match at.checked_duration_since(zero) {
        Some(since) => since.as_secs_f64() * 1e6,
        None => -zero.duration_since(at).as_secs_f64() * 1e6,
    })
}

fn thread() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    thread_local!(static NUMBER: Cell<u64> = const { Cell::new(0) });
    NUMBER.with(|n| {
        if n.get() == 0 {
            n.set(COUNT.fetch_add(1, Relaxed));
        }
        n.get()
    })
}

/// Runs `work`, and notes it if recording is on.
#[inline]
pub fn span<T>(
    category: &'static str,
    what: impl FnOnce() -> (String, usize),
    work: impl FnOnce() -> T,
) -> T {
    if !ON.load(Relaxed) {
        return work();
    }
    let began = Instant::now();
    let result = work();
    let ended = Instant::now();
    let (name, bytes) = what();
    let mut events = EVENTS.lock();
    if let Some(zero) = events.0 {
        let since = |t: Instant| t.saturating_duration_since(zero).as_secs_f64() * 1e6;
        let event = Event { name, category, thread: thread(), begin: since(began), end: since(ended), bytes };
        events.1.push(event);
    }
    result
}
