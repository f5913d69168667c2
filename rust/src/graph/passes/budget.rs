//! The search for a plan within a memory budget: which nodes' results are kept and which are computed again.
//!
//! After Chen et al., "Training deep nets with sublinear memory cost" (2016): the forward phase is cut into segments, what
//! crosses a cut is kept, and the backward phase makes a segment's other results again from there. Here the cuts
//! are where little crosses, only nodes up to some cost per byte are made again, and both bounds are tried out on the
//! light picture of `flow.rs`. Then single nodes are tried: more of them until the budget is kept, then fewer, the
//! dearest first, as long as it is. No clock and no chance decides, so one graph has one plan.

use super::flow::{Flow, Score};
use crate::graph::program::Program;
use std::cell::Cell;

/// Nanoseconds per byte of a result up to which making it again is cheap: a few passes over memory.
pub const CHEAP: f64 = 2.5;
/// Bounds on the cost per byte that are tried.
const LEVELS: usize = 8;
/// Bounds on the size of a segment that are tried for each, by default.
const SEGMENTS: usize = 24;
/// Calls that the whole search may look at: a second or less.
const WORK: usize = 2_000_000;

pub struct Search {
    flow: Flow,
    /// What is made again whatever is chosen: the user asked for it.
    asked: Vec<bool>,
    /// Nodes that hold nothing: made again with what they look at.
    free: Vec<bool>,
    /// Nodes that may be made again: `(node, nanoseconds per byte)`, the cheapest first.
    candidates: Vec<(usize, f64)>,
    trials: usize,
    /// Plans that may be tried in all, and that the present search may still try.
    work: usize,
    left: Cell<usize>,
}

type Found = (Vec<bool>, Score);

impl Search {
    /// Tries `trials` sizes of segments, or as many as are usual.
    pub fn new(program: &Program, trials: Option<usize>) -> Search {
        let flow = Flow::of(program);
        let count = program.names.len();
        let is = |n: usize, wanted: bool| program.mirrored.get(n).copied().flatten() == Some(wanted);
        let asked: Vec<bool> = (0..count).map(|n| is(n, true)).collect();
        let free = flow.views(count).iter().enumerate().map(|(n, view)| *view && !is(n, false)).collect();
        let mut candidates: Vec<(usize, f64)> = flow
            .nodes(count)
            .iter()
            .enumerate()
            .filter(|(n, (bytes, _))| *bytes > 0 && !asked[*n] && !is(*n, false))
            .map(|(n, (bytes, cost))| (n, cost / *bytes as f64))
            .collect();
        candidates.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        let work = (WORK / flow.len().max(1)).max(64);
        Search {
            flow,
            asked,
            free,
            candidates,
            trials: trials.unwrap_or(SEGMENTS).max(1),
            work,
            left: work.into(),
        }
    }

    fn score(&self, chosen: &[bool]) -> Score {
        self.left.set(self.left.get().saturating_sub(1));
        self.flow.score(chosen)
    }

    /// The plan of least memory that makes nodes again which cost up to so many nanoseconds per byte.
    pub fn smallest(&self, level: f64) -> Found {
        let mut best = self.segments(level, |found, best| found.is_below(best));
        self.add(&mut best, level, 0);
        let budget = best.1.peak;
        self.drop(&mut best, budget);
        best
    }

    /// The plan of least work whose memory is within `budget` bytes, or the smallest there is.
    pub fn within(&self, budget: usize) -> Found {
        let better = |found: &Score, best: &Score| match (found.peak <= budget, best.peak <= budget) {
            (true, true) => (found.cost, found.peak) < (best.cost, best.peak),
            (false, false) => found.is_below(best),
            (fits, _) => fits,
        };
        let mut best = self.segments(f64::INFINITY, better);
        if best.1.peak > budget {
            self.add(&mut best, f64::INFINITY, budget);
        }
        let budget = budget.max(best.1.peak);
        self.drop(&mut best, budget);
        best
    }

