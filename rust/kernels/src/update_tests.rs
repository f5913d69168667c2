use super::*;

const C: Common = Common { lr: 0.1, wd: 0.3, rescale: 0.5, clip: 0.7 };
const P: Moments = Moments { beta1: 0.9, beta2: 0.99, epsilon: 1e-3 };

/// n values in -2..2 that differ by `seed`.
fn values(n: usize, seed: usize) -> Vec<f64> {
    (0..n).map(|i| ((i * 37 + seed * 11) % 101) as f64 / 25.0 - 2.0).collect()
}

/// Runs `update` on f32 and f64 arrays of several sizes and compares with `want(w, g, states)` in f64.
macro_rules! check {
    ($k:literal, $update:expr, $want:expr) => {
        check!(@ f32, 2e-4, $k, $update, $want);
        check!(@ f64, 1e-12, $k, $update, $want);
    };
    (@ $t:ty, $tol:expr, $k:literal, $update:expr, $want:expr) => {
        for n in [0usize, 1, 7, 256, 257, 1000, 40_001] {
            let mut w: Vec<$t> = values(n, 1).iter().map(|v| *v as $t).collect();
            let g: Vec<$t> = values(n, 2).iter().map(|v| *v as $t).collect();
            let mut s: [Vec<$t>; $k] =
                std::array::from_fn(|k| values(n, 3 + k).iter().map(|v| (v.abs() + 1.0 - 0.9 * (k == 1) as u8 as f64) as $t).collect());
            let before = (w.clone(), s.clone());
            $update(Arrays { weight: &mut w, grad: &g, states: s.each_mut().map(|s| &mut s[..]), master: None });
            for i in 0..n {
                let (nw, ns): (f64, [f64; $k]) =
                    $want(before.0[i] as f64, g[i] as f64, std::array::from_fn(|k| before.1[k][i] as f64));
                let near = |got: f64, want: f64| (got - want).abs() <= $tol * (1.0 + want.abs());
                assert!(near(w[i] as f64, nw), "weight {i} of {n}: {} for {nw}", w[i]);
                for (k, (s, want)) in s.iter().zip(ns).enumerate() {
                    assert!(near(s[i] as f64, want), "state {k}, {i} of {n}: {} for {want}", s[i]);
                }
            }
        }
    };
}

fn clip(x: f64) -> f64 {
    x.clamp(-C.clip, C.clip)
}

#[test]
fn momentum_family() {
    check!(0, |a| sgd(a, &C), |w: f64, g: f64, []: [f64; 0]| (w - 0.1 * (clip(0.5 * g) + 0.3 * w), []));
    check!(1, |a| sgd_mom(a, &C, 0.9), |w: f64, g: f64, [m]: [f64; 1]| {
        let m = 0.9 * m - 0.1 * (clip(0.5 * g) + 0.3 * w);
        (w + m, [m])
    });
    check!(1, |a| nag_mom(a, &C, 0.9), |w: f64, g: f64, [m]: [f64; 1]| {
        let (q, grad) = (0.9 * m, clip(0.5 * g));
        let new = w - q + 1.9 * (q - 0.1 * (grad + 0.3 * w));
        (new, [q - 0.1 * (grad + 0.3 * new)])
    });
    check!(1, |a| signum(a, &C, 0.9, 0.2), |w: f64, g: f64, [m]: [f64; 1]| {
        let m = 0.9 * m - 0.1 * (clip(0.5 * g) + 0.3 * w);
        (0.98 * w + 0.1 * m.signum(), [m])
    });
    check!(0, |a| signsgd(a, &C), |w: f64, g: f64, []: [f64; 0]| {
        (0.97 * w - 0.1 * if g == 0.0 { 0.0 } else { g.signum() }, [])
    });
}

#[test]
fn adaptive_family() {
    let both = |m: f64, v: f64, g: f64| (0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g);
    check!(2, |a| adam(a, &C, &P), |w: f64, g: f64, [m, v]: [f64; 2]| {
        let (m, v) = both(m, v, clip(0.5 * g + 0.3 * w));
        (w - 0.1 * m / (v.sqrt() + 1e-3), [m, v])
    });
    check!(2, |a| adamw(a, &C, &P, 0.8), |w: f64, g: f64, [m, v]: [f64; 2]| {
        let (m, v) = both(m, v, clip(0.5 * g));
        (w - 0.8 * (0.1 * m / (v.sqrt() + 1e-3) + 0.3 * w), [m, v])
    });
    check!(2, |a| lamb_phase1(a, &C, &P, Some(3)), |w: f64, g: f64, [m, v]: [f64; 2]| {
        let (m, v) = both(m, v, clip(0.5 * g));
        let (mh, vh) = (m / (1.0 - 0.9f64.powi(3)), v / (1.0 - 0.99f64.powi(3)));
        (mh / (vh.sqrt() + 1e-3) + 0.3 * w, [m, v])
    });
    check!(1, |a| rmsprop(a, &C, 0.95, 1e-3, 0.5), |w: f64, g: f64, [n]: [f64; 1]| {
        let g = clip(0.5 * g + 0.3 * w);
        let n = 0.05 * g * g + 0.95 * n;
        ((w - 0.1 * g / (n + 1e-3).sqrt()).clamp(-0.5, 0.5), [n])
    });
    check!(1, |a| adagrad(a, &C, 1e-3), |w: f64, g: f64, [h]: [f64; 1]| {
        let g = clip(0.5 * g);
        let h = h + g * g;
        (w - 0.1 * (g / (h + 1e-3).sqrt() + 0.3 * w), [h])
    });
    check!(2, |a| adadelta(a, &C, 0.9, 1e-3), |w: f64, g: f64, [a, d]: [f64; 2]| {
        let g = clip(0.5 * g);
        let a = 0.9 * a + 0.1 * g * g;
        let step = (d + 1e-3).sqrt() / (a + 1e-3).sqrt() * g;
        (w - step - 0.3 * w, [a, 0.9 * d + 0.1 * step * step])
    });
}

