//! Optimizer updates: one pass over weight, gradient and states, in place, vectorised and shared among lanes.
//!
//! Each function is the arithmetic of one `*_update` operator. Formulas were checked element by element against
//! MXNet 1.9.1, including what is clipped and where the weight decay enters, which differs between optimizers:
//! `sgd`, `nag`, `signum`, `ftrl`, `adagrad` and the `lamb` and `adamw` moments clip `rescale * g`; `adam`, `rmsprop`
//! and `ftml` clip `rescale * g + wd * w`. Arithmetic is in the weight's type, for float16 in float32. A `master`
//! copy makes a function the `mp_` form: the master is updated and the weight is its rounding. Learning rate
//! schedules, bias correction of `adam`'s rate and norms are the optimizer's and the reductions' business.

use crate::copy::Shared;
use mxrs_base::{Elem, f16};
use mxrs_lanes::for_each;
use mxrs_simd::vectorize;

/// Elements per tile: tiles are loaded into local arrays, which the compiler knows not to alias.
const TILE: usize = 256;
/// Tiles a lane takes at once.
const GRAIN: usize = 64;

/// The types updates compute in.
pub trait Real:
    Elem
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
{
    fn sqrt(self) -> Self;
    fn abs(self) -> Self;
}
macro_rules! real {
    ($($t:ty),*) => { $(impl Real for $t {
        #[inline(always)]
        fn sqrt(self) -> Self { <$t>::sqrt(self) }
        #[inline(always)]
        fn abs(self) -> Self { <$t>::abs(self) }
    })* };
}
real!(f32, f64);

/// Types weights, gradients and states are kept in.
pub trait Store: Elem {
    type Real: Real;
    fn load(src: &[Self], dst: &mut [Self::Real]);
    fn store(src: &[Self::Real], dst: &mut [Self]);
}
macro_rules! store {
    ($t:ty, $r:ty, $load:expr, $store:expr) => {
        impl Store for $t {
            type Real = $r;
            #[inline(always)]
            fn load(src: &[$t], dst: &mut [$r]) {
                $load(src, dst)
            }
            #[inline(always)]
            fn store(src: &[$r], dst: &mut [$t]) {
                $store(src, dst)
            }
        }
    };
}
store!(f32, f32, |s: &[f32], d: &mut [f32]| d.copy_from_slice(s), |s: &[f32], d: &mut [f32]| d
    .copy_from_slice(s));
store!(f64, f64, |s: &[f64], d: &mut [f64]| d.copy_from_slice(s), |s: &[f64], d: &mut [f64]| d
    .copy_from_slice(s));
store!(f16, f32, mxrs_simd::cast::<f16, f32>, mxrs_simd::cast::<f32, f16>);

/// What all updates share. `clip` is `clip_gradient`: negative (or NaN) means none, 0 makes every gradient 0.
#[derive(Clone, Copy, Debug)]
pub struct Common {
    pub lr: f64,
    pub wd: f64,
    pub rescale: f64,
    pub clip: f64,
}

/// [`Common`] in the arithmetic's type.
#[derive(Clone, Copy)]
struct Rates<R> {
    lr: R,
    wd: R,
    rescale: R,
    clip: R,
}

impl<R: Real> Rates<R> {
    fn of(c: &Common) -> Rates<R> {
        let clip = if c.clip >= 0.0 { c.clip } else { f64::INFINITY };
        Rates { lr: real(c.lr), wd: real(c.wd), rescale: real(c.rescale), clip: real(clip) }
    }
    /// `clip(rescale * g)`.
    #[inline(always)]
    fn clipped(&self, g: R) -> R {
        bound(self.rescale * g, self.clip)
    }
    /// `clip(rescale * g + wd * w)`.
    #[inline(always)]
    fn clipped_with_decay(&self, g: R, w: R) -> R {
        bound(self.rescale * g + self.wd * w, self.clip)
    }
}

#[inline(always)]
fn real<R: Real>(v: f64) -> R {
    R::from_f64(v)
}

