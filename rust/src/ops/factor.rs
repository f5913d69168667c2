//! Matrices taken apart: triangles, factorisations, solving and determinants, on stacks of matrices; diagonals and
//! triangles as vectors are in `packed`.
//!
//! These serve small matrices (covariances, Gaussian processes), so the loops are plain; products are in `linalg`.

use super::linalg::wanted;
use super::registry::Registry;
use super::{Attrs, Build, Ctx, GradArgs, Grads, Sig, Spec, Specs, Value, draw, flag, float, int, one};
use mxrs_base::{AttrValue, DType, Elem, Error, Result, Shape};
use smallvec::smallvec;
use std::ops::{Add, Div, Mul, Sub};

/// What elimination needs.
trait Number: Elem + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> {}
impl Number for f32 {}
impl Number for f64 {}

/// Runs `$body` with `$T` standing for float32 or float64; other types are refused.
macro_rules! dispatch_real {
    ($c:expr, $T:ident => $body:expr) => {
        match $c.dtype(0) {
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::F64 => {
                type $T = f64;
                $body
            }
            other => $c.bad_dtype(other),
        }
    };
}

// After the macro, which `packed` uses.
mod on_gpu;
mod packed;

pub fn register(r: &mut Registry) {
    triangle(r);
    mirror(r);
    triangular_product(r);
    triangular_solve(r);
    cholesky(r);
    inverse(r);
    determinants(r);
    packed::register(r);
}

/// Input 0 is a stack of square matrices of float32 or float64; their number and extent.
fn squares(s: &Sig) -> Result<(usize, usize)> {
    if !matches!(s.dtype(0), DType::F32 | DType::F64) {
        return Err(s.fail(format!("element type {} is not supported; float32 and float64 are", s.dtype(0))));
    }
    s.expect_ndim(0, 2..=Shape::MAX_NDIM)?;
    let (count, n, m) = stack(s.shape(0));
    if n != m {
        return Err(s.fail(format!("the matrices are {n} x {m}; square ones are allowed")));
    }
    Ok((count, n))
}

/// `(matrices, rows, columns)` of a stack.
fn stack(shape: &Shape) -> (usize, usize, usize) {
    let n = shape.ndim();
    (shape[..n - 2].iter().product(), shape[n - 2], shape[n - 1])
}

/// The axes in front of the matrices; (1,) where there is none, as one number has in MXNet.
fn fronts(shape: &Shape) -> Shape {
    match &shape[..shape.ndim() - 2] {
        [] => Shape::new(&[1]),
        front => Shape::new(front),
    }
}

fn cubic(s: &Sig, _: &[Spec]) -> f64 {
    let (count, n, m) = if s.shape(0).ndim() < 2 { (0, 0, 0) } else { stack(s.shape(0)) };
    100.0 + count as f64 * (n * n) as f64 * m as f64
}

fn square_like(s: &Sig) -> Result<Specs> {
    squares(s)?;
    s.same(0)
}

// ---- triangles ----

fn triangle(r: &mut Registry) {
    r.op("_linalg_triangle", "The lower or upper triangle of each matrix, zeros elsewhere.")
        .input("A", "(..., n, n)")
        .param(flag("lower", "the lower one").or(true))
        .infer(square_like)
        .kernel(|c| {
            let ((_, n, _), lower) = (stack(c.shape(0)), c.attrs.bool("lower"));
            dispatch_real!(c, T => {
                let (x, y) = (c.x::<T>(0), c.y::<T>(0));
                for (at, (to, from)) in y.iter_mut().zip(x).enumerate() {
                    let (i, j) = (at / n % n, at % n);
                    *to = if if lower { j <= i } else { j >= i } { *from } else { 0.0 };
                }
                Ok(())
            })
        })
        .gpu(on_gpu::triangle)
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let grad = keep_triangle(b, head, g.attrs.bool("lower"))?;
            g.first(grad)
        })
        .hidden()
        .sample(&[draw(&[2, 3, 3])], &[("lower", false.into())]);
}

fn keep_triangle(b: &mut dyn Build, a: Value, lower: bool) -> Result<Value> {
    b.op1("_linalg_triangle", &[a], &[("lower", lower.into())])
}

