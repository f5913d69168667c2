//! The five linear maps of F(4x4, 3x3), along one axis; squares apply them along both.
//!
//! The points are 0, 1, -1, 2, -2 and infinity (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks",
//! 2016): with data transform B, weight transform G and output transform A, `y = A [(G g) * (B d)]`. The gradient of the
//! weight is the adjoint: `dg = G' [(A' dy) * (B d)]`.

use crate::gemm::micro::Real;

/// Points along one axis, and of a square.
pub const POINTS: usize = 6;
pub const SQUARE: usize = POINTS * POINTS;
/// Outputs of a tile along one axis.
pub const TILE: usize = 4;
/// Columns transformed at a time.
pub const WIDTH: usize = 32;

/// B: six neighbouring inputs to six points.
#[inline(always)]
pub fn data<T: Real>(d: [T; 6]) -> [T; 6] {
    let c = |v: f64| T::from_f64(v);
    let (even, odd) = (d[4] - c(4.0) * d[2], d[3] - c(4.0) * d[1]);
    let (wide, twice) = (d[4] - d[2], c(2.0) * (d[3] - d[1]));
    [
        c(4.0) * d[0] - c(5.0) * d[2] + d[4],
        even + odd,
        even - odd,
        wide + twice,
        wide - twice,
        c(4.0) * d[1] - c(5.0) * d[3] + d[5],
    ]
}

/// G: three weights to six points.
#[inline(always)]
pub fn weight<T: Real>(g: [T; 3]) -> [T; 6] {
    let c = |v: f64| T::from_f64(v);
    let (sum, odd) = (c(-1.0 / 6.0) * (g[0] + g[2]), c(1.0 / 6.0) * g[1]);
    let (wide, twice) = (c(1.0 / 24.0) * g[0] + c(1.0 / 6.0) * g[2], c(1.0 / 12.0) * g[1]);
    [c(0.25) * g[0], sum - odd, sum + odd, wide + twice, wide - twice, g[2]]
}

/// A: six points to four neighbouring outputs.
#[inline(always)]
pub fn output<T: Real>(m: [T; 6]) -> [T; 4] {
    let c = |v: f64| T::from_f64(v);
    let (a, b) = (m[1] + m[2], m[1] - m[2]);
    let (wide, twice) = (m[3] + m[4], m[3] - m[4]);
    [m[0] + a + wide, b + c(2.0) * twice, a + c(4.0) * wide, b + c(8.0) * twice + m[5]]
}

/// A transposed: four gradients of outputs to six points.
#[inline(always)]
pub fn output_gradient<T: Real>(d: [T; 4]) -> [T; 6] {
    let c = |v: f64| T::from_f64(v);
    let (even, odd) = (d[0] + d[2], d[1] + d[3]);
    let (wide, twice) = (d[0] + c(4.0) * d[2], c(2.0) * d[1] + c(8.0) * d[3]);
    [d[0], even + odd, even - odd, wide + twice, wide - twice, d[3]]
}

/// G transposed: six points to three gradients of weights.
#[inline(always)]
pub fn weight_gradient<T: Real>(u: [T; 6]) -> [T; 3] {
    let c = |v: f64| T::from_f64(v);
    let (near, far) = (c(1.0 / 6.0) * (u[1] + u[2]), u[3] + u[4]);
    [
        c(0.25) * u[0] - near + c(1.0 / 24.0) * far,
        c(1.0 / 6.0) * (u[2] - u[1]) + c(1.0 / 12.0) * (u[3] - u[4]),
        c(1.0 / 6.0) * far - near + u[5],
    ]
}

/// `WIDTH` columns of `N` rows to `M` rows, by a map along the rows.
#[inline(always)]
pub fn columns<T: Real, const N: usize, const M: usize>(
    rows: [&[T; WIDTH]; N],
    map: impl Fn([T; N]) -> [T; M],
) -> [[T; WIDTH]; M] {
    let mut out = [[T::ZERO; WIDTH]; M];
    for e in 0..WIDTH {
        let mut column = [T::ZERO; N];
        for (v, row) in column.iter_mut().zip(rows) {
            *v = row[e];
        }
        for (row, v) in out.iter_mut().zip(map(column)) {
            row[e] = v;
        }
    }
    out
}