/// `x` within ±`limit`; NaN stays NaN.
#[inline(always)]
fn bound<R: Real>(x: R, limit: R) -> R {
    if x > limit {
        limit
    } else if x < -limit {
        -limit
    } else {
        x
    }
}

#[inline(always)]
fn sign<R: Real>(x: R) -> R {
    let zero = R::default();
    if x > zero {
        R::from_i64(1)
    } else if x < zero {
        R::from_i64(-1)
    } else {
        zero
    }
}

/// The arrays of one update, all of one length: `states` in the type `T`, which is the weight's own type or, beside a
/// master copy, the master's.
pub struct Arrays<'a, S: Store, T: Store<Real = S::Real>, const K: usize> {
    pub weight: &'a mut [S],
    pub grad: &'a [S],
    pub states: [&'a mut [T]; K],
    pub master: Option<&'a mut [S::Real]>,
}

impl<S: Store, T: Store<Real = S::Real>, const K: usize> Arrays<'_, S, T, K> {
    /// Calls `step(w, g, states) -> (w, states)` for every element.
    fn each(self, step: impl Fn(S::Real, S::Real, [S::Real; K]) -> (S::Real, [S::Real; K]) + Sync) {
        let Arrays { weight, grad, states, master } = self;
        let n = weight.len();
        assert_eq!(n, grad.len(), "update: weight and gradient differ in size");
        assert!(states.iter().all(|s| s.len() == n), "update: a state differs in size from the weight");
        assert!(master.as_ref().is_none_or(|m| m.len() == n), "update: the master copy differs in size");
        let (weight, states) = (Shared::new(weight), states.map(Shared::new));
        let master = master.map(Shared::new);
        for_each(n.div_ceil(TILE), GRAIN, |tiles| {
            vectorize(
                #[inline(always)]
                || {
                    for tile in tiles.clone() {
                        let r = tile * TILE..n.min((tile + 1) * TILE);
                        // SAFETY: tiles are disjoint, inside 0..n, and each array has n elements.
                        let (w, s, m) = unsafe {
                            (
                                weight.slice(r.clone()),
                                states.map(|s| s.slice(r.clone())),
                                master.map(|m| m.slice(r.clone())),
                            )
                        };
                        one_tile(w, &grad[r], s, m, &step);
                    }
                },
            )
        });
    }
}

#[inline(always)]
fn one_tile<S: Store, T: Store<Real = S::Real>, const K: usize>(
    weight: &mut [S],
    grad: &[S],
    mut states: [&mut [T]; K],
    master: Option<&mut [S::Real]>,
    step: &impl Fn(S::Real, S::Real, [S::Real; K]) -> (S::Real, [S::Real; K]),
) {
    let n = weight.len().min(TILE);
    let zero = S::Real::default();
    let (mut w, mut g, mut s) = ([zero; TILE], [zero; TILE], [[zero; TILE]; K]);
    match &master {
        Some(m) => w[..n].copy_from_slice(m),
        None => S::load(weight, &mut w[..n]),
    }
    S::load(grad, &mut g[..n]);
    for (local, state) in s.iter_mut().zip(&states) {
        T::load(state, &mut local[..n]);
    }
    for i in 0..n {
        let (new, values) = step(w[i], g[i], std::array::from_fn(|k| s[k][i]));
        w[i] = new;
        for k in 0..K {
            s[k][i] = values[k];
        }
    }
    S::store(&w[..n], weight);
    if let Some(m) = master {
        m.copy_from_slice(&w[..n]);
    }
    for (local, state) in s.iter().zip(&mut states) {
        T::store(&local[..n], state);
    }
}

/// `w -= lr * (clip(r g) + wd w)`.
pub fn sgd<S: Store>(a: Arrays<S, S, 0>, c: &Common) {
    let c = Rates::of(c);
    a.each(|w, g, []| (w - c.lr * (c.clipped(g) + c.wd * w), []));
}

/// States: momentum. `m = momentum m - lr (clip(r g) + wd w); w += m`.
pub fn sgd_mom<S: Store, T: Store<Real = S::Real>>(a: Arrays<S, T, 1>, c: &Common, momentum: f64) {
    let (c, momentum) = (Rates::of(c), real::<S::Real>(momentum));
    a.each(|w, g, [m]| {
        let m = momentum * m - c.lr * (c.clipped(g) + c.wd * w);
        (w + m, [m])
    });
}

