//! The functions and methods that Python calls operators by.
//!
//! Each is a C function with the fast calling convention. Positional arguments are the tensors and then the parameters,
//! in the order of the record; keywords are found by comparing interned pointers.

use super::convert::{self, IntoPy, guard, raise};
use super::docs;
use super::object::{array_of, base_type, bound, extract, is_array, set_link, wrap};
use crate::array::{Array, Arrays, invoke};
use crate::device::Context;
use crate::ops::{Attrs, OpRef, registry};
use mxrs_base::{AttrValue, Error, Shape};
use parking_lot::RwLock;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};
use smallvec::SmallVec;
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::OnceLock;

thread_local! {
    /// Where operators without inputs put their result.
    static CONTEXT: Cell<Context> = const { Cell::new(Context::CPU) };
}

pub fn current_context() -> Context {
    CONTEXT.get()
}
pub fn set_current_context(context: Context) -> Context {
    CONTEXT.replace(context)
}

/// What a keyword names.
#[derive(Clone, Copy)]
enum Place {
    Input(usize),
    Param(usize),
    Out,
    /// Accepted and without effect in a call: the name of a graph node.
    Ignored,
}

/// What a call needs to know of its operator.
struct Entry {
    op: OpRef,
    /// Interned keyword strings, kept for ever, and what they name.
    keywords: Vec<(*mut ffi::PyObject, Place)>,
}

// SAFETY: the pointers are interned strings that are never freed; they are only compared.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

fn entries() -> &'static [Entry] {
    static ENTRIES: OnceLock<Vec<Entry>> = OnceLock::new();
    ENTRIES.get_or_init(|| {
        // SAFETY: only called while attached: from module initialisation.
        let py = unsafe { Python::assume_attached() };
        registry::all().iter().map(|op| entry(py, op)).collect()
    })
}

fn entry(py: Python<'_>, op: OpRef) -> Entry {
    let mut keywords = Vec::new();
    let mut add = |name: &str, place| keywords.push((PyString::intern(py, name).into_ptr(), place));
    if op.variadic.is_none() {
        op.inputs.iter().enumerate().for_each(|(i, input)| add(input.name, Place::Input(i)));
    }
    op.params.iter().enumerate().for_each(|(i, param)| add(param.name, Place::Param(i)));
    add("out", Place::Out);
    add("name", Place::Ignored);
    Entry { op, keywords }
}

/// The arguments of a call, sorted out.
struct Call<'py> {
    tensors: SmallVec<[Option<Bound<'py, PyAny>>; 4]>,
    slots: SmallVec<[Option<AttrValue>; 6]>,
    out: Option<Bound<'py, PyAny>>,
}

impl<'py> Call<'py> {
    fn positional(&mut self, entry: &Entry, value: Bound<'py, PyAny>, i: usize) -> PyResult<()> {
        let op = entry.op;
        if op.variadic.is_some() {
            // A list stands for its items, as in nd.concat(*list) written without the star.
            if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
                for item in value.try_iter()? {
                    self.tensors.push(Some(item?));
                }
                return Ok(());
            }
            self.tensors.push(Some(value));
            return Ok(());
        }
        let inputs = op.inputs.len();
        if i < inputs {
            return self.tensor(entry, i, value);
        }
        match op.params.get(i - inputs) {
            Some(param) => {
                self.slots[i - inputs] = convert::attr(&value, op.name, param)?;
                Ok(())
            }
            None => Err(PyTypeError::new_err(format!(
                "{} takes {} positional arguments; more were given",
                op.name,
                inputs + op.params.len()
            ))),
        }
    }

    fn tensor(&mut self, _entry: &Entry, i: usize, value: Bound<'py, PyAny>) -> PyResult<()> {
        while self.tensors.len() <= i {
            self.tensors.push(None);
        }
        self.tensors[i] = if value.is_none() { None } else { Some(value) };
        Ok(())
    }

    fn keyword(&mut self, entry: &Entry, name: *mut ffi::PyObject, value: Bound<'py, PyAny>) -> PyResult<()> {
        let op = entry.op;
        let found = entry.keywords.iter().find(|(k, _)| *k == name).map(|(_, place)| *place);
        match found {
            Some(Place::Input(i)) => self.tensor(entry, i, value),
            Some(Place::Param(i)) => {
                self.slots[i] = convert::attr(&value, op.name, &op.params[i])?;
                Ok(())
            }
            Some(Place::Out) => {
                self.out = (!value.is_none()).then_some(value);
                Ok(())
            }
            Some(Place::Ignored) => Ok(()),
            None => self.odd_keyword(entry, name, value),
        }
    }

    /// Keywords not found by pointer: made at run time, or MXNet's spellings of tensors of variadic operators.
    fn odd_keyword(
        &mut self,
        entry: &Entry,
        name: *mut ffi::PyObject,
        value: Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let py = value.py();
        // SAFETY: keyword names are live strings.
        let text = unsafe { Bound::from_borrowed_ptr(py, name) };
        let interned = PyString::intern(py, text.cast::<PyString>()?.to_str()?);
        if interned.as_ptr() != name && entry.keywords.iter().any(|(k, _)| *k == interned.as_ptr()) {
            return self.keyword(entry, interned.as_ptr(), value);
        }
        let (op, text) = (entry.op, text.to_string());
        if op.variadic == Some(text.as_str()) {
            return Ok(());
        }
        if op.variadic.is_some() && (text == "data" || text == "args" || text == op.inputs[0].name) {
            return self.positional(entry, value, 0);
        }
        if text == "ctx" || text.starts_with("__") {
            return Ok(());
        }
        let mut known: Vec<&str> = op.params.iter().map(|p| p.name).collect();
        if op.variadic.is_none() {
            known.extend(op.inputs.iter().map(|i| i.name));
        }
        known.push("out");
        let hint = match registry::closest(&text, known.iter().copied(), 1).first() {
            Some(near) => format!("; did you mean {near}?"),
            None => String::new(),
        };
        let message =
            format!("{}: no argument is named '{text}'{hint} (there are {})", op.name, known.join(", "));
        Err(raise(py, Error::typ(message)))
    }
}

