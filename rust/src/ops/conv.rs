//! Convolution and its transpose, of one to three spatial dimensions, in layouts with channels first or last.
//!
//! Three linear maps share one geometry: convolving data with a weight, spreading an output's gradient back over the
//! data, and correlating the two to a weight. Each is the gradient of the other two, so derivatives of any order stay
//! within them, and a deconvolution is the second one used forward.

use super::linalg::{fill, wanted};
use super::registry::Registry;
use super::{Attrs, Build, GradArgs, Grads, Param, Sig, Value};
use super::{choice, draw, empty, flag, int, ints};
use crate::shaders::conv::{Channels, launch_conv, launch_conv_data, launch_conv_weight};
use crate::shaders::epilogue::Bias;
use mxrs_base::{AttrValue, Error, ErrorKind, Result, Shape, dispatch_float};
use mxrs_kernels::conv::{
    Conv, ConvGeom, Done, UNHEARD, Window, conv_data_grad, conv_forward, conv_weight_grad, deconv_forward,
    in_parts,
};
use mxrs_kernels::copy;
use mxrs_kernels::parts::{bytes_of, bytes_of_mut, units, units_mut};
use smallvec::SmallVec;
use std::borrow::Cow;

const DATA: &str = "_backward_Convolution_data";
const WEIGHT: &str = "_backward_Convolution_weight";
const LAYOUTS: &[&str] = &["NCW", "NCHW", "NCDHW", "NWC", "NHWC", "NDHWC"];
/// A padded image beyond this many elements needs a reason in the data or the result.
const LARGE_IMAGE: usize = 1 << 27;

pub fn register(r: &mut Registry) {
    convolution(r);
    deconvolution(r);
    data_gradient(r);
    weight_gradient(r);
}

fn window_params() -> [Param; 4] {
    [
        ints("kernel", "extents of the window: (w,), (h, w) or (d, h, w)").at_least(1.0),
        ints("stride", "steps of the window; () is 1 along each axis").or(empty()).at_least(1.0),
        ints("dilate", "distances between the window's elements; () is 1 along each axis")
            .or(empty())
            .at_least(1.0),
        ints("pad", "zeros put on both sides; () is 0 along each axis").or(empty()).at_least(0.0),
    ]
}

fn channel_params(workspace: i64, no_bias: bool) -> [Param; 7] {
    [
        int("num_filter", "channels of the result").at_least(1.0).at_most((1u64 << 40) as f64),
        int("num_group", "groups of channels that do not see one another").or(1i64).at_least(1.0),
        int("workspace", "without meaning here").or(workspace).at_least(0.0),
        flag("no_bias", "leave the bias out").or(no_bias),
        choice("cudnn_tune", &["off", "limited_workspace", "fastest"], "without meaning here").or_none(),
        flag("cudnn_off", "without meaning here").or(false),
        choice("layout", LAYOUTS, "order of the axes; None is channels first").or_none(),
    ]
}

fn input_count(a: &Attrs) -> usize {
    if a.bool("no_bias") { 2 } else { 3 }
}

// ---- sizes ----

fn channels_last(a: &Attrs) -> bool {
    a.str("layout").ends_with('C')
}

/// A number for each spatial axis, without an allocation: a plan asks in every run.
type Axes = SmallVec<[usize; 3]>;

/// A tuple of the window, `default` along each axis where it is empty.
fn per_axis(a: &Attrs, name: &str, ndim: usize, default: usize) -> Axes {
    match a.opt_ints(name) {
        [] => Axes::from_elem(default, ndim),
        given => given.iter().map(|v| usize::try_from(v.unwrap_or(default as i64)).unwrap_or(0)).collect(),
    }
}

/// The window's tuples, owned.
struct Tuples {
    kernel: Axes,
    stride: Axes,
    dilate: Axes,
    pad: Axes,
}

