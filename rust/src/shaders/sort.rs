//! Order along an axis: the first elements of each row, and where they stood.
//!
//! An element becomes a pair (rank, place) whose order is the element's, as on the host (`mxrs_kernels::sort`): all
//! pairs of a row differ, so that any sort of them is the stable one. A workgroup sorts tiles of up to 1024 pairs. Of a
//! longer row either each tile passes on its first pairs, until one tile is left, or sorted runs are merged, where an
//! element finds its place in the other run by bisection.

use crate::shaders::copy::{launch_cast, launch_fill};
use crate::shaders::each::{Each, Read};
use crate::shaders::elem::{self, Num, Span};
use crate::shaders::rows::Around;
use mxrs_base::{DType, Error, Result};
use mxrs_gpu::{Buffer, Device, Key, Params, Shader, Slot, linear_groups};

/// Pairs that a workgroup sorts.
const TILE: usize = 1024;
/// The most pairs of a tile that are passed on without merging.
const FEW: usize = 256;

/// The sorted pairs of every row.
pub struct Sorted {
    pairs: Buffer,
    /// Pairs from one row to the next.
    step: usize,
    around: Around,
    k: usize,
    ascending: bool,
}

/// Sorts the rows along an axis of `x`, of which the first `k` are wanted; not-a-number counts as the greatest.
///
/// # Errors
/// Where the type is not one of GPUs or there are more than 2^30 elements.
pub fn launch_sort(
    device: &Device,
    x: Span,
    around: Around,
    k: usize,
    ascending: bool,
    label: &'static str,
) -> Result<Sorted> {
    elem::check_dtype(x.dtype, label)?;
    let (outer, size, inner) = around;
    let rows = outer * inner;
    if rows.saturating_mul(size.next_power_of_two()) > 1 << 30 {
        return Err(Error::op(format!(
            "{label}: {rows} rows of {size} elements are more than a GPU kernel sorts"
        )));
    }
    let few = k <= FEW;
    let stage = |of: Of, size: usize| -> Result<(Buffer, usize)> {
        let tiles = size.div_ceil(TILE).max(1);
        let keep = match tiles {
            1 => k,
            _ if few => k,
            _ => TILE,
        };
        let step = if tiles > 1 && !few { size } else { tiles * keep };
        let y = device.alloc(8 * (rows * step).max(1) as u64)?;
        sort_tiles(device, (of, inner, ascending), (rows, tiles, size), (keep, step), &y, label)?;
        Ok((y, step))
    };
    let (mut pairs, mut step) = stage(Of::Elements(x), size)?;
    let mut rest = size;
    if few {
        while rest > TILE {
            rest = step;
            (pairs, step) = stage(Of::Pairs(&pairs), rest)?;
        }
    } else if size > TILE {
        pairs = merge(device, pairs, rows, size, label)?;
    }
    Ok(Sorted { pairs, step, around, k, ascending })
}

/// `n` pairs of two words, no two of them equal, in order: by the first word, then by the second.
pub(super) fn sort_pairs(device: &Device, pairs: &Buffer, n: usize, label: &'static str) -> Result<Buffer> {
    let tiles = n.div_ceil(TILE).max(1);
    let sorted = device.alloc(8 * n.max(1) as u64)?;
    let keep = if tiles > 1 { TILE } else { n };
    sort_tiles(device, (Of::Pairs(pairs), 1, true), (1, tiles, n), (keep, n), &sorted, label)?;
    if tiles > 1 { merge(device, sorted, 1, n, label) } else { Ok(sorted) }
}

/// What a tile is made of.
enum Of<'a> {
    Elements(Span<'a>),
    Pairs(&'a Buffer),
}

/// Sorts every tile of every row and writes its first `keep` pairs.
fn sort_tiles(
    device: &Device,
    (of, inner, ascending): (Of, usize, bool),
    (rows, tiles, size): (usize, usize, usize),
    (keep, step): (usize, usize),
    y: &Buffer,
    label: &'static str,
) -> Result<()> {
    // Short rows share a workgroup.
    let width = size.next_power_of_two().clamp(2, TILE);
    let (buffer, offset, dtype) = match of {
        Of::Elements(x) => (x.buffer, x.offset, Some(x.dtype)),
        Of::Pairs(x) => (x, 0, None),
    };
    let key = Key::new("sort tiles").with((width as u64) << 8 | dtype.map_or(0xff, |d| d as u64));
    let pipeline = device.pipeline(&key, || {
        let element = dtype.map_or("vec2<u32>", elem::element);
        let mut shader =
            Shader::new("sort tiles", "").slot(Slot::read("x", element)).slot(Slot::write("y", "vec2<u32>"));
        for name in ["count", "tiles", "size", "inner", "keep", "step", "o_x", "flip"] {
            shader = shader.param(name, "u32");
        }
        let pair = match dtype {
            None => "fn pair(row: u32, j: u32) -> vec2<u32> { return x[row * p.size + j]; }\n".to_string(),
            Some(dtype) => {
                let num = Num::among([dtype]);
                let load = elem::load(dtype, num, "x", "at");
                rank(num)
                    + &format!(
                        "fn pair(row: u32, j: u32) -> vec2<u32> {{
    let at = p.o_x + (row / p.inner * p.size + j) * p.inner + row % p.inner;
    return vec2<u32>(rank({load}) ^ p.flip, j);
}}\n"
                    )
            }
        };
        let text = pair + include_str!("sort.wgsl");
        let text = text.replace("WIDTH", &format!("{width}u"));
        shader.body = (elem::helpers_for(&text) + &text).into();
        Ok(shader)
    })?;
    let count = rows * tiles;
    let params = Params::new().size(count)?.size(tiles)?.size(size)?.size(inner)?.size(keep)?.size(step)?;
    let params = params.size(offset)?.u32(flip(ascending));
    let groups = linear_groups((count * width).div_ceil(TILE) as u64)?;
    device.dispatch(&pipeline, &[buffer, y], params, groups, label)
}

