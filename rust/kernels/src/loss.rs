//! Connectionist temporal classification (Graves, Fernández, Gomez, Schmidhuber 2006): loss and gradient.
//!
//! The recursion runs over the label sequence with blanks between, in the log domain and in f64. Losses that are a
//! formula over elements are operators, and softmax with cross-entropy is in [`crate::softmax`].

// Loops over several slices at once: one index says it better than nested zips, and vectorises.
#![allow(clippy::needless_range_loop)]

use crate::real::{Float, Real, Shared};
use mxrs_base::Elem;

/// Sizes and conventions of a CTC batch.
#[derive(Clone, Copy, Debug)]
pub struct Ctc {
    pub steps: usize,
    pub batch: usize,
    pub classes: usize,
    /// Columns of the label matrix.
    pub label_width: usize,
    /// The blank is class 0 and labels are padded with 0; else it is the last class and the padding is -1.
    pub blank_first: bool,
}

const NONE: f64 = f64::NEG_INFINITY;

fn log_add(a: f64, b: f64) -> f64 {
    let (hi, lo) = if a > b { (a, b) } else { (b, a) };
    if lo == NONE { hi } else { hi + (lo - hi).exp().ln_1p() }
}

/// The labels of sample `n`, up to the given length or the first padding.
///
/// Classes outside 0..classes cannot be aligned: the result is `None`.
fn labels<L: Elem>(how: &Ctc, label: &[L], lengths: Option<&[i64]>, n: usize) -> Option<Vec<usize>> {
    let row = &label[n * how.label_width..(n + 1) * how.label_width];
    let padding = if how.blank_first { 0 } else { -1 };
    let end = match lengths {
        Some(l) => l[n].clamp(0, how.label_width as i64) as usize,
        None => row.iter().position(|l| l.to_i64() == padding).unwrap_or(row.len()),
    };
    row[..end].iter().map(|l| usize::try_from(l.to_i64()).ok().filter(|c| *c < how.classes)).collect()
}

/// The negative log-likelihood per sample and, where asked for, its gradient by the activations.
///
/// `x` has shape (steps, batch, classes) and holds activations before the softmax; `label` has shape
/// (batch, label_width). `data_lengths` and `label_lengths` hold one number a sample; without the latter the
/// padding ends a label. A label that no alignment reaches (too long for its steps, or a class that does not
/// exist) has loss and gradient 0, as MXNet has it. `loss` has shape (batch,), `grad` that of `x`.
pub fn ctc_loss<T: Float, L: Elem>(
    how: &Ctc,
    x: &[T],
    label: &[L],
    data_lengths: Option<&[i64]>,
    label_lengths: Option<&[i64]>,
    loss: &mut [T],
    grad: Option<&mut [T]>,
) {
    let (steps, batch, classes) = (how.steps, how.batch, how.classes);
    assert!(
        x.len() == steps * batch * classes && loss.len() == batch && label.len() == batch * how.label_width
    );
    assert!(grad.as_ref().is_none_or(|g| g.len() == x.len()));
    assert!(data_lengths.is_none_or(|l| l.len() == batch) && label_lengths.is_none_or(|l| l.len() == batch));
    let losses = Shared::new(loss);
    let grads = grad.map(|g| {
        g.fill(T::default());
        Shared::new(g)
    });
    mxrs_lanes::for_each(batch, 1, |range| {
        for n in range {
            let t = data_lengths.map_or(steps, |l| l[n].clamp(0, steps as i64) as usize);
            let sample = labels(how, label, label_lengths, n).and_then(|l| Sample::new(how, x, n, t, &l));
            // SAFETY: every sample belongs to one lane.
            unsafe { losses.set(n, T::from_f64(sample.as_ref().map_or(0.0, |s| -s.likelihood))) };
            if let (Some(g), Some(s)) = (&grads, sample) {
                s.gradient(|step, class, v| {
                    let v = T::down(T::R::of(v));
                    // SAFETY: as above.
                    unsafe { g.set((step * batch + n) * classes + class, v) }
                });
            }
        }
    });
}

