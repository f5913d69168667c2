//! Images of any size from images of another: adaptive averages and bilinear resizing.
//!
//! Both are a short weighted sum along each axis, so one linear map, given by its taps, and its transpose serve them
//! and all their derivatives.

use super::registry::Registry;
use super::{
    Attrs, Build, Ctx, GpuCtx, Param, Sig, Spec, Value, Values, choice, draw, empty, flag, float, int, ints,
};
use crate::shaders::reduce::{Reduction, launch_reduce};
use crate::shaders::resample as gpu;
use mxrs_base::{DType, Elem, Error, Result, Shape, f16};
use mxrs_kernels::parts;
use std::ops::{AddAssign, Mul};

const RESAMPLE: &str = "_resample";
const TRANSPOSE: &str = "_backward_resample";
const KINDS: &[&str] = &["average", "corners", "centers"];

pub fn register(r: &mut Registry) {
    adaptive(r);
    resize(r);
    resample(r);
    transposed(r);
}

fn resampled(b: &mut dyn Build, x: Value, (height, width): (usize, usize), kind: &str) -> Result<Values> {
    b.op(RESAMPLE, &[x], &[("height", height.into()), ("width", width.into()), ("kind", kind.into())])
}

fn image(b: &dyn Build, name: &str, x: Value) -> Result<(usize, usize)> {
    match b.spec(x).shape[..] {
        [_, _, height, width] => Ok((height, width)),
        _ => Err(Error::op(format!(
            "{name}: data has shape {}; (batch, channel, h, w) is allowed",
            b.spec(x).shape
        ))),
    }
}

fn adaptive(r: &mut Registry) {
    r.op(
        "_contrib_AdaptiveAvgPooling2D",
        "The average of the part of an image that each element of the result stands for.",
    )
    .input("data", "(batch, channel, h, w)")
    .param(ints("output_size", "(h, w), one number for both, or () for (1, 1)").or(empty()).at_least(0.0))
    .compose(|b, a, x| {
        image(b, "_contrib_AdaptiveAvgPooling2D", x[0])?;
        let size = match a.ints("output_size")[..] {
            [both] => (both as usize, both as usize),
            [height, width] => (height as usize, width as usize),
            _ => (1, 1),
        };
        resampled(b, x[0], size, "average")
    })
    .sample(&[draw(&[1, 2, 5, 4])], &[("output_size", [2, 3].into())]);
}

fn resize(r: &mut Registry) {
    const MODES: &[&str] =
        &["size", "odd_scale", "like", "to_even_down", "to_even_up", "to_odd_down", "to_odd_up"];
    let scale = |name, doc| -> Param { float(name, doc).or_none().at_least(0.0).at_most(1e9) };
    r.op("_contrib_BilinearResize2D", "Images resized by linear interpolation along both axes.")
        .input("data", "(batch, channel, h, w)")
        .input("like", "its height and width are taken, with mode `like`")
        .params([
            int("height", "height of the result").or(1i64).at_least(1.0).at_most(1e9),
            int("width", "width of the result").or(1i64).at_least(1.0).at_most(1e9),
            scale("scale_height", "the height is so many times that of the data"),
            scale("scale_width", "the width is so many times that of the data"),
            choice("mode", MODES, "where the size comes from").or("size"),
            flag("align_corners", "corners fall on corners; else pixels are areas").or(true),
        ])
        .input_count(|a| if a.str("mode") == "like" { 2 } else { 1 })
        .compose(|b, a, x| {
            let (height, width) = image(b, "_contrib_BilinearResize2D", x[0])?;
            let size = match a.str("mode") {
                "like" => image(b, "_contrib_BilinearResize2D", x[1])?,
                _ => (resized(a, height, "height")?, resized(a, width, "width")?),
            };
            resampled(b, x[0], size, if a.bool("align_corners") { "corners" } else { "centers" })
        })
        .sample(&[draw(&[1, 2, 3, 4])], &[("height", 5i64.into()), ("width", 3i64.into())])
        .sample(
            &[draw(&[1, 1, 2, 3])],
            &[("height", 4i64.into()), ("width", 5i64.into()), ("align_corners", false.into())],
        );
}

