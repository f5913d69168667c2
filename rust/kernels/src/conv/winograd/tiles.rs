//! How outputs are cut into tiles and tiles into blocks, and how a channel's tiles are brought side by side.

use super::transform::{self, POINTS, SQUARE, TILE, WIDTH};
use crate::conv::geom::ConvGeom;
use crate::gemm::micro::Real;
use std::ops::Range;

/// Tiles of a block, at most.
const BLOCK_TILES: usize = 128;

/// Blocks that there should at least be, so that the lanes have work.
const FEW_BLOCKS: usize = 4;

/// The tiles of a convolution: rows of `across` tiles, `down` rows for each image.
#[derive(Clone, Copy, Debug)]
pub struct Tiling {
    pub across: usize,
    pub down: usize,
    /// Rows of tiles of all images.
    pub rows: usize,
    /// Rows of a block.
    pub block: usize,
}

impl Tiling {
    pub fn new(g: &ConvGeom) -> Tiling {
        let [_, height, width] = g.out_dims;
        let (across, down) = (width.div_ceil(TILE), height.div_ceil(TILE));
        let rows = g.batch * down;
        // Of the sizes near the greatest, the one that leaves the fewest places of half a panel empty.
        let most = (BLOCK_TILES / across).min(rows.div_ceil(FEW_BLOCKS)).max(1);
        let waste = |block: &usize| ((block * across).next_multiple_of(16) * 1000) / (block * across);
        let block = (most.div_ceil(2)..=most).rev().min_by_key(waste).unwrap_or(1);
        Tiling { across, down, rows, block }
    }

    pub fn tiles(&self) -> usize {
        self.rows * self.across
    }

    pub fn blocks(&self) -> usize {
        self.rows.div_ceil(self.block)
    }

    /// The rows of block `i`.
    pub fn block(&self, i: usize) -> Range<usize> {
        i * self.block..self.rows.min((i + 1) * self.block)
    }

    /// Elements of a line of tiles of one block: whole groups of columns, and room for a copy that runs over.
    pub fn line(&self) -> usize {
        (self.block * self.across).next_multiple_of(WIDTH) + WIDTH
    }

    /// The images that `rows` belong to: the image, its rows of tiles, and the first of them among the block's tiles.
    pub fn images(&self, rows: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>, usize)> {
        let Tiling { across, down, .. } = *self;
        (rows.start / down..rows.end.div_ceil(down)).map(move |n| {
            let from = rows.start.max(n * down);
            let to = rows.end.min((n + 1) * down);
            (n, from - n * down..to - n * down, (from - rows.start) * across)
        })
    }

    /// Places of the lines that one image has in a block, a phase's share of them.
    fn places(&self) -> usize {
        (self.block * TILE + 2) * (self.across + 1)
    }

    /// Elements of the workspace of [`Tiling::gather`]. Its first part must begin as zeros, see [`Tiling::clear`].
    pub fn scratch(&self) -> usize {
        (TILE + TILE + POINTS) * self.places()
    }

    /// Makes a workspace ready for the channels of one kind of image: the borders stay as they are from now on.
    pub fn clear<T: Real>(&self, scratch: &mut [T]) {
        scratch[..TILE * self.places()].fill(T::ZERO);
    }

