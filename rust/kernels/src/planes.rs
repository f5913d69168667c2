//! Images sorted for windows: one tap of all windows is one stretch of memory.
//!
//! Places are sorted by the remainders of their padded coordinates modulo the strides, each combination of remainders a plane
//! with its border. Windows then move by one place in every plane, so a tap seen by all windows is a plane read from
//! some place on, and what windows compute with a tap is one loop over all outputs. Outputs lie in rows as long as the
//! planes'; those beyond the image are computed like the others and dropped. Pooling and depthwise convolutions
//! stand on this; what they compute is theirs.

use crate::gemm::micro::Real;

/// The sizes of windows over three axes.
#[derive(Clone, Copy)]
pub struct Windows {
    pub in_dims: [usize; 3],
    pub out_dims: [usize; 3],
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub dilate: [usize; 3],
    pub pad: [usize; 3],
}

/// Outputs along `axis` in a buffer: enough for every window and every place of the data, so that neither the taps of a
/// row's last output nor those of the next row's first reach into each other.
#[inline(always)]
pub fn buffered(w: &Windows, axis: usize) -> usize {
    let stride = w.stride[axis];
    let windows = w.out_dims[axis] + (w.kernel[axis] - 1) * w.dilate[axis] / stride;
    windows.max((w.in_dims[axis] + w.pad[axis]).div_ceil(stride))
}

/// How a group of images lies in planes.
pub struct Planes {
    w: Windows,
    dims: [usize; 3],
    images: usize,
    /// Where each row of each image of the group lies, up to its column.
    rows: Vec<usize>,
    /// Where the first columns lie in a row, as many as the stride has remainders.
    columns: Vec<usize>,
}

impl Planes {
    /// Planes for `images` images.
    pub fn new(w: Windows, images: usize) -> Planes {
        let dims = [0, 1, 2].map(|axis| buffered(&w, axis));
        let mut planes = Planes { w, dims, images, rows: Vec::new(), columns: Vec::new() };
        let [depth, height, width] = w.in_dims;
        for n in 0..images {
            for i in 0..depth * height {
                let at = planes.at([i / height + w.pad[0], i % height + w.pad[1], 0]);
                planes.rows.push(at + n * dims[0] * dims[1] * dims[2]);
            }
        }
        planes.columns = (0..w.stride[2].min(width)).map(|c| planes.at([0, 0, c + w.pad[2]])).collect();
        planes
    }