/// The new extent of an axis that is `n` long; `name` is height or width.
fn resized(a: &Attrs, n: usize, name: &str) -> Result<usize> {
    let scales = [a.opt_float("scale_height"), a.opt_float("scale_width")];
    let scale = if name == "height" { scales[0] } else { scales[1] };
    let extent = match (a.str("mode"), scale) {
        ("to_even_down", _) => n - n % 2,
        ("to_even_up", _) => n + n % 2,
        ("to_odd_down", _) => {
            if n.is_multiple_of(2) {
                n.saturating_sub(1)
            } else {
                n
            }
        }
        ("to_odd_up", _) => {
            if n.is_multiple_of(2) {
                n + 1
            } else {
                n
            }
        }
        ("odd_scale", Some(scale)) if n % 2 == 1 => ((n - 1) as f64 * scale) as usize + 1,
        ("odd_scale", Some(scale)) => (n as f64 * scale) as usize,
        ("odd_scale", None) => {
            return Err(Error::op(
                "_contrib_BilinearResize2D: mode odd_scale needs scale_height and scale_width",
            ));
        }
        (_, Some(scale)) if scales.iter().all(Option::is_some) => (n as f64 * scale) as usize,
        _ => a.size(name),
    };
    match extent {
        0 => Err(Error::op(format!(
            "_contrib_BilinearResize2D: the {name} of the result is 0; 1 or more is allowed"
        ))),
        _ => Ok(extent),
    }
}

// ---- the map ----

/// The places one result sums, from `start` on, with their weights.
struct Tap {
    start: usize,
    weights: [f64; 2],
    count: usize,
}