    /// Brings the channel of every image that `rows` touch side by side: element `i * POINTS + k` of `out` (lines of
    /// [`Tiling::line`]) gets, for every tile, row `i` of its square transformed along the columns to `N` points `k`.
    ///
    /// A square is `reach` places wide, neighbours are [`TILE`] apart, the first begins `pad` before the image.
    #[inline(always)]
    pub fn gather<'a, T: Real, const REACH: usize>(
        &self,
        rows: Range<usize>,
        (dims, pad): ([usize; 2], [usize; 2]),
        channel: impl Fn(usize) -> &'a [T],
        map: impl Fn([T; REACH]) -> [T; POINTS],
        scratch: &mut [T],
        out: &mut [T],
    ) {
        let pitch = self.across + 1;
        for (n, rows, first) in self.images(rows) {
            let image = channel(n);
            let lines = rows.len() * TILE + REACH - TILE;
            let len = lines * pitch;
            let (padded, rest) = scratch.split_at_mut(self.places() * TILE);
            copy_lines(image, dims, (rows.start * TILE, pad), &mut padded[..len * TILE], pitch * TILE);
            // The phases along a row: every fourth place.
            let (phases, rest) = rest.split_at_mut(len * TILE);
            let (a, b) = phases.split_at_mut(2 * len);
            let ((a, b), (c, d)) = (a.split_at_mut(len), b.split_at_mut(len));
            let places = padded.as_chunks::<TILE>().0.iter();
            for ((((p, a), b), c), d) in places.zip(&mut *a).zip(&mut *b).zip(&mut *c).zip(&mut *d) {
                (*a, *b, *c, *d) = (p[0], p[1], p[2], p[3]);
            }
            let phases = [&*a, &*b, &*c, &*d];
            // Along the rows; the last place of a line has no neighbour and is not used.
            let points = &mut rest[..POINTS * len];
            let mut at = 0;
            while at + 1 < len {
                let count = WIDTH.min(len - 1 - at);
                let mut seen = [[T::ZERO; WIDTH]; REACH];
                for (i, seen) in seen.iter_mut().enumerate() {
                    let phase = &phases[i % TILE][at + i / TILE..];
                    match phase.first_chunk::<WIDTH>() {
                        Some(whole) => *seen = *whole,
                        None => seen[..count].copy_from_slice(&phase[..count]),
                    }
                }
                let made = transform::columns(std::array::from_fn(|i| &seen[i]), &map);
                for (k, made) in made.iter().enumerate() {
                    let to = &mut points[k * len + at..(k + 1) * len];
                    match to.first_chunk_mut::<WIDTH>() {
                        Some(whole) => *whole = *made,
                        None => to[..count].copy_from_slice(&made[..count]),
                    }
                }
                at += WIDTH;
            }
            // Tiles side by side, without the last place of each line.
            for i in 0..REACH {
                for k in 0..POINTS {
                    let to = &mut out[(i * POINTS + k) * self.line() + first..][..self.line() - first];
                    for m in 0..rows.len() {
                        let from = &points[k * len + (m * TILE + i) * pitch..(k + 1) * len];
                        copy_row(from, &mut to[m * self.across..], self.across);
                    }
                }
            }
        }
    }
}

/// Copies `count` elements; up to a vector more where there is room, for what follows is written later.
#[inline(always)]
fn copy_row<T: Real>(from: &[T], to: &mut [T], count: usize) {
    const STEP: usize = 16;
    let mut at = 0;
    while at < count {
        match (from[at..].first_chunk::<STEP>(), to[at..].first_chunk_mut::<STEP>()) {
            (Some(from), Some(to)) => *to = *from,
            _ => return to[at..count].copy_from_slice(&from[at..count]),
        }
        at += STEP;
    }
}

/// Copies the lines of an image from line `first - pad` on, `pitch` places each from place `-pad` on; lines outside become
/// zeros, places outside are left.
#[inline(always)]
fn copy_lines<T: Real>(
    image: &[T],
    [height, width]: [usize; 2],
    (first, pad): (usize, [usize; 2]),
    out: &mut [T],
    pitch: usize,
) {
    for (i, line) in out.chunks_exact_mut(pitch).enumerate() {
        let count = width.min(pitch - pad[1]);
        let line = &mut line[pad[1]..pad[1] + count];
        match (first + i).checked_sub(pad[0]).filter(|y| *y < height) {
            Some(y) => line.copy_from_slice(&image[y * width..y * width + count]),
            None => line.fill(T::ZERO),
        }
    }
}

/// Transforms what [`Tiling::gather`] made along the other axis, `WIDTH` tiles at a time: `sink(point, first tile, values)`.
#[inline(always)]
pub fn transform_rows<T: Real, const REACH: usize>(
    gathered: &[T],
    line: usize,
    tiles: usize,
    map: impl Fn([T; REACH]) -> [T; POINTS],
    mut sink: impl FnMut(usize, usize, &[T; WIDTH]),
) {
    debug_assert!(gathered.len() >= SQUARE.min(REACH * POINTS) * line);
    for first in (0..tiles).step_by(WIDTH) {
        for k in 0..POINTS {
            let rows: [&[T; WIDTH]; REACH] = std::array::from_fn(|i| {
                let tiles = gathered[(i * POINTS + k) * line + first..].first_chunk();
                tiles.unwrap_or_else(|| unreachable!("lines hold whole groups of tiles"))
            });
            for (r, made) in transform::columns(rows, &map).iter().enumerate() {
                sink(r * POINTS + k, first, made);
            }
        }
    }
}
