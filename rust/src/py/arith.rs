//! The arithmetic slots: `a + b`, `a > 2`, `-a` and their kin, straight from C to `invoke`.

use super::convert::{IntoPy, guard};
use super::object::{array_of, is_array, set_link, wrap};
use super::{call, numpy};
use crate::array::{self, Array, Arrays};
use crate::ops::{Attrs, OpRef, registry};
use mxrs_base::AttrValue;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use smallvec::smallvec;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

/// The operators behind one sign: array with array, array with number, number with array.
struct Sign {
    arrays: OpRef,
    scalar: OpRef,
    reversed: OpRef,
}

macro_rules! signs {
    ($($name:ident: $arrays:literal $scalar:literal $reversed:literal;)*) => {
        struct Signs { $($name: Sign,)* negative: OpRef, abs: OpRef }
        fn signs() -> &'static Signs {
            static SIGNS: OnceLock<Signs> = OnceLock::new();
            SIGNS.get_or_init(|| Signs {
                $($name: Sign {
                    arrays: registry::expect($arrays),
                    scalar: registry::expect($scalar),
                    reversed: registry::expect($reversed),
                },)*
                negative: registry::expect("negative"),
                abs: registry::expect("abs"),
            })
        }
    };
}
signs! {
    add: "broadcast_add" "_plus_scalar" "_plus_scalar";
    sub: "broadcast_sub" "_minus_scalar" "_rminus_scalar";
    mul: "broadcast_mul" "_mul_scalar" "_mul_scalar";
    div: "broadcast_div" "_div_scalar" "_rdiv_scalar";
    modulo: "broadcast_mod" "_mod_scalar" "_rmod_scalar";
    pow: "broadcast_power" "_power_scalar" "_rpower_scalar";
    eq: "broadcast_equal" "_equal_scalar" "_equal_scalar";
    ne: "broadcast_not_equal" "_not_equal_scalar" "_not_equal_scalar";
    gt: "broadcast_greater" "_greater_scalar" "_lesser_scalar";
    ge: "broadcast_greater_equal" "_greater_equal_scalar" "_lesser_equal_scalar";
    lt: "broadcast_lesser" "_lesser_scalar" "_greater_scalar";
    le: "broadcast_lesser_equal" "_lesser_equal_scalar" "_greater_equal_scalar";
}

/// A Python or NumPy number and whether it is written as a whole one.
fn number(py: Python<'_>, object: *mut ffi::PyObject) -> PyResult<Option<(f64, bool)>> {
    // SAFETY: live objects are asked for type and value; errors are fetched.
    unsafe {
        if ffi::PyFloat_CheckExact(object) != 0 {
            return Ok(Some((ffi::PyFloat_AsDouble(object), false)));
        }
        let whole = ffi::PyLong_Check(object) != 0;
        if whole || ffi::PyFloat_Check(object) != 0 || numpy::is_scalar(py, object)? {
            let value = ffi::PyFloat_AsDouble(object);
            if value == -1.0 && !ffi::PyErr_Occurred().is_null() {
                return Err(PyErr::fetch(py));
            }
            return Ok(Some((value, whole)));
        }
        Ok(None)
    }
}

/// Lists, tuples and texts are refused here: Python would else repeat them as often as a whole number of one element says.
fn refuse_sequence(py: Python<'_>, object: *mut ffi::PyObject) -> PyResult<()> {
    // SAFETY: a live object's type is looked at; its name lives as long as the type.
    unsafe {
        let sequence = ffi::PyList_Check(object) != 0
            || ffi::PyTuple_Check(object) != 0
            || ffi::PyUnicode_Check(object) != 0
            || ffi::PyBytes_Check(object) != 0;
        if !sequence {
            return Ok(());
        }
        let object = Bound::from_borrowed_ptr(py, object);
        Err(PyTypeError::new_err(format!(
            "an NDArray cannot be combined with a {}; make an array of it with nd.array",
            object.get_type().name()?
        )))
    }
}

