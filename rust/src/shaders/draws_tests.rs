//! The host's numbers of the same streams: all but a few counts, which fell on a boundary, are equal up to rounding.

use crate::shaders::draws::{Law, Source, launch_draws};
use crate::shaders::elem::Span;
use crate::shaders::testing::*;
use mxrs_base::DType;
use mxrs_kernels::philox::Stream;
use mxrs_kernels::sample;

#[test]
fn numbers_of_the_hosts_streams() {
    let n = 20_000;
    on_devices(|d| {
        for (law, a, b) in [
            (Law::Gamma, 0.3, 2.0),
            (Law::Gamma, 700.0, 0.5),
            (Law::Exponential, 1.5, 0.0),
            (Law::Poisson, 3.0, 0.0),
            (Law::Poisson, 1e5, 0.0),
            (Law::NegativeBinomial, 4.0, 0.3),
            (Law::GeneralizedNegativeBinomial, 5.0, 0.4),
            (Law::GeneralizedNegativeBinomial, 5.0, 0.0),
        ] {
            // Parameters that change half way.
            let pairs = [vec![a, 1.5 * a], vec![b, b]];
            let stream = Stream::new(7, 1 << 40);
            let mut want = vec![0f32; n];
            match law {
                Law::Gamma => sample::gamma(stream, &pairs[0], &pairs[1], &mut want),
                Law::Exponential => sample::exponential(stream, &pairs[0], &mut want),
                Law::Poisson => sample::poisson(stream, &pairs[0], &mut want),
                Law::NegativeBinomial => sample::negative_binomial(stream, &pairs[0], &pairs[1], &mut want),
                Law::GeneralizedNegativeBinomial => {
                    sample::generalized_negative_binomial(stream, &pairs[0], &pairs[1], &mut want)
                }
            }
            let first: Vec<f32> = pairs[0].iter().map(|v| *v as f32).collect();
            let (first, y) = (upload(d, &first), upload(d, &vec![0f32; n]));
            let params = [Source::Runs(Span::new(&first, DType::F32), n / 2), Source::Number(b)];
            launch_draws(d, (law, params), (7, 1 << 40), n, Span::new(&y, DType::F32), "draws").unwrap();
            let got: Vec<f32> = download(d, &y);
            let far = |(g, w): &(&f32, &f32)| (*g - *w).abs() > 1e-4 * w.abs() + 1e-6;
            let apart = got.iter().zip(&want).filter(far).count();
            assert!(apart <= n / 1000, "{law:?} of {a}, {b}: {apart} of {n} differ");
            let mean = |v: &[f32]| v.iter().map(|v| *v as f64).sum::<f64>() / n as f64;
            let (mine, theirs) = (mean(&got), mean(&want));
            assert!((mine - theirs).abs() <= 1e-3 * theirs, "{law:?} of {a}, {b}: mean {mine}, not {theirs}");
        }
    });
}
