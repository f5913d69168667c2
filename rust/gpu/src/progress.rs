//! How far a device has come: which commands were submitted, which are through.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*};

/// A submission under way.
struct Entry {
    /// Its last command.
    last: u64,
    /// The last command that is through with it: later ones that had nothing to run count in.
    covered: u64,
    index: wgpu::SubmissionIndex,
}

#[derive(Default)]
struct State {
    /// Commands up to this number were handed to the device, or failed on the way.
    submitted: u64,
    under_way: VecDeque<Entry>,
    /// Nothing more will be submitted.
    ended: bool,
}

#[derive(Default)]
pub(crate) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
    done: AtomicU64,
}

impl Progress {
    /// Whether the command numbered `seq` is through.
    pub fn is_done(&self, seq: u64) -> bool {
        self.done.load(Acquire) >= seq
    }

    pub fn submitted(&self, seq: u64) -> bool {
        let state = self.state.lock();
        state.submitted >= seq || state.ended
    }

    /// Books a submission whose last command is `seq`; without an index there was nothing to run.
    pub fn submit(&self, seq: u64, index: Option<wgpu::SubmissionIndex>) {
        let mut state = self.state.lock();
        state.submitted = seq;
        match (index, state.under_way.back_mut()) {
            (Some(index), _) => state.under_way.push_back(Entry { last: seq, covered: seq, index }),
            (None, Some(entry)) => entry.covered = seq,
            (None, None) => {
                self.done.fetch_max(seq, AcqRel);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Submissions whose last command is `seq` or before are through.
    pub fn complete(&self, seq: u64) {
        let mut state = self.state.lock();
        while let Some(entry) = state.under_way.pop_front_if(|e| e.last <= seq) {
            self.done.fetch_max(entry.covered, AcqRel);
        }
    }

    /// Nothing more will be submitted: wakes everybody.
    pub fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits until command `seq` was submitted; the last command and the index of the submission to wait for, or `None` where it is through (or the
    /// worker has ended).
    pub fn submission_of(&self, seq: u64) -> Option<(u64, wgpu::SubmissionIndex)> {
        let mut state = self.state.lock();
        while state.submitted < seq && !state.ended {
            self.changed.wait(&mut state);
        }
        state.under_way.iter().find(|e| e.covered >= seq).map(|e| (e.last, e.index.clone()))
    }

    /// The oldest submission under way, where more than `n` are.
    pub fn oldest_beyond(&self, n: usize) -> Option<(u64, wgpu::SubmissionIndex)> {
        let state = self.state.lock();
        let oldest = state.under_way.front().filter(|_| state.under_way.len() > n);
        oldest.map(|e| (e.last, e.index.clone()))
    }

    pub fn is_idle(&self) -> bool {
        self.state.lock().under_way.is_empty()
    }

    /// A callback for the queue: the submission whose last command is `seq` is through.
    pub fn completion(self: &Arc<Progress>, seq: u64) -> impl FnOnce() + Send + 'static {
        let progress = self.clone();
        move || progress.complete(seq)
    }
}
