//! What callers ask of a device's worker, and the mailbox it reaches it through.

use crate::pipeline::Compiled;
use crate::pool::Chunk;
use crate::readback::Landing;
use crate::staging::Page;
use parking_lot::{Condvar, Mutex};
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct Dispatch {
    pub compiled: Arc<Compiled>,
    pub chunks: SmallVec<[Arc<Chunk>; 6]>,
    pub params: Vec<u8>,
    pub groups: [u32; 3],
    pub label: &'static str,
}

// The largest variant is the one that matters: boxing it would cost an allocation per dispatch.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Command {
    Dispatch(Dispatch),
    Upload {
        page: Arc<Page>,
        from: u64,
        chunk: Arc<Chunk>,
        to: u64,
        bytes: u64,
        label: &'static str,
    },
    Copy {
        source: Arc<Chunk>,
        from: u64,
        target: Arc<Chunk>,
        to: u64,
        bytes: u64,
        label: &'static str,
    },
    Clear {
        chunk: Arc<Chunk>,
        from: u64,
        bytes: u64,
        label: &'static str,
    },
    Read {
        chunk: Arc<Chunk>,
        from: u64,
        bytes: u64,
        landing: Arc<Landing>,
        label: &'static str,
    },
    /// Hand over to the device what was encoded so far.
    Flush,
    /// Let go of these chunks: the pool no longer has them.
    Forget(Vec<Arc<Chunk>>),
    /// Time every dispatch from here on, or stop doing so.
    Profile(bool),
    Stop,
}

impl Command {
    /// Whether somebody is about to wait for it.
    fn is_urgent(&self) -> bool {
        matches!(self, Command::Flush | Command::Forget(_) | Command::Stop)
    }
}

/// Commands that pile up before writers are held back.
const ROOM: usize = 16384;
/// A dozing worker is woken by this many commands, not by each: waking costs more than queueing.
const WORTH_WAKING: usize = 64;

/// How the worker waits for commands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sleep {
    Awake,
    /// For a little while, with work of its own to do afterwards.
    Doze,
    Deep,
}

struct State {
    commands: Vec<Command>,
    /// The number of the last command.
    last: u64,
    sleep: Sleep,
    closed: bool,
}

pub(crate) struct Mailbox {
    state: Mutex<State>,
    work: Condvar,
    room: Condvar,
}

impl Mailbox {
    pub fn new() -> Mailbox {
        let state = State { commands: Vec::with_capacity(256), last: 0, sleep: Sleep::Deep, closed: false };
        Mailbox { state: Mutex::new(state), work: Condvar::new(), room: Condvar::new() }
    }

    /// Queues a command; its number, or `None` where the worker has ended.
    pub fn push(&self, command: Command) -> Option<u64> {
        let mut state = self.state.lock();
        while state.commands.len() >= ROOM && !state.closed {
            self.room.wait(&mut state);
        }
        if state.closed {
            return None;
        }
        let wake = match state.sleep {
            Sleep::Awake => false,
            Sleep::Doze => command.is_urgent() || state.commands.len() + 1 >= WORTH_WAKING,
            Sleep::Deep => true,
        };
        state.commands.push(command);
        state.last += 1;
        let seq = state.last;
        if wake {
            state.sleep = Sleep::Awake;
            drop(state);
            self.work.notify_one();
        }
        Some(seq)
    }

    /// The number of the last command.
    pub fn last(&self) -> u64 {
        self.state.lock().last
    }

    /// Swaps the queued commands into `commands`, which is empty; waits for one, or for `doze` at most. Returns the
    /// number of the last one.
    pub fn take(&self, commands: &mut Vec<Command>, doze: Option<Duration>) -> u64 {
        let mut state = self.state.lock();
        if state.commands.is_empty() {
            match doze {
                Some(time) => {
                    state.sleep = Sleep::Doze;
                    self.work.wait_for(&mut state, time);
                }
                None => {
                    state.sleep = Sleep::Deep;
                    while state.commands.is_empty() {
                        self.work.wait(&mut state);
                    }
                }
            }
            state.sleep = Sleep::Awake;
        }
        let full = state.commands.len() >= ROOM;
        std::mem::swap(&mut state.commands, commands);
        let last = state.last;
        drop(state);
        if full {
            self.room.notify_all();
        }
        last
    }

    /// Refuses commands from here on.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.commands.clear();
        drop(state);
        self.room.notify_all();
    }
}