    /// The best of the plans by segments, up to a cost per byte.
    fn segments(&self, level: f64, better: impl Fn(&Score, &Score) -> bool) -> Found {
        self.left.set(self.work);
        let nothing: Vec<bool> = self.with_asked(&[]);
        let score = self.score(&nothing);
        let mut best = (nothing, score);
        let levels = self.levels(level);
        // Half of the work is for single nodes.
        let trials = self.trials.min(self.left.get() / 2 / levels.len().max(1)).max(4);
        for level in levels {
            let chosen = self.with_asked(&self.candidates[..level]);
            let sizes = self.flow.sizes(&chosen);
            let cuts = self.flow.cuts(&chosen);
            let total: usize = sizes.iter().sum();
            for trial in 0..trials {
                // From one segment to about a hundred, in even steps of their ratio.
                let segment = total as f64 / 128f64.powf(trial as f64 / trials as f64);
                let mut plan = chosen.clone();
                let keep = self.flow.crossing(&places(&sizes, &cuts, segment as usize), plan.len());
                keep.iter().zip(&mut plan).zip(&self.asked).for_each(|((k, p), asked)| *p &= !k || *asked);
                let score = self.score(&plan);
                if better(&score, &best.1) {
                    best = (plan, score);
                }
            }
            if self.left.get() == 0 {
                break;
            }
        }
        best
    }

    /// Counts of candidates, from the cheap ones to all up to `level`, in steps of as many nodes each.
    fn levels(&self, level: f64) -> Vec<usize> {
        let upto = |level: f64| self.candidates.partition_point(|c| c.1 <= level);
        let (first, all) = (upto(CHEAP.min(level)), upto(level));
        let mut levels: Vec<usize> = (0..=LEVELS).map(|i| first + (all - first) * i / LEVELS).collect();
        levels.dedup();
        levels.retain(|n| *n > 0);
        levels
    }

    fn with_asked(&self, candidates: &[(usize, f64)]) -> Vec<bool> {
        let mut chosen: Vec<bool> = self.asked.iter().zip(&self.free).map(|(a, f)| *a || *f).collect();
        candidates.iter().for_each(|(n, _)| chosen[*n] = true);
        chosen
    }

    /// Turns single nodes, the cheapest first, where that makes the memory smaller, until it is within `budget`.
    fn add(&self, best: &mut Found, level: f64, budget: usize) {
        loop {
            let before = best.1;
            for (n, _) in self.candidates.iter().take_while(|c| c.1 <= level) {
                if best.1.peak <= budget || self.left.get() == 0 {
                    return;
                }
                self.turn(best, *n, |score, best| score.peak < best.peak);
            }
            if best.1.peak == before.peak {
                return;
            }
        }
    }

    /// Keeps single nodes after all, the dearest first, as long as the memory is within `budget`.
    fn drop(&self, best: &mut Found, budget: usize) {
        for (n, _) in self.candidates.iter().rev() {
            if best.0[*n] && self.left.get() > 0 {
                self.turn(best, *n, |score, best| score.peak <= budget && score.cost <= best.cost);
            }
        }
    }

    /// Chooses the node, or no longer, if `accept` likes what comes of it.
    fn turn(&self, best: &mut Found, n: usize, accept: impl Fn(&Score, &Score) -> bool) {
        best.0[n] = !best.0[n];
        let score = self.score(&best.0);
        match accept(&score, &best.1) {
            true => best.1 = score,
            false => best.0[n] = !best.0[n],
        }
    }
}

/// Where the forward phase is cut so that no segment gives up much more than `segment` bytes: in the second half of
/// what would fit, where least crosses.
fn places(sizes: &[usize], cuts: &[usize], segment: usize) -> Vec<usize> {
    let mut places = Vec::new();
    let (mut sum, mut at) = (0, 0);
    let mut candidate: Option<usize> = None;
    while at < sizes.len() {
        sum += sizes[at];
        at += 1;
        if sum > segment
            && let Some(place) = candidate.take()
        {
            places.push(place);
            // What the new segment has so far is counted again.
            sum = 0;
            at = place;
            continue;
        }
        if sum * 2 >= segment && candidate.is_none_or(|c| cuts[at] <= cuts[c]) {
            candidate = Some(at);
        }
    }
    places
}
