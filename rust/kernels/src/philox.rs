//! The Philox4x32-10 counter-based generator (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
//! 1, 2, 3", SC 2011) and streams of uniform numbers made from it.
//!
//! A stream is named by a seed (the key) and an offset (the upper half of the counter); the caller gives every
//! fill its own offset. Word `w` of block `b` of a stream is `philox([b.lo, b.hi, offset.lo, offset.hi], seed)[w]`.
//!
//! Fills of 32-bit values work in groups of 64 elements: element `64*g + 16*w + l` takes word `w` of block
//! `16*g + l`. So an element depends on seed, offset and its own index only, a vector of 16 blocks is computed at
//! once, and a shader's neighbouring threads write neighbouring elements. Distributions are in [`crate::sample`].

// Loops over several slices at once: one index says it better than nested zips, and vectorises.
#![allow(clippy::needless_range_loop)]

use crate::real::Shared;
use mxrs_simd::vectorize;

const M0: u32 = 0xD251_1F53;
const M1: u32 = 0xCD9E_8D57;
const W0: u32 = 0x9E37_79B9;
const W1: u32 = 0xBB67_AE85;
/// Blocks that are computed side by side.
pub(crate) const SIDE: usize = 16;
/// Elements of one group of a fill of 32-bit values.
pub(crate) const GROUP: usize = 4 * SIDE;

/// What names a stream of random numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stream {
    pub seed: u64,
    pub offset: u64,
}

impl Stream {
    pub fn new(seed: u64, offset: u64) -> Stream {
        Stream { seed, offset }
    }

    /// The four words of block `b`.
    #[inline(always)]
    pub fn block(self, b: u64) -> [u32; 4] {
        let counter = [b as u32, (b >> 32) as u32, self.offset as u32, (self.offset >> 32) as u32];
        philox(counter, [self.seed as u32, (self.seed >> 32) as u32])
    }

    /// Words of the [`SIDE`] blocks from `16 * group`: `[word][block]`.
    #[inline(always)]
    pub(crate) fn group(self, group: u64) -> [[u32; SIDE]; 4] {
        let first = group * SIDE as u64;
        let mut c = [[0u32; SIDE]; 4];
        for l in 0..SIDE {
            // 16 divides 2^32: the upper word is the same for the whole group.
            c[0][l] = (first as u32) + l as u32;
            c[1][l] = (first >> 32) as u32;
            c[2][l] = self.offset as u32;
            c[3][l] = (self.offset >> 32) as u32;
        }
        let (mut k0, mut k1) = (self.seed as u32, (self.seed >> 32) as u32);
        for _ in 0..10 {
            for l in 0..SIDE {
                let p0 = M0 as u64 * c[0][l] as u64;
                let p1 = M1 as u64 * c[2][l] as u64;
                let (c1, c3) = (c[1][l], c[3][l]);
                c[0][l] = (p1 >> 32) as u32 ^ c1 ^ k0;
                c[1][l] = p1 as u32;
                c[2][l] = (p0 >> 32) as u32 ^ c3 ^ k1;
                c[3][l] = p0 as u32;
            }
            k0 = k0.wrapping_add(W0);
            k1 = k1.wrapping_add(W1);
        }
        c
    }
}

/// Ten rounds of Philox on a counter of four words with a key of two.
#[inline(always)]
pub fn philox(mut c: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let p0 = M0 as u64 * c[0] as u64;
        let p1 = M1 as u64 * c[2] as u64;
        c = [(p1 >> 32) as u32 ^ c[1] ^ key[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ key[1], p0 as u32];
        key = [key[0].wrapping_add(W0), key[1].wrapping_add(W1)];
    }
    c
}

/// 24 bits as a number in [0, 1).
#[inline(always)]
pub fn unit_f32(word: u32) -> f32 {
    (word >> 8) as i32 as f32 * (1.0 / 16_777_216.0)
}

