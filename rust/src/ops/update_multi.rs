//! Optimizer updates of many weights in one call, and the operators around them (LARS rates, zeroing).
//!
//! Inputs are the arrays of the first weight in the order of the single-weight operator, then those of the second, and
//! so on; learning rates and decays come as attributes, or, in the `preloaded_` forms, as two arrays at the end. The
//! rules and their driver are in `update`.

use super::registry::Registry;
use super::update::{
    AdamW, Place, Read, Rule, Sgd, SgdMom, apart, check, clip, common, decays, drive, drive_many_on_gpu,
    drive_on_gpu, expect_numbers, first_number, limit, moments, momentum, rescale,
};
use super::update_lamb::{launch_direction, launch_step, round_into, with_f32_grad};
use super::{
    Attrs, Ctx, GpuCtx, OpBuilder, Param, SampleInput, Shapes, Sig, Specs, draw, flag, float, floats, int,
    ints,
};
use crate::shaders::copy::{launch_cast, launch_fill};
use crate::shaders::elem::Span;
use crate::shaders::map::launch_map;
use crate::shaders::reduce::{Reduction, launch_reduce};
use mxrs_base::{AttrValue, DType, Elem, Result, dispatch_float};
use mxrs_formula::{Args, E, Formula};
use mxrs_kernels::update::{self, Arrays, Common, Moments, Store};
use std::sync::LazyLock;

/// The most weights of one call.
const MOST: usize = 512;

/// How the inputs of a call are laid out.
#[derive(Clone, Copy)]
struct Layout {
    /// The attribute that counts the weights.
    count: &'static str,
    states: usize,
    master: bool,
    /// Arrays after those of the weights.
    tail: usize,
}

impl Layout {
    const fn stride(self) -> usize {
        2 + self.states + self.master as usize
    }
    fn place(self, k: usize) -> Place {
        Place { out: k, first: k * self.stride(), master: self.master }
    }

    /// Checks the number of arrays and those of each weight.
    fn check(self, s: &Sig) -> Result<usize> {
        let (n, given) = (s.attrs.size(self.count), s.ins.len());
        let expected = n * self.stride() + self.tail;
        if given != expected {
            return Err(s.fail(format!("{n} weights need {expected} arrays; {given} were given")));
        }
        for k in 0..n {
            check(s, k * self.stride(), self.states, self.master)?;
        }
        Ok(n)
    }

    /// One output per weight.
    fn outputs(self, s: &Sig, n: usize) -> Specs {
        (0..n).map(|k| s.ins[k * self.stride()].clone()).collect()
    }

    fn apart(self, c: &Ctx) -> Result<usize> {
        let n = c.outs.len();
        apart(c, |i| (i % self.stride() == 0 && i / self.stride() < n).then_some(i / self.stride()))?;
        Ok(n)
    }
}

/// Begins a record: inputs, states and outputs.
fn head<'r>(r: &'r mut Registry, name: &'static str, doc: &'static str, l: Layout) -> &'r mut OpBuilder {
    let stride = l.stride();
    let states: Vec<usize> = (0..MOST).flat_map(|k| (2..stride).map(move |j| k * stride + j)).collect();
    let weights: Vec<(usize, usize)> = (0..MOST).map(|k| (k, k * stride)).collect();
    // No attribute counts the arrays: `num_weights` counts weights.
    r.op(name, doc)
        .variadic("data", "weight, gradient and states of each weight in turn", "num_inputs")
        .mutates(&states)
        .updates(&weights)
        .visible(|a| a.size(if a.has("num_weights") { "num_weights" } else { "num_tensors" }))
        .param(int(l.count, "how many weights there are").or(1).at_least(1.0).at_most(MOST as f64))
}

fn rates(name: &'static str, doc: &'static str) -> Param {
    floats(name, doc)
}