impl Tuples {
    fn of(a: &Attrs) -> Result<Tuples> {
        let kernel = per_axis(a, "kernel", 0, 1);
        let n = kernel.len();
        let (stride, dilate) = (per_axis(a, "stride", n, 1), per_axis(a, "dilate", n, 1));
        let pad = per_axis(a, "pad", n, 0);
        if !(1..=3).contains(&n) || [&stride, &dilate, &pad].iter().any(|t| t.len() != n) {
            return Err(Error::op(format!(
                "kernel {kernel:?}, stride {stride:?}, dilate {dilate:?} and pad {pad:?} must have equally many numbers, 1 to 3"
            )));
        }
        let layout = a.str("layout");
        if !layout.is_empty() && layout.len() != n + 2 {
            return Err(Error::op(format!(
                "layout {layout} has {} axes; {} are allowed for kernel {kernel:?}",
                layout.len(),
                n + 2
            )));
        }
        Ok(Tuples { kernel, stride, dilate, pad })
    }

    fn window(&self) -> Window<'_> {
        Window { kernel: &self.kernel, stride: &self.stride, dilate: &self.dilate, pad: &self.pad }
    }
}

/// `(batch, channels, spatial extents)` of an array in the layout.
fn split(a: &Attrs, shape: &Shape, spatial: usize) -> Result<(usize, usize, Axes)> {
    if shape.ndim() != spatial + 2 {
        return Err(Error::op(format!(
            "data has {} dimensions; {} are allowed for a kernel of {spatial} (batch, channel and space)",
            shape.ndim(),
            spatial + 2
        )));
    }
    let last = shape.ndim() - 1;
    Ok(match channels_last(a) {
        true => (shape[0], shape[last], shape[1..last].into()),
        false => (shape[0], shape[1], shape[2..].into()),
    })
}

/// The shape of an array in the layout.
fn joined(a: &Attrs, first: usize, channels: usize, spatial: &[usize]) -> Shape {
    let mut dims = vec![first];
    if channels_last(a) {
        dims.extend_from_slice(spatial);
        dims.push(channels);
    } else {
        dims.push(channels);
        dims.extend_from_slice(spatial);
    }
    Shape::new(&dims)
}

/// The geometry of a convolution of `data` to `filters` channels.
fn geometry(a: &Attrs, data: &Shape, filters: usize) -> Result<ConvGeom> {
    let tuples = Tuples::of(a)?;
    let (batch, channels, dims) = split(a, data, tuples.kernel.len())?;
    let g = ConvGeom::new(batch, (channels, filters, a.size("num_group")), &dims, tuples.window())?;
    bounded(g)
}

/// Refuses borders so wide that the padded copy of an image alone would fill the memory.
fn bounded(g: ConvGeom) -> Result<ConvGeom> {
    let padded: usize =
        (0..3).map(|i| g.in_dims[i] + 2 * g.pad[i]).product::<usize>().saturating_mul(g.channels);
    let honest = g.data_len().saturating_add(g.out_len()).saturating_mul(16);
    if padded > LARGE_IMAGE && padded > honest {
        return Err(Error::memory(format!(
            "pad {:?} makes images of {padded} elements out of extents {:?}; a smaller pad is allowed",
            g.pad, g.in_dims
        )));
    }
    Ok(g)
}

/// The convolution that a deconvolution turns round.
fn deconv_geometry(a: &Attrs, data: &Shape) -> Result<ConvGeom> {
    let mut tuples = Tuples::of(a)?;
    let n = tuples.kernel.len();
    let (batch, channels, dims) = split(a, data, n)?;
    let mut adj = per_axis(a, "adj", n, 0);
    let target = per_axis(a, "target_shape", n, 0);
    if adj.len() != n || target.len() != n {
        return Err(Error::op(format!("adj {adj:?} and target_shape {target:?} must have {n} numbers each")));
    }
    if target.iter().any(|t| *t > 0) {
        (tuples.pad, adj) = reach_target(&tuples, &dims, &target)?;
    }
    let channels = (channels, a.size("num_filter"), a.size("num_group"));
    bounded(ConvGeom::deconvolution(batch, channels, &dims, tuples.window(), &adj)?)
}

