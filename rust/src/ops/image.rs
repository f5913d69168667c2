//! Operators on images: to channel planes and back, normalisation, flips, crops, resizing.
//!
//! Images are (height, width, channels) or batches of them in front, planes (channels, height, width). Decoding and
//! the random augmentations of data pipelines are made of these and of other operators in Python.

mod on_gpu;

use super::registry::Registry;
use super::{
    Build, Ctx, GradArgs, Grads, OpBuilder, Param, Sig, Specs, draw, dtype, empty, flag, floats, int, ints,
};
use mxrs_base::{DType, Elem, Result, Shape, dispatch};

pub fn register(r: &mut Registry) {
    to_tensor(r);
    normalize(r);
    flips(r);
    crop(r);
    resize(r);
}

/// Images in a batch, height, width, channels of an image or batch of images.
fn extents(shape: &[usize]) -> (usize, usize, usize, usize) {
    match *shape {
        [h, w, c] => (1, h, w, c),
        [n, h, w, c] => (n, h, w, c),
        _ => (0, 0, 0, 0),
    }
}

/// A shape with the image extents `tail` behind the batch axis that `like` has or not.
fn batch_of(like: &[usize], tail: [usize; 3]) -> Shape {
    like[..like.len() - 3].iter().copied().chain(tail).collect()
}

fn to_tensor(r: &mut Registry) {
    r.op(
        "_image_to_tensor",
        "Images (H, W, C) of 0..255 as float32 planes (C, H, W) of 0..1; batches likewise.",
    )
    .input("data", "an image (H, W, C) or a batch (N, H, W, C)")
    .infer(|s| {
        s.expect_ndim(0, 3..=4)?;
        let (_, h, w, c) = extents(s.shape(0));
        s.one(batch_of(s.shape(0), [c, h, w]), DType::F32)
    })
    .kernel(|c| {
        let (n, h, w, channels) = extents(c.shape(0));
        dispatch!(c.dtype(0), T => {
            let (x, y) = (c.x::<T>(0), c.y::<f32>(0));
            turn(x, y, n, h * w, channels, |v: T| v.to_f64() as f32 / 255.0);
        });
        Ok(())
    })
    .gpu(|c| {
        let (n, h, w, channels) = extents(c.shape(0));
        on_gpu::turn(c, n, h * w, channels)
    })
    .keeps(&[], &[])
    .grad(|b, g| {
        let Some(head) = g.heads[0] else { return Ok(g.none()) };
        let to = b.dtype(g.ins[0]);
        let grad = b.op1("_backward_image_to_tensor", &[head], &[("dtype", to.into())])?;
        g.first(grad)
    })
    .sample(&[draw(&[2, 4, 3])], &[])
    .sample(&[draw(&[2, 2, 4, 3])], &[]);
    r.op("_backward_image_to_tensor", "Planes divided by 255 as images: the gradient of `_image_to_tensor`.")
        .input("head", "gradient of the planes")
        .param(dtype("dtype", "the element type of the images"))
        .infer(|s| {
            s.expect_ndim(0, 3..=4)?;
            let (_, c, h, w) = extents(s.shape(0));
            s.one(batch_of(s.shape(0), [h, w, c]), s.attrs.dtype("dtype"))
        })
        .kernel(|c| {
            let (n, channels, h, w) = extents(c.shape(0));
            dispatch!(c.dtype(0), S => dispatch!(c.out_dtype(0), T => {
                turn(c.x::<S>(0), c.y::<T>(0), n, channels, h * w, |v: S| T::from_f64(v.to_f64() / 255.0));
            }));
            Ok(())
        })
        .gpu(|c| {
            let (n, channels, h, w) = extents(c.shape(0));
            on_gpu::turn(c, n, channels, h * w)
        })
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let planes = b.unary("_image_to_tensor", head)?;
            let to = b.dtype(g.ins[0]);
            let grad = b.cast(planes, to)?;
            g.first(grad)
        })
        .hidden()
        .sample(&[draw(&[3, 2, 4])], &[("dtype", DType::F32.into())]);
}

/// `n` matrices (rows, columns) transposed, each element through `f`.
fn turn<S: Elem, T: Elem>(x: &[S], y: &mut [T], n: usize, rows: usize, columns: usize, f: impl Fn(S) -> T) {
    let size = rows * columns;
    for image in 0..n {
        let (x, y) = (&x[image * size..][..size], &mut y[image * size..][..size]);
        for column in 0..columns {
            for row in 0..rows {
                y[column * rows + row] = f(x[row * columns + column]);
            }
        }
    }
}

