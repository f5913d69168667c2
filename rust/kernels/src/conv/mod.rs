//! Convolutions of one to three spatial dimensions, channels first, and their gradients; deconvolutions are the data gradient.
//!
//! Forward is a product of the weight with patches that are copied straight into panels ([`image`], [`forward`]); the
//! gradients are products of the same kind ([`backward`]); groups of one channel go tap by tap ([`depthwise`]). Layouts
//! with channels last are transposed by the caller. f16 is computed in f32 and rounded once.

mod backward;
mod depthwise;
mod forward;
mod geom;
mod image;
#[cfg(test)]
mod tests;
mod winograd;

pub use geom::{ConvGeom, Window};

use crate::gemm::micro::Real;
use crate::gemm::{add_to_rows, widen};
use mxrs_base::{Elem, f16};
use std::ops::Range;

/// What is called, from any lane, with each part of an output as soon as it is final and its maker is done with it.
pub type Done<'a> = &'a (dyn Fn(Range<usize>) + Sync);

/// Nobody who wants to know.
pub const UNHEARD: Done = &|_| {};

/// Tells `done` of an output that is final as a whole, in parts for the lanes.
pub fn in_parts(len: usize, done: Done) {
    mxrs_lanes::for_each(len, 1 << 14, done);
}

/// An element type with convolutions: f32, f64 and f16.
pub trait Conv: Elem {
    /// See [`conv_forward`].
    fn forward(
        g: &ConvGeom,
        x: &[Self],
        w: &[Self],
        bias: Option<&[Self]>,
        accumulate: bool,
        y: &mut [Self],
        done: Done,
    );
    /// See [`conv_data_grad`].
    fn data_grad(g: &ConvGeom, dy: &[Self], w: &[Self], accumulate: bool, dx: &mut [Self]);
    /// See [`conv_weight_grad`].
    fn weight_grad(g: &ConvGeom, x: &[Self], dy: &[Self], accumulate: bool, dw: &mut [Self]);
    /// See [`conv_bias_grad`].
    fn bias_grad(filters: usize, plane: usize, dy: &[Self], accumulate: bool, db: &mut [Self]);
    /// Adds `bias[i]` to channel `i` of every image.
    fn add_bias(y: &mut [Self], bias: &[Self], plane: usize);
}

fn check_len(what: &str, len: usize, wanted: usize) {
    assert!(len == wanted, "convolution: {what} has {len} elements, its geometry {wanted}");
}

/// `y = conv(x, w) + bias`, or added to `y` with `accumulate`. Sizes as in [`ConvGeom`]; the bias has one number per filter.
/// `done` is told of the finished parts of `y`, each once.
///
/// Panics where a slice's length differs from its geometry: callers have checked shapes.
pub fn conv_forward<T: Conv>(
    g: &ConvGeom,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    accumulate: bool,
    y: &mut [T],
    done: Done,
) {
    check_len("data", x.len(), g.data_len());
    check_len("weight", w.len(), g.weight_len());
    check_len("output", y.len(), g.out_len());
    if let Some(bias) = bias {
        check_len("bias", bias.len(), g.filters);
    }
    T::forward(g, x, w, bias, accumulate, y, done);
}

/// The gradient with respect to the data: `dx` from the output's gradient `dy`; added to `dx` with `accumulate`.
pub fn conv_data_grad<T: Conv>(g: &ConvGeom, dy: &[T], w: &[T], accumulate: bool, dx: &mut [T]) {
    check_len("output gradient", dy.len(), g.out_len());
    check_len("weight", w.len(), g.weight_len());
    check_len("data gradient", dx.len(), g.data_len());
    T::data_grad(g, dy, w, accumulate, dx);
}

/// The gradient with respect to the weight, from data and the output's gradient; added to `dw` with `accumulate`.
pub fn conv_weight_grad<T: Conv>(g: &ConvGeom, x: &[T], dy: &[T], accumulate: bool, dw: &mut [T]) {
    check_len("data", x.len(), g.data_len());
    check_len("output gradient", dy.len(), g.out_len());
    check_len("weight gradient", dw.len(), g.weight_len());
    T::weight_grad(g, x, dy, accumulate, dw);
}

/// The gradient with respect to the bias: `dy` summed over batch and places; added to `db` with `accumulate`.
pub fn conv_bias_grad<T: Conv>(g: &ConvGeom, dy: &[T], accumulate: bool, db: &mut [T]) {
    check_len("output gradient", dy.len(), g.out_len());
    check_len("bias gradient", db.len(), g.filters);
    T::bias_grad(g.filters, g.out_plane(), dy, accumulate, db);
}

/// Deconvolution: `y = transposed conv(x, w) + bias`, for a geometry of [`ConvGeom::deconvolution`].
///
/// `x` is `(batch, g.filters, g.out_dims...)`, `w` `(g.filters, g.channels / groups, kernel...)`, `y`
/// `(batch, g.channels, g.in_dims...)`, the bias has `g.channels` numbers.
pub fn deconv_forward<T: Conv>(
    g: &ConvGeom,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    accumulate: bool,
    y: &mut [T],
) {
    conv_data_grad(g, x, w, accumulate, y);
    if let Some(bias) = bias {
        check_len("bias", bias.len(), g.channels);
        T::add_bias(y, bias, g.in_plane());
    }
}

