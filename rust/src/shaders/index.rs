//! Movement by index arrays: rows taken, picked, put and added.
//!
//! Every kernel asks from the side of its output, so that nothing is written twice. Where several slices fall on one
//! place (gradients of take and gather, scatter), the places are sorted first, stably: an output element then finds its
//! slices by bisection and adds them in their order, whatever the device does at once. Nothing is read outside an
//! array: places that the host refuses go to the nearest end, since an error would have to wait for the device.

use crate::shaders::each::{Each, Read};
use crate::shaders::elem::{Span, is_wide};
use crate::shaders::sort::sort_pairs;
use mxrs_base::{DType, Error, Result};
use mxrs_gpu::{Buffer, Device};
use std::fmt::Write;

/// What an index names, and what becomes of one outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Places<'a> {
    /// A place along an axis of this size; the nearest end.
    Clip(usize),
    /// Modulo the size.
    Wrap(usize),
    /// One coordinate for each of these axes, in rows of the index array; negative ones count from the end.
    Coordinates(&'a [usize]),
}

impl Places<'_> {
    /// How many places there are.
    pub fn count(&self) -> usize {
        match self {
            Places::Clip(n) | Places::Wrap(n) => *n,
            Places::Coordinates(dims) => dims.iter().product(),
        }
    }
    fn variant(&self) -> u64 {
        match self {
            Places::Clip(_) => 0,
            Places::Wrap(_) => 1,
            Places::Coordinates(dims) => 1 + dims.len() as u64,
        }
    }
    fn with<'b>(&self, mut each: Each<'b>, at: Span<'b>, n: usize) -> Result<Each<'b>> {
        each = each.variant(self.variant()).input("at", at, Read::Index);
        match self {
            Places::Clip(size) | Places::Wrap(size) => each.size("size", *size),
            Places::Coordinates(dims) => {
                each = each.size("size", self.count())?.size("positions", n)?;
                for (d, size) in dims.iter().enumerate() {
                    each = each.size(format!("size{d}"), *size)?;
                }
                Ok(each)
            }
        }
    }
    /// `fn place(j: u32) -> u32`, the place that index `j` names.
    fn text(&self) -> String {
        let body = match self {
            Places::Clip(_) => "return u32(clamp(at(j), 0, i32(p.size) - 1));".to_string(),
            Places::Wrap(_) => {
                "let r = at(j) % i32(p.size);\n    return u32(select(r, r + i32(p.size), r < 0));".to_string()
            }
            Places::Coordinates(dims) => {
                let mut text = "var place = 0u;\n    var c = 0;\n".to_string();
                for d in 0..dims.len() {
                    let _ = write!(
                        text,
                        "    c = at(j + {d}u * p.positions);
    c = select(c, c + i32(p.size{d}), c < 0);
    place = place * p.size{d} + u32(clamp(c, 0, i32(p.size{d}) - 1));\n"
                    );
                }
                text + "    return place;"
            }
        };
        format!("fn place(j: u32) -> u32 {{\n    {body}\n}}\n")
    }
}

/// Sizes around the indexed places: (outer, places, inner).
pub type Around = (usize, usize, usize);

fn no_places(label: &str) -> Error {
    Error::value(format!("{label}: an axis of size 0 has no place to name"))
}