/// The pad and adj with which a deconvolution of `dims` has the extents `target`: what is too much is cut off in
/// halves, an odd element with `adj`.
fn reach_target(t: &Tuples, dims: &[usize], target: &[usize]) -> Result<(Axes, Axes)> {
    let full = |i: usize| {
        let steps = dims[i].checked_sub(1)?.checked_mul(t.stride[i])?;
        let window = (t.kernel[i] - 1).checked_mul(t.dilate[i])?.checked_add(1)?;
        steps.checked_add(window)
    };
    (0..dims.len())
        .map(|i| {
            let full = full(i).unwrap_or(0);
            match full.checked_sub(target[i]) {
                Some(excess) => Ok((excess.div_ceil(2), excess % 2)),
                None => Err(Error::op(format!(
                    "target_shape {target:?} is too large; at most {full} is allowed along axis {i}"
                ))),
            }
        })
        .collect()
}

/// The weight's shape in the layout: `first` is filters for a convolution and data channels for its transpose.
fn weight_shape(a: &Attrs, g: &ConvGeom) -> Shape {
    let spatial = per_axis(a, "kernel", 0, 1);
    joined(a, g.filters, g.group_channels(), &spatial)
}

fn cost(g: &ConvGeom) -> f64 {
    let out = (g.batch * g.filters * g.out_plane()) as f64;
    let depth = g.depth() as f64;
    // Depthwise convolutions and others of small depth move more than they multiply.
    2.0 * out * depth / 30.0 + (g.data_len() + g.out_len()) as f64 * 0.3 + 300.0
}

// ---- layouts ----

/// Where the elements of an array with channels last lie, in the order of channels first.
fn first_of_last(shape: &Shape) -> copy::View {
    let last = shape.ndim() - 1;
    let axes: Vec<usize> = [0, last].into_iter().chain(1..last).collect();
    copy::View::of(shape).transpose(&axes)
}

/// The elements of an array in the layout, channels first.
fn channels_first<'a, T: Conv>(a: &Attrs, x: &'a [T], shape: &Shape) -> Cow<'a, [T]> {
    if !channels_last(a) {
        return Cow::Borrowed(x);
    }
    let mut out = vec![T::default(); x.len()];
    mxrs_kernels::dispatch_unit!(size_of::<T>(), U => {
        copy::gather(units::<U>(bytes_of(x)), &first_of_last(shape), units_mut(bytes_of_mut(&mut out)));
    });
    Cow::Owned(out)
}

/// Runs `body` on the output with channels first, and turns it to the layout.
fn into_layout<T: Conv>(a: &Attrs, y: &mut [T], shape: &Shape, body: impl FnOnce(&mut [T])) {
    if !channels_last(a) {
        return body(y);
    }
    let mut first = vec![T::default(); y.len()];
    body(&mut first);
    mxrs_kernels::dispatch_unit!(size_of::<T>(), U => {
        let (from, to) = (units::<U>(bytes_of(&first)), units_mut::<U>(bytes_of_mut(y)));
        // A view of one element would be broadcast; it lies the same in both orders.
        if from.len() == 1 { to.copy_from_slice(from) } else { copy::scatter(from, to, &first_of_last(shape)) }
    });
}

// ---- operators ----

/// An error of the sizes as one of this call; exhausted memory stays that.
fn checked<T>(s: &Sig, result: Result<T>) -> Result<T> {
    result.map_err(|e| match e.kind() {
        ErrorKind::Memory => e.within(s.op.name),
        _ => s.fail(e.message()),
    })
}

