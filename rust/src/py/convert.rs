//! Between Python's objects and the core's values, and from errors to exceptions.

use crate::ops::{Kind, Param};
use mxrs_base::{AttrValue, DType, Error, ErrorKind};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};

/// `MXNetError` and its kin. Each of the kin is also the built-in exception that a user would expect.
pub struct Exceptions {
    pub base: Py<PyType>,
    pub value: Py<PyType>,
    pub typ: Py<PyType>,
    pub index: Py<PyType>,
    pub missing: Py<PyType>,
    pub memory: Py<PyType>,
}

pub fn exceptions(py: Python<'_>) -> PyResult<&'static Exceptions> {
    static CELL: PyOnceLock<Exceptions> = PyOnceLock::new();
    CELL.get_or_try_init(py, || {
        let builtins = py.import("builtins")?;
        let make = |name: &str, bases: Bound<'_, PyTuple>, doc: &str| -> PyResult<Py<PyType>> {
            let body = PyDict::new(py);
            body.set_item("__module__", "mxrs.base")?;
            body.set_item("__doc__", doc)?;
            Ok(py.get_type::<PyType>().call1((name, bases, body))?.cast_into::<PyType>()?.unbind())
        };
        let runtime = builtins.getattr("RuntimeError")?;
        let base = make(
            "MXNetError",
            PyTuple::new(py, [runtime])?,
            "An operator or a file was refused, or a call failed.",
        )?;
        let kin = |name: &str, builtin: &str| -> PyResult<Py<PyType>> {
            let bases = PyTuple::new(py, [base.bind(py).clone().into_any(), builtins.getattr(builtin)?])?;
            make(name, bases, &format!("An MXNetError that is also a {builtin}."))
        };
        Ok(Exceptions {
            value: kin("MXNetValueError", "ValueError")?,
            typ: kin("MXNetTypeError", "TypeError")?,
            index: kin("MXNetIndexError", "IndexError")?,
            missing: kin("MXNetNotImplementedError", "NotImplementedError")?,
            memory: kin("MXNetMemoryError", "MemoryError")?,
            base,
        })
    })
}

/// The exception for an error of the core.
pub fn raise(py: Python<'_>, error: Error) -> PyErr {
    let message = error.message().to_string();
    let Ok(all) = exceptions(py) else { return PyRuntimeError::new_err(message) };
    let class = match error.kind() {
        ErrorKind::Op => &all.base,
        ErrorKind::Value => &all.value,
        ErrorKind::Type => &all.typ,
        ErrorKind::Index => &all.index,
        ErrorKind::NotImplemented => &all.missing,
        ErrorKind::Memory => &all.memory,
    };
    PyErr::from_type(class.bind(py).clone(), message)
}

