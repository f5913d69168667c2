//! The random streams: one per context, each a seed and how much of it is used up.

use crate::device::Context;
use crate::ops::RngPos;
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::OnceLock;

thread_local! {
    /// Positions that calls on this thread take again instead of new ones.
    static AGAIN: RefCell<VecDeque<RngPos>> = const { RefCell::new(VecDeque::new()) };
}

/// While it lives, calls on this thread draw at the given positions, one after another.
pub struct DrawAgain(());

impl DrawAgain {
    pub fn at(positions: impl IntoIterator<Item = RngPos>) -> DrawAgain {
        AGAIN.with_borrow_mut(|a| *a = positions.into_iter().collect());
        DrawAgain(())
    }
}

impl Drop for DrawAgain {
    fn drop(&mut self) {
        AGAIN.with_borrow_mut(VecDeque::clear);
    }
}

#[derive(Default)]
struct Streams {
    /// The seed of contexts that have none of their own.
    seed: u64,
    of: HashMap<Context, RngPos>,
}

fn streams() -> &'static Mutex<Streams> {
    static STREAMS: OnceLock<Mutex<Streams>> = OnceLock::new();
    STREAMS.get_or_init(Mutex::default)
}

/// Starts every stream anew, or that of one context.
pub fn seed(seed: u64, context: Option<Context>) {
    let mut streams = streams().lock();
    match context {
        Some(context) => {
            streams.of.insert(context, RngPos { seed, offset: 0 });
        }
        None => {
            streams.seed = seed;
            streams.of.clear();
        }
    }
}

/// Takes `count` positions of the context's stream, in program order.
pub fn next(context: Context, count: u64) -> RngPos {
    if let Some(position) = AGAIN.with_borrow_mut(VecDeque::pop_front) {
        return position;
    }
    let mut streams = streams().lock();
    // Contexts started by one seed draw different numbers, as devices do in MXNet.
    let start = streams.seed.wrapping_add((context.id as u64) << 32 ^ (context.kind as u64 - 1) << 48);
    let position = streams.of.entry(context).or_insert(RngPos { seed: start, offset: 0 });
    let taken = *position;
    position.offset = position.offset.wrapping_add(count.max(1));
    taken
}
