//! What the tape is made of: variables, recorded calls, and links between them.

use super::handle::Array;
use crate::engine::ChunkRef;
use crate::ops::{Attrs, OpRef, Spec};
use mxrs_base::{Error, Result};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Which output of which node an array is.
#[derive(Clone)]
pub struct Link {
    pub node: Arc<Node>,
    pub index: u32,
}

/// What backward does with a variable's gradient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GradReq {
    Null,
    Write,
    Add,
}

/// One node. Its state is emptied when backward frees the graph.
pub struct Node {
    pub state: Mutex<NodeState>,
    /// Whether the state was emptied; asked without the lock, which the walk backward holds while it records.
    pub freed: AtomicBool,
}

pub enum NodeState {
    /// An array that `attach_grad` marked; backward puts its gradient into `grad`.
    /// `fresh` says that no step has used the gradient since backward wrote it.
    Variable { grad: Array, req: GradReq, fresh: bool },
    /// A call of an operator.
    Op(Box<OpNode>),
    /// A call of a user's `autograd.Function`.
    Custom(Box<CustomNode>),
    /// Backward ran over it and freed it.
    Freed,
}

/// A recorded call.
pub struct OpNode {
    pub op: OpRef,
    pub attrs: Attrs,
    pub ins: SmallVec<[Slot; 3]>,
    pub outs: SmallVec<[Slot; 1]>,
    pub train: bool,
}

/// A user's function: its inputs' links and what computes their gradients from the outputs'.
pub struct CustomNode {
    pub ins: Vec<Option<Link>>,
    pub outs: Vec<Spec>,
    pub context: crate::device::Context,
    pub backward: CustomGrad,
}

/// From the outputs' gradients to the inputs'. Where the second argument names an array, the gradient may be written
/// there and that array returned: nothing else will contribute to it.
pub type CustomGrad = Box<dyn Fn(Vec<Array>, &[Option<Array>]) -> Result<Vec<Option<Array>>> + Send + Sync>;

/// A value that a recorded call read or wrote: its spec, its memory where the gradient looks at it, and where it came from.
pub struct Slot {
    pub spec: Spec,
    pub data: Option<Saved>,
    pub link: Option<Link>,
}

pub struct Saved {
    chunk: ChunkRef,
    offset: usize,
    /// The content that the gradient needs; `None` for a state, which is read as it then is.
    version: Option<u64>,
}

impl Slot {
    pub fn new(array: &Array, keep: bool, link: Option<Link>) -> Slot {
        let data = keep.then(|| Saved {
            chunk: array.chunk.clone(),
            offset: array.offset,
            version: Some(array.chunk.version()),
        });
        Slot { spec: array.spec.clone(), data, link }
    }

    /// A state that the gradient rule changes; writes in between do not matter.
    pub fn state(array: &Array) -> Slot {
        let data = Some(Saved { chunk: array.chunk.clone(), offset: array.offset, version: None });
        Slot { spec: array.spec.clone(), data, link: array.live_link() }
    }

    /// The value as it was, or an error if it was written since; `None` where it was not kept.
    pub fn restore(&self, op: OpRef, what: &str) -> Result<Option<Array>> {
        let Some(saved) = &self.data else { return Ok(None) };
        if saved.version.is_some_and(|v| v != saved.chunk.version()) {
            return Err(Error::op(format!(
                "{}: its {what} of shape {} was written in place after the call was recorded, so its gradient \
                 cannot be computed; write to a copy, or call backward first",
                op.name, self.spec.shape
            )));
        }
        Ok(Some(Array {
            chunk: saved.chunk.clone(),
            offset: saved.offset,
            spec: self.spec.clone(),
            link: self.link.clone(),
        }))
    }
}

impl Array {
    /// The recorded value this is, unless its graph was freed: then the array counts as a constant.
    pub fn live_link(&self) -> Option<Link> {
        self.link.clone().filter(|link| !link.node.freed.load(Relaxed))
    }

    /// Whether a call on the array is recorded.
    pub fn is_linked(&self) -> bool {
        self.link.as_ref().is_some_and(|link| !link.node.freed.load(Relaxed))
    }
}

impl Node {
    pub fn new(state: NodeState) -> Arc<Node> {
        Arc::new(Node { state: Mutex::new(state), freed: AtomicBool::new(false) })
    }

    /// A marked variable.
    pub fn variable(grad: Array, req: GradReq) -> Link {
        Link { node: Node::new(NodeState::Variable { grad, req, fresh: false }), index: 0 }
    }

    /// Whether the variable's gradient was written and not yet marked as used.
    pub fn is_fresh(&self) -> bool {
        matches!(&*self.state.lock(), NodeState::Variable { fresh: true, .. })
    }

    /// Marks the variable's gradient as just written, or as used.
    pub fn set_fresh(&self, on: bool) {
        if let NodeState::Variable { fresh, .. } = &mut *self.state.lock() {
            *fresh = on;
        }
    }

    pub fn is_variable(&self) -> bool {
        matches!(&*self.state.lock(), NodeState::Variable { .. })
    }
}

impl NodeState {
    /// Takes out the links to what came before.
    fn take_links(&mut self, into: &mut Vec<Link>) {
        match self {
            NodeState::Op(op) => into.extend(op.ins.iter_mut().filter_map(|s| s.link.take())),
            NodeState::Custom(custom) => into.extend(custom.ins.drain(..).flatten()),
            NodeState::Variable { .. } | NodeState::Freed => {}
        }
    }
}

impl Drop for Node {
    /// Unravels a chain without recursion: programs record tens of thousands of calls in a row.
    fn drop(&mut self) {
        let mut links = Vec::new();
        self.state.get_mut().take_links(&mut links);
        while let Some(link) = links.pop() {
            if let Some(mut node) = Arc::into_inner(link.node) {
                node.state.get_mut().take_links(&mut links);
            }
        }
    }
}

/// The node of a user's function that made `outs`.
pub fn custom_node(
    ins: Vec<Option<Link>>,
    outs: &[Array],
    context: crate::device::Context,
    backward: CustomGrad,
) -> Arc<Node> {
    let outs = outs.iter().map(|a| a.spec.clone()).collect();
    Node::new(NodeState::Custom(Box::new(CustomNode { ins, outs, context, backward })))
}
