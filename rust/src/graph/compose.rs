//! Making graphs of graphs: calls of operators with variables for what is not given, substitution, groups and copies.

use super::names::{Texts, is_reserved};
use super::symbol::{Call, Entry, Node, NodeRef, Symbol};
use crate::ops::{Attrs, OpRef};
use mxrs_base::{Error, Result};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Whether the variables that an operator is given take the initializer that it prescribes. Files already say it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Inits {
    Prescribe,
    Keep,
}

/// The attribute in which files count the inputs of a variadic operator.
pub fn counter(op: OpRef) -> Option<&'static str> {
    op.variadic.filter(|name| *name == "num_args" || op.param_index(name).is_some())
}

/// How many inputs the texts of a call of a variadic operator ask for: those beyond the given ones become variables.
pub fn counted(op: OpRef, texts: &Texts) -> Result<usize> {
    let Some(text) = counter(op).and_then(|name| texts.get(name)) else { return Ok(0) };
    let count = text.parse().ok().filter(|n: &usize| *n <= MAX_COUNT);
    count.ok_or_else(|| {
        let name = op.variadic.unwrap_or_default();
        Error::op(format!("{}: argument {name} = {text} is not valid; 0 to {MAX_COUNT} is allowed", op.name))
    })
}

/// The most inputs that an attribute may ask for.
const MAX_COUNT: usize = 1 << 16;

/// What the inputs of a call are called in a graph: `given` of them where their number is free.
pub fn input_names(op: OpRef, attrs: &Attrs, given: usize) -> Vec<String> {
    let fixed = op.input_names.map_or(&[][..], |f| f(attrs));
    if !fixed.is_empty() {
        return fixed.iter().map(|n| n.to_string()).collect();
    }
    match op.arity(attrs) {
        Some(count) => (0..count).map(|i| op.input_name(i)).collect(),
        None => (0..given).map(|i| format!("arg{i}")).collect(),
    }
}

/// A node that calls `op`. Inputs that are `None`, or missing at the end, become variables named after the node, which
/// carry its texts.
pub fn apply(
    call: Call,
    texts: Texts,
    name: &str,
    given: Vec<Option<Entry>>,
    inits: Inits,
) -> Result<NodeRef> {
    let (op, attrs) = (call.op, &call.attrs);
    let names = input_names(op, attrs, given.len().max(counted(op, &texts)?));
    if given.len() > names.len() {
        return Err(Error::op(format!(
            "{}: {} inputs are given; with these attributes it takes {}: {}",
            op.name,
            given.len(),
            names.len(),
            names.join(", ")
        )));
    }
    let mut given = given.into_iter();
    let mut inputs = Vec::with_capacity(names.len());
    for (i, input) in names.iter().enumerate() {
        let init = op.inits.iter().find(|(place, _)| *place == i).map(|(_, text)| text.to_string());
        let entry = given.next().flatten();
        let made = entry.is_none();
        let entry = entry.unwrap_or_else(|| Entry {
            node: Node::variable(&format!("{name}_{input}"), texts.clone()),
            index: 0,
        });
        if let Some(init) = init
            && entry.node.is_variable()
            && (made || inits == Inits::Prescribe)
        {
            entry.node.texts.lock().entry("__init__".to_string()).or_insert(init);
        }
        inputs.push(entry);
    }
    Ok(Arc::new(Node { name: name.into(), call: Some(call), inputs, texts: Mutex::new(texts) }))
}

/// What [`Symbol::rebuild`] puts in the place of a node.
enum Made {
    Node(NodeRef),
    /// One entry for each of its outputs.
    Entries(Vec<Entry>),
}