/// # Safety
/// Called by CPython with the fast calling convention: `args` holds the positional values, then those of `names`.
unsafe fn call(
    py: Python<'_>,
    entry: &Entry,
    this: Option<*mut ffi::PyObject>,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> PyResult<*mut ffi::PyObject> {
    let op = entry.op;
    let mut call =
        Call { tensors: SmallVec::new(), slots: SmallVec::from_elem(None, op.params.len()), out: None };
    // SAFETY: CPython's promise about its arguments.
    unsafe {
        let shift = usize::from(this.is_some());
        if let Some(this) = this {
            call.positional(entry, Bound::from_borrowed_ptr(py, this), 0)?;
        }
        let count = count as usize;
        for i in 0..count {
            call.positional(entry, Bound::from_borrowed_ptr(py, *args.add(i)), i + shift)?;
        }
        if !names.is_null() {
            for i in 0..ffi::PyTuple_Size(names) {
                let value = Bound::from_borrowed_ptr(py, *args.add(count + i as usize));
                call.keyword(entry, ffi::PyTuple_GetItem(names, i), value)?;
            }
        }
    }
    if let Some(counter) = op.variadic
        && let Some(i) = op.param_index(counter)
    {
        call.slots[i] = Some(AttrValue::Int(call.tensors.len() as i64));
    }
    let attrs = Attrs::from_slots(op, call.slots).py(py)?;
    while matches!(call.tensors.last(), Some(None)) {
        call.tensors.pop();
    }
    if op.variadic.is_none() && op.input_names.is_some() {
        // Attributes choose among the inputs: those given are they, in order, whichever place they were given at.
        call.tensors.retain(|t| t.is_some());
    }
    if let Some(expected) = op.arity(&attrs) {
        // Users pass a bias that no_bias then switches off; what attributes switch off is not looked at.
        call.tensors.truncate(expected);
    }
    finish(py, op, &attrs, call.tensors, call.out)
}

fn finish<'py>(
    py: Python<'py>,
    op: OpRef,
    attrs: &Attrs,
    tensors: SmallVec<[Option<Bound<'py, PyAny>>; 4]>,
    out: Option<Bound<'py, PyAny>>,
) -> PyResult<*mut ffi::PyObject> {
    let mut owned: SmallVec<[Array; 2]> = SmallVec::new();
    let all_arrays = tensors.iter().all(|t| t.as_ref().is_some_and(|t| is_array(t.as_ptr())));
    if !all_arrays {
        resolve(py, op, attrs, &tensors, &mut owned)?;
    }
    let ins: SmallVec<[&Array; 4]> = if all_arrays {
        // SAFETY: checked to be arrays; `tensors` keeps them alive.
        tensors.iter().flatten().map(|t| unsafe { array_of(t.as_ptr()) }).collect()
    } else {
        owned.iter().collect()
    };
    let context = Some(current_context());
    let Some(out) = out else {
        // No `map_err`: it would move the results, which are large.
        return match invoke(op, attrs, &ins, None, context) {
            Ok(results) => give(py, op, attrs, results),
            Err(e) => Err(named(e, op)).py(py),
        };
    };
    let targets: Vec<Bound<'py, PyAny>> =
        if is_array(out.as_ptr()) { vec![out.clone()] } else { out.try_iter()?.collect::<PyResult<_>>()? };
    let arrays = targets.iter().map(extract).collect::<PyResult<Vec<Array>>>()?;
    let refs: SmallVec<[&Array; 2]> = arrays.iter().collect();
    let results = invoke(op, attrs, &ins, Some(&refs), context).map_err(|e| named(e, op)).py(py)?;
    for (target, result) in targets.iter().zip(results) {
        if result.link.is_some() {
            // SAFETY: `extract` saw that it is an array; the references taken above are clones.
            unsafe { set_link(target.as_ptr(), result.link) };
        }
    }
    Ok(out.into_ptr())
}

/// The error with the operator's name before it, unless it is there.
pub(super) fn named(error: Error, op: OpRef) -> Error {
    if error.message().contains(op.name) { error } else { error.within(op.name) }
}

/// The visible outputs: one object, or a list.
fn give(py: Python<'_>, op: OpRef, attrs: &Attrs, mut results: Arrays) -> PyResult<*mut ffi::PyObject> {
    let visible = op.visible(attrs, results.len());
    if visible == 1 {
        return Ok(wrap(results.swap_remove(0)));
    }
    let objects = results.into_iter().take(visible).map(|a| bound(py, a)).collect::<PyResult<Vec<_>>>()?;
    Ok(PyList::new(py, objects)?.into_ptr())
}

/// Tensors that are not arrays: parameters whose shape this very call decides, and foreign arrays.
fn resolve<'py>(
    py: Python<'py>,
    op: OpRef,
    attrs: &Attrs,
    tensors: &[Option<Bound<'py, PyAny>>],
    owned: &mut SmallVec<[Array; 2]>,
) -> PyResult<()> {
    let mut shapes: Vec<Option<Shape>> = Vec::new();
    let mut found: Vec<Option<Array>> = Vec::new();
    for (i, tensor) in tensors.iter().enumerate() {
        let missing =
            || raise(py, Error::op(format!("{}: the array {} is not given", op.name, op.input_name(i))));
        let tensor = tensor.as_ref().ok_or_else(missing)?;
        if is_array(tensor.as_ptr()) {
            let array = extract(tensor)?;
            shapes.push(Some(array.shape().clone()));
            found.push(Some(array));
        } else if tensor.hasattr("_mxrs_deferred_")? {
            shapes.push(None);
            found.push(None);
        } else {
            let given = tensor.get_type().name()?;
            return Err(raise(
                py,
                Error::typ(format!(
                    "{}: {} is an NDArray; a {given} was given (mx.nd.array makes one of it)",
                    op.name,
                    op.input_name(i)
                )),
            ));
        }
    }
    if found.iter().any(Option::is_none) {
        let complete = op.complete.as_ref().ok_or_else(|| {
            raise(
                py,
                Error::op(format!(
                    "{}: the shape of a parameter is not known yet and does not follow from the other inputs; give \
                     the parameter its full shape",
                    op.name
                )),
            )
        })?;
        complete(attrs, &mut shapes).py(py)?;
    }
    for ((tensor, array), shape) in tensors.iter().flatten().zip(found).zip(shapes) {
        owned.push(match (array, shape) {
            (Some(array), _) => array,
            (None, Some(shape)) => {
                let dims = PyTuple::new(py, shape.iter())?;
                extract(&tensor.call_method1("_mxrs_deferred_", (dims,))?)?
            }
            (None, None) => {
                let message =
                    format!("{}: the shape of a parameter does not follow from the other inputs", op.name);
                return Err(raise(py, Error::op(message)));
            }
        });
    }
    Ok(())
}

/// What Python registered to make arrays of foreign values (NumPy arrays in arithmetic).
static CONVERTER: RwLock<Option<Py<PyAny>>> = RwLock::new(None);

pub fn set_converter(f: Py<PyAny>) {
    *CONVERTER.write() = Some(f);
}

/// An array on `context` made of a foreign value, or `None` where it is not array-like.
pub fn convert_foreign(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    context: Context,
) -> PyResult<Option<Array>> {
    let Some(f) = CONVERTER.read().as_ref().map(|f| f.clone_ref(py)) else { return Ok(None) };
    // SAFETY: the caller's live object.
    let value = unsafe { Bound::from_borrowed_ptr(py, object) };
    let made = f.bind(py).call1((value, (context.kind as i64, context.id)))?;
    if made.is_none() { Ok(None) } else { extract(&made).map(Some) }
}

/// `mx.nd.X(...)`: `this` is the operator's number.
unsafe extern "C" fn function(
    this: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls this attached; `this` is the integer that `install` gave.
    unsafe {
        guard(|py| {
            let entry = &entries()[ffi::PyLong_AsSize_t(this)];
            call(py, entry, None, args, count, names)
        })
    }
}

/// The operators that are methods, by the number of their trampoline.
static METHODS: OnceLock<Vec<usize>> = OnceLock::new();

/// `x.method(...)`: a descriptor gives C no place for data, so each method has a function of its own.
unsafe extern "C" fn method<const I: usize>(
    this: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls this attached, with an instance of the type.
    unsafe {
        guard(|py| {
            let index = METHODS.get().and_then(|m| m.get(I)).copied().unwrap_or(0);
            call(py, &entries()[index], Some(this), args, count, names)
        })
    }
}

macro_rules! sixteen {
    ($($base:literal)*) => {
        [$(
            method::<{ $base * 16 }>, method::<{ $base * 16 + 1 }>, method::<{ $base * 16 + 2 }>,
            method::<{ $base * 16 + 3 }>, method::<{ $base * 16 + 4 }>, method::<{ $base * 16 + 5 }>,
            method::<{ $base * 16 + 6 }>, method::<{ $base * 16 + 7 }>, method::<{ $base * 16 + 8 }>,
            method::<{ $base * 16 + 9 }>, method::<{ $base * 16 + 10 }>, method::<{ $base * 16 + 11 }>,
            method::<{ $base * 16 + 12 }>, method::<{ $base * 16 + 13 }>, method::<{ $base * 16 + 14 }>,
            method::<{ $base * 16 + 15 }>,
        )*]
    };
}
static TRAMPOLINES: [ffi::PyCFunctionFastWithKeywords; 160] = sixteen!(0 1 2 3 4 5 6 7 8 9);

/// The definition of a C function, which lives for ever.
pub(super) fn method_def(
    name: &str,
    f: ffi::PyCFunctionFastWithKeywords,
    doc: String,
) -> PyResult<*mut ffi::PyMethodDef> {
    let clean = |s: &str| CString::new(s).map_err(|_| PyTypeError::new_err("a name holds a zero byte"));
    Ok(Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: clean(name)?.into_raw(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: f },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: clean(&doc)?.into_raw(),
    })))
}