/// Every rank turned around, where the largest come first.
fn flip(ascending: bool) -> u32 {
    if ascending { 0 } else { u32::MAX }
}

/// `fn rank`, a whole number that orders as the element does.
fn rank(num: Num) -> String {
    match num {
        Num::I32 => "fn rank(v: i32) -> u32 { return bitcast<u32>(v) ^ 0x80000000u; }\n".into(),
        Num::F32 => "fn rank(v: f32) -> u32 {
    let bits = bitcast<u32>(v);
    if ((bits & 0x7fffffffu) > 0x7f800000u) { return 0xffffffffu; }
    // A negative number's bits order backwards; -0 is 0.
    if (bits > 0x80000000u) { return ~bits; }
    return bits | 0x80000000u;
}\n"
        .into(),
    }
}

/// Merges runs of a tile into sorted rows.
fn merge(device: &Device, pairs: Buffer, rows: usize, size: usize, label: &'static str) -> Result<Buffer> {
    let pipeline = device.pipeline(&Key::new("sort merge"), || {
        let shader = Shader::new("sort merge", MERGE);
        let shader = shader.slot(Slot::read("x", "vec2<u32>")).slot(Slot::write("y", "vec2<u32>"));
        Ok(shader.param("n", "u32").param("size", "u32").param("run", "u32"))
    })?;
    let n = rows * size;
    let (mut from, mut to) = (pairs, device.alloc(8 * n.max(1) as u64)?);
    let mut run = TILE;
    while run < size {
        let params = Params::new().size(n)?.size(size)?.size(run)?;
        device.dispatch(&pipeline, &[&from, &to], params, linear_groups(n.div_ceil(256) as u64)?, label)?;
        std::mem::swap(&mut from, &mut to);
        run *= 2;
    }
    Ok(from)
}

/// Neighbouring runs of `run` pairs become one. No two pairs of a row are equal.
const MERGE: &str = "@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let t = mx_group(group) * 256u + local;
    if (t >= p.n) { return; }
    let row = t / p.size * p.size;
    let e = t - row;
    let mine = e / p.run;
    let first = mine * p.run;
    let other = select(first + p.run, first - p.run, (mine & 1u) == 1u);
    let pair = x[t];
    // How many of the other run stand before this pair.
    var low = min(other, p.size);
    let start = low;
    var high = min(low + p.run, p.size);
    while (low < high) {
        let middle = low + (high - low) / 2u;
        let key = x[row + middle];
        if (key.x < pair.x || (key.x == pair.x && key.y < pair.y)) { low = middle + 1u; } else { high = middle; }
    }
    y[row + min(first, other) + (e - first) + (low - start)] = pair;
}
";

/// The words of int64 places, two for each; a shader has no type for them.
pub fn words(places: Span) -> Span {
    Span { buffer: places.buffer, dtype: DType::I32, offset: 2 * places.offset }
}

/// The place of the pair that belongs to result `e` of (outer, k, inner).
const PLACE: &str = "fn place(e: u32) -> i32 {
    let row = e / (p.inner * p.k) * p.inner + e % p.inner;
    return pairs(2u * (row * p.step + e / p.inner % p.k) + 1u);
}
";

