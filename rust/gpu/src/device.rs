//! An open device: what callers hold. Every call checks its arguments, sends a command and returns.

use crate::adapter::{Adapter, Features, Limits, Profile, request};
use crate::buffer::{Buffer, Inner};
use crate::command::{Command, Dispatch, Mailbox};
use crate::counters::{Counters, Counts, add};
use crate::error::{self, Faults};
use crate::pipeline::{Key, Pipeline, Pipelines};
use crate::pool::{Memory, Pool};
use crate::profile::{Anchor, Pending};
use crate::progress::Progress;
use crate::readback::Landings;
use crate::shader::{Params, Shader};
use crate::staging::Staging;
use crate::worker::Worker;
use mxrs_base::{Error, Result};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

/// What all handles of one device share.
pub(crate) struct Shared {
    pub name: String,
    pub limits: Limits,
    pub features: Features,
    pub memory_size: Option<u64>,
    pub raw: wgpu::Device,
    pub queue: wgpu::Queue,
    pub mailbox: Mailbox,
    pub pool: Pool,
    pub staging: Staging,
    pub landings: Landings,
    pub pipelines: Pipelines,
    pub progress: Arc<Progress>,
    pub faults: Arc<Faults>,
    pub counters: Counters,
    pub spans: Mutex<Vec<Pending>>,
    pub anchor: Mutex<Option<Anchor>>,
}

/// An open device. Clones are the same device.
#[derive(Clone)]
pub struct Device(pub(crate) Arc<Shared>);

/// A point in a device's queue.
#[derive(Clone)]
pub struct Fence {
    shared: Arc<Shared>,
    seq: u64,
}

