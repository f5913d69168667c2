//! What users ask of a symbol: the names of its arguments and outputs, attribute texts, and parts of it.
//!
//! The names are MXNet's: `fc1_weight` for a variable made on the way, `fc1_output` for the output of a call.

use super::symbol::{Entry, Node, NodeRef, Symbol};
use crate::ops::{Attrs, OpRef, registry};
use mxrs_base::{AttrValue, Error, Result};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Texts by name, as files keep them.
pub type Texts = BTreeMap<String, String>;

/// Attributes that any node may have. They are stored between double underscores and found under either spelling.
pub const COMMON_KEYS: [&str; 5] = ["ctx_group", "lr_mult", "wd_mult", "force_mirroring", "mirror_stage"];

/// The key that a text is stored under.
pub fn stored_key(key: &str) -> String {
    if COMMON_KEYS.contains(&key) { format!("__{key}__") } else { key.to_string() }
}

/// Whether a key is of the `__x__` kind, which operators keep without looking at it.
pub fn is_reserved(key: &str) -> bool {
    key.len() > 4 && key.starts_with("__") && key.ends_with("__")
}

/// The attributes that an operator reads out of texts.
pub fn parse_attrs(op: OpRef, texts: &Texts) -> Result<Attrs> {
    let slots = op
        .params
        .iter()
        .map(|p| match texts.get(p.name) {
            // Files say None where an argument was left out.
            Some(text) if text == "None" && !p.nullable && p.default.is_some() => Ok(None),
            Some(text) => p.coerce(op.name, AttrValue::Str(text.as_str().into())).map(Some),
            None => Ok(None),
        })
        .collect::<Result<Vec<_>>>()?;
    Attrs::from_slots(op, slots)
}

/// The error for a key that an operator does not know.
pub fn unknown_key(op: OpRef, key: &str) -> Error {
    let mut known: Vec<&str> = op.params.iter().map(|p| p.name).collect();
    if op.variadic.is_none() {
        known.extend(op.inputs.iter().map(|i| i.name));
    }
    known.extend(["name", "attr"]);
    let hint = match registry::closest(key, known.iter().copied(), 1).first() {
        Some(near) => format!("; did you mean {near}?"),
        None => String::new(),
    };
    Error::typ(format!(
        "{}: no argument is named '{key}'{hint} (there are {}; attributes of your own are named __like_this__)",
        op.name,
        known.join(", ")
    ))
}

impl Node {
    /// What output `index` is called.
    pub fn output_name(&self, index: u32) -> String {
        match &self.call {
            None => self.name.to_string(),
            Some(call) => {
                // Where an operator does not name its outputs, hidden ones count too.
                let count = call.op.file_outputs(&call.attrs);
                format!("{}_{}", self.name, call.op.output_name(index as usize, count))
            }
        }
    }

    /// All texts; common keys under both spellings.
    fn spellings(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for (key, value) in self.texts.lock().iter() {
            all.push((key.clone(), value.clone()));
            let plain = key.trim_start_matches("__").trim_end_matches("__");
            if is_reserved(key) && COMMON_KEYS.contains(&plain) {
                all.push((plain.to_string(), value.clone()));
            }
        }
        all
    }
}

fn names(nodes: &[NodeRef]) -> Vec<String> {
    nodes.iter().map(|n| n.name.to_string()).collect()
}

impl Symbol {
    /// The node, if all heads are outputs of one.
    fn node(&self) -> Option<&NodeRef> {
        let first = &self.heads.first()?.node;
        self.heads.iter().all(|h| Arc::ptr_eq(&h.node, first)).then_some(first)
    }

    /// The name of the node; a group has none.
    pub fn name(&self) -> Option<&str> {
        self.node().map(|n| &*n.name)
    }
    pub fn list_arguments(&self) -> Vec<String> {
        names(&self.inputs().0)
    }
    pub fn list_auxiliary_states(&self) -> Vec<String> {
        names(&self.inputs().1)
    }
    /// Arguments and auxiliary states in the order of the graph.
    pub fn list_inputs(&self) -> Vec<String> {
        self.order().iter().filter(|n| n.is_variable()).map(|n| n.name.to_string()).collect()
    }
    pub fn list_outputs(&self) -> Vec<String> {
        self.heads.iter().map(|h| h.node.output_name(h.index)).collect()
    }

    /// The text of the first head's node under `key`.
    pub fn attr(&self, key: &str) -> Option<String> {
        let texts = self.heads.first()?.node.texts.lock();
        texts.get(key).or_else(|| texts.get(&stored_key(key))).cloned()
    }
    /// The texts of the first head's node.
    pub fn list_attr(&self) -> Vec<(String, String)> {
        self.heads.first().map_or(Vec::new(), |h| h.node.spellings())
    }
    /// The texts of every node that has any.
    pub fn attr_dict(&self) -> Vec<(String, Vec<(String, String)>)> {
        let order = self.order();
        let all = order.iter().map(|n| (n.name.to_string(), n.spellings()));
        all.filter(|(_, texts)| !texts.is_empty()).collect()
    }

