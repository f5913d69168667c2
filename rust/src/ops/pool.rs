//! Pooling over windows, and up-sampling by whole factors. Resampling to any size is in `resample`.

use super::linalg::wanted;
use super::registry::Registry;
use super::{
    Attrs, Build, Ctx, GradArgs, Grads, Param, Sig, Spec, Value, choice, draw, empty, flag, int, ints, one,
};
use crate::shaders::copy::launch_copy;
use crate::shaders::pool as shaders;
use crate::shaders::reduce::{Reduction, launch_reduce};
use mxrs_base::{Elem, Error, ErrorKind, Result, Shape, dispatch_float};
use mxrs_kernels::pool::{Convention, PoolGeom, PoolKind, pool_forward, pool_grad};

const GRAD: &str = "_backward_Pooling";
const PICK: &str = "_backward_Pooling_pick";
const LAYOUTS: &[&str] = &["NCW", "NCHW", "NCDHW", "NWC", "NHWC", "NDHWC"];
/// Every parameter of pooling; the hidden operators take the same.
const PARAMS: [&str; 9] = [
    "kernel",
    "pool_type",
    "global_pool",
    "pooling_convention",
    "stride",
    "pad",
    "p_value",
    "count_include_pad",
    "layout",
];

pub fn register(r: &mut Registry) {
    pooling(r);
    pooling_gradient(r);
    pooling_pick(r);
    up_sampling(r);
}

/// MXNet keeps the places of the largest numbers as a second output where its kernels need them.
fn file_outputs(a: &Attrs) -> usize {
    let channels_last = a.str("layout").ends_with('C');
    1 + usize::from(a.str("pool_type") == "max" && !a.ints("kernel").is_empty() && !channels_last)
}

fn params() -> [Param; 10] {
    [
        ints("kernel", "extents of the window: (w,), (h, w) or (d, h, w)").or(empty()).at_least(0.0),
        choice("pool_type", &["max", "avg", "sum", "lp"], "what a window becomes").or("max"),
        flag("global_pool", "one window over all of space; kernel, stride and pad mean nothing then")
            .or(false),
        flag("cudnn_off", "without meaning here").or(false),
        choice(
            "pooling_convention",
            &["valid", "full", "same"],
            "whole windows only; the last one cut off; as many as strides",
        )
        .or("valid"),
        ints("stride", "steps of the window; () is 1 along each axis").or(empty()).at_least(0.0),
        ints("pad", "border on both sides; () is none").or(empty()).at_least(0.0),
        int("p_value", "the p of the p-norm, with pool_type lp").or_none().at_least(1.0).at_most(3.0),
        flag("count_include_pad", "whether averages count the border; None is yes").or_none(),
        choice("layout", LAYOUTS, "order of the axes; None is channels first").or_none(),
    ]
}

fn geometry(a: &Attrs, data: &Shape) -> Result<(PoolGeom, PoolKind)> {
    let ndim = data.ndim();
    if !(3..=5).contains(&ndim) {
        return Err(Error::op(format!(
            "data has {ndim} dimensions; 3 to 5 are allowed (batch, channel and space)"
        )));
    }
    let layout = a.str("layout");
    if !layout.is_empty() && layout.len() != ndim {
        return Err(Error::op(format!("layout {layout} has {} axes and data {ndim}", layout.len())));
    }
    let last = layout.ends_with('C');
    let (images, dims) = match last {
        true => ((data[0], data[ndim - 1]), &data[1..ndim - 1]),
        false => ((data[0].saturating_mul(data[1]), 1), &data[2..]),
    };
    let kind = match a.str("pool_type") {
        "max" => PoolKind::Max,
        "sum" => PoolKind::Sum,
        "avg" => PoolKind::Avg { include_pad: a.is_none("count_include_pad") || a.bool("count_include_pad") },
        _ => match a.opt_int("p_value") {
            // Signed for odd p: with p = 1 it is the sum, and so is its gradient.
            Some(1) => PoolKind::Sum,
            Some(p) => PoolKind::Lp(p as u8),
            None => return Err(Error::op("pool_type lp needs the argument p_value; 1, 2 and 3 are allowed")),
        },
    };
    if a.bool("global_pool") {
        return Ok((PoolGeom::global(images.0, images.1, dims)?, kind));
    }
    let tuple = |name: &str, default: usize| -> Vec<usize> {
        match a.opt_ints(name) {
            [] if name != "kernel" => vec![default; dims.len()],
            given => given.iter().map(|v| v.and_then(|v| usize::try_from(v).ok()).unwrap_or(0)).collect(),
        }
    };
    let convention = match a.str("pooling_convention") {
        "valid" => Convention::Valid,
        "full" => Convention::Full,
        _ => Convention::Same,
    };
    let (kernel, stride, pad) = (tuple("kernel", 0), tuple("stride", 1), tuple("pad", 0));
    Ok((PoolGeom::new(images, dims, (&kernel, &stride, &pad), convention)?, kind))
}