/// The lower triangle copied up, and the transpose of that map: the upper added to the lower.
fn mirror(r: &mut Registry) {
    const PAIR: [(&str, &str, &str); 2] = [
        ("_linalg_mirror", "_linalg_fold", "The symmetric matrix with this lower triangle."),
        ("_linalg_fold", "_linalg_mirror", "The lower triangle with the upper one added to it."),
    ];
    for (name, transpose, doc) in PAIR {
        let fold = name == "_linalg_fold";
        r.op(name, doc)
            .input("A", "(..., n, n)")
            .infer(square_like)
            .kernel(move |c| {
                let (_, n, _) = stack(c.shape(0));
                dispatch_real!(c, T => {
                    let (x, y) = (c.x::<T>(0), c.y::<T>(0));
                    for (x, y) in x.chunks_exact((n * n).max(1)).zip(y.chunks_exact_mut((n * n).max(1))) {
                        for i in 0..n {
                            y[i * n + i] = x[i * n + i];
                            for j in 0..i {
                                let (low, high) = (i * n + j, j * n + i);
                                (y[low], y[high]) = if fold { (x[low] + x[high], 0.0) } else { (x[low], x[low]) };
                            }
                        }
                    }
                    Ok(())
                })
            })
            .gpu(move |c| on_gpu::mirror(c, fold))
            .keeps(&[], &[])
            .grad(move |b, g| {
                let Some(head) = g.heads[0] else { return Ok(g.none()) };
                let grad = b.unary(transpose, head)?;
                g.first(grad)
            })
            .hidden()
            .sample(&[draw(&[2, 3, 3])], &[]);
    }
}

fn triangle_params() -> [super::Param; 4] {
    [
        flag("transpose", "use the transpose of A").or(false),
        flag("rightside", "A stands on the right").or(false),
        flag("lower", "A is lower triangular; the other triangle is not read").or(true),
        float("alpha", "factor of the result").or(1.0),
    ]
}

fn triangular_product(r: &mut Registry) {
    r.op("_linalg_trmm", "alpha * op(A) B, or alpha * B op(A), for triangular A.")
        .input("A", "(..., n, n), triangular")
        .input("B", "(..., n, m); with `rightside` (..., m, n)")
        .params(triangle_params())
        .alias(&["linalg_trmm"])
        .compose(|b, a, x| {
            let tri = keep_triangle(b, x[0], a.bool("lower"))?;
            let (turned, right) = (a.bool("transpose"), a.bool("rightside"));
            let product = gemm2(b, (tri, turned), (x[1], false), right, a.float("alpha"))?;
            Ok(one(product))
        })
        .sample(&[draw(&[3, 3]), draw(&[3, 2])], &[("transpose", true.into()), ("alpha", 1.5.into())])
        .sample(&[draw(&[3, 3]), draw(&[2, 3])], &[("rightside", true.into()), ("lower", false.into())]);
}

/// `alpha * op(A) op(B)`, or with the operands exchanged.
fn gemm2(
    b: &mut dyn Build,
    left: (Value, bool),
    right: (Value, bool),
    exchanged: bool,
    alpha: f64,
) -> Result<Value> {
    let ((x, tx), (y, ty)) = if exchanged { (right, left) } else { (left, right) };
    let attrs = [("transpose_a", tx.into()), ("transpose_b", ty.into()), ("alpha", alpha.into())];
    b.op1("_linalg_gemm2", &[x, y], &attrs)
}

// ---- solving ----

/// X of `op(A) X = alpha B`, or of `X op(A) = alpha B` with `right`.
fn solve(
    b: &mut dyn Build,
    a: Value,
    x: Value,
    (transpose, right, lower): (bool, bool, bool),
    alpha: f64,
) -> Result<Value> {
    let attrs = [
        ("transpose", transpose.into()),
        ("rightside", right.into()),
        ("lower", lower.into()),
        ("alpha", alpha.into()),
    ];
    b.op1("_linalg_trsm", &[a, x], &attrs)
}

