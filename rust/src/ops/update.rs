//! Optimizer updates of one weight: `*_update` operators and their `mp_` forms.
//!
//! Input 0 is the weight and output 0 the new weight, so `out=weight` updates in place; states are written where they
//! are. An `mp_` form keeps a float32 master copy beside a float16 weight. The arithmetic is in
//! [`mxrs_kernels::update`], whose rules are wrapped here ([`Rule`]) so that single and many-weight forms share one
//! driver; LAMB is in `update_lamb`, the many-weight forms are in `update_multi`.

use super::registry::Registry;
use super::{Attrs, Ctx, GpuCtx, OpBuilder, Param, Sig, View, draw, flag, float, int};
use crate::shaders::Span;
use crate::shaders::update::{self as steps, Step};
use mxrs_base::{DType, Result, dispatch_float, f16};
use mxrs_kernels::update::{self, Arrays, Centered, Common, Moments, Store};
use smallvec::{SmallVec, smallvec};

/// The arithmetic of one update with its numbers, over weights with `K` states.
pub(super) trait Rule<const K: usize> {
    fn run<S: Store, T: Store<Real = S::Real>>(&self, a: Arrays<S, T, K>);
    /// The same arithmetic on a GPU, and its numbers.
    fn step(&self) -> (&'static Step, SmallVec<[f64; 6]>);
    fn common(&self) -> &Common;
}

/// Stateless rules take the weight's type for the (absent) states.
fn stateless<S: Store, T: Store<Real = S::Real>>(a: Arrays<S, T, 0>) -> Arrays<S, S, 0> {
    Arrays { weight: a.weight, grad: a.grad, states: [], master: a.master }
}

macro_rules! rules {
    ($($name:ident[$k:literal] { $($field:ident: $t:ty),* } |$s:ident, $a:ident| $body:expr,
        $step:ident [$($number:expr),*];)*) => { $(
        pub(super) struct $name { pub common: Common, $(pub $field: $t),* }
        impl Rule<$k> for $name {
            fn run<S: Store, T: Store<Real = S::Real>>(&self, $a: Arrays<S, T, $k>) {
                let $s = self;
                $body
            }
            fn step(&self) -> (&'static Step, SmallVec<[f64; 6]>) {
                let $s = self;
                let _ = $s;
                (&steps::$step, smallvec![$($number),*])
            }
            fn common(&self) -> &Common {
                &self.common
            }
        }
    )* };
}

rules! {
    Sgd[0] {} |r, a| update::sgd(stateless(a), &r.common), SGD [];
    SgdMom[1] { momentum: f64 } |r, a| update::sgd_mom(a, &r.common, r.momentum), SGD_MOM [r.momentum];
    NagMom[1] { momentum: f64 } |r, a| update::nag_mom(a, &r.common, r.momentum), NAG_MOM [r.momentum];
    Adam[2] { moments: Moments } |r, a| update::adam(a, &r.common, &r.moments),
        ADAM [r.moments.beta1, r.moments.beta2, r.moments.epsilon];
    AdamW[2] { moments: Moments, eta: f64 } |r, a| update::adamw(a, &r.common, &r.moments, r.eta),
        ADAMW [r.moments.beta1, r.moments.beta2, r.moments.epsilon, r.eta];
    RmsProp[1] { gamma1: f64, epsilon: f64, clip_weights: f64 } |r, a|
        update::rmsprop(a, &r.common, r.gamma1, r.epsilon, r.clip_weights),
        RMSPROP [r.gamma1, r.epsilon, limit(r.clip_weights)];
    RmsPropAlex[3] { centered: Centered } |r, a| update::rmspropalex(a, &r.common, &r.centered),
        RMSPROP_ALEX [r.centered.gamma1, r.centered.gamma2, r.centered.epsilon, limit(r.centered.clip_weights)];
    Ftrl[2] { lamda1: f64, beta: f64 } |r, a| update::ftrl(a, &r.common, r.lamda1, r.beta),
        FTRL [r.lamda1, r.beta];
    Ftml[3] { moments: Moments, t: i32 } |r, a| update::ftml(a, &r.common, &r.moments, r.t),
        FTML [
            r.moments.beta1, r.moments.beta2, r.moments.epsilon,
            (1.0 - r.moments.beta1.powi(r.t)) / r.common.lr, 1.0 - r.moments.beta2.powi(r.t)
        ];
    SignSgd[0] {} |r, a| update::signsgd(stateless(a), &r.common), SIGNSGD [];
    Signum[1] { momentum: f64, wd_lh: f64 } |r, a| update::signum(a, &r.common, r.momentum, r.wd_lh),
        SIGNUM [r.momentum, r.wd_lh];
    AdaGrad[1] { epsilon: f64 } |r, a| update::adagrad(a, &r.common, r.epsilon), ADAGRAD [r.epsilon];
}

/// A bound, infinite where it is negative.
pub(super) fn limit(bound: f64) -> f64 {
    if bound >= 0.0 { bound } else { f64::INFINITY }
}

/// Where one weight's arrays are: output, first input (weight; gradient and states follow, then the master copy).
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub out: usize,
    pub first: usize,
    pub master: bool,
}