fn normalize(r: &mut Registry) {
    let four = |name, doc, v: f64| floats(name, doc).or(mxrs_base::AttrValue::Floats([v; 4].into()));
    r.op("_image_normalize", "(data - mean) / std of each channel plane.")
        .input("data", "planes (C, H, W) or a batch (N, C, H, W) with 1 or 3 channels")
        .param(four("mean", "mean of all channels or of each", 0.0))
        .param(four("std", "standard deviation of all channels or of each", 1.0))
        .infer(|s| {
            s.expect_ndim(0, 3..=4)?;
            let channels = extents(s.shape(0)).1;
            if channels != 1 && channels != 3 {
                return Err(s.fail(format!("data has {channels} channels; 1 or 3 are allowed")));
            }
            for name in ["mean", "std"] {
                let given = s.attrs.floats(name).len();
                // 4 is the length of the default.
                if given != 1 && given != channels && given != 4 {
                    return Err(
                        s.fail(format!("argument {name} has {given} entries for {channels} channels"))
                    );
                }
            }
            s.same(0)
        })
        .kernel(|c| {
            let (n, channels, h, w) = extents(c.shape(0));
            let (means, stds) = (c.attrs.floats("mean"), c.attrs.floats("std"));
            dispatch!(c.dtype(0), T => {
                let (x, y) = (c.x::<T>(0), c.y::<T>(0));
                for plane in 0..n * channels {
                    let (mean, std) = (of_channel(means, plane % channels), of_channel(stds, plane % channels));
                    let range = plane * h * w..(plane + 1) * h * w;
                    for (y, x) in y[range.clone()].iter_mut().zip(&x[range]) {
                        *y = T::from_f64((x.to_f64() - mean) / std);
                    }
                }
            });
            Ok(())
        })
        .gpu(on_gpu::normalize)
        .keeps(&[], &[])
        .grad(|b, g| {
            // Linear up to the mean: its gradient is itself without one.
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let std = g.attrs.get("std").clone();
            let none = mxrs_base::AttrValue::Floats([0.0].into());
            let grad = b.op1("_image_normalize", &[head], &[("mean", none), ("std", std)])?;
            g.first(grad)
        })
        .sample(&[draw(&[3, 2, 2])], &[("std", mxrs_base::AttrValue::Floats([0.5, 2.0, 4.0].into()))]);
}

/// The number of a channel among one for all or one for each.
fn of_channel(numbers: &[f64], channel: usize) -> f64 {
    if numbers.len() == 1 { numbers[0] } else { numbers[channel] }
}

fn flips(r: &mut Registry) {
    let image = |r: &mut Registry, name: &'static str, doc: &'static str, across: bool| {
        r.op(name, doc)
            .input("data", "an image (H, W, C)")
            .infer(|s| {
                s.expect_ndim(0, 3..=3)?;
                s.same(0)
            })
            .kernel(move |c| flip(c, across))
            .gpu(move |c| on_gpu::flip(c, across))
            .keeps(&[], &[])
            .grad(|b, g| {
                let Some(head) = g.heads[0] else { return Ok(g.none()) };
                let grad = b.op1(g.op.name, &[head], &[])?;
                g.first(grad)
            })
            .sample(&[draw(&[2, 3, 2])], &[]);
    };
    image(r, "_image_flip_left_right", "The image mirrored: its columns in reverse order.", true);
    image(r, "_image_flip_top_bottom", "The image upside down: its rows in reverse order.", false);
}

fn flip(c: &Ctx, across: bool) -> Result<()> {
    let (_, h, w, channels) = extents(c.shape(0));
    let pixel = channels * c.dtype(0).size();
    // Left to right, the pixels of each row turn around; top to bottom, the rows do.
    let (outer, count, unit) = if across { (h, w, pixel) } else { (1, h, w * pixel) };
    let (x, y) = (c.x_bytes(0), c.y_bytes(0));
    if y.is_empty() {
        return Ok(());
    }
    let block = count * unit;
    for i in 0..outer {
        let (x, y) = (&x[i * block..][..block], &mut y[i * block..][..block]);
        for (y, x) in y.chunks_exact_mut(unit).zip(x.chunks_exact(unit).rev()) {
            y.copy_from_slice(x);
        }
    }
    Ok(())
}