/// One tap for each of `to` results along an axis of `from` elements, which is not empty.
fn taps(kind: &str, from: usize, to: usize) -> Vec<Tap> {
    let linear = |place: f64| {
        let start = (place as usize).min(from - 1);
        let rest = place - start as f64;
        match start + 1 < from {
            true => Tap { start, weights: [1.0 - rest, rest], count: 2 },
            false => Tap { start, weights: [1.0, 0.0], count: 1 },
        }
    };
    let one = |i: usize| match kind {
        "average" => {
            // Products in 128 bits: extents have up to 62.
            let (start, end) = (
                i as u128 * from as u128 / to as u128,
                ((i as u128 + 1) * from as u128).div_ceil(to as u128),
            );
            let count = (end - start) as usize;
            let weight = 1.0 / count as f64;
            Tap { start: start as usize, weights: [weight, weight], count }
        }
        "corners" => linear(if to > 1 { i as f64 * (from - 1) as f64 / (to - 1) as f64 } else { 0.0 }),
        _ => linear(((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0)),
    };
    (0..to).map(one).collect()
}

impl Tap {
    /// `(place, weight)` of each.
    fn each(&self) -> impl Iterator<Item = (usize, f64)> {
        let weights = self.weights;
        (0..self.count).map(move |k| (self.start + k, weights[k.min(1)]))
    }
}

trait Number: Elem + AddAssign + Mul<Output = Self> {}
impl Number for f32 {}
impl Number for f64 {}

/// Sizes of the larger view: planes, and both extents on both sides.
struct Map {
    planes: usize,
    from: (usize, usize),
    to: (usize, usize),
    rows: Vec<Tap>,
    cols: Vec<Tap>,
}

/// Planes, and the extents of both sides.
fn extents(data: &Shape, result: &Shape) -> (usize, (usize, usize), (usize, usize)) {
    (data[0] * data[1], (data[2], data[3]), (result[2], result[3]))
}

fn on_gpu(c: &GpuCtx) -> gpu::Taps {
    match c.attrs.str("kind") {
        "average" => gpu::Taps::Average,
        "corners" => gpu::Taps::Corners,
        _ => gpu::Taps::Centers,
    }
}

impl Map {
    /// From images like `data` to images like `result`.
    fn of(kind: &str, data: &Shape, result: &Shape) -> Map {
        let (planes, from, to) = extents(data, result);
        Map { planes, from, to, rows: taps(kind, from.0, to.0), cols: taps(kind, from.1, to.1) }
    }

    fn forward<T: Elem, A: Number>(&self, x: &[T], y: &mut [T]) {
        let ((h, w), (out_h, out_w)) = (self.from, self.to);
        each_plane(self.planes, out_h * out_w, h * w + out_h * out_w, y, |plane, y| {
            let x = &x[plane * h * w..(plane + 1) * h * w];
            let mut line = vec![A::default(); w];
            for (tap, y) in self.rows.iter().zip(y.chunks_exact_mut(out_w)) {
                line.fill(A::default());
                for (i, weight) in tap.each() {
                    let weight = A::from_f64(weight);
                    line.iter_mut().zip(&x[i * w..(i + 1) * w]).for_each(|(l, v)| *l += weight * convert(*v));
                }
                for (tap, y) in self.cols.iter().zip(y) {
                    let mut sum = A::default();
                    tap.each().for_each(|(j, weight)| sum += line[j] * A::from_f64(weight));
                    *y = convert(sum);
                }
            }
        });
    }

    fn transpose<T: Elem, A: Number>(&self, head: &[T], dx: &mut [T]) {
        let ((h, w), (out_h, out_w)) = (self.from, self.to);
        each_plane(self.planes, h * w, h * w + out_h * out_w, dx, |plane, dx| {
            let head = &head[plane * out_h * out_w..(plane + 1) * out_h * out_w];
            let (mut line, mut sums) = (vec![A::default(); w], vec![A::default(); h * w]);
            for (tap, head) in self.rows.iter().zip(head.chunks_exact(out_w.max(1))) {
                line.fill(A::default());
                for (tap, v) in self.cols.iter().zip(head) {
                    tap.each().for_each(|(j, weight)| line[j] += convert::<T, A>(*v) * A::from_f64(weight));
                }
                for (i, weight) in tap.each() {
                    let weight = A::from_f64(weight);
                    sums[i * w..(i + 1) * w].iter_mut().zip(&line).for_each(|(s, v)| *s += weight * *v);
                }
            }
            dx.iter_mut().zip(sums).for_each(|(to, sum)| *to = convert(sum));
        });
    }
}

fn convert<T: Elem, U: Elem>(v: T) -> U {
    U::from_f64(v.to_f64())
}

/// Calls `body` with each plane's number and its `length` elements of `out`, on the lanes.
fn each_plane<T: Elem>(
    planes: usize,
    length: usize,
    work: usize,
    out: &mut [T],
    body: impl Fn(usize, &mut [T]) + Sync,
) {
    if length == 0 {
        return;
    }
    assert_eq!(out.len(), planes * length, "resample: the result has another size than its planes");
    parts::each_part(out, length, (1usize << 14).div_ceil(work.max(1)), body);
}

fn run(c: &Ctx, map: &Map, transpose: bool) -> Result<()> {
    fn one<T: Elem, A: Number>(c: &Ctx, map: &Map, transpose: bool) -> Result<()> {
        let (x, y) = (c.x::<T>(0), c.y::<T>(0));
        if transpose {
            map.transpose::<T, A>(x, y)
        } else {
            map.forward::<T, A>(x, y)
        }
        Ok(())
    }
    match c.dtype(0) {
        DType::F32 => one::<f32, f32>(c, map, transpose),
        DType::F64 => one::<f64, f64>(c, map, transpose),
        DType::F16 => one::<f16, f32>(c, map, transpose),
        other => c.bad_dtype(other),
    }
}

fn cost(s: &Sig, outs: &[Spec]) -> f64 {
    200.0 + 3.0 * (s.shape(0).size() + outs[0].shape.size()) as f64
}

fn kind_param() -> Param {
    choice("kind", KINDS, "averages; or interpolation with corners on corners, or pixels as areas")
}

fn resample(r: &mut Registry) {
    r.op(RESAMPLE, "Images of another size.")
        .input("data", "(batch, channel, h, w)")
        .param(int("height", "of the result").at_least(0.0))
        .param(int("width", "of the result").at_least(0.0))
        .param(kind_param())
        .infer(|s| {
            s.expect_float(0)?;
            s.expect_ndim(0, 4..=4)?;
            let data = s.shape(0);
            let out = Shape::new(&[data[0], data[1], s.attrs.size("height"), s.attrs.size("width")]);
            out.checked_size().map_err(|e| e.within(s.op.name))?;
            if data[2] == 0 || data[3] == 0 {
                return Err(s.fail("images without elements have no other size"));
            }
            s.shaped(out)
        })
        .kernel(|c| {
            let map = Map::of(c.attrs.str("kind"), c.shape(0), c.out_shape(0));
            if c.out_shape(0).size() == 0 { Ok(()) } else { run(c, &map, false) }
        })
        .gpu(|c| {
            let (planes, from, to) = extents(c.shape(0), c.out_shape(0));
            if c.attrs.str("kind") == "average" && to == (1, 1) {
                let (dims, strides) = ([planes, from.0 * from.1], [(from.0 * from.1) as isize, 1]);
                let x = c.x(0).strided(&strides);
                return launch_reduce(c.device, Reduction::Mean, &dims, &[1], x, c.y(0), c.op.name);
            }
            gpu::launch_resample(c.device, on_gpu(c), planes, (from, to), (c.x(0), c.y(0)), c.op.name)
        })
        .cost(cost)
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let shape = b.shape(g.ins[0]).clone();
            let attrs = [("shape", (&shape).into()), ("kind", g.attrs.get("kind").clone())];
            let grad = b.op1(TRANSPOSE, &[head], &attrs)?;
            g.first(grad)
        })
        .hidden()
        .sample(
            &[draw(&[1, 2, 3, 4])],
            &[("height", 4i64.into()), ("width", 3i64.into()), ("kind", "centers".into())],
        );
}

