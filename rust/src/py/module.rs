//! The extension module `mxrs._core`.

use super::call;
use super::convert::{self, IntoPy, exceptions};
use super::exec;
use super::gpu::{
    Event, gpu_counts, gpu_destroy, gpu_list, gpu_memory, gpu_search, gpu_shutdown, gpu_spans, num_gpus,
    set_gpu_memory_limit,
};
use super::numpy;
use super::object::{self, bound, extract};
use super::record::{
    backward, copied_to, copying, drop_grad, grad, grad_of, is_linked, is_recording, is_training,
    mark_variable, record_custom, set_recording, set_training,
};
use super::symbol::{
    self, set_symbol_class, symbol_from_json, symbol_function, symbol_group, symbol_methods, symbol_variable,
};
use crate::array::{self, Array};
use crate::device::{self, Context};
use crate::engine::{self, Waited};
use crate::memory;
use crate::ops::{self, Kind, Spec, registry, show};
use mxrs_base::{DType, Shape};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple, PyType};
use std::time::Duration;

type Any<'py> = Bound<'py, PyAny>;

fn shape_of(dims: &[i64], py: Python<'_>) -> PyResult<Shape> {
    Shape::from_i64(dims).py(py)
}

fn context_of(device: Option<(i64, i32)>, py: Python<'_>) -> PyResult<Context> {
    device.map_or(Ok(call::current_context()), |(kind, id)| Context::new(kind, id).py(py))
}

/// An array holding a copy of a C-contiguous buffer in native byte order. `flag` is the element type.
#[pyfunction]
#[pyo3(signature = (buffer, flag, shape, device=None))]
fn from_buffer<'py>(
    py: Python<'py>,
    buffer: &Any<'py>,
    flag: i64,
    shape: Vec<i64>,
    device: Option<(i64, i32)>,
) -> PyResult<Any<'py>> {
    let spec = Spec::new(shape_of(&shape, py)?, DType::from_flag(flag).py(py)?);
    let context = context_of(device, py)?;
    let view = PyUntypedBuffer::get(buffer)?;
    let bytes = spec.bytes().py(py)?;
    if !view.is_c_contiguous() || view.len_bytes() != bytes {
        return Err(PyValueError::new_err("the buffer is not a C-contiguous block of the array's size"));
    }
    // SAFETY: the view holds `bytes` contiguous bytes and stays exported during the copy.
    let bytes = unsafe { std::slice::from_raw_parts(view.buf_ptr().cast::<u8>(), bytes) };
    bound(py, Array::from_bytes(bytes, spec, context).map_err(|e| copying(e, context)).py(py)?)
}

struct Owner(#[allow(dead_code)] Py<PyAny>);

/// An array over the memory at `address`, which `owner` keeps alive; nothing is copied.
#[pyfunction]
#[pyo3(signature = (address, flag, shape, owner, device=None))]
fn from_memory<'py>(
    py: Python<'py>,
    address: usize,
    flag: i64,
    shape: Vec<i64>,
    owner: Py<PyAny>,
    device: Option<(i64, i32)>,
) -> PyResult<Any<'py>> {
    let spec = Spec::new(shape_of(&shape, py)?, DType::from_flag(flag).py(py)?);
    let context = context_of(device, py)?;
    if address == 0 && spec.shape.size() > 0 {
        return Err(PyValueError::new_err("the memory's address is null"));
    }
    // SAFETY: private to the package, whose callers pass the address and size of an object that `owner` keeps alive.
    let array = unsafe { Array::from_foreign(address as *mut u8, spec, context, Box::new(Owner(owner))) };
    bound(py, array.py(py)?)
}

/// The address of the first element; wait before reading it.
#[pyfunction]
fn address(array: &Any<'_>) -> PyResult<usize> {
    let array = extract(array)?;
    match array.context().is_host() {
        true => Ok(array.ptr() as usize),
        false => Err(PyTypeError::new_err(format!(
            "memory of {} has no address; copy it with as_in_context(mx.cpu())",
            array.context()
        ))),
    }
}

