//! Symbols for Python.

use crate::graph::Symbol;
use pyo3::prelude::*;

/// A symbol.
#[pyclass(subclass, module = "mxrs._core")]
pub struct SymbolBase {
    pub symbol: Symbol,
}