/// States: momentum. `q = momentum m; w' = w - q + (1 + momentum)(q - lr (clip(r g) + wd w))`, and the new momentum is
/// `q - lr (clip(r g) + wd w')`: MXNet lets the new weight enter it, and so do we.
pub fn nag_mom<S: Store, T: Store<Real = S::Real>>(a: Arrays<S, T, 1>, c: &Common, momentum: f64) {
    let (c, momentum) = (Rates::of(c), real::<S::Real>(momentum));
    let one = real::<S::Real>(1.0);
    a.each(|w, g, [m]| {
        let (q, grad) = (momentum * m, c.clipped(g));
        let new = w - q + (one + momentum) * (q - c.lr * (grad + c.wd * w));
        (new, [q - c.lr * (grad + c.wd * new)])
    });
}

/// Decay rates and epsilon of the Adam family.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
}

/// Both moments after `g`.
#[inline(always)]
fn moments<R: Real>(m: R, v: R, g: R, b1: R, b2: R) -> (R, R) {
    let one = R::from_i64(1);
    (b1 * m + (one - b1) * g, b2 * v + (one - b2) * g * g)
}

/// States: mean, variance. `G = clip(r g + wd w); w -= lr m / (sqrt(v) + epsilon)`.
pub fn adam<S: Store, T: Store<Real = S::Real>>(a: Arrays<S, T, 2>, c: &Common, p: &Moments) {
    let (c, b1, b2) = (Rates::of(c), real::<S::Real>(p.beta1), real::<S::Real>(p.beta2));
    let eps = real::<S::Real>(p.epsilon);
    a.each(|w, g, [m, v]| {
        let (m, v) = moments(m, v, c.clipped_with_decay(g, w), b1, b2);
        (w - c.lr * m / (v.sqrt() + eps), [m, v])
    });
}

/// States: mean, variance. `G = clip(r g); w -= eta (lr m / (sqrt(v) + epsilon) + wd w)`.
/// Changes nothing where `rescale` is 0 or not finite (a loss scaler's sign to skip the step).
pub fn adamw<S: Store, T: Store<Real = S::Real>>(a: Arrays<S, T, 2>, c: &Common, p: &Moments, eta: f64) {
    if c.rescale == 0.0 || !c.rescale.is_finite() {
        return;
    }
    let (c, b1, b2) = (Rates::of(c), real::<S::Real>(p.beta1), real::<S::Real>(p.beta2));
    let (eps, eta) = (real::<S::Real>(p.epsilon), real::<S::Real>(eta));
    a.each(|w, g, [m, v]| {
        let (m, v) = moments(m, v, c.clipped(g), b1, b2);
        (w - eta * (c.lr * m / (v.sqrt() + eps) + c.wd * w), [m, v])
    });
}

/// States: n. `G = clip(r g + wd w); n = (1-gamma1) G² + gamma1 n; w -= lr G / sqrt(n + epsilon)`, then the weight is
/// kept within ±`clip_weights` where that is positive.
pub fn rmsprop<S: Store, T: Store<Real = S::Real>>(
    a: Arrays<S, T, 1>,
    c: &Common,
    gamma1: f64,
    epsilon: f64,
    clip_weights: f64,
) {
    let (c, gamma, eps) = (Rates::of(c), real::<S::Real>(gamma1), real::<S::Real>(epsilon));
    let (limit, one) = (weight_limit::<S::Real>(clip_weights), real::<S::Real>(1.0));
    a.each(|w, g, [n]| {
        let g = c.clipped_with_decay(g, w);
        let n = (one - gamma) * g * g + gamma * n;
        (bound(w - c.lr * g / (n + eps).sqrt(), limit), [n])
    });
}

fn weight_limit<R: Real>(clip_weights: f64) -> R {
    real(if clip_weights >= 0.0 { clip_weights } else { f64::INFINITY })
}

