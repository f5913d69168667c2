//! The geometry of one evaluation: extents merged to the fewest, and how each input is reached.

use crate::eval::Operand;
use smallvec::SmallVec;

/// How an input's elements lie relative to the output's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// One after the other along a run of output elements.
    Direct,
    /// One element for a whole run.
    Scalar,
    /// Neither: copied to a tile first.
    Gathered,
}

pub(crate) struct Geometry {
    /// Extents without ones, neighbours merged wherever every input allows it.
    pub dims: SmallVec<[usize; 6]>,
    /// Element strides of input i are `strides[i * dims.len()..][..dims.len()]`.
    pub strides: SmallVec<[usize; 18]>,
    pub reach: SmallVec<[Reach; 6]>,
    /// Whether runs are rows of the innermost extent; else one run covers everything.
    pub rows: bool,
}

/// Rows shorter than this are gathered: a call per row would cost more than the copy.
const SHORT_ROW: usize = 64;

/// The common simple case: every input is either laid out as the output or a single element. Bit i of the mask is
/// set where input i is a single element.
#[inline(always)]
pub(crate) fn flat(dims: &[usize], ins: &[Operand]) -> Option<(usize, u32)> {
    if ins.len() > 32 {
        return None;
    }
    let n = dims.iter().product();
    if n <= 1 {
        return Some((n, 0));
    }
    let mut scalars = 0;
    for (i, input) in ins.iter().enumerate() {
        let mut expected = 1;
        let (mut direct, mut scalar) = (true, true);
        for (&dim, &stride) in dims.iter().zip(input.strides).rev() {
            if dim != 1 {
                direct &= stride == expected;
                scalar &= stride == 0;
                expected *= dim;
            }
        }
        if scalar {
            scalars |= 1 << i;
        } else if !direct {
            return None;
        }
    }
    Some((n, scalars))
}

impl Geometry {
    pub(crate) fn of(dims: &[usize], ins: &[Operand]) -> Geometry {
        // Innermost first while merging, reversed at the end.
        let mut merged: SmallVec<[usize; 6]> = SmallVec::new();
        let mut steps: SmallVec<[SmallVec<[usize; 6]>; 6]> = ins.iter().map(|_| SmallVec::new()).collect();
        for d in (0..dims.len()).rev() {
            if dims[d] == 1 {
                continue;
            }
            let fits = merged.last().is_some_and(|&extent| {
                ins.iter().zip(&steps).all(|(input, s)| input.strides[d] == s[s.len() - 1] * extent)
            });
            if fits {
                let last = merged.len() - 1;
                merged[last] *= dims[d];
            } else {
                merged.push(dims[d]);
                for (input, s) in ins.iter().zip(&mut steps) {
                    s.push(input.strides[d]);
                }
            }
        }
        if merged.is_empty() {
            merged.push(1);
            steps.iter_mut().for_each(|s| s.push(1));
        }
        merged.reverse();
        steps.iter_mut().for_each(|s| s.reverse());
        let rows = merged.len() > 1 && merged[merged.len() - 1] >= SHORT_ROW;
        let reach = steps.iter().map(|s| reach(&merged, s, rows)).collect();
        Geometry { dims: merged, strides: steps.into_iter().flatten().collect(), reach, rows }
    }

    pub(crate) fn strides_of(&self, input: usize) -> &[usize] {
        let n = self.dims.len();
        &self.strides[input * n..][..n]
    }

    /// The offset of input `input` at output element `flat`, in elements.
    pub(crate) fn offset(&self, input: usize, flat: usize) -> usize {
        let mut rest = flat;
        let mut offset = 0;
        for (&dim, &stride) in self.dims.iter().zip(self.strides_of(input)).rev() {
            offset += rest % dim * stride;
            rest /= dim;
        }
        offset
    }
}

fn reach(dims: &[usize], strides: &[usize], rows: bool) -> Reach {
    let inner = strides[strides.len() - 1];
    if rows || dims.len() == 1 {
        return match inner {
            0 => Reach::Scalar,
            1 => Reach::Direct,
            _ => Reach::Gathered,
        };
    }
    let mut expected = 1;
    let direct = dims.iter().zip(strides).rev().all(|(&dim, &stride)| {
        let fits = stride == expected;
        expected *= dim;
        fits
    });
    if direct {
        Reach::Direct
    } else if strides.iter().all(|s| *s == 0) {
        Reach::Scalar
    } else {
        Reach::Gathered
    }
}

/// Copies output elements `start..start + len` of an input to `dst`, as they are.
///
/// # Safety
/// `src` is valid for the geometry, `dst` for `len` elements of `T`, and they do not overlap.
pub(crate) unsafe fn gather<T: Copy>(
    geometry: &Geometry,
    input: usize,
    src: *const u8,
    start: usize,
    len: usize,
    dst: *mut u8,
) {
    let (src, dst) = (src.cast::<T>(), dst.cast::<T>());
    let (dims, strides) = (&geometry.dims[..], geometry.strides_of(input));
    let last = dims.len() - 1;
    let (inner, step) = (dims[last], strides[last]);
    let mut index: SmallVec<[usize; 6]> = SmallVec::from_elem(0, dims.len());
    let mut rest = start;
    for d in (0..dims.len()).rev() {
        index[d] = rest % dims[d];
        rest /= dims[d];
    }
    let mut offset: usize = index.iter().zip(strides).map(|(i, s)| i * s).sum();
    let mut done = 0;
    while done < len {
        let run = (inner - index[last]).min(len - done);
        // SAFETY: the offset is that of an element inside the geometry, and done + run <= len.
        unsafe {
            let (from, to) = (src.add(offset), dst.add(done));
            if step == 0 {
                let value = *from;
                for i in 0..run {
                    *to.add(i) = value;
                }
            } else {
                for i in 0..run {
                    *to.add(i) = *from.add(i * step);
                }
            }
        }
        done += run;
        index[last] += run;
        offset += run * step;
        let mut d = last;
        while index[d] == dims[d] && d > 0 {
            offset -= dims[d] * strides[d];
            index[d] = 0;
            d -= 1;
            index[d] += 1;
            offset += strides[d];
        }
    }
}