/// A deconvolution's gradient with respect to its data: the convolution of the output's gradient.
pub fn deconv_data_grad<T: Conv>(g: &ConvGeom, dy: &[T], w: &[T], accumulate: bool, dx: &mut [T]) {
    conv_forward(g, dy, w, None, accumulate, dx, UNHEARD);
}

/// A deconvolution's gradient with respect to its weight.
pub fn deconv_weight_grad<T: Conv>(g: &ConvGeom, x: &[T], dy: &[T], accumulate: bool, dw: &mut [T]) {
    conv_weight_grad(g, dy, x, accumulate, dw);
}

/// A deconvolution's gradient with respect to its bias.
pub fn deconv_bias_grad<T: Conv>(g: &ConvGeom, dy: &[T], accumulate: bool, db: &mut [T]) {
    check_len("output gradient", dy.len(), g.data_len());
    check_len("bias gradient", db.len(), g.channels);
    T::bias_grad(g.channels, g.in_plane(), dy, accumulate, db);
}

fn forward_real<T: Real>(
    g: &ConvGeom,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    accumulate: bool,
    y: &mut [T],
    done: Done,
) {
    if depthwise::is_depthwise(g) {
        depthwise::forward(g, x, w, bias, accumulate, y, done);
    } else if g.depth() == 0 {
        // No channels: the sum over them is 0.
        let plane = g.out_plane();
        for (i, row) in y.chunks_exact_mut(plane).enumerate() {
            let b = bias.map_or(T::ZERO, |b| b[i % g.filters]);
            row.iter_mut().for_each(|v| *v = if accumulate { *v + b } else { b });
        }
        in_parts(y.len(), done);
    } else if winograd::takes(g) {
        winograd::forward(g, x, w, bias, accumulate, y, done);
    } else {
        forward::forward(g, x, w, bias, accumulate, y, done);
    }
}

macro_rules! conv_real {
    ($($T:ty),*) => {$(
        impl Conv for $T {
            fn forward(
                g: &ConvGeom,
                x: &[$T],
                w: &[$T],
                bias: Option<&[$T]>,
                accumulate: bool,
                y: &mut [$T],
                done: Done,
            ) {
                forward_real(g, x, w, bias, accumulate, y, done);
            }
            fn data_grad(g: &ConvGeom, dy: &[$T], w: &[$T], accumulate: bool, dx: &mut [$T]) {
                if depthwise::is_depthwise(g) && g.stride != [1; 3] {
                    depthwise::data_grad(g, dy, w, accumulate, dx);
                } else if !dx.is_empty() {
                    backward::data_grad(g, dy, w, accumulate, dx);
                }
            }
            fn weight_grad(g: &ConvGeom, x: &[$T], dy: &[$T], accumulate: bool, dw: &mut [$T]) {
                if depthwise::is_depthwise(g) {
                    depthwise::weight_grad(g, x, dy, accumulate, dw);
                } else if winograd::takes(g) {
                    winograd::weight_grad(g, x, dy, accumulate, dw);
                } else if !dw.is_empty() {
                    backward::weight_grad(g, x, dy, accumulate, dw);
                }
            }
            fn bias_grad(filters: usize, plane: usize, dy: &[$T], accumulate: bool, db: &mut [$T]) {
                backward::bias_grad(filters, plane, dy, accumulate, db);
            }
            fn add_bias(y: &mut [$T], bias: &[$T], plane: usize) {
                add_to_rows(y, bias, plane);
            }
        }
    )*};
}
conv_real!(f32, f64);

/// Runs `body` on a single-precision image of `out` (zeros, or its numbers with `keep`) and rounds the result back.
fn through_f32(out: &mut [f16], keep: bool, body: impl FnOnce(&mut [f32])) {
    let mut wide = if keep { widen(out) } else { vec![0f32; out.len()] };
    body(&mut wide);
    mxrs_simd::cast(&wide, out);
}

impl Conv for f16 {
    fn forward(
        g: &ConvGeom,
        x: &[f16],
        w: &[f16],
        bias: Option<&[f16]>,
        accumulate: bool,
        y: &mut [f16],
        done: Done,
    ) {
        let bias = bias.map(widen);
        through_f32(y, accumulate, |y| {
            f32::forward(g, &widen(x), &widen(w), bias.as_deref(), accumulate, y, UNHEARD);
        });
        in_parts(y.len(), done);
    }
    fn data_grad(g: &ConvGeom, dy: &[f16], w: &[f16], accumulate: bool, dx: &mut [f16]) {
        through_f32(dx, accumulate, |dx| f32::data_grad(g, &widen(dy), &widen(w), accumulate, dx));
    }
    fn weight_grad(g: &ConvGeom, x: &[f16], dy: &[f16], accumulate: bool, dw: &mut [f16]) {
        through_f32(dw, accumulate, |dw| f32::weight_grad(g, &widen(x), &widen(dy), accumulate, dw));
    }
    fn bias_grad(filters: usize, plane: usize, dy: &[f16], accumulate: bool, db: &mut [f16]) {
        through_f32(db, accumulate, |db| f32::bias_grad(filters, plane, &widen(dy), accumulate, db));
    }
    fn add_bias(y: &mut [f16], bias: &[f16], plane: usize) {
        through_f32(y, true, |y| add_to_rows(y, &widen(bias), plane));
    }
}
