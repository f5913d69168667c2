//! Nodes and the handles to them.
//!
//! Nodes never change but for their attribute texts, so graphs share them freely: composing makes new nodes.

use crate::ops::{Attrs, OpRef};
use mxrs_base::{Error, Result};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub type NodeRef = Arc<Node>;

/// Tells nodes apart while they live: the address of one.
pub type NodeKey = usize;

/// A variable, or a call of an operator.
pub struct Node {
    pub name: Arc<str>,
    /// `None` for a variable.
    pub call: Option<Call>,
    pub inputs: Vec<Entry>,
    /// Texts as users gave them and files keep them: the call's attributes and names like `__lr_mult__`.
    pub texts: Mutex<BTreeMap<String, String>>,
}

/// The operator of a node with its attributes parsed.
#[derive(Clone)]
pub struct Call {
    pub op: OpRef,
    pub attrs: Attrs,
}

/// One output of a node.
#[derive(Clone)]
pub struct Entry {
    pub node: NodeRef,
    pub index: u32,
}

/// One or more outputs of a graph, in order.
#[derive(Clone)]
pub struct Symbol {
    pub heads: Vec<Entry>,
}

impl Node {
    pub fn variable(name: &str, texts: BTreeMap<String, String>) -> NodeRef {
        Arc::new(Node { name: name.into(), call: None, inputs: Vec::new(), texts: Mutex::new(texts) })
    }

    pub fn key(self: &Arc<Node>) -> NodeKey {
        Arc::as_ptr(self) as NodeKey
    }

    pub fn is_variable(&self) -> bool {
        self.call.is_none()
    }

    /// How many outputs users see.
    pub fn outputs(&self) -> usize {
        self.call.as_ref().map_or(1, |c| c.op.count(&c.attrs))
    }

    /// Whether input `i` is a state that the operator or its gradient writes.
    pub fn mutates(&self, i: usize) -> bool {
        self.call.as_ref().is_some_and(|c| c.op.is_state(i))
    }

    /// The text kept under `key`, plainly or between double underscores.
    pub fn text(&self, key: &str) -> Option<String> {
        let texts = self.texts.lock();
        texts.get(key).or_else(|| texts.get(&format!("__{key}__"))).cloned()
    }
}

impl Drop for Node {
    /// Takes a long chain apart without recursion.
    fn drop(&mut self) {
        let mut rest: Vec<Entry> = std::mem::take(&mut self.inputs);
        while let Some(entry) = rest.pop() {
            if let Some(mut node) = Arc::into_inner(entry.node) {
                rest.append(&mut node.inputs);
            }
        }
    }
}

impl Symbol {
    pub fn of(node: NodeRef) -> Symbol {
        let heads = (0..node.outputs() as u32).map(|index| Entry { node: node.clone(), index }).collect();
        Symbol { heads }
    }

    /// All nodes the heads depend on, each after its inputs: depth first in the order of the inputs.
    pub fn order(&self) -> Vec<NodeRef> {
        let mut order = Vec::new();
        let mut seen: HashMap<*const Node, ()> = HashMap::new();
        let mut stack: Vec<(NodeRef, usize)> = Vec::new();
        for head in &self.heads {
            if seen.insert(Arc::as_ptr(&head.node), ()).is_none() {
                stack.push((head.node.clone(), 0));
            }
            while let Some((node, next)) = stack.pop() {
                match node.inputs.get(next) {
                    None => order.push(node),
                    Some(input) => {
                        let child = input.node.clone();
                        stack.push((node, next + 1));
                        if seen.insert(Arc::as_ptr(&child), ()).is_none() {
                            stack.push((child, 0));
                        }
                    }
                }
            }
        }
        order
    }

    /// The variables in order, without and with the auxiliary states: those that some operator writes.
    pub fn inputs(&self) -> (Vec<NodeRef>, Vec<NodeRef>) {
        let order = self.order();
        let mut written: HashMap<*const Node, ()> = HashMap::new();
        for node in &order {
            for (i, input) in node.inputs.iter().enumerate() {
                if node.mutates(i) && input.node.is_variable() {
                    written.insert(Arc::as_ptr(&input.node), ());
                }
            }
        }
        let variables = order.into_iter().filter(|n| n.is_variable());
        variables.partition(|n| !written.contains_key(&Arc::as_ptr(n)))
    }

    /// The graph with variables replaced: new nodes where something below changed, the same ones elsewhere.
    pub fn substitute(&self, by_name: &HashMap<String, Entry>) -> Symbol {
        let mut made: HashMap<*const Node, Option<NodeRef>> = HashMap::new();
        let mut replaced: HashMap<*const Node, Entry> = HashMap::new();
        for node in self.order() {
            let key = Arc::as_ptr(&node);
            if node.is_variable() {
                if let Some(entry) = by_name.get(&*node.name) {
                    replaced.insert(key, entry.clone());
                }
                made.insert(key, None);
                continue;
            }
            let inputs: Vec<Entry> = node
                .inputs
                .iter()
                .map(|e| renewed(e, &made, &replaced).unwrap_or_else(|| e.clone()))
                .collect();
            let changed = inputs.iter().zip(&node.inputs).any(|(a, b)| !Arc::ptr_eq(&a.node, &b.node));
            made.insert(
                key,
                changed.then(|| {
                    Arc::new(Node {
                        name: node.name.clone(),
                        call: node.call.clone(),
                        inputs,
                        texts: Mutex::new(node.texts.lock().clone()),
                    })
                }),
            );
        }
        let heads =
            self.heads.iter().map(|e| renewed(e, &made, &replaced).unwrap_or_else(|| e.clone())).collect();
        Symbol { heads }
    }

    /// The single head, for operators that take one value.
    pub fn single(&self) -> Result<&Entry> {
        match &self.heads[..] {
            [one] => Ok(one),
            many => Err(Error::op(format!(
                "a symbol of {} outputs was given where one value is expected; pick one, as in symbol[0]",
                many.len()
            ))),
        }
    }
}

fn renewed(
    entry: &Entry,
    made: &HashMap<*const Node, Option<NodeRef>>,
    replaced: &HashMap<*const Node, Entry>,
) -> Option<Entry> {
    let key = Arc::as_ptr(&entry.node);
    if let Some(other) = replaced.get(&key) {
        return Some(other.clone());
    }
    let node = made.get(&key)?.clone()?;
    Some(Entry { node, index: entry.index })
}