/// `y` (outer, n, inner): slices of `x` (outer, places, inner) at the `n` places that `at` names.
#[allow(clippy::too_many_arguments)] // a launch is what its caller has checked, passed on
pub fn launch_take<'a>(
    device: &Device,
    places: Places,
    n: usize,
    at: Span<'a>,
    x: Span<'a>,
    (outer, inner): (usize, usize),
    y: Span<'a>,
    label: &'static str,
) -> Result<()> {
    let total = outer * n * inner;
    if total > 0 && places.count() == 0 {
        return Err(no_places(label));
    }
    if is_wide(x.dtype) && x.dtype == y.dtype {
        let words = |s: Span<'a>| Span { dtype: DType::I32, offset: 2 * s.offset, ..s };
        return launch_take(device, places, n, at, words(x), (outer, 2 * inner), words(y), label);
    }
    let each = places.with(Each::new("take", y), at, n)?.input("x", x, Read::Value);
    let each = each.size("count", n)?.size("inner", inner)?;
    let body = || {
        places.text()
            + "fn element(e: u32) -> VALUE {
    let row = e / p.inner;
    return x((row / p.count * p.size + place(row % p.count)) * p.inner + e % p.inner);
}\n"
    };
    each.launch(device, total, body, label)
}

/// `y` (outer, inner): for each the element of `x` (outer, size, inner) that its index names.
pub fn launch_pick(
    device: &Device,
    places: Places,
    at: Span,
    x: Span,
    (outer, size, inner): Around,
    y: Span,
    label: &'static str,
) -> Result<()> {
    if outer * inner > 0 && size == 0 {
        return Err(no_places(label));
    }
    let each = places.with(Each::new("pick", y), at, 0)?.input("x", x, Read::Value).size("inner", inner)?;
    let body = || {
        places.text()
            + "fn element(e: u32) -> VALUE {
    return x((e / p.inner * p.size + place(e)) * p.inner + e % p.inner);
}\n"
    };
    each.launch(device, outer * inner, body, label)
}

/// `y` (outer, size, inner): the head (outer, inner) where its index names, zero elsewhere.
pub fn launch_pick_grad(
    device: &Device,
    places: Places,
    at: Span,
    head: Span,
    (outer, size, inner): Around,
    y: Span,
    label: &'static str,
) -> Result<()> {
    let each = places.with(Each::new("pick grad", y), at, 0)?.input("head", head, Read::Value);
    let each = each.size("inner", inner)?;
    let body = || {
        places.text()
            + "fn element(e: u32) -> VALUE {
    let row = e / p.inner;
    let source = row / p.size * p.inner + e % p.inner;
    if (place(source) == row % p.size) { return head(source); }
    return VALUE(0);
}\n"
    };
    each.launch(device, outer * size * inner, body, label)
}

/// `y` (n, depth): `on` at the places that `at` names, `off` elsewhere.
pub fn launch_one_hot(
    device: &Device,
    n: usize,
    depth: usize,
    at: Span,
    (on, off): (f64, f64),
    y: Span,
    label: &'static str,
) -> Result<()> {
    let each = Each::new("one_hot", y).input("at", at, Read::Index).size("depth", depth)?;
    let body = || {
        "fn element(e: u32) -> VALUE { return select(p.off, p.on, at(e / p.depth) == i32(e % p.depth)); }\n"
            .into()
    };
    each.value("on", on).value("off", off).launch(device, n * depth, body, label)
}

/// `y`: `x` where the condition is not 0, else `z`; an absent side is zero. A condition serves `inner` elements.
pub fn launch_choose(
    device: &Device,
    (condition, inner): (Span, usize),
    x: Option<Span>,
    z: Option<Span>,
    (y, n): (Span, usize),
    label: &'static str,
) -> Result<()> {
    let sides = u64::from(x.is_some()) | u64::from(z.is_some()) << 1;
    let mut each = Each::new("choose", y).variant(sides).input("condition", condition, Read::Truth);
    let mut text = ["VALUE(0)", "VALUE(0)"];
    for (k, (name, call, side)) in [("x", "x(e)", x), ("z", "z(e)", z)].into_iter().enumerate() {
        if let Some(span) = side {
            each = each.input(name, span, Read::Value);
            text[k] = call;
        }
    }
    let body = || {
        format!(
            "fn element(e: u32) -> VALUE {{\n    if (condition(e / p.inner)) {{ return {}; }}\n    return {};\n}}\n",
            text[0], text[1]
        )
    };
    each.size("inner", inner)?.launch(device, n, body, label)
}