/// The values as bytes.
#[pyfunction]
fn to_bytes<'py>(py: Python<'py>, array: &Any<'py>) -> PyResult<Bound<'py, PyBytes>> {
    let array = extract(array)?;
    object::wait(py, &array)?;
    let array = py.detach(|| array.to_host()).py(py)?;
    let n = array.spec().bytes().py(py)?;
    // SAFETY: waited for; the window holds `n` bytes.
    Ok(PyBytes::new(py, unsafe { std::slice::from_raw_parts(array.ptr(), n) }))
}

/// The elements from `skip` on as an array of `shape` that shares memory; recorded.
#[pyfunction]
fn window<'py>(py: Python<'py>, array: &Any<'py>, skip: usize, shape: Vec<i64>) -> PyResult<Any<'py>> {
    bound(py, array::view(&extract(array)?, skip, shape_of(&shape, py)?).py(py)?)
}

/// The same memory without its place on the tape.
#[pyfunction]
fn detach<'py>(py: Python<'py>, array: &Any<'py>) -> PyResult<Any<'py>> {
    bound(py, extract(array)?.detach())
}

/// Whether both are the same window of the same memory.
#[pyfunction]
fn same_memory(a: &Any<'_>, b: &Any<'_>) -> PyResult<bool> {
    Ok(extract(a)?.same_memory(&extract(b)?))
}

/// A copy of the array on another context.
#[pyfunction]
fn copy_to_context<'py>(py: Python<'py>, array: &Any<'py>, device: (i64, i32)) -> PyResult<Any<'py>> {
    let source = extract(array)?;
    bound(py, copied_to(&source, context_of(Some(device), py)?).py(py)?)
}

/// Waits until everything issued is done; raises the first error that nobody has seen.
#[pyfunction]
fn waitall(py: Python<'_>) -> PyResult<()> {
    loop {
        let waited = py.detach(|| engine::wait_all(Some(Duration::from_millis(50))));
        if waited.py(py)? == Waited::Done {
            return Ok(());
        }
        py.check_signals()?;
    }
}

#[pyfunction]
#[pyo3(signature = (seed, device=None))]
fn seed(py: Python<'_>, seed: i64, device: Option<(i64, i32)>) -> PyResult<()> {
    let context = device.map(|d| context_of(Some(d), py)).transpose()?;
    array::seed(seed as u64, context);
    Ok(())
}

#[pyfunction]
fn current_context() -> (u8, i32) {
    let c = call::current_context();
    (c.kind as u8, c.id)
}

/// Sets the thread's default context and gives the one before.
#[pyfunction]
fn set_current_context(py: Python<'_>, kind: i64, id: i32) -> PyResult<(u8, i32)> {
    let before = call::set_current_context(Context::new(kind, id).py(py)?);
    Ok((before.kind as u8, before.id))
}

#[pyfunction]
fn set_result_class(class: &Any<'_>) -> PyResult<()> {
    object::set_result_class(class)
}

/// The subclass of numpy.ndarray that `asnumpy` gives for arrays with one element and an axis or more.
#[pyfunction]
fn set_one_element_class(py: Python<'_>, class: &Bound<'_, PyType>) -> PyResult<()> {
    if !class.is_subclass(&py.import("numpy")?.getattr("ndarray")?)? {
        return Err(PyTypeError::new_err("set_one_element_class: a subclass of numpy.ndarray is expected"));
    }
    numpy::set_one_element_class(class);
    Ok(())
}

/// Sets what makes an array of a foreign value in arithmetic (or gives None).
#[pyfunction]
fn set_converter(f: Py<PyAny>) {
    call::set_converter(f);
}

/// Sets how many calls a GPU's deferred window holds; returns the number before.
#[pyfunction]
fn set_window_size(py: Python<'_>, size: usize) -> usize {
    py.detach(|| array::set_window_size(size))
}

#[pyfunction]
fn set_naive_engine(py: Python<'_>, naive: bool) {
    py.detach(|| engine::set_naive(naive));
}

#[pyfunction]
fn is_naive_engine() -> bool {
    engine::is_naive()
}

#[pyfunction]
fn memory_stats<'py>(py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
    let s = memory::stats();
    let dict = PyDict::new(py);
    dict.set_item("used", s.used)?;
    dict.set_item("cached", s.cached)?;
    dict.set_item("peak", s.peak)?;
    Ok(dict)
}