    /// Sets a text of the node. A parameter of its operator takes effect in this handle and in graphs made of it later;
    /// graphs already made of it keep the old one.
    pub fn set_attr(&mut self, key: &str, value: &str) -> Result<()> {
        let Some(node) = self.node().cloned() else {
            return Err(Error::op(
                "a group of symbols has no attributes of its own; set those of its members",
            ));
        };
        let key = stored_key(key);
        let mut texts = node.texts.lock().clone();
        texts.insert(key.clone(), value.to_string());
        let Some(call) = node.call.as_ref().filter(|_| !is_reserved(&key)) else {
            *node.texts.lock() = texts;
            return Ok(());
        };
        if call.op.param_index(&key).is_none() {
            return Err(unknown_key(call.op, &key));
        }
        let mut call = call.clone();
        call.attrs = parse_attrs(call.op, &texts)?;
        if call.op.count(&call.attrs) != node.outputs()
            || call.op.arity(&call.attrs) != Some(node.inputs.len())
        {
            return Err(Error::op(format!(
                "{}: argument {key} = {value} changes the number of inputs or outputs of {}; make a new symbol",
                call.op.name, node.name
            )));
        }
        let (name, inputs) = (node.name.clone(), node.inputs.clone());
        let node = Arc::new(Node { name, call: Some(call), inputs, texts: Mutex::new(texts) });
        for head in &mut self.heads {
            head.node = node.clone();
        }
        Ok(())
    }

    /// Every output of every node, in the order of the graph.
    pub fn internals(&self) -> Symbol {
        let heads = self.order().into_iter().flat_map(|node| Symbol::of(node).heads).collect();
        Symbol { heads }
    }

    /// The inputs of the heads' nodes; `None` where they have none.
    pub fn children(&self) -> Option<Symbol> {
        let mut seen: HashSet<*const Node> = HashSet::new();
        let nodes = self.heads.iter().filter(|h| seen.insert(Arc::as_ptr(&h.node)));
        let heads: Vec<Entry> = nodes.flat_map(|h| h.node.inputs.iter().cloned()).collect();
        (!heads.is_empty()).then_some(Symbol { heads })
    }

    /// Head number `index`.
    pub fn pick(&self, index: i64) -> Result<Symbol> {
        match usize::try_from(index).ok().and_then(|i| self.heads.get(i)) {
            Some(head) => Ok(Symbol { heads: vec![head.clone()] }),
            None => Err(Error::index(format!(
                "output {index} was asked for; the symbol has {}, counted from 0",
                self.heads.len()
            ))),
        }
    }

    /// The one head of this name.
    pub fn find(&self, name: &str) -> Result<Symbol> {
        let outputs = self.list_outputs();
        let mut found = outputs.iter().enumerate().filter(|(_, n)| *n == name);
        match (found.next(), found.next()) {
            (Some((i, _)), None) => self.pick(i as i64),
            (Some(_), Some(_)) => Err(Error::value(format!("several outputs are named \"{name}\""))),
            (None, _) => {
                let near = registry::closest(name, outputs.iter().map(String::as_str), 3);
                let hint =
                    if near.is_empty() { String::new() } else { format!("; close: {}", near.join(", ")) };
                Err(Error::value(format!("no output is named \"{name}\"{hint}")))
            }
        }
    }

    /// The graph as text: outputs, variables, and each call with its inputs and attributes.
    pub fn describe(&self) -> String {
        let mut text = String::from("Symbol Outputs:\n");
        for (i, head) in self.heads.iter().enumerate() {
            text.push_str(&format!("\toutput[{i}]={}({})\n", head.node.name, head.index));
        }
        for node in self.order() {
            let Some(call) = &node.call else {
                text.push_str(&format!("Variable:{}\n", node.name));
                continue;
            };
            let rule = "--------------------";
            text.push_str(&format!("{rule}\nOp:{}, Name={}\nInputs:\n", call.op.name, node.name));
            for (i, entry) in node.inputs.iter().enumerate() {
                text.push_str(&format!("\targ[{i}]={}({})", entry.node.name, entry.index));
                if entry.node.is_variable() {
                    text.push_str(&format!(" version={}", i32::from(node.mutates(i))));
                }
                text.push('\n');
            }
            let texts = node.texts.lock();
            if !texts.is_empty() {
                text.push_str("Attrs:\n");
                texts.iter().for_each(|(k, v)| text.push_str(&format!("\t{k}={v}\n")));
            }
        }
        text
    }
}
