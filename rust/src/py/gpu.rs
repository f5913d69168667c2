//! What Python asks about GPUs: which there are, their memory, and what was sent to them.

use super::convert::IntoPy;
use crate::device::{Context, DeviceKind, gpu};
use crate::engine::trace;
use mxrs_base::Result;
use pyo3::prelude::*;
use pyo3::types::PyDict;

type Dict<'py> = Bound<'py, PyDict>;
/// Something that the profiler noted: `(name, category, thread, begin_us, end_us, bytes)`.
pub type Event = (String, &'static str, u64, f64, f64, usize);

fn device(id: i32) -> Result<mxrs_gpu::Device> {
    gpu(Context { kind: DeviceKind::Gpu, id })
}

/// How many GPUs there are.
#[pyfunction]
pub fn num_gpus(py: Python<'_>) -> usize {
    py.detach(|| mxrs_gpu::adapters().len())
}

/// What was looked for and found, in words.
#[pyfunction]
pub fn gpu_search(py: Python<'_>) -> String {
    py.detach(mxrs_gpu::describe)
}

/// Every GPU: name, kind, backend, driver, features, limits, memory (bytes, or None where the driver does not tell).
#[pyfunction]
pub fn gpu_list<'py>(py: Python<'py>) -> PyResult<Vec<Dict<'py>>> {
    let mut all = Vec::new();
    for adapter in py.detach(mxrs_gpu::adapters) {
        let d = PyDict::new(py);
        d.set_item("name", &adapter.name)?;
        d.set_item("kind", adapter.kind.name())?;
        d.set_item("backend", adapter.backend)?;
        d.set_item("driver", &adapter.driver)?;
        d.set_item("memory", adapter.memory)?;
        d.set_item("features", adapter.features.names())?;
        let limits = PyDict::new(py);
        limits.set_item("buffer bytes", adapter.limits.buffer_bytes)?;
        limits.set_item("storage buffers", adapter.limits.storage_buffers)?;
        limits.set_item("workgroup bytes", adapter.limits.workgroup_bytes)?;
        limits.set_item("workgroup size", adapter.limits.workgroup_size)?;
        limits.set_item("immediate bytes", adapter.limits.immediate_bytes)?;
        limits.set_item("groups per axis", adapter.limits.groups_per_axis)?;
        limits.set_item("subgroup size", adapter.limits.subgroup_size)?;
        d.set_item("limits", limits)?;
        all.push(d);
    }
    Ok(all)
}

/// Bytes of one GPU: `used` by arrays, `pooled` for reuse, `peak` of used, `total` of the device (or None). With `reset_peak` the
/// next peak counts from now.
#[pyfunction]
#[pyo3(signature = (id=0, reset_peak=false))]
pub fn gpu_memory<'py>(py: Python<'py>, id: i32, reset_peak: bool) -> PyResult<Dict<'py>> {
    let device = py.detach(|| device(id)).py(py)?;
    let memory = device.memory();
    if reset_peak {
        device.reset_peak();
    }
    let d = PyDict::new(py);
    d.set_item("used", memory.used)?;
    d.set_item("pooled", memory.pooled)?;
    d.set_item("peak", memory.peak)?;
    d.set_item("total", device.memory_size())?;
    Ok(d)
}

/// Bounds what arrays and the pool of one GPU take together; `None` lifts the bound.
#[pyfunction]
#[pyo3(signature = (id, limit))]
pub fn set_gpu_memory_limit(py: Python<'_>, id: i32, limit: Option<u64>) -> PyResult<()> {
    py.detach(|| device(id)).py(py)?.set_memory_limit(limit);
    Ok(())
}

/// Waits for GPUs and lets them go: drivers do not like to be left at work when a process ends.
#[pyfunction]
pub fn gpu_shutdown(py: Python<'_>) {
    py.detach(mxrs_gpu::shutdown);
}

/// The dispatches that GPUs have done since the last time, as events of the profiler.
pub fn gpu_spans() -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for (number, device) in mxrs_gpu::devices() {
        for span in device.profile_take()? {
            let (Some(begin), Some(end)) = (trace::moment(span.begin), trace::moment(span.end)) else {
                continue;
            };
            let name = format!("{}: {}", span.label, span.kernel);
            events.push((name, "gpu", number as u64, begin, end, 0));
        }
    }
    Ok(events)
}

/// Gives one GPU up as if its driver had lost it: what is queued there fails, later calls open it afresh. For tests.
#[pyfunction]
pub fn gpu_destroy(py: Python<'_>, id: i32) -> PyResult<()> {
    py.detach(|| device(id)).py(py)?.destroy();
    Ok(())
}

/// What was sent to one GPU since the last call with `reset`, by kind.
#[pyfunction]
#[pyo3(signature = (id=0, reset=false))]
pub fn gpu_counts<'py>(py: Python<'py>, id: i32, reset: bool) -> PyResult<Dict<'py>> {
    let device = py.detach(|| device(id)).py(py)?;
    let counts = device.counts();
    if reset {
        device.reset_counts();
    }
    let d = PyDict::new(py);
    for (name, count) in counts.list() {
        d.set_item(name, count)?;
    }
    Ok(d)
}
