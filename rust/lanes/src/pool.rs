//! The threads behind the lanes: a list of open jobs, lanes that spin on its version and then sleep.
//!
//! Only the standard library's locks are used: they keep no state outside themselves, so a pool forgotten in a
//! forked child (where its threads do not exist) cannot block the child's new one.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long a lane without work, or a caller whose last chunks run elsewhere, spins before it sleeps.
const SPIN: Duration = Duration::from_micros(40);

/// Spins between two looks at the clock.
const SPINS_PER_LOOK: u32 = 32;

thread_local! {
    /// Whether this thread is running a chunk: calls made from there run sequentially.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

#[inline]
pub fn inside() -> bool {
    INSIDE.get()
}

/// One fork-join. Lanes may hold it after the call has returned; they then find no chunk and leave the body alone.
struct Job {
    /// Calls the body at `body` with a chunk's index.
    call: unsafe fn(*const (), usize),
    body: *const (),
    chunks: usize,
    /// The next chunk nobody has claimed; beyond `chunks` when none is left.
    next: AtomicUsize,
    unfinished: AtomicUsize,
    /// Lanes beside the caller that may still join.
    seats: AtomicUsize,
    panicked: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    caller: Thread,
}

// SAFETY: `body` points to a closure that is Sync; it is called only between a successful claim and the decrement of
// `unfinished`, and the caller that owns the closure stays in `fork_join` until `unfinished` is 0.
unsafe impl Send for Job {}
// SAFETY: as above; every other field is Sync by itself.
unsafe impl Sync for Job {}

impl Job {
    fn exhausted(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.chunks
    }

    /// Claims and runs chunks until none is left.
    fn work(&self) {
        let _inside = EnterBody::new();
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= self.chunks {
                return;
            }
            // After a panic the rest of the range is only counted off: its results would be thrown away.
            if !self.panicked.load(Ordering::Relaxed) {
                // SAFETY: chunk `i` is claimed and unfinished, so the caller keeps the body alive (see the impl above).
                let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { (self.call)(self.body, i) }));
                if let Err(payload) = outcome {
                    self.panicked.store(true, Ordering::Relaxed);
                    lock(&self.panic).get_or_insert(payload);
                }
            }
            if self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.caller.unpark();
            }
        }
    }

    fn wait(&self) {
        let done = || self.unfinished.load(Ordering::Acquire) == 0;
        if !spin_until(done) {
            while !done() {
                std::thread::park();
            }
        }
    }
}

/// Marks the thread as inside a body, and restores what was before.
struct EnterBody(bool);

impl EnterBody {
    fn new() -> EnterBody {
        EnterBody(INSIDE.replace(true))
    }
}

impl Drop for EnterBody {
    fn drop(&mut self) {
        INSIDE.set(self.0);
    }
}

struct Pool {
    state: Mutex<State>,
    wake: Condvar,
    /// Grows with every job and every change of the number of lanes; idle lanes spin on it.
    version: AtomicUsize,
    /// Jobs in the list, for those who look in passing.
    open: AtomicUsize,
}

struct State {
    jobs: Vec<Arc<Job>>,
    /// Threads started and not ended, numbered 1 to this.
    threads: usize,
    sleeping: usize,
}

/// The pool of this process; null until first used, and again in a forked child.
static POOL: AtomicPtr<Pool> = AtomicPtr::new(std::ptr::null_mut());

/// Pools are never freed: lanes hold references to theirs, and a forked child forgets its parent's.
fn pool() -> &'static Pool {
    let current = POOL.load(Ordering::Acquire);
    // SAFETY: a non-null POOL comes from Box::into_raw below and is never freed.
    if let Some(pool) = unsafe { current.as_ref() } { pool } else { create_pool() }
}

#[cold]
fn create_pool() -> &'static Pool {
    forget_pool_after_fork();
    let state = State { jobs: Vec::new(), threads: 0, sleeping: 0 };
    let made = Box::into_raw(Box::new(Pool {
        state: Mutex::new(state),
        wake: Condvar::new(),
        version: AtomicUsize::new(0),
        open: AtomicUsize::new(0),
    }));
    let null = std::ptr::null_mut();
    let winner = match POOL.compare_exchange(null, made, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => made,
        Err(other) => {
            // SAFETY: `made` lost the race and nobody else has seen it.
            drop(unsafe { Box::from_raw(made) });
            other
        }
    };
    // SAFETY: `winner` is what POOL holds, which is never freed.
    unsafe { &*winner }
}

/// Arranges that a forked child starts without a pool: the parent's threads do not exist there, and its locks may be held.
fn forget_pool_after_fork() {
    #[cfg(unix)]
    {
        extern "C" fn in_child() {
            POOL.store(std::ptr::null_mut(), Ordering::Release);
        }
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            // SAFETY: the handler only stores to an atomic, which is allowed between fork and exec.
            unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        });
    }
}

