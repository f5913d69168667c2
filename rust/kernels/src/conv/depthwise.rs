//! Convolutions whose groups have one channel each: no product to speak of, so each tap is applied to a whole channel.
//!
//! The channel is sorted into [`Planes`], where a tap seen by all windows is one stretch of memory: outputs are sums of
//! stretches times weights, the data gradient adds multiples of the outputs' gradients to stretches, and a weight's gradient
//! is the dot product of a stretch with them.

use super::Done;
use super::geom::ConvGeom;
use crate::gemm::micro::{DOT_ROWS, Dots, Real};
use crate::gemm::pack::{Shared, with_buffer};
use crate::planes::{Planes, Windows};
use mxrs_simd::{Kernel, Level};

/// Outputs computed at a time; they stay in the first-level cache from one tap to the next.
const STRETCH: usize = 4096;

/// Whether this room computes the convolution.
pub fn is_depthwise(g: &ConvGeom) -> bool {
    g.group_channels() == 1 && g.groups > 1
}

fn planes_of(g: &ConvGeom) -> Planes {
    let ConvGeom { in_dims, out_dims, kernel, stride, dilate, pad, .. } = *g;
    Planes::new(Windows { in_dims, out_dims, kernel, stride, dilate, pad }, 1)
}

/// Planes that a lane takes at a time.
fn grain(g: &ConvGeom, taps: usize) -> usize {
    (1usize << 15).div_ceil((g.out_plane() * taps * g.group_filters()).max(1))
}

/// As [`super::forward::forward`].
pub fn forward<T: Real>(
    g: &ConvGeom,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    accumulate: bool,
    y: &mut [T],
    done: Done,
) {
    let planes = planes_of(g);
    let taps = planes.taps();
    let (per_channel, places) = (g.group_filters(), g.out_plane());
    let out = Shared::of(y);
    mxrs_lanes::for_each(g.batch * g.channels, grain(g, taps.len()), |images| {
        with_buffer(planes.total() + planes.run(), |buffer: &mut [T]| {
            let (sorted, sums) = buffer.split_at_mut(planes.total());
            sorted.fill(T::ZERO);
            for image in images {
                let channel = image % g.channels;
                let first = channel * per_channel;
                let outs = image * per_channel * places..(image + 1) * per_channel * places;
                mxrs_simd::vectorize_kernel(Apply {
                    planes: &planes,
                    taps: &taps,
                    columns: g.out_dims[2],
                    weight: &w[first * taps.len()..(first + per_channel) * taps.len()],
                    bias: bias.map(|b| &b[first..first + per_channel]),
                    accumulate,
                    x: &x[image * g.in_plane()..(image + 1) * g.in_plane()],
                    work: (sorted, sums),
                    // SAFETY: the outputs of this channel are this call's alone.
                    y: unsafe { out.slice(outs.clone()) },
                });
                done(outs);
            }
        });
    });
}

/// The outputs of one channel.
struct Apply<'a, T> {
    planes: &'a Planes,
    taps: &'a [usize],
    /// Outputs of a row.
    columns: usize,
    /// One row of weights for each filter.
    weight: &'a [T],
    bias: Option<&'a [T]>,
    accumulate: bool,
    x: &'a [T],
    /// The sorted channel, and sums of the outputs.
    work: (&'a mut [T], &'a mut [T]),
    y: &'a mut [T],
}

impl<T: Real> Kernel for Apply<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Level>(self) {
        let Apply { planes, taps, columns, weight, bias, accumulate, x, work: (sorted, sums), y } = self;
        planes.sort(x, sorted);
        let filters = weight.len() / taps.len();
        let places = y.len() / filters;
        for (f, (weight, y)) in weight.chunks_exact(taps.len()).zip(y.chunks_exact_mut(places)).enumerate() {
            let bias = bias.map_or(T::ZERO, |b| b[f]);
            for (i, sums) in sums.chunks_mut(STRETCH).enumerate() {
                let len = sums.len();
                let seen = |tap: usize| &sorted[taps[tap] + i * STRETCH..][..len];
                let mut tap = 0;
                while tap + 3 <= taps.len() {
                    let (s, w) = ([seen(tap), seen(tap + 1), seen(tap + 2)], &weight[tap..tap + 3]);
                    add_three::<T, L>(s, [w[0], w[1], w[2]], (tap == 0).then_some(bias), sums);
                    tap += 3;
                }
                while tap < taps.len() {
                    let (seen, w) = (seen(tap), weight[tap]);
                    if tap == 0 {
                        sums.iter_mut().zip(seen).for_each(|(t, v)| *t = T::fma::<L>(w, *v, bias));
                    } else {
                        sums.iter_mut().zip(seen).for_each(|(t, v)| *t = T::fma::<L>(w, *v, *t));
                    }
                    tap += 1;
                }
            }
            planes.each_out_row(1, |row, at| {
                let (to, from) = (&mut y[row * columns..(row + 1) * columns], &sums[at..at + columns]);
                if accumulate {
                    to.iter_mut().zip(from).for_each(|(t, v)| *t += *v);
                } else {
                    to.copy_from_slice(from);
                }
            });
        }
    }
}