impl Device {
    /// A device of its own, with its own worker and pool, that [`Device::get`] does not know of.
    pub fn open(adapter: &Adapter, profile: Profile) -> Result<Device> {
        let what = format!("opening {}", adapter.name);
        let (features, limits) = request(adapter, profile);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("mxrs"),
            required_features: features,
            required_limits: limits,
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        };
        let (raw, queue) = pollster::block_on(adapter.raw.request_device(&descriptor))
            .map_err(|e| Error::op(format!("{what}: {e}")))?;
        let features = Features::of(raw.features());
        let limits = Limits::of(&raw.limits(), features, &adapter.raw.get_info());
        let limit = std::env::var("MXRS_GPU_MEM_LIMIT").ok().and_then(|v| v.trim().parse().ok());
        let faults = Arc::new(Faults::default());
        let uncaptured = faults.clone();
        raw.on_uncaptured_error(Arc::new(move |e| uncaptured.park(0, error::from_wgpu("GPU", e))));
        let shared = Arc::new(Shared {
            name: adapter.name.clone(),
            limits,
            features,
            memory_size: adapter.memory,
            raw,
            queue,
            mailbox: Mailbox::new(),
            pool: Pool::new(limits.buffer_bytes, limit),
            staging: Staging::default(),
            landings: Landings::default(),
            pipelines: Pipelines::default(),
            progress: Arc::new(Progress::default()),
            faults,
            counters: Counters::default(),
            spans: Mutex::default(),
            anchor: Mutex::default(),
        });
        let (faults, progress) = (shared.faults.clone(), shared.progress.clone());
        shared.raw.set_device_lost_callback(move |reason, message| {
            faults.lose(format!("{message} ({reason:?})"));
            progress.end();
        });
        let worker = Worker::new(shared.clone());
        let (mine, ended) = (shared.clone(), what.clone());
        std::thread::Builder::new()
            .name("mxrs-gpu".into())
            .spawn(move || {
                let run = std::panic::AssertUnwindSafe(|| worker.run());
                if let Err(panic) = std::panic::catch_unwind(run) {
                    let said = panic.downcast_ref::<String>().map(String::as_str);
                    let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
                    mine.faults.lose(format!("its worker ended by {said}"));
                }
                mine.mailbox.close();
                mine.progress.end();
            })
            .map_err(|e| Error::op(format!("{ended}: no thread for it: {e}")))?;
        Ok(Device(shared))
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }
    pub fn limits(&self) -> Limits {
        self.0.limits
    }
    pub fn features(&self) -> Features {
        self.0.features
    }
    /// Bytes of the adapter's memory, where its driver tells.
    pub fn memory_size(&self) -> Option<u64> {
        self.0.memory_size
    }
    pub fn is_lost(&self) -> bool {
        self.0.faults.is_lost()
    }
    /// Whether both handles are the same device.
    pub fn same(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    // ---- memory -----------------------------------------------------------------------------------------------------

    /// A buffer of `bytes`; what it holds is undefined.
    ///
    /// # Errors
    /// Where the device cannot bind or does not have that many bytes, after the pool was emptied once.
    pub fn alloc(&self, bytes: u64) -> Result<Buffer> {
        let shared = &self.0;
        shared.faults.check("allocating GPU memory")?;
        let class = shared.pool.class(bytes)?;
        let chunk = match shared.pool.reuse(class) {
            Some(chunk) => chunk,
            None => self.grow(class).or_else(|_| {
                self.empty_pool()?;
                self.grow(class)
            })?,
        };
        Ok(Buffer(Arc::new(Inner { chunk, len: bytes, shared: shared.clone() })))
    }

    fn grow(&self, class: u64) -> Result<Arc<crate::pool::Chunk>> {
        let shared = &self.0;
        let memory = shared.pool.memory();
        if !shared.pool.fits(class) {
            return Err(Error::memory(format!(
                "the GPU's memory limit of {} bytes is reached: {} in use, {class} more asked for",
                memory.limit.unwrap_or(u64::MAX),
                memory.used
            )));
        }
        let what = format!("allocating {class} bytes beside {} in use", memory.used);
        let raw = error::scoped(&shared.raw, &what, || {
            shared.raw.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: class,
                usage: wgpu::BufferUsages::STORAGE
                    | wgpu::BufferUsages::COPY_SRC
                    | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })?;
        add(&shared.counters.buffers, 1);
        Ok(shared.pool.adopt(raw, class))
    }

    /// Gives the pool's free memory back to the driver.
    pub fn empty_pool(&self) -> Result<()> {
        let chunks = self.0.pool.drain();
        if chunks.is_empty() {
            return Ok(());
        }
        let seq = self.0.send(Command::Forget(chunks), "emptying the GPU's pool")?;
        // The error of another's command is not the allocator's: it stays for a wait.
        self.0.settle(seq);
        let _ = self.0.raw.poll(wgpu::PollType::wait_indefinitely());
        Ok(())
    }

    pub fn memory(&self) -> Memory {
        self.0.pool.memory()
    }
    /// Bounds what buffers and pool take together.
    pub fn set_memory_limit(&self, limit: Option<u64>) {
        self.0.pool.set_limit(limit);
    }
    pub fn reset_peak(&self) {
        self.0.pool.reset_peak();
    }

    // ---- dispatches -------------------------------------------------------------------------------------------------

    /// The pipeline of `key`; `make` states its shader when the key is new to the device.
    ///
    /// # Errors
    /// Where the shader does not compile, binds more buffers than the device allows, or needs what it lacks.
    pub fn pipeline(&self, key: &Key, make: impl FnOnce() -> Result<Shader>) -> Result<Arc<Pipeline>> {
        self.0.pipelines.get(&self.0, key, make)
    }

    /// Name and WGSL of every shader compiled so far, for checks and for people.
    pub fn shader_texts(&self) -> Vec<(String, String)> {
        self.0.pipelines.texts()
    }

    /// Runs a shader. A buffer may stand in several slots, also as input and output: where every invocation reads
    /// what it overwrites before it does so, the result is as if they were apart.
    pub fn dispatch(
        &self,
        pipeline: &Pipeline,
        buffers: &[&Buffer],
        mut params: Params,
        groups: [u32; 3],
        label: &'static str,
    ) -> Result<()> {
        let shared = &self.0;
        let shader = &pipeline.shader;
        let refuse = |what: String| Err(Error::op(format!("{label}: GPU kernel '{}' {what}", shader.name)));
        if buffers.len() != shader.slots.len() {
            return refuse(format!("binds {} buffers, {} were given", shader.slots.len(), buffers.len()));
        }
        if params.len() != shader.params.len() {
            return refuse(format!("takes {} parameters, {} were given", shader.params.len(), params.len()));
        }
        if let Some(b) = buffers.iter().find(|b| !Arc::ptr_eq(&b.0.shared, shared)) {
            b.0.shared.faults.check(label)?;
            return refuse(format!("cannot use {b:?} of another device"));
        }
        if let Some(n) = groups.iter().find(|n| **n > shared.limits.groups_per_axis) {
            return refuse(format!("asked for {n} workgroups along an axis"));
        }
        if groups.contains(&0) {
            return Ok(());
        }
        let id = |i: usize| buffers[i].0.chunk.id;
        let compiled = pipeline.compiled(shared, |a, b| id(a) == id(b))?;
        params.bytes.resize(shader.param_bytes() as usize, 0);
        let chunks: SmallVec<_> = buffers.iter().map(|b| b.0.chunk.clone()).collect();
        shared.send(
            Command::Dispatch(Dispatch { compiled, chunks, params: params.bytes, groups, label }),
            label,
        )?;
        Ok(())
    }

    // ---- waiting ----------------------------------------------------------------------------------------------------

    /// Hands over what was queued, without waiting for it.
    pub fn flush(&self) -> Result<()> {
        self.0.send(Command::Flush, "flushing the GPU's queue").map(|_| ())
    }

    /// Waits for everything queued so far.
    ///
    /// # Errors
    /// The first error of what was queued, once; its message names the operation.
    pub fn wait(&self) -> Result<()> {
        self.0.wait_for(self.0.mailbox.last(), "waiting for the GPU")
    }

    /// The point in the queue after everything queued so far.
    pub fn fence(&self) -> Fence {
        Fence { shared: self.0.clone(), seq: self.0.mailbox.last() }
    }

    /// Counts bytes of arrays that an operator read or wrote.
    pub fn touched(&self, bytes: u64) {
        add(&self.0.counters.bytes_touched, bytes);
    }
    pub fn counts(&self) -> Counts {
        self.0.counters.read()
    }
    pub fn reset_counts(&self) {
        self.0.counters.reset();
    }

    /// Waits for what was queued and ends the worker; commands are refused from here on.
    pub fn close(&self) {
        let _ = self.wait();
        self.0.mailbox.push(Command::Stop);
        // Returns when the worker has ended: it never comes that far.
        let _ = self.0.progress.submission_of(u64::MAX);
    }

    /// Gives the device up, as if the driver had lost it: commands fail from here on.
    pub fn destroy(&self) {
        self.0.raw.destroy();
        self.0.faults.lose("it was destroyed".into());
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.0.name)
    }
}

