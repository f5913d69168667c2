//! Recording, gradients and copies between devices for Python: modes, variables, `backward`, `grad`, and users' functions.

use super::convert::{self, IntoPy};
use super::object::{self, bound, extract, set_link};
use crate::array::{self, Array, CustomGrad, GradReq, Link, Node};
use crate::device::Context;
use crate::ops::{self, Spec, registry};
use crate::tape;
use mxrs_base::Error;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

type Any<'py> = Bound<'py, PyAny>;

#[pyfunction]
pub fn set_recording(on: bool) -> bool {
    array::set_recording(on)
}
#[pyfunction]
pub fn is_recording() -> bool {
    array::is_recording()
}
#[pyfunction]
pub fn set_training(on: bool) -> bool {
    array::set_training(on)
}
#[pyfunction]
pub fn is_training() -> bool {
    array::is_training()
}

fn grad_req(py: Python<'_>, text: &str) -> PyResult<GradReq> {
    match text {
        "write" | "inplace" => Ok(GradReq::Write),
        "add" => Ok(GradReq::Add),
        "null" => Ok(GradReq::Null),
        other => Err(convert::raise(
            py,
            Error::value(format!("grad_req '{other}' is not valid; 'write', 'add' and 'null' are allowed")),
        )),
    }
}

/// Makes the array a variable whose gradient goes into `grad`.
#[pyfunction]
pub fn mark_variable(py: Python<'_>, array: &Any<'_>, grad: &Any<'_>, req: &str) -> PyResult<()> {
    let (a, g) = (extract(array)?, extract(grad)?);
    if a.shape() != g.shape() {
        let text = format!("mark_variables: the gradient has shape {}, its array {}", g.shape(), a.shape());
        return Err(Error::value(text)).py(py);
    }
    let link = Node::variable(g.detach(), grad_req(py, req)?);
    // SAFETY: `extract` saw that it is an array; `a` is a clone.
    unsafe { set_link(array.as_ptr(), Some(link)) };
    Ok(())
}

/// The gradient array of a variable, or None.
#[pyfunction]
pub fn grad_of<'py>(py: Python<'py>, array: &Any<'py>) -> PyResult<Option<Any<'py>>> {
    tape::grad_of(&extract(array)?).map(|g| bound(py, g)).transpose()
}

/// Takes the array off the tape.
#[pyfunction]
pub fn drop_grad(array: &Any<'_>) -> PyResult<()> {
    extract(array)?;
    // SAFETY: just checked.
    unsafe { set_link(array.as_ptr(), None) };
    Ok(())
}

/// Whether the array is a recorded value or a variable.
#[pyfunction]
pub fn is_linked(array: &Any<'_>) -> PyResult<bool> {
    Ok(extract(array)?.link.is_some())
}

fn heads(list: Vec<Any<'_>>) -> PyResult<Vec<Array>> {
    list.iter().map(extract).collect()
}

fn optional(list: Vec<Option<Any<'_>>>) -> PyResult<Vec<Option<Array>>> {
    list.iter().map(|h| h.as_ref().map(extract).transpose()).collect()
}

/// Refuses head gradients that are on another device than their outputs.
fn beside(outputs: &[Array], grads: &[Option<Array>]) -> Result<(), Error> {
    for (i, (output, grad)) in outputs.iter().zip(grads).enumerate() {
        if let Some(grad) = grad
            && apart(grad.context(), output.context())
        {
            return Err(Error::op(format!(
                "backward: head gradient {i} is on {}, its output on {}; as_in_context moves an array",
                grad.context(),
                output.context()
            )));
        }
    }
    Ok(())
}

/// Whether two contexts have memories of their own.
fn apart(a: Context, b: Context) -> bool {
    a != b && !(a.is_host() && b.is_host())
}

#[pyfunction]
pub fn backward(
    py: Python<'_>,
    outputs: Vec<Any<'_>>,
    grads: Vec<Option<Any<'_>>>,
    retain: bool,
    train: bool,
) -> PyResult<()> {
    let options = tape::Options { retain, create_graph: false, train };
    let (outputs, grads) = (heads(outputs)?, optional(grads)?);
    beside(&outputs, &grads).py(py)?;
    tape::backward(&outputs, &grads, options).py(py)
}

#[pyfunction]
pub fn grad<'py>(
    py: Python<'py>,
    outputs: Vec<Any<'py>>,
    grads: Vec<Option<Any<'py>>>,
    variables: Vec<Any<'py>>,
    retain: bool,
    create_graph: bool,
    train: bool,
) -> PyResult<Vec<Any<'py>>> {
    let options = tape::Options { retain, create_graph, train };
    let (outputs, grads) = (heads(outputs)?, optional(grads)?);
    beside(&outputs, &grads).py(py)?;
    let found = tape::grad(&outputs, &grads, &heads(variables)?, options).py(py)?;
    found.into_iter().map(|a| bound(py, a)).collect()
}

