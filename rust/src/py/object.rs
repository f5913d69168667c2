//! The Python object around an array.
//!
//! It is a C type made by hand, not a `#[pyclass]`: creating a result must not cost more than the arithmetic of a small
//! array, and results are instances of the Python subclass `mxrs.ndarray.NDArray`.

use super::convert::{IntoPy, guard};
use super::{arith, numpy};
use crate::array::Array;
use crate::engine::Waited;
use mxrs_base::DType;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use std::time::Duration;

/// The object's memory: CPython's head, then the array.
#[repr(C)]
pub struct NDArrayObject {
    head: ffi::PyObject,
    pub array: Array,
}

/// The C type, and the subclass of it that results are made of. Both live as long as the process.
static BASE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(null_mut());
static RESULT: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(null_mut());

#[inline]
pub fn base_type() -> *mut ffi::PyTypeObject {
    BASE.load(Relaxed)
}

/// Sets the class of results.
pub fn set_result_class(class: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: a live object is asked for its type's bases.
    let ok = unsafe {
        ffi::PyType_Check(class.as_ptr()) != 0
            && ffi::PyType_IsSubtype(class.as_ptr().cast(), base_type()) != 0
    };
    if !ok {
        return Err(PyTypeError::new_err("the class of results is a subclass of NDArrayBase"));
    }
    RESULT.store(class.clone().into_ptr().cast(), Relaxed);
    Ok(())
}

/// A new object of the class of results. A new reference.
#[inline]
pub fn wrap(array: Array) -> *mut ffi::PyObject {
    wrap_as(array, RESULT.load(Relaxed))
}

/// A new object of `class`, a subclass of the base type; null with an exception set if there is no memory.
pub fn wrap_as(array: Array, class: *mut ffi::PyTypeObject) -> *mut ffi::PyObject {
    // SAFETY: the class's instances have our layout, because it derives from the base type; the allocation is fresh,
    // so writing the array into it overwrites nothing.
    unsafe {
        let object = ffi::PyType_GenericAlloc(class, 0);
        if !object.is_null() {
            (&raw mut (*object.cast::<NDArrayObject>()).array).write(array);
        }
        object
    }
}

pub fn bound<'py>(py: Python<'py>, array: Array) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: `wrap` gives a new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, wrap(array)) }
}

/// Whether the object is an array.
#[inline]
pub fn is_array(object: *mut ffi::PyObject) -> bool {
    // SAFETY: any live object may be asked for its type.
    unsafe {
        let class = ffi::Py_TYPE(object);
        class == RESULT.load(Relaxed)
            || class == base_type()
            || ffi::PyType_IsSubtype(class, base_type()) != 0
    }
}

/// The array in an object that [`is_array`] accepts.
///
/// # Safety
/// The object is alive and an array, for as long as the result is used.
#[inline]
pub unsafe fn array_of<'a>(object: *mut ffi::PyObject) -> &'a Array {
    // SAFETY: as promised; the interpreter lock orders the only writes (`set_link`).
    unsafe { &(*object.cast::<NDArrayObject>()).array }
}

/// Replaces the object's place on the tape.
///
/// # Safety
/// As [`array_of`]; no reference to the object's array is alive.
pub unsafe fn set_link(object: *mut ffi::PyObject, link: Option<crate::array::Link>) {
    // SAFETY: as promised.
    let before = unsafe { std::mem::replace(&mut (*object.cast::<NDArrayObject>()).array.link, link) };
    drop(before);
}

/// An argument that must be an array.
pub fn extract(object: &Bound<'_, PyAny>) -> PyResult<Array> {
    if is_array(object.as_ptr()) {
        // SAFETY: just checked, and the caller holds the object.
        return Ok(unsafe { array_of(object.as_ptr()) }.clone());
    }
    Err(PyTypeError::new_err(format!("an NDArray is expected, a {} was given", object.get_type().name()?)))
}

