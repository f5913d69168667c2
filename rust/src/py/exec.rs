//! Executors and cached operators for Python.

use super::call::current_context;
use super::convert::{IntoPy, dtype};
use super::object::{bound, extract};
use super::symbol::SymbolBase;
use crate::array::{Array, GradReq};
use crate::device::Context;
use crate::exec::{self, Budget, CachedOp, Executor, Plan, Request};
use crate::ops::Spec;
use mxrs_base::{Error, ErrorKind, Result, Shape};
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

type Any<'py> = Bound<'py, PyAny>;

fn arrays(list: &[Any<'_>]) -> PyResult<Vec<Array>> {
    list.iter().map(extract).collect()
}

/// What Python gives for a memory budget: nothing, or text as [`Budget`] reads it.
fn budget(py: Python<'_>, text: Option<&str>) -> PyResult<Budget> {
    text.map_or(Ok(Budget::Unsaid), |t| t.parse().py(py))
}

fn grad_reqs(reqs: &[String]) -> PyResult<Vec<GradReq>> {
    let read = |r: &String| match r.as_str() {
        "write" | "inplace" => Ok(GradReq::Write),
        "add" => Ok(GradReq::Add),
        "null" => Ok(GradReq::Null),
        other => Err(PyValueError::new_err(format!(
            "grad_req '{other}' is not valid; 'write', 'add' and 'null' are allowed"
        ))),
    };
    reqs.iter().map(read).collect()
}

fn optional(list: &[Option<Any<'_>>]) -> PyResult<Vec<Option<Array>>> {
    list.iter().map(|a| a.as_ref().map(extract).transpose()).collect()
}

fn objects<'py>(py: Python<'py>, list: &[Array]) -> PyResult<Vec<Any<'py>>> {
    list.iter().map(|a| bound(py, a.clone())).collect()
}

/// A graph bound to arrays.
#[pyclass(subclass, module = "mxrs._core")]
pub struct ExecutorBase {
    inner: Mutex<Executor>,
}

#[pymethods]
impl ExecutorBase {
    /// `args`, `grads` and `reqs` go with the symbol's arguments, `aux` with its auxiliary states, `contexts` with its
    /// outputs, `own` of which are differentiated.
    #[new]
    #[pyo3(signature = (symbol, args, grads, reqs, aux, contexts, own, memory_budget = None))]
    #[allow(clippy::too_many_arguments)] // what binding takes
    fn new(
        py: Python<'_>,
        symbol: PyRef<'_, SymbolBase>,
        args: Vec<Any<'_>>,
        grads: Vec<Option<Any<'_>>>,
        reqs: Vec<String>,
        aux: Vec<Any<'_>>,
        contexts: Vec<(i64, i32)>,
        own: usize,
        memory_budget: Option<String>,
    ) -> PyResult<ExecutorBase> {
        let reqs = grad_reqs(&reqs)?;
        let budget = budget(py, memory_budget.as_deref())?;
        let contexts = contexts
            .into_iter()
            .map(|(kind, id)| Context::new(kind, id).py(py))
            .collect::<PyResult<Vec<_>>>()?;
        let (args, grads, aux) = (arrays(&args)?, optional(&grads)?, arrays(&aux)?);
        let graph = symbol.symbol.clone();
        let made = py.detach(|| Executor::new(graph, args, grads, reqs, aux, &contexts, own, budget));
        Ok(ExecutorBase { inner: Mutex::new(made.py(py)?) })
    }

