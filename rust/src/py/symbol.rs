//! Symbols in Python: the base class of `mxrs.symbol.Symbol`, and the functions that make a node of each operator.
//!
//! Making nodes is not on any hot path, so arguments are matched by plain comparison and names and scopes are asked of
//! the Python classes that own them (`NameManager`, `AttrScope`), which users derive from.
//!
//! length: one class, whose methods are thin and many.

use super::call::method_def;
use super::convert::{self, IntoPy, guard, raise};
use super::docs;
use crate::graph::{
    self, COMMON_KEYS, Call, Dims, Entry, Inits, Known, Node, Symbol, Texts, apply, is_reserved,
    refuse_input_key, stored_key, unknown_key,
};
use crate::ops::{Attrs, Kind, OpRef, Param, registry, show};
use mxrs_base::{AttrValue, DType, Error};
use parking_lot::RwLock;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use std::collections::HashMap;

type Any<'py> = Bound<'py, PyAny>;

/// What the class `Symbol` of Python derives from.
#[pyclass(subclass, module = "mxrs._core")]
pub struct SymbolBase {
    pub symbol: Symbol,
}

/// The subclass that results are made of.
static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

#[pyfunction]
pub fn set_symbol_class(py: Python<'_>, class: Py<PyAny>) {
    let _ = CLASS.set(py, class);
}

