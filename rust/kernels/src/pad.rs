//! Padding of N-d arrays (constant, edge, reflect) and its gradient.
//!
//! Per axis a table says which source index each output index shows; rows are then copied or, for the gradient,
//! added. Which axes and modes an operator allows is its own business.

use crate::copy::{Add, Unit, for_each_row};
use smallvec::SmallVec;

/// What stands outside the source.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fill<U> {
    Constant(U),
    /// The nearest element.
    Edge,
    /// The elements mirrored at the outermost one, which is not repeated; beyond the far end it mirrors back.
    Reflect,
}

/// Marks an output index that shows no source element.
const NONE: usize = usize::MAX;

/// For each output index of an axis, the source index it shows.
fn table<U>(size: usize, before: usize, after: usize, fill: &Fill<U>) -> Vec<usize> {
    let last = size.saturating_sub(1);
    let show = |j: usize| {
        if j >= before && j - before < size {
            return j - before;
        }
        match fill {
            Fill::Constant(_) => NONE,
            _ if size == 0 => NONE,
            Fill::Edge => j.saturating_sub(before).min(last),
            Fill::Reflect if last == 0 => 0,
            Fill::Reflect => {
                let at = (j as i64 - before as i64).rem_euclid(2 * last as i64) as usize;
                at.min(2 * last - at)
            }
        }
    };
    (0..before + size + after).map(show).collect()
}

/// The tables of all axes and the walk over rows that they share.
struct Plan {
    tables: SmallVec<[Vec<usize>; 6]>,
    dims: SmallVec<[usize; 6]>,
}

impl Plan {
    fn new<U>(dims: &[usize], pads: &[(usize, usize)], fill: &Fill<U>) -> Plan {
        assert!(dims.len() == pads.len() && !dims.is_empty(), "pad: one pair per axis, at least one axis");
        let tables = dims.iter().zip(pads).map(|(&d, &(b, a))| table(d, b, a, fill)).collect();
        Plan { tables, dims: dims.into() }
    }
    fn width(&self) -> usize {
        self.tables[self.tables.len() - 1].len()
    }
    fn size(&self) -> usize {
        self.tables.iter().map(Vec::len).product()
    }
    /// Where in the source the row shown by output row `row` begins; `None` outside.
    fn source(&self, mut row: usize) -> Option<usize> {
        let last = self.tables.len() - 1;
        let (mut at, mut stride) = (0, self.dims[last]);
        for d in (0..last).rev() {
            let n = self.tables[d].len();
            let shown = self.tables[d][row % n];
            if shown == NONE {
                return None;
            }
            row /= n;
            at += shown * stride;
            stride *= self.dims[d];
        }
        Some(at)
    }
}

/// `src` of shape `dims` with `pads[d] = (before, after)` elements added along each axis.
pub fn pad<U: Unit>(src: &[U], dims: &[usize], pads: &[(usize, usize)], fill: Fill<U>, out: &mut [U]) {
    let plan = Plan::new(dims, pads, &fill);
    assert_eq!(src.len(), dims.iter().product::<usize>(), "pad: the source's size");
    assert_eq!(out.len(), plan.size(), "pad: the output's size");
    let (last, n) = (dims.len() - 1, dims[dims.len() - 1]);
    let (before, value) = (pads[last].0, if let Fill::Constant(v) = fill { v } else { U::default() });
    for_each_row(out, plan.width(), plan.width(), |row, line| {
        let Some(at) = plan.source(row) else { return line.fill(value) };
        line[before..before + n].copy_from_slice(&src[at..at + n]);
        for j in (0..before).chain(before + n..line.len()) {
            let shown = plan.tables[last][j];
            line[j] = if shown == NONE { value } else { src[at + shown] };
        }
    });
}

/// Gradient of [`pad`]: adds grad (the padded shape) into out (shape `dims`) where the output showed it.
///
/// The leading axes without padding are shared among the lanes; within one, rows are added in order.
pub fn pad_grad<T: Add>(grad: &[T], dims: &[usize], pads: &[(usize, usize)], fill: Fill<T>, out: &mut [T]) {
    let lead = pads.iter().take(dims.len() - 1).take_while(|p| **p == (0, 0)).count();
    let plan = Plan::new(&dims[lead..], &pads[lead..], &fill);
    let (size, width) = (plan.size(), plan.width());
    let block: usize = dims[lead..].iter().product();
    assert_eq!(out.len(), dims.iter().product::<usize>(), "pad gradient: the output's size");
    assert_eq!(
        grad.len(),
        dims[..lead].iter().product::<usize>() * size,
        "pad gradient: the gradient's size"
    );
    let columns = &plan.tables[plan.tables.len() - 1];
    for_each_row(out, block, size, |o, target| {
        for (row, line) in grad[o * size..(o + 1) * size].chunks_exact(width).enumerate() {
            let Some(at) = plan.source(row) else { continue };
            for (v, &shown) in line.iter().zip(columns) {
                if shown != NONE {
                    target[at + shown] = target[at + shown].plus(*v);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(src: &[u32], dims: &[usize], pads: &[(usize, usize)], fill: Fill<u32>) -> Vec<u32> {
        let mut out = vec![77; dims.iter().zip(pads).map(|(d, p)| d + p.0 + p.1).product()];
        pad(src, dims, pads, fill, &mut out);
        out
    }

    #[test]
    fn modes() {
        let line = |before, after, fill| run(&[1, 2, 3], &[1, 3], &[(0, 0), (before, after)], fill);
        assert_eq!(line(2, 0, Fill::Edge), [1, 1, 1, 2, 3]);
        assert_eq!(line(2, 1, Fill::Reflect), [3, 2, 1, 2, 3, 2]);
        assert_eq!(line(1, 1, Fill::Constant(9)), [9, 1, 2, 3, 9]);
        assert_eq!(line(5, 0, Fill::Reflect), [2, 1, 2, 3, 2, 1, 2, 3]);
        assert_eq!(run(&[1, 2], &[2, 1], &[(1, 0), (0, 1)], Fill::Constant(0)), [0, 0, 1, 0, 2, 0]);
        assert_eq!(run(&[1, 2], &[2, 1], &[(1, 1), (1, 0)], Fill::Edge), [1, 1, 1, 1, 2, 2, 2, 2]);
        assert_eq!(run(&[], &[0], &[(1, 1)], Fill::Edge), [0, 0]);
    }

    #[test]
    fn the_gradient_is_the_adjoint() {
        let (dims, pads) = ([2, 3, 4], [(0, 0), (2, 1), (1, 3)]);
        for edge in [0, 1, 2] {
            let places: Vec<u32> = (0..24).collect();
            let fill = [Fill::Edge, Fill::Reflect, Fill::Constant(99)][edge];
            let shown = run(&places, &dims, &pads, fill);
            let fill = [Fill::Edge, Fill::Reflect, Fill::Constant(0i64)][edge];
            let grad: Vec<i64> = (0..shown.len() as i64).collect();
            let (mut got, mut want) = (vec![0; 24], vec![0; 24]);
            pad_grad(&grad, &dims, &pads, fill, &mut got);
            shown.iter().zip(&grad).filter(|(p, _)| **p < 24).for_each(|(p, g)| want[*p as usize] += g);
            assert_eq!(got, want);
        }
    }
}
