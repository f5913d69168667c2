//! Plans within a memory budget: the search of `graph::passes` chooses what is computed again, the plan says what that
//! needs, and the aim is lowered where the pieces did not fit together as well as thought.

use super::plan::{Plan, Request};
use crate::graph::{Lowered, passes};
use mxrs_base::{Error, Result};
use std::str::FromStr;

/// How much working memory the plan of a training step may need. Plans without a backward phase have nothing to give.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Budget {
    /// What the environment variable `MXRS_MEMORY_BUDGET` says; without it, whatever is fastest.
    #[default]
    Unsaid,
    Bytes(usize),
    /// Hundredths of a per cent of what the plan needs without a budget.
    Share(u32),
    /// As little as the search can find.
    Smallest,
}

/// A share of less than this is not asked for: nothing worth while can be saved. Bytes.
const SMALL: usize = 1 << 20;
/// How often the aim is lowered.
const ATTEMPTS: usize = 6;

impl FromStr for Budget {
    type Err = Error;

    /// Reads bytes (`"300000000"`), a share (`"60%"`) or `"smallest"`.
    fn from_str(text: &str) -> Result<Budget> {
        let text = text.trim();
        let share = text.strip_suffix('%').and_then(|n| n.trim().parse::<f64>().ok());
        match share.filter(|n| (0.0..=100.0).contains(n)) {
            Some(percent) => Ok(Budget::Share((percent * 100.0) as u32)),
            None if text == "smallest" => Ok(Budget::Smallest),
            None => text.parse().map(Budget::Bytes).map_err(|_| {
                Error::value(format!(
                    "memory budget '{text}': bytes ('300000000'), a share of what is needed without a budget ('60%', \
                     at most 100%) or 'smallest' is expected"
                ))
            }),
        }
    }
}

impl Budget {
    /// With the environment's word where nothing was said.
    pub fn or_environment(self) -> Result<Budget> {
        match std::env::var("MXRS_MEMORY_BUDGET") {
            Ok(text) if self == Budget::Unsaid && !text.trim().is_empty() => {
                text.parse().map_err(|e: Error| e.within("environment variable MXRS_MEMORY_BUDGET"))
            }
            _ => Ok(self),
        }
    }
}

/// The plan of `lowered`, whose program went through [`passes::REDUCE`], within the request's budget.
pub fn plan(lowered: Lowered, request: &Request, trials: Option<usize>) -> Result<Plan> {
    let budget = request.budget.or_environment()?;
    let trains = lowered.program.forward < lowered.program.instrs.len();
    if budget == Budget::Unsaid || !trains {
        return Plan::placed(lowered, request);
    }
    let free = Plan::placed(lowered.clone(), request)?;
    let limit = match budget {
        Budget::Bytes(bytes) => bytes,
        Budget::Share(_) if free.arena < SMALL => free.arena,
        Budget::Share(share) => (free.arena as f64 * f64::from(share) / 10_000.0) as usize,
        Budget::Smallest | Budget::Unsaid => 0,
    };
    if free.arena <= limit {
        return Ok(free);
    }
    let needs = free.arena;
    let search = passes::Search::new(&lowered.program, trials);
    let attempt = |chosen: &[bool]| {
        let mut lowered = lowered.clone();
        lowered.program.mirrored = chosen.iter().map(|c| Some(*c)).collect();
        Plan::placed(lowered, request)
    };
    let mut aim = limit;
    for _ in 0..if limit > 0 { ATTEMPTS } else { 0 } {
        let (chosen, score) = search.within(aim);
        if score.peak > aim {
            break;
        }
        let plan = attempt(&chosen)?;
        if plan.arena <= limit {
            return Ok(plan);
        }
        aim = (aim as f64 * limit as f64 / plan.arena as f64 * 0.99) as usize;
    }
    let plan = attempt(&search.smallest(f64::INFINITY).0)?;
    let smallest = if plan.arena < free.arena { plan } else { free };
    if smallest.arena <= limit || budget == Budget::Smallest {
        return Ok(smallest);
    }
    Err(Error::value(format!(
        "memory budget: {limit} bytes of working memory are allowed; the smallest plan found for this graph needs {} \
         ({needs} without a budget)",
        smallest.arena,
    )))
}
