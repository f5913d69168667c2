//! SequenceMask, SequenceLast and SequenceReverse: arrays of time steps of which each sequence uses the first few.
//!
//! Arrays are (time, batch, inner), or (batch, time, inner) where time is axis 1. Lengths have any element type,
//! fractions are cut. The operators without lengths are an identity, the last step and a flip: views of `copy`.

use crate::copy::{Unit, for_each_row};
use mxrs_base::{Elem, Error, Result};
use smallvec::SmallVec;

/// The sizes of a sequence array and which of its first two axes is time.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    pub time: usize,
    pub batch: usize,
    pub inner: usize,
    /// The array is (batch, time, inner).
    pub time_second: bool,
}

impl Steps {
    /// Time and batch index of a row of `inner` elements.
    #[inline(always)]
    fn locate(&self, row: usize) -> (usize, usize) {
        if self.time_second {
            (row % self.time, row / self.time)
        } else {
            (row / self.batch, row % self.batch)
        }
    }
    #[inline(always)]
    fn row(&self, time: usize, batch: usize) -> usize {
        if self.time_second { batch * self.time + time } else { time * self.batch + batch }
    }
    fn check(&self, len: usize, lengths: usize) {
        assert_eq!(len, self.time * self.batch * self.inner, "sequence: the array's size");
        assert_eq!(lengths, self.batch, "sequence: one length per sequence");
    }
}

type Lengths = SmallVec<[usize; 32]>;

/// Lengths of at least `least` and at most `time`; an error names the first that is not.
fn checked_lengths<L: Elem>(lengths: &[L], least: i64, time: usize) -> Result<Lengths> {
    let check = |(b, l): (usize, &L)| match l.to_i64() {
        l if l >= least && l <= time as i64 => Ok(l as usize),
        l => Err(Error::value(format!(
            "sequence_length[{b}] is {l}; allowed are {least} to {time}, the number of time steps"
        ))),
    };
    lengths.iter().enumerate().map(check).collect()
}

/// Sets the steps of `data` from each sequence's length on to `value`, in place. Lengths beyond the array leave their
/// sequence as it is, negative ones count as 0. The gradient is the same with 0 on the head gradient.
pub fn mask<U: Unit, L: Elem>(data: &mut [U], lengths: &[L], steps: Steps, value: U) {
    steps.check(data.len(), lengths.len());
    for_each_row(data, steps.inner, steps.inner, |row, line| {
        let (t, b) = steps.locate(row);
        if t as i64 >= lengths[b].to_i64() {
            line.fill(value);
        }
    });
}

/// The last used step of each sequence, out (batch, inner). A length outside 1..=time is an error.
pub fn last<U: Unit, L: Elem>(data: &[U], lengths: &[L], steps: Steps, out: &mut [U]) -> Result<()> {
    steps.check(data.len(), lengths.len());
    assert_eq!(out.len(), steps.batch * steps.inner, "SequenceLast: the output's size");
    let lengths = checked_lengths(lengths, 1, steps.time)?;
    for_each_row(out, steps.inner, steps.inner, |b, line| {
        let row = steps.row(lengths[b] - 1, b);
        line.copy_from_slice(&data[row * steps.inner..][..steps.inner]);
    });
    Ok(())
}

/// Gradient of [`last`]: out (the array's shape) is grad (batch, inner) at the last steps, zero elsewhere.
pub fn last_grad<U: Unit, L: Elem>(grad: &[U], lengths: &[L], steps: Steps, out: &mut [U]) -> Result<()> {
    steps.check(out.len(), lengths.len());
    assert_eq!(grad.len(), steps.batch * steps.inner, "SequenceLast: the gradient's size");
    let lengths = checked_lengths(lengths, 1, steps.time)?;
    for_each_row(out, steps.inner, steps.inner, |row, line| {
        let (t, b) = steps.locate(row);
        if t + 1 == lengths[b] {
            line.copy_from_slice(&grad[b * steps.inner..][..steps.inner]);
        } else {
            line.fill(U::default());
        }
    });
    Ok(())
}

/// The used steps of each sequence in reverse order, the rest as they are; its own gradient. A length outside
/// 0..=time is an error.
pub fn reverse<U: Unit, L: Elem>(data: &[U], lengths: &[L], steps: Steps, out: &mut [U]) -> Result<()> {
    steps.check(data.len(), lengths.len());
    assert_eq!(out.len(), data.len(), "SequenceReverse: the output's size");
    let lengths = checked_lengths(lengths, 0, steps.time)?;
    for_each_row(out, steps.inner, steps.inner, |row, line| {
        let (t, b) = steps.locate(row);
        let from = if t < lengths[b] { steps.row(lengths[b] - 1 - t, b) } else { row };
        line.copy_from_slice(&data[from * steps.inner..][..steps.inner]);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Steps = Steps { time: 3, batch: 2, inner: 1, time_second: false };
    const B: Steps = Steps { time: 3, batch: 2, inner: 1, time_second: true };
    const DATA: [u32; 6] = [1, 2, 3, 4, 5, 6];

    #[test]
    fn masks() {
        let run = |lengths: [f32; 2], steps| {
            let mut d = DATA;
            mask(&mut d, &lengths, steps, 0);
            d
        };
        assert_eq!(run([1.0, 2.0], T), [1, 2, 0, 4, 0, 0]);
        assert_eq!(run([1.0, 2.0], B), [1, 0, 0, 4, 5, 0]);
        assert_eq!(run([5.0, 1.9], T), [1, 2, 3, 0, 5, 0]);
        assert_eq!(run([-1.0, f32::NAN], T), [0; 6]);
    }

    #[test]
    fn lasts() {
        let mut out = [0u32; 2];
        last(&DATA, &[1f32, 3.0], T, &mut out).unwrap();
        assert_eq!(out, [1, 6]);
        last(&DATA, &[1i32, 3], B, &mut out).unwrap();
        assert_eq!(out, [1, 6]);
        let mut grad = [9u32; 6];
        last_grad(&[7, 8], &[1u8, 2], T, &mut grad).unwrap();
        assert_eq!(grad, [7, 0, 0, 8, 0, 0]);
        assert!(last(&DATA, &[0i32, 1], T, &mut out).is_err());
        let e = last(&DATA, &[1i64, 4], T, &mut out).unwrap_err();
        assert_eq!(e.message(), "sequence_length[1] is 4; allowed are 1 to 3, the number of time steps");
    }

    #[test]
    fn reverses() {
        let run = |lengths: [f32; 2], steps| {
            let mut out = [0u32; 6];
            reverse(&DATA, &lengths, steps, &mut out).map(|_| out)
        };
        assert_eq!(run([2.0, 3.0], T).unwrap(), [3, 6, 1, 4, 5, 2]);
        assert_eq!(run([2.0, 3.0], B).unwrap(), [2, 1, 3, 6, 5, 4]);
        assert_eq!(run([0.0, 1.0], T).unwrap(), DATA);
        assert!(run([4.0, 1.0], T).is_err());
        assert!(run([f32::NAN, 1.0], T).is_err());
    }
}