impl Symbol {
    /// Heads of several symbols as one.
    pub fn group<'a>(members: impl IntoIterator<Item = &'a Symbol>) -> Symbol {
        Symbol { heads: members.into_iter().flat_map(|s| s.heads.iter().cloned()).collect() }
    }

    /// A graph with a new node for each, as `make` says.
    fn rebuild(&self, mut make: impl FnMut(&NodeRef, Vec<Entry>) -> Made) -> Symbol {
        let mut made: HashMap<*const Node, Made> = HashMap::new();
        let renew = |made: &HashMap<*const Node, Made>, entry: &Entry| match &made[&Arc::as_ptr(&entry.node)]
        {
            Made::Node(node) => Entry { node: node.clone(), index: entry.index },
            Made::Entries(entries) => entries[entry.index as usize].clone(),
        };
        for node in self.order() {
            let inputs = node.inputs.iter().map(|e| renew(&made, e)).collect();
            let new = make(&node, inputs);
            made.insert(Arc::as_ptr(&node), new);
        }
        Symbol { heads: self.heads.iter().map(|e| renew(&made, e)).collect() }
    }

    /// A graph of new nodes, so that setting attributes of one does not change the other.
    pub fn copy(&self) -> Symbol {
        self.rebuild(|node, inputs| Made::Node(renamed(node, &node.name, inputs)))
    }

    /// A copy whose variables are replaced by name. `name`, if given, becomes that of the first head's node.
    pub fn compose(&self, name: Option<&str>, by_name: &HashMap<String, Entry>) -> Result<Symbol> {
        let known = self.list_inputs();
        if let Some(other) = by_name.keys().find(|k| !known.contains(k)) {
            return Err(Error::op(format!(
                "no variable of the symbol is named {other}; there are {}",
                known.join(", ")
            )));
        }
        let first = self.heads.first().map(|h| Arc::as_ptr(&h.node));
        Ok(self.rebuild(|node, inputs| {
            if node.is_variable()
                && let Some(entry) = by_name.get(&*node.name)
            {
                return Made::Entries(vec![entry.clone()]);
            }
            let name = name.filter(|_| first == Some(Arc::as_ptr(node))).unwrap_or(&node.name);
            Made::Node(renamed(node, name, inputs))
        }))
    }

    /// The graph without the casts that automatic mixed precision put in.
    pub fn without_casts(&self) -> Symbol {
        let is_cast = |op: &str| matches!(op, "amp_cast" | "amp_multicast");
        if !self.order().iter().any(|n| n.call.as_ref().is_some_and(|c| is_cast(c.op.name))) {
            return self.clone();
        }
        let heads: Vec<_> = self.heads.iter().map(|h| Arc::as_ptr(&h.node)).collect();
        self.rebuild(|node, inputs| match &node.call {
            // A cast whose result is an output of the graph stays.
            Some(call) if is_cast(call.op.name) && !heads.contains(&Arc::as_ptr(node)) => {
                Made::Entries(inputs)
            }
            _ => Made::Node(renamed(node, &node.name, inputs)),
        })
    }
}

fn renamed(node: &NodeRef, name: &str, inputs: Vec<Entry>) -> NodeRef {
    let texts = Mutex::new(node.texts.lock().clone());
    Arc::new(Node { name: name.into(), call: node.call.clone(), inputs, texts })
}

/// Refuses a key of the kind `weight_lr_mult`, which MXNet once took for an attribute of an input.
pub fn refuse_input_key(key: &str) -> Result<()> {
    for common in super::names::COMMON_KEYS {
        if !is_reserved(key)
            && let Some(input) = key.strip_suffix(common).and_then(|rest| rest.strip_suffix('_'))
            && !input.is_empty()
        {
            return Err(Error::op(format!(
                "the attribute {key} is given to the variable itself: {input}=mx.sym.Variable(..., {common}=...)"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Program;
    use crate::ops::{Build, Spec, Value, registry};
    use mxrs_base::Shape;

    /// Every operator says how many outputs it has before it is run: as many as its rule gives, or fewer where it
    /// declares hidden ones.
    #[test]
    fn counts_are_those_of_the_rules() {
        let mut wrong = Vec::new();
        for op in registry::all().iter().filter(|op| !op.hidden && !op.name.starts_with("_backward")) {
            for sample in &op.samples {
                let mut given: Vec<(&str, mxrs_base::AttrValue)> = sample.attrs.clone();
                if let Some(counter) = op.variadic.filter(|n| op.param_index(n).is_some())
                    && !given.iter().any(|(name, _)| *name == counter)
                {
                    given.push((counter, (sample.inputs.len() as i64).into()));
                }
                let attrs = Attrs::new(op, &given).expect("the attributes of a sample");
                let mut program = Program::default();
                let ins: Vec<Value> = sample
                    .inputs
                    .iter()
                    .map(|i| Value(program.value(Spec::new(Shape::new(&i.shape), i.dtype))))
                    .collect();
                let Ok(outs) = program.call(op, attrs.clone(), &ins) else { continue };
                let count = op.count(&attrs);
                let hides = op.visible.is_some();
                if count != outs.len() && !(hides && count < outs.len()) {
                    wrong.push(format!(
                        "{} declares {count} outputs, its rule gives {}",
                        op.name,
                        outs.len()
                    ));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