/// A new Python object for a symbol.
pub fn wrap(py: Python<'_>, symbol: Symbol) -> PyResult<Any<'_>> {
    let base = Bound::new(py, SymbolBase { symbol })?;
    match CLASS.get(py) {
        Some(class) => class.bind(py).call1((base,)),
        None => Ok(base.into_any()),
    }
}

/// The symbol in a Python object, if it is one.
pub fn symbol_of(object: &Any<'_>) -> Option<Symbol> {
    object.cast::<SymbolBase>().ok().map(|s| s.borrow().symbol.clone())
}

fn shape_list(py: Python<'_>, shapes: &[Option<Dims>]) -> PyResult<Py<PyAny>> {
    let tuples =
        shapes.iter().map(|s| PyTuple::new(py, s.as_deref().unwrap_or(&[]))).collect::<PyResult<Vec<_>>>()?;
    Ok(PyList::new(py, tuples)?.into_any().unbind())
}

fn type_list(py: Python<'_>, types: &[Option<DType>]) -> PyResult<Py<PyAny>> {
    let items = types
        .iter()
        .map(|t| t.map_or(Ok(py.None()), |t| super::numpy::scalar_class(py, t)))
        .collect::<PyResult<Vec<_>>>()?;
    Ok(PyList::new(py, items)?.into_any().unbind())
}

type Lists = (Py<PyAny>, Py<PyAny>, Py<PyAny>);
type Found = (Py<PyAny>, Py<PyAny>, Py<PyAny>, bool);

#[pymethods]
impl SymbolBase {
    /// Another handle to the graph of `source`.
    #[new]
    fn new(source: PyRef<'_, SymbolBase>) -> SymbolBase {
        SymbolBase { symbol: source.symbol.clone() }
    }

    /// The name of the node; None for a group.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.symbol.name()
    }
    /// Names of the variables that are not auxiliary states, in the order of the graph.
    fn list_arguments(&self) -> Vec<String> {
        self.symbol.list_arguments()
    }
    /// Names of the variables that some operator writes.
    fn list_auxiliary_states(&self) -> Vec<String> {
        self.symbol.list_auxiliary_states()
    }
    /// Names of all variables.
    fn list_inputs(&self) -> Vec<String> {
        self.symbol.list_inputs()
    }
    /// Names of the outputs.
    fn list_outputs(&self) -> Vec<String> {
        self.symbol.list_outputs()
    }
    /// The attribute's text, or None.
    fn attr(&self, key: &str) -> Option<String> {
        self.symbol.attr(key)
    }
    fn _texts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        self.symbol.list_attr().into_iter().try_for_each(|(k, v)| dict.set_item(k, v))?;
        Ok(dict)
    }
    /// The attributes of every node that has any: {node: {key: text}}.
    fn attr_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(py);
        for (name, texts) in self.symbol.attr_dict() {
            let dict = match all.get_item(&name)? {
                Some(dict) => dict.cast_into::<PyDict>()?,
                None => PyDict::new(py),
            };
            texts.into_iter().try_for_each(|(k, v)| dict.set_item(k, v))?;
            all.set_item(name, dict)?;
        }
        Ok(all)
    }
    fn _set_text(&mut self, py: Python<'_>, key: &str, value: &str) -> PyResult<()> {
        self.symbol.set_attr(key, value).py(py)
    }
    /// A group of every output of every node.
    fn get_internals<'py>(&self, py: Python<'py>) -> PyResult<Any<'py>> {
        wrap(py, self.symbol.internals())
    }
    /// A group of the inputs of the node; None where it has none.
    fn get_children<'py>(&self, py: Python<'py>) -> PyResult<Option<Any<'py>>> {
        self.symbol.children().map(|s| wrap(py, s)).transpose()
    }
    fn __len__(&self) -> usize {
        self.symbol.heads.len()
    }
    fn _pick<'py>(&self, py: Python<'py>, index: i64) -> PyResult<Any<'py>> {
        wrap(py, self.symbol.pick(index).py(py)?)
    }
    fn _find<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Any<'py>> {
        wrap(py, self.symbol.find(name).py(py)?)
    }
    fn _assign(&mut self, other: PyRef<'_, SymbolBase>) {
        self.symbol = other.symbol.clone();
    }
    fn _copy<'py>(&self, py: Python<'py>) -> PyResult<Any<'py>> {
        wrap(py, self.symbol.copy())
    }
    /// A copy with the variables of these names replaced, and the first output's node renamed.
    fn _compose<'py>(
        &self,
        py: Python<'py>,
        name: Option<&str>,
        values: HashMap<String, PyRef<'py, SymbolBase>>,
    ) -> PyResult<Any<'py>> {
        let mut by_name = HashMap::new();
        for (key, value) in values {
            let entry = value.symbol.single().cloned();
            by_name.insert(key.clone(), entry.map_err(|e| e.within(&key)).py(py)?);
        }
        wrap(py, self.symbol.compose(name, &by_name).py(py)?)
    }
    fn _json(&self, remove_casts: bool) -> String {
        match remove_casts {
            true => graph::save(&self.symbol.without_casts()),
            false => graph::save(&self.symbol),
        }
    }
    /// The graph as text, for people.
    fn debug_str(&self) -> String {
        self.symbol.describe()
    }
    /// (shapes of arguments, of outputs, of auxiliary states, whether all are known), from shapes and types by name.
    fn _infer_shape(
        &self,
        py: Python<'_>,
        shapes: HashMap<String, Vec<i64>>,
        types: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Found> {
        let mut known = self.known(py, types)?;
        for (name, dims) in shapes {
            self.check_name(py, &name)?;
            // Unknown dimensions are 0, or -1 under NumPy's shapes.
            known.shapes.insert(name, dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect());
        }
        let found = py.detach(|| graph::infer(&self.symbol, &known, false)).py(py)?;
        let all = |list: &[Option<Dims>]| list.iter().all(|s| s.as_ref().is_some_and(|d| !d.contains(&0)));
        let complete = all(&found.arg_shapes) && all(&found.out_shapes) && all(&found.aux_shapes);
        Ok((
            shape_list(py, &found.arg_shapes)?,
            shape_list(py, &found.out_shapes)?,
            shape_list(py, &found.aux_shapes)?,
            complete,
        ))
    }
    /// (types of arguments, of outputs, of auxiliary states), None where unknown.
    fn _infer_type(&self, py: Python<'_>, types: &Bound<'_, PyDict>) -> PyResult<Lists> {
        let known = self.known(py, Some(types))?;
        let found = py.detach(|| graph::infer(&self.symbol, &known, true)).py(py)?;
        Ok((
            type_list(py, &found.arg_types)?,
            type_list(py, &found.out_types)?,
            type_list(py, &found.aux_types)?,
        ))
    }
}

