//! Device timestamps of dispatches, as host times.

use crate::command::Command;
use crate::device::Device;
use crate::readback::Landing;
use mxrs_base::Result;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When a dispatch ran on the device.
#[derive(Clone, Debug)]
pub struct Span {
    /// The operation on whose behalf it ran.
    pub label: &'static str,
    /// The kernel.
    pub kernel: String,
    pub begin: Instant,
    pub end: Instant,
}

/// Dispatches timed by one submission.
pub(crate) const SPANS: u32 = 1024;

/// The timestamps of one submission, on their way to the host.
pub(crate) struct Pending {
    pub names: Vec<(&'static str, String)>,
    pub landing: Arc<Landing>,
}

/// A moment on both clocks.
#[derive(Clone, Copy)]
pub(crate) struct Anchor {
    pub host: Instant,
    pub device: u64,
    /// Nanoseconds of a device tick.
    pub period: f64,
}

impl Anchor {
    fn host_time(&self, ticks: u64) -> Instant {
        if ticks >= self.device {
            self.host + Duration::from_nanos(((ticks - self.device) as f64 * self.period) as u64)
        } else {
            let back = Duration::from_nanos(((self.device - ticks) as f64 * self.period) as u64);
            self.host.checked_sub(back).unwrap_or(self.host)
        }
    }

    /// What ended at `tick` has ended: where the host looked at its clock late for the anchor, this takes it back.
    fn not_before(&mut self, tick: u64) {
        let (now, end) = (Instant::now(), self.host_time(tick));
        if end > now {
            self.host = self.host.checked_sub(end - now).unwrap_or(self.host);
        }
    }

    /// The spans that pairs of ticks mean.
    pub fn spans(&self, names: Vec<(&'static str, String)>, ticks: &[u8]) -> Vec<Span> {
        let tick = |i: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&ticks[8 * i..8 * i + 8]);
            u64::from_ne_bytes(word)
        };
        let span = |(i, (label, kernel))| Span {
            label,
            kernel,
            begin: self.host_time(tick(2 * i)),
            end: self.host_time(tick(2 * i + 1)),
        };
        names.into_iter().enumerate().map(span).collect()
    }
}

impl Device {
    /// Times every dispatch from here on; false where the device has no timestamps. Passes are then one dispatch each.
    pub fn profile_start(&self) -> Result<bool> {
        if !self.0.features.timestamps {
            return Ok(false);
        }
        let probe = self.alloc(4)?;
        self.wait()?;
        self.0.send(Command::Profile(true), "profiling the GPU")?;
        // A dispatch that ends just before the host looks at its clock ties the two clocks together.
        self.fill(&probe, 0, 4, 1, "profiling the GPU")?;
        self.wait()?;
        let host = Instant::now();
        let pending = std::mem::take(&mut *self.0.spans.lock());
        for Pending { names, landing } in pending {
            let device =
                landing.mapped(&self.0, "profiling the GPU", |ticks| last_tick(names.len(), ticks))?;
            self.0.landings.put(landing);
            let period = self.0.queue.get_timestamp_period() as f64;
            *self.0.anchor.lock() = device.map(|device| Anchor { host, device, period });
        }
        Ok(true)
    }

    /// Ends the timing; what was timed can still be taken.
    pub fn profile_stop(&self) -> Result<()> {
        self.0.send(Command::Profile(false), "profiling the GPU").map(|_| ())
    }

    /// What was timed since the last call, in the order of the queue. Waits for the device.
    pub fn profile_take(&self) -> Result<Vec<Span>> {
        self.wait()?;
        let pending = std::mem::take(&mut *self.0.spans.lock());
        let Some(mut anchor) = *self.0.anchor.lock() else { return Ok(Vec::new()) };
        let mut taken = Vec::new();
        for Pending { names, landing } in pending {
            let ticks = landing.mapped(&self.0, "profiling the GPU", |ticks| ticks.to_vec())?;
            self.0.landings.put(landing);
            if let Some(end) = last_tick(names.len(), &ticks) {
                anchor.not_before(end);
            }
            taken.push((names, ticks));
        }
        *self.0.anchor.lock() = Some(anchor);
        Ok(taken.into_iter().flat_map(|(names, ticks)| anchor.spans(names, &ticks)).collect())
    }
}

/// The last tick in a list of them: when its submission ended.
fn last_tick(names: usize, ticks: &[u8]) -> Option<u64> {
    let end = ticks.get(16 * names - 8..16 * names)?;
    Some(u64::from_ne_bytes(end.try_into().ok()?))
}