    /// Elements of one plane, and of the outputs of a group.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.images * self.dims.iter().product::<usize>()
    }

    /// Elements of all planes.
    #[inline(always)]
    pub fn total(&self) -> usize {
        self.w.stride.iter().product::<usize>() * self.len()
    }

    /// The stretch of outputs from the first to the last of the group: taps may be read so far from where they begin.
    #[inline(always)]
    pub fn run(&self) -> usize {
        self.out_row(self.images - 1, self.w.out_dims[0] - 1, self.w.out_dims[1] - 1) + self.w.out_dims[2]
    }

    /// The place of a padded coordinate of image 0.
    #[inline(always)]
    fn at(&self, place: [usize; 3]) -> usize {
        let s = self.w.stride;
        let phase = (place[0] % s[0] * s[1] + place[1] % s[1]) * s[2] + place[2] % s[2];
        let [_, rows, columns] = self.dims;
        phase * self.len() + (place[0] / s[0] * rows + place[1] / s[1]) * columns + place[2] / s[2]
    }

    /// Where the taps of the first window lie, in scan order.
    pub fn taps(&self) -> Vec<usize> {
        let (k, dilate) = (self.w.kernel, self.w.dilate);
        let tap = |i: usize| [i / (k[1] * k[2]), i / k[2] % k[1], i % k[2]];
        let place = |t: [usize; 3]| self.at([0, 1, 2].map(|axis| t[axis] * dilate[axis]));
        (0..k.iter().product()).map(|i| place(tap(i))).collect()
    }

    /// The place of the first output of row `(d, h)` of image `n`.
    #[inline(always)]
    pub fn out_row(&self, n: usize, d: usize, h: usize) -> usize {
        ((n * self.dims[0] + d) * self.dims[1] + h) * self.dims[2]
    }

    /// Calls `visit(row number, place of its first output)` for every row of the outputs of `images` images.
    #[inline(always)]
    pub fn each_out_row(&self, images: usize, mut visit: impl FnMut(usize, usize)) {
        let mut row = 0;
        for n in 0..images {
            for d in 0..self.w.out_dims[0] {
                for h in 0..self.w.out_dims[1] {
                    visit(row, self.out_row(n, d, h));
                    row += 1;
                }
            }
        }
    }

    /// Copies outputs, row after row without gaps, to their places.
    #[inline(always)]
    pub fn lay_outputs<T: Real>(&self, from: &[T], to: &mut [T]) {
        let columns = self.w.out_dims[2];
        let images = from.len() / self.w.out_dims.iter().product::<usize>();
        self.each_out_row(images, |row, at| {
            to[at..at + columns].copy_from_slice(&from[row * columns..(row + 1) * columns]);
        });
    }

    /// Copies images into their planes; what lies between stays as it is.
    #[inline(always)]
    pub fn sort<T: Real>(&self, x: &[T], sorted: &mut [T]) {
        let (stride, width) = (self.w.stride[2], self.w.in_dims[2]);
        if width == 0 {
            return;
        }
        for (from, row) in x.chunks_exact(width).zip(&self.rows) {
            if stride == 1 {
                let at = row + self.columns[0];
                sorted[at..at + width].copy_from_slice(from);
            } else if stride == 2 && width > 1 {
                let (pairs, rest) = from.as_chunks::<2>();
                let at = row + self.columns[0];
                let to = &mut sorted[at..at + pairs.len() + rest.len()];
                to.iter_mut().zip(pairs).for_each(|(t, pair)| *t = pair[0]);
                to[pairs.len()..].copy_from_slice(rest);
                let at = row + self.columns[1];
                let to = &mut sorted[at..at + pairs.len()];
                to.iter_mut().zip(pairs).for_each(|(t, pair)| *t = pair[1]);
            } else {
                for (phase, column) in self.columns.iter().enumerate() {
                    let to = &mut sorted[row + column..];
                    to.iter_mut().zip(from[phase..].iter().step_by(stride)).for_each(|(t, v)| *t = *v);
                }
            }
        }
    }

    /// Copies the planes to where the images have their places, or adds them.
    #[inline(always)]
    pub fn unsort<T: Real>(&self, planes: &[T], accumulate: bool, x: &mut [T]) {
        let (stride, width) = (self.w.stride[2], self.w.in_dims[2]);
        if width == 0 {
            return;
        }
        for (to, row) in x.chunks_exact_mut(width).zip(&self.rows) {
            if stride == 2 && width > 1 && !accumulate {
                let (a, b) = (row + self.columns[0], row + self.columns[1]);
                let (pairs, rest) = to.as_chunks_mut::<2>();
                let (a, b) = (&planes[a..a + pairs.len() + rest.len()], &planes[b..b + pairs.len()]);
                rest.copy_from_slice(&a[pairs.len()..]);
                for ((pair, a), b) in pairs.iter_mut().zip(a).zip(b) {
                    *pair = [*a, *b];
                }
                continue;
            }
            for (phase, column) in self.columns.iter().enumerate() {
                let from = &planes[row + column..];
                match (stride, accumulate) {
                    (1, true) => to.iter_mut().zip(from).for_each(|(t, v)| *t += *v),
                    (1, false) => to.copy_from_slice(&from[..width]),
                    (_, true) => to[phase..].iter_mut().step_by(stride).zip(from).for_each(|(t, v)| *t += *v),
                    (_, false) => to[phase..].iter_mut().step_by(stride).zip(from).for_each(|(t, v)| *t = *v),
                }
            }
        }
    }
}