/// Gives memory that is kept for reuse back: the host's, or a GPU's.
#[pyfunction]
#[pyo3(signature = (device=None))]
fn memory_trim(py: Python<'_>, device: Option<(i64, i32)>) -> PyResult<()> {
    let context = device.map_or(Ok(Context::CPU), |(kind, id)| Context::new(kind, id)).py(py)?;
    if context.is_host() {
        memory::trim();
        return Ok(());
    }
    py.detach(|| device::gpu(context).and_then(|gpu| gpu.empty_pool())).py(py)
}

#[pyfunction]
fn before_fork() {
    engine::before_fork();
}
#[pyfunction]
fn after_fork_in_child() {
    engine::after_fork_in_child();
    device::after_fork_in_child();
}

/// Starts to record what runs; times count from here.
#[pyfunction]
fn profiler_start(py: Python<'_>) -> PyResult<()> {
    py.detach(|| {
        engine::trace::start();
        mxrs_gpu::profile_all(true)
    })
    .py(py)
}
#[pyfunction]
fn profiler_stop(py: Python<'_>) -> PyResult<()> {
    py.detach(|| {
        engine::trace::stop();
        mxrs_gpu::profile_all(false)
    })
    .py(py)
}
/// What was recorded: `(name, category, thread, begin_us, end_us, bytes)`; the "thread" of a GPU is its number, and its
/// category `gpu`.
#[pyfunction]
fn profiler_take(py: Python<'_>) -> PyResult<Vec<Event>> {
    let events = engine::trace::take();
    let mut all: Vec<_> =
        events.into_iter().map(|e| (e.name, e.category, e.thread, e.begin, e.end, e.bytes)).collect();
    all.extend(py.detach(gpu_spans).py(py)?);
    Ok(all)
}

/// Threads that share one operation's work.
#[pyfunction]
fn lane_count() -> usize {
    mxrs_lanes::count()
}

/// Names of operators close to `name`.
#[pyfunction]
fn similar_ops(name: &str) -> Vec<&'static str> {
    registry::similar(name, 3)
}

/// Completes unknown input shapes (None) of an operator from the known ones.
#[pyfunction]
fn complete_shapes<'py>(
    py: Python<'py>,
    name: &str,
    attrs: &Bound<'py, PyDict>,
    shapes: Vec<Option<Vec<i64>>>,
) -> PyResult<Vec<Option<Vec<i64>>>> {
    let op =
        registry::find(name).ok_or_else(|| PyValueError::new_err(format!("no operator is named {name}")))?;
    let mut slots = vec![None; op.params.len()];
    for (key, value) in attrs.iter() {
        let key: String = key.extract()?;
        let i = op
            .param_index(&key)
            .ok_or_else(|| PyTypeError::new_err(format!("{name} has no parameter {key}")))?;
        slots[i] = convert::attr(&value, op.name, &op.params[i])?;
    }
    let attrs = ops::Attrs::from_slots(op, slots).py(py)?;
    let mut known = shapes
        .iter()
        .map(|s| s.as_ref().map(|d| shape_of(d, py)).transpose())
        .collect::<PyResult<Vec<_>>>()?;
    if let Some(complete) = &op.complete {
        complete(&attrs, &mut known).py(py)?;
    }
    Ok(known.into_iter().map(|s| s.map(|s| s.to_i64())).collect())
}