impl Fence {
    /// Waits until the device has come here.
    ///
    /// # Errors
    /// The first error of what was queued before, once.
    pub fn wait(&self) -> Result<()> {
        self.shared.wait_for(self.seq, "waiting for the GPU")
    }
    pub fn is_done(&self) -> bool {
        self.shared.progress.is_done(self.seq)
    }
}

impl Shared {
    pub fn send(&self, command: Command, label: &str) -> Result<u64> {
        self.faults.check(label)?;
        self.mailbox.push(command).ok_or_else(|| {
            let ended = || Error::op(format!("{label}: the GPU was shut down"));
            self.faults.check(label).err().unwrap_or_else(ended)
        })
    }

    /// Waits until command `seq` is through, and reports what went wrong up to it.
    pub fn wait_for(&self, seq: u64, label: &str) -> Result<()> {
        add(&self.counters.waits, 1);
        self.settle(seq);
        self.faults.take(seq)?;
        self.faults.check(label)
    }

    /// Waits until command `seq` is through, however it went.
    pub fn settle(&self, seq: u64) {
        if self.progress.is_done(seq) || self.faults.is_lost() {
            return;
        }
        if !self.progress.submitted(seq) {
            self.mailbox.push(Command::Flush);
        }
        while let Some((last, index)) = self.progress.submission_of(seq) {
            self.poll_until(last, index);
            if self.faults.is_lost() {
                return;
            }
        }
    }

    /// Waits for a submission whose last command is `seq`.
    pub fn poll_until(&self, seq: u64, index: wgpu::SubmissionIndex) {
        let timeout = Some(Duration::from_secs(5));
        let wait = wgpu::PollType::Wait { submission_index: Some(index), timeout };
        match self.raw.poll(wait) {
            Err(wgpu::PollError::Timeout) => {}
            // Any other refusal means that nothing of it is left to wait for.
            Ok(_) | Err(_) => self.progress.complete(seq),
        }
    }
}
