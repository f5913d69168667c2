//! Diagonals and triangles of matrices as vectors, and back.

use super::super::Param;
use super::super::registry::Registry;
use super::*;

pub(super) fn register(r: &mut Registry) {
    diagonals(r);
    packed_triangles(r);
}

/// Which places of an `n x n` matrix a packed vector holds, in its order.
fn places(attrs: &Attrs, n: usize) -> Vec<usize> {
    let offset = attrs.int("offset") as isize;
    let packed = attrs.has("lower");
    let lower = offset < 0 || (offset == 0 && packed && attrs.bool("lower"));
    let mut out = Vec::new();
    for i in 0..n {
        // A lower triangle goes row after row, an upper one column after column: one is the other transposed.
        let edge = if packed && !lower { i as isize - offset } else { i as isize + offset };
        match (packed, lower) {
            (false, _) if (0..n as isize).contains(&edge) => out.push(i * n + edge as usize),
            (true, true) => out.extend((0..=edge).map(|j| i * n + j as usize)),
            (true, false) => out.extend((0..=edge).map(|row| row as usize * n + i)),
            _ => {}
        }
    }
    out
}

fn offset_param() -> Param {
    int("offset", "the diagonal: above the main one where positive").or(0i64).at_least(-1e12).at_most(1e12)
}

fn diagonals(r: &mut Registry) {
    extracting(
        r,
        ["_linalg_extractdiag", "linalg_extractdiag"],
        "_linalg_makediag",
        "The diagonal of each matrix.",
    );
    making(r, ["_linalg_makediag", "linalg_makediag"], "_linalg_extractdiag", "Matrices with this diagonal.");
    r.op("_linalg_sumlogdiag", "The sum of the logarithms of the diagonal of each matrix.")
        .input("A", "(..., n, n), with a positive diagonal")
        .alias(&["linalg_sumlogdiag"])
        .compose(|b, _, x| {
            let diagonal = b.unary("_linalg_extractdiag", x[0])?;
            let logs = b.unary("log", diagonal)?;
            let mut sums = b.shape(logs).clone();
            sums.set(sums.ndim() - 1, 1);
            let sum = b.sum_to(logs, &sums)?;
            let shape = fronts(b.shape(x[0]));
            Ok(one(b.reshape(sum, &shape)?))
        })
        .sample(&[draw(&[2, 2]).within(0.5, 1.5)], &[]);
}

fn packed_triangles(r: &mut Registry) {
    extracting(
        r,
        ["_linalg_extracttrian", "linalg_extracttrian"],
        "_linalg_maketrian",
        "A triangle of each matrix: a lower one by rows, an upper one by columns.",
    );
    making(
        r,
        ["_linalg_maketrian", "linalg_maketrian"],
        "_linalg_extracttrian",
        "Triangular matrices from their elements: a lower one by rows, an upper one by columns.",
    );
    for name in ["_linalg_extracttrian", "_linalg_maketrian"] {
        r.find_mut(name).param(
            flag("lower", "with offset 0, the lower triangle; else the offset's sign decides").or(true),
        );
    }
}

/// The attributes of a map, for its transpose.
fn copied(attrs: &Attrs) -> Vec<(&'static str, AttrValue)> {
    attrs.op().params.iter().map(|p| (p.name, attrs.get(p.name).clone())).collect()
}

fn extracting(
    r: &mut Registry,
    [name, alias]: [&'static str; 2],
    transpose: &'static str,
    doc: &'static str,
) {
    r.op(name, doc)
        .input("A", "(..., n, n)")
        .param(offset_param())
        .alias(&[alias])
        .infer(|s| {
            let (_, n) = squares(s)?;
            let offset = s.attrs.int("offset").unsigned_abs() as usize;
            if offset >= n.max(1) {
                return Err(
                    s.fail(format!("argument offset = {} leaves the matrices", s.attrs.int("offset")))
                );
            }
            let (left, shape) = (n - offset, s.shape(0));
            let mut out = Shape::new(&shape[..shape.ndim() - 2]);
            out.push(if s.attrs.has("lower") { left * (left + 1) / 2 } else { left });
            s.shaped(out)
        })
        .kernel(|c| {
            let (_, n, _) = stack(c.shape(0));
            let places = places(c.attrs, n);
            dispatch_real!(c, T => {
                let (x, y) = (c.x::<T>(0), c.y::<T>(0));
                for (x, y) in x.chunks_exact((n * n).max(1)).zip(y.chunks_exact_mut(places.len().max(1))) {
                    y.iter_mut().zip(&places).for_each(|(to, at)| *to = x[*at]);
                }
                Ok(())
            })
        })
        .gpu(on_gpu::extract)
        .keeps(&[], &[])
        .grad(move |b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let grad = b.op1(transpose, &[head], &copied(g.attrs))?;
            g.first(grad)
        })
        .sample(&[draw(&[2, 3, 3])], &[("offset", 1i64.into())]);
}

fn making(r: &mut Registry, [name, alias]: [&'static str; 2], transpose: &'static str, doc: &'static str) {
    r.op(name, doc)
        .input("A", "(..., length)")
        .param(offset_param())
        .alias(&[alias])
        .infer(|s| {
            s.expect_ndim(0, 1..=Shape::MAX_NDIM - 1)?;
            let shape = s.shape(0);
            let length = shape[shape.ndim() - 1];
            let packed = s.attrs.has("lower");
            // The root of a triangular number is exact after rounding.
            let side =
                if packed { ((2.0 * length as f64 + 0.25).sqrt() - 0.5).round() as usize } else { length };
            if packed && side.checked_mul(side + 1).is_none_or(|n| n / 2 != length) {
                return Err(s.fail(format!(
                    "{length} elements do not fill a triangle; 1, 3, 6, 10, ... are allowed"
                )));
            }
            let n = side + s.attrs.int("offset").unsigned_abs() as usize;
            let mut out = Shape::new(&shape[..shape.ndim() - 1]);
            out.push(n);
            out.push(n);
            out.checked_size().map_err(|e| e.within(s.op.name))?;
            s.shaped(out)
        })
        .kernel(|c| {
            let (_, n, _) = stack(c.out_shape(0));
            dispatch_real!(c, T => {
                let (x, y) = (c.x::<T>(0), c.y::<T>(0));
                y.fill(0.0);
                let places = if y.is_empty() { Vec::new() } else { places(c.attrs, n) };
                for (x, y) in x.chunks_exact(places.len().max(1)).zip(y.chunks_exact_mut((n * n).max(1))) {
                    x.iter().zip(&places).for_each(|(from, at)| y[*at] = *from);
                }
                Ok(())
            })
        })
        .gpu(on_gpu::make)
        .keeps(&[], &[])
        .grad(move |b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let grad = b.op1(transpose, &[head], &copied(g.attrs))?;
            g.first(grad)
        })
        .sample(&[draw(&[2, 3])], &[("offset", (-1i64).into())]);
}