/// The geometry for inference: errors carry the call.
fn checked(s: &Sig, data: &Shape) -> Result<(PoolGeom, PoolKind)> {
    s.expect_float(0)?;
    geometry(s.attrs, data).map_err(|e| match e.kind() {
        ErrorKind::Memory => e.within(s.op.name),
        _ => s.fail(e.message()),
    })
}

fn out_shape(a: &Attrs, data: &Shape, g: &PoolGeom) -> Shape {
    let mut out = data.clone();
    let first = if a.str("layout").ends_with('C') { 1 } else { 2 };
    let spatial = data.ndim() - 2;
    for i in 0..spatial {
        out.set(first + i, g.out_dims[3 - spatial + i]);
    }
    out
}

fn cost(a: &Attrs, data: &Shape) -> f64 {
    geometry(a, data).map_or(0.0, |(g, _)| {
        let taps = g.kernel.iter().map(|k| *k as f64).product::<f64>();
        100.0 + 0.3 * g.data_len() as f64 + 0.4 * taps * g.out_len() as f64
    })
}

fn pooling(r: &mut Registry) {
    r.op("Pooling", "The largest number, average, sum or p-norm of each window.")
        .input("data", "(batch, channel, space...), or as `layout` says")
        .params(params())
        .alias(&["_npx_pooling"])
        .file_outputs(file_outputs)
        .output_names(&["output"])
        .infer(|s| {
            let (g, _) = checked(s, s.shape(0))?;
            s.shaped(out_shape(s.attrs, s.shape(0), &g))
        })
        .kernel(|c| {
            let (g, kind) = geometry(c.attrs, c.shape(0))?;
            dispatch_float!(c.dtype(0), T => {
                pool_forward(&g, kind, c.x::<T>(0), c.y::<T>(0));
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .gpu(|c| {
            let (g, kind) = geometry(c.attrs, c.shape(0))?;
            shaders::launch_pool(c.device, &g, kind, c.x(0), c.y(0), c.op.name)
        })
        .cost(|s, _| cost(s.attrs, s.shape(0)))
        .keeps(&[0], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let grad = same_attrs(b, g, GRAD, &[head, g.ins[0]])?;
            g.first(grad)
        })
        .sample(&[draw(&[2, 2, 4, 3])], &[("kernel", [2, 2].into()), ("stride", [2, 1].into())])
        .sample(
            &[draw(&[2, 2, 5])],
            &[
                ("kernel", [3].into()),
                ("stride", [2].into()),
                ("pad", [1].into()),
                ("pool_type", "avg".into()),
                ("count_include_pad", false.into()),
            ],
        )
        .sample(
            &[draw(&[1, 2, 3, 2]).within(0.5, 1.5)],
            &[("kernel", [2, 2].into()), ("pool_type", "sum".into()), ("layout", "NHWC".into())],
        )
        .sample(&[draw(&[1, 2, 3, 2])], &[("global_pool", true.into()), ("pool_type", "avg".into())]);
}

/// Calls a hidden operator of pooling with this call's attributes.
fn same_attrs(b: &mut dyn Build, g: &GradArgs, name: &str, inputs: &[Value]) -> Result<Value> {
    b.op1(name, inputs, &PARAMS.map(|p| (p, g.attrs.get(p).clone())))
}

/// The head and the data that the two hidden operators take; `head` is shaped like pooling's result or its data.
fn pooling_gradient(r: &mut Registry) {
    r.op(GRAD, "The gradient of pooling.")
        .input("head", "the gradient of the result")
        .input("data", "what was pooled")
        .params(params())
        .infer(|s| {
            s.one_dtype()?;
            let (g, _) = checked(s, s.shape(1))?;
            s.expect_shape(0, &out_shape(s.attrs, s.shape(1), &g))?;
            s.same(1)
        })
        .kernel(|c| {
            let (g, kind) = geometry(c.attrs, c.shape(1))?;
            dispatch_float!(c.dtype(0), T => {
                let (head, x, dx) = (c.x::<T>(0), c.x::<T>(1), c.y::<T>(0));
                // Only the p-norm looks at its result; keeping it for every pooling would cost more than this.
                let norms = match kind {
                    PoolKind::Lp(2..) => {
                        let mut y = vec![T::default(); g.out_len()];
                        pool_forward(&g, kind, x, &mut y);
                        y
                    }
                    _ => Vec::new(),
                };
                pool_grad(&g, kind, (x, &norms, head), false, dx);
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .gpu(|c| {
            let (g, kind) = geometry(c.attrs, c.shape(1))?;
            shaders::launch_pool_grad(c.device, &g, kind, c.x(1), c.x(0), c.y(0), c.op.name)
        })
        .cost(|s, _| 2.0 * cost(s.attrs, s.shape(1)))
        .keeps(&[1], &[])
        .grad(pooling_second)
        .hidden()
        .sample(
            &[draw(&[2, 2, 2, 2]), draw(&[2, 2, 4, 3])],
            &[("kernel", [2, 2].into()), ("stride", [2, 1].into())],
        );
}

fn pooling_second(b: &mut dyn Build, g: &GradArgs) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let mut grads = g.none();
    let (_, kind) = geometry(g.attrs, b.shape(g.ins[1]))?;
    match kind {
        PoolKind::Max => grads[0] = wanted(g, 0, || same_attrs(b, g, PICK, &[head, g.ins[1]]))?,
        PoolKind::Lp(2..) => {
            return Err(Error::not_implemented(
                "Pooling: the p-norm with p above 1 has no second derivative here",
            ));
        }
        // Linear in the head, whatever the data.
        _ => grads[0] = wanted(g, 0, || same_attrs(b, g, "Pooling", &[head]))?,
    }
    Ok(grads)
}

fn pooling_pick(r: &mut Registry) {
    r.op(
        PICK,
        "The numbers of `head` where max pooling of `data` finds its maxima: the transpose of its gradient.",
    )
    .input("head", "numbers in the places of the data")
    .input("data", "what was pooled")
    .params(params())
    .infer(|s| {
        s.one_dtype()?;
        let (g, _) = checked(s, s.shape(1))?;
        s.expect_shape(0, s.shape(1))?;
        s.shaped(out_shape(s.attrs, s.shape(1), &g))
    })
    .kernel(|c| {
        let (g, _) = geometry(c.attrs, c.shape(1))?;
        dispatch_float!(c.dtype(0), T => {
                pick_maxima(&g, c.x::<T>(0), c.x::<T>(1), c.y::<T>(0));
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
    })
    .gpu(|c| {
        let (g, _) = geometry(c.attrs, c.shape(1))?;
        shaders::launch_pool_pick(c.device, &g, c.x(0), c.x(1), c.y(0), c.op.name)
    })
    .cost(|s, _| 2.0 * cost(s.attrs, s.shape(1)))
    .keeps(&[1], &[])
    .grad(|b, g| {
        let Some(head) = g.heads[0] else { return Ok(g.none()) };
        let mut grads = g.none();
        grads[0] = wanted(g, 0, || same_attrs(b, g, GRAD, &[head, g.ins[1]]))?;
        Ok(grads)
    })
    .hidden()
    .sample(
        &[draw(&[2, 2, 4, 3]), draw(&[2, 2, 4, 3])],
        &[("kernel", [2, 2].into()), ("stride", [2, 1].into())],
    );
}

/// For each window the element of `head` in the place of the first largest of `data`, 0 where there is none. Second
/// derivatives are rare, so this is plain.
fn pick_maxima<T: Elem>(g: &PoolGeom, head: &[T], data: &[T], out: &mut [T]) {
    let image: usize = g.in_dims.iter().product::<usize>() * g.inner;
    let window = |axis: usize, o: usize| {
        let start = o * g.stride[axis];
        let end = (start + g.kernel[axis]).saturating_sub(g.pad[axis]).min(g.in_dims[axis]);
        start.saturating_sub(g.pad[axis]).min(end)..end
    };
    let mut outs = out.iter_mut();
    for n in 0..g.outer {
        for d in 0..g.out_dims[0] {
            for h in 0..g.out_dims[1] {
                for w in 0..g.out_dims[2] {
                    for c in 0..g.inner {
                        let (mut best, mut picked) = (f64::NEG_INFINITY, T::default());
                        for in_d in window(0, d) {
                            for in_h in window(1, h) {
                                for in_w in window(2, w) {
                                    let place = (in_d * g.in_dims[1] + in_h) * g.in_dims[2] + in_w;
                                    let at = n * image + place * g.inner + c;
                                    if data[at].to_f64() > best {
                                        (best, picked) = (data[at].to_f64(), head[at]);
                                    }
                                }
                            }
                        }
                        if let Some(out) = outs.next() {
                            *out = picked;
                        }
                    }
                }
            }
        }
    }
}

// ---- up-sampling ----

fn up_sampling(r: &mut Registry) {
    r.op("UpSampling", "Images `scale` times as large: repeated elements, or a bilinear deconvolution.")
        .variadic("data", "(batch, channel, h, w); with bilinear the second is the weight", "num_args")
        .param(int("scale", "how many times as large the first image becomes").at_least(1.0).at_most(1e6))
        .param(int("num_filter", "channels, with bilinear").or(0i64).at_least(0.0))
        .param(choice("sample_type", &["nearest", "bilinear"], "how elements between are made"))
        .param(choice("multi_input_mode", &["concat", "sum"], "what becomes of several inputs").or("concat"))
        .param(int("num_args", "how many inputs there are").or(1i64).at_least(1.0))
        .param(int("workspace", "without meaning here").or(512i64).at_least(0.0))
        .input_names(|a| if a.str("sample_type") == "bilinear" { &["data", "weight"] } else { &[] })
        .init(1, r#"["bilinear", {}]"#)
        .complete(|a, shapes| {
            if a.str("sample_type") == "bilinear"
                && let [_, weight @ None] = shapes
            {
                let extent = bilinear_extent(a.size("scale"));
                *weight = Some(Shape::new(&[a.size("num_filter"), 1, extent, extent]));
            }
            Ok(())
        })
        .compose(|b, a, x| {
            let refuse = |text: String| Error::op(format!("UpSampling: {text}"));
            let Some(first) = x.first().map(|v| b.shape(*v).clone()).filter(|s| s.ndim() == 4) else {
                return Err(refuse("inputs of four dimensions (batch, channel, h, w) are allowed".into()));
            };
            let scale = a.size("scale");
            if a.str("sample_type") == "bilinear" {
                return bilinear(b, a, x, scale);
            }
            let size = [first[2].saturating_mul(scale), first[3].saturating_mul(scale)];
            let mut images = Vec::with_capacity(x.len());
            for &v in x {
                let shape = b.shape(v).clone();
                let factor = if shape.ndim() == 4 && shape[2] > 0 { size[0] / shape[2] } else { 0 };
                if factor == 0 || [shape[2] * factor, shape[3] * factor] != size {
                    return Err(refuse(format!(
                        "an input of shape {shape} does not scale to {size:?} by a whole factor"
                    )));
                }
                images.push(b.op1("_up_nearest", &[v], &[("scale", factor.into())])?);
            }
            join(b, a, &images)
        })
        .sample(
            &[draw(&[1, 2, 2, 3])],
            &[("scale", 2i64.into()), ("sample_type", "nearest".into()), ("num_args", 1i64.into())],
        );
    nearest(r);
}

/// Several images as one.
fn join(b: &mut dyn Build, a: &Attrs, images: &[Value]) -> Result<super::Values> {
    if let [single] = images {
        return Ok(one(*single));
    }
    if a.str("multi_input_mode") == "concat" {
        return b.op("Concat", images, &[("dim", 1i64.into())]);
    }
    let mut sum = images[0];
    for v in &images[1..] {
        sum = b.op1("elemwise_add", &[sum, *v], &[])?;
    }
    Ok(one(sum))
}

/// Height and width of the filter that interpolates between elements `scale` apart.
fn bilinear_extent(scale: usize) -> usize {
    2 * scale - scale % 2
}

fn bilinear(b: &mut dyn Build, a: &Attrs, x: &[Value], scale: usize) -> Result<super::Values> {
    let (kernel, pad) = (bilinear_extent(scale) as i64, (scale / 2) as i64);
    let (&[data, weight], filters) = (x, a.int("num_filter")) else {
        return Err(Error::op(format!(
            "UpSampling: bilinear takes data and weight; {} inputs were given",
            x.len()
        )));
    };
    if filters < 1 || b.shape(data)[1] as i64 != filters {
        return Err(Error::op(format!(
            "UpSampling: argument num_filter = {filters} must be the number of channels, {}",
            b.shape(data)[1]
        )));
    }
    let square = |v: i64| [v, v].into();
    let attrs = [
        ("kernel", square(kernel)),
        ("stride", square(scale as i64)),
        ("pad", square(pad)),
        ("num_filter", filters.into()),
        ("num_group", filters.into()),
        ("no_bias", true.into()),
    ];
    b.op("Deconvolution", &[data, weight], &attrs)
}

fn nearest(r: &mut Registry) {
    let scale = || int("scale", "how often an element is repeated along both axes").at_least(1.0);
    r.op("_up_nearest", "Each element of an image `scale` times along height and width.")
        .input("data", "(batch, channel, h, w)")
        .param(scale())
        .infer(|s| {
            s.expect_ndim(0, 4..=4)?;
            s.expect_float(0)?;
            let mut shape = s.shape(0).clone();
            for axis in [2, 3] {
                let extent = shape[axis].checked_mul(s.attrs.size("scale"));
                shape.set(axis, extent.ok_or_else(|| s.fail("the result is too large"))?);
            }
            shape.checked_size()?;
            s.shaped(shape)
        })
        .kernel(|c| dispatch_float!(c.dtype(0), T => repeat::<T>(c), else c.bad_dtype(c.dtype(0))))
        .gpu(|c| {
            let (scale, width) = (c.attrs.size("scale"), c.shape(0)[3]);
            let dims = [c.shape(0)[..3].iter().product(), scale, width, scale];
            let (w, s) = (width as isize, scale as isize);
            let (from, to) = ([w, 0, 1, 0], [s * w * s, w * s, s, 1]);
            launch_copy(c.device, &dims, c.x(0).strided(&from), c.y(0).strided(&to), c.op.name)
        })
        .cost(|_, outs: &[Spec]| 100.0 + 0.5 * outs[0].shape.size() as f64)
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let grad = b.op1("_backward_up_nearest", &[head], &[("scale", g.attrs.get("scale").clone())])?;
            g.first(grad)
        })
        .hidden()
        .sample(&[draw(&[1, 2, 2, 3])], &[("scale", 2i64.into())]);
    r.op("_backward_up_nearest", "Sums the elements that up-sampling repeated.")
        .input("head", "(batch, channel, h * scale, w * scale)")
        .param(scale())
        .infer(|s| {
            s.expect_ndim(0, 4..=4)?;
            s.expect_float(0)?;
            let (mut shape, scale) = (s.shape(0).clone(), s.attrs.size("scale"));
            if shape[2] % scale != 0 || shape[3] % scale != 0 {
                return Err(s.fail(format!("height and width must be multiples of {scale}")));
            }
            shape.set(2, shape[2] / scale);
            shape.set(3, shape[3] / scale);
            s.shaped(shape)
        })
        .kernel(|c| dispatch_float!(c.dtype(0), T => gather_repeats::<T>(c), else c.bad_dtype(c.dtype(0))))
        .gpu(|c| {
            let (scale, width) = (c.attrs.size("scale"), c.out_shape(0)[3]);
            let dims = [c.out_shape(0)[..3].iter().product(), scale, width, scale];
            let (w, s) = (width as isize, scale as isize);
            let steps = [s * w * s, w * s, s, 1];
            let (head, to) = (c.x(0).strided(&steps), c.y(0));
            launch_reduce(c.device, Reduction::Sum, &dims, &[1, 3], head, to, c.op.name)
        })
        .cost(|s, _| 100.0 + 0.5 * s.shape(0).size() as f64)
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let grad = b.op1("_up_nearest", &[head], &[("scale", g.attrs.get("scale").clone())])?;
            g.first(grad)
        })
        .hidden()
        .sample(&[draw(&[1, 2, 4, 6])], &[("scale", 2i64.into())]);
}

fn repeat<T: Elem>(c: &Ctx) -> Result<()> {
    let (scale, width) = (c.attrs.size("scale"), c.shape(0)[3]);
    let (x, y) = (c.x::<T>(0), c.y::<T>(0));
    if y.is_empty() {
        return Ok(());
    }
    let long = width * scale;
    for (row, block) in x.chunks_exact(width).zip(y.chunks_exact_mut(long * scale)) {
        let (first, others) = block.split_at_mut(long);
        first.chunks_exact_mut(scale).zip(row).for_each(|(to, v)| to.fill(*v));
        others.chunks_exact_mut(long).for_each(|to| to.copy_from_slice(first));
    }
    Ok(())
}

fn gather_repeats<T: Elem>(c: &Ctx) -> Result<()>
where
    T::Acc: Elem + std::ops::AddAssign,
{
    let (scale, width) = (c.attrs.size("scale"), c.out_shape(0)[3]);
    let (head, dx) = (c.x::<T>(0), c.y::<T>(0));
    if dx.is_empty() {
        return Ok(());
    }
    let long = width * scale;
    for (row, block) in dx.chunks_exact_mut(width).zip(head.chunks_exact(long * scale)) {
        for (j, to) in row.iter_mut().enumerate() {
            let mut sum = T::Acc::default();
            for line in block.chunks_exact(long) {
                line[j * scale..(j + 1) * scale].iter().for_each(|v| sum += T::Acc::from_f64(v.to_f64()));
            }
            *to = T::from_f64(sum.to_f64());
        }
    }
    Ok(())
}