/// As [`array::invoke`] without a context; errors name the operator.
fn invoke(op: OpRef, attrs: &Attrs, ins: &[&Array], outs: Option<&[&Array]>) -> mxrs_base::Result<Arrays> {
    array::invoke(op, attrs, ins, outs, None).map_err(|e| call::named(e, op))
}

fn scalar_attrs(op: OpRef, value: f64, whole: bool) -> Attrs {
    Attrs::from_values(op, smallvec![AttrValue::Float(value), AttrValue::Bool(whole)])
}

fn first(mut arrays: Arrays) -> *mut ffi::PyObject {
    wrap(arrays.swap_remove(0))
}

/// The only result of a call, as an object. On the path of every sign: results are large, and a `map_err` would move them.
#[inline]
fn made(py: Python<'_>, op: OpRef, attrs: &Attrs, ins: &[&Array]) -> PyResult<*mut ffi::PyObject> {
    match array::invoke(op, attrs, ins, None, None) {
        Ok(arrays) => Ok(first(arrays)),
        Err(e) => Err(call::named(e, op)).py(py),
    }
}

/// # Safety
/// Called from a slot: attached, with live objects.
unsafe fn binary(a: *mut ffi::PyObject, b: *mut ffi::PyObject, sign: &Sign) -> *mut ffi::PyObject {
    // SAFETY: as promised; `array_of` is asked only of arrays.
    unsafe {
        guard(|py| {
            let (left, right) = (is_array(a), is_array(b));
            if left && right {
                let attrs = Attrs::from_values(sign.arrays, smallvec![]);
                return made(py, sign.arrays, &attrs, &[array_of(a), array_of(b)]);
            }
            let (array, other, op) = if left { (a, b, sign.scalar) } else { (b, a, sign.reversed) };
            if let Some((value, whole)) = number(py, other)? {
                let attrs = scalar_attrs(op, value, whole);
                return made(py, op, &attrs, &[array_of(array)]);
            }
            let Some(converted) = call::convert_foreign(py, other, array_of(array).context())? else {
                refuse_sequence(py, other)?;
                ffi::Py_INCREF(ffi::Py_NotImplemented());
                return Ok(ffi::Py_NotImplemented());
            };
            let attrs = Attrs::from_values(sign.arrays, smallvec![]);
            let (x, y) = if left { (array_of(a), &converted) } else { (&converted, array_of(b)) };
            made(py, sign.arrays, &attrs, &[x, y])
        })
    }
}

/// `a += b`: the result goes into a's own memory.
///
/// # Safety
/// As [`binary`].
unsafe fn in_place(a: *mut ffi::PyObject, b: *mut ffi::PyObject, sign: &Sign) -> *mut ffi::PyObject {
    // SAFETY: as promised.
    unsafe {
        guard(|py| {
            let target = array_of(a);
            let link = {
                let results = if is_array(b) {
                    in_place_arrays(sign.arrays, target, array_of(b))
                } else if let Some((value, whole)) = number(py, b)? {
                    let attrs = scalar_attrs(sign.scalar, value, whole);
                    invoke(sign.scalar, &attrs, &[target], Some(&[target]))
                } else if let Some(converted) = call::convert_foreign(py, b, target.context())? {
                    in_place_arrays(sign.arrays, target, &converted)
                } else {
                    refuse_sequence(py, b)?;
                    ffi::Py_INCREF(ffi::Py_NotImplemented());
                    return Ok(ffi::Py_NotImplemented());
                };
                results.py(py)?.swap_remove(0).link
            };
            if link.is_some() {
                set_link(a, link);
            }
            ffi::Py_INCREF(a);
            Ok(a)
        })
    }
}

/// `target = target op other`, in the target's memory and type.
fn in_place_arrays(op: OpRef, target: &Array, other: &Array) -> mxrs_base::Result<Arrays> {
    let attrs = Attrs::from_values(op, smallvec![]);
    if other.dtype() == target.dtype() {
        return invoke(op, &attrs, &[target, other], Some(&[target]));
    }
    let cast = registry::expect("Cast");
    let to = Attrs::new(cast, &[("dtype", target.dtype().into())])?;
    let other = invoke(cast, &to, &[other], None)?;
    invoke(op, &attrs, &[target, &other[0]], Some(&[target]))
}

