//! The thread that owns a device's command encoder.
//!
//! It turns commands into passes and passes into submissions. A compute pass stays open over as many dispatches as
//! follow each other; copies close it. A batch is submitted when it is large, when somebody waits, and when nothing
//! more comes for a moment.

use crate::command::{Command, Dispatch};
use crate::counters::add;
use crate::device::Shared;
use crate::error;
use crate::pool::Chunk;
use crate::profile::{Pending, SPANS};
use crate::readback::Landing;
use crate::shader::PARAM_BYTES;
use crate::staging::Page;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// A batch is submitted at this many commands, or at `EARLY` where the device has nothing to do.
const BATCH: u32 = 512;
const EARLY: u32 = 128;
/// ... or when its commands touch this many bytes.
const BATCH_BYTES: u64 = 4 << 30;
/// How long a batch waits for more.
const DOZE: Duration = Duration::from_micros(300);
/// Submissions under way before the worker waits for the device.
const UNDER_WAY: usize = 6;
/// Bind groups kept; beyond it those go that were not used for a while.
const BIND_GROUPS: usize = 8192;
/// Bytes of the parameter buffer, and of one dispatch's share of it.
const UNIFORM: u64 = 256 << 10;
const UNIFORM_STEP: u64 = 256;

type GroupKey = SmallVec<[u64; 8]>;

/// Multiplies and rotates: the keys are a few counters, and nobody chooses them to collide.
#[derive(Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(*b as u64));
    }
    fn write_u64(&mut self, v: u64) {
        self.0 = (self.0.rotate_left(23) ^ v).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    fn write_usize(&mut self, v: usize) {
        self.write_u64(v as u64);
    }
}

struct Group {
    raw: wgpu::BindGroup,
    used: u64,
}

/// What goes with the batch being encoded.
#[derive(Default)]
struct Batch {
    commands: u32,
    bytes: u64,
    pages: Vec<Arc<Page>>,
    landings: Vec<Arc<Landing>>,
    uniforms: Vec<u8>,
    timed: Vec<(&'static str, String)>,
    labels: Option<(&'static str, &'static str)>,
}

pub(crate) struct Worker {
    shared: Arc<Shared>,
    encoder: Option<wgpu::CommandEncoder>,
    pass: Option<wgpu::ComputePass<'static>>,
    /// The pipeline that the open pass has set.
    current: u32,
    batch: Batch,
    groups: HashMap<GroupKey, Group, BuildHasherDefault<Fold>>,
    /// Counts dispatches, for the age of bind groups.
    clock: u64,
    uniform: Option<wgpu::Buffer>,
    /// Pages whose commands were submitted; recycled when no command names them.
    retired: Vec<Arc<Page>>,
    timer: Option<(wgpu::QuerySet, wgpu::Buffer)>,
    list: bool,
    /// The commands up to this number are encoded.
    seq: u64,
    /// The first command of the batch.
    first: u64,
}

impl Worker {
    pub fn new(shared: Arc<Shared>) -> Worker {
        let list = std::env::var("MXRS_DEBUG").is_ok_and(|v| v.split(',').any(|w| w == "gpu"));
        Worker {
            shared,
            encoder: None,
            pass: None,
            current: 0,
            batch: Batch::default(),
            groups: HashMap::default(),
            clock: 0,
            uniform: None,
            retired: Vec::new(),
            timer: None,
            list,
            seq: 0,
            first: 1,
        }
    }

    /// Works until told to stop.
    pub fn run(mut self) {
        let mut commands = Vec::with_capacity(256);
        let shared = self.shared.clone();
        loop {
            let doze = (self.batch.commands > 0).then_some(DOZE);
            let last = shared.mailbox.take(&mut commands, doze);
            if commands.is_empty() {
                self.submit();
                continue;
            }
            self.seq = last - commands.len() as u64;
            for command in commands.drain(..) {
                self.seq += 1;
                if matches!(command, Command::Stop) {
                    self.submit();
                    return;
                }
                self.encode(command);
                if self.is_full() {
                    self.submit();
                }
            }
        }
    }

    fn is_full(&mut self) -> bool {
        let batch = &self.batch;
        if batch.commands >= BATCH || batch.bytes >= BATCH_BYTES || batch.timed.len() as u32 >= SPANS {
            return true;
        }
        if batch.uniforms.len() as u64 + PARAM_BYTES as u64 > UNIFORM {
            return true;
        }
        if batch.commands >= EARLY && batch.commands.is_multiple_of(EARLY) {
            // Callbacks of what is through run in here.
            let _ = self.shared.raw.poll(wgpu::PollType::Poll);
            return self.shared.progress.is_idle();
        }
        false
    }