/// Every operator's record, for documentation, stubs and derived tests.
#[pyfunction]
fn list_ops<'py>(py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for op in registry::all() {
        let d = PyDict::new(py);
        d.set_item("name", op.name)?;
        d.set_item("aliases", &op.aliases)?;
        d.set_item("methods", &op.methods)?;
        d.set_item("doc", op.doc)?;
        d.set_item("hidden", op.hidden)?;
        d.set_item("random", op.random)?;
        d.set_item("trains", op.trains)?;
        d.set_item("gpu", ops::has_gpu_body(op))?;
        d.set_item("states", (0..op.inputs.len()).filter(|i| op.is_state(*i)).collect::<Vec<_>>())?;
        d.set_item("counted", op.input_count.is_some())?;
        d.set_item("variadic", op.variadic)?;
        d.set_item("inputs", op.inputs.iter().map(|i| (i.name, i.doc)).collect::<Vec<_>>())?;
        let grade = match &op.body {
            ops::Body::Formula { .. } => "formula",
            ops::Body::Compose(_) => "compose",
            ops::Body::Kernel(_) => "kernel",
        };
        d.set_item("grade", grade)?;
        let gradient = match &op.gradient {
            ops::Gradient::Derived => "derived",
            ops::Gradient::Rule(_) => "rule",
            ops::Gradient::Zero => "zero",
            ops::Gradient::Refused => "none",
        };
        d.set_item("gradient", gradient)?;
        if let ops::Body::Formula { formula, .. } = &op.body {
            d.set_item("formula", formula.text())?;
        }
        let params = PyList::empty(py);
        for p in &op.params {
            let q = PyDict::new(py);
            q.set_item("name", p.name)?;
            q.set_item("type", p.type_text())?;
            q.set_item("doc", p.doc)?;
            q.set_item("required", p.default.is_none())?;
            q.set_item("nullable", p.nullable)?;
            q.set_item("default", p.default.as_ref().map(show))?;
            if let Kind::Choice(names) = p.kind {
                q.set_item("choices", names)?;
            }
            params.append(q)?;
        }
        d.set_item("params", params)?;
        let samples = PyList::empty(py);
        for s in &op.samples {
            let q = PyDict::new(py);
            let inputs = PyList::empty(py);
            for i in &s.inputs {
                let r = PyDict::new(py);
                r.set_item("shape", PyTuple::new(py, &i.shape)?)?;
                r.set_item("dtype", i.dtype.name())?;
                r.set_item("low", i.low)?;
                r.set_item("high", i.high)?;
                r.set_item("integer", i.integer)?;
                inputs.append(r)?;
            }
            q.set_item("inputs", inputs)?;
            let attrs = PyDict::new(py);
            for (name, value) in &s.attrs {
                attrs.set_item(name, convert::to_python(py, value)?)?;
            }
            q.set_item("attrs", attrs)?;
            samples.append(q)?;
        }
        d.set_item("samples", samples)?;
        list.append(d)?;
    }
    Ok(list)
}

/// The user's source line, for errors that surface after the call returned.
fn origin() -> Option<String> {
    Python::try_attach(|py| {
        let frame = py.import("sys").ok()?.getattr("_getframe").ok()?.call0().ok()?;
        let file: String = frame.getattr("f_code").ok()?.getattr("co_filename").ok()?.extract().ok()?;
        let line: usize = frame.getattr("f_lineno").ok()?.extract().ok()?;
        Some(format!("{file}:{line}"))
    })?
}

#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    let all = exceptions(py)?;
    m.add("MXNetError", all.base.clone_ref(py))?;
    m.add("MXNetValueError", all.value.clone_ref(py))?;
    m.add("MXNetTypeError", all.typ.clone_ref(py))?;
    m.add("MXNetIndexError", all.index.clone_ref(py))?;
    m.add("MXNetNotImplementedError", all.missing.clone_ref(py))?;
    m.add("MXNetMemoryError", all.memory.clone_ref(py))?;
    m.add("NDArrayBase", object::make_type(py)?)?;
    m.add("ops", call::functions(py)?)?;
    m.add_class::<symbol::SymbolBase>()?;
    m.add_class::<exec::ExecutorBase>()?;
    m.add_function(wrap_pyfunction!(exec::search_plan, m)?)?;
    m.add_class::<exec::CachedOpBase>()?;
    call::install_methods(py)?;
    array::set_origin_hook(origin);
    macro_rules! functions {
        ($($f:ident)*) => { $( m.add_function(wrap_pyfunction!($f, m)?)?; )* };
    }
    functions! {
        from_buffer from_memory address to_bytes window detach same_memory copy_to_context
        set_recording is_recording set_training is_training
        mark_variable grad_of drop_grad is_linked backward grad record_custom
        waitall seed current_context set_current_context set_result_class set_one_element_class set_converter
        set_naive_engine set_window_size is_naive_engine memory_stats memory_trim
        profiler_start profiler_stop profiler_take
        before_fork after_fork_in_child lane_count
        similar_ops complete_shapes list_ops
        set_symbol_class symbol_variable symbol_group symbol_from_json symbol_function
        symbol_methods
        num_gpus gpu_search gpu_list gpu_memory set_gpu_memory_limit gpu_counts gpu_shutdown gpu_destroy
    }
    Ok(())
}