/// The window's corner and extents.
fn window() -> [Param; 4] {
    [
        int("x", "first column").at_least(0.0),
        int("y", "first row").at_least(0.0),
        int("width", "columns").at_least(1.0),
        int("height", "rows").at_least(1.0),
    ]
}

/// That the window lies within `h` rows and `w` columns.
fn within(s: &Sig, h: usize, w: usize) -> Result<(usize, usize)> {
    let get = |name| s.attrs.size(name);
    let (x, y, width, height) = (get("x"), get("y"), get("width"), get("height"));
    if x + width > w || y + height > h {
        return Err(s.fail(format!(
            "the window of {width} x {height} at ({x}, {y}) leaves the image of width {w} and height {h}"
        )));
    }
    Ok((height, width))
}

fn crop(r: &mut Registry) {
    r.op(
        "_image_crop",
        "The window of `width` by `height` pixels whose first pixel is column `x` of row `y`.",
    )
    .input("data", "an image (H, W, C) or a batch (N, H, W, C)")
    .params(window())
    .infer(|s| {
        s.expect_ndim(0, 3..=4)?;
        let (_, h, w, c) = extents(s.shape(0));
        let (height, width) = within(s, h, w)?;
        s.shaped(batch_of(s.shape(0), [height, width, c]))
    })
    .kernel(|c| {
        let (x, y) = (c.x_bytes(0), c.y_bytes(0));
        rows(c, c.shape(0), c.out_shape(0), |at, line| y[line].copy_from_slice(&x[at]));
        Ok(())
    })
    .gpu(|c| on_gpu::window(c, c.shape(0), false))
    .keeps(&[], &[])
    .grad(|b, g| crop_grad(b, g, "_backward_image_crop", true))
    .sample(&[draw(&[3, 4, 2])], &WINDOW.map(|(k, v)| (k, v.into())));
    let back = r.op("_backward_image_crop", "Zeros around the window: the gradient of `_image_crop`.");
    back.input("head", "gradient of the window").params(window());
    back.param(ints("shape", "extents of the image or batch"))
        .infer(|s| {
            let shape = s.attrs.shape("shape")?;
            shape.checked_size()?;
            s.expect_ndim(0, shape.ndim()..=shape.ndim())?;
            s.expect_ndim(0, 3..=4)?;
            let (_, h, w, c) = extents(&shape);
            let (height, width) = within(s, h, w)?;
            s.expect_shape(0, &batch_of(&shape, [height, width, c]))?;
            s.shaped(shape)
        })
        .kernel(|c| {
            let (x, y) = (c.x_bytes(0), c.y_bytes(0));
            y.fill(0);
            rows(c, c.out_shape(0), c.shape(0), |at, line| y[at].copy_from_slice(&x[line]));
            Ok(())
        })
        .gpu(|c| on_gpu::window(c, c.out_shape(0), true))
        .keeps(&[], &[])
        .grad(|b, g| crop_grad(b, g, "_image_crop", false))
        .hidden()
        .sample(
            &[draw(&[3, 2, 2])],
            &[
                ("x", 1i64.into()),
                ("y", 0i64.into()),
                ("width", 2i64.into()),
                ("height", 3i64.into()),
                ("shape", [3, 4, 2].into()),
            ],
        );
}

const WINDOW: [(&str, i64); 4] = [("x", 1), ("y", 0), ("width", 2), ("height", 3)];

fn crop_grad(b: &mut dyn Build, g: &GradArgs, name: &str, with_shape: bool) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let mut attrs: Vec<(&str, mxrs_base::AttrValue)> =
        WINDOW.iter().map(|(name, _)| (*name, g.attrs.get(name).clone())).collect();
    if with_shape {
        attrs.push(("shape", b.shape(g.ins[0]).into()));
    }
    let grad = b.op1(name, &[head], &attrs)?;
    g.first(grad)
}

