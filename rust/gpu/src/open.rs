//! The devices that a process has open: one for each adapter, found again by number.

use crate::adapter::{self, Profile};
use crate::device::Device;
use mxrs_base::{Error, Result};
use parking_lot::Mutex;

/// A device, its number and its adapter: where that stands (the list is made once and never moves), and which copy of it where it
/// counts several times.
struct Entry {
    number: usize,
    adapter: (usize, usize),
    device: Device,
}

struct Open {
    /// Who opened them: drivers do not survive a fork.
    pid: u32,
    entries: Vec<Entry>,
    /// Whether devices are timed, also those that are opened later.
    timed: bool,
}

static OPEN: Mutex<Open> = Mutex::new(Open { pid: 0, entries: Vec::new(), timed: false });

const FORKED: &str = "this process was forked from one that uses the GPU, and drivers do not survive that; start it \
                      afresh (multiprocessing's 'spawn'), or use the GPU only after the fork";

/// In a child that was just forked: devices of the parent refuse commands, for their workers do not exist here.
pub fn after_fork_in_child() {
    // Where another thread held the lock at the fork, nobody will ever give it back.
    let Some(open) = OPEN.try_lock() else { return };
    open.entries.iter().for_each(|e| e.device.0.faults.lose(FORKED.into()));
}

/// Waits for every open device and ends its worker. Devices opened before refuse commands afterwards.
pub fn shutdown() {
    let mut open = OPEN.lock();
    let entries = std::mem::take(&mut open.entries);
    let ours = open.pid == std::process::id();
    drop(open);
    if ours {
        entries.iter().for_each(|e| e.device.close());
    }
}

/// The devices that are open, with their numbers.
pub fn devices() -> Vec<(usize, Device)> {
    let open = OPEN.lock();
    let mine = open.pid == std::process::id();
    open.entries.iter().filter(|_| mine).map(|e| (e.number, e.device.clone())).collect()
}

/// Waits for everything queued on every open device.
///
/// # Errors
/// The first error that nobody has seen.
pub fn wait_all() -> Result<()> {
    let waited = devices().iter().map(|(_, device)| device.wait()).fold(Ok(()), Result::and);
    // A lost device was reported now; the next use opens it afresh.
    let mut open = OPEN.lock();
    if open.pid == std::process::id() {
        open.entries.retain(|e| !e.device.is_lost());
    }
    waited
}

/// Times the dispatches of all devices from here on ([`Device::profile_start`]), or stops doing so.
pub fn profile_all(on: bool) -> Result<()> {
    OPEN.lock().timed = on;
    for (_, device) in devices() {
        if on { device.profile_start().map(|_| ())? } else { device.profile_stop()? }
    }
    Ok(())
}

impl Device {
    /// The `i`-th adapter, opened. Later calls return the same device, or a fresh one where it was lost.
    ///
    /// # Errors
    /// Where there is no such adapter; the message says what was looked for and found.
    pub fn get(i: usize) -> Result<Device> {
        let mut open = OPEN.lock();
        let pid = std::process::id();
        if open.entries.is_empty() {
            open.pid = pid;
        }
        if open.pid != pid {
            return Err(Error::op(format!("gpu({i}): {FORKED}")));
        }
        if let Some(entry) = open.entries.iter().find(|e| e.number == i && !e.device.is_lost()) {
            return Ok(entry.device.clone());
        }
        let adapters = adapter::adapters();
        let Some(adapter) = adapters.get(i) else {
            let have = match adapters.len() {
                0 => "there is no GPU".to_string(),
                1 => "there is one GPU, gpu(0)".to_string(),
                n => format!("there are {n} GPUs, gpu(0) to gpu({})", n - 1),
            };
            return Err(Error::op(format!("gpu({i}): {have}; {}", adapter::describe())));
        };
        let copy = adapters[..i].iter().filter(|a| std::ptr::eq(**a, *adapter)).count();
        let place = (std::ptr::from_ref(*adapter) as usize, copy);
        // Known by another number where more adapters count by now.
        let known = open.entries.iter().find(|e| e.adapter == place && !e.device.is_lost());
        let device = match known {
            Some(entry) => entry.device.clone(),
            None => {
                let device = Device::open(adapter, profile()?)?;
                if open.timed {
                    device.profile_start()?;
                }
                device
            }
        };
        open.entries.retain(|e| e.adapter != place);
        open.entries.push(Entry { number: i, adapter: place, device: device.clone() });
        Ok(device)
    }
}

/// What `MXRS_GPU_LIMITS` asks for.
fn profile() -> Result<Profile> {
    match std::env::var("MXRS_GPU_LIMITS").as_deref() {
        Ok("webgpu") => Ok(Profile::WebGpu),
        Ok("metal") => Ok(Profile::Metal),
        Ok("") | Err(_) => Ok(Profile::Full),
        Ok(other) => Err(Error::value(format!("MXRS_GPU_LIMITS={other}: allowed are webgpu and metal"))),
    }
}