macro_rules! binary_slots {
    ($($slot:ident $islot:ident $name:ident;)*) => {
        $(
            unsafe extern "C" fn $slot(a: *mut ffi::PyObject, b: *mut ffi::PyObject) -> *mut ffi::PyObject {
                // SAFETY: CPython calls slots attached, with live objects, one of which is ours.
                unsafe { binary(a, b, &signs().$name) }
            }
            unsafe extern "C" fn $islot(a: *mut ffi::PyObject, b: *mut ffi::PyObject) -> *mut ffi::PyObject {
                // SAFETY: as above; the left one is ours.
                unsafe { in_place(a, b, &signs().$name) }
            }
        )*
    };
}
binary_slots! {
    nb_add nb_iadd add;
    nb_sub nb_isub sub;
    nb_mul nb_imul mul;
    nb_div nb_idiv div;
    nb_mod nb_imod modulo;
}

unsafe extern "C" fn nb_pow(
    a: *mut ffi::PyObject,
    b: *mut ffi::PyObject,
    _modulus: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a slot.
    unsafe { binary(a, b, &signs().pow) }
}

unsafe extern "C" fn nb_neg(a: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a slot.
    unsafe { unary(a, signs().negative) }
}

unsafe extern "C" fn nb_abs(a: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a slot.
    unsafe { unary(a, signs().abs) }
}

/// # Safety
/// As [`binary`].
unsafe fn unary(a: *mut ffi::PyObject, op: OpRef) -> *mut ffi::PyObject {
    // SAFETY: as promised.
    unsafe {
        guard(|py| {
            let attrs = Attrs::from_values(op, smallvec![]);
            made(py, op, &attrs, &[array_of(a)])
        })
    }
}

unsafe extern "C" fn richcompare(
    a: *mut ffi::PyObject,
    b: *mut ffi::PyObject,
    which: c_int,
) -> *mut ffi::PyObject {
    let signs = signs();
    let sign = match which {
        ffi::Py_EQ => &signs.eq,
        ffi::Py_NE => &signs.ne,
        ffi::Py_GT => &signs.gt,
        ffi::Py_GE => &signs.ge,
        ffi::Py_LT => &signs.lt,
        _ => &signs.le,
    };
    // SAFETY: a slot.
    unsafe { binary(a, b, sign) }
}

/// The slots of the type, without the closing entry.
pub fn slots() -> Vec<ffi::PyType_Slot> {
    let slot = |id: c_int, f: *mut c_void| ffi::PyType_Slot { slot: id, pfunc: f };
    vec![
        slot(ffi::Py_nb_add, nb_add as *mut c_void),
        slot(ffi::Py_nb_inplace_add, nb_iadd as *mut c_void),
        slot(ffi::Py_nb_subtract, nb_sub as *mut c_void),
        slot(ffi::Py_nb_inplace_subtract, nb_isub as *mut c_void),
        slot(ffi::Py_nb_multiply, nb_mul as *mut c_void),
        slot(ffi::Py_nb_inplace_multiply, nb_imul as *mut c_void),
        slot(ffi::Py_nb_true_divide, nb_div as *mut c_void),
        slot(ffi::Py_nb_inplace_true_divide, nb_idiv as *mut c_void),
        slot(ffi::Py_nb_remainder, nb_mod as *mut c_void),
        slot(ffi::Py_nb_inplace_remainder, nb_imod as *mut c_void),
        slot(ffi::Py_nb_power, nb_pow as *mut c_void),
        slot(ffi::Py_nb_negative, nb_neg as *mut c_void),
        slot(ffi::Py_nb_absolute, nb_abs as *mut c_void),
        slot(ffi::Py_tp_richcompare, richcompare as *mut c_void),
    ]
}
