//! What a device is: a context that names it and the storage that lives on it.
//!
//! Host memory is addressed directly; memory of a GPU is a buffer that only its device reads and writes.

use crate::memory::Block;
use mxrs_base::{Error, Result};
pub use mxrs_gpu::{Buffer, Device};
use std::fmt;
use std::sync::OnceLock;

/// The kinds of device, numbered as in MXNet's files and `device_typeid`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum DeviceKind {
    Cpu = 1,
    Gpu = 2,
    CpuPinned = 3,
    CpuShared = 5,
}

/// Where an array lives. `cpu(0)` and `cpu(1)` are distinct contexts over the same memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Context {
    pub kind: DeviceKind,
    pub id: i32,
}

impl Context {
    pub const CPU: Context = Context { kind: DeviceKind::Cpu, id: 0 };

    pub fn new(type_id: i64, id: i32) -> Result<Context> {
        let kind = match type_id {
            1 => DeviceKind::Cpu,
            2 => DeviceKind::Gpu,
            3 => DeviceKind::CpuPinned,
            5 => DeviceKind::CpuShared,
            other => {
                return Err(Error::value(format!("unknown device type {other}; known are 1, 2, 3 and 5")));
            }
        };
        Ok(Context { kind, id })
    }

    /// Reads `cpu(0)`, `gpu(1)`, `cpu`, `cpu_pinned(0)`.
    pub fn parse(text: &str) -> Result<Context> {
        let bad = || Error::value(format!("'{text}' is not a context; write cpu(0) or gpu(0)"));
        let (name, id) = match text.split_once('(') {
            Some((name, rest)) => {
                (name, rest.strip_suffix(')').and_then(|n| n.trim().parse().ok()).ok_or_else(bad)?)
            }
            None => (text, 0),
        };
        let kind = match name.trim() {
            "cpu" => DeviceKind::Cpu,
            "gpu" => DeviceKind::Gpu,
            "cpu_pinned" => DeviceKind::CpuPinned,
            "cpu_shared" => DeviceKind::CpuShared,
            _ => return Err(bad()),
        };
        Ok(Context { kind, id })
    }

    #[inline]
    pub fn is_host(self) -> bool {
        self.kind != DeviceKind::Gpu
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            DeviceKind::Cpu => "cpu",
            DeviceKind::Gpu => "gpu",
            DeviceKind::CpuPinned => "cpu_pinned",
            DeviceKind::CpuShared => "cpu_shared",
        };
        write!(f, "{name}({})", self.id)
    }
}

/// The device of a GPU context.
pub fn gpu(context: Context) -> Result<Device> {
    let i = usize::try_from(context.id)
        .map_err(|_| Error::value(format!("{context} is not a device; they are counted from 0")))?;
    Device::get(i)
}

/// In a child that was just forked: GPUs of the parent are of no use here, and calls on them say so.
pub fn after_fork_in_child() {
    mxrs_gpu::after_fork_in_child();
}

/// Waits for all that was sent to GPUs; the first error that nobody has seen.
pub fn wait_gpus() -> Result<()> {
    mxrs_gpu::wait_all()
}

/// The memory behind an array.
pub enum Storage {
    /// From the pool.
    Pooled(Block),
    /// Somebody else's memory (a NumPy array, a DLPack tensor), kept alive by `owner`.
    Foreign { ptr: *mut u8, owner: Box<dyn Send + Sync> },
    /// On a GPU. Where the writer is held back, there is no buffer until it is issued.
    Gpu(OnceLock<Buffer>),
}

// SAFETY: the pointer of `Foreign` stays valid while `owner` lives, and access to it is ordered by the engine.
unsafe impl Send for Storage {}
// SAFETY: as above; shared access hands out only a raw pointer.
unsafe impl Sync for Storage {}

impl Storage {
    /// `bytes` of undefined content on `context`.
    pub fn new(bytes: usize, context: Context) -> Result<Storage> {
        match context.is_host() {
            true => Block::new(bytes).map(Storage::Pooled),
            false => {
                let storage = Storage::Gpu(OnceLock::new());
                storage.fill(bytes, context).map(|()| storage)
            }
        }
    }

    /// Memory of a GPU that [`Storage::fill`] is to provide.
    pub fn unfilled() -> Storage {
        Storage::Gpu(OnceLock::new())
    }

    /// Provides memory where there is none yet.
    pub fn fill(&self, bytes: usize, context: Context) -> Result<()> {
        if let Storage::Gpu(cell) = self
            && cell.get().is_none()
        {
            // A buffer has at least a byte, so that an empty array has a place, too.
            let buffer = gpu(context)?.alloc(bytes.max(1) as u64)?;
            // Of two that came at once either will do.
            let _ = cell.set(buffer);
        }
        Ok(())
    }

    /// The address of host memory; null for memory of a GPU.
    #[inline]
    pub fn host_ptr(&self) -> *mut u8 {
        match self {
            Storage::Pooled(block) => block.as_ptr(),
            Storage::Foreign { ptr, .. } => *ptr,
            Storage::Gpu(_) => std::ptr::null_mut(),
        }
    }

    /// The buffer of memory on a GPU.
    #[inline]
    pub fn buffer(&self) -> Option<&Buffer> {
        match self {
            Storage::Gpu(buffer) => buffer.get(),
            _ => None,
        }
    }
}