impl SymbolBase {
    fn check_name(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let names = self.symbol.list_inputs();
        if names.iter().any(|n| n == name) {
            return Ok(());
        }
        let near = registry::closest(name, names.iter().map(String::as_str), 1);
        let hint = near.first().map_or(String::new(), |n| format!("; did you mean {n}?"));
        let message =
            format!("the symbol has no argument named {name}{hint} (there are {})", names.join(", "));
        Err(raise(py, Error::op(message)))
    }

    fn known(&self, py: Python<'_>, types: Option<&Bound<'_, PyDict>>) -> PyResult<Known> {
        let mut known = Known::default();
        for (name, value) in types.into_iter().flat_map(|t| t.iter()) {
            let name: String = name.extract()?;
            self.check_name(py, &name)?;
            known.dtypes.insert(name, convert::dtype(&value)?);
        }
        Ok(known)
    }
}

/// A variable with these attribute texts.
#[pyfunction]
pub fn symbol_variable<'py>(
    py: Python<'py>,
    name: &str,
    texts: HashMap<String, String>,
) -> PyResult<Any<'py>> {
    let texts: Texts = texts.into_iter().map(|(k, v)| (stored_key(&k), v)).collect();
    wrap(py, Symbol::of(Node::variable(name, texts)))
}

/// The outputs of several symbols as one symbol.
#[pyfunction]
pub fn symbol_group<'py>(py: Python<'py>, members: Vec<PyRef<'py, SymbolBase>>) -> PyResult<Any<'py>> {
    wrap(py, Symbol::group(members.iter().map(|m| &m.symbol)))
}

/// The symbol that a JSON text describes.
#[pyfunction]
pub fn symbol_from_json<'py>(py: Python<'py>, text: &str) -> PyResult<Any<'py>> {
    wrap(py, graph::load(text).py(py)?)
}

/// The methods that are operators: (name, operator).
#[pyfunction]
pub fn symbol_methods() -> Vec<(&'static str, &'static str)> {
    registry::all().iter().flat_map(|op| op.methods.iter().map(|name| (*name, op.name))).collect()
}

/// A function that makes nodes: its operator, and what its nodes are named after.
struct Called {
    op: OpRef,
    hint: String,
}

static CALLED: RwLock<Vec<&'static Called>> = RwLock::new(Vec::new());

/// The function called `name` that makes nodes of the operator `op`; None where there is no such operator.
#[pyfunction]
pub fn symbol_function<'py>(py: Python<'py>, op: &str, name: &str) -> PyResult<Option<Any<'py>>> {
    let Some(op) = registry::find(op) else { return Ok(None) };
    let def = method_def(name, function, docs::symbol_docstring(op, name))?;
    let number = {
        let mut called = CALLED.write();
        called.push(Box::leak(Box::new(Called { op, hint: name.to_lowercase() })));
        called.len() - 1
    };
    let number = number.into_pyobject(py)?;
    let module = PyString::new(py, "mxrs.symbol");
    // SAFETY: the definition lives for ever.
    let f = unsafe { ffi::PyCFunction_NewEx(def, number.as_ptr(), module.as_ptr()) };
    // SAFETY: a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, f) }.map(Some)
}