/// Tells idle lanes that the wanted number changed; those in excess end.
pub fn count_changed() {
    // SAFETY: a non-null POOL is never freed.
    if let Some(pool) = unsafe { POOL.load(Ordering::Acquire).as_ref() } {
        let state = lock(&pool.state);
        pool.version.fetch_add(1, Ordering::Release);
        drop(state);
        pool.wake.notify_all();
    }
}

/// Joins an open job, if there is one with a seat free.
pub fn help() -> bool {
    // SAFETY: a non-null POOL is never freed.
    let Some(pool) = (unsafe { POOL.load(Ordering::Acquire).as_ref() }) else { return false };
    if pool.open.load(Ordering::Relaxed) == 0 || inside() {
        return false;
    }
    match pool.join_job(1) {
        Some(job) => {
            job.work();
            true
        }
        None => false,
    }
}

/// Runs `body` for every chunk index in `0..chunks` on the caller and up to `lanes - 1` others.
pub fn fork_join<F: Fn(usize) + Sync>(chunks: usize, lanes: usize, body: &F) {
    /// # Safety
    /// `body` points to a live `F`.
    unsafe fn call<F: Fn(usize)>(body: *const (), i: usize) {
        // SAFETY: by this function's contract.
        unsafe { (*body.cast::<F>())(i) }
    }
    let job = Arc::new(Job {
        call: call::<F>,
        body: std::ptr::from_ref(body).cast(),
        chunks,
        next: AtomicUsize::new(0),
        unfinished: AtomicUsize::new(chunks),
        seats: AtomicUsize::new((lanes - 1).min(chunks.saturating_sub(1))),
        panicked: AtomicBool::new(false),
        panic: Mutex::new(None),
        caller: std::thread::current(),
    });
    let pool = pool();
    pool.publish(&job, lanes);
    job.work();
    pool.retract(&job);
    job.wait();
    if let Some(payload) = lock(&job.panic).take() {
        resume_unwind(payload);
    }
}

impl Pool {
    fn publish(&'static self, job: &Arc<Job>, lanes: usize) {
        let wanted = job.seats.load(Ordering::Relaxed);
        let mut state = lock(&self.state);
        while state.threads < lanes - 1 {
            let index = state.threads + 1;
            let lane = move || self.lane(index);
            if std::thread::Builder::new().name(format!("mxrs-lane-{index}")).spawn(lane).is_err() {
                // The system gives no more threads: those that exist, at least the caller, do the work.
                break;
            }
            state.threads += 1;
        }
        state.jobs.push(job.clone());
        self.open.store(state.jobs.len(), Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
        let sleeping = state.sleeping;
        let in_excess = state.threads > lanes - 1;
        drop(state);
        if sleeping == 0 {
            return;
        }
        // A lane about to end could swallow a single wake-up.
        if in_excess || wanted >= sleeping {
            self.wake.notify_all();
        } else {
            (0..wanted).for_each(|_| self.wake.notify_one());
        }
    }

    fn retract(&self, job: &Arc<Job>) {
        let mut state = lock(&self.state);
        if let Some(at) = state.jobs.iter().position(|j| Arc::ptr_eq(j, job)) {
            state.jobs.swap_remove(at);
            self.open.store(state.jobs.len(), Ordering::Relaxed);
        }
    }

    /// The life of lane `index`.
    fn lane(&'static self, index: usize) {
        loop {
            let seen = self.version.load(Ordering::Acquire);
            if let Some(job) = self.join_job(index) {
                job.work();
                continue;
            }
            let news = || self.version.load(Ordering::Acquire) != seen;
            if spin_until(news) {
                continue;
            }
            let mut state = lock(&self.state);
            while !news() {
                state.sleeping += 1;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.sleeping -= 1;
            }
            // The highest lane in excess ends, and lets the next one look.
            if index >= crate::count() && index == state.threads {
                state.threads -= 1;
                self.version.fetch_add(1, Ordering::Release);
                drop(state);
                self.wake.notify_all();
                return;
            }
        }
    }

    /// A job with chunks left and a seat free; the seat is taken.
    fn join_job(&self, index: usize) -> Option<Arc<Job>> {
        if index >= crate::count() {
            return None;
        }
        let state = lock(&self.state);
        let free = |job: &&Arc<Job>| !job.exhausted() && job.seats.load(Ordering::Relaxed) > 0;
        let job = state.jobs.iter().find(free)?;
        // The list's lock orders this with every other change of `seats`.
        job.seats.fetch_sub(1, Ordering::Relaxed);
        Some(job.clone())
    }
}

/// Spins until `ready` or until [`SPIN`] has passed; whether it became ready.
fn spin_until(ready: impl Fn() -> bool) -> bool {
    let mut start = None;
    loop {
        for _ in 0..SPINS_PER_LOOK {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.get_or_insert_with(Instant::now).elapsed() > SPIN {
            return ready();
        }
    }
}

/// Locks; what the lock guards is consistent even if a holder panicked, since nothing here panics half way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
