//! From wgpu's errors to ours: every one names the operation it belongs to.

use mxrs_base::{Error, Result};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::OnceLock;

/// An error of wgpu in our words.
pub(crate) fn from_wgpu(what: &str, error: wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::memory(format!("{what}: the GPU is out of memory")),
        wgpu::Error::Validation { description, .. } => Error::op(format!("{what}: {}", description.trim())),
        wgpu::Error::Internal { description, .. } => {
            Error::op(format!("{what}: the GPU driver failed: {}", description.trim()))
        }
    }
}

/// Runs `f` and returns what wgpu has against it. wgpu's scopes are per thread: others' errors do not mix in.
pub(crate) fn scoped<T>(device: &wgpu::Device, what: &str, f: impl FnOnce() -> T) -> Result<T> {
    let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let value = f();
    // Popped innermost first, all of them, whatever they hold.
    let errors = [pollster::block_on(validation.pop()), pollster::block_on(internal.pop())];
    let errors = errors.into_iter().chain([pollster::block_on(memory.pop())]);
    match errors.flatten().last() {
        Some(error) => Err(from_wgpu(what, error)),
        None => Ok(value),
    }
}

/// Errors of commands that were already accepted, until somebody waits; and whether the device is gone.
#[derive(Default)]
pub(crate) struct Faults {
    parked: Mutex<VecDeque<(u64, Error)>>,
    lost: OnceLock<String>,
}

/// Errors beyond this many are dropped: the first ones tell the cause.
const KEPT: usize = 64;

impl Faults {
    /// Keeps `error` of the commands from number `seq` on.
    pub fn park(&self, seq: u64, error: Error) {
        let mut parked = self.parked.lock();
        if parked.len() < KEPT {
            parked.push_back((seq, error));
        }
    }

    /// The first error that commands up to number `seq` can have a part in, once.
    pub fn take(&self, seq: u64) -> Result<()> {
        let mut parked = self.parked.lock();
        match parked.iter().position(|(at, _)| *at <= seq) {
            Some(i) => match parked.remove(i) {
                Some((_, error)) => Err(error),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }

    pub fn lose(&self, reason: String) {
        let _ = self.lost.set(reason);
    }

    pub fn is_lost(&self) -> bool {
        self.lost.get().is_some()
    }

    /// An error where the device is gone.
    pub fn check(&self, what: &str) -> Result<()> {
        match self.lost.get() {
            Some(reason) => Err(Error::op(format!("{what}: the GPU device is lost: {reason}"))),
            None => Ok(()),
        }
    }
}