fn transposed(r: &mut Registry) {
    r.op(TRANSPOSE, "The transpose of resampling: its gradient.")
        .input("head", "the gradient of the result, (batch, channel, height, width)")
        .param(ints("shape", "the data's shape"))
        .param(kind_param())
        .infer(|s| {
            s.expect_float(0)?;
            s.expect_ndim(0, 4..=4)?;
            let shape = s.attrs.shape("shape")?;
            if shape.ndim() != 4 || shape[..2] != s.shape(0)[..2] || shape[2] == 0 || shape[3] == 0 {
                return Err(s.fail(format!("argument shape = {shape} does not fit")));
            }
            s.shaped(shape)
        })
        .kernel(|c| run(c, &Map::of(c.attrs.str("kind"), c.out_shape(0), c.shape(0)), true))
        .gpu(|c| {
            let (planes, from, to) = extents(c.out_shape(0), c.shape(0));
            gpu::launch_resample_grad(c.device, on_gpu(c), planes, (from, to), (c.x(0), c.y(0)), c.op.name)
        })
        .cost(cost)
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let size = b.shape(g.ins[0]).clone();
            let attrs = [
                ("height", size[2].into()),
                ("width", size[3].into()),
                ("kind", g.attrs.get("kind").clone()),
            ];
            let grad = b.op1(RESAMPLE, &[head], &attrs)?;
            g.first(grad)
        })
        .hidden()
        .sample(&[draw(&[1, 2, 4, 3])], &[("shape", [1, 2, 3, 4].into()), ("kind", "average".into())]);
}