/// 53 bits of two words as a number in [0, 1).
#[inline(always)]
pub fn unit_f64(low: u32, high: u32) -> f64 {
    (((high as u64) << 32 | low as u64) >> 11) as i64 as f64 * (1.0 / 9_007_199_254_740_992.0)
}

/// Calls `f(group words, elements)` for the groups of 64 elements that cover `out`; the last may be shorter.
pub(crate) fn for_groups<T: Send>(
    stream: Stream,
    out: &mut [T],
    f: impl Fn(&[[u32; SIDE]; 4], usize, &mut [T]) + Sync,
) {
    let n = out.len();
    let shared = Shared::new(out);
    mxrs_lanes::for_each(n.div_ceil(GROUP), 128, |range| {
        vectorize(
            #[inline(always)]
            || {
                for g in range {
                    let words = stream.group(g as u64);
                    let at = g * GROUP;
                    // SAFETY: groups are disjoint.
                    f(&words, at, unsafe { shared.part(at..n.min(at + GROUP)) });
                }
            },
        )
    });
}

/// The raw 32-bit words of the stream.
pub fn fill_u32(stream: Stream, out: &mut [u32]) {
    for_groups(stream, out, |words, _, out| {
        for (o, w) in out.iter_mut().zip(words.as_flattened()) {
            *o = *w;
        }
    });
}

/// Uniform numbers in [0, 1) with 24 random bits.
pub fn fill_unit_f32(stream: Stream, out: &mut [f32]) {
    for_groups(stream, out, |words, _, out| {
        for (o, w) in out.iter_mut().zip(words.as_flattened()) {
            *o = unit_f32(*w);
        }
    });
}

/// Uniform numbers in [0, 1) with 53 random bits: element `i` is made of words `2*(i%2)` and the next of block `i/2`.
pub fn fill_unit_f64(stream: Stream, out: &mut [f64]) {
    let n = out.len();
    let shared = Shared::new(out);
    mxrs_lanes::for_each(n.div_ceil(2), 4096, |range| {
        vectorize(
            #[inline(always)]
            || {
                for b in range {
                    let w = stream.block(b as u64);
                    // SAFETY: blocks are disjoint.
                    let out = unsafe { shared.part(2 * b..n.min(2 * b + 2)) };
                    for (o, w) in out.iter_mut().zip(w.chunks_exact(2)) {
                        *o = unit_f64(w[0], w[1]);
                    }
                }
            },
        )
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        let pi = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
        assert_eq!(philox(pi, [0xa4093822, 0x299f31d0]), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn an_element_depends_on_its_index_alone() {
        let s = Stream::new(0x1234_5678_9abc_def0, 77);
        let mut long = vec![0u32; 10_003];
        fill_u32(s, &mut long);
        for n in [0, 1, 15, 64, 65, 1000] {
            let mut short = vec![0u32; n];
            fill_u32(s, &mut short);
            assert_eq!(short, long[..n]);
        }
        for i in [0usize, 1, 17, 63, 64, 200, 10_002] {
            let (g, w, l) = (i / 64, i % 64 / 16, i % 16);
            assert_eq!(long[i], s.block((16 * g + l) as u64)[w]);
        }
        let mut other = vec![0u32; 64];
        fill_u32(Stream::new(s.seed, 78), &mut other);
        assert!(other.iter().zip(&long).filter(|(a, b)| a == b).count() < 2);
    }

    #[test]
    fn uniform_moments() {
        let n = 200_000;
        let mut x = vec![0f32; n];
        fill_unit_f32(Stream::new(1, 2), &mut x);
        let mut y = vec![0f64; n];
        fill_unit_f64(Stream::new(1, 3), &mut y);
        for v in [x.iter().map(|v| *v as f64).collect::<Vec<_>>(), y] {
            assert!(v.iter().all(|v| (0.0..1.0).contains(v)));
            let mean = v.iter().sum::<f64>() / n as f64;
            let var = v.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
            assert!((mean - 0.5).abs() < 0.003 && (var - 1.0 / 12.0).abs() < 0.001, "{mean} {var}");
        }
    }
}
