//! Host memory that the device reads: how bytes travel up.
//!
//! A page is mapped, filled by callers, unmapped, read by the device, and mapped again when the device is through with
//! it. Small writes share a page under a lock; a large one has pages of its own and copies outside the lock.

use crate::counters::{Counters, add};
use crate::error;
use mxrs_base::{Error, Result};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};

/// Bytes of a page that small writes share.
const PAGE: u64 = 1 << 20;
/// Writes up to this size share pages.
const SMALL: u64 = 64 << 10;
/// Larger writes travel in pieces of at most this size.
pub(crate) const PIECE: u64 = 32 << 20;
/// Writers wait for the device when this many bytes are on their way.
const IN_FLIGHT: u64 = 256 << 20;
/// Mapped pages kept for reuse, in bytes.
const KEEP: u64 = 128 << 20;

pub(crate) struct Page {
    pub raw: wgpu::Buffer,
    size: u64,
    mapped: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The page that small writes fill, and how far it is filled.
    current: Option<(Arc<Page>, u64)>,
    /// Mapped pages.
    free: Vec<Arc<Page>>,
    free_bytes: u64,
    /// Bytes of all pages that are not free.
    out: u64,
}

#[derive(Default)]
pub(crate) struct Staging {
    state: Arc<Mutex<State>>,
}

impl Staging {
    /// Whether a writer should let the device catch up first.
    pub fn is_full(&self) -> bool {
        self.state.lock().out >= IN_FLIGHT
    }

    /// Copies `bytes` (at most [`PIECE`]) to a page; the page and where in it they begin. What is copied to the
    /// device is a multiple of four bytes; the rest of the last word is zero.
    pub fn put(&self, device: &wgpu::Device, counters: &Counters, bytes: &[u8]) -> Result<(Arc<Page>, u64)> {
        let len = bytes.len() as u64;
        if len <= SMALL {
            let mut state = self.state.lock();
            let room = (len.max(1)).next_multiple_of(64);
            let fits = state.current.as_ref().is_some_and(|(page, used)| used + room <= page.size);
            if !fits {
                // The page before stays with the commands that read it and is unmapped when they are submitted.
                let page = state.page(device, counters, PAGE)?;
                state.current = Some((page, 0));
            }
            let Some((page, used)) = &mut state.current else {
                return Err(Error::op("the staging page vanished"));
            };
            let at = *used;
            *used += room;
            let page = page.clone();
            fill(&page, at, bytes)?;
            return Ok((page, at));
        }
        let size = len.next_power_of_two().max(PAGE);
        let page = self.state.lock().page(device, counters, size)?;
        fill(&page, 0, bytes)?;
        Ok((page, 0))
    }

    /// Makes a page readable for the device: nothing more is written to it.
    pub fn close(&self, page: &Arc<Page>) {
        let mut state = self.state.lock();
        if state.current.as_ref().is_some_and(|(current, _)| Arc::ptr_eq(current, page)) {
            state.current = None;
        }
        if page.mapped.swap(false, AcqRel) {
            page.raw.unmap();
        }
    }

    /// Hands a page back that no command will name any more; it is free again when the device has read it.
    pub fn recycle(&self, page: Arc<Page>) {
        let state = self.state.clone();
        let raw = page.raw.clone();
        raw.map_async(wgpu::MapMode::Write, .., move |result| {
            let mut state = state.lock();
            state.out = state.out.saturating_sub(page.size);
            if result.is_ok() && state.free_bytes + page.size <= KEEP {
                page.mapped.store(true, Release);
                state.free_bytes += page.size;
                state.free.push(page);
            }
        });
    }
}

impl State {
    /// A mapped page of exactly `size` bytes.
    fn page(&mut self, device: &wgpu::Device, counters: &Counters, size: u64) -> Result<Arc<Page>> {
        let page = match self.free.iter().rposition(|p| p.size == size) {
            Some(i) => {
                self.free_bytes -= size;
                self.free.swap_remove(i)
            }
            None => {
                let raw = error::scoped(device, "staging memory for a write", || {
                    device.create_buffer(&wgpu::BufferDescriptor {
                        label: Some("staging"),
                        size,
                        usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                        mapped_at_creation: true,
                    })
                })?;
                add(&counters.staging_buffers, 1);
                Arc::new(Page { raw, size, mapped: AtomicBool::new(true) })
            }
        };
        self.out += size;
        Ok(page)
    }
}

/// Writes `bytes` to a mapped page, padded to a multiple of eight, wgpu's alignment of mapped ranges.
fn fill(page: &Page, at: u64, bytes: &[u8]) -> Result<()> {
    let padded = (bytes.len() as u64).next_multiple_of(8).max(8);
    let failed = |e: wgpu::MapRangeError| Error::op(format!("staging memory for a write: {e}"));
    let mut view = page.raw.get_mapped_range_mut(at..at + padded).map_err(failed)?;
    view.slice(..bytes.len()).copy_from_slice(bytes);
    view.slice(bytes.len()..).fill(0);
    Ok(())
}