/// That a list of per-weight numbers has one entry per weight.
fn expect_count(s: &Sig, name: &str, given: usize, weights: usize) -> Result<()> {
    if given == weights {
        return Ok(());
    }
    Err(s
        .fail(format!("argument {name} has {given} entries for {weights} weights; one for each is expected")))
}

/// Sample inputs: two weights of different shapes, then `tail`.
fn two(l: Layout, tail: &[SampleInput]) -> Vec<SampleInput> {
    let of = |shape: &[usize]| {
        let mut arrays = vec![draw(shape); 2];
        arrays.extend(vec![draw(shape).within(0.5, 1.0); l.stride() - 2]);
        arrays
    };
    [of(&[2, 3]), of(&[4]), tail.to_vec()].concat()
}

pub fn register(r: &mut Registry) {
    for master in [false, true] {
        let sgd = |a: &Attrs, lr, wd| Sgd { common: Common { lr, wd, ..common(a) } };
        let mom = |a: &Attrs, lr, wd| SgdMom {
            common: Common { lr, wd, ..common(a) },
            momentum: a.float("momentum"),
        };
        let names = match master {
            false => ["multi_sgd_update", "preloaded_multi_sgd_update"],
            true => ["multi_mp_sgd_update", "preloaded_multi_mp_sgd_update"],
        };
        many::<_, 0>(r, names, "sgd_update of many weights.", master, false, sgd);
        let names = match master {
            false => ["multi_sgd_mom_update", "preloaded_multi_sgd_mom_update"],
            true => ["multi_mp_sgd_mom_update", "preloaded_multi_mp_sgd_mom_update"],
        };
        many::<_, 1>(r, names, "sgd_mom_update of many weights.", master, true, mom);
        adamw(r, master);
        lamb(r, master);
    }
    lars(r);
    reset(r);
    group_adagrad(r);
}

/// The form with rates as attributes and the `preloaded_` form.
fn many<R: Rule<K> + 'static, const K: usize>(
    r: &mut Registry,
    [by_attributes, preloaded]: [&'static str; 2],
    doc: &'static str,
    master: bool,
    has_momentum: bool,
    build: fn(&Attrs, f64, f64) -> R,
) {
    let momentum = || has_momentum.then(momentum);
    let l = Layout { count: "num_weights", states: K, master, tail: 0 };
    head(r, by_attributes, doc, l)
        .params([rates("lrs", "learning rate of each weight"), rates("wds", "weight decay of each weight")])
        .params(momentum())
        .params([rescale(), clip()])
        .infer(move |s| {
            let n = l.check(s)?;
            expect_count(s, "lrs", s.attrs.floats("lrs").len(), n)?;
            expect_count(s, "wds", s.attrs.floats("wds").len(), n)?;
            Ok(l.outputs(s, n))
        })
        .kernel(move |c| {
            let (lrs, wds) = (c.attrs.floats("lrs"), c.attrs.floats("wds"));
            for k in 0..l.apart(c)? {
                drive(c, &build(c.attrs, lrs[k], wds[k]), l.place(k))?;
            }
            Ok(())
        })
        .gpu(move |c| {
            let (lrs, wds) = (c.attrs.floats("lrs"), c.attrs.floats("wds"));
            let rules: Vec<(R, Place)> =
                (0..c.outs.len()).map(|k| (build(c.attrs, lrs[k], wds[k]), l.place(k))).collect();
            drive_many_on_gpu(c, &rules)
        })
        .sample(&two(l, &[]), &[pair("lrs", 0.1, 0.2), pair("wds", 0.0, 0.1), ("num_weights", 2i64.into())]);

    let l = Layout { tail: 2, ..l };
    head(r, preloaded, doc, l)
        .params(momentum())
        .params([rescale(), clip()])
        .infer(move |s| {
            let n = l.check(s)?;
            for (i, name) in [(s.ins.len() - 2, "lrs"), (s.ins.len() - 1, "wds")] {
                s.expect_float(i)?;
                expect_count(s, name, s.shape(i).size(), n)?;
            }
            Ok(l.outputs(s, n))
        })
        .kernel(move |c| {
            let (lrs, wds) = (numbers(c, c.ins.len() - 2)?, numbers(c, c.ins.len() - 1)?);
            for k in 0..l.apart(c)? {
                drive(c, &build(c.attrs, lrs[k], wds[k]), l.place(k))?;
            }
            Ok(())
        })
        .gpu(move |c| {
            for k in 0..c.outs.len() {
                let read = |name, from_end| Read { name, input: c.ins.len() - from_end, at: k };
                drive_on_gpu(c, &build(c.attrs, 0.0, 0.0), l.place(k), &[read("lr", 2), read("wd", 1)])?;
            }
            Ok(())
        })
        .sample(&two(l, &[draw(&[2]).within(0.1, 0.2), draw(&[2])]), &[("num_weights", 2i64.into())]);
}

