//! Symbol files: MXNet's JSON, written as MXNet 1.9.1 lays it out and read from every version since 0.8.
//!
//! Older files differ in small ways: attributes stand under `param` and `attr`, those of a variable at the operator that
//! uses it (`weight_lr_mult`), auxiliary states are left out. [`load`] upgrades all of that; it looks at what it finds
//! rather than at the version, except where one spelling changed its meaning.

use super::compose::{Inits, apply, counter};
use super::names::{COMMON_KEYS, Texts, is_reserved, parse_attrs, stored_key, unknown_key};
use super::symbol::{Call, Entry, Node, NodeRef, Symbol};
use crate::ops::registry;
use mxrs_base::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

/// What the files we write say they are.
const VERSION: i64 = 10901;
/// Files that name no version were written before files had one.
const UNVERSIONED: i64 = 800;
/// From here on, `axis = -1` of argmax and argmin is the last axis; before, it meant all.
const NEGATIVE_AXIS: i64 = 905;

type Object = serde_json::Map<String, Value>;

fn damaged(text: impl std::fmt::Display) -> Error {
    Error::op(format!("this is not a symbol file, or a damaged one: {text}"))
}

/// The symbol that a text describes.
pub fn load(text: &str) -> Result<Symbol> {
    let value: Value = serde_json::from_str(text).map_err(damaged)?;
    let root = value.as_object().ok_or_else(|| damaged("an object {...} is expected at its top"))?;
    let version = match root.get("attrs").and_then(|a| a.get("mxnet_version")) {
        None => UNVERSIONED,
        Some(v) => {
            v.get(1).and_then(Value::as_i64).ok_or_else(|| damaged("mxnet_version is not a number"))?
        }
    };
    let mut reader = Reader { version, nodes: Vec::new() };
    for (i, node) in list(root, "nodes", "the file")?.iter().enumerate() {
        let made = reader.node(node, i)?;
        reader.nodes.push(made);
    }
    let heads = list(root, "heads", "the file")?;
    let heads = heads
        .iter()
        .enumerate()
        .map(|(i, h)| reader.entry(h, &format!("head {i}")))
        .collect::<Result<_>>()?;
    let symbol = Symbol { heads };
    if symbol.heads.is_empty() {
        return Err(damaged("it has no outputs"));
    }
    Ok(symbol)
}

fn list<'a>(object: &'a Object, key: &str, place: &str) -> Result<&'a Vec<Value>> {
    match object.get(key) {
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(damaged(format!("{place}: \"{key}\" is not a list"))),
        None => Err(damaged(format!("{place}: the list \"{key}\" is missing"))),
    }
}

fn string<'a>(object: &'a Object, key: &str, place: &str) -> Result<&'a str> {
    let found = object.get(key).and_then(Value::as_str);
    found.ok_or_else(|| damaged(format!("{place}: the text \"{key}\" is missing")))
}

struct Reader {
    version: i64,
    nodes: Vec<NodeRef>,
}

impl Reader {
    fn node(&self, value: &Value, number: usize) -> Result<NodeRef> {
        let place = format!("node {number}");
        let object = value.as_object().ok_or_else(|| damaged(format!("{place} is not an object {{...}}")))?;
        let op = string(object, "op", &place)?;
        let name = string(object, "name", &place)?;
        let place = format!("node {number} ({name})");
        if matches!(object.get("subgraphs"), Some(Value::Array(graphs)) if !graphs.is_empty()) {
            return Err(Error::not_implemented(format!(
                "{place}: {op}: control flow in files is not built yet"
            )));
        }
        let mut texts = self.texts(object, &place)?;
        let inputs = match object.get("inputs") {
            None => Vec::new(),
            Some(_) => list(object, "inputs", &place)?
                .iter()
                .enumerate()
                .map(|(i, e)| self.entry(e, &format!("{place}, input {i}")))
                .collect::<Result<Vec<_>>>()?,
        };
        if op == "null" {
            if !inputs.is_empty() {
                return Err(damaged(format!("{place}: a variable has no inputs")));
            }
            if self.version < VERSION {
                texts = texts.into_iter().map(|(k, v)| (stored_key(&k), v)).collect();
            }
            return Ok(Node::variable(name, texts));
        }
        self.call(op, name, texts, inputs).map_err(|e| e.within(&place))
    }

    fn call(&self, op: &str, name: &str, given: Texts, inputs: Vec<Entry>) -> Result<NodeRef> {
        let Some(op) = registry::find(op) else {
            let near = registry::similar(op, 3);
            let hint = if near.is_empty() { String::new() } else { format!("; close: {}", near.join(", ")) };
            return Err(Error::not_implemented(format!("no operator is named {op}{hint}")));
        };
        let mut texts = Texts::new();
        // Attributes that belong to the variable of an input: (input, key, text).
        let mut of_inputs = Vec::new();
        for (key, text) in given {
            if op.param_index(&key).is_some() || is_reserved(&key) || counter(op) == Some(key.as_str()) {
                texts.insert(key, text);
            } else if COMMON_KEYS.contains(&&*key) {
                texts.insert(stored_key(&key), text);
            } else if let Some((input, common)) = split_input_key(&key) {
                of_inputs.push((input.to_string(), stored_key(common), text));
            } else {
                return Err(unknown_key(op, &key));
            }
        }
        if self.version < NEGATIVE_AXIS
            && matches!(op.name, "argmax" | "argmin")
            && texts.get("axis").is_some_and(|t| t == "-1")
        {
            texts.remove("axis");
        }
        let attrs = parse_attrs(op, &texts)?;
        let given = inputs.into_iter().map(Some).collect();
        let node = apply(Call { op, attrs }, texts, name, given, Inits::Keep)?;
        for (input, key, text) in of_inputs {
            let Some(i) = op.inputs.iter().position(|known| known.name == input) else {
                return Err(unknown_key(op, &format!("{input}_{}", key.trim_matches('_'))));
            };
            if let Some(entry) = node.inputs.get(i).filter(|e| e.node.is_variable()) {
                entry.node.texts.lock().insert(key, text);
            }
        }
        Ok(node)
    }