/// Every operator as a function, by every name: what the `ops` dictionary of the extension holds.
pub fn functions<'py>(py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyDict>> {
    let dict = pyo3::types::PyDict::new(py);
    for (i, entry) in entries().iter().enumerate() {
        let number = i.into_pyobject(py)?;
        for name in std::iter::once(&entry.op.name).chain(&entry.op.aliases) {
            let def = method_def(name, function, docs::docstring(entry.op, name))?;
            // SAFETY: the definition lives for ever.
            let f = unsafe {
                Bound::from_owned_ptr_or_err(
                    py,
                    ffi::PyCFunction_NewEx(def, number.as_ptr(), std::ptr::null_mut()),
                )?
            };
            dict.set_item(*name, f)?;
        }
    }
    Ok(dict)
}

/// Puts the methods on the type.
pub fn install_methods(py: Python<'_>) -> PyResult<()> {
    let mut numbers = Vec::new();
    let index: HashMap<*const crate::ops::OpDef, usize> =
        entries().iter().enumerate().map(|(i, e)| (std::ptr::from_ref(e.op), i)).collect();
    for op in registry::all() {
        for name in &op.methods {
            let number = numbers.len();
            if number >= TRAMPOLINES.len() {
                return Err(PyTypeError::new_err(
                    "too many operator methods: lengthen the table of trampolines",
                ));
            }
            numbers.push(index[&std::ptr::from_ref(*op)]);
            let def = method_def(name, TRAMPOLINES[number], docs::method_docstring(op, name))?;
            // SAFETY: the type and the definition live for ever.
            unsafe {
                let descriptor = Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(base_type(), def))?;
                let key = CString::new(*name).unwrap_or_default();
                if ffi::PyObject_SetAttrString(base_type().cast(), key.as_ptr(), descriptor.as_ptr()) != 0 {
                    return Err(PyErr::fetch(py));
                }
            }
        }
    }
    let _ = METHODS.set(numbers);
    Ok(())
}
