//! Docstrings and signatures out of the records.

use crate::ops::{OpRef, Param, show};

/// `name(data, axis=-1, ...)` in the form that `inspect.signature` reads.
fn signature(op: OpRef, name: &str, this: bool) -> String {
    let mut parts: Vec<String> = Vec::new();
    if this {
        parts.push("$self".into());
    }
    let skip = usize::from(this);
    match op.variadic {
        Some(_) => parts.push(format!("*{}", op.inputs[0].name)),
        None => parts.extend(op.inputs.iter().skip(skip).map(|i| format!("{}=None", i.name))),
    }
    for p in op.params.iter().filter(|p| op.variadic != Some(p.name)) {
        parts.push(match &p.default {
            Some(default) => format!("{}={}", p.name, show(default)),
            None => format!("{}=None", p.name),
        });
    }
    parts.push("out=None".into());
    parts.push("name=None".into());
    format!("{name}({})", parts.join(", "))
}

fn body(op: OpRef) -> String {
    let mut text = String::from(op.doc);
    text.push_str("\n\nParameters\n----------\n");
    for input in &op.inputs {
        let kind = if op.variadic.is_some() { "NDArrays" } else { "NDArray" };
        text.push_str(&format!("{} : {kind}\n    {}\n", input.name, input.doc));
    }
    for p in &op.params {
        text.push_str(&param(p));
    }
    text.push_str("out : NDArray, optional\n    where the result is written\n");
    text
}

fn param(p: &Param) -> String {
    let default = match &p.default {
        Some(default) => format!(", default {}", show(default)),
        None => ", required".into(),
    };
    format!("{} : {}{default}\n    {}\n", p.name, p.type_text(), p.doc)
}

pub fn docstring(op: OpRef, name: &str) -> String {
    format!("{}\n--\n\n{}", signature(op, name, false), body(op))
}

/// Of the function that makes a node of the operator.
pub fn symbol_docstring(op: OpRef, name: &str) -> String {
    let signature = signature(op, name, false).replace("out=None, name=None)", "name=None, attr=None)");
    let body = body(op)
        .replace("NDArray, optional\n    where the result is written", "ignored")
        .replace("NDArray", "Symbol");
    let more = "name : str, optional\n    the name of the node\nattr : dict of str to str, optional\n    attributes of the node\n";
    format!("{signature}\n--\n\n{body}{more}")
}

pub fn method_docstring(op: OpRef, name: &str) -> String {
    format!("{}\n--\n\n{}", signature(op, name, true), body(op))
}