/// Waits for the array's value with the interpreter free for other threads, and Ctrl-C alive.
pub fn wait(py: Python<'_>, array: &Array) -> PyResult<()> {
    let first = array.wait_for(Duration::ZERO).py(py)?;
    if first == Waited::Done {
        return Ok(());
    }
    loop {
        let array = array.detach();
        let waited = py.detach(move || array.wait_for(Duration::from_millis(50)));
        if waited.py(py)? == Waited::Done {
            return Ok(());
        }
        py.check_signals()?;
    }
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls this once, when nothing refers to the object any more; the type is a heap type, so the
    // object held a reference to it.
    unsafe {
        let class = ffi::Py_TYPE(object);
        let array = &raw mut (*object.cast::<NDArrayObject>()).array;
        let dropped =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| std::ptr::drop_in_place(array)));
        drop(dropped);
        let free = ffi::PyType_GetSlot(class, ffi::Py_tp_free);
        let free: ffi::freefunc = std::mem::transmute(free);
        free(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

/// `NDArrayBase(array)`: another object of this class on the same array.
unsafe extern "C" fn new(
    class: *mut ffi::PyTypeObject,
    args: *mut ffi::PyObject,
    _kwargs: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by CPython, attached, with a live tuple.
    unsafe {
        guard(|_| {
            if ffi::PyTuple_Size(args) >= 1 {
                let first = ffi::PyTuple_GetItem(args, 0);
                if is_array(first) {
                    return Ok(wrap_as(array_of(first).clone(), class));
                }
            }
            Err(PyTypeError::new_err(
                "NDArray cannot be made directly; use mx.nd.array, zeros, ones, empty, ...",
            ))
        })
    }
}

unsafe extern "C" fn hash(object: *mut ffi::PyObject) -> ffi::Py_hash_t {
    // By identity: the low bits of an address are all zero, so they move to the top. -1 would mean an error.
    match (object as usize).rotate_right(4) as ffi::Py_hash_t {
        -1 => -2,
        h => h,
    }
}

unsafe extern "C" fn length(object: *mut ffi::PyObject) -> ffi::Py_ssize_t {
    // SAFETY: a slot of the type: the object is one of ours.
    let array = unsafe { array_of(object) };
    match array.shape().first() {
        Some(n) => *n as ffi::Py_ssize_t,
        None => {
            // SAFETY: attached; the class is a live exception.
            unsafe {
                ffi::PyErr_SetString(ffi::PyExc_TypeError, c"len() of an array without dimensions".as_ptr())
            };
            -1
        }
    }
}

unsafe extern "C" fn get_shape(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: a getter of the type; the new tuple is filled before anybody sees it.
    unsafe {
        let shape = array_of(object).shape();
        let tuple = ffi::PyTuple_New(shape.ndim() as ffi::Py_ssize_t);
        if tuple.is_null() {
            return tuple;
        }
        for (i, d) in shape.iter().enumerate() {
            ffi::PyTuple_SetItem(tuple, i as ffi::Py_ssize_t, ffi::PyLong_FromSize_t(*d));
        }
        tuple
    }
}

unsafe extern "C" fn get_ndim(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: a getter of the type.
    unsafe { ffi::PyLong_FromSize_t(array_of(object).shape().ndim()) }
}

unsafe extern "C" fn get_size(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: a getter of the type.
    unsafe { ffi::PyLong_FromSize_t(array_of(object).size()) }
}

unsafe extern "C" fn get_dtype(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: a getter of the type.
    unsafe { guard(|py| Ok(numpy::scalar_class(py, array_of(object).dtype())?.into_ptr())) }
}

/// `(device type, device id)`
unsafe extern "C" fn get_device(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: a getter of the type.
    unsafe {
        let context = array_of(object).context();
        guard(|py| Ok((context.kind as u8, context.id).into_pyobject(py)?.into_ptr()))
    }
}

unsafe extern "C" fn get_type_flag(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: a getter of the type.
    unsafe { ffi::PyLong_FromLong(array_of(object).dtype() as DType as u8 as _) }
}

unsafe extern "C" fn get_fresh(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: a getter of the type.
    unsafe {
        let fresh = array_of(object).link.as_ref().is_some_and(|l| l.node.is_fresh());
        ffi::PyBool_FromLong(fresh.into())
    }
}

unsafe extern "C" fn set_fresh(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    _: *mut c_void,
) -> c_int {
    // SAFETY: a setter of the type; the value is null when the attribute is deleted.
    unsafe {
        let on = !value.is_null() && ffi::PyObject_IsTrue(value) == 1;
        if let Some(link) = &array_of(object).link {
            link.node.set_fresh(on);
        }
    }
    0
}

unsafe extern "C" fn asnumpy(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    unsafe {
        guard(|py| {
            let array = array_of(object);
            wait(py, array)?;
            numpy::copy_out(py, array)
        })
    }
}

unsafe extern "C" fn wait_to_read(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    unsafe {
        guard(|py| {
            wait(py, array_of(object))?;
            Ok(py.None().into_ptr())
        })
    }
}

/// Makes the type. Called once.
pub fn make_type(py: Python<'_>) -> PyResult<Py<PyAny>> {
    let getter =
        |name: &'static std::ffi::CStr, get: ffi::getter, doc: &'static std::ffi::CStr| ffi::PyGetSetDef {
            name: name.as_ptr(),
            get: Some(get),
            set: None,
            doc: doc.as_ptr(),
            closure: null_mut(),
        };
    let getters = vec![
        getter(c"shape", get_shape, c"Extents of the array, a tuple of int."),
        getter(c"ndim", get_ndim, c"Number of dimensions."),
        getter(c"size", get_size, c"Number of elements."),
        getter(c"dtype", get_dtype, c"Element type, a NumPy scalar class such as numpy.float32."),
        getter(c"_device", get_device, c"(device type, device id)"),
        getter(c"_type_flag", get_type_flag, c"MXNet's number of the element type."),
        ffi::PyGetSetDef {
            set: Some(set_fresh),
            ..getter(
                c"_fresh_grad",
                get_fresh,
                c"Whether backward wrote the gradient and no step used it since.",
            )
        },
        ffi::PyGetSetDef::default(),
    ];
    let method =
        |name: &'static std::ffi::CStr, f: ffi::PyCFunction, doc: &'static std::ffi::CStr| ffi::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunction: f },
            ml_flags: ffi::METH_NOARGS,
            ml_doc: doc.as_ptr(),
        };
    let methods = vec![
        method(
            c"asnumpy",
            asnumpy,
            c"asnumpy($self, /)\n--\n\nA numpy.ndarray with a copy of the values; waits for them.",
        ),
        method(
            c"wait_to_read",
            wait_to_read,
            c"wait_to_read($self, /)\n--\n\nWaits until the values are computed.",
        ),
        ffi::PyMethodDef::zeroed(),
    ];
    let mut slots = arith::slots();
    let mut slot = |id: c_int, f: *mut c_void| slots.push(ffi::PyType_Slot { slot: id, pfunc: f });
    slot(ffi::Py_tp_dealloc, dealloc as *mut c_void);
    slot(ffi::Py_tp_new, new as *mut c_void);
    slot(ffi::Py_tp_hash, hash as *mut c_void);
    slot(ffi::Py_mp_length, length as *mut c_void);
    slot(ffi::Py_sq_length, length as *mut c_void);
    slot(ffi::Py_tp_getset, Vec::leak(getters).as_mut_ptr().cast());
    slot(ffi::Py_tp_methods, Vec::leak(methods).as_mut_ptr().cast());
    slot(0, null_mut());
    let mut spec = ffi::PyType_Spec {
        name: c"mxrs._core.NDArrayBase".as_ptr(),
        basicsize: size_of::<NDArrayObject>() as c_int,
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_BASETYPE) as _,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the spec and its slots are complete; name, getters and methods live for ever, slots are copied.
    let class = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&mut spec))? };
    let raw = NonNull::new(class.clone().into_ptr()).map_or(null_mut(), NonNull::as_ptr);
    BASE.store(raw.cast(), Relaxed);
    RESULT.store(raw.cast(), Relaxed);
    Ok(class.unbind())
}