fn pair(name: &'static str, a: f64, b: f64) -> (&'static str, AttrValue) {
    (name, AttrValue::Floats([a, b].into()))
}

/// Input `i` as numbers.
fn numbers(c: &Ctx, i: usize) -> Result<Vec<f64>> {
    let dtype = c.dtype(i);
    dispatch_float!(dtype, T => Ok(c.x::<T>(i).iter().map(|v| v.to_f64()).collect()), else c.bad_dtype(dtype))
}

fn adamw(r: &mut Registry, master: bool) {
    let l = Layout { count: "num_weights", states: 2, master, tail: 1 };
    let name = if master { "_multi_mp_adamw_update" } else { "_multi_adamw_update" };
    head(r, name, "_adamw_update of many weights; the last array is rescale_grad.", l)
        .param(rates("lrs", "learning rate of each weight"))
        .params(decays(0.9, 1e-8))
        .params([
            rates("wds", "weight decay of each weight"),
            rates("etas", "factor on each weight's step"),
            clip(),
        ])
        .infer(move |s| {
            let n = l.check(s)?;
            for name in ["lrs", "wds", "etas"] {
                expect_count(s, name, s.attrs.floats(name).len(), n)?;
            }
            expect_numbers(s, s.ins.len() - 1)?;
            Ok(l.outputs(s, n))
        })
        .kernel(move |c| {
            let a = c.attrs;
            let scale = first_number(c, c.ins.len() - 1)?;
            for k in 0..l.apart(c)? {
                let (lr, wd) = (a.floats("lrs")[k], a.floats("wds")[k]);
                let common = Common { lr, wd, rescale: scale, ..common(a) };
                drive(c, &AdamW { common, moments: moments(a), eta: a.floats("etas")[k] }, l.place(k))?;
            }
            Ok(())
        })
        .gpu(move |c| {
            let a = c.attrs;
            for k in 0..c.outs.len() {
                let (lr, wd, eta) = (a.floats("lrs")[k], a.floats("wds")[k], a.floats("etas")[k]);
                let rule = AdamW { common: Common { lr, wd, ..common(a) }, moments: moments(a), eta };
                let read = Read { name: "rescale", input: c.ins.len() - 1, at: 0 };
                drive_on_gpu(c, &rule, l.place(k), &[read])?;
            }
            Ok(())
        })
        .sample(
            &two(l, &[draw(&[1]).within(0.5, 1.0)]),
            &[
                pair("lrs", 0.1, 0.2),
                pair("wds", 0.0, 0.1),
                pair("etas", 1.0, 0.5),
                ("num_weights", 2i64.into()),
            ],
        );
}