/// Values of one real call of the operators in MXNet 1.9.1 (float32): sgd from the table of observed behaviour.
#[test]
fn edge_values() {
    let one = |clip: f64, g: f32| {
        let mut w = [1f32];
        let c = Common { lr: 0.1, wd: 0.5, rescale: 1.0, clip };
        sgd(Arrays { weight: &mut w, grad: &[g], states: [], master: None }, &c);
        w[0]
    };
    assert!((one(-1.0, 1.0) - 0.85).abs() < 1e-6);
    assert!((one(0.0, 10.0) - 0.95).abs() < 1e-6, "a limit of 0 removes the gradient");
    assert!(one(1.0, f32::NAN).is_nan(), "clipping keeps NaN");
    for rescale in [0.0, f64::NAN, f64::INFINITY] {
        let (mut w, mut m, mut v) = ([1f32], [2f32], [3f32]);
        let a = Arrays { weight: &mut w, grad: &[1.0], states: [&mut m, &mut v], master: None };
        adamw(a, &Common { rescale, ..C }, &P, 1.0);
        assert_eq!((w, m, v), ([1.0], [2.0], [3.0]));
    }
    assert_eq!(lamb_ratio(1.0, 2.0, -1.0, -1.0), 0.5);
    assert_eq!(lamb_ratio(9.0, 1.0, 2.0, 3.0), 3.0);
    assert_eq!(lamb_ratio(0.0, 2.0, -1.0, -1.0), 1.0);
    assert_eq!(lamb_ratio(0.0, 2.0, 1.5, -1.0), 0.75);
    assert_eq!(lamb_ratio(3.0, 0.0, -1.0, -1.0), 1.0);
}

#[test]
fn master_copies_gather_small_steps() {
    let g = [f16::from_f32(1.0)];
    let c = Common { lr: 1e-4, wd: 0.0, rescale: 1.0, clip: -1.0 };
    let (mut w, mut w32, mut m) = ([f16::from_f32(1.0)], [1f32], [0f32]);
    let mut plain = w;
    for _ in 0..20 {
        let a = Arrays { weight: &mut w, grad: &g, states: [&mut m[..]], master: Some(&mut w32) };
        sgd_mom(a, &c, 0.0);
        sgd(Arrays { weight: &mut plain, grad: &g, states: [], master: None }, &c);
    }
    assert_eq!(w[0].to_f32(), 1.0 - 1.0 / 512.0);
    assert_eq!(plain[0].to_f32(), 1.0);
    assert!((w32[0] - 0.998).abs() < 1e-6);
}

#[test]
fn three_state_family() {
    check!(2, |a| ftrl(a, &C, 0.2, 1.5), |w: f64, g: f64, [z, n]: [f64; 2]| {
        let g = clip(0.5 * g);
        let sum = n + g * g;
        let z = z + g - (sum.sqrt() - n.sqrt()) * w / 0.1;
        let shrunk = (z.signum() * 0.2 - z) / ((1.5 + sum.sqrt()) / 0.1 + 0.3);
        (if z.abs() > 0.2 { shrunk } else { 0.0 }, [z, sum])
    });
    check!(3, |a| ftml(a, &C, &P, 3), |w: f64, g: f64, [d, v, z]: [f64; 3]| {
        let g = clip(0.5 * g + 0.3 * w);
        let v = 0.99 * v + 0.01 * g * g;
        let new = (1.0 - 0.9f64.powi(3)) / 0.1 * ((v / (1.0 - 0.99f64.powi(3))).sqrt() + 1e-3);
        let z = 0.9 * z + 0.1 * g - (new - 0.9 * d) * w;
        (-z / new, [new, v, z])
    });
    let p = Centered { gamma1: 0.95, gamma2: 0.8, epsilon: 10.0, clip_weights: 0.5 };
    check!(3, |a| rmspropalex(a, &C, &p), |w: f64, g: f64, [n, q, d]: [f64; 3]| {
        let g = clip(0.5 * g + 0.3 * w);
        let (n, q) = (0.05 * g * g + 0.95 * n, 0.05 * g + 0.95 * q);
        let d = 0.8 * d - 0.1 * g / (n - q * q + 10.0).sqrt();
        ((w + d).clamp(-0.5, 0.5), [n, q, d])
    });
}
