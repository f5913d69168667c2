//! Formulas as text: for readers, and as WGSL for the shaders.

use crate::{Formula, Id, Node};
use mxrs_simd::{Binary, Unary};
use std::convert::Infallible;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

impl Formula {
    /// One line a reader understands: inputs are `x0`, `x1`, ..., parameters have their names.
    pub fn text(&self) -> String {
        let outer = self.text_of((self.nodes.len() - 1) as Id);
        match outer.strip_prefix('(').and_then(|s| s.strip_suffix(')')) {
            Some(inner) if encloses(inner) => inner.to_string(),
            _ => outer,
        }
    }

    fn text_of(&self, id: Id) -> String {
        match self.nodes[id as usize] {
            Node::Input(i) => format!("x{i}"),
            Node::Param(p) => self.params()[p as usize].to_string(),
            Node::Const(v) => v.to_string(),
            Node::Unary(Unary::Neg, x) => format!("-{}", self.text_of(x)),
            Node::Unary(op, x) => format!("{}({})", op.name(), self.text_of(x).as_str()),
            Node::Binary(op, a, b) => format!("({} {} {})", self.text_of(a), op.name(), self.text_of(b)),
            Node::Select(c, a, b) => {
                format!("({} ? {} : {})", self.text_of(c), self.text_of(a), self.text_of(b))
            }
        }
    }

    /// WGSL statements that compute the formula in f32 and end by binding `let result`.
    ///
    /// `inputs` and `params` are the WGSL expressions of the operands, each evaluated once. Functions named `mx_...`
    /// come from [`Formula::wgsl_helpers`].
    pub fn wgsl(&self, inputs: &[&str], params: &[&str]) -> String {
        let value = |node: &Node| -> Result<String, Infallible> {
            Ok(match *node {
                Node::Input(k) => inputs[k as usize].to_string(),
                Node::Param(k) => params[k as usize].to_string(),
                Node::Const(v) => wgsl_constant(v),
                Node::Unary(op, x) => op.wgsl().replace("{0}", &bound(x)),
                Node::Binary(op, a, b) => op.wgsl().replace("{0}", &bound(a)).replace("{1}", &bound(b)),
                Node::Select(c, a, b) => format!("select({}, {}, {} != 0.0)", bound(b), bound(a), bound(c)),
            })
        };
        let Ok(body) = self.statements("f32", value);
        body
    }

    /// A statement for each node, which binds its value; the last binds `result`.
    fn statements<E>(&self, kind: &str, value: impl Fn(&Node) -> Result<String, E>) -> Result<String, E> {
        let mut body = String::new();
        let last = self.nodes.len() - 1;
        for (i, node) in self.nodes.iter().enumerate() {
            let target = if i == last { "result".to_string() } else { bound(i as Id) };
            // A String takes every write.
            let _ = writeln!(body, "let {target}: {kind} = {};", value(node)?);
        }
        Ok(body)
    }

    /// As [`Formula::wgsl`], computed in i32 as the CPU computes integers: sums wrap, a division by zero gives zero.
    /// `Err` names an instruction that only floating point has.
    pub fn wgsl_int(&self, inputs: &[&str], params: &[&str]) -> Result<String, &'static str> {
        self.statements("i32", |node| {
            Ok(match *node {
                Node::Input(k) => inputs[k as usize].to_string(),
                Node::Param(k) => params[k as usize].to_string(),
                // Beyond 32 bits an integer wraps, as on the CPU; toward zero.
                Node::Const(v) => format!("bitcast<i32>({}u)", v as i64 as i32 as u32),
                Node::Unary(op, x) => int_unary(op).ok_or(op.name())?.replace("{0}", &bound(x)),
                Node::Binary(op, a, b) => {
                    int_binary(op).ok_or(op.name())?.replace("{0}", &bound(a)).replace("{1}", &bound(b))
                }
                Node::Select(c, a, b) => format!("select({}, {}, {} != 0)", bound(b), bound(a), bound(c)),
            })
        })
    }

    /// The functions that [`Formula::wgsl_int`] calls.
    pub const WGSL_INT_HELPERS: &str = "\
fn mx_idiv(a: i32, b: i32) -> i32 {
    if (b == 0) { return 0; }
    if (b == -1) { return 0 - a; }
    return a / b;
}
fn mx_imod(a: i32, b: i32) -> i32 {
    if (b == 0 || b == -1) { return 0; }
    let r = a % b;
    return select(r, r + b, r != 0 && (r < 0) != (b < 0));
}
";

    /// The WGSL functions that [`Formula::wgsl`] calls, for the head of the shader; each once, in an order that WGSL
    /// need not care about.
    pub fn wgsl_helpers(&self) -> String {
        mxrs_simd::wgsl_helpers_for(&self.wgsl_templates())
    }

    /// The instructions' WGSL templates, for shaders that join several formulas' helpers.
    pub fn wgsl_templates(&self) -> Vec<&'static str> {
        let template = |node: &Node| match node {
            Node::Unary(op, _) => Some(op.wgsl()),
            Node::Binary(op, ..) => Some(op.wgsl()),
            _ => None,
        };
        let mut templates: Vec<_> = self.nodes.iter().filter_map(template).collect();
        if self.nodes.iter().any(|n| matches!(n, Node::Const(v) if !(*v as f32).is_finite())) {
            templates.push("mx_bits()");
        }
        templates
    }
}