    /// Attributes under any of the keys they had.
    fn texts(&self, object: &Object, place: &str) -> Result<Texts> {
        let mut texts = Texts::new();
        for key in ["param", "attr", "attrs"] {
            let entries = match object.get(key) {
                None => continue,
                Some(Value::Object(entries)) => entries,
                Some(_) => return Err(damaged(format!("{place}: \"{key}\" is not an object {{...}}"))),
            };
            for (name, value) in entries {
                let text = value.as_str();
                let text = text.ok_or_else(|| damaged(format!("{place}: attribute {name} is not a text")))?;
                texts.insert(name.clone(), text.to_string());
            }
        }
        Ok(texts)
    }

    /// `[node, output]`, after which newer files put a version that nothing depends on.
    fn entry(&self, value: &Value, place: &str) -> Result<Entry> {
        let number = |i: usize| value.get(i).and_then(Value::as_u64).and_then(|v| u32::try_from(v).ok());
        let (Some(node), Some(index)) = (number(0), number(1)) else {
            return Err(damaged(format!("{place}: [node, output] is expected, not {value}")));
        };
        let Some(found) = self.nodes.get(node as usize) else {
            return Err(damaged(format!(
                "{place}: it names node {node}, and {} precede it",
                self.nodes.len()
            )));
        };
        if index as usize >= found.outputs() {
            let (name, outputs) = (&found.name, found.outputs());
            return Err(damaged(format!("{place}: it names output {index} of {name}, which has {outputs}")));
        }
        Ok(Entry { node: found.clone(), index })
    }
}

/// `weight_lr_mult` as the input and the common key.
fn split_input_key(key: &str) -> Option<(&str, &'static str)> {
    COMMON_KEYS.iter().find_map(|common| {
        let input = key.strip_suffix(common)?.strip_suffix('_')?;
        (!input.is_empty()).then_some((input, *common))
    })
}

/// The text of a symbol's file, byte for byte as MXNet 1.9.1 writes it.
pub fn save(symbol: &Symbol) -> String {
    let order = symbol.order();
    let number: HashMap<*const Node, usize> =
        order.iter().enumerate().map(|(i, n)| (Arc::as_ptr(n), i)).collect();
    // How often each variable was written by the calls before: entries say which state they mean.
    let mut versions = vec![0u32; order.len()];
    let mut out = String::from("{\n  \"nodes\": [");
    let mut rows = vec![0usize];
    let entry = |e: &Entry, versions: &[u32]| {
        let node = number[&Arc::as_ptr(&e.node)];
        format!("[{node}, {}, {}]", e.index, versions[node])
    };
    for (i, node) in order.iter().enumerate() {
        out.push_str(if i == 0 { "\n    {\n" } else { ", \n    {\n" });
        let op = node.call.as_ref().map_or("null", |c| c.op.name);
        let _ = writeln!(out, "      \"op\": {}, \n      \"name\": {}, ", quoted(op), quoted(&node.name));
        let texts = node.texts.lock();
        if !texts.is_empty() {
            let items: Vec<String> =
                texts.iter().map(|(k, v)| format!("{}: {}", quoted(k), quoted(v))).collect();
            let _ = writeln!(out, "      \"attrs\": {}, ", block(&items, ('{', '}'), 1, 6));
        }
        for (place, input) in node.inputs.iter().enumerate() {
            if node.mutates(place) && input.node.is_variable() {
                versions[number[&Arc::as_ptr(&input.node)]] += 1;
            }
        }
        let inputs: Vec<String> = node.inputs.iter().map(|e| entry(e, &versions)).collect();
        let _ = write!(out, "      \"inputs\": {}\n    }}", block(&inputs, ('[', ']'), 10, 6));
        let outputs = node.call.as_ref().map_or(1, |c| c.op.file_outputs(&c.attrs));
        rows.push(rows[i] + outputs);
    }
    let numbers = |items: &mut dyn Iterator<Item = usize>| {
        let items: Vec<String> = items.map(|v| v.to_string()).collect();
        block(&items, ('[', ']'), 10, 2)
    };
    let variables = numbers(&mut (0..order.len()).filter(|i| order[*i].is_variable()));
    let heads: Vec<String> = symbol.heads.iter().map(|e| entry(e, &versions)).collect();
    let _ = write!(
        out,
        "\n  ], \n  \"arg_nodes\": {variables}, \n  \"node_row_ptr\": {}, \n  \"heads\": {}, \n  \"attrs\": \
         {{\"mxnet_version\": [\"int\", {VERSION}]}}\n}}",
        numbers(&mut rows.iter().copied()),
        block(&heads, ('[', ']'), 10, 2),
    );
    out
}

/// Items between brackets: on one line up to `limit` of them, else each on its own, two deeper than `indent`.
fn block(items: &[String], (open, close): (char, char), limit: usize, indent: usize) -> String {
    if items.len() <= limit {
        return format!("{open}{}{close}", items.join(", "));
    }
    let (inner, outer) = (" ".repeat(indent + 2), " ".repeat(indent));
    let items = items.join(&format!(", \n{inner}"));
    format!("{open}\n{inner}{items}\n{outer}{close}")
}

/// A JSON text. Letters beyond ASCII stay as they are.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 32 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