    fn encode(&mut self, command: Command) {
        match command {
            Command::Dispatch(dispatch) => self.dispatch(dispatch),
            Command::Upload { page, from, chunk, to, bytes, label } => {
                self.note(label, bytes);
                self.transfer().copy_buffer_to_buffer(&page.raw, from, &chunk.raw, to, bytes);
                if !self.batch.pages.iter().rev().any(|p| Arc::ptr_eq(p, &page)) {
                    self.batch.pages.push(page);
                }
            }
            Command::Copy { source, from, target, to, bytes, label } => {
                self.note(label, 2 * bytes);
                self.transfer().copy_buffer_to_buffer(&source.raw, from, &target.raw, to, bytes);
            }
            Command::Clear { chunk, from, bytes, label } => {
                self.note(label, bytes);
                self.transfer().clear_buffer(&chunk.raw, from, Some(bytes));
            }
            Command::Read { chunk, from, bytes, landing, label } => {
                self.note(label, bytes);
                self.transfer().copy_buffer_to_buffer(&chunk.raw, from, &landing.raw, 0, bytes);
                self.batch.landings.push(landing);
            }
            Command::Flush => self.submit(),
            Command::Forget(chunks) => self.forget(&chunks),
            Command::Profile(on) => {
                self.submit();
                self.timer = if on { self.new_timer() } else { None };
            }
            Command::Stop => {}
        }
    }

    /// Takes a command into the batch's books.
    fn note(&mut self, label: &'static str, bytes: u64) {
        self.batch.commands += 1;
        self.batch.bytes += bytes;
        let labels = self.batch.labels.get_or_insert((label, label));
        labels.1 = label;
        if self.list {
            eprintln!("gpu {}: {label} {bytes} bytes", self.seq);
        }
    }

    /// The encoder outside a pass.
    fn transfer(&mut self) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        let shared = &self.shared;
        self.encoder.get_or_insert_with(|| {
            shared.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
        })
    }