/// The parameters of the centred RMSProp.
#[derive(Clone, Copy, Debug)]
pub struct Centered {
    pub gamma1: f64,
    pub gamma2: f64,
    pub epsilon: f64,
    pub clip_weights: f64,
}

/// States: n, g (mean gradient), delta. As [`rmsprop`] with `q = (1-gamma1) G + gamma1 q;
/// delta = gamma2 delta - lr G / sqrt(n - q² + epsilon); w += delta`.
pub fn rmspropalex<S: Store, T: Store<Real = S::Real>>(a: Arrays<S, T, 3>, c: &Common, p: &Centered) {
    let (c, gamma1, gamma2) = (Rates::of(c), real::<S::Real>(p.gamma1), real::<S::Real>(p.gamma2));
    let (eps, limit) = (real::<S::Real>(p.epsilon), weight_limit::<S::Real>(p.clip_weights));
    let one = real::<S::Real>(1.0);
    a.each(|w, g, [n, q, delta]| {
        let g = c.clipped_with_decay(g, w);
        let n = (one - gamma1) * g * g + gamma1 * n;
        let q = (one - gamma1) * g + gamma1 * q;
        let delta = gamma2 * delta - c.lr * g / (n - q * q + eps).sqrt();
        (bound(w + delta, limit), [n, q, delta])
    });
}

/// States: z, n. `G = clip(r g); z += G - (sqrt(n + G²) - sqrt(n)) w / lr; n += G²;
/// w = |z| > lamda1 ? (sign(z) lamda1 - z) / ((beta + sqrt(n)) / lr + wd) : 0`.
pub fn ftrl<S: Store, T: Store<Real = S::Real>>(a: Arrays<S, T, 2>, c: &Common, lamda1: f64, beta: f64) {
    let (c, lamda, beta) = (Rates::of(c), real::<S::Real>(lamda1), real::<S::Real>(beta));
    let zero = real::<S::Real>(0.0);
    a.each(|w, g, [z, n]| {
        let g = c.clipped(g);
        let sum = n + g * g;
        let z = z + g - (sum.sqrt() - n.sqrt()) * w / c.lr;
        let shrunk = (sign(z) * lamda - z) / ((beta + sum.sqrt()) / c.lr + c.wd);
        (if z.abs() > lamda { shrunk } else { zero }, [z, sum])
    });
}

/// States: d, v, z; `t` counts steps from 1. `G = clip(r g + wd w); v = b2 v + (1-b2) G²;
/// d' = (1 - b1^t) / lr (sqrt(v / (1 - b2^t)) + epsilon); z = b1 z + (1-b1) G - (d' - b1 d) w; w = -z / d'`.
pub fn ftml<S: Store, T: Store<Real = S::Real>>(a: Arrays<S, T, 3>, c: &Common, p: &Moments, t: i32) {
    let (b1, b2, eps) = (real::<S::Real>(p.beta1), real::<S::Real>(p.beta2), real::<S::Real>(p.epsilon));
    let scale = real::<S::Real>((1.0 - p.beta1.powi(t)) / c.lr);
    let unbias = real::<S::Real>(1.0 - p.beta2.powi(t));
    let (c, one) = (Rates::of(c), real::<S::Real>(1.0));
    a.each(|w, g, [d, v, z]| {
        let g = c.clipped_with_decay(g, w);
        let v = b2 * v + (one - b2) * g * g;
        let new = scale * ((v / unbias).sqrt() + eps);
        let z = b1 * z + (one - b1) * g - (new - b1 * d) * w;
        (-z / new, [new, v, z])
    });
}

/// `w = (1 - lr wd) w - lr sign(g)`.
pub fn signsgd<S: Store>(a: Arrays<S, S, 0>, c: &Common) {
    let (c, one) = (Rates::<S::Real>::of(c), real::<S::Real>(1.0));
    a.each(|w, g, []| ((one - c.lr * c.wd) * w - c.lr * sign(g), []));
}