/// `sums[i] = (start or sums[i]) + w[0] * s[0][i] + w[1] * s[1][i] + w[2] * s[2][i]`.
#[inline(always)]
fn add_three<T: Real, L: Level>(s: [&[T]; 3], w: [T; 3], start: Option<T>, sums: &mut [T]) {
    let seen = s[0].iter().zip(s[1]).zip(s[2]);
    let add =
        |sum: T, a: T, b: T, c: T| T::fma::<L>(w[2], c, T::fma::<L>(w[1], b, T::fma::<L>(w[0], a, sum)));
    match start {
        Some(start) => sums.iter_mut().zip(seen).for_each(|(t, ((a, b), c))| *t = add(start, *a, *b, *c)),
        None => sums.iter_mut().zip(seen).for_each(|(t, ((a, b), c))| *t = add(*t, *a, *b, *c)),
    }
}

/// As [`super::backward::data_grad`].
pub fn data_grad<T: Real>(g: &ConvGeom, dy: &[T], w: &[T], accumulate: bool, dx: &mut [T]) {
    let planes = planes_of(g);
    let taps = planes.taps();
    let (per_channel, places) = (g.group_filters(), g.out_plane());
    let out = Shared::of(dx);
    mxrs_lanes::for_each(g.batch * g.channels, grain(g, taps.len()), |images| {
        with_buffer(planes.total() + planes.run(), |buffer: &mut [T]| {
            let (grads, given) = buffer.split_at_mut(planes.total());
            given.fill(T::ZERO);
            for image in images {
                let first = image % g.channels * per_channel;
                let outs = image * per_channel * places..(image + 1) * per_channel * places;
                mxrs_simd::vectorize_kernel(Spread {
                    planes: &planes,
                    taps: &taps,
                    weight: &w[first * taps.len()..(first + per_channel) * taps.len()],
                    dy: &dy[outs],
                    work: (&mut *grads, &mut *given),
                    accumulate,
                    // SAFETY: the data gradient of this channel is this call's alone.
                    dx: unsafe { out.slice(image * g.in_plane()..(image + 1) * g.in_plane()) },
                });
            }
        });
    });
}

/// The data gradient of one channel.
struct Spread<'a, T> {
    planes: &'a Planes,
    taps: &'a [usize],
    weight: &'a [T],
    dy: &'a [T],
    /// The sorted data gradient, and the outputs' gradients in their places.
    work: (&'a mut [T], &'a mut [T]),
    accumulate: bool,
    dx: &'a mut [T],
}

impl<T: Real> Kernel for Spread<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Level>(self) {
        let Spread { planes, taps, weight, dy, work: (grads, given), accumulate, dx } = self;
        grads.fill(T::ZERO);
        let filters = weight.len() / taps.len();
        for (weight, dy) in weight.chunks_exact(taps.len()).zip(dy.chunks_exact(dy.len() / filters)) {
            planes.lay_outputs(dy, given);
            for (tap, w) in taps.iter().zip(weight) {
                let to = &mut grads[*tap..*tap + given.len()];
                to.iter_mut().zip(&*given).for_each(|(t, v)| *t = T::fma::<L>(*w, *v, *t));
            }
        }
        planes.unsort(grads, accumulate, dx);
    }
}

/// As [`super::backward::weight_grad`].
pub fn weight_grad<T: Real>(g: &ConvGeom, x: &[T], dy: &[T], accumulate: bool, dw: &mut [T]) {
    let planes = planes_of(g);
    let taps = planes.taps();
    let (per_channel, places) = (g.group_filters(), g.out_plane());
    let out = Shared::of(dw);
    // A channel's filters share its sorted copies; the batch is summed in order.
    mxrs_lanes::for_each(g.channels, 1, |channels| {
        with_buffer(planes.total() + planes.run(), |buffer: &mut [T]| {
            let (sorted, given) = buffer.split_at_mut(planes.total());
            sorted.fill(T::ZERO);
            given.fill(T::ZERO);
            for c in channels {
                let weights = c * per_channel * taps.len()..(c + 1) * per_channel * taps.len();
                // SAFETY: the weights of one channel belong to one call.
                let dw = unsafe { out.slice(weights) };
                if !accumulate {
                    dw.fill(T::ZERO);
                }
                for n in 0..g.batch {
                    let image = &x[(n * g.channels + c) * g.in_plane()..][..g.in_plane()];
                    mxrs_simd::vectorize(
                        #[inline(always)]
                        || planes.sort(image, sorted),
                    );
                    for (f, dw) in dw.chunks_exact_mut(taps.len()).enumerate() {
                        let dy = &dy[(n * g.filters + c * per_channel + f) * places..][..places];
                        planes.lay_outputs(dy, given);
                        correlate(&taps, sorted, given, dw);
                    }
                }
            }
        });
    });
}

/// Adds to each tap's `dw` the dot product of what it saw with `given`.
fn correlate<T: Real>(taps: &[usize], sorted: &[T], given: &[T], dw: &mut [T]) {
    let mut tap = 0;
    while tap < taps.len() {
        // Taps as far apart as the first two go together: they read what is in cache.
        let step = taps.get(tap + 1).and_then(|next| next.checked_sub(taps[tap])).unwrap_or(1);
        let ahead = taps[tap..].iter().enumerate().take(DOT_ROWS);
        let rows = ahead.take_while(|(i, at)| **at == taps[tap] + i * step).count();
        let x = &sorted[taps[tap]..taps[tap + rows - 1] + given.len()];
        let dots = Dots { rows, depth: given.len(), x: x.as_ptr(), x_step: step, y: given.as_ptr() };
        // SAFETY: row `i` begins at a tap's place, from which as many elements as `given` has can be read.
        let sums = unsafe { (T::kernels().dots)(&dots) };
        dw[tap..tap + rows].iter_mut().zip(sums).for_each(|(t, sum)| *t += sum);
        tap += rows;
    }
}