/// `mx.sym.X(...)`: `this` is the function's number.
unsafe extern "C" fn function(
    this: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls this attached; `this` is the integer given above, `args` holds the positional values and
    // then those of the keywords `names`.
    unsafe {
        guard(|py| {
            let called = CALLED.read()[ffi::PyLong_AsSize_t(this)];
            let mut given = Given::new(py, called);
            for i in 0..count as usize {
                given.positional(Bound::from_borrowed_ptr(py, *args.add(i)), i)?;
            }
            if !names.is_null() {
                for i in 0..ffi::PyTuple_Size(names) {
                    let key = Bound::from_borrowed_ptr(py, ffi::PyTuple_GetItem(names, i));
                    let value = Bound::from_borrowed_ptr(py, *args.add(count as usize + i as usize));
                    given.keyword(key.cast::<PyString>()?.to_str()?, value)?;
                }
            }
            Ok(given.make()?.into_ptr())
        })
    }
}

/// The arguments of a call, sorted out.
struct Given<'py> {
    py: Python<'py>,
    called: &'static Called,
    inputs: Vec<Option<Entry>>,
    /// Inputs of a variadic operator given by keyword, before it is known which names it has.
    named: Vec<(String, Entry)>,
    slots: Vec<Option<AttrValue>>,
    texts: Texts,
    name: Option<Any<'py>>,
    attr: Option<Any<'py>>,
}