fn lamb(r: &mut Registry, master: bool) {
    let l = Layout { count: "num_tensors", states: 2, master, tail: 0 };
    let name = if master { "_multi_mp_lamb_update" } else { "_multi_lamb_update" };
    let bound = |name, doc| float(name, doc).or(-1.0);
    head(r, name, "Both phases of LAMB on many weights.", l)
        .param(rates("learning_rates", "learning rate of each weight"))
        .params(decays(0.9, 1e-6))
        .params([rates("wds", "weight decay of each weight"), rescale()])
        .params([
            bound("lower_bound", "least norm of a weight; negative is none"),
            bound("upper_bound", "largest norm of a weight; negative is none"),
            clip(),
            flag("bias_correction", "correct the moments for their start at 0").or(true),
            ints("step_count", "number of each weight's step, from 1").at_least(1.0).at_most(i32::MAX as f64),
        ])
        .infer(move |s| {
            let n = l.check(s)?;
            expect_count(s, "learning_rates", s.attrs.floats("learning_rates").len(), n)?;
            expect_count(s, "wds", s.attrs.floats("wds").len(), n)?;
            expect_count(s, "step_count", s.attrs.opt_ints("step_count").len(), n)?;
            Ok(l.outputs(s, n))
        })
        .kernel(move |c| {
            for k in 0..l.apart(c)? {
                lamb_step(c, l.place(k), k)?;
            }
            Ok(())
        })
        .gpu(move |c| (0..c.outs.len()).try_for_each(|k| lamb_step_on_gpu(c, l.place(k), k)))
        .sample(
            &two(l, &[]),
            &[
                pair("learning_rates", 0.1, 0.2),
                pair("wds", 0.0, 0.1),
                ("step_count", [1, 2].into()),
                ("num_tensors", 2i64.into()),
            ],
        );
}

/// The numbers of one weight's LAMB step.
struct Lamb {
    common: Common,
    moments: Moments,
    t: Option<i32>,
    bounds: (f64, f64),
}

impl Lamb {
    fn of(a: &Attrs, k: usize) -> Lamb {
        let (lr, wd) = (a.floats("learning_rates")[k], a.floats("wds")[k]);
        Lamb {
            common: Common { lr, wd, ..common(a) },
            moments: moments(a),
            t: a.bool("bias_correction").then(|| a.ints("step_count")[k] as i32),
            bounds: (a.float("lower_bound"), a.float("upper_bound")),
        }
    }

    fn run<S: Store>(&self, weight: &mut [S], grad: &[S], states: [&mut [S]; 2]) {
        let mut direction = weight.to_vec();
        let arrays = Arrays { weight: &mut direction, grad, states, master: None };
        update::lamb_phase1(arrays, &self.common, &self.moments, self.t);
        let ratio = update::lamb_ratio(norm(weight), norm(&direction), self.bounds.0, self.bounds.1);
        let arrays = Arrays { weight, grad: &direction, states: [], master: None };
        update::lamb_phase2(arrays, self.common.lr, ratio);
    }
}

fn norm<T: Elem>(x: &[T]) -> f64 {
    x.iter().map(|v| v.to_f64() * v.to_f64()).sum::<f64>().sqrt()
}

fn lamb_step(c: &Ctx, at: Place, k: usize) -> Result<()> {
    let (rule, first) = (Lamb::of(c.attrs, k), at.first);
    if at.master {
        let weight32 = c.state::<f32>(first + 4);
        let states = [c.state::<f32>(first + 2), c.state::<f32>(first + 3)];
        with_f32_grad(c, first + 1, |grad| rule.run(weight32, grad, states))?;
        return round_into(c, at.out, c.state::<f32>(first + 4));
    }
    let dtype = c.dtype(first);
    dispatch_float!(dtype, S => {
        rule.run(c.y::<S>(at.out), c.x::<S>(first + 1), [c.state::<S>(first + 2), c.state::<S>(first + 3)]);
    }, else return c.bad_dtype(dtype));
    Ok(())
}

