//! Running sums along an axis.
//!
//! Short rows, and many rows side by side, are walked by one invocation each. Other rows are cut into chunks of 1024: the
//! sums of chunks come first, are themselves scanned, and are what each chunk then begins with. No sum takes in its
//! elements one after the other, so rounding grows with the logarithm of the length.

use crate::shaders::copy::launch_cast;
use crate::shaders::elem::{self, Num, Span};
use crate::shaders::rows::Around;
use mxrs_base::{DType, Error, Result};
use mxrs_gpu::{Buffer, Device, Key, Params, Shader, Slot, linear_groups};
use smallvec::SmallVec;

const CHUNK: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pass {
    /// A row to an invocation.
    Walk,
    /// The sum of each chunk.
    Sums,
    /// The chunks of rows that are one chunk long.
    Alone,
    /// Each chunk, beginning with the sums before it.
    Onward,
}

/// `y`: running sums of `x` (outer, n, inner) along the middle, from the end where `reverse`. Floats are added in
/// float32, whole numbers in int32, wrapping. `y` may be the memory of `x`.
///
/// # Errors
/// Where a type is not one of GPUs or there are more than 2^32 elements.
pub fn launch_scan(
    device: &Device,
    x: Span,
    (outer, n, inner): Around,
    reverse: bool,
    y: Span,
    label: &'static str,
) -> Result<()> {
    elem::check_dtype(x.dtype, label)?;
    elem::check_dtype(y.dtype, label)?;
    let rows = outer * inner;
    let total = rows * n;
    if total == 0 {
        return Ok(());
    }
    if total > u32::MAX as usize {
        return Err(Error::op(format!("{label}: {total} elements are more than a GPU kernel can count")));
    }
    let whole = if Num::among([x.dtype]) == Num::F32 { DType::F32 } else { DType::I32 };
    if elem::is_packed(y.dtype) {
        // Elements share words: whole numbers first, then packed.
        let buffer = device.alloc(4 * total as u64)?;
        let between = Span::new(&buffer, whole);
        launch_scan(device, x, (outer, n, inner), reverse, between, label)?;
        return launch_cast(device, total, between, y, label);
    }
    let chunks = n.div_ceil(CHUNK);
    let send = |pass: Pass, sums: Option<&Buffer>, to: Option<Span>| -> Result<()> {
        let key = Key::new("scan").with((pass as u64) << 16 | (x.dtype as u64) << 8 | y.dtype as u64);
        let pipeline = device.pipeline(&key, || Ok(shader(pass, x.dtype, y.dtype)))?;
        let params = Params::new().size(rows)?.size(n)?.size(inner)?.size(chunks)?.u32(u32::from(reverse));
        let params = params.size(x.offset)?.size(y.offset)?;
        let buffers: SmallVec<[&Buffer; 3]> =
            [Some(x.buffer), sums, to.map(|y| y.buffer)].into_iter().flatten().collect();
        let groups = if pass == Pass::Walk { rows.div_ceil(256) } else { rows * chunks };
        device.dispatch(&pipeline, &buffers, params, linear_groups(groups as u64)?, label)
    };
    if n <= 32 || (inner >= 32 && rows >= 2048) {
        return send(Pass::Walk, None, Some(y));
    }
    if chunks == 1 {
        return send(Pass::Alone, None, Some(y));
    }
    let sums = device.alloc(4 * (rows * chunks) as u64)?;
    send(Pass::Sums, Some(&sums), None)?;
    let before = Span::new(&sums, whole);
    launch_scan(device, before, (rows, chunks, 1), false, before, label)?;
    send(Pass::Onward, Some(&sums), Some(y))
}

fn shader(pass: Pass, from: DType, to: DType) -> Shader {
    let num = Num::among([from]);
    let mut shader =
        Shader::new(format!("scan {pass:?}").to_lowercase(), "").slot(Slot::read("x", elem::element(from)));
    match pass {
        Pass::Sums => shader = shader.slot(Slot::write("sums", num.wgsl())),
        Pass::Onward => shader = shader.slot(Slot::read("sums", num.wgsl())),
        _ => {}
    }
    if pass != Pass::Sums {
        shader = shader.slot(Slot::write("y", elem::element(to)));
    }
    for name in ["rows", "n", "inner", "chunks", "reverse", "o_x", "o_y"] {
        shader = shader.param(name, "u32");
    }
    // The sum through a chunk's element j is s(j); the text of stores and of what a chunk begins with is the pass's.
    let store = |at: &str, value: &str| format!("y[p.o_y + {at}] = {};", elem::pack(to, num, value));
    let load = elem::load(from, num, "x", "p.o_x + at(row, i)");
    let text = format!("{AT}fn element(row: u32, i: u32) -> VALUE {{ return {load}; }}\n");
    let text = match pass {
        Pass::Walk => text + &WALK.replace("STORE", &store("at(row, i)", "sum")),
        _ => {
            let tail = match pass {
                Pass::Sums => "    if (local == 255u) { sums[chunk] = part[255]; }\n".to_string(),
                _ => {
                    let base = match pass {
                        Pass::Onward => "    if (chunk % p.chunks > 0u) { base = sums[chunk - 1u]; }\n",
                        _ => "",
                    };
                    let store = store("at(row, i)", "sum");
                    format!(
                        "    var base = VALUE(0);\n{base}    var before = VALUE(0);
    if (local > 0u) {{ before = part[local - 1u]; }}
    for (var j = 0u; j < 4u; j++) {{
        let i = first + j;
        let sum = base + (before + v[j]);
        if (i < p.n) {{ {store} }}
    }}\n"
                    )
                }
            };
            text + CHUNKS + &tail + "}\n"
        }
    };
    let text = text.replace("VALUE", num.wgsl());
    shader.body = (elem::helpers_for(&text) + &text).into();
    shader
}

/// Where element `i` of a row lies, in the order of the walk.
const AT: &str = "fn at(row: u32, i: u32) -> u32 {
    let j = select(i, p.n - 1u - i, p.reverse == 1u);
    return (row / p.inner * p.n + j) * p.inner + row % p.inner;
}
";

const WALK: &str = "@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = mx_group(group) * 256u + local;
    if (row >= p.rows) { return; }
    var sum = VALUE(0);
    for (var i = 0u; i < p.n; i++) {
        sum = sum + element(row, i);
        STORE
    }
}
";

/// An invocation adds four neighbours; the sums of invocations are scanned together.
const CHUNKS: &str = "var<workgroup> part: array<VALUE, 256>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let chunk = mx_group(group);
    let row = chunk / p.chunks;
    let first = chunk % p.chunks * 1024u + local * 4u;
    var v = array<VALUE, 4>();
    var sum = VALUE(0);
    for (var j = 0u; j < 4u; j++) {
        if (row < p.rows && first + j < p.n) { sum = sum + element(row, first + j); }
        v[j] = sum;
    }
    part[local] = sum;
    workgroupBarrier();
    for (var d = 1u; d < 256u; d = d * 2u) {
        var more = VALUE(0);
        if (local >= d) { more = part[local - d]; }
        workgroupBarrier();
        part[local] = part[local] + more;
        workgroupBarrier();
    }
    if (row >= p.rows) { return; }
";
