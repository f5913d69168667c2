//! A shader as its writer states it, and the WGSL that the device compiles.
//!
//! The writer gives the body; this file prints the declarations before it. So one text runs where parameters travel as
//! immediates and where they need a uniform buffer, and the same shader runs in place: where an output is also an
//! input, a variant declares that input writable, as the API demands.

use mxrs_base::{Error, Result};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt::Write;

/// How a shader uses a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    Read,
    ReadWrite,
}

/// A buffer that a shader binds: `var<storage> name: array<element>`.
#[derive(Clone, Debug)]
pub struct Slot {
    pub name: Cow<'static, str>,
    /// The WGSL type of an element, such as `f32`, `vec4<f32>` or `atomic<u32>`.
    pub element: Cow<'static, str>,
    pub access: Access,
}

impl Slot {
    pub fn read(name: impl Into<Cow<'static, str>>, element: impl Into<Cow<'static, str>>) -> Slot {
        Slot { name: name.into(), element: element.into(), access: Access::Read }
    }
    pub fn write(name: impl Into<Cow<'static, str>>, element: impl Into<Cow<'static, str>>) -> Slot {
        Slot { name: name.into(), element: element.into(), access: Access::ReadWrite }
    }
}

/// A compute shader: declarations and a body with an entry point `main`.
///
/// The body sees its buffers by name, its parameters as members of `p`, and the function
/// `mx_group(workgroup_id) -> u32` that undoes [`linear_groups`].
#[derive(Clone, Debug)]
pub struct Shader {
    /// What errors, profiles and listings call it.
    pub name: Cow<'static, str>,
    pub slots: SmallVec<[Slot; 8]>,
    /// Names and WGSL types of the parameters: scalars of four bytes (`u32`, `i32`, `f32`), in order.
    pub params: Vec<(Cow<'static, str>, &'static str)>,
    /// WGSL functions, constants, workgroup variables and the entry point `main`.
    pub body: Cow<'static, str>,
    /// Whether the body uses the type `f16`.
    pub f16: bool,
    /// Whether every index the body computes is inside its buffer by construction: then no bounds are checked at run
    /// time. An index that comes from data needs `false`, or a clamp in the body.
    pub trusted: bool,
}

impl Shader {
    pub fn new(name: impl Into<Cow<'static, str>>, body: impl Into<Cow<'static, str>>) -> Shader {
        Shader {
            name: name.into(),
            slots: SmallVec::new(),
            params: Vec::new(),
            body: body.into(),
            f16: false,
            trusted: false,
        }
    }
    pub fn slot(mut self, slot: Slot) -> Shader {
        self.f16 |= slot.element.contains("f16");
        self.slots.push(slot);
        self
    }
    pub fn param(mut self, name: impl Into<Cow<'static, str>>, kind: &'static str) -> Shader {
        self.params.push((name.into(), kind));
        self
    }
    pub fn trusted(mut self) -> Shader {
        self.trusted = true;
        self
    }

    /// Bytes of the parameters as they travel: whole groups of four.
    pub(crate) fn param_bytes(&self) -> u32 {
        (self.params.len() as u32 * 4).next_multiple_of(16)
    }

    /// The whole WGSL text. `writable` marks inputs that share a buffer with an output (bit i for slot i), `uniform`
    /// says that parameters come from a uniform buffer.
    pub fn wgsl(&self, writable: u32, uniform: bool) -> String {
        let mut text = String::with_capacity(self.body.len() + 512);
        if self.f16 {
            text.push_str("enable f16;\n");
        }
        for (i, slot) in self.slots.iter().enumerate() {
            let access = match slot.access {
                Access::Read if writable >> i & 1 == 0 => "read",
                _ => "read_write",
            };
            // A String takes every write.
            let _ = writeln!(
                text,
                "@group(0) @binding({i}) var<storage, {access}> {}: array<{}>;",
                slot.name, slot.element
            );
        }
        if !self.params.is_empty() {
            text.push_str("struct Params {\n");
            for (name, kind) in &self.params {
                let _ = writeln!(text, "    {name}: {kind},");
            }
            text.push_str("}\n");
            let _ = match uniform {
                true => {
                    writeln!(text, "@group(0) @binding({}) var<uniform> p: Params;", self.slots.len())
                }
                false => writeln!(text, "var<immediate> p: Params;"),
            };
        }
        let _ = writeln!(text, "fn mx_group(id: vec3<u32>) -> u32 {{ return id.x + id.y * {LINEAR_X}u; }}");
        text.push_str(&self.body);
        text
    }
}

/// The most that the parameters of a shader take: a formula of as many strided arrays as can be bound, with all its
/// numbers, has far less.
pub(crate) const PARAM_BYTES: u32 = 4096;

/// Workgroups along x of a folded row of workgroups.
pub const LINEAR_X: u32 = 32768;

/// The grid of at least `n` workgroups in one row, folded at [`LINEAR_X`]: no API takes more than 65535 along an axis.
/// The shader finds its place with `mx_group` and must ignore places from `n` on.
///
/// # Errors
/// If `n` is beyond 2^31, the most that two axes can hold.
pub fn linear_groups(n: u64) -> Result<[u32; 3]> {
    let x = LINEAR_X as u64;
    if n <= x {
        Ok([n as u32, 1, 1])
    } else if n <= x * 65535 {
        Ok([LINEAR_X, n.div_ceil(x) as u32, 1])
    } else {
        Err(Error::op(format!("{n} workgroups are more than one dispatch can have ({})", x * 65535)))
    }
}

#[cold]
fn too_large(v: usize) -> Error {
    Error::op(format!("{v} is beyond the 2^32 elements that GPU kernels can count"))
}

/// The values of a dispatch's parameters, in the order in which the shader names them.
#[derive(Clone, Default, Debug)]
pub struct Params {
    /// Not in place: building one moves it once for every value, and sending a command moves it again.
    pub(crate) bytes: Vec<u8>,
}

impl Params {
    #[inline]
    pub fn new() -> Params {
        Params { bytes: Vec::with_capacity(128) }
    }
    #[inline]
    pub fn u32(mut self, v: u32) -> Params {
        self.push(v);
        self
    }
    #[inline]
    pub fn i32(mut self, v: i32) -> Params {
        self.push(v as u32);
        self
    }
    #[inline]
    pub fn f32(mut self, v: f32) -> Params {
        self.push(v.to_bits());
        self
    }
    /// A size, an offset or a stride.
    ///
    /// # Errors
    /// If it does not fit the 32 bits that shaders count with.
    #[inline]
    pub fn size(mut self, v: usize) -> Result<Params> {
        self.push(u32::try_from(v).map_err(|_| too_large(v))?);
        Ok(self)
    }
    #[inline]
    pub fn push(&mut self, word: u32) {
        self.bytes.extend_from_slice(&word.to_ne_bytes());
    }
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() / 4
    }
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