/// Multiplies the gradient of every sample, in an array of shape (steps, batch, classes), by its own factor.
pub fn scale_samples<T: Float>(how: &Ctc, factors: &[T], grad: &mut [T]) {
    assert!(grad.len() == how.steps * how.batch * how.classes && factors.len() == how.batch);
    if grad.is_empty() {
        return;
    }
    for (i, row) in grad.chunks_exact_mut(how.classes).enumerate() {
        let factor = factors[i % how.batch].up();
        row.iter_mut().for_each(|g| *g = T::down(g.up() * factor));
    }
}

/// One sample's forward variables.
struct Sample {
    steps: usize,
    classes: usize,
    /// Log-probabilities, (steps, classes).
    logp: Vec<f64>,
    /// The label with blanks around and between.
    path: Vec<usize>,
    /// Forward variables, (steps, path).
    alpha: Vec<f64>,
    likelihood: f64,
}

impl Sample {
    fn new<T: Float>(how: &Ctc, x: &[T], n: usize, steps: usize, label: &[usize]) -> Option<Sample> {
        let classes = how.classes;
        let blank = if how.blank_first { 0 } else { classes.checked_sub(1)? };
        if steps == 0 {
            return None;
        }
        let mut logp = Vec::with_capacity(steps * classes);
        for t in 0..steps {
            let row = &x[(t * how.batch + n) * classes..][..classes];
            let max = row.iter().fold(NONE, |m, v| m.max(v.to_f64()));
            let total = row.iter().map(|v| (v.to_f64() - max).exp()).sum::<f64>().ln() + max;
            logp.extend(row.iter().map(|v| v.to_f64() - total));
        }
        let mut path = vec![blank; 2 * label.len() + 1];
        for (i, l) in label.iter().enumerate() {
            path[2 * i + 1] = *l;
        }
        let s = path.len();
        let mut alpha = vec![NONE; steps * s];
        alpha[0] = logp[blank];
        if s > 1 {
            alpha[1] = logp[path[1]];
        }
        for t in 1..steps {
            let (before, now) = alpha[(t - 1) * s..(t + 1) * s].split_at_mut(s);
            for i in 0..s {
                let mut a = before[i];
                if i > 0 {
                    a = log_add(a, before[i - 1]);
                }
                if Self::skips(&path, blank, i) {
                    a = log_add(a, before[i - 2]);
                }
                now[i] = a + logp[t * classes + path[i]];
            }
        }
        let last = &alpha[(steps - 1) * s..];
        let likelihood = if s > 1 { log_add(last[s - 1], last[s - 2]) } else { last[0] };
        (likelihood != NONE).then_some(Sample { steps, classes, logp, path, alpha, likelihood })
    }

    /// Whether position `i` may be reached over the blank before it.
    fn skips(path: &[usize], blank: usize, i: usize) -> bool {
        i >= 2 && path[i] != blank && path[i] != path[i - 2]
    }

