//! Host memory that the device writes: how bytes travel down.

use crate::counters::{Counters, add};
use crate::device::Shared;
use crate::error;
use mxrs_base::{Error, Result};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::Duration;

/// Readback buffers kept for reuse, in bytes.
const KEEP: u64 = 128 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mapping {
    Pending,
    Ready,
    Failed,
}

/// A buffer that one read arrives in.
pub(crate) struct Landing {
    pub raw: wgpu::Buffer,
    size: u64,
    mapping: Mutex<Mapping>,
    changed: Condvar,
}

impl Landing {
    /// Maps the buffer as soon as the device has written it. Call it after the submission.
    pub fn map(self: &Arc<Landing>) {
        let landing = self.clone();
        self.raw.map_async(wgpu::MapMode::Read, .., move |result| {
            *landing.mapping.lock() = if result.is_ok() { Mapping::Ready } else { Mapping::Failed };
            landing.changed.notify_all();
        });
    }

    /// Nothing will arrive.
    pub fn fail(self: &Arc<Landing>) {
        *self.mapping.lock() = Mapping::Failed;
        self.changed.notify_all();
    }

    /// Waits for the mapping, whose submission is known to be through: another thread may still be telling us.
    pub fn mapped<T>(&self, shared: &Shared, what: &str, f: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let mut mapping = self.mapping.lock();
        while *mapping == Mapping::Pending {
            shared.faults.check(what)?;
            if self.changed.wait_for(&mut mapping, Duration::from_millis(100)).timed_out() {
                drop(mapping);
                let _ = shared.raw.poll(wgpu::PollType::Poll);
                mapping = self.mapping.lock();
            }
        }
        if *mapping == Mapping::Failed {
            shared.faults.check(what)?;
            return Err(Error::op(format!("{what}: the GPU's memory could not be read")));
        }
        let view = self.raw.get_mapped_range(..).map_err(|e| Error::op(format!("{what}: {e}")))?;
        Ok(f(&view))
    }
}

/// Readback buffers by size.
#[derive(Default)]
pub(crate) struct Landings {
    free: Mutex<(Vec<Arc<Landing>>, u64)>,
}

impl Landings {
    pub fn get(&self, device: &wgpu::Device, counters: &Counters, bytes: u64) -> Result<Arc<Landing>> {
        // Powers of two while they are cheap; a large one is cut to its size.
        let size = match bytes {
            0..=4096 => 4096,
            4097..=0x100_0000 => bytes.next_power_of_two(),
            _ => bytes.next_multiple_of(1 << 20),
        };
        {
            let mut free = self.free.lock();
            if let Some(i) = free.0.iter().rposition(|l| l.size == size) {
                free.1 -= size;
                let landing = free.0.swap_remove(i);
                *landing.mapping.lock() = Mapping::Pending;
                return Ok(landing);
            }
        }
        let raw = error::scoped(device, "readback memory", || {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("readback"),
                size,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })?;
        add(&counters.staging_buffers, 1);
        let mapping = Mutex::new(Mapping::Pending);
        Ok(Arc::new(Landing { raw, size, mapping, changed: Condvar::new() }))
    }

    /// Keeps a mapped buffer for the next read.
    pub fn put(&self, landing: Arc<Landing>) {
        landing.raw.unmap();
        let mut free = self.free.lock();
        if free.1 + landing.size <= KEEP {
            free.1 += landing.size;
            free.0.push(landing);
        }
    }
}

/// A read under way. Dropping it forgets the read.
pub struct Ticket {
    pub(crate) shared: Arc<Shared>,
    pub(crate) landing: Arc<Landing>,
    pub(crate) seq: u64,
    /// Where the bytes asked for begin: a read begins at a multiple of four.
    pub(crate) from: usize,
    pub(crate) len: usize,
    pub(crate) label: &'static str,
}

impl Ticket {
    /// Bytes that will arrive.
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the bytes are there; [`Ticket::wait`] then returns at once.
    pub fn is_ready(&self) -> bool {
        self.shared.progress.is_done(self.seq)
    }

    /// Waits for the bytes.
    ///
    /// # Errors
    /// What an operation queued before the read had to report, or the read itself.
    pub fn wait(self) -> Result<Vec<u8>> {
        self.with(|bytes| bytes.to_vec())
    }

    /// Waits for the bytes and copies them to `target`, whose length is the read's.
    pub fn wait_into(self, target: &mut [u8]) -> Result<()> {
        if target.len() != self.len {
            return Err(Error::value(format!("a read of {} bytes cannot fill {}", self.len, target.len())));
        }
        self.with(|bytes| target.copy_from_slice(bytes))
    }

    fn with<T>(self, f: impl FnOnce(&[u8]) -> T) -> Result<T> {
        if self.len == 0 {
            return Ok(f(&[]));
        }
        self.shared.wait_for(self.seq, self.label)?;
        let value = self.landing.mapped(&self.shared, self.label, |b| f(&b[self.from..][..self.len]))?;
        self.shared.landings.put(self.landing);
        Ok(value)
    }
}
