//! Running graphs: the plan (calls over planned memory), the executor with its bound arrays, and the cached operator
//! behind hybridized blocks.

mod budget;
mod cached;
mod describe;
mod executor;
mod memory;
mod plan;
mod run;

pub use budget::Budget;
pub use cached::CachedOp;
pub use describe::describe;
pub use executor::Executor;
pub use plan::{Plan, Request};
pub use run::Run;

#[cfg(test)]
mod tests;