/// Runs `rule` on the arrays at `at`. The memory was found apart by [`apart`] before.
pub(super) fn drive<R: Rule<K>, const K: usize>(c: &Ctx, rule: &R, at: Place) -> Result<()> {
    fn plain<S: Store, R: Rule<K>, const K: usize>(c: &Ctx, rule: &R, at: Place) {
        let states = std::array::from_fn(|k| c.state::<S>(at.first + 2 + k));
        rule.run(Arrays { weight: c.y::<S>(at.out), grad: c.x::<S>(at.first + 1), states, master: None });
    }
    fn mastered<S: Store<Real = f32>, R: Rule<K>, const K: usize>(c: &Ctx, rule: &R, at: Place) {
        let states = std::array::from_fn(|k| c.state::<f32>(at.first + 2 + k));
        let master = Some(c.state::<f32>(at.first + 2 + K));
        rule.run(Arrays { weight: c.y::<S>(at.out), grad: c.x::<S>(at.first + 1), states, master });
    }
    match (c.dtype(at.first), at.master) {
        (DType::F32, true) => mastered::<f32, R, K>(c, rule, at),
        (DType::F16, true) => mastered::<f16, R, K>(c, rule, at),
        (dtype, false) => {
            dispatch_float!(dtype, S => plain::<S, R, K>(c, rule, at), else return c.bad_dtype(dtype))
        }
        (dtype, true) => return c.bad_dtype(dtype),
    }
    Ok(())
}

/// A number of a rule that is an element of an input: `lr`, `wd` or `rescale`.
pub(super) struct Read {
    pub name: &'static str,
    pub input: usize,
    pub at: usize,
}

fn element<'a>(c: &GpuCtx<'a>, input: usize, at: usize) -> Span<'a> {
    let all = c.x(input);
    Span { offset: all.offset + at, ..all }
}

/// Runs `rule` on a GPU, but for the numbers to be read.
pub(super) fn drive_on_gpu<R: Rule<K>, const K: usize>(
    c: &GpuCtx,
    rule: &R,
    at: Place,
    rates: &[Read],
) -> Result<()> {
    let (step, numbers) = rule.step();
    let (rates, arrays) = on_gpu::<R, K>(c, rule, at, rates);
    steps::launch_update(c.device, step, rates, &numbers, &arrays, c.op.name)
}

/// The same for rules that differ in nothing but learning rate and decay, each at its place.
pub(super) fn drive_many_on_gpu<R: Rule<K>, const K: usize>(c: &GpuCtx, rules: &[(R, Place)]) -> Result<()> {
    let Some((first, _)) = rules.first() else { return Ok(()) };
    let (step, numbers) = first.step();
    let weights: Vec<(steps::Rates, steps::Arrays)> =
        rules.iter().map(|(rule, at)| on_gpu::<R, K>(c, rule, *at, &[])).collect();
    let weights: Vec<(steps::Rates, &steps::Arrays)> = weights.iter().map(|(r, a)| (*r, a)).collect();
    steps::launch_updates(c.device, step, &weights, &numbers, c.op.name)
}

