//! Formulas as text: for readers, and as WGSL for the shaders.

use crate::{Formula, Id, Node};
use mxrs_simd::Unary;
use std::fmt::Write;

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
        let mut body = String::new();
        let last = self.nodes.len() - 1;
        for (i, node) in self.nodes.iter().enumerate() {
            let name = |id: Id| format!("t{id}");
            let value = match *node {
                Node::Input(k) => inputs[k as usize].to_string(),
                Node::Param(k) => params[k as usize].to_string(),
                Node::Const(v) => wgsl_constant(v),
                Node::Unary(op, x) => op.wgsl().replace("{0}", &name(x)),
                Node::Binary(op, a, b) => op.wgsl().replace("{0}", &name(a)).replace("{1}", &name(b)),
                Node::Select(c, a, b) => format!("select({}, {}, {} != 0.0)", name(b), name(a), name(c)),
            };
            let target = if i == last { "result".to_string() } else { format!("t{i}") };
            // A String takes every write.
            let _ = writeln!(body, "let {target}: f32 = {value};");
        }
        body
    }

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
