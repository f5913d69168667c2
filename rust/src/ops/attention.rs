//! Products of multi-head attention on projections that lie interleaved, head by head, in one array.
//!
//! Sequences come first: (length, batch, features), the features being heads x parts x depth. Each operator is a
//! composition of a transposition and a batched product; the softmax between them is the program's.

use super::registry::Registry;
use super::{Attrs, Build, Value, Values, draw, int};
use mxrs_base::{Error, Result, Shape};

pub fn register(r: &mut Registry) {
    let heads = || int("heads", "number of attention heads").at_least(1.0);
    r.op(
        "_contrib_interleaved_matmul_selfatt_qk",
        "Queries by keys over the square root of the depth, of one array.",
    )
    .input("queries_keys_values", "(length, batch, heads x 3 x depth)")
    .param(heads())
    .compose(|b, a, ins| {
        let [queries, keys] = [parts(b, a, ins[0], 3)?.take(b, 0)?, parts(b, a, ins[0], 3)?.take(b, 1)?];
        scores(b, queries, keys)
    })
    .sample(&[draw(&[3, 2, 12])], &[("heads", 2i64.into())]);
    r.op("_contrib_interleaved_matmul_selfatt_valatt", "Attention by values, of one array.")
        .input("queries_keys_values", "(length, batch, heads x 3 x depth)")
        .input("attention", "(batch x heads, length, length)")
        .param(heads())
        .compose(|b, a, ins| attended(b, a, ins, 3))
        .sample(&[draw(&[3, 2, 12]), draw(&[4, 3, 3])], &[("heads", 2i64.into())]);
    r.op(
        "_contrib_interleaved_matmul_encdec_qk",
        "Queries by keys over the square root of the depth, of two arrays.",
    )
    .input("queries", "(length of queries, batch, heads x depth)")
    .input("keys_values", "(length of keys, batch, heads x 2 x depth)")
    .param(heads())
    .compose(|b, a, ins| {
        let queries = parts(b, a, ins[0], 1)?.take(b, 0)?;
        let keys = parts(b, a, ins[1], 2)?.take(b, 0)?;
        scores(b, queries, keys)
    })
    .sample(&[draw(&[3, 2, 4]), draw(&[5, 2, 8])], &[("heads", 2i64.into())]);
    r.op(
        "_contrib_interleaved_matmul_encdec_valatt",
        "Attention by values, of the array of keys and values.",
    )
    .input("keys_values", "(length of keys, batch, heads x 2 x depth)")
    .input("attention", "(batch x heads, length of queries, length of keys)")
    .param(heads())
    .compose(|b, a, ins| attended(b, a, ins, 2))
    .sample(&[draw(&[5, 2, 8]), draw(&[4, 3, 5])], &[("heads", 2i64.into())]);
}

/// Interleaved parts turned to (parts, batch x heads, length, depth).
struct Parts {
    all: Value,
    /// (batch x heads, length, depth)
    shape: [usize; 3],
    batch: usize,
}

fn parts(b: &mut dyn Build, a: &Attrs, x: Value, count: usize) -> Result<Parts> {
    let (heads, shape) = (a.size("heads"), b.shape(x).clone());
    let fault = |text: String| Error::op(format!("{}: {text}", a.op().name));
    let [length, batch, features] = *shape else {
        return Err(fault(format!("an input has shape {shape}; (length, batch, features) is expected")));
    };
    let groups = heads.checked_mul(count).filter(|n| features.is_multiple_of(*n));
    let Some(groups) = groups else {
        return Err(fault(format!(
            "{features} features cannot be parted into {heads} heads of {count} equal parts"
        )));
    };
    let depth = features / groups;
    let apart = b.reshape(x, &Shape::from([length, batch * heads, count, depth]))?;
    let all = b.transpose(apart, &[2, 1, 0, 3])?;
    Ok(Parts { all, shape: [batch * heads, length, depth], batch })
}

impl Parts {
    /// Part `k` as (batch x heads, length, depth).
    fn take(&self, b: &mut dyn Build, k: usize) -> Result<Value> {
        let shape = Shape::from(self.shape);
        let skip = (k * shape.size()).into();
        b.op1("_window", &[self.all], &[("skip", skip), ("shape", (&shape).into())])
    }
}

fn scores(b: &mut dyn Build, queries: Value, keys: Value) -> Result<Values> {
    let depth = b.shape(queries).last().copied().unwrap_or(1).max(1);
    let scaled = b.scale(queries, 1.0 / (depth as f64).sqrt())?;
    Ok(super::one(b.op1("batch_dot", &[scaled, keys], &[("transpose_b", true.into())])?))
}

/// Attention by the last of `count` parts, back in the layout (length, batch, features).
fn attended(b: &mut dyn Build, a: &Attrs, ins: &[Value], count: usize) -> Result<Values> {
    let parts = parts(b, a, ins[0], count)?;
    let values = parts.take(b, count - 1)?;
    let mixed = b.op1("batch_dot", &[ins[1], values], &[])?;
    let (length, [rows, _, depth]) = (b.shape(mixed)[1], parts.shape);
    let turned = b.transpose(mixed, &[1, 0, 2])?;
    let features = rows.checked_div(parts.batch).unwrap_or(0) * depth;
    Ok(super::one(b.reshape(turned, &Shape::from([length, parts.batch, features]))?))
}
