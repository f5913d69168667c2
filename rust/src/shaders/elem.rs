//! Elements in device memory: how a shader loads and stores each type.

use mxrs_base::{DType, Error, Result};
use mxrs_gpu::Buffer;

/// An array's elements in a buffer, in the order of an iteration over `dims`: element `offset + sum(i[d] * strides[d])`.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub buffer: &'a Buffer,
    pub dtype: DType,
    /// In elements, as are the strides. A stride of 0 repeats an element.
    pub offset: usize,
    pub strides: &'a [isize],
}

/// Contiguous elements in a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    pub buffer: &'a Buffer,
    pub dtype: DType,
    pub offset: usize,
}

impl<'a> Span<'a> {
    pub fn new(buffer: &'a Buffer, dtype: DType) -> Span<'a> {
        Span { buffer, dtype, offset: 0 }
    }
    /// The same elements under strides.
    pub fn strided(self, strides: &'a [isize]) -> Place<'a> {
        Place { buffer: self.buffer, dtype: self.dtype, offset: self.offset, strides }
    }
}

/// What a shader calculates in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Num {
    F32,
    I32,
}

impl Num {
    pub fn wgsl(self) -> &'static str {
        match self {
            Num::F32 => "f32",
            Num::I32 => "i32",
        }
    }
    /// i32 where everything that goes in and comes out is a whole number, f32 otherwise.
    pub fn among(dtypes: impl IntoIterator<Item = DType>) -> Num {
        if dtypes.into_iter().any(DType::is_float) { Num::F32 } else { Num::I32 }
    }
}

/// Refuses the types that devices do not have; `what` names the operation.
pub fn check_dtype(dtype: DType, what: &str) -> Result<()> {
    match dtype {
        DType::F64 | DType::I64 => Err(Error::typ(format!(
            "{what}: {dtype} is not supported on a GPU; allowed are float32, float16, int32, int8, uint8 and bool"
        ))),
        _ => Ok(()),
    }
}

/// Whether four elements share a word.
pub fn is_packed(dtype: DType) -> bool {
    dtype.size() == 1
}

/// The WGSL type that a buffer of these elements is declared with.
pub fn element(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::F16 => "f16",
        DType::I32 => "i32",
        _ => "u32",
    }
}

/// The WGSL expression of element `at` of the buffer `name`, converted to `num`. `at` should be cheap: it may appear
/// twice.
pub fn load(dtype: DType, num: Num, name: &str, at: &str) -> String {
    let raw = match dtype {
        DType::F32 | DType::F16 | DType::I32 => format!("{name}[{at}]"),
        DType::I8 => format!("mx_signed({name}[({at}) >> 2u], {at})"),
        _ => format!("mx_byte({name}[({at}) >> 2u], {at})"),
    };
    convert(dtype, num, &raw)
}

/// The conversion of a loaded value to what the shader calculates in.
pub fn convert(dtype: DType, num: Num, raw: &str) -> String {
    match (dtype, num) {
        (DType::F32, Num::F32) | (DType::I32 | DType::I8, Num::I32) => raw.to_string(),
        (DType::F32, Num::I32) => format!("mx_to_i32({raw})"),
        (DType::F16, Num::I32) => format!("mx_to_i32(f32({raw}))"),
        (_, num) => format!("{}({raw})", num.wgsl()),
    }
}

/// The value of type `num` as it is stored: an f32, f16 or i32, or a byte in the low bits of a u32.
pub fn pack(dtype: DType, num: Num, value: &str) -> String {
    match (dtype, num) {
        (DType::F32, Num::F32) | (DType::I32, Num::I32) => value.to_string(),
        (DType::F32, Num::I32) => format!("f32({value})"),
        (DType::F16, _) => format!("f16({value})"),
        (DType::I32, Num::F32) => format!("mx_to_i32({value})"),
        (DType::Bool, Num::F32) => format!("mx_truth({value})"),
        (DType::Bool, Num::I32) => format!("select(0u, 1u, {value} != 0)"),
        (_, Num::F32) => format!("mx_to_byte({value})"),
        (_, Num::I32) => format!("(u32({value}) & 0xffu)"),
    }
}

/// (name, text) of the functions that the expressions above call.
const HELPERS: &[(&str, &str)] = &[
    ("mx_byte", "fn mx_byte(word: u32, at: u32) -> u32 { return (word >> ((at & 3u) * 8u)) & 0xffu; }\n"),
    (
        "mx_signed",
        "fn mx_signed(word: u32, at: u32) -> i32 { return bitcast<i32>(word << (24u - (at & 3u) * 8u)) >> 24u; }\n",
    ),
    (
        // What does not fit, and not-a-number, becomes the minimum, as on the host. By bits: a shader may assume that
        // there are no infinities.
        "mx_to_i32",
        "fn mx_to_i32(v: f32) -> i32 {
    if ((bitcast<u32>(v) & 0x7fffffffu) >= 0x4f000000u) { return bitcast<i32>(0x80000000u); }
    return i32(v);
}\n",
    ),
    (
        // The low byte of the 64-bit integer: beyond 2^31 it is zero.
        "mx_to_byte",
        "fn mx_to_byte(v: f32) -> u32 {
    if ((bitcast<u32>(v) & 0x7fffffffu) >= 0x4f000000u) { return 0u; }
    return u32(i32(v)) & 0xffu;
}\n",
    ),
    (
        "mx_truth",
        "fn mx_truth(v: f32) -> u32 { return select(0u, 1u, (bitcast<u32>(v) & 0x7fffffffu) != 0u); }\n",
    ),
];

/// The functions of this file that `text` calls.
pub fn helpers_for(text: &str) -> String {
    HELPERS.iter().filter(|(name, _)| text.contains(name)).map(|(_, helper)| *helper).collect()
}
