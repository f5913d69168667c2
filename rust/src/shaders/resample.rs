//! Images of other sizes: a short weighted sum along each axis, and its transpose.
//!
//! Which places a result sums is a matter of whole numbers ([`Taps`]), so that no weight is rounded twice. The
//! transpose asks from its own side: the results that take in a place follow one another, and the first of them is
//! found by bisection.

use crate::shaders::each::{Each, Read};
use crate::shaders::elem::Span;
use mxrs_base::{Error, Result};
use mxrs_gpu::Device;

/// The places that a result takes in along an axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taps {
    /// Those of the part that it stands for, with equal weights.
    Average,
    /// Two neighbours; the first and last results are the first and last places.
    Corners,
    /// Two neighbours, results and places being areas.
    Centers,
}

impl Taps {
    /// `fn tap(i, n, to)`: the first place of result `i`, how many there are, and the second's weight.
    fn text(self) -> &'static str {
        match self {
            Taps::Average => {
                "fn tap(i: u32, n: u32, to: u32) -> Tap {
    let start = i * n / to;
    return Tap(start, ((i + 1u) * n + to - 1u) / to - start, 0.0);
}
fn weight(t: Tap, place: u32) -> f32 { return 1.0 / f32(t.count); }
"
            }
            Taps::Corners => {
                "fn tap(i: u32, n: u32, to: u32) -> Tap {
    return pair(i * (n - 1u), max(to - 1u, 1u), n);
}
"
            }
            Taps::Centers => {
                "fn tap(i: u32, n: u32, to: u32) -> Tap {
    let place = (2u * i + 1u) * n;
    return pair(select(place - to, 0u, place < to), 2u * to, n);
}
"
            }
        }
    }
    fn texts(self) -> String {
        let linear = "fn pair(place: u32, unit: u32, n: u32) -> Tap {
    let start = min(place / unit, n - 1u);
    if (start + 1u >= n) { return Tap(start, 1u, 0.0); }
    return Tap(start, 2u, f32(place % unit) / f32(unit));
}
fn weight(t: Tap, place: u32) -> f32 { return select(t.rest, 1.0 - t.rest, place == t.start); }
";
        let head = "struct Tap { start: u32, count: u32, rest: f32 }\n".to_string();
        match self {
            Taps::Average => head + self.text(),
            _ => head + linear + self.text(),
        }
    }
}

/// The extents of an axis pair: (rows, columns).
pub type Extents = (usize, usize);

fn each<'a>(
    taps: Taps,
    name: &'static str,
    (x, y): (Span<'a>, Span<'a>),
    (from, to): (Extents, Extents),
    label: &str,
) -> Result<Each<'a>> {
    for (a, b) in [(from.0, to.0), (from.1, to.1)] {
        if a.saturating_mul(b).saturating_mul(2) > u32::MAX as usize / 2 {
            return Err(Error::op(format!(
                "{label}: an axis of {a} for one of {b} is more than a GPU kernel can count"
            )));
        }
    }
    let each = Each::new(name, y).variant(taps as u64).input("x", x, Read::Value);
    each.size("h", from.0)?.size("w", from.1)?.size("to_h", to.0)?.size("to_w", to.1)
}

/// `y` (planes, to) from `x` (planes, from).
pub fn launch_resample(
    device: &Device,
    taps: Taps,
    planes: usize,
    (from, to): (Extents, Extents),
    (x, y): (Span, Span),
    label: &'static str,
) -> Result<()> {
    let body = || {
        taps.texts()
            + "fn element(e: u32) -> VALUE {
    let row = tap(e / p.to_w % p.to_h, p.h, p.to_h);
    let col = tap(e % p.to_w, p.w, p.to_w);
    let base = e / p.to_w / p.to_h * p.h * p.w;
    var sum = 0.0;
    for (var i = row.start; i < row.start + row.count; i++) {
        var line = 0.0;
        for (var j = col.start; j < col.start + col.count; j++) {
            line += weight(col, j) * x(base + i * p.w + j);
        }
        sum += weight(row, i) * line;
    }
    return sum;
}\n"
    };
    each(taps, "resample", (x, y), (from, to), label)?.launch(device, planes * to.0 * to.1, body, label)
}

/// `dx` (planes, from) from the head (planes, to).
pub fn launch_resample_grad(
    device: &Device,
    taps: Taps,
    planes: usize,
    (from, to): (Extents, Extents),
    (head, dx): (Span, Span),
    label: &'static str,
) -> Result<()> {
    let body = || {
        taps.texts()
            + "// The first result that reaches `place`.
fn first(place: u32, n: u32, to: u32) -> u32 {
    var low = 0u;
    var high = to;
    while (low < high) {
        let middle = low + (high - low) / 2u;
        let t = tap(middle, n, to);
        if (t.start + t.count <= place) { low = middle + 1u; } else { high = middle; }
    }
    return low;
}
fn element(e: u32) -> VALUE {
    let i = e / p.w % p.h;
    let j = e % p.w;
    let base = e / p.w / p.h * p.to_h * p.to_w;
    let left = first(j, p.w, p.to_w);
    var sum = 0.0;
    for (var r = first(i, p.h, p.to_h); r < p.to_h; r++) {
        let row = tap(r, p.h, p.to_h);
        if (row.start > i) { break; }
        var line = 0.0;
        for (var c = left; c < p.to_w; c++) {
            let col = tap(c, p.w, p.to_w);
            if (col.start > j) { break; }
            line += weight(col, j) * x(base + r * p.to_w + c);
        }
        sum += weight(row, i) * line;
    }
    return sum;
}\n"
    };
    each(taps, "resample grad", (head, dx), (from, to), label)?.launch(
        device,
        planes * from.0 * from.1,
        body,
        label,
    )
}