fn on_gpu<'a, R: Rule<K>, const K: usize>(
    c: &GpuCtx<'a>,
    rule: &R,
    at: Place,
    rates: &[Read],
) -> (steps::Rates, steps::Arrays<'a>) {
    let arrays = steps::Arrays {
        n: c.out_shape(at.out).size(),
        weight: c.y(at.out),
        grad: c.x(at.first + 1),
        states: (0..K).map(|k| c.x(at.first + 2 + k)).collect(),
        master: at.master.then(|| c.x(at.first + 2 + K)),
        rates: rates.iter().map(|r| (r.name, element(c, r.input, r.at))).collect(),
    };
    let r = rule.common();
    (steps::Rates { lr: r.lr, wd: r.wd, rescale: r.rescale, clip: limit(r.clip) }, arrays)
}

/// Refuses states that share memory with another argument: each is written while the others are read. `weight(i)` is
/// the output that starts as input `i`, if there is one.
pub(super) fn apart(c: &Ctx, weight: impl Fn(usize) -> Option<usize>) -> Result<()> {
    let mut ranges: Vec<(usize, usize, bool)> = Vec::with_capacity(c.ins.len() + c.outs.len());
    let mut add = |v: &View, written: bool| {
        let bytes = v.spec.shape.size() * v.spec.dtype.size();
        if bytes > 0 {
            ranges.push((v.ptr as usize, v.ptr as usize + bytes, written));
        }
    };
    for v in c.outs {
        add(v, true);
    }
    for (i, v) in c.ins.iter().enumerate() {
        let in_place = weight(i).and_then(|o| c.outs.get(o)).is_some_and(|out| out.ptr == v.ptr);
        if !in_place {
            add(v, c.op.mutates.contains(&i));
        }
    }
    ranges.sort_unstable();
    let (mut end, mut end_written) = (0, 0);
    for (from, to, written) in ranges {
        if from < if written { end } else { end_written } {
            return Err(c.fail("a state shares memory with another argument; give each its own array"));
        }
        end = end.max(to);
        end_written = if written { end_written.max(to) } else { end_written };
    }
    Ok(())
}

/// Output 0 starts as input 0.
pub(super) fn first(i: usize) -> Option<usize> {
    (i == 0).then_some(0)
}

/// Checks inputs from `first`: weight, gradient, `states` states, the master copy if `master`.
pub(super) fn check(s: &Sig, first: usize, states: usize, master: bool) -> Result<()> {
    let dtype = s.expect_float(first)?;
    if master && dtype == DType::F64 {
        return Err(s.fail("a float64 weight has no master copy; float16 and float32 are allowed"));
    }
    for i in first + 1..first + 2 + states + usize::from(master) {
        s.expect_shape(i, s.shape(first))?;
        let wanted = if master && i > first + 1 { DType::F32 } else { dtype };
        expect_dtype(s, i, wanted)?;
    }
    Ok(())
}

pub(super) fn expect_dtype(s: &Sig, i: usize, wanted: DType) -> Result<()> {
    if s.dtype(i) == wanted {
        return Ok(());
    }
    Err(s.fail(format!("{} is {}; {wanted} is expected", s.op.input_name(i), s.dtype(i))))
}

/// A float as MXNet keeps it: defaults are float32 numbers.
fn single(v: f32) -> f64 {
    v as f64
}

pub(super) fn lr() -> Param {
    float("lr", "learning rate")
}
pub(super) fn wd() -> Param {
    float("wd", "weight decay").or(0.0)
}
pub(super) fn rescale() -> Param {
    float("rescale_grad", "factor on the gradient before anything else").or(1.0)
}
pub(super) fn clip() -> Param {
    float("clip_gradient", "bound on the absolute gradient after the factor; negative is none").or(-1.0)
}
pub(super) fn momentum() -> Param {
    float("momentum", "how much of the last step the next one keeps").or(0.0)
}
pub(super) fn decays(beta1: f32, epsilon: f32) -> [Param; 3] {
    [
        float("beta1", "decay of the mean").or(single(beta1)),
        float("beta2", "decay of the mean square").or(single(0.999)),
        float("epsilon", "added to the root of the mean square").or(single(epsilon)),
    ]
}
fn lazy() -> Param {
    flag("lazy_update", "with a row-sparse gradient, leave rows without gradient as they are").or(true)
}
pub(super) fn step_count() -> Param {
    int("t", "number of this step, from 1").at_least(1.0).at_most(i32::MAX as f64)
}

