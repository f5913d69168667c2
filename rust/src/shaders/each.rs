//! Kernels whose every output element is a function of its number: one invocation per element of a contiguous output.
//!
//! The writer gives `fn element(e: u32) -> VALUE` in WGSL, where VALUE stands for the type calculated in, and reads input
//! `a` as `a(i)`. This file prints loads and stores of each type. What the elements are is said by the callers: index
//! movement in [`super::index`], sequences and padding in their operators.

use crate::shaders::copy::launch_cast;
use crate::shaders::elem::{self, Num, Span};
use mxrs_base::{DType, Error, Result};
use mxrs_gpu::{Device, Key, Params, Shader, Slot, linear_groups};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt::Write;

/// A launch as its writer states it.
pub struct Each<'a> {
    /// Names the text together with `variant`: equal pairs have equal bodies.
    name: &'static str,
    variant: u64,
    num: Num,
    out: Span<'a>,
    ins: SmallVec<[(&'static str, Span<'a>, Read); 4]>,
    params: SmallVec<[(Cow<'static, str>, &'static str, u32); 8]>,
}

/// What an input's elements are read as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// VALUE.
    Value,
    /// VALUE, also of a type of 64 bits, which is rounded to it.
    Narrowed,
    /// i32, cut toward zero; what does not fit goes to the nearest end, and not-a-number to the smallest.
    Index,
    /// Whether it is not 0.
    Truth,
}