/// States: momentum. `m = momentum m - (1 - momentum)(clip(r g) + wd w); w = (1 - lr wd_lh) w + lr sign(m)`.
pub fn signum<S: Store, T: Store<Real = S::Real>>(a: Arrays<S, T, 1>, c: &Common, momentum: f64, wd_lh: f64) {
    let (c, momentum, wd_lh) = (Rates::of(c), real::<S::Real>(momentum), real::<S::Real>(wd_lh));
    let one = real::<S::Real>(1.0);
    a.each(|w, g, [m]| {
        let m = momentum * m - (one - momentum) * (c.clipped(g) + c.wd * w);
        ((one - c.lr * wd_lh) * w + c.lr * sign(m), [m])
    });
}

/// States: history. `G = clip(r g); h += G²; w -= lr (G / sqrt(h + epsilon) + wd w)`.
pub fn adagrad<S: Store, T: Store<Real = S::Real>>(a: Arrays<S, T, 1>, c: &Common, epsilon: f64) {
    let (c, eps) = (Rates::of(c), real::<S::Real>(epsilon));
    a.each(|w, g, [h]| {
        let g = c.clipped(g);
        let h = h + g * g;
        (w - c.lr * (g / (h + eps).sqrt() + c.wd * w), [h])
    });
}

/// States: accumulated squared gradient, accumulated squared step. `G = clip(r g); a = rho a + (1-rho) G²;
/// d = sqrt(D + epsilon) / sqrt(a + epsilon) G; D = rho D + (1-rho) d²; w -= d + wd w`. The rate is not used.
pub fn adadelta<S: Store, T: Store<Real = S::Real>>(a: Arrays<S, T, 2>, c: &Common, rho: f64, epsilon: f64) {
    let (c, rho, eps) = (Rates::of(c), real::<S::Real>(rho), real::<S::Real>(epsilon));
    let one = real::<S::Real>(1.0);
    a.each(|w, g, [a, d]| {
        let g = c.clipped(g);
        let a = rho * a + (one - rho) * g * g;
        let step = (d + eps).sqrt() / (a + eps).sqrt() * g;
        (w - step - c.wd * w, [a, rho * d + (one - rho) * step * step])
    });
}

/// LAMB's direction; `out` receives it where `weight` is only read (pass a copy of the weight as `a.weight`).
/// States: mean, variance. `G = clip(r g); u = m^ / (sqrt(v^) + epsilon) + wd w`, bias-corrected with step `t` if given.
pub fn lamb_phase1<S: Store, T: Store<Real = S::Real>>(
    a: Arrays<S, T, 2>,
    c: &Common,
    p: &Moments,
    t: Option<i32>,
) {
    let (b1, b2, eps) = (real::<S::Real>(p.beta1), real::<S::Real>(p.beta2), real::<S::Real>(p.epsilon));
    let unbias = |b: f64| real::<S::Real>(t.map_or(1.0, |t| 1.0 - b.powi(t)));
    let (um, uv) = (unbias(p.beta1), unbias(p.beta2));
    let c = Rates::of(c);
    a.each(|w, g, [m, v]| {
        let (m, v) = moments(m, v, c.clipped(g), b1, b2);
        (m / um / ((v / uv).sqrt() + eps) + c.wd * w, [m, v])
    });
}

/// The factor of LAMB's second phase from the norms of weight and direction: their ratio with the weight's norm
/// kept within the bounds that are positive, and 1 where either is 0.
pub fn lamb_ratio(weight_norm: f64, direction_norm: f64, lower: f64, upper: f64) -> f64 {
    let mut norm = weight_norm;
    if lower > 0.0 {
        norm = norm.max(lower);
    }
    if upper > 0.0 {
        norm = norm.min(upper);
    }
    if norm == 0.0 || direction_norm == 0.0 { 1.0 } else { norm / direction_norm }
}

/// `w -= lr * ratio * u`; `grad` is the direction of [`lamb_phase1`], `ratio` that of [`lamb_ratio`].
pub fn lamb_phase2<S: Store>(a: Arrays<S, S, 0>, lr: f64, ratio: f64) {
    let rate = real::<S::Real>(lr * ratio);
    a.each(|w, u, []| (w - rate * u, []));
}

#[cfg(test)]
#[path = "update_tests.rs"]
mod tests;