fn lamb_step_on_gpu(c: &GpuCtx, at: Place, k: usize) -> Result<()> {
    let (rule, name) = (Lamb::of(c.attrs, k), c.op.name);
    let (n, first) = (c.out_shape(at.out).size(), at.first);
    let weight = if at.master { c.x(first + 4) } else { c.y(at.out) };
    let direction = c.device.alloc((weight.dtype.size() * n).max(1) as u64)?;
    let direction = Span::new(&direction, weight.dtype);
    let arrays = [weight, c.x(first + 1), c.x(first + 2), c.x(first + 3), direction];
    launch_direction(c, n, (&rule.common, &rule.moments, rule.t), arrays)?;
    let norms = c.device.alloc(8)?;
    let norms = [0, 1].map(|offset| Span { buffer: &norms, dtype: DType::F32, offset });
    for (x, norm) in [weight, direction].into_iter().zip(norms) {
        launch_reduce(c.device, Reduction::NormL2, &[n], &[0], x.strided(&[1]), norm, name)?;
    }
    let numbers = [rule.common.lr, rule.bounds.0, rule.bounds.1];
    launch_step(c, n, numbers, [weight, direction, norms[0], norms[1]])?;
    match at.master {
        true => launch_cast(c.device, n, weight, c.y(at.out), name),
        false => Ok(()),
    }
}

fn lars(r: &mut Registry) {
    r.op(
        "multi_lars",
        "Learning rates of layers (You et al. 2017): lr eta |w| / (rescale_grad |g| + wd |w| + eps), and lr where a norm \
         is 0.",
    )
    .input("lrs", "learning rates")
    .input("weights_sum_sq", "sums of squares of the weights")
    .input("grads_sum_sq", "sums of squares of the gradients")
    .input("wds", "weight decays")
    .params([
        float("eta", "trust coefficient"),
        float("eps", "added to the divisor"),
        float("rescale_grad", "factor on the gradients' norms").or(1.0),
    ])
    .formula(Shapes::Same, |a| {
        let (lr, w, g) = (a.x(0), a.x(1).sqrt(), a.x(2).sqrt());
        let scaled = lr * a.param("eta") * w / (g * a.param("rescale_grad") + a.x(3) * w + a.param("eps"));
        w.gt(a.c(0.0)).and(g.gt(a.c(0.0))).select(scaled, lr)
    })
    .sample(&vec![draw(&[4]).within(0.5, 1.0); 4], &[("eta", 0.5.into()), ("eps", 0.1.into())]);
}

fn reset(r: &mut Registry) {
    let most = 4 * MOST;
    r.op("reset_arrays", "Makes every element of the arrays zero, in place.")
        .variadic("data", "arrays of any shapes and types", "num_arrays")
        .visible(|_| 0)
        .param(int("num_arrays", "how many arrays there are").at_least(1.0).at_most(most as f64))
        .mutates(&(0..most).collect::<Vec<_>>())
        .infer(|_| Ok(Specs::new()))
        .kernel(|c| {
            for i in 0..c.ins.len() {
                mxrs_base::dispatch!(c.dtype(i), T => c.state::<T>(i).fill(T::default()));
            }
            Ok(())
        })
        .gpu(|c| {
            (0..c.ins.len()).try_for_each(|i| {
                launch_fill(c.device, &[c.shape(i).size()], 0.0, c.x(i).strided(&[1]), c.op.name)
            })
        })
        .sample(&[draw(&[2, 3]), draw(&[4])], &[]);
}

fn group_adagrad(r: &mut Registry) {
    r.op(
        "_contrib_group_adagrad_update",
        "AdaGrad with one history per row: h += mean of G^2 over the row; w - lr G / sqrt(h + epsilon), G = \
         clip(rescale_grad g).",
    )
    .input("weight", "the weight (rows, ...), which becomes output 0")
    .input("grad", "its gradient")
    .input("history", "one number per row, updated in place")
    .params([float("lr", "learning rate"), rescale(), clip()])
    .param(float("epsilon", "added to the history").or(1e-5f32 as f64))
    .mutates(&[2])
    .updates(&[(0, 0)])
    .infer(|s| {
        s.expect_float(0)?;
        s.one_dtype()?;
        s.expect_ndim(0, 1..=usize::MAX)?;
        s.expect_shape(1, s.shape(0))?;
        if s.shape(2).size() != s.shape(0)[0] {
            return Err(s.fail(format!("history has shape {}; one number per row is expected", s.shape(2))));
        }
        s.same(0)
    })
    .kernel(|c| {
        apart(c, |i| (i == 0).then_some(0))?;
        let dtype = c.dtype(0);
        dispatch_float!(dtype, T => group_step::<T>(c), else return c.bad_dtype(dtype));
        Ok(())
    })
    .gpu(group_step_on_gpu)
    .sample(&[draw(&[3, 2]), draw(&[3, 2]), draw(&[3, 1]).within(0.5, 1.0)], &[("lr", 0.1.into())]);
}

