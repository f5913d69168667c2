//! Random numbers by rejection or by several draws: gamma, exponential, Poisson, negative binomial.
//!
//! As on the host (`mxrs_kernels::sample`), every element has a stream of its own, so that rejection in one moves no
//! other. The host calculates in float64: here the forms are those that keep float32's digits, and a count can differ
//! where a draw falls on its boundary.

use crate::shaders::each::{Each, Read};
use crate::shaders::elem::Span;
use crate::shaders::rows::BITS;
use mxrs_base::Result;
use mxrs_gpu::Device;

/// What is drawn, with parameters a and b.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Law {
    /// Shape a, scale b.
    Gamma,
    /// Rate a.
    Exponential,
    /// Mean a.
    Poisson,
    /// Failures before the a-th success at probability b.
    NegativeBinomial,
    /// Mean a, dispersion b.
    GeneralizedNegativeBinomial,
}

impl Law {
    fn text(self) -> &'static str {
        match self {
            Law::Gamma => "gamma(a) * b",
            Law::Exponential => "exponential() / a",
            Law::Poisson => "poisson(a)",
            Law::NegativeBinomial => "failures(a, b)",
            Law::GeneralizedNegativeBinomial => "dispersed(a, b)",
        }
    }
}

/// Where a parameter comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    Number(f64),
    /// Each entry serves a run of so many elements.
    Runs(Span<'a>, usize),
}

const MIXTURES: &str = "fn failures(k: f32, p: f32) -> f32 {
    if (p == 1.0) { return 0.0; }
    return poisson(gamma(k) * (1.0 - p) / p);
}
fn dispersed(mu: f32, alpha: f32) -> f32 {
    if (alpha == 0.0) { return poisson(mu); }
    return poisson(gamma(1.0 / alpha) * alpha * mu);
}
";

/// Fills `y`, of a floating type, with `n` numbers of the stream (seed, offset).
///
/// # Errors
/// Where a type is not one of GPUs or there are more than 2^32 elements.
pub fn launch_draws(
    device: &Device,
    (law, params): (Law, [Source; 2]),
    (seed, offset): (u64, u64),
    n: usize,
    y: Span,
    label: &'static str,
) -> Result<()> {
    let mut each = Each::new("draws", y);
    for (name, word) in
        [("seed0", seed), ("seed1", seed >> 32), ("offset0", offset), ("offset1", offset >> 32)]
    {
        each = each.size(name, word as u32 as usize)?;
    }
    let (mut variant, mut texts) = (law as u64, [String::new(), String::new()]);
    for (k, (source, text)) in params.iter().zip(&mut texts).enumerate() {
        match *source {
            Source::Number(v) => {
                each = each.value(["a", "b"][k], v);
                *text = format!("p.{}", ["a", "b"][k]);
            }
            Source::Runs(span, run) => {
                variant |= 8 << k;
                each = each
                    .input(["as_given", "bs_given"][k], span, Read::Value)
                    .size(["a_run", "b_run"][k], run)?;
                *text = format!("{}(e / p.{})", ["as_given", "bs_given"][k], ["a_run", "b_run"][k]);
            }
        }
    }
    let body = || {
        [BITS, include_str!("philox.wgsl"), include_str!("real.wgsl"), include_str!("draws.wgsl"), MIXTURES]
            .concat()
            + &format!(
                "fn element(e: u32) -> VALUE {{
    draw_element = e;
    draw_number = 0u;
    let a = {};
    let b = {};
    return {};
}}\n",
                texts[0],
                texts[1],
                law.text()
            )
    };
    each.variant(variant).launch(device, n, body, label)
}