    fn open_pass(&mut self, label: &'static str, kernel: &str) -> &mut wgpu::ComputePass<'static> {
        let timed = self.timer.is_some();
        if timed || self.pass.is_none() {
            add(&self.shared.counters.passes, 1);
            self.transfer();
            let at = self.batch.timed.len() as u32 * 2;
            let timestamp_writes = self.timer.as_ref().map(|(set, _)| wgpu::ComputePassTimestampWrites {
                query_set: set,
                beginning_of_pass_write_index: Some(at),
                end_of_pass_write_index: Some(at + 1),
            });
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            self.current = 0;
            self.pass = self.encoder.as_mut().map(|e| e.begin_compute_pass(&descriptor).forget_lifetime());
            if timed {
                self.batch.timed.push((label, kernel.to_string()));
            }
        }
        match &mut self.pass {
            Some(pass) => pass,
            // `transfer` has made the encoder that the pass came from.
            None => unreachable!("a pass was just opened"),
        }
    }

    fn dispatch(&mut self, d: Dispatch) {
        self.clock += 1;
        self.batch.commands += 1;
        self.batch.bytes += d.chunks.iter().map(|c| c.size).sum::<u64>();
        self.batch.labels.get_or_insert((d.label, d.label)).1 = d.label;
        if self.list {
            self.print(&d);
        }
        let mut key = GroupKey::new();
        key.push(d.compiled.layout.id as u64);
        key.extend(d.chunks.iter().map(|c| c.id));
        if !self.groups.contains_key(&key) {
            self.new_group(&key, &d);
        }
        let uniform_at = (d.compiled.uniform_bytes > 0).then(|| {
            let at = self.batch.uniforms.len();
            self.batch.uniforms.extend_from_slice(&d.params);
            let step = (d.compiled.uniform_bytes as usize).next_multiple_of(UNIFORM_STEP as usize);
            self.batch.uniforms.resize(at + step, 0);
            at as u32
        });
        let clock = self.clock;
        let set = self.current == d.compiled.id && self.timer.is_none() && self.pass.is_some();
        self.open_pass(d.label, &d.compiled.name);
        self.current = d.compiled.id;
        let (Some(pass), Some(group)) = (&mut self.pass, self.groups.get_mut(&key)) else { return };
        group.used = clock;
        if !set {
            pass.set_pipeline(&d.compiled.raw);
        }
        match uniform_at {
            Some(at) => pass.set_bind_group(0, &group.raw, &[at]),
            None => {
                pass.set_bind_group(0, &group.raw, &[]);
                if !d.params.is_empty() {
                    pass.set_immediates(0, &d.params);
                }
            }
        }
        pass.dispatch_workgroups(d.groups[0], d.groups[1], d.groups[2]);
        if self.timer.is_some() {
            self.pass = None;
        }
        add(&self.shared.counters.dispatches, 1);
    }

    fn new_group(&mut self, key: &GroupKey, d: &Dispatch) {
        if self.groups.len() >= BIND_GROUPS {
            let old = self.clock.saturating_sub(BIND_GROUPS as u64 / 2);
            self.groups.retain(|_, group| group.used > old);
        }
        let shared = &self.shared;
        if d.compiled.uniform_bytes > 0 && self.uniform.is_none() {
            self.uniform = Some(shared.raw.create_buffer(&wgpu::BufferDescriptor {
                label: Some("parameters"),
                size: UNIFORM,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }));
        }
        let uniform = self.uniform.as_ref().map(|buffer| (buffer, d.compiled.uniform_bytes));
        let made = error::scoped(&shared.raw, d.label, || {
            d.compiled.layout.bind(&shared.raw, d.chunks.iter().map(|c| &c.raw), uniform)
        });
        match made {
            Ok(raw) => {
                add(&shared.counters.bind_groups, 1);
                self.groups.insert(key.clone(), Group { raw, used: self.clock });
            }
            Err(error) => shared.faults.park(self.seq, error),
        }
    }

    fn print(&self, d: &Dispatch) {
        let buffers: Vec<String> = d.chunks.iter().map(|c| format!("#{}:{}", c.id, c.size)).collect();
        let kernel = &d.compiled.name;
        let params: Vec<u32> =
            d.params.chunks_exact(4).map(|w| u32::from_ne_bytes([w[0], w[1], w[2], w[3]])).collect();
        eprintln!(
            "gpu {}: {} by {kernel} {:?} [{}] {params:?}",
            self.seq,
            d.label,
            d.groups,
            buffers.join(" ")
        );
    }

    fn new_timer(&mut self) -> Option<(wgpu::QuerySet, wgpu::Buffer)> {
        let shared = &self.shared;
        if !shared.features.timestamps {
            return None;
        }
        let made = error::scoped(&shared.raw, "device timestamps", || {
            let set = shared.raw.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: 2 * SPANS,
            });
            let resolved = shared.raw.create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size: 16 * SPANS as u64,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            (set, resolved)
        });
        made.map_err(|e| shared.faults.park(self.seq, e)).ok()
    }

    /// Sends the timestamps of the batch on their way.
    fn resolve_times(&mut self) {
        let names = std::mem::take(&mut self.batch.timed);
        let Some((set, resolved)) = &self.timer else { return };
        if names.is_empty() {
            return;
        }
        let shared = &self.shared;
        let bytes = 16 * names.len() as u64;
        match shared.landings.get(&shared.raw, &shared.counters, bytes) {
            Ok(landing) => {
                if let Some(encoder) = &mut self.encoder {
                    encoder.resolve_query_set(set, 0..2 * names.len() as u32, resolved, 0);
                    encoder.copy_buffer_to_buffer(resolved, 0, &landing.raw, 0, bytes);
                    self.batch.landings.push(landing.clone());
                    shared.spans.lock().push(Pending { names, landing });
                }
            }
            Err(error) => shared.faults.park(self.seq, error),
        }
    }

    /// Hands the batch to the device.
    fn submit(&mut self) {
        let shared = self.shared.clone();
        self.pass = None;
        self.resolve_times();
        let batch = std::mem::take(&mut self.batch);
        let first = std::mem::replace(&mut self.first, self.seq + 1);
        let Some(encoder) = self.encoder.take() else {
            shared.progress.submit(self.seq, None);
            return;
        };
        batch.pages.iter().for_each(|page| shared.staging.close(page));
        let what = match batch.labels {
            Some((a, b)) if a == b && batch.commands == 1 => a.to_string(),
            Some((a, b)) => format!("{} GPU operations from {a} to {b}", batch.commands),
            None => "GPU operations".to_string(),
        };
        let submitted = error::scoped(&shared.raw, &what, || {
            if let (Some(uniform), false) = (&self.uniform, batch.uniforms.is_empty()) {
                shared.queue.write_buffer(uniform, 0, &batch.uniforms);
            }
            // Its errors are caught by the scope; the index is valid all the same.
            shared.queue.submit([encoder.finish()])
        });
        add(&shared.counters.submits, 1);
        let index = match submitted {
            Ok(index) => Some(index),
            Err(error) => {
                let lost = shared.faults.check(&what).err();
                shared.faults.park(first, lost.unwrap_or(error));
                None
            }
        };
        let under_way = index.is_some();
        batch.landings.iter().for_each(if under_way { Landing::map } else { Landing::fail });
        shared.progress.submit(self.seq, index);
        if under_way {
            shared.queue.on_submitted_work_done(shared.progress.completion(self.seq));
        }
        if let Some((seq, index)) = shared.progress.oldest_beyond(UNDER_WAY) {
            shared.poll_until(seq, index);
        }
        self.retire(batch.pages);
    }

    /// Recycles the pages that no command names any more.
    fn retire(&mut self, pages: Vec<Arc<Page>>) {
        for page in pages {
            if !self.retired.iter().any(|p| Arc::ptr_eq(p, &page)) {
                self.retired.push(page);
            }
        }
        let staging = &self.shared.staging;
        let all = std::mem::take(&mut self.retired);
        for page in all {
            // Nobody can clone a closed page but through a command, and a command would count.
            if Arc::strong_count(&page) == 1 { staging.recycle(page) } else { self.retired.push(page) }
        }
    }

    fn forget(&mut self, chunks: &[Arc<Chunk>]) {
        self.submit();
        let gone: std::collections::HashSet<u64> = chunks.iter().map(|c| c.id).collect();
        self.groups.retain(|key, _| !key[1..].iter().any(|id| gone.contains(id)));
    }
}