    fn _outputs<'py>(&self, py: Python<'py>) -> PyResult<Vec<Any<'py>>> {
        objects(py, self.inner.lock().outputs())
    }

    fn _forward(&self, py: Python<'_>, train: bool) -> PyResult<()> {
        self.inner.lock().forward(train).map_err(|e| short_of_memory(e, "forward of an executor")).py(py)
    }

    fn _backward(&self, py: Python<'_>, heads: Vec<Option<Any<'_>>>) -> PyResult<()> {
        let heads = optional(&heads)?;
        self.inner.lock().backward(heads).map_err(|e| short_of_memory(e, "backward of an executor")).py(py)
    }

    /// The plan of training as text.
    fn _describe(&self, py: Python<'_>) -> PyResult<String> {
        Ok(exec::describe(&*self.inner.lock().training_plan().py(py)?))
    }

    /// Bytes of working memory that the plan of training needs beside arrays that users see.
    fn _working_memory(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.inner.lock().training_plan().py(py)?.arena)
    }
}

/// A graph that is called like an operator.
#[pyclass(subclass, module = "mxrs._core")]
pub struct CachedOpBase {
    inner: CachedOp,
}

#[pymethods]
impl CachedOpBase {
    /// `order` names the variables in the order in which calls give their arrays.
    #[new]
    #[pyo3(signature = (symbol, order, memory_budget = None))]
    fn new(
        py: Python<'_>,
        symbol: PyRef<'_, SymbolBase>,
        order: Vec<String>,
        memory_budget: Option<String>,
    ) -> PyResult<CachedOpBase> {
        let budget = budget(py, memory_budget.as_deref())?;
        Ok(CachedOpBase { inner: CachedOp::new(symbol.symbol.clone(), &order, budget).py(py)? })
    }

    /// Runs the graph on the arrays; one output array per output of the symbol.
    fn _call<'py>(&self, py: Python<'py>, inputs: Vec<Any<'py>>) -> PyResult<Vec<Any<'py>>> {
        let given = arrays(&inputs)?;
        one_device(&given).py(py)?;
        let outputs = self.inner.call(&given, current_context());
        let outputs = outputs.map_err(|e| short_of_memory(e, "a hybridized block")).py(py)?;
        outputs.into_iter().map(|a| bound(py, a)).collect()
    }
}

/// Where memory was short for a graph as a whole, no operator is named yet.
fn short_of_memory(error: Error, what: &str) -> Error {
    if error.kind() == ErrorKind::Memory { error.within(what) } else { error }
}

/// Refuses arrays on several devices where one of them is a GPU; contexts of the host share its memory.
fn one_device(arrays: &[Array]) -> Result<()> {
    let Some(first) = arrays.first().map(Array::context) else { return Ok(()) };
    match arrays.iter().map(Array::context).find(|c| *c != first && !(c.is_host() && first.is_host())) {
        None => Ok(()),
        Some(other) => Err(Error::op(format!(
            "the inputs and parameters of a hybridized block must be on one device; given were {first} and {other}; \
             as_in_context moves an array"
        ))),
    }
}

/// Searches a plan of training within a budget, for arguments and auxiliary states of these shapes and types:
/// which nodes (by their places among the graph's calls) are computed again, and the bytes of working memory.
#[pyfunction]
#[pyo3(signature = (symbol, shapes, dtypes, reqs, memory_budget = None, trials = None))]
pub fn search_plan(
    py: Python<'_>,
    symbol: PyRef<'_, SymbolBase>,
    shapes: Vec<Vec<i64>>,
    dtypes: Vec<Any<'_>>,
    reqs: Vec<String>,
    memory_budget: Option<String>,
    trials: Option<usize>,
) -> PyResult<(Vec<usize>, usize)> {
    let mut specs = Vec::new();
    for (shape, given) in shapes.iter().zip(&dtypes) {
        specs.push(Spec::new(Shape::from_i64(shape).py(py)?, dtype(given)?));
    }
    let grads = grad_reqs(&reqs)?.into_iter().map(Request::code).collect();
    let graph = symbol.symbol.clone();
    let budget = budget(py, memory_budget.as_deref())?;
    let request = Request { specs, train: true, grads, heads: graph.heads.len(), budget };
    let plan = py.detach(|| Plan::searched(&graph, &request, trials)).py(py)?;
    Ok((plan.again(), plan.arena))
}
