//! Arrays made whole: joined along an axis, summed, filled with one value or with a progression.

use super::{Add, GRAIN, Unit, for_each_part, for_each_row};
use mxrs_base::Elem;
use smallvec::SmallVec;

/// Elements that [`sum`] adds up while they are in the first-level cache.
const BLOCK: usize = 2048;

/// Joins `inputs` along an axis: input i is (outer, widths[i]) with `widths[i] = extent_i * inner`; `out` is
/// (outer, sum of widths).
pub fn concat<U: Unit>(inputs: &[&[U]], outer: usize, out: &mut [U]) {
    let mut starts: SmallVec<[usize; 16]> = SmallVec::new();
    let mut width = 0;
    for input in inputs {
        starts.push(width);
        width += input.len().checked_div(outer).unwrap_or(0);
    }
    assert_eq!(out.len(), width * outer, "concat: the output's size is not the inputs' sum");
    for_each_part(out, GRAIN, |first, part| {
        let (mut row, mut col) = (first / width, first % width);
        let mut input = starts.partition_point(|s| *s <= col) - 1;
        let mut done = 0;
        while done < part.len() {
            let w = inputs[input].len() / outer;
            let begin = col - starts[input];
            let len = (w - begin).min(part.len() - done);
            part[done..done + len].copy_from_slice(&inputs[input][row * w + begin..][..len]);
            (done, col, input) = (done + len, col + len, input + 1);
            if input == inputs.len() {
                (row, col, input) = (row + 1, 0, 0);
            }
        }
    });
}

/// Fills `dst` with `value`.
pub fn fill<U: Unit>(dst: &mut [U], value: U) {
    for_each_part(dst, 4 * GRAIN, |_, part| part.fill(value));
}

/// `start + (i / repeat) * step`, computed in double precision and then cast; `dst` is as long as the caller counted.
pub fn arange<T: Elem>(dst: &mut [T], start: f64, step: f64, repeat: usize) {
    let repeat = repeat.max(1);
    for_each_part(dst, GRAIN, |first, part| {
        if repeat == 1 {
            part.iter_mut()
                .enumerate()
                .for_each(|(i, v)| *v = T::from_f64(start + (first + i) as f64 * step));
        } else {
            part.iter_mut()
                .enumerate()
                .for_each(|(i, v)| *v = T::from_f64(start + ((first + i) / repeat) as f64 * step));
        }
    });
}

/// (rows, cols) with ones on the `k`-th diagonal, zeros elsewhere.
pub fn eye<T: Elem>(dst: &mut [T], rows: usize, cols: usize, k: isize) {
    assert_eq!(dst.len(), rows * cols, "eye: the output's size is not rows * cols");
    for_each_row(dst, cols, cols, |row, line| {
        line.fill(T::default());
        let col = row as isize + k;
        if (0..cols as isize).contains(&col) {
            line[col as usize] = T::from_i64(1);
        }
    });
}

/// `out` = the sum of `inputs`, each as long as it; blocks of the output stay in cache while the inputs pass.
pub fn sum<T: Add>(inputs: &[&[T]], out: &mut [T]) {
    assert!(inputs.iter().all(|x| x.len() == out.len()), "sum: the inputs and the output are of one size");
    let Some((first, rest)) = inputs.split_first() else { return out.fill(T::default()) };
    for_each_part(out, 16 * BLOCK, |start, part| {
        mxrs_simd::vectorize(
            #[inline(always)]
            || {
                for (i, block) in part.chunks_mut(BLOCK).enumerate() {
                    let at = start + i * BLOCK..start + i * BLOCK + block.len();
                    block.copy_from_slice(&first[at.clone()]);
                    for x in rest {
                        block.iter_mut().zip(&x[at.clone()]).for_each(|(y, x)| *y = y.plus(*x));
                    }
                }
            },
        );
    });
}