    /// Gives (step, class, softmax - posterior) to `put`, walking the backward variables from the last step.
    fn gradient(&self, mut put: impl FnMut(usize, usize, f64)) {
        let s = self.path.len();
        let blank = self.path[0];
        let mut beta = vec![NONE; s];
        beta[s - 1] = 0.0;
        if s > 1 {
            beta[s - 2] = 0.0;
        }
        let mut posterior = vec![0.0; self.classes];
        for t in (0..self.steps).rev() {
            posterior.fill(0.0);
            for i in 0..s {
                posterior[self.path[i]] += (self.alpha[t * s + i] + beta[i] - self.likelihood).exp();
            }
            let logp = &self.logp[t * self.classes..][..self.classes];
            for (class, (p, q)) in logp.iter().zip(&posterior).enumerate() {
                put(t, class, p.exp() - q);
            }
            let after: Vec<f64> = beta.iter().zip(&self.path).map(|(b, c)| b + logp[*c]).collect();
            for i in 0..s {
                let mut b = after[i];
                if i + 1 < s {
                    b = log_add(b, after[i + 1]);
                }
                if i + 2 < s && Self::skips(&self.path, blank, i + 2) {
                    b = log_add(b, after[i + 2]);
                }
                beta[i] = b;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn how(steps: usize, batch: usize, classes: usize, label_width: usize, blank_first: bool) -> Ctc {
        Ctc { steps, batch, classes, label_width, blank_first }
    }

    /// The loss by summing over every alignment.
    fn brute(x: &[f64], classes: usize, blank: usize, label: &[usize]) -> f64 {
        let steps = x.len() / classes;
        let p: Vec<f64> = x
            .chunks(classes)
            .flat_map(|r| {
                let s: f64 = r.iter().map(|v| v.exp()).sum();
                r.iter().map(move |v| v.exp() / s).collect::<Vec<_>>()
            })
            .collect();
        let mut total = 0.0;
        for code in 0..classes.pow(steps as u32) {
            let walk: Vec<usize> = (0..steps).map(|t| code / classes.pow(t as u32) % classes).collect();
            let mut read = walk.clone();
            read.dedup();
            read.retain(|c| *c != blank);
            if read == label {
                total += walk.iter().enumerate().map(|(t, c)| p[t * classes + c]).product::<f64>();
            }
        }
        -total.ln()
    }

    #[test]
    fn the_loss_sums_over_all_alignments_and_the_gradient_is_its_slope() {
        let (steps, classes) = (5, 4);
        let x: Vec<f64> = (0..steps * classes).map(|i| (i * 37 % 11) as f64 / 5.0).collect();
        for first in [true, false] {
            let blank = if first { 0 } else { 3 };
            for label in [vec![1], vec![1, 2], vec![2, 2], vec![1, 2, 1], vec![2, 2, 2], vec![]] {
                let pad = if first { 0.0 } else { -1.0 };
                let mut row: Vec<f64> = label.iter().map(|l| *l as f64).collect();
                row.resize(4, pad);
                let h = how(steps, 1, classes, 4, first);
                let run = |x: &[f64]| {
                    let (mut loss, mut grad) = ([0.0], vec![0.0; x.len()]);
                    ctc_loss(&h, x, &row, None, None, &mut loss, Some(&mut grad));
                    (loss[0], grad)
                };
                let (loss, grad) = run(&x);
                assert!((loss - brute(&x, classes, blank, &label)).abs() < 1e-12);
                for i in 0..x.len() {
                    let (mut up, mut down) = (x.clone(), x.clone());
                    up[i] += 1e-5;
                    down[i] -= 1e-5;
                    let slope = (run(&up).0 - run(&down).0) / 2e-5;
                    assert!((slope - grad[i]).abs() < 1e-8, "{label:?} {i}: {slope} {}", grad[i]);
                }
            }
        }
    }

    #[test]
    fn values_as_observed() {
        let mut loss = [0f32];
        ctc_loss(&how(3, 1, 4, 3, true), &[0f32; 12], &[1f32, 2., 0.], None, None, &mut loss, None);
        assert!((loss[0] - 2.54945).abs() < 1e-5);
        ctc_loss(&how(3, 1, 4, 3, false), &[0f32; 12], &[0f32, 1., -1.], None, None, &mut loss, None);
        assert!((loss[0] - 2.54945).abs() < 1e-5);
        ctc_loss(&how(3, 1, 4, 3, true), &[0f32; 12], &[1f32, 2., 3.], None, Some(&[1]), &mut loss, None);
        assert!((loss[0] - 2.367_123_6).abs() < 1e-5);
        let mut grad = [9f32; 9];
        ctc_loss(&how(3, 1, 3, 3, true), &[0f32; 9], &[1f32, 1., 1.], None, None, &mut loss, Some(&mut grad));
        assert_eq!((loss[0], grad), (0.0, [0.0; 9]));
        let x: Vec<f32> = (0..24).map(|i| i as f32 / 7.0).collect();
        let (mut loss, mut grad) = ([0f32; 2], [9f32; 24]);
        let label = [1f32, 2., 2., 0.];
        ctc_loss(&how(4, 2, 3, 2, true), &x, &label, Some(&[3, 2]), None, &mut loss, Some(&mut grad));
        assert!((loss[0] - 1.614325).abs() < 1e-5 && (loss[1] - 1.0076208).abs() < 1e-5);
        assert!((grad[1] + 0.486_583_2).abs() < 1e-5 && (grad[4] - 0.331_077_27).abs() < 1e-5);
        assert!(grad[15..].iter().all(|g| *g == 0.0));
        ctc_loss(&how(3, 1, 4, 3, true), &[0f32; 12], &[1f32, 9., 0.], None, None, &mut loss[..1], None);
        assert_eq!(loss[0], 0.0);
    }
}