/// Turns a core result into Python's.
pub trait IntoPy<T> {
    fn py(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> IntoPy<T> for mxrs_base::Result<T> {
    #[inline]
    fn py(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|e| raise(py, e))
    }
}

/// The element type that a user names: a string, a NumPy dtype or scalar class, or a Python type.
pub fn dtype(value: &Bound<'_, PyAny>) -> PyResult<DType> {
    let py = value.py();
    if let Ok(text) = value.cast::<PyString>() {
        return DType::from_name(text.to_str()?).py(py);
    }
    let name = match value.getattr("name") {
        Ok(name) if name.is_instance_of::<PyString>() => name,
        _ => {
            value.getattr("__name__").map_err(|_| PyTypeError::new_err(format!("{value} is not a dtype")))?
        }
    };
    let name: String = name.extract()?;
    let name = match name.as_str() {
        "float" => "float64",
        "int" => "int64",
        "bool_" => "bool",
        other => other,
    };
    DType::from_name(name).py(py)
}

/// A Python value for `param`; `None` where the argument counts as absent.
pub fn attr(value: &Bound<'_, PyAny>, op: &str, param: &Param) -> PyResult<Option<AttrValue>> {
    let py = value.py();
    if value.is_none() {
        return Ok(if param.nullable { Some(AttrValue::None) } else { None });
    }
    let raw = match param.kind {
        Kind::DType if !value.is_instance_of::<PyInt>() => {
            AttrValue::DType(dtype(value).map_err(|e| {
                raise(py, Error::typ(format!("{op}: argument {}: {}", param.name, e.value(py))))
            })?)
        }
        Kind::Str if !value.is_instance_of::<PyString>() => AttrValue::Str(value.str()?.to_str()?.into()),
        _ => match plain(value)? {
            Some(v) => v,
            None => {
                let given = value.get_type().name()?;
                return Err(raise(
                    py,
                    Error::typ(format!(
                        "{op}: argument {} is of type {given}; {} is expected",
                        param.name,
                        param.type_text()
                    )),
                ));
            }
        },
    };
    param.coerce(op, raw).py(py).map(Some)
}

/// Numbers, texts and sequences of numbers as attribute values; `None` for anything else.
fn plain(value: &Bound<'_, PyAny>) -> PyResult<Option<AttrValue>> {
    if let Ok(b) = value.cast::<PyBool>() {
        return Ok(Some(AttrValue::Bool(b.is_true())));
    }
    if value.is_instance_of::<PyInt>() {
        return Ok(Some(match value.extract::<i64>() {
            Ok(v) => AttrValue::Int(v),
            Err(_) => AttrValue::Float(value.extract::<f64>().unwrap_or(f64::INFINITY)),
        }));
    }
    if let Ok(f) = value.cast::<PyFloat>() {
        return Ok(Some(AttrValue::Float(f.value())));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Some(AttrValue::Str(text.to_str()?.into())));
    }
    if value.is_instance_of::<PyTuple>() || value.is_instance_of::<PyList>() {
        return sequence(value);
    }
    // NumPy scalars, and whatever else knows to be a number or a list.
    if let Ok(index) = value.call_method0("__index__") {
        return plain(&index);
    }
    if value.hasattr("__float__")? && !value.hasattr("__len__")? {
        return Ok(Some(AttrValue::Float(value.call_method0("__float__")?.extract()?)));
    }
    if value.hasattr("tolist")? {
        let list = value.call_method0("tolist")?;
        return plain(&list);
    }
    if value.hasattr("__len__")? && value.hasattr("__getitem__")? {
        return sequence(
            &PyList::new(value.py(), value.try_iter()?.collect::<PyResult<Vec<_>>>()?)?.into_any(),
        );
    }
    Ok(None)
}

fn sequence(value: &Bound<'_, PyAny>) -> PyResult<Option<AttrValue>> {
    let mut ints: Vec<Option<i64>> = Vec::new();
    let mut floats: Vec<f64> = Vec::new();
    let mut whole = true;
    for item in value.try_iter()? {
        let item = item?;
        if item.is_none() {
            ints.push(None);
            floats.push(f64::NAN);
            continue;
        }
        match plain(&item)? {
            Some(AttrValue::Int(v)) => {
                ints.push(Some(v));
                floats.push(v as f64);
            }
            Some(AttrValue::Bool(v)) => {
                ints.push(Some(v as i64));
                floats.push(v as u8 as f64);
            }
            Some(AttrValue::Float(v)) => {
                whole = false;
                floats.push(v);
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(if whole { AttrValue::Ints(ints.into()) } else { AttrValue::Floats(floats.into()) }))
}

/// An attribute value as Python's.
pub fn to_python<'py>(py: Python<'py>, value: &AttrValue) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        AttrValue::None => py.None().into_bound(py),
        AttrValue::Bool(v) => PyBool::new(py, *v).to_owned().into_any(),
        AttrValue::Int(v) => v.into_pyobject(py)?.into_any(),
        AttrValue::Float(v) => v.into_pyobject(py)?.into_any(),
        AttrValue::Str(v) => PyString::new(py, v).into_any(),
        AttrValue::DType(v) => PyString::new(py, v.name()).into_any(),
        AttrValue::Ints(v) => PyTuple::new(py, v.iter())?.into_any(),
        AttrValue::Floats(v) => PyTuple::new(py, v.iter())?.into_any(),
    })
}

/// Runs the body of a function that C calls: errors become exceptions, panics too.
///
/// # Safety
/// The caller is attached to the interpreter (C called us).
pub unsafe fn guard(f: impl FnOnce(Python<'_>) -> PyResult<*mut ffi::PyObject>) -> *mut ffi::PyObject {
    // SAFETY: as promised.
    let py = unsafe { Python::assume_attached() };
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(py))) {
        Ok(Ok(object)) => object,
        Ok(Err(error)) => {
            error.restore(py);
            std::ptr::null_mut()
        }
        Err(panic) => {
            raise(py, crate::engine::panic_error(panic)).restore(py);
            std::ptr::null_mut()
        }
    }
}
