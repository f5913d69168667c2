//! Waiting: for one chunk, or for everything. A waiting thread runs what is ready instead of sleeping.

use super::chunk::ChunkRef;
use super::held;
use super::queue::{has_ready, help, pending, shared};
use mxrs_base::Result;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::time::{Duration, Instant};

/// How a wait with a time limit ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waited {
    Done,
    /// The time is over and the wait is not; look for signals and wait again.
    NotYet,
}

#[derive(Default)]
pub(super) struct Bell {
    lock: Mutex<()>,
    rung: Condvar,
    waiting: AtomicUsize,
}

fn bell() -> &'static Bell {
    &shared().bell
}

/// Something finished or became ready: waiting threads look again.
pub(super) fn notify() {
    let bell = bell();
    if bell.waiting.load(SeqCst) > 0 {
        let _guard = bell.lock.lock();
        bell.rung.notify_all();
    }
}

/// Helps and sleeps until `done`, at most until `deadline`.
fn wait_until(deadline: Option<Instant>, done: impl Fn() -> bool) -> Waited {
    let bell = bell();
    let mut spins = 0;
    loop {
        if done() {
            return Waited::Done;
        }
        if mxrs_lanes::help() || help() {
            spins = 0;
        } else if spins < 100 {
            spins += 1;
            for _ in 0..32 {
                std::hint::spin_loop();
            }
        } else {
            bell.waiting.fetch_add(1, SeqCst);
            let mut guard = bell.lock.lock();
            if !done() && !has_ready() {
                // Bounded, so that a bell rung between the check and here costs little.
                bell.rung.wait_for(&mut guard, Duration::from_millis(2));
            }
            drop(guard);
            bell.waiting.fetch_sub(1, SeqCst);
        }
        if deadline.is_some_and(|d| Instant::now() >= d) {
            return if done() { Waited::Done } else { Waited::NotYet };
        }
    }
}

/// Waits until every write issued so far to `chunk` is done; the error of the last one is the result's.
pub fn wait_read(chunk: &ChunkRef, limit: Option<Duration>) -> Result<Waited> {
    held::settle(std::iter::once(chunk));
    // Readers ahead of no writer do not matter; a waiting writer does, and so do readers queued behind it.
    let ready = || {
        let state = chunk.state.lock();
        state.readable()
    };
    if !ready() {
        let deadline = limit.map(|l| Instant::now() + l);
        if wait_until(deadline, ready) == Waited::NotYet {
            return Ok(Waited::NotYet);
        }
    }
    match &chunk.state.lock().error {
        Some(parked) => Err(parked.surface()),
        None => Ok(Waited::Done),
    }
}

/// Waits until nobody reads or writes `chunk`.
pub fn wait_write(chunk: &ChunkRef, limit: Option<Duration>) -> Result<Waited> {
    held::settle(std::iter::once(chunk));
    let deadline = limit.map(|l| Instant::now() + l);
    if wait_until(deadline, || chunk.state.lock().idle()) == Waited::NotYet {
        return Ok(Waited::NotYet);
    }
    match &chunk.state.lock().error {
        Some(parked) => Err(parked.surface()),
        None => Ok(Waited::Done),
    }
}

/// Waits until nothing is pending. An error that nobody has seen yet is the result's; each is reported once.
pub fn wait_all(limit: Option<Duration>) -> Result<Waited> {
    held::settle_all();
    let deadline = limit.map(|l| Instant::now() + l);
    if wait_until(deadline, || pending() == 0) == Waited::NotYet {
        return Ok(Waited::NotYet);
    }
    let errors = std::mem::take(&mut *shared().errors.lock());
    match errors.iter().find(|e| !e.seen.load(Relaxed)) {
        Some(parked) => Err(parked.surface()),
        None => crate::device::wait_gpus().map(|()| Waited::Done),
    }
}

/// Waits until nothing is pending and leaves errors where they are.
pub(super) fn drain() {
    held::settle_all();
    wait_until(None, || pending() == 0);
}