impl<'py> Given<'py> {
    fn new(py: Python<'py>, called: &'static Called) -> Given<'py> {
        Given {
            py,
            called,
            inputs: Vec::new(),
            named: Vec::new(),
            slots: vec![None; called.op.params.len()],
            texts: Texts::new(),
            name: None,
            attr: None,
        }
    }

    fn entry(&self, what: &str, value: &Any<'py>) -> PyResult<Entry> {
        let op = self.called.op;
        let Some(symbol) = symbol_of(value) else {
            let given = value.get_type().name()?;
            let message = format!("{}: {what} must be a Symbol; a {given} was given", op.name);
            return Err(raise(self.py, Error::typ(message)));
        };
        symbol.single().cloned().map_err(|e| e.within(&format!("{}: {what}", op.name))).py(self.py)
    }

    fn positional(&mut self, value: Any<'py>, i: usize) -> PyResult<()> {
        let op = self.called.op;
        if op.variadic.is_some() {
            // A list stands for its items, as it does for arrays.
            if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
                return value.try_iter()?.try_for_each(|item| self.positional(item?, i));
            }
            let entry = self.entry(&format!("input {}", self.inputs.len()), &value)?;
            self.inputs.push(Some(entry));
            return Ok(());
        }
        let inputs = op.inputs.len();
        if i < inputs {
            return self.input(i, &value);
        }
        if i < inputs + op.params.len() {
            return self.param(i - inputs, &value);
        }
        match i - inputs - op.params.len() {
            0 => self.keyword("name", value),
            1 => self.keyword("attr", value),
            _ => Err(PyTypeError::new_err(format!(
                "{} takes {} positional arguments; more were given",
                op.name,
                inputs + op.params.len() + 2
            ))),
        }
    }

    fn input(&mut self, i: usize, value: &Any<'py>) -> PyResult<()> {
        if self.inputs.len() <= i {
            self.inputs.resize(i + 1, None);
        }
        if self.inputs[i].is_some() {
            let (op, name) = (self.called.op.name, self.called.op.input_name(i));
            return Err(PyTypeError::new_err(format!("{op}: the input {name} is given twice")));
        }
        if !value.is_none() {
            self.inputs[i] = Some(self.entry(&self.called.op.input_name(i), value)?);
        }
        Ok(())
    }

    fn param(&mut self, i: usize, value: &Any<'py>) -> PyResult<()> {
        let op = self.called.op;
        let param = &op.params[i];
        if let Some(coerced) = convert::attr(value, op.name, param)? {
            let (text, read) = attr_text(value, param, coerced)?;
            self.texts.insert(param.name.to_string(), text);
            self.slots[i] = Some(read);
        }
        Ok(())
    }

    fn keyword(&mut self, key: &str, value: Any<'py>) -> PyResult<()> {
        let op = self.called.op;
        if let Some(i) = op.param_index(key) {
            return self.param(i, &value);
        }
        if op.variadic.is_none()
            && let Some(i) = op.inputs.iter().position(|input| input.name == key)
        {
            return self.input(i, &value);
        }
        match key {
            "name" => self.name = (!value.is_none()).then_some(value),
            "attr" => self.attr = (!value.is_none()).then_some(value),
            // Where an array operator writes to; a graph decides that itself.
            "out" => {}
            _ if graph::counter(op) == Some(key) => {
                self.texts.insert(key.to_string(), plain_text(&value)?);
            }
            _ if op.variadic.is_some()
                && (value.is_instance_of::<PyList>() || symbol_of(&value).is_some()) =>
            {
                if value.is_instance_of::<PyList>() {
                    return self.positional(value, 0);
                }
                let entry = self.entry(key, &value)?;
                self.named.push((key.to_string(), entry));
            }
            _ => self.text(key, &plain_text(&value)?)?,
        }
        Ok(())
    }

    /// An attribute that is no parameter.
    fn text(&mut self, key: &str, text: &str) -> PyResult<()> {
        let op = self.called.op;
        if !is_reserved(key) && !COMMON_KEYS.contains(&key) {
            refuse_input_key(key).py(self.py)?;
            return Err(raise(self.py, unknown_key(op, key)));
        }
        self.texts.insert(stored_key(key), text.to_string());
        Ok(())
    }

    /// Puts inputs of a variadic operator where their names say, and counts them.
    fn count(&mut self) -> PyResult<()> {
        let op = self.called.op;
        let given = self.inputs.len() + self.named.len();
        if let Some(counter) = graph::counter(op)
            && given > 0
            && !self.texts.contains_key(counter)
        {
            self.texts.insert(counter.to_string(), given.to_string());
            if let Some(i) = op.param_index(counter) {
                self.slots[i] = Some(op.params[i].coerce(op.name, AttrValue::Int(given as i64)).py(self.py)?);
            }
        }
        if self.named.is_empty() {
            return Ok(());
        }
        let attrs = Attrs::from_slots(op, self.slots.clone()).py(self.py)?;
        let count = given.max(graph::counted(op, &self.texts).py(self.py)?);
        let names = graph::input_names(op, &attrs, count);
        for (key, entry) in std::mem::take(&mut self.named) {
            let Some(i) = names.iter().position(|n| *n == key) else {
                return Err(raise(self.py, unknown_key(op, &key)));
            };
            if self.inputs.len() <= i {
                self.inputs.resize(i + 1, None);
            }
            self.inputs[i] = Some(entry);
        }
        Ok(())
    }

    /// Puts the inputs of an operator whose attributes choose among them in the order of those chosen.
    fn choose(&mut self, attrs: &Attrs) -> PyResult<()> {
        let op = self.called.op;
        if op.variadic.is_some() || op.input_names.is_none() {
            return Ok(());
        }
        let names = graph::input_names(op, attrs, 0);
        let mut chosen = vec![None; names.len()];
        for (i, entry) in std::mem::take(&mut self.inputs).into_iter().enumerate() {
            let Some(entry) = entry else { continue };
            let name = op.input_name(i);
            match names.iter().position(|n| *n == name) {
                Some(place) => chosen[place] = Some(entry),
                None => {
                    let known = names.join(", ");
                    let message = format!(
                        "{}: with these attributes there is no input {name}; there are {known}",
                        op.name
                    );
                    return Err(raise(self.py, Error::op(message)));
                }
            }
        }
        self.inputs = chosen;
        Ok(())
    }

    fn make(mut self) -> PyResult<Any<'py>> {
        let (py, op) = (self.py, self.called.op);
        self.scope()?;
        self.count()?;
        let attrs = Attrs::from_slots(op, std::mem::take(&mut self.slots)).py(py)?;
        self.choose(&attrs)?;
        while matches!(self.inputs.last(), Some(None)) {
            self.inputs.pop();
        }
        static NAMES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let manager = NAMES
            .get_or_try_init(py, || Ok::<_, PyErr>(py.import("mxrs.name")?.getattr("NameManager")?.unbind()))?
            .bind(py)
            .getattr("current")?;
        let name = manager.call_method1("get", (&self.name, &self.called.hint))?;
        let name = name
            .cast::<PyString>()
            .map_err(|_| PyTypeError::new_err(format!("{}: name must be a str, not {name}", op.name)))?;
        let node =
            apply(Call { op, attrs }, self.texts, name.to_str()?, self.inputs, Inits::Prescribe).py(py)?;
        wrap(py, Symbol::of(node))
    }

    /// Takes over the attributes of the scope and of `attr`.
    fn scope(&mut self) -> PyResult<()> {
        static SCOPE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = self.py;
        let scope = SCOPE
            .get_or_try_init(py, || {
                Ok::<_, PyErr>(py.import("mxrs.attribute")?.getattr("AttrScope")?.unbind())
            })?
            .bind(py)
            .getattr("current")?;
        let all = scope.call_method1("get", (self.attr.take(),))?.cast_into::<PyDict>()?;
        for (key, value) in all.iter() {
            let key: String = key.extract()?;
            // What the call itself says is stronger.
            if self.texts.contains_key(&stored_key(&key)) {
                continue;
            }
            if !value.is_instance_of::<PyString>() {
                let (op, given) = (self.called.op.name, value.get_type().name()?);
                let message = format!("{op}: attr: {key} is a {given}; attributes are strings");
                return Err(PyValueError::new_err(message));
            }
            self.keyword(&key, value)?;
        }
        Ok(())
    }
}