fn triangular_solve(r: &mut Registry) {
    r.op("_linalg_trsm", "X with op(A) X = alpha * B, or X op(A) = alpha * B, for triangular A.")
        .input("A", "(..., n, n), triangular")
        .input("B", "(..., n, m); with `rightside` (..., m, n)")
        .params(triangle_params())
        .alias(&["linalg_trsm"])
        .infer(|s| {
            s.one_dtype()?;
            let (_, n) = squares(s)?;
            let (a, b) = (s.shape(0), s.shape(1));
            let last = a.ndim() - 1;
            let solved = if s.attrs.bool("rightside") { last } else { last - 1 };
            if b.ndim() != a.ndim() || a[..last - 1] != b[..last - 1] || b[solved] != n {
                return Err(s.fail(format!("axis {solved} of B must have {n} elements, the axes in front must be A's")));
            }
            s.same(1)
        })
        .kernel(|c| {
            dispatch_real!(c, T => {
                let (_, n, _) = stack(c.shape(0));
                let (_, rows, cols) = stack(c.shape(1));
                let (alpha, y) = (c.attrs.float("alpha") as T, c.y::<T>(0));
                y.iter_mut().zip(c.x::<T>(1)).for_each(|(y, b)| *y = *b * alpha);
                for (a, y) in c.x::<T>(0).chunks_exact((n * n).max(1)).zip(y.chunks_exact_mut((rows * cols).max(1))) {
                    solve_one(c.attrs, n, a, cols, y);
                }
                Ok(())
            })
        })
        .gpu(on_gpu::triangular_solve)
        .cost(|s, _| cubic(s, &[]) + s.shape(1).size() as f64 * s.shape(0)[s.shape(0).ndim() - 1] as f64)
        .keeps(&[0], &[0])
        .grad(solve_grad)
        .sample(&[draw(&[2, 2]).within(1.0, 2.0), draw(&[2, 3])], &[("alpha", 1.5.into())]);
}

/// Substitution in place: `y` holds the right side and then the solution, rows of `cols` elements.
fn solve_one<T: Number>(attrs: &Attrs, n: usize, a: &[T], cols: usize, y: &mut [T]) {
    let (turned, right) = (attrs.bool("transpose"), attrs.bool("rightside"));
    // The solution of `X op(A)` is that of the transposed system, whose unknowns lie along rows.
    let at = |i: usize, k: usize| if turned == right { a[i * n + k] } else { a[k * n + i] };
    let forward = (attrs.bool("lower") != turned) != right;
    let step = |i: usize| if forward { i } else { n - 1 - i };
    for i in 0..n {
        let row = step(i);
        for k in (0..i).map(step) {
            let factor = at(row, k);
            if right {
                y.chunks_exact_mut(n).for_each(|x| x[row] = x[row] - factor * x[k]);
            } else {
                for j in 0..cols {
                    y[row * cols + j] = y[row * cols + j] - factor * y[k * cols + j];
                }
            }
        }
        let pivot = at(row, row);
        if right {
            y.chunks_exact_mut(n).for_each(|x| x[row] = x[row] / pivot);
        } else {
            y[row * cols..(row + 1) * cols].iter_mut().for_each(|v| *v = *v / pivot);
        }
    }
}

/// With S the solution for the transposed A and the head, B gets `alpha * S`, and A minus the product of S and X that
/// has its shape, as far as its triangle reaches.
fn solve_grad(b: &mut dyn Build, g: &GradArgs) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let (turned, right, lower) =
        (g.attrs.bool("transpose"), g.attrs.bool("rightside"), g.attrs.bool("lower"));
    let s = solve(b, g.ins[0], head, (!turned, right, lower), 1.0)?;
    let mut grads = g.none();
    grads[0] = wanted(g, 0, || {
        let x = g.outs[0];
        let product = match (right, turned) {
            (false, false) => gemm2(b, (s, false), (x, true), false, -1.0),
            (false, true) => gemm2(b, (x, false), (s, true), false, -1.0),
            (true, false) => gemm2(b, (x, true), (s, false), false, -1.0),
            (true, true) => gemm2(b, (s, true), (x, false), false, -1.0),
        }?;
        keep_triangle(b, product, lower)
    })?;
    grads[1] = wanted(g, 1, || b.scale(s, g.attrs.float("alpha")))?;
    Ok(grads)
}

// ---- factorisations ----