impl<'a> Each<'a> {
    pub fn new(name: &'static str, out: Span<'a>) -> Each<'a> {
        let (ins, params) = (SmallVec::new(), SmallVec::new());
        Each { name, variant: 0, num: Num::among([out.dtype]), out, ins, params }
    }
    /// Tells apart bodies of one name.
    pub fn variant(mut self, variant: u64) -> Each<'a> {
        self.variant = variant;
        self
    }
    pub fn input(mut self, name: &'static str, span: Span<'a>, read: Read) -> Each<'a> {
        let by_float = match read {
            Read::Value => span.dtype.is_float(),
            // By its own bits a float becomes a whole number, but zero or not is seen of a float32.
            Read::Narrowed => self.out.dtype == DType::Bool,
            Read::Index | Read::Truth => false,
        };
        if by_float {
            self.num = Num::F32;
        }
        self.ins.push((name, span, read));
        self
    }
    pub fn size(mut self, name: impl Into<Cow<'static, str>>, value: usize) -> Result<Each<'a>> {
        let word = u32::try_from(value)
            .map_err(|_| Error::op(format!("{}: {value} is more than a GPU kernel can count", self.name)))?;
        self.params.push((name.into(), "u32", word));
        Ok(self)
    }
    /// A number that the body sees as a VALUE.
    pub fn value(mut self, name: &'static str, value: f64) -> Each<'a> {
        let word = match self.num {
            Num::F32 => (value as f32).to_bits(),
            Num::I32 => value as i64 as i32 as u32,
        };
        self.params.push((name.into(), self.num.wgsl(), word));
        self
    }

    /// Computes `n` elements.
    ///
    /// # Errors
    /// Where a type is not one of GPUs or `n` is beyond 2^32.
    pub fn launch(
        self,
        device: &Device,
        n: usize,
        body: impl FnOnce() -> String,
        label: &'static str,
    ) -> Result<()> {
        let values = self.ins.iter().filter(|i| matches!(i.2, Read::Value | Read::Truth));
        for dtype in values.map(|i| i.1.dtype).chain([self.out.dtype]) {
            elem::check_dtype(dtype, label)?;
        }
        if n == 0 {
            return Ok(());
        }
        if elem::is_packed(self.out.dtype) {
            // Elements share words: whole numbers first, then packed.
            let whole = device.alloc(4 * n as u64)?;
            let dtype = if self.num == Num::F32 { DType::F32 } else { DType::I32 };
            let between = Span::new(&whole, dtype);
            self.send(device, n, between, body, label)?;
            return launch_cast(device, n, between, self.out, label);
        }
        self.send(device, n, self.out, body, label)
    }

    fn send(
        &self,
        device: &Device,
        n: usize,
        out: Span,
        body: impl FnOnce() -> String,
        label: &'static str,
    ) -> Result<()> {
        let types = self.ins.iter().fold(out.dtype as u64, |w, i| w << 4 | i.1.dtype as u64 | 8);
        let key = Key::new(self.name).with(self.variant).with(types << 1 | self.num as u64);
        let pipeline = device.pipeline(&key, || Ok(self.shader(out.dtype, &body())))?;
        let mut params = Params::new().size(n)?.size(out.offset)?;
        for (_, span, _) in &self.ins {
            params = params.size(span.offset)?;
        }
        self.params.iter().for_each(|(_, _, word)| params.push(*word));
        let buffers: SmallVec<[_; 5]> = self.ins.iter().map(|i| i.1.buffer).chain([out.buffer]).collect();
        device.dispatch(&pipeline, &buffers, params, linear_groups(n.div_ceil(256) as u64)?, label)
    }

    fn shader(&self, to: DType, body: &str) -> Shader {
        let mut shader = Shader::new(self.name, "");
        let mut text = String::new();
        for (name, span, read) in &self.ins {
            let (buffer, at) = (format!("b_{name}"), format!("p.o_{name} + i"));
            shader = shader.slot(Slot::read(buffer.clone(), elem::element(span.dtype)));
            let native = if span.dtype.is_float() { Num::F32 } else { Num::I32 };
            let raw = elem::load(span.dtype, native, &buffer, &at);
            let (kind, value) = match read {
                Read::Value | Read::Narrowed => {
                    (self.num.wgsl(), elem::load(span.dtype, self.num, &buffer, &at))
                }
                Read::Index if native == Num::F32 => ("i32", format!("mx_index({raw})")),
                Read::Index if span.dtype == DType::I64 => ("i32", format!("mx_long({buffer}[{at}])")),
                Read::Index => ("i32", raw),
                Read::Truth if native == Num::F32 => {
                    ("bool", format!("(bitcast<u32>({raw}) & 0x7fffffffu) != 0u"))
                }
                Read::Truth => ("bool", format!("{raw} != 0")),
            };
            let _ = writeln!(text, "fn {name}(i: u32) -> {kind} {{ return {value}; }}");
        }
        shader = shader.slot(Slot::write("y", elem::element(to))).param("n", "u32").param("o_y", "u32");
        for (name, _, _) in &self.ins {
            shader = shader.param(format!("o_{name}"), "u32");
        }
        for (name, kind, _) in &self.params {
            shader = shader.param(name.clone(), kind);
        }
        if text.contains("mx_index") {
            text.insert_str(0, INDEX);
        }
        if text.contains("mx_long") {
            text.insert_str(0, LONG);
        }
        text += &body.replace("VALUE", self.num.wgsl());
        let value = elem::pack(to, self.num, "value");
        let _ = write!(
            text,
            "@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {{
    let e = mx_group(group) * 256u + local;
    if (e >= p.n) {{ return; }}
    let value = element(e);
    y[p.o_y + e] = {value};
}}
"
        );
        shader.body = (elem::helpers_for(&text) + &text).into();
        shader
    }
}

/// By bits: a shader may assume that there is no not-a-number.
const INDEX: &str = "fn mx_index(v: f32) -> i32 {
    let bits = bitcast<u32>(v);
    if ((bits & 0x7fffffffu) < 0x4f000000u) { return i32(v); }
    return select(bitcast<i32>(0x80000000u), 0x7fffffff, bits <= 0x7f800000u);
}
";

/// What does not fit goes to the nearest end.
const LONG: &str = "fn mx_long(v: vec2<u32>) -> i32 {
    let low = bitcast<i32>(v.x);
    let high = bitcast<i32>(v.y);
    if (high == low >> 31u) { return low; }
    return select(0x7fffffff, bitcast<i32>(0x80000000u), high < 0);
}
";
