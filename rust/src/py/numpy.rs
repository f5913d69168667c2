//! The few calls of NumPy's C interface that making an array takes, through its function table.
//!
//! The table's numbering and the head of `PyArrayObject` are the same in NumPy 1 and 2; no binding crate is needed.

use super::convert::IntoPy;
use crate::array::Array;
use mxrs_base::DType;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCapsule, PyType};
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The subclass of `numpy.ndarray` that arrays of one element become; null where they need none.
static ONE_ELEMENT: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(null_mut());

/// `PyArray_New(subtype, nd, dims, type_num, strides, data, itemsize, flags, obj)`
type ArrayNew = unsafe extern "C" fn(
    *mut ffi::PyTypeObject,
    c_int,
    *mut isize,
    c_int,
    *mut isize,
    *mut c_void,
    c_int,
    c_int,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

struct Api {
    array_type: *mut ffi::PyTypeObject,
    new: ArrayNew,
    /// numpy.generic, the class of all scalars
    generic: Py<PyAny>,
    scalars: [Py<PyAny>; 8],
}

// SAFETY: pointers into NumPy, which is never unloaded; used only while attached.
unsafe impl Send for Api {}
// SAFETY: as above.
unsafe impl Sync for Api {}

/// The head of a `PyArrayObject`.
#[repr(C)]
struct ArrayHead {
    head: ffi::PyObject,
    data: *mut u8,
}

fn api(py: Python<'_>) -> PyResult<&'static Api> {
    static API: PyOnceLock<Api> = PyOnceLock::new();
    API.get_or_try_init(py, || {
        let numpy = py.import("numpy")?;
        let multiarray =
            py.import("numpy._core.multiarray").or_else(|_| py.import("numpy.core.multiarray"))?;
        let capsule = multiarray.getattr("_ARRAY_API")?.cast_into::<PyCapsule>()?;
        // SAFETY: NumPy's capsule has no name and holds its function table.
        let table =
            unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), std::ptr::null()) }.cast::<*mut c_void>();
        if table.is_null() {
            return Err(PyRuntimeError::new_err("NumPy's C interface was not found"));
        }
        let scalar = |name: &str| -> PyResult<Py<PyAny>> { Ok(numpy.getattr(name)?.unbind()) };
        Ok(Api {
            // SAFETY: entry 2 is PyArray_Type and entry 93 PyArray_New since NumPy 1.0.
            array_type: unsafe { *table.add(2) }.cast(),
            // SAFETY: as above.
            new: unsafe { std::mem::transmute::<*mut c_void, ArrayNew>(*table.add(93)) },
            generic: scalar("generic")?,
            scalars: [
                scalar("float32")?,
                scalar("float64")?,
                scalar("float16")?,
                scalar("uint8")?,
                scalar("int32")?,
                scalar("int8")?,
                scalar("int64")?,
                scalar("bool_")?,
            ],
        })
    })
}

/// NumPy's number of an element type.
fn type_num(dtype: DType) -> c_int {
    match dtype {
        DType::Bool => 0,
        DType::I8 => 1,
        DType::U8 => 2,
        DType::I32 => 5,
        // long is 8 bytes except on Windows, where long long (9) is.
        DType::I64 => {
            if cfg!(windows) {
                9
            } else {
                7
            }
        }
        DType::F32 => 11,
        DType::F64 => 12,
        DType::F16 => 23,
    }
}

/// numpy.float32 and its like.
pub fn scalar_class(py: Python<'_>, dtype: DType) -> PyResult<Py<PyAny>> {
    Ok(api(py)?.scalars[dtype as usize].clone_ref(py))
}

/// Whether the object is a NumPy scalar.
pub fn is_scalar(py: Python<'_>, object: *mut ffi::PyObject) -> PyResult<bool> {
    // SAFETY: both are live objects.
    Ok(unsafe { ffi::PyObject_IsInstance(object, api(py)?.generic.as_ptr()) } == 1)
}

/// From now on [`copy_out`] gives instances of `class` for arrays with one element and an axis or more.
pub fn set_one_element_class(class: &Bound<'_, PyType>) {
    let class = class.clone().into_ptr().cast();
    // The class stays for the process's life.
    ONE_ELEMENT.store(class, Ordering::Relaxed);
}

/// A new `numpy.ndarray` with the array's values, which were waited for.
pub fn copy_out(py: Python<'_>, array: &Array) -> PyResult<*mut ffi::PyObject> {
    let api = api(py)?;
    let host;
    let array = match array.context().is_host() {
        true => array,
        false => {
            host = py.detach(|| array.to_host()).py(py)?;
            &host
        }
    };
    let mut dims: smallvec::SmallVec<[isize; 8]> = array.shape().iter().map(|d| *d as isize).collect();
    let one_element = ONE_ELEMENT.load(Ordering::Relaxed);
    let class = if array.size() == 1 && !dims.is_empty() && !one_element.is_null() {
        one_element
    } else {
        api.array_type
    };
    // SAFETY: the dimensions are valid, the class is NumPy's or derived from it, and null strides and data ask for a fresh C-ordered array of that many
    // elements, into which exactly as many are copied.
    unsafe {
        let object = (api.new)(
            class,
            dims.len() as c_int,
            dims.as_mut_ptr(),
            type_num(array.dtype()),
            null_mut(),
            null_mut(),
            0,
            0,
            null_mut(),
        );
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        let data = (*object.cast::<ArrayHead>()).data;
        let bytes = array.size() * array.dtype().size();
        if bytes > 1 << 20 {
            let (from, to) = (array.ptr() as usize, data as usize);
            // A large copy lets other Python threads run.
            py.detach(|| std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes));
        } else {
            std::ptr::copy_nonoverlapping(array.ptr(), data, bytes);
        }
        Ok(object)
    }
}