fn cholesky(r: &mut Registry) {
    r.op("_linalg_potrf", "The lower triangular L with L L^T = A, for symmetric positive definite A; others raise, on a GPU they give \
         not-a-number.")
        .input("A", "(..., n, n); the lower triangle is read")
        .alias(&["linalg_potrf"])
        .infer(square_like)
        .kernel(|c| {
            let (_, n, _) = stack(c.shape(0));
            dispatch_real!(c, T => {
                let size = (n * n).max(1);
                for (a, l) in c.x::<T>(0).chunks_exact(size).zip(c.y::<T>(0).chunks_exact_mut(size)) {
                    if !cholesky_one(n, a, l) {
                        return Err(c.fail("a matrix is not positive definite; symmetric positive definite ones are allowed"));
                    }
                }
                Ok(())
            })
        })
        .gpu(on_gpu::cholesky)
        .cost(cubic)
        .keeps(&[], &[0])
        // Murray, Differentiation of the Cholesky decomposition, 2016, for a symmetric A.
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let l = g.outs[0];
            let inner = gemm2(b, (l, true), (head, false), false, 1.0)?;
            let inner = b.unary("_linalg_mirror", inner)?;
            let left = solve(b, l, inner, (true, false, true), 0.5)?;
            let grad = solve(b, l, left, (false, true, true), 1.0)?;
            g.first(grad)
        })
        // Drawn matrices are positive definite where they are numbers; larger ones are in the family's own tests.
        .sample(&[draw(&[2, 1, 1]).within(0.5, 2.0)], &[]);
    r.op("_linalg_potri", "The inverse of L L^T, given the lower triangular L.")
        .input("A", "(..., n, n); the lower triangle is read")
        .alias(&["linalg_potri"])
        .compose(|b, _, x| {
            let shape = b.shape(x[0]).clone();
            if shape.ndim() < 2 {
                return Err(Error::op(format!("_linalg_potri: A has shape {shape}; matrices are allowed")));
            }
            let (rows, dtype) = (Shape::new(&shape[..shape.ndim() - 1]), b.dtype(x[0]));
            let ones = b.op1("_ones", &[], &[("shape", (&rows).into()), ("dtype", dtype.into())])?;
            let eye = b.unary("_linalg_makediag", ones)?;
            let inverse = solve(b, x[0], eye, (false, false, true), 1.0)?;
            Ok(one(gemm2(b, (inverse, true), (inverse, false), false, 1.0)?))
        })
        .sample(&[draw(&[2, 2]).within(1.0, 2.0)], &[]);
}

/// Whether the factor exists.
fn cholesky_one<T: Number>(n: usize, a: &[T], l: &mut [T]) -> bool {
    l.fill(T::default());
    for i in 0..n {
        for j in 0..=i {
            let mut rest = a[i * n + j];
            for k in 0..j {
                rest = rest - l[i * n + k] * l[j * n + k];
            }
            l[i * n + j] = if i == j { T::from_f64(rest.to_f64().sqrt()) } else { rest / l[j * n + j] };
        }
        // A not-a-number compares false too.
        let positive = l[i * n + i] > T::default();
        if !positive {
            return false;
        }
    }
    true
}

/// Gaussian elimination with partial pivoting of `a` in place, applied to `b` (rows of `n`) along the way; gives the
/// sign and the logarithm of the determinant's absolute value, and stops where it is 0.
fn eliminate<T: Number>(n: usize, a: &mut [T], b: &mut [T]) -> (f64, f64) {
    let (mut sign, mut log) = (1.0, 0.0);
    for col in 0..n {
        let size = |row: usize| a[row * n + col].to_f64().abs();
        let best = (col..n).fold(col, |best, row| if size(row) > size(best) { row } else { best });
        let pivot = a[best * n + col];
        if pivot == T::default() {
            return (0.0, f64::NEG_INFINITY);
        }
        let width = if b.is_empty() { 0 } else { n };
        if best != col {
            sign = -sign;
            (0..n).for_each(|j| a.swap(best * n + j, col * n + j));
            (0..width).for_each(|j| b.swap(best * n + j, col * n + j));
        }
        sign *= pivot.to_f64().signum();
        log += pivot.to_f64().abs().ln();
        for row in (0..n).filter(|row| if width > 0 { *row != col } else { *row > col }) {
            let factor = a[row * n + col] / pivot;
            (col..n).for_each(|j| a[row * n + j] = a[row * n + j] - factor * a[col * n + j]);
            (0..width).for_each(|j| b[row * n + j] = b[row * n + j] - factor * b[col * n + j]);
        }
        (0..width).for_each(|j| b[col * n + j] = b[col * n + j] / pivot);
        if width > 0 {
            (col..n).for_each(|j| a[col * n + j] = a[col * n + j] / pivot);
        }
    }
    (sign, log)
}

