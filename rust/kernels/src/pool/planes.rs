//! The gradient of max pooling of channels-first data, on sorted images: the first largest number of every window is found,
//! and its gradient given to it, by one loop per tap over all outputs of a few images.

use super::PoolGeom;
use crate::gemm::micro::Real;
use crate::planes::Planes;

/// The most taps of a window: they are told apart by numbers compared like the data.
const MAX_TAPS: usize = 64;

/// Elements of a plane, about: what a loop touches stays in the first-level cache.
const PLANE: usize = 1024;

/// Whether [`max_grad`] takes this geometry.
pub fn has_max_grad(g: &PoolGeom) -> bool {
    g.inner == 1
        && g.kernel.iter().product::<usize>() <= MAX_TAPS
        && g.stride.iter().product::<usize>() <= MAX_TAPS
}

/// Images worked on together.
fn group(g: &PoolGeom) -> usize {
    let plane: usize = (0..3).map(|axis| crate::planes::buffered(&g.windows(), axis)).product();
    (PLANE / plane).max(1)
}

/// How the images lie in the buffer of [`max_grad`], and the elements of that.
pub fn max_grad_planes(g: &PoolGeom) -> (Planes, usize) {
    let planes = Planes::new(g.windows(), group(g));
    let buffer = 2 * planes.total() + 3 * planes.len();
    (planes, buffer)
}

/// Gives each window's gradient to its first largest number, image after image; `dx` is overwritten, or added to.
#[inline(always)]
pub fn max_grad<T: Real>(
    g: &PoolGeom,
    lowest: T,
    (x, dy): (&[T], &[T]),
    (planes, buffer): (&Planes, &mut [T]),
    accumulate: bool,
    dx: &mut [T],
) {
    let taps = planes.taps();
    let (sorted, rest) = buffer.split_at_mut(planes.total());
    let (grads, rest) = rest.split_at_mut(planes.total());
    let (best, rest) = rest.split_at_mut(planes.len());
    let (place, given) = rest.split_at_mut(planes.len());
    let run = planes.run();
    let (best, place) = (&mut best[..run], &mut place[..run]);
    // Borders stay as they are from one group to the next.
    sorted.fill(lowest);
    given.fill(T::ZERO);
    let (ins, outs) = (group(g) * g.in_image(), group(g) * g.out_image());
    for ((x, dy), dx) in x.chunks(ins).zip(dy.chunks(outs)).zip(dx.chunks_mut(ins)) {
        planes.sort(x, sorted);
        planes.lay_outputs(dy, given);
        grads.fill(T::ZERO);
        best.fill(lowest);
        place.fill(T::ZERO);
        for (i, at) in taps.iter().enumerate() {
            find(T::from_i64(i as i64 + 1), &sorted[*at..at + run], best, place);
        }
        for (i, at) in taps.iter().enumerate() {
            give(T::from_i64(i as i64 + 1), place, given, &mut grads[*at..at + run]);
        }
        // Images of the group before that a shorter last group leaves in place have no rows in `dx`.
        planes.unsort(grads, accumulate, dx);
    }
}

/// Notes the tap where its number is larger than the best so far.
#[inline(always)]
fn find<T: Real>(number: T, seen: &[T], best: &mut [T], place: &mut [T]) {
    for ((v, best), place) in seen.iter().zip(best).zip(place) {
        let larger = *v > *best;
        *best = if larger { *v } else { *best };
        *place = if larger { number } else { *place };
    }
}

/// Adds the gradient of the windows whose largest number the tap has.
#[inline(always)]
fn give<T: Real>(number: T, place: &[T], given: &[T], grads: &mut [T]) {
    for ((place, v), to) in place.iter().zip(given).zip(grads) {
        let v = *v;
        *to += if *place == number { v } else { T::ZERO };
    }
}