/// What becomes of the slices that fall on one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meet {
    /// They are added, in float32 or int32; a place without any is zero.
    Sum,
    /// The last stays; a place without any is zero.
    Last,
    /// The last stays; a place without any keeps what `old` has there.
    Replace,
}

/// `y` (outer, places, inner): slices of `x` (outer, n, inner) put at the `n` places that `at` names.
///
/// With [`Meet::Replace`], `old` is an array shaped as `y`; it may be the same memory.
#[allow(clippy::too_many_arguments)] // a launch is what its caller has checked, passed on
pub fn launch_put(
    device: &Device,
    (places, meet): (Places, Meet),
    (at, n): (Span, usize),
    x: Span,
    old: Option<Span>,
    (outer, inner): (usize, usize),
    y: Span,
    label: &'static str,
) -> Result<()> {
    let total = outer * places.count() * inner;
    if n > 0 && places.count() == 0 {
        return Err(no_places(label));
    }
    if total == 0 {
        return Ok(());
    }
    let order = sorted(device, places, at, n, label)?;
    let order = Span::new(&order, DType::I32);
    let mut each = Each::new("put", y).variant(meet as u64).input("order", order, Read::Index);
    each = each.input("x", x, Read::Value);
    if let Some(old) = old {
        each = each.input("old", old, Read::Value);
    }
    let each = each.size("count", n)?.size("inner", inner)?.size("places", places.count())?;
    each.launch(device, total, || PUT_HEAD.to_string() + put_tail(meet), label)
}

/// `order` has pairs (place, position), sorted.
const PUT_HEAD: &str = "fn first_from(place: i32) -> u32 {
    var low = 0u;
    var high = p.count;
    while (low < high) {
        let middle = low + (high - low) / 2u;
        if (order(2u * middle) < place) { low = middle + 1u; } else { high = middle; }
    }
    return low;
}
";

fn put_tail(meet: Meet) -> &'static str {
    match meet {
        Meet::Sum => {
            "fn element(e: u32) -> VALUE {
    let row = e / p.inner;
    let place = i32(row % p.places);
    let base = row / p.places * p.count;
    var sum = VALUE(0);
    var k = first_from(place);
    while (k < p.count && order(2u * k) == place) {
        sum = sum + x((base + u32(order(2u * k + 1u))) * p.inner + e % p.inner);
        k = k + 1u;
    }
    return sum;
}\n"
        }
        Meet::Last => {
            "fn element(e: u32) -> VALUE {
    let row = e / p.inner;
    let place = i32(row % p.places);
    let k = first_from(place + 1);
    if (k == 0u || order(2u * k - 2u) != place) { return VALUE(0); }
    return x((row / p.places * p.count + u32(order(2u * k - 1u))) * p.inner + e % p.inner);
}\n"
        }
        Meet::Replace => {
            "fn element(e: u32) -> VALUE {
    let row = e / p.inner;
    let place = i32(row % p.places);
    let k = first_from(place + 1);
    if (k == 0u || order(2u * k - 2u) != place) { return old(e); }
    return x((row / p.places * p.count + u32(order(2u * k - 1u))) * p.inner + e % p.inner);
}\n"
        }
    }
}

/// Pairs (place, position) of the indices, by place and then by position.
fn sorted(device: &Device, places: Places, at: Span, n: usize, label: &'static str) -> Result<Buffer> {
    let pairs = device.alloc(8 * n.max(1) as u64)?;
    let each = places.with(Each::new("index pairs", Span::new(&pairs, DType::I32)), at, n)?;
    let body = || {
        places.text()
            + "fn element(e: u32) -> VALUE {
    if ((e & 1u) == 1u) { return i32(e / 2u); }
    return i32(place(e / 2u));
}\n"
    };
    each.launch(device, 2 * n, body, label)?;
    sort_pairs(device, &pairs, n, label)
}