/// Links `outputs` to `inputs` by a user's function: `backward(*head_grads)` gives one gradient (or None) per input.
#[pyfunction]
pub fn record_custom(inputs: Vec<Any<'_>>, outputs: Vec<Any<'_>>, backward: Py<PyAny>) -> PyResult<()> {
    let ins = heads(inputs)?;
    let outs = heads(outputs.clone())?;
    if !array::is_recording() || ins.iter().all(|a| !a.is_linked()) {
        return Ok(());
    }
    let context = outs.first().map_or(Context::CPU, Array::context);
    let places: Vec<(Spec, Context)> = ins.iter().map(|a| (a.spec().clone(), a.context())).collect();
    let rule: CustomGrad = Box::new(move |grads, _| {
        Python::attach(|py| call_back(py, &backward, grads, &places).map_err(|e| raised(py, &e)))
    });
    let node = array::custom_node(ins.iter().map(Array::live_link).collect(), &outs, context, rule);
    for (i, output) in outputs.iter().enumerate() {
        // SAFETY: `heads` saw that they are arrays; `outs` are clones.
        unsafe { set_link(output.as_ptr(), Some(Link { node: node.clone(), index: i as u32 })) };
    }
    Ok(())
}

/// An error of a user's function, with the lines of the program that it went through.
fn raised(py: Python<'_>, error: &PyErr) -> Error {
    let lines = || -> PyResult<String> {
        let all = py.import("traceback")?.call_method1("format_tb", (error.traceback(py),))?;
        Ok(all.extract::<Vec<String>>()?.concat())
    };
    Error::op(format!(
        "autograd.Function.backward raised {error}\n{}",
        lines().unwrap_or_default().trim_end()
    ))
}

fn call_back(
    py: Python<'_>,
    f: &Py<PyAny>,
    grads: Vec<Array>,
    places: &[(Spec, Context)],
) -> PyResult<Vec<Option<Array>>> {
    let args = grads.into_iter().map(|g| bound(py, g)).collect::<PyResult<Vec<_>>>()?;
    let result = f.bind(py).call1(PyTuple::new(py, args)?)?;
    let items: Vec<Any<'_>> = match object::is_array(result.as_ptr()) || result.is_none() {
        true => vec![result],
        false => match result.try_iter() {
            Ok(items) => items.collect::<PyResult<_>>()?,
            Err(_) => {
                return Err(PyTypeError::new_err(format!(
                    "backward gave a {}; an NDArray, None or a list of them for each input is expected",
                    result.get_type().name()?
                )));
            }
        },
    };
    if items.len() != places.len() {
        return Err(PyValueError::new_err(format!(
            "backward gave {} gradients; the function has {} inputs",
            items.len(),
            places.len()
        )));
    }
    let mut out = Vec::new();
    for (item, (spec, context)) in items.iter().zip(places) {
        if item.is_none() {
            out.push(None);
            continue;
        }
        let array = extract(item)?;
        if array.shape() != &spec.shape {
            return Err(PyValueError::new_err(format!(
                "backward gave a gradient of shape {} for an input of shape {}",
                array.shape(),
                spec.shape
            )));
        }
        // Made of a NumPy array, it is on the host wherever the input was.
        out.push(Some(match apart(array.context(), *context) {
            true => copied_to(&array, *context).py(py)?,
            false => array,
        }));
    }
    Ok(out)
}

/// A copy on `context`. Between devices it is recorded with a gradient that goes the way back: a rule of the operator
/// would leave the gradient where the copy is.
pub fn copied_to(source: &Array, context: Context) -> Result<Array, Error> {
    let copy = |source: &Array| {
        let target = Array::empty(source.spec().clone(), context)?;
        let op = registry::expect("_copyto");
        let attrs = ops::Attrs::new(op, &[])?;
        Ok(array::invoke(op, &attrs, &[source], Some(&[&target]), None)?.swap_remove(0))
    };
    let named = |e| copying(e, context);
    let home = source.context();
    if !apart(home, context) || !array::is_recording() || !source.is_linked() {
        return copy(source).map_err(named);
    }
    let mut copied = copy(&source.detach()).map_err(named)?;
    let back: CustomGrad =
        Box::new(move |grads, _| grads.iter().map(|g| copied_to(g, home).map(Some)).collect());
    let node = array::custom_node(vec![source.live_link()], std::slice::from_ref(&copied), context, back);
    copied.link = Some(Link { node, index: 0 });
    Ok(copied)
}

/// The error of a copy to `context`, which it names.
pub fn copying(error: Error, context: Context) -> Error {
    // That the device is not there needs no more words.
    if error.message().starts_with(&context.to_string()) {
        return error;
    }
    error.within(&format!("copying to {context}"))
}