impl Sorted {
    fn results(&self) -> usize {
        self.around.0 * self.k * self.around.2
    }
    fn each<'a>(&'a self, name: &'static str, y: Span<'a>) -> Result<Each<'a>> {
        let pairs = Span::new(&self.pairs, DType::I32);
        let each = Each::new(name, y).input("pairs", pairs, Read::Index);
        each.size("inner", self.around.2)?.size("k", self.k)?.size("step", self.step)
    }

    /// The elements of `x`, which was sorted, in order: (outer, k, inner).
    pub fn values(&self, device: &Device, x: Span, y: Span, label: &'static str) -> Result<()> {
        let each = self.each("sorted values", y)?.input("x", x, Read::Value).size("size", self.around.1)?;
        let body = || {
            PLACE.to_string()
                + "fn element(e: u32) -> VALUE {
    return x((e / (p.inner * p.k) * p.size + u32(place(e))) * p.inner + e % p.inner);
}\n"
        };
        each.launch(device, self.results(), body, label)
    }

    /// Their places along the axis, in the type of `y`.
    pub fn indices(&self, device: &Device, y: Span, label: &'static str) -> Result<()> {
        let body = || PLACE.to_string() + "fn element(e: u32) -> VALUE { return VALUE(place(e)); }\n";
        self.each("sorted places", y)?.launch(device, self.results(), body, label)
    }

    /// Their places as int64.
    pub fn places(&self, device: &Device, y: Span, label: &'static str) -> Result<()> {
        let body = || {
            PLACE.to_string()
                + "fn element(e: u32) -> VALUE {
    if ((e & 1u) == 1u) { return 0; }
    return place(e / 2u);
}\n"
        };
        self.each("sorted long places", words(y))?.launch(device, 2 * self.results(), body, label)
    }

    /// 1 where an element of `x` is one of the first k, else 0: (outer, size, inner).
    pub fn mask(&self, device: &Device, x: Span, y: Span, label: &'static str) -> Result<()> {
        let (outer, size, inner) = self.around;
        if self.k == 0 {
            return launch_fill(device, &[outer * size * inner], 0.0, y.strided(&[1]), label);
        }
        let each = self.each("sorted mask", y)?.input("x", x, Read::Value);
        let each = each.size("size", size)?.size("flip", flip(self.ascending) as usize)?;
        let body = || {
            rank(Num::among([x.dtype]))
                + "fn element(e: u32) -> VALUE {
    let row = e / (p.inner * p.size) * p.inner + e % p.inner;
    let last = 2u * (row * p.step + p.k - 1u);
    let mine = rank(x(e)) ^ p.flip;
    let limit = bitcast<u32>(pairs(last));
    if (mine < limit || (mine == limit && e / p.inner % p.size <= bitcast<u32>(pairs(last + 1u)))) { return VALUE(1); }
    return VALUE(0);
}\n"
        };
        each.launch(device, outer * size * inner, body, label)
    }
}

/// `y` (outer, size, inner): the elements of `x` (outer, k, inner) at their int64 places, zeros elsewhere. The places
/// of a row are distinct.
pub fn launch_put_back(
    device: &Device,
    (x, places): (Span, Span),
    (outer, size, inner): Around,
    k: usize,
    y: Span,
    label: &'static str,
) -> Result<()> {
    elem::check_dtype(x.dtype, label)?;
    let n = outer * k * inner;
    let whole = outer * size * inner;
    if elem::is_packed(y.dtype) {
        // Elements share words: whole numbers first, then packed.
        let buffer = device.alloc(4 * whole.max(1) as u64)?;
        let between = Span::new(&buffer, DType::I32);
        launch_put_back(device, (x, places), (outer, size, inner), k, between, label)?;
        return launch_cast(device, whole, between, y, label);
    }
    launch_fill(device, &[whole], 0.0, y.strided(&[1]), label)?;
    if n == 0 {
        return Ok(());
    }
    let key = Key::new("put back").with((x.dtype as u64) << 8 | y.dtype as u64);
    let pipeline = device.pipeline(&key, || {
        let mut shader = Shader::new("put back", "")
            .slot(Slot::read("x", elem::element(x.dtype)))
            .slot(Slot::read("places", "u32"))
            .slot(Slot::write("y", elem::element(y.dtype)));
        for name in ["n", "k", "size", "inner", "o_x", "o_places", "o_y"] {
            shader = shader.param(name, "u32");
        }
        let num = Num::among([x.dtype]);
        let value = elem::pack(y.dtype, num, &elem::load(x.dtype, num, "x", "p.o_x + e"));
        let text = format!(
            "@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {{
    let e = mx_group(group) * 256u + local;
    if (e >= p.n) {{ return; }}
    let place = min(places[p.o_places + 2u * e], p.size - 1u);
    y[p.o_y + (e / (p.k * p.inner) * p.size + place) * p.inner + e % p.inner] = {value};
}}\n"
        );
        shader.body = (elem::helpers_for(&text) + &text).into();
        Ok(shader)
    })?;
    let params = Params::new().size(n)?.size(k)?.size(size)?.size(inner)?;
    let params = params.size(x.offset)?.size(words(places).offset)?.size(y.offset)?;
    let groups = linear_groups(n.div_ceil(256) as u64)?;
    device.dispatch(&pipeline, &[x.buffer, places.buffer, y.buffer], params, groups, label)
}

/// `y` (outer, k, inner): the elements of `x` (outer, size, inner) at int64 places.
pub fn launch_at_places(
    device: &Device,
    (x, places): (Span, Span),
    (outer, size, inner): Around,
    k: usize,
    y: Span,
    label: &'static str,
) -> Result<()> {
    let each = Each::new("at places", y).input("x", x, Read::Value).input("at", words(places), Read::Index);
    let each = each.size("k", k)?.size("size", size)?.size("inner", inner)?;
    let body = || {
        "fn element(e: u32) -> VALUE {
    let place = u32(clamp(at(2u * e), 0, i32(p.size) - 1));
    return x((e / (p.k * p.inner) * p.size + place) * p.inner + e % p.inner);
}\n"
        .into()
    };
    each.launch(device, outer * k * inner, body, label)
}