/// Calls `each` with the bytes of every row of the window in `image` and in the window's own array.
fn rows(
    c: &Ctx,
    image: &Shape,
    window: &Shape,
    mut each: impl FnMut(std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let ((n, h, w, channels), (_, height, width, _)) = (extents(image), extents(window));
    let (left, top) = (c.attrs.size("x"), c.attrs.size("y"));
    let pixel = channels * c.dtype(0).size();
    for i in 0..n {
        for row in 0..height {
            let at = ((i * h + top + row) * w + left) * pixel;
            let line = (i * height + row) * width * pixel;
            each(at..at + width * pixel, line..line + width * pixel);
        }
    }
}

fn resize(r: &mut Registry) {
    let op: &mut OpBuilder = r.op(
        "_image_resize",
        "Images of another size, by the nearest pixel (`interp` 0) or bilinearly between pixel centres (1); edges repeat.",
    );
    op.input("data", "an image (H, W, C) or a batch (N, H, W, C)")
        .param(
            ints("size", "(width, height), or one number for both or for the shorter side")
                .or(empty())
                .at_least(1.0),
        )
        .param(flag("keep_ratio", "one number is the shorter side, and the other keeps the ratio").or(false))
        .param(int("interp", "0 for nearest, 1 for bilinear").or(1).at_least(0.0).at_most(4.0))
        .infer(resized)
        .kernel(|c| {
            let (n, h, w, channels) = extents(c.shape(0));
            let (_, height, width, _) = extents(c.out_shape(0));
            let nearest = c.attrs.int("interp") == 0;
            let (ys, xs) = (taps(h, height, nearest), taps(w, width, nearest));
            let whole = c.dtype(0).is_int();
            dispatch!(c.dtype(0), T => {
                let (x, y) = (c.x::<T>(0), c.y::<T>(0));
                let mut out = y.iter_mut();
                for image in (0..n).map(|i| &x[i * h * w * channels..][..h * w * channels]) {
                    for &(y0, y1, fy) in &ys {
                        for &(x0, x1, fx) in &xs {
                            for (k, out) in (0..channels).zip(&mut out) {
                                let at = |y: usize, x: usize| image[(y * w + x) * channels + k].to_f64();
                                let top = at(y0, x0) + (at(y0, x1) - at(y0, x0)) * fx;
                                let bottom = at(y1, x0) + (at(y1, x1) - at(y1, x0)) * fx;
                                let v = top + (bottom - top) * fy;
                                *out = T::from_f64(if whole { v.round() } else { v });
                            }
                        }
                    }
                }
            });
            Ok(())
        })
        .gpu(on_gpu::resize)
        .cost(|_, outs| outs[0].shape.size() as f64 * 8.0)
        .sample(&[draw(&[3, 4, 2])], &[("size", [2, 5].into())]);
}

fn resized(s: &Sig) -> Result<Specs> {
    s.expect_ndim(0, 3..=4)?;
    let (_, h, w, c) = extents(s.shape(0));
    if h == 0 || w == 0 {
        return Err(s.fail("an image without pixels cannot be resized"));
    }
    if s.attrs.int("interp") > 1 {
        let text = format!(
            "argument interp = {} is not built; 0 (nearest) and 1 (bilinear) are",
            s.attrs.int("interp")
        );
        return Err(mxrs_base::Error::not_implemented(s.fail(text).message().to_string()));
    }
    let size = s.attrs.shape("size")?;
    let (height, width) = match *size {
        // The shorter side gets the number; the other is rounded down.
        [n] if s.attrs.bool("keep_ratio") && h > w => ((h as u128 * n as u128 / w as u128) as usize, n),
        [n] if s.attrs.bool("keep_ratio") => (n, (w as u128 * n as u128 / h as u128) as usize),
        [n] => (n, n),
        [width, height] => (height, width),
        _ => {
            return Err(
                s.fail(format!("argument size = {size} is not valid; one or two numbers are expected"))
            );
        }
    };
    let shape = batch_of(s.shape(0), [height, width, c]);
    shape.checked_size()?;
    s.shaped(shape)
}

/// For each of `to` positions the two source positions among `from` and the share of the second.
fn taps(from: usize, to: usize, nearest: bool) -> Vec<(usize, usize, f64)> {
    let scale = from as f64 / to as f64;
    let last = from - 1;
    (0..to)
        .map(|i| {
            if nearest {
                let at = ((i as f64 * scale) as usize).min(last);
                return (at, at, 0.0);
            }
            let at = ((i as f64 + 0.5) * scale - 0.5).clamp(0.0, last as f64);
            (at as usize, (at as usize + 1).min(last), at.fract())
        })
        .collect()
}