fn inverse(r: &mut Registry) {
    r.op(
        "_linalg_inverse",
        "The inverse of each matrix; a singular one raises, on a GPU it gives not-a-number.",
    )
    .input("A", "(..., n, n)")
    .alias(&["linalg_inverse", "_npi_inv"])
    .infer(square_like)
    .kernel(|c| {
        let (_, n, _) = stack(c.shape(0));
        dispatch_real!(c, T => {
            let size = (n * n).max(1);
            for (a, y) in c.x::<T>(0).chunks_exact(size).zip(c.y::<T>(0).chunks_exact_mut(size)) {
                y.fill(0.0);
                (0..n).for_each(|i| y[i * n + i] = 1.0);
                if eliminate(n, &mut a.to_vec(), y).0 == 0.0 {
                    return Err(c.fail("a matrix is singular and has no inverse"));
                }
            }
            Ok(())
        })
    })
    .gpu(on_gpu::inverse)
    .cost(|s, outs| 2.0 * cubic(s, outs))
    .keeps(&[], &[0])
    .grad(|b, g| {
        let Some(head) = g.heads[0] else { return Ok(g.none()) };
        let left = gemm2(b, (g.outs[0], true), (head, false), false, -1.0)?;
        let grad = gemm2(b, (left, false), (g.outs[0], true), false, 1.0)?;
        g.first(grad)
    })
    .sample(&[draw(&[2, 1, 1]).within(0.5, 1.5)], &[]);
}

fn determinants(r: &mut Registry) {
    r.op("_linalg_det", "The determinant of each matrix.")
        .input("A", "(..., n, n)")
        .alias(&["linalg_det", "_npi_det"])
        .file_outputs(|_| 3)
        .infer(|s| {
            squares(s)?;
            s.shaped(fronts(s.shape(0)))
        })
        .kernel(|c| each_determinant(c, false))
        .gpu(|c| on_gpu::determinants(c, false))
        .cost(cubic)
        .keeps(&[0], &[0])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let weight = b.mul(head, g.outs[0])?;
            determinant_grad(b, g, weight)
        })
        .sample(&[draw(&[2, 1, 1]).within(0.5, 1.5)], &[]);
    r.op("_linalg_slogdet", "Sign of the determinant, and logarithm of its absolute value, of each matrix.")
        .input("A", "(..., n, n)")
        .alias(&["linalg_slogdet", "_npi_slogdet"])
        .visible(|_| 2)
        .file_outputs(|_| 4)
        .infer(|s| {
            squares(s)?;
            let spec = Spec::new(fronts(s.shape(0)), s.dtype(0));
            Ok(smallvec![spec.clone(), spec])
        })
        .kernel(|c| each_determinant(c, true))
        .gpu(|c| on_gpu::determinants(c, true))
        .cost(cubic)
        .keeps(&[0], &[])
        .grad(|b, g| match g.heads[1] {
            Some(head) => determinant_grad(b, g, head),
            None => Ok(g.none()),
        })
        .sample(&[draw(&[2, 1, 1]).within(0.5, 1.5)], &[]);
}

fn each_determinant(c: &Ctx, split: bool) -> Result<()> {
    let (_, n, _) = stack(c.shape(0));
    dispatch_real!(c, T => {
        let (first, second) = (c.y::<T>(0), if split { Some(c.y::<T>(1)) } else { None });
        let results: Vec<(f64, f64)> = (0..first.len())
            .map(|i| eliminate(n, &mut c.x::<T>(0)[i * n * n..(i + 1) * n * n].to_vec(), &mut []))
            .collect();
        match second {
            Some(second) => {
                for ((sign, log), result) in first.iter_mut().zip(second).zip(results) {
                    (*sign, *log) = (result.0 as T, result.1 as T);
                }
            }
            None => first.iter_mut().zip(results).for_each(|(y, (sign, log))| *y = (sign * log.exp()) as T),
        }
        Ok(())
    })
}

/// The transposed inverse, each matrix times its number of `weight`.
fn determinant_grad(b: &mut dyn Build, g: &GradArgs, weight: Value) -> Result<Grads> {
    let shape = b.shape(g.ins[0]).clone();
    let n = shape.ndim();
    let inverse = b.unary("_linalg_inverse", g.ins[0])?;
    let mut axes: Vec<i64> = (0..n as i64).collect();
    axes.swap(n - 1, n - 2);
    let turned = b.transpose(inverse, &axes)?;
    let mut one_each = shape.clone();
    one_each.set(n - 1, 1);
    one_each.set(n - 2, 1);
    let weight = b.reshape(weight, &one_each)?;
    let grad = b.mul(turned, weight)?;
    g.first(grad)
}