fn convolution(r: &mut Registry) {
    r.op("Convolution", "Slides a weight over the data: cross-correlation over one to three spatial dimensions.")
        .input("data", "(batch, channel, space...), or as `layout` says")
        .input("weight", "(num_filter, channel / num_group, kernel...); with channels last (num_filter, kernel..., channel / num_group)")
        .input("bias", "(num_filter,), not there with `no_bias`")
        .params(window_params())
        .params(channel_params(1024, false))
        .alias(&["_npx_convolution", "Convolution_v1"])
        .input_count(input_count)
        .complete(|a, shapes| {
            if let Some(data) = shapes.first().cloned().flatten() {
                let g = geometry(a, &data, a.size("num_filter")).map_err(|e| e.within("Convolution"))?;
                fill(shapes, 1, || weight_shape(a, &g));
            }
            fill(shapes, 2, || Shape::new(&[a.size("num_filter")]));
            Ok(())
        })
        .infer(|s| {
            s.one_dtype()?;
            s.expect_float(0)?;
            let g = checked(s, geometry(s.attrs, s.shape(0), s.attrs.size("num_filter")))?;
            s.expect_shape(1, &weight_shape(s.attrs, &g))?;
            if s.ins.len() > 2 {
                s.expect_shape(2, &Shape::new(&[g.filters]))?;
            }
            s.shaped(joined(s.attrs, g.batch, g.filters, spatial(&g.out_dims, s.shape(0))))
        })
        .kernel(|c| {
            let (a, g) = (c.attrs, geometry(c.attrs, c.shape(0), c.attrs.size("num_filter"))?);
            dispatch_float!(c.dtype(0), T => {
                let (x, w) = (channels_first(a, c.x::<T>(0), c.shape(0)), channels_first(a, c.x::<T>(1), c.shape(1)));
                let bias = (c.ins.len() > 2).then(|| c.x::<T>(2));
                let (last, y) = (channels_last(a), c.y::<T>(0));
                // With channels last, the result is final only when it has been turned.
                let (done, turned): (Done, Done) = if last { (UNHEARD, &c.finish()) } else { (&c.finish(), UNHEARD) };
                let len = y.len();
                into_layout(a, y, c.out_shape(0), |y| conv_forward(&g, &x, &w, bias, false, y, done));
                in_parts(len, turned);
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .gpu(|c| {
            let g = geometry(c.attrs, c.shape(0), c.attrs.size("num_filter"))?;
            let bias = if c.ins.len() > 2 { Bias::Rows(c.x(2)) } else { Bias::None };
            launch_conv(c.device, (&g, channels(c.attrs)), c.x(0), c.x(1), c.y(0), &c.epilogue(bias), c.op.name)
        })
        .cost(|s, _| geometry(s.attrs, s.shape(0), s.attrs.size("num_filter")).map_or(0.0, |g| cost(&g)))
        .finishes()
        .keeps(&[0, 1], &[])
        .grad(convolution_grad)
        .sample(
            &[draw(&[2, 2, 4, 3]), draw(&[4, 1, 3, 2]), draw(&[4])],
            &[
                ("kernel", [3, 2].into()),
                ("num_filter", 4i64.into()),
                ("num_group", 2i64.into()),
                ("pad", [1, 0].into()),
                ("stride", [2, 1].into()),
            ],
        )
        .sample(
            &[draw(&[2, 5, 3]), draw(&[2, 2, 3])],
            &[
                ("kernel", [2].into()),
                ("num_filter", 2i64.into()),
                ("no_bias", true.into()),
                ("dilate", [2].into()),
                ("layout", "NWC".into()),
            ],
        );
}

/// Where channels stand, in the terms of a GPU.
fn channels(a: &Attrs) -> Channels {
    if channels_last(a) { Channels::Last } else { Channels::First }
}

/// The spatial extents among three, for an array of batch, channel and space.
fn spatial<'a>(dims: &'a [usize; 3], array: &Shape) -> &'a [usize] {
    &dims[5 - array.ndim()..]
}

/// The attributes of the three maps for this geometry and layout.
fn shared(a: &Attrs, g: &ConvGeom) -> Vec<(&'static str, AttrValue)> {
    let n = a.opt_ints("kernel").len();
    let tuple = |dims: &[usize; 3]| {
        AttrValue::Ints(dims[3 - n..].iter().map(|d| Some(*d as i64)).collect::<Vec<_>>().into())
    };
    vec![
        ("kernel", tuple(&g.kernel)),
        ("stride", tuple(&g.stride)),
        ("dilate", tuple(&g.dilate)),
        ("pad", tuple(&g.pad)),
        ("layout", a.get("layout").clone()),
        ("num_filter", g.filters.into()),
        ("num_group", g.groups.into()),
    ]
}

/// The convolution map: data with weight.
fn forward(b: &mut dyn Build, a: &Attrs, g: &ConvGeom, data: Value, weight: Value) -> Result<Value> {
    let mut attrs = shared(a, g);
    attrs.push(("no_bias", true.into()));
    b.op1("Convolution", &[data, weight], &attrs)
}

/// The map from an output's gradient and a weight to data of `shape`.
fn to_data(
    b: &mut dyn Build,
    a: &Attrs,
    g: &ConvGeom,
    head: Value,
    weight: Value,
    shape: &Shape,
) -> Result<Value> {
    let mut attrs = shared(a, g);
    attrs.push(("shape", shape.into()));
    b.op1(DATA, &[head, weight], &attrs)
}

/// The map from data and an output's gradient to a weight.
fn to_weight(b: &mut dyn Build, a: &Attrs, g: &ConvGeom, data: Value, head: Value) -> Result<Value> {
    b.op1(WEIGHT, &[data, head], &shared(a, g))
}

/// The sum of a gradient over everything but channels.
fn bias_grad(b: &mut dyn Build, a: &Attrs, head: Value, channels: usize) -> Result<Value> {
    let ndim = b.shape(head).ndim();
    if channels_last(a) {
        return b.sum_to(head, &Shape::new(&[channels]));
    }
    let mut kept = Shape::new(&vec![1; ndim]);
    kept.set(1, channels);
    let sums = b.sum_to(head, &kept)?;
    b.reshape(sums, &Shape::new(&[channels]))
}

fn convolution_grad(b: &mut dyn Build, g: &GradArgs) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let data = b.shape(g.ins[0]).clone();
    let geom = geometry(g.attrs, &data, g.attrs.size("num_filter"))?;
    let mut grads = g.none();
    grads[0] = wanted(g, 0, || to_data(b, g.attrs, &geom, head, g.ins[1], &data))?;
    grads[1] = wanted(g, 1, || to_weight(b, g.attrs, &geom, g.ins[0], head))?;
    grads.get_mut(2).map_or(Ok(()), |slot| {
        *slot = wanted(g, 2, || bias_grad(b, g.attrs, head, geom.filters))?;
        Ok(())
    })?;
    Ok(grads)
}

fn deconvolution(r: &mut Registry) {
    r.op("Deconvolution", "Spreads each element of the data through a weight: the transpose of a convolution.")
        .input("data", "(batch, channel, space...), or as `layout` says")
        .input("weight", "(channel, num_filter / num_group, kernel...); with channels last (channel, kernel..., num_filter / num_group)")
        .input("bias", "(num_filter,), not there with `no_bias`")
        .params(window_params())
        .params([
            ints("adj", "elements added at the end of each axis, fewer than the stride").or(empty()).at_least(0.0),
            ints("target_shape", "extents of the result, which then choose pad and adj").or(empty()).at_least(0.0),
        ])
        .params(channel_params(512, true))
        .alias(&["_npx_deconvolution"])
        .input_count(input_count)
        .complete(|a, shapes| {
            if let Some(data) = shapes.first().cloned().flatten() {
                let g = deconv_geometry(a, &data).map_err(|e| e.within("Deconvolution"))?;
                fill(shapes, 1, || weight_shape(a, &g));
            }
            fill(shapes, 2, || Shape::new(&[a.size("num_filter")]));
            Ok(())
        })
        .infer(|s| {
            s.one_dtype()?;
            s.expect_float(0)?;
            let g = checked(s, deconv_geometry(s.attrs, s.shape(0)))?;
            s.expect_shape(1, &weight_shape(s.attrs, &g))?;
            if s.ins.len() > 2 {
                s.expect_shape(2, &Shape::new(&[g.channels]))?;
            }
            s.shaped(joined(s.attrs, g.batch, g.channels, spatial(&g.in_dims, s.shape(0))))
        })
        .kernel(|c| {
            let (a, g) = (c.attrs, deconv_geometry(c.attrs, c.shape(0))?);
            dispatch_float!(c.dtype(0), T => {
                let (x, w) = (channels_first(a, c.x::<T>(0), c.shape(0)), channels_first(a, c.x::<T>(1), c.shape(1)));
                let bias = (c.ins.len() > 2).then(|| c.x::<T>(2));
                into_layout(a, c.y::<T>(0), c.out_shape(0), |y| deconv_forward(&g, &x, &w, bias, false, y));
                in_parts(c.out_shape(0).size(), &c.finish());
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .finishes()
        .gpu(|c| {
            let g = deconv_geometry(c.attrs, c.shape(0))?;
            let bias = if c.ins.len() > 2 { Bias::Rows(c.x(2)) } else { Bias::None };
            launch_conv_data(c.device, (&g, channels(c.attrs)), c.x(0), c.x(1), c.y(0), &c.epilogue(bias), c.op.name)
        })
        .cost(|s, _| deconv_geometry(s.attrs, s.shape(0)).map_or(0.0, |g| cost(&g)))
        .keeps(&[0, 1], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let data = b.shape(g.ins[0]).clone();
            let geom = deconv_geometry(g.attrs, &data)?;
            let mut grads = g.none();
            grads[0] = wanted(g, 0, || forward(b, g.attrs, &geom, head, g.ins[1]))?;
            grads[1] = wanted(g, 1, || to_weight(b, g.attrs, &geom, head, g.ins[0]))?;
            if g.ins.len() > 2 {
                grads[2] = wanted(g, 2, || bias_grad(b, g.attrs, head, geom.channels))?;
            }
            Ok(grads)
        })
        .sample(
            &[draw(&[2, 4, 3, 2]), draw(&[4, 1, 3, 2]), draw(&[2])],
            &[
                ("kernel", [3, 2].into()),
                ("num_filter", 2i64.into()),
                ("num_group", 2i64.into()),
                ("stride", [2, 1].into()),
                ("pad", [1, 0].into()),
                ("adj", [1, 0].into()),
                ("no_bias", false.into()),
            ],
        );
}

fn hidden_params() -> [Param; 3] {
    [
        int("num_filter", "filters of the convolution").at_least(1.0),
        int("num_group", "groups of channels").or(1i64).at_least(1.0),
        choice("layout", LAYOUTS, "order of the axes").or_none(),
    ]
}

fn data_gradient(r: &mut Registry) {
    r.op(DATA, "The gradient of a convolution with respect to its data.")
        .input("head", "the gradient of the convolution's output")
        .input("weight", "the convolution's weight")
        .params(window_params())
        .params(hidden_params())
        .param(ints("shape", "the data's shape"))
        .infer(|s| {
            s.one_dtype()?;
            s.expect_float(0)?;
            let shape = s.attrs.shape("shape")?;
            let g = checked(s, geometry(s.attrs, &shape, s.attrs.size("num_filter")))?;
            s.expect_shape(0, &joined(s.attrs, g.batch, g.filters, spatial(&g.out_dims, &shape)))?;
            s.expect_shape(1, &weight_shape(s.attrs, &g))?;
            s.shaped(shape)
        })
        .kernel(|c| {
            let (a, g) = (c.attrs, geometry(c.attrs, c.out_shape(0), c.attrs.size("num_filter"))?);
            dispatch_float!(c.dtype(0), T => {
                let head = channels_first(a, c.x::<T>(0), c.shape(0));
                let w = channels_first(a, c.x::<T>(1), c.shape(1));
                into_layout(a, c.y::<T>(0), c.out_shape(0), |dx| conv_data_grad(&g, &head, &w, false, dx));
                in_parts(c.out_shape(0).size(), &c.finish());
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .finishes()
        .gpu(|c| {
            let g = geometry(c.attrs, c.out_shape(0), c.attrs.size("num_filter"))?;
            launch_conv_data(
                c.device,
                (&g, channels(c.attrs)),
                c.x(0),
                c.x(1),
                c.y(0),
                &c.epilogue(Bias::None),
                c.op.name,
            )
        })
        .cost(|s, outs| {
            geometry(s.attrs, &outs[0].shape, s.attrs.size("num_filter")).map_or(0.0, |g| cost(&g))
        })
        .keeps(&[0, 1], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let geom = geometry(g.attrs, &g.attrs.shape("shape")?, g.attrs.size("num_filter"))?;
            let mut grads = g.none();
            grads[0] = wanted(g, 0, || forward(b, g.attrs, &geom, head, g.ins[1]))?;
            grads[1] = wanted(g, 1, || to_weight(b, g.attrs, &geom, head, g.ins[0]))?;
            Ok(grads)
        })
        .hidden()
        .sample(
            &[draw(&[1, 2, 2, 3]), draw(&[2, 2, 2, 2])],
            &[("kernel", [2, 2].into()), ("num_filter", 2i64.into()), ("shape", [1, 2, 3, 4].into())],
        );
}

fn weight_gradient(r: &mut Registry) {
    r.op(WEIGHT, "The gradient of a convolution with respect to its weight.")
        .input("data", "the convolution's data")
        .input("head", "the gradient of the convolution's output")
        .params(window_params())
        .params(hidden_params())
        .infer(|s| {
            s.one_dtype()?;
            s.expect_float(0)?;
            let g = checked(s, geometry(s.attrs, s.shape(0), s.attrs.size("num_filter")))?;
            s.expect_shape(1, &joined(s.attrs, g.batch, g.filters, spatial(&g.out_dims, s.shape(0))))?;
            s.shaped(weight_shape(s.attrs, &g))
        })
        .kernel(|c| {
            let (a, g) = (c.attrs, geometry(c.attrs, c.shape(0), c.attrs.size("num_filter"))?);
            dispatch_float!(c.dtype(0), T => {
                let x = channels_first(a, c.x::<T>(0), c.shape(0));
                let head = channels_first(a, c.x::<T>(1), c.shape(1));
                into_layout(a, c.y::<T>(0), c.out_shape(0), |dw| conv_weight_grad(&g, &x, &head, false, dw));
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .gpu(|c| {
            let g = geometry(c.attrs, c.shape(0), c.attrs.size("num_filter"))?;
            launch_conv_weight(c.device, (&g, channels(c.attrs)), c.x(0), c.x(1), c.y(0), 0.0, c.op.name)
        })
        .cost(|s, _| geometry(s.attrs, s.shape(0), s.attrs.size("num_filter")).map_or(0.0, |g| cost(&g)))
        .keeps(&[0, 1], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let data = b.shape(g.ins[0]).clone();
            let geom = geometry(g.attrs, &data, g.attrs.size("num_filter"))?;
            let mut grads = g.none();
            grads[0] = wanted(g, 0, || to_data(b, g.attrs, &geom, g.ins[1], head, &data))?;
            grads[1] = wanted(g, 1, || forward(b, g.attrs, &geom, g.ins[0], head))?;
            Ok(grads)
        })
        .hidden()
        .sample(
            &[draw(&[1, 2, 3, 4]), draw(&[1, 2, 2, 3])],
            &[("kernel", [2, 2].into()), ("num_filter", 2i64.into())],
        );
}