/// The i32 spelling of an instruction, or `None` where it means something only to floating point.
fn int_unary(op: Unary) -> Option<&'static str> {
    Some(match op {
        Unary::Neg => "(0 - {0})",
        Unary::Abs => "abs({0})",
        Unary::Sign => "sign({0})",
        Unary::Square => "({0} * {0})",
        Unary::Recip => "mx_idiv(1, {0})",
        Unary::Relu => "max({0}, 0)",
        Unary::Floor | Unary::Ceil | Unary::Round | Unary::Rint | Unary::Trunc => "{0}",
        Unary::LogicalNot => "select(0, 1, {0} == 0)",
        // Through the operand, so that every spelling names it.
        Unary::IsNan | Unary::IsInf => "select(0, 0, {0} == 0)",
        Unary::IsFinite => "select(1, 1, {0} == 0)",
        _ => return None,
    })
}

fn int_binary(op: Binary) -> Option<&'static str> {
    Some(match op {
        Binary::Add => "({0} + {1})",
        Binary::Sub => "({0} - {1})",
        Binary::Mul => "({0} * {1})",
        Binary::Div => "mx_idiv({0}, {1})",
        Binary::Mod => "mx_imod({0}, {1})",
        Binary::Max => "max({0}, {1})",
        Binary::Min => "min({0}, {1})",
        Binary::Eq => "select(0, 1, {0} == {1})",
        Binary::Ne => "select(0, 1, {0} != {1})",
        Binary::Gt => "select(0, 1, {0} > {1})",
        Binary::Ge => "select(0, 1, {0} >= {1})",
        Binary::Lt => "select(0, 1, {0} < {1})",
        Binary::Le => "select(0, 1, {0} <= {1})",
        Binary::And => "select(0, 1, {0} != 0 && {1} != 0)",
        Binary::Or => "select(0, 1, {0} != 0 || {1} != 0)",
        Binary::Xor => "select(0, 1, ({0} != 0) != ({1} != 0))",
        _ => return None,
    })
}

/// Whether parentheses stripped from both ends belonged together.
fn encloses(inner: &str) -> bool {
    let mut depth = 0i32;
    inner.chars().all(|c| {
        depth += (c == '(') as i32 - (c == ')') as i32;
        depth >= 0
    })
}

/// An f32 literal. WGSL has none for infinities and not-a-number, and refuses to compute them at compile time.
fn wgsl_constant(v: f64) -> String {
    let v = v as f32;
    if v.is_finite() { format!("{v:?}f") } else { format!("mx_bits({:#x}u)", v.to_bits()) }
}

/// The WGSL name of a node's value.
fn bound(id: Id) -> String {
    format!("t{id}")
}

pub(crate) fn fingerprint(nodes: &[Node], arity: usize, params: usize) -> u64 {
    let mut hash = DefaultHasher::new();
    (arity, params).hash(&mut hash);
    for node in nodes {
        match *node {
            Node::Input(i) => (0u8, i).hash(&mut hash),
            Node::Param(p) => (1u8, p).hash(&mut hash),
            Node::Const(v) => (2u8, v.to_bits()).hash(&mut hash),
            Node::Unary(op, a) => (3u8, op, a).hash(&mut hash),
            Node::Binary(op, a, b) => (4u8, op, a, b).hash(&mut hash),
            Node::Select(c, a, b) => (5u8, c, a, b).hash(&mut hash),
        }
    }
    hash.finish()
}