/// What all rules share, of those attributes that the operator has.
pub(super) fn common(a: &Attrs) -> Common {
    let read = |name, absent| if a.has(name) { a.float(name) } else { absent };
    let clip = if a.has("clip_grad") { a.float("clip_grad") } else { read("clip_gradient", -1.0) };
    Common { lr: read("lr", 0.0), wd: read("wd", 0.0), rescale: read("rescale_grad", 1.0), clip }
}

pub(super) fn moments(a: &Attrs) -> Moments {
    Moments { beta1: a.float("beta1"), beta2: a.float("beta2"), epsilon: a.float("epsilon") }
}

/// Names and documents the inputs of a rule, and ties output 0 to the weight.
fn head<'r>(
    r: &'r mut Registry,
    name: &'static str,
    doc: &'static str,
    states: &[(&'static str, &'static str)],
    master: bool,
) -> &'r mut OpBuilder {
    let op = r.op(name, doc);
    op.input("weight", "the weight, which becomes output 0").input("grad", "its gradient");
    for &(name, doc) in states {
        op.input(name, doc);
    }
    let mut count = 2 + states.len();
    if master {
        op.input("weight32", "the weight in float32, updated in place");
        count += 1;
    }
    op.mutates(&(2..count).collect::<Vec<_>>()).updates(&[(0, 0)])
}

/// A whole record: `build` reads the rule from the attributes.
fn record<'r, R: Rule<K> + 'static, const K: usize>(
    r: &'r mut Registry,
    (name, doc): (&'static str, &'static str),
    states: [(&'static str, &'static str); K],
    master: bool,
    build: fn(&Attrs) -> R,
) -> &'r mut OpBuilder {
    let op = head(r, name, doc, &states, master);
    op.infer(move |s| {
        check(s, 0, K, master)?;
        s.same(0)
    });
    op.kernel(move |c| {
        apart(c, first)?;
        drive(c, &build(c.attrs), Place { out: 0, first: 0, master })
    });
    op.gpu(move |c| drive_on_gpu(c, &build(c.attrs), Place { out: 0, first: 0, master }, &[]));
    let mut inputs = vec![draw(&[2, 3]), draw(&[2, 3])];
    // Mean squares come first and are larger than squared means, as in any run of the optimizers.
    let range = |i: usize| if i == 0 { (0.5, 1.0) } else { (0.1, 0.5) };
    inputs.extend((0..K).map(range).map(|(low, high)| draw(&[2, 3]).within(low, high)));
    if master {
        inputs.push(draw(&[2, 3]));
    }
    let step = [("lr", 0.1.into()), ("t", 2i64.into())];
    let takes_t = matches!(name, "ftml_update");
    op.sample(&inputs, if takes_t { &step } else { &step[..1] })
}

const MOM: (&str, &str) = ("mom", "the last step, updated in place");
pub(super) const MEAN: (&str, &str) = ("mean", "running mean of the gradient, updated in place");
pub(super) const VAR: (&str, &str) = ("var", "running mean of the squared gradient, updated in place");

pub fn register(r: &mut Registry) {
    sgd(r);
    adam(r);
    adaptive(r);
    signs(r);
}

fn sgd(r: &mut Registry) {
    let plain = |a: &Attrs| Sgd { common: common(a) };
    let doc = "Gradient descent: w - lr (clip(rescale_grad g) + wd w).";
    record(r, ("sgd_update", doc), [], false, plain)
        .params([lr(), wd(), rescale(), clip(), lazy()])
        .alias(&["_sparse_sgd_update"]);
    let doc = "sgd_update of a float32 master copy; the weight is its rounding.";
    record(r, ("mp_sgd_update", doc), [], true, plain).params([lr(), wd(), rescale(), clip(), lazy()]);

    let with = |a: &Attrs| SgdMom { common: common(a), momentum: a.float("momentum") };
    let doc = "Gradient descent with momentum: m = momentum m - lr (clip(rescale_grad g) + wd w); w + m.";
    record(r, ("sgd_mom_update", doc), [MOM], false, with)
        .params([lr(), momentum(), wd(), rescale(), clip(), lazy()])
        .alias(&["_sparse_sgd_mom_update"]);
    let doc = "sgd_mom_update of a float32 master copy; the weight is its rounding.";
    record(r, ("mp_sgd_mom_update", doc), [MOM], true, with).params([
        lr(),
        momentum(),
        wd(),
        rescale(),
        clip(),
        lazy(),
    ]);

    let nag = |a: &Attrs| NagMom { common: common(a), momentum: a.float("momentum") };
    let doc = "Nesterov's accelerated gradient with momentum.";
    record(r, ("nag_mom_update", doc), [MOM], false, nag).params([lr(), momentum(), wd(), rescale(), clip()]);
    let doc = "nag_mom_update of a float32 master copy; the weight is its rounding.";
    record(r, ("mp_nag_mom_update", doc), [MOM], true, nag).params([
        lr(),
        momentum(),
        wd(),
        rescale(),
        clip(),
    ]);
}