fn group_step<T: Elem>(c: &Ctx) {
    let (p, eps) = (common(c.attrs), c.attrs.float("epsilon"));
    let (weight, grad, history) = (c.y::<T>(0), c.x::<T>(1), c.state::<T>(2));
    if weight.is_empty() {
        return;
    }
    let row = weight.len() / history.len();
    let limit = if p.clip >= 0.0 { p.clip } else { f64::INFINITY };
    let scaled = |g: &T| (p.rescale * g.to_f64()).max(-limit).min(limit);
    for ((weight, grad), h) in weight.chunks_exact_mut(row).zip(grad.chunks_exact(row)).zip(history) {
        let sum = h.to_f64() + grad.iter().map(|g| scaled(g).powi(2)).sum::<f64>() / row as f64;
        *h = T::from_f64(sum);
        let rate = p.lr / (sum + eps).sqrt();
        for (w, g) in weight.iter_mut().zip(grad) {
            *w = T::from_f64(w.to_f64() - rate * scaled(g));
        }
    }
}

/// clip(rescale g) of a gradient, the first input of the formulas.
fn scaled(a: &Args) -> E {
    (a.x(0) * a.param("rescale")).max(a.c(0.0) - a.param("limit")).min(a.param("limit"))
}

/// The square of the scaled gradient; the history with the mean square; the weight.
static GROUPS: LazyLock<[Formula; 3]> = LazyLock::new(|| {
    let given = &["rescale", "limit"];
    [
        Formula::build(1, given, |a| scaled(a) * scaled(a)),
        Formula::build(2, &[], |a| a.x(0) + a.x(1)),
        Formula::build(3, &["rescale", "limit", "lr", "epsilon"], |a| {
            a.x(1) - a.param("lr") / (a.x(2) + a.param("epsilon")).sqrt() * scaled(a)
        }),
    ]
});

fn group_step_on_gpu(c: &GpuCtx) -> Result<()> {
    let (p, rows, name) = (common(c.attrs), c.shape(2).size(), c.op.name);
    let n = c.shape(0).size();
    if n == 0 {
        return Ok(());
    }
    let (limit, dims) = (limit(p.clip), [rows, n / rows]);
    let [own, row] = [[dims[1] as isize, 1], [1, 0]];
    let (squares, means) = (c.device.alloc(4 * n as u64)?, c.device.alloc(4 * rows as u64)?);
    let (squares, means) = (Span::new(&squares, DType::F32), Span::new(&means, DType::F32));
    let grad = c.x(1).strided(&own);
    launch_map(c.device, &GROUPS[0], &[p.rescale, limit], &dims, &[grad], squares.strided(&own), name)?;
    launch_reduce(c.device, Reduction::Mean, &dims, &[1], squares.strided(&own), means, name)?;
    let history = c.x(2).strided(&[1]);
    launch_map(c.device, &GROUPS[1], &[], &[rows], &[history, means.strided(&[1])], history, name)?;
    let (weight, history) = (c.y(0).strided(&own), c.x(2).strided(&row));
    let numbers = [p.rescale, limit, p.lr, c.attrs.float("epsilon")];
    launch_map(c.device, &GROUPS[2], &numbers, &dims, &[grad, weight, history], weight, name)
}
