//! Elements in device memory: how a shader loads and stores each type.
//!
//! Types of 64 bits can lie there and be read, cut to 32: as indices, and by casts to other types. Nothing computes in them.

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

/// Refuses the types that devices do not compute in; `what` names the operation.
pub fn check_dtype(dtype: DType, what: &str) -> Result<()> {
    match dtype {
        DType::F64 | DType::I64 => Err(Error::typ(format!(
            "{what}: {dtype} is not supported on a GPU; allowed are float32, float16, int32, int8, uint8 and bool"
        ))),
        _ => Ok(()),
    }
}

/// Whether an element is two words.
pub fn is_wide(dtype: DType) -> bool {
    dtype.size() == 8
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
        // The low word first, as on every host.
        DType::F64 | DType::I64 => "vec2<u32>",
        _ => "u32",
    }
}

/// The WGSL expression of element `at` of the buffer `name`, converted to `num`. `at` should be cheap: it may appear
/// twice.
pub fn load(dtype: DType, num: Num, name: &str, at: &str) -> String {
    let raw = match dtype {
        DType::F32 | DType::F16 | DType::I32 | DType::F64 | DType::I64 => format!("{name}[{at}]"),
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
        // As the host cuts whole numbers.
        (DType::I64, Num::I32) => format!("bitcast<i32>({raw}.x)"),
        (DType::I64, Num::F32) => format!("mx_float_of_long({raw})"),
        (DType::F64, Num::I32) => format!("mx_int_of_double({raw})"),
        (DType::F64, Num::F32) => format!("mx_double({raw})"),
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
        "mx_float_of_long",
        "fn mx_float_of_long(v: vec2<u32>) -> f32 {
    let low = bitcast<i32>(v.x);
    let high = bitcast<i32>(v.y);
    if (high == low >> 31u) { return f32(low); }
    return f32(high) * 4294967296.0 + f32(v.x);
}\n",
    ),
    (
        // Cut toward zero; what does not fit, and not-a-number, becomes the minimum.
        "mx_int_of_double",
        "fn mx_int_of_double(v: vec2<u32>) -> i32 {
    let power = i32((v.y >> 20u) & 0x7ffu) - 1023;
    if (power < 0) { return 0; }
    if (power > 30) { return bitcast<i32>(0x80000000u); }
    let top = (v.y & 0xfffffu) | 0x100000u;
    var size = top >> u32(max(20 - power, 0));
    if (power > 20) { size = (top << u32(power - 20)) | (v.x >> u32(52 - power)); }
    return select(i32(size), -i32(size), (v.y >> 31u) == 1u);
}\n",
    ),
    (
        // Rounded to the nearest, ties to even, by bits.
        "mx_double",
        "fn mx_double(v: vec2<u32>) -> f32 {
    let sign = v.y & 0x80000000u;
    let power = i32((v.y >> 20u) & 0x7ffu) - 896;
    let kept = ((v.y & 0xfffffu) << 3u) | (v.x >> 29u);
    let rest = v.x & 0x1fffffffu;
    if (power == 1151) {
        return bitcast<f32>(sign | 0x7f800000u | select(0u, 0x400000u, (kept | rest) != 0u));
    }
    if (power > 254) { return bitcast<f32>(sign | 0x7f800000u); }
    if (power > 0) {
        let up = rest > 0x10000000u || (rest == 0x10000000u && (kept & 1u) == 1u);
        return bitcast<f32>(sign | ((u32(power) << 23u | kept) + select(0u, 1u, up)));
    }
    let shift = u32(1 - power);
    if (shift > 24u) { return bitcast<f32>(sign); }
    let whole = kept | 0x800000u;
    let lost = whole & ((1u << shift) - 1u);
    let half = 1u << (shift - 1u);
    let small = whole >> shift;
    let up = lost > half || (lost == half && (rest != 0u || (small & 1u) == 1u));
    return bitcast<f32>(sign | (small + select(0u, 1u, up)));
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