fn adam(r: &mut Registry) {
    let doc = "Adam (Kingma and Ba 2015) without bias correction, which the learning rate may carry: with moments m, v \
               of G = clip(rescale_grad g + wd w), w - lr m / (sqrt(v) + epsilon).";
    record(r, ("adam_update", doc), [MEAN, VAR], false, |a| Adam { common: common(a), moments: moments(a) })
        .param(lr())
        .params(decays(0.9, 1e-8))
        .params([wd(), rescale(), clip(), lazy()])
        .alias(&["_sparse_adam_update"]);
    for master in [false, true] {
        let (name, doc) = match master {
            false => (
                "_adamw_update",
                "Adam with decoupled decay (Loshchilov and Hutter 2019): w - eta (lr m / (sqrt(v) + epsilon) + wd w), \
                 m and v of clip(rescale_grad g). Nothing changes where rescale_grad is 0 or not finite.",
            ),
            true => {
                ("_mp_adamw_update", "_adamw_update of a float32 master copy; the weight is its rounding.")
            }
        };
        let op = head(r, name, doc, &[MEAN, VAR], master);
        let scale = op_inputs(master);
        op.input("rescale_grad", "factor on the gradient, an array of one number")
            .param(lr())
            .params(decays(0.9, 1e-8))
            .params([wd(), float("eta", "factor on the whole step, decay included"), clip()])
            .infer(move |s| {
                check(s, 0, 2, master)?;
                expect_numbers(s, scale)?;
                s.same(0)
            })
            .kernel(move |c| {
                apart(c, first)?;
                let rule = AdamW {
                    common: Common { rescale: first_number(c, scale)?, ..common(c.attrs) },
                    moments: moments(c.attrs),
                    eta: c.attrs.float("eta"),
                };
                drive(c, &rule, Place { out: 0, first: 0, master })
            })
            .gpu(move |c| {
                let (common, eta) = (common(c.attrs), c.attrs.float("eta"));
                let rule = AdamW { common, moments: moments(c.attrs), eta };
                let read = Read { name: "rescale", input: scale, at: 0 };
                drive_on_gpu(c, &rule, Place { out: 0, first: 0, master }, &[read])
            });
        let mut inputs = vec![draw(&[2, 3]); 2];
        inputs.extend(vec![draw(&[2, 3]).within(0.5, 1.0); scale - 2]);
        inputs.push(draw(&[1]).within(0.5, 1.0));
        op.sample(&inputs, &[("lr", 0.1.into()), ("eta", 1.0.into())]);
    }
}

/// Inputs of an Adam-like rule up to the master copy.
pub(super) const fn op_inputs(master: bool) -> usize {
    if master { 5 } else { 4 }
}

/// Input `i` is floating and not empty: its first number counts.
pub(super) fn expect_numbers(s: &Sig, i: usize) -> Result<()> {
    s.expect_float(i)?;
    if s.shape(i).size() == 0 {
        return Err(s.fail(format!("{} is empty; one number is expected", s.op.input_name(i))));
    }
    Ok(())
}

/// The first number of input `i`.
pub(super) fn first_number(c: &Ctx, i: usize) -> Result<f64> {
    let dtype = c.dtype(i);
    dispatch_float!(dtype, T => Ok(mxrs_base::Elem::to_f64(c.x::<T>(i)[0])), else c.bad_dtype(dtype))
}

