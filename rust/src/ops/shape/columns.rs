//! im2col and col2im: the windows of a convolution as columns, and their sum back into the image.
//!
//! The windows are a view of the padded image, in which elements appear once for each window that covers them;
//! col2im is that view's adjoint. Convolutions do not come here: they have kernels of their own.

use super::super::registry::Registry;
use super::super::{Attrs, Ctx, Param, Sig, draw, empty, ints};
use super::movement::checked;
use crate::shaders::columns as gpu;
use mxrs_base::{AttrValue, Result, Shape, dispatch_float};
use mxrs_kernels::copy::{self, Add, Unit, View};
use mxrs_kernels::dispatch_unit;
use mxrs_kernels::pad::{Fill, pad};
use mxrs_kernels::parts::{bytes_of, units, units_mut};

pub fn register(r: &mut Registry) {
    r.op("im2col", "The windows of data as columns: (N, C, D1, ...) to (N, C * taps, number of windows).")
        .input("data", "values (N, C, W), (N, C, H, W) or (N, C, D, H, W)")
        .params(params())
        .infer(|s| {
            s.expect_float(0)?;
            let shape = s.shape(0);
            s.expect_ndim(0, 3..=5)?;
            let w = Windows::new(s.attrs, shape).map_err(|text| s.fail(text))?;
            s.shaped(w.columns(shape[0], shape[1])?)
        })
        .kernel(|c| {
            let w = Windows::new(c.attrs, c.shape(0)).map_err(|text| c.fail(text))?;
            dispatch_unit!(c.dtype(0).size(), U => {
                im2col::<U>(c, &w);
            });
            Ok(())
        })
        .gpu(|c| {
            let w = Windows::new(c.attrs, c.shape(0)).map_err(|text| c.fail(text))?;
            gpu::launch_columns(c.device, planes(c.shape(0)), &w.axes(), (c.x(0), c.y(0)), c.op.name)
        })
        .cost(|_, outs| 2.0 * outs[0].shape.size() as f64)
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let size = b.shape(g.ins[0])[2..].iter().map(|d| *d as i64).collect::<Vec<_>>();
            let mut attrs = shared(g.attrs);
            attrs.push(("output_size", size[..].into()));
            let grad = b.op1("col2im", &[head], &attrs)?;
            g.first(grad)
        })
        .sample(&[draw(&[1, 2, 3, 4])], &[("kernel", [2, 2].into()), ("pad", [1, 0].into())])
        .sample(
            &[draw(&[1, 2, 5, 5])],
            &[("kernel", [2, 2].into()), ("stride", [2, 1].into()), ("dilate", [1, 2].into())],
        );
    r.op(
        "col2im",
        "Columns added into the image that their windows cover: (N, C * taps, windows) to (N, C, D1, ...).",
    )
    .input("data", "values (N, C * taps, number of windows)")
    .param(ints("output_size", "extents of the image's plane or volume").at_least(1.0))
    .params(params())
    .infer(|s| {
        s.expect_float(0)?;
        s.expect_ndim(0, 3..=3)?;
        let image = image_shape(s)?;
        let w = Windows::new(s.attrs, &image).map_err(|text| s.fail(text))?;
        s.expect_shape(0, &w.columns(image[0], image[1])?)?;
        s.shaped(image)
    })
    .kernel(|c| {
        let w = Windows::new(c.attrs, c.out_shape(0)).map_err(|text| c.fail(text))?;
        dispatch_float!(c.dtype(0), T => col2im::<T>(c, &w), else return c.bad_dtype(c.dtype(0)));
        Ok(())
    })
    .gpu(|c| {
        let w = Windows::new(c.attrs, c.out_shape(0)).map_err(|text| c.fail(text))?;
        gpu::launch_image(c.device, planes(c.out_shape(0)), &w.axes(), (c.x(0), c.y(0)), c.op.name)
    })
    .cost(|s, _| 4.0 * s.shape(0).size() as f64)
    .keeps(&[], &[])
    .grad(|b, g| {
        let Some(head) = g.heads[0] else { return Ok(g.none()) };
        let grad = b.op1("im2col", &[head], &shared(g.attrs))?;
        g.first(grad)
    })
    .sample(&[draw(&[1, 8, 4])], &[("output_size", [3, 3].into()), ("kernel", [2, 2].into())]);
}

const NAMES: [&str; 4] = ["kernel", "stride", "dilate", "pad"];

fn params() -> [Param; 4] {
    [
        ints("kernel", "extents of the windows").at_least(1.0),
        ints("stride", "distance between windows; 1 if absent").or(empty()).at_least(1.0),
        ints("dilate", "distance between a window's elements; 1 if absent").or(empty()).at_least(1.0),
        ints("pad", "zeros added on both sides of each axis; 0 if absent").or(empty()).at_least(0.0),
    ]
}

fn shared(attrs: &Attrs) -> Vec<(&'static str, AttrValue)> {
    NAMES.map(|name| (name, attrs.get(name).clone())).to_vec()
}

/// The windows over an image, per axis.
struct Windows {
    size: Vec<usize>,
    kernel: Vec<usize>,
    stride: Vec<usize>,
    dilate: Vec<usize>,
    pad: Vec<usize>,
    count: Vec<usize>,
}

