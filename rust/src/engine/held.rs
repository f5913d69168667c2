//! Operations that were called and are not issued yet: somebody above holds them back to issue several as one.
//!
//! The engine knows how many there are, and has them issued before anything else touches memory of their device: a call, a wait, a
//! fork. So whoever holds back has to order its own operations only.

use super::chunk::ChunkRef;
use crate::device::Context;
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::*};

/// Issues what is held back on a device, or everywhere.
pub type Issue = fn(Option<Context>);

static ISSUE: OnceLock<Issue> = OnceLock::new();
static COUNT: AtomicUsize = AtomicUsize::new(0);
thread_local!(static ISSUING: Cell<bool> = const { Cell::new(false) });

/// One more operation is held back; `issue` has it issued.
pub fn add(issue: Issue) {
    ISSUE.get_or_init(|| issue);
    COUNT.fetch_add(1, Release);
}

/// So many operations are issued when this is dropped. Not before: until then other threads wait for them.
pub struct Issued(pub usize);

impl Drop for Issued {
    fn drop(&mut self) {
        COUNT.fetch_sub(self.0, Release);
    }
}

/// In the child of a fork nothing is held back: what was stays the parent's.
pub(super) fn forget() {
    COUNT.store(0, Release);
}

/// Whether any operation is held back.
#[inline]
pub(super) fn any() -> bool {
    COUNT.load(Acquire) != 0
}

/// Before `chunks` are touched.
#[inline]
pub(super) fn settle<'a>(chunks: impl Iterator<Item = &'a ChunkRef>) {
    if any() {
        let mut last = None;
        for context in chunks.map(|c| c.context()).filter(|c| !c.is_host()) {
            if last.replace(context) != Some(context) {
                issue(Some(context));
            }
        }
    }
}

/// Before everything is waited for.
pub fn settle_all() {
    if any() {
        issue(None);
    }
}

#[cold]
fn issue(context: Option<Context>) {
    if let (Some(issue), false) = (ISSUE.get(), ISSUING.get()) {
        issuing(|| issue(context));
    }
}

/// Runs what issues held-back operations: on this thread nothing is settled meanwhile.
pub fn issuing(work: impl FnOnce()) {
    struct Outer(bool);
    impl Drop for Outer {
        fn drop(&mut self) {
            ISSUING.set(self.0);
        }
    }
    let _outer = Outer(ISSUING.replace(true));
    work();
}