fn adaptive(r: &mut Registry) {
    let gamma1 = || float("gamma1", "decay of the mean square").or(single(0.95));
    let eps = || float("epsilon", "added to the mean square").or(single(1e-8));
    let limit = || float("clip_weights", "bound on the absolute new weight; negative is none").or(-1.0);
    let square = ("n", "running mean of the squared gradient, updated in place");
    let doc = "RMSProp (Tieleman and Hinton 2012): w - lr G / sqrt(n + epsilon), n the running mean of G^2, \
               G = clip(rescale_grad g + wd w).";
    record(r, ("rmsprop_update", doc), [square], false, |a| RmsProp {
        common: common(a),
        gamma1: a.float("gamma1"),
        epsilon: a.float("epsilon"),
        clip_weights: a.float("clip_weights"),
    })
    .params([lr(), gamma1(), eps(), wd(), rescale(), clip(), limit()]);

    let mean = ("g", "running mean of the gradient, updated in place");
    let delta = ("delta", "the last step, updated in place");
    let doc =
        "Centred RMSProp (Graves 2013): delta = gamma2 delta - lr G / sqrt(n - g^2 + epsilon); w + delta.";
    record(r, ("rmspropalex_update", doc), [square, mean, delta], false, |a| RmsPropAlex {
        common: common(a),
        centered: Centered {
            gamma1: a.float("gamma1"),
            gamma2: a.float("gamma2"),
            epsilon: a.float("epsilon"),
            clip_weights: a.float("clip_weights"),
        },
    })
    .params([lr(), gamma1(), float("gamma2", "decay of the step").or(single(0.9))])
    .params([eps(), wd(), rescale(), clip(), limit()]);

    let sums = [("z", "running sum of the adjusted gradient"), ("n", "running sum of the squared gradient")];
    let doc = "Follow the regularised leader (McMahan et al. 2013).";
    record(r, ("ftrl_update", doc), sums, false, |a| Ftrl {
        common: common(a),
        lamda1: a.float("lamda1"),
        beta: a.float("beta"),
    })
    .params([lr(), float("lamda1", "weight of the absolute-value penalty").or(single(0.01))])
    .params([float("beta", "added to the root of n").or(1.0), wd(), rescale(), clip()])
    .alias(&["_sparse_ftrl_update"]);

    let states =
        [("d", "the last denominator"), ("v", "running mean of the squared gradient"), ("z", "running sum")];
    let doc = "Follow the moving leader (Zheng and Kwok 2017).";
    let clip_grad = float("clip_grad", "bound on the absolute gradient after the factor; negative is none");
    record(r, ("ftml_update", doc), states, false, |a| Ftml {
        common: common(a),
        moments: moments(a),
        t: a.int("t") as i32,
    })
    .param(lr())
    .params(decays(0.6, 1e-8))
    .params([step_count(), wd(), rescale(), clip_grad.or(-1.0)]);

    let history = ("history", "running sum of the squared gradient, updated in place");
    let doc = "AdaGrad (Duchi et al. 2011): h += G^2; w - lr (G / sqrt(h + epsilon) + wd w), G = clip(rescale_grad g).";
    record(r, ("_sparse_adagrad_update", doc), [history], false, |a| AdaGrad {
        common: common(a),
        epsilon: a.float("epsilon"),
    })
    .params([
        lr(),
        float("epsilon", "added to the sum of squares").or(single(1e-7)),
        wd(),
        rescale(),
        clip(),
    ]);
}

fn signs(r: &mut Registry) {
    let doc = "Sign descent (Bernstein et al. 2018): (1 - lr wd) w - lr sign(g).";
    record(r, ("signsgd_update", doc), [], false, |a| SignSgd { common: common(a) }).params([
        lr(),
        wd(),
        rescale(),
        clip(),
    ]);
    let doc = "Sign descent with momentum: m = momentum m - (1 - momentum)(clip(rescale_grad g) + wd w); \
               (1 - lr wd_lh) w + lr sign(m).";
    record(r, ("signum_update", doc), [MOM], false, |a| Signum {
        common: common(a),
        momentum: a.float("momentum"),
        wd_lh: a.float("wd_lh"),
    })
    .params([lr(), momentum(), wd(), rescale(), clip()])
    .param(float("wd_lh", "decay applied to the weight itself").or(0.0));
}