impl Windows {
    fn new(attrs: &Attrs, image: &Shape) -> Result<Windows, String> {
        let axes = image.ndim() - 2;
        let read = |name: &str, absent: usize| match attrs.ints(name) {
            v if v.is_empty() && name != "kernel" => Ok(vec![absent; axes]),
            // A None entry counts as 0, which only padding may be.
            v if v.contains(&0) && name != "pad" => {
                Err(format!("argument {name} has an entry that is not positive"))
            }
            v if v.len() == axes => Ok(v.iter().map(|v| *v as usize).collect()),
            v => Err(format!("argument {name} has {} entries; {axes} are expected", v.len())),
        };
        let mut w = Windows {
            size: image[2..].to_vec(),
            kernel: read("kernel", 1)?,
            stride: read("stride", 1)?,
            dilate: read("dilate", 1)?,
            pad: read("pad", 0)?,
            count: Vec::new(),
        };
        for d in 0..axes {
            let reach = (w.kernel[d] - 1).checked_mul(w.dilate[d]).and_then(|v| v.checked_add(1));
            let padded = w.pad[d].checked_mul(2).and_then(|v| v.checked_add(w.size[d]));
            match (reach, padded) {
                (Some(reach), Some(padded)) if reach <= padded => {
                    w.count.push((padded - reach) / w.stride[d] + 1)
                }
                _ => return Err(format!("the kernel does not fit into axis {} with its padding", d + 2)),
            }
        }
        Ok(w)
    }

    /// The shape of the columns, if memory can address them and the padded image.
    fn columns(&self, n: usize, channels: usize) -> Result<Shape> {
        checked([n, channels].into_iter().map(Some).chain(self.padded().map(Some)))?;
        let rows = [channels].iter().chain(&self.kernel).try_fold(1usize, |a, b| a.checked_mul(*b));
        let windows = self.count.iter().try_fold(1usize, |a, b| a.checked_mul(*b));
        checked([Some(n), rows, windows])
    }

    fn padded(&self) -> impl Iterator<Item = usize> {
        self.size.iter().zip(&self.pad).map(|(d, p)| d + 2 * p)
    }

    /// The windows as a view of the padded image: (N, C, taps..., windows...).
    fn view(&self, n: usize, channels: usize) -> View {
        let dims: Vec<usize> = [n, channels].into_iter().chain(self.padded()).collect();
        let whole = View::of(&dims);
        let steps = &whole.strides[2..];
        let mut view = View { offset: 0, dims: whole.dims[..2].into(), strides: whole.strides[..2].into() };
        view.dims.extend(self.kernel.iter().chain(&self.count).copied());
        // Distances between the elements of an axis of one may be too large to compute with; they are not used.
        view.strides.extend(steps.iter().zip(&self.dilate).map(|(s, d)| s.saturating_mul(*d as isize)));
        view.strides.extend(steps.iter().zip(&self.stride).map(|(s, d)| s.saturating_mul(*d as isize)));
        view
    }

    fn pads(&self) -> Vec<(usize, usize)> {
        [(0, 0); 2].into_iter().chain(self.pad.iter().map(|p| (*p, *p))).collect()
    }

    fn is_padded(&self) -> bool {
        self.pad.iter().any(|p| *p > 0)
    }

    fn axes(&self) -> Vec<gpu::Axis> {
        let axis = |d: usize| gpu::Axis {
            size: self.size[d],
            kernel: self.kernel[d],
            stride: self.stride[d],
            dilate: self.dilate[d],
            pad: self.pad[d],
            count: self.count[d],
        };
        (0..self.size.len()).map(axis).collect()
    }
}

/// How many planes or volumes an image has.
fn planes(image: &Shape) -> usize {
    image[0] * image[1]
}

fn im2col<U: Unit>(c: &Ctx, w: &Windows) {
    let (image, x, out) = (c.shape(0), units::<U>(c.x_bytes(0)), units_mut::<U>(c.y_bytes(0)));
    let view = w.view(image[0], image[1]);
    if !w.is_padded() {
        return copy::gather(x, &view, out);
    }
    let mut padded = vec![U::default(); image[0] * image[1] * w.padded().product::<usize>()];
    pad(x, image, &w.pads(), Fill::Constant(U::default()), &mut padded);
    copy::gather(&padded, &view, out);
}

fn col2im<T: Add>(c: &Ctx, w: &Windows)
where
    T::Acc: Add,
{
    let (image, x) = (c.out_shape(0), c.x::<T>(0));
    let view = w.view(image[0], image[1]);
    if !w.is_padded() {
        let out = c.y::<T>(0);
        out.fill(T::default());
        return copy::accumulate(x, out, &view);
    }
    let dims: Vec<usize> = image[..2].iter().copied().chain(w.padded()).collect();
    let mut padded = vec![T::default(); dims.iter().product()];
    copy::accumulate(x, &mut padded, &view);
    let inner = (2..dims.len()).fold(View::of(&dims), |v, d| v.slice(d, w.pad[d - 2], 1, w.size[d - 2]));
    dispatch_unit!(size_of::<T>(), U => copy::gather(units::<U>(bytes_of(&padded)), &inner, units_mut::<U>(c.y_bytes(0))));
}

/// The image that `col2im` makes.
fn image_shape(s: &Sig) -> Result<Shape> {
    let (size, kernel) = (s.attrs.shape("output_size")?, s.attrs.shape("kernel")?);
    if !(1..=3).contains(&size.ndim()) {
        return Err(s.fail(format!("output_size has {} entries; 1 to 3 are allowed", size.ndim())));
    }
    let (rows, taps) = (s.shape(0)[1], kernel.checked_size()?);
    if taps == 0 || !rows.is_multiple_of(taps) {
        return Err(
            s.fail(format!("axis 1 has size {rows}, which the {taps} taps of the kernel do not divide"))
        );
    }
    checked([s.shape(0)[0], rows / taps].iter().chain(size.iter()).map(|d| Some(*d)))
}