/// The text that files keep for an argument, and the value that it reads as: Python's `str`, where that says the same.
fn attr_text(value: &Any<'_>, param: &Param, coerced: AttrValue) -> PyResult<(String, AttrValue)> {
    if let (Kind::DType, AttrValue::DType(dtype)) = (param.kind, &coerced) {
        return Ok((dtype.name().to_string(), coerced));
    }
    let text = plain_text(value)?;
    if let Ok(read) = param.coerce("", AttrValue::Str(text.as_str().into())) {
        let same = match (&read, &coerced) {
            // A float32 is written with as few digits as it needs.
            (AttrValue::Float(a), AttrValue::Float(b)) => a == b || *a as f32 == *b as f32,
            (a, b) => a == b,
        };
        if same {
            return Ok((text, read));
        }
    }
    let text = match &coerced {
        AttrValue::Str(text) => text.to_string(),
        other => show(other),
    };
    Ok((text, coerced))
}

/// A value as text. Numbers of NumPy read as Python's, whatever their own `repr` says.
fn plain_text(value: &Any<'_>) -> PyResult<String> {
    let plain = value.is_none()
        || value.is_instance_of::<PyString>()
        || value.is_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>();
    if plain {
        return Ok(value.str()?.to_str()?.to_string());
    }
    let items = |open: &str, close: &str, lone: &str| -> PyResult<String> {
        let texts = value.try_iter()?.map(|item| plain_text(&item?)).collect::<PyResult<Vec<_>>>()?;
        let comma = if texts.len() == 1 { lone } else { "" };
        Ok(format!("{open}{}{comma}{close}", texts.join(", ")))
    };
    if value.is_instance_of::<PyTuple>() {
        return items("(", ")", ",");
    }
    if value.is_instance_of::<PyList>() {
        return items("[", "]", "");
    }
    if value.hasattr("dtype")? && value.hasattr("tolist")? {
        return match value.hasattr("__len__")? && value.getattr("ndim")?.extract::<usize>()? > 0 {
            true => plain_text(&value.call_method0("tolist")?),
            false => Ok(value.str()?.to_str()?.to_string()),
        };
    }
    Ok(value.str()?.to_str()?.to_string())
}
