//! Random numbers: fills by scalar parameters, fills like an array, and samples per element of parameter arrays.
//!
//! Every call has its own place in the stream of its context, so element `i` of a call is a function of seed, place
//! and `i` alone. A call takes one place per element of its results; the samplers need only one in all, because the
//! counter within a place is 64 bits wide. The distributions are in [`mxrs_kernels::sample`].

mod on_gpu;

use super::registry::Registry;
use super::{
    Attrs, Build, Ctx, GradArgs, Grads, Param, Sig, Spec, Specs, draw, dtype, empty, flag, float, int, ints,
    string,
};
use mxrs_base::{AttrValue, DType, Elem, Result, Shape, dispatch, dispatch_float, f16};
use mxrs_kernels::philox::{Stream, unit_f64};
use mxrs_kernels::real::Float;
use mxrs_kernels::sample;
use std::collections::HashSet;

pub fn register(r: &mut Registry) {
    for d in DISTRIBUTIONS {
        fill_by_numbers(r, d);
        fill_like(r, d);
        sample_by_arrays(r, d);
    }
    randint(r);
    multinomial(r);
    shuffle(r);
    unique_zipfian(r);
}

#[derive(Clone, Copy)]
enum Kind {
    Uniform,
    Normal,
    Gamma,
    Exponential,
    Poisson,
    NegativeBinomial,
    GeneralizedNegativeBinomial,
}

/// A number that a distribution is told by.
struct Number {
    name: &'static str,
    /// The name of the array form's input.
    array: &'static str,
    doc: &'static str,
    default: f64,
    integer: bool,
}

struct Distribution {
    kind: Kind,
    /// Names of the three operators: by numbers, like an array, by arrays.
    names: [&'static str; 3],
    aliases: &'static [&'static str],
    array_alias: &'static str,
    doc: [&'static str; 3],
    numbers: &'static [Number],
    /// What the numbers must fulfil, and how that is said.
    domain: (fn(&[f64]) -> bool, &'static str),
}

const fn number(name: &'static str, array: &'static str, doc: &'static str, default: f64) -> Number {
    Number { name, array, doc, default, integer: false }
}

const DISTRIBUTIONS: &[Distribution] = &[
    Distribution {
        kind: Kind::Uniform,
        names: ["_random_uniform", "_random_uniform_like", "_sample_uniform"],
        aliases: &["uniform", "random_uniform"],
        array_alias: "sample_uniform",
        doc: [
            "Numbers uniform on [low, high).",
            "Numbers uniform on [low, high), in the shape and type of `data`.",
            "`shape` numbers uniform on [low, high) for each pair of entries.",
        ],
        numbers: &[number("low", "low", "least number", 0.0), number("high", "high", "bound above", 1.0)],
        domain: (|p| p[0] <= p[1], "low <= high is expected"),
    },
    Distribution {
        kind: Kind::Normal,
        names: ["_random_normal", "_random_normal_like", "_sample_normal"],
        aliases: &["normal", "random_normal"],
        array_alias: "sample_normal",
        doc: [
            "Numbers normal with mean `loc` and standard deviation `scale`.",
            "Numbers normal with mean `loc` and standard deviation `scale`, in the shape and type of `data`.",
            "`shape` numbers normal with mean `mu` and standard deviation `sigma` for each pair of entries.",
        ],
        numbers: &[number("loc", "mu", "mean", 0.0), number("scale", "sigma", "standard deviation", 1.0)],
        domain: (|p| p[1] > 0.0, "scale > 0 is expected"),
    },
    Distribution {
        kind: Kind::Gamma,
        names: ["_random_gamma", "_random_gamma_like", "_sample_gamma"],
        aliases: &["random_gamma"],
        array_alias: "sample_gamma",
        doc: [
            "Gamma variates of shape `alpha` and scale `beta` (mean alpha beta).",
            "Gamma variates of shape `alpha` and scale `beta`, in the shape and type of `data`.",
            "`shape` gamma variates of shape `alpha` and scale `beta` for each pair of entries.",
        ],
        numbers: &[
            number("alpha", "alpha", "shape of the distribution", 1.0),
            number("beta", "beta", "scale of the distribution", 1.0),
        ],
        domain: (|p| p[0] > 0.0 && p[1] > 0.0, "alpha > 0 and beta > 0 are expected"),
    },
    Distribution {
        kind: Kind::Exponential,
        names: ["_random_exponential", "_random_exponential_like", "_sample_exponential"],
        aliases: &["random_exponential"],
        array_alias: "sample_exponential",
        doc: [
            "Exponential variates of rate `lam` (mean 1 / lam).",
            "Exponential variates of rate `lam`, in the shape and type of `data`.",
            "`shape` exponential variates of rate `lam` for each entry.",
        ],
        numbers: &[number("lam", "lam", "rate", 1.0)],
        domain: (|p| p[0] > 0.0, "lam > 0 is expected"),
    },
    Distribution {
        kind: Kind::Poisson,
        names: ["_random_poisson", "_random_poisson_like", "_sample_poisson"],
        aliases: &["random_poisson"],
        array_alias: "sample_poisson",
        doc: [
            "Poisson variates of mean `lam`.",
            "Poisson variates of mean `lam`, in the shape and type of `data`.",
            "`shape` Poisson variates of mean `lam` for each entry.",
        ],
        numbers: &[number("lam", "lam", "mean", 1.0)],
        domain: (|p| p[0] >= 0.0, "lam >= 0 is expected"),
    },
    Distribution {
        kind: Kind::NegativeBinomial,
        names: ["_random_negative_binomial", "_random_negative_binomial_like", "_sample_negative_binomial"],
        aliases: &["random_negative_binomial"],
        array_alias: "sample_negative_binomial",
        doc: [
            "Failures before the `k`-th success of trials that succeed with probability `p`.",
            "Failures before the `k`-th success at probability `p`, in the shape and type of `data`.",
            "`shape` counts of failures before the `k`-th success at probability `p` for each pair of entries.",
        ],
        numbers: &[
            Number { integer: true, ..number("k", "k", "successes waited for", 1.0) },
            number("p", "p", "probability of success", 1.0),
        ],
        domain: (|p| p[0] >= 0.0 && p[1] > 0.0 && p[1] <= 1.0, "k >= 0 and 0 < p <= 1 are expected"),
    },
    Distribution {
        kind: Kind::GeneralizedNegativeBinomial,
        names: [
            "_random_generalized_negative_binomial",
            "_random_generalized_negative_binomial_like",
            "_sample_generalized_negative_binomial",
        ],
        aliases: &["random_generalized_negative_binomial"],
        array_alias: "sample_generalized_negative_binomial",
        doc: [
            "Negative binomial variates of mean `mu` and dispersion `alpha` (variance mu + alpha mu^2).",
            "Negative binomial variates of mean `mu` and dispersion `alpha`, in the shape and type of `data`.",
            "`shape` negative binomial variates of mean `mu` and dispersion `alpha` for each pair of entries.",
        ],
        numbers: &[
            number("mu", "mu", "mean", 1.0),
            number("alpha", "alpha", "dispersion; 0 is Poisson", 1.0),
        ],
        domain: (|p| p[0] >= 0.0 && p[1] >= 0.0, "mu >= 0 and alpha >= 0 are expected"),
    },
];

impl Distribution {
    fn params(&self) -> Vec<Param> {
        let param = |n: &Number| match n.integer {
            true => int(n.name, n.doc).or(n.default as i64),
            false => float(n.name, n.doc).or(n.default),
        };
        self.numbers.iter().map(param).collect()
    }

    /// The numbers given, or an error that says what they must fulfil.
    fn given(&self, s: &Sig) -> Result<()> {
        let values: Vec<f64> = self.numbers.iter().map(|n| s.attrs.number(n.name)).collect();
        let (fine, text) = self.domain;
        if fine(&values) {
            return Ok(());
        }
        let shown: Vec<String> =
            self.numbers.iter().zip(&values).map(|(n, v)| format!("{} = {v}", n.name)).collect();
        Err(s.fail(format!("{} is not valid; {text}", shown.join(", "))))
    }
}

/// Fills `out`: each parameter one number, or one for each equal run.
fn fill<T: Float>(kind: Kind, stream: Stream, p: &[Vec<f64>], out: &mut [T]) {
    match kind {
        Kind::Uniform => sample::uniform(stream, &p[0], &p[1], out),
        Kind::Normal => sample::normal(stream, &p[0], &p[1], out),
        Kind::Gamma => sample::gamma(stream, &p[0], &p[1], out),
        Kind::Exponential => sample::exponential(stream, &p[0], out),
        Kind::Poisson => sample::poisson(stream, &p[0], out),
        Kind::NegativeBinomial => sample::negative_binomial(stream, &p[0], &p[1], out),
        Kind::GeneralizedNegativeBinomial => sample::generalized_negative_binomial(stream, &p[0], &p[1], out),
    }
}

fn run(c: &Ctx, kind: Kind, p: &[Vec<f64>]) -> Result<()> {
    let dtype = c.out_dtype(0);
    dispatch_float!(dtype, T => fill(kind, stream(c), p, c.y::<T>(0)), else return c.bad_dtype(dtype));
    Ok(())
}

fn stream(c: &Ctx) -> Stream {
    Stream::new(c.rng.seed, c.rng.offset)
}

/// Nanoseconds: fills of uniform and normal numbers are vectorised, the others draw one by one.
fn cost(kind: Kind, n: usize) -> f64 {
    n as f64
        * match kind {
            Kind::Uniform => 1.0,
            Kind::Normal => 2.0,
            _ => 40.0,
        }
}

fn placed() -> [Param; 3] {
    [
        ints("shape", "extents of the result").or_none(),
        string("ctx", "where the result lives, such as cpu(0)").or(""),
        dtype("dtype", "the element type of the result; None is the default").or_none(),
    ]
}

/// The spec from `shape` and `dtype`, which must be one of `allowed` (its first is the default).
fn placed_spec(s: &Sig, allowed: &[DType]) -> Result<Spec> {
    if s.attrs.opt_ints("shape").is_empty() {
        return Err(s.fail("the argument shape is required: a tuple of one extent or more"));
    }
    Ok(Spec::new(joined(&s.attrs.shape("shape")?, &[])?, chosen(s, allowed)?))
}

fn chosen(s: &Sig, allowed: &[DType]) -> Result<DType> {
    let dtype = s.attrs.opt_dtype("dtype").unwrap_or(allowed[0]);
    if allowed.contains(&dtype) {
        return Ok(dtype);
    }
    let names: Vec<&str> = allowed.iter().map(|d| d.name()).collect();
    Err(s.fail(format!("argument dtype = '{dtype}' is not valid; allowed are {}", names.join(", "))))
}

const FLOATS: &[DType] = &[DType::F32, DType::F64, DType::F16];

fn fill_by_numbers(r: &mut Registry, d: &'static Distribution) {
    r.op(d.names[0], d.doc[0])
        .params(d.params())
        .params(placed())
        .alias(d.aliases)
        .random()
        .infer(|s| {
            d.given(s)?;
            Ok(smallvec::smallvec![placed_spec(s, FLOATS)?])
        })
        .kernel(|c| run(c, d.kind, &numbers(d, c.attrs)))
        .gpu(|c| on_gpu::run(c, d))
        .cost(|_, outs| cost(d.kind, outs[0].shape.size()))
        .zero_grad()
        .sample(&[], &[("shape", [2, 3].into())]);
}

fn numbers(d: &Distribution, a: &Attrs) -> Vec<Vec<f64>> {
    d.numbers.iter().map(|n| vec![a.number(n.name)]).collect()
}

fn fill_like(r: &mut Registry, d: &'static Distribution) {
    r.op(d.names[1], d.doc[1])
        .input("data", "an array whose shape and type the result takes")
        .params(d.params())
        .random()
        .infer(|s| {
            d.given(s)?;
            s.expect_float(0)?;
            s.same(0)
        })
        .kernel(|c| run(c, d.kind, &numbers(d, c.attrs)))
        .gpu(|c| on_gpu::run(c, d))
        .cost(|_, outs| cost(d.kind, outs[0].shape.size()))
        .zero_grad()
        .sample(&[draw(&[2, 3])], &[]);
}

fn sample_by_arrays(r: &mut Registry, d: &'static Distribution) {
    let op = r.op(d.names[2], d.doc[2]);
    for n in d.numbers {
        op.input(n.array, n.doc);
    }
    op.param(ints("shape", "extents of the numbers drawn for each entry").or(empty()))
        .param(dtype("dtype", "the element type of the result; None is float32").or_none())
        .alias(&[d.array_alias])
        .random()
        .infer(|s| {
            s.elementwise()?;
            s.one(joined(s.shape(0), &s.attrs.shape("shape")?)?, chosen(s, FLOATS)?)
        })
        .kernel(|c| {
            let read =
                |i| dispatch!(c.dtype(i), T => c.x::<T>(i).iter().map(|v| v.to_f64()).collect::<Vec<f64>>());
            run(c, d.kind, &(0..c.ins.len()).map(read).collect::<Vec<_>>())
        })
        .gpu(|c| on_gpu::sample(c, d))
        .cost(|_, outs| cost(d.kind, outs[0].shape.size()))
        .zero_grad()
        .sample(
            &d.numbers
                .iter()
                .enumerate()
                .map(|(i, _)| {
                    let low = 0.3 + 0.3 * i as f64;
                    draw(&[3]).within(low, low + 0.3)
                })
                .collect::<Vec<_>>(),
            &[("shape", [2].into())],
        );
}

/// `first` followed by `rest`; an error where the elements cannot be counted.
fn joined(first: &[usize], rest: &[usize]) -> Result<Shape> {
    let shape: Shape = first.iter().chain(rest).copied().collect();
    shape.checked_size()?;
    Ok(shape)
}

fn randint(r: &mut Registry) {
    r.op("_random_randint", "Whole numbers, uniform from `low` to below `high`.")
        .param(int("low", "least number"))
        .param(int("high", "bound above, not reached"))
        .params(placed())
        .alias(&["random_randint", "_npi_random_randint"])
        .random()
        .infer(|s| {
            let spec = placed_spec(s, &[DType::I32, DType::I64])?;
            let (low, high) = (s.attrs.int("low"), s.attrs.int("high"));
            if low >= high {
                return Err(
                    s.fail(format!("low = {low}, high = {high} is not valid; low < high is expected"))
                );
            }
            let fits = |v: i64| i32::try_from(v).is_ok();
            if spec.dtype == DType::I32 && !(fits(low) && fits(high - 1)) {
                return Err(s.fail(format!(
                    "low = {low}, high = {high} leaves int32; ask for dtype='int64' or smaller bounds"
                )));
            }
            Ok(smallvec::smallvec![spec])
        })
        .kernel(|c| {
            let (low, high) = (c.attrs.int("low"), c.attrs.int("high"));
            match c.out_dtype(0) {
                DType::I64 => sample::randint(stream(c), low, high, c.y::<i64>(0)),
                _ => sample::randint(stream(c), low, high, c.y::<i32>(0)),
            }
            Ok(())
        })
        .gpu(on_gpu::randint)
        .cost(|_, outs| outs[0].shape.size() as f64 * 10.0)
        .zero_grad()
        .sample(&[], &[("low", 0i64.into()), ("high", 5i64.into()), ("shape", [2, 3].into())]);
}

fn multinomial(r: &mut Registry) {
    r.op(
        "_sample_multinomial",
        "Class numbers drawn with the probabilities of each row of the last axis, which are taken relative to their \
         sum; `get_prob` adds the logarithms of the probabilities drawn, whose gradient is head / probability.",
    )
    .input("data", "probabilities, at least 0 (on a GPU not checked); the classes are the last axis")
    .param(ints("shape", "extents of the draws of each row").or(empty()))
    .param(flag("get_prob", "also give the logarithm of the probability of each draw").or(false))
    .param(dtype("dtype", "the element type of the class numbers").or(DType::I32))
    .alias(&["sample_multinomial"])
    .visible(|a| 1 + usize::from(a.bool("get_prob")))
    .random()
    .infer(multinomial_shapes)
    .kernel(|c| {
        let prob = c.dtype(0);
        dispatch_float!(prob, T => multinomial_kernel::<T>(c), else c.bad_dtype(prob))
    })
    .gpu(on_gpu::multinomial)
    .cost(|s, outs| s.shape(0).size() as f64 * 2.0 + outs[0].shape.size() as f64 * 40.0)
    .keeps(&[0], &[0])
    .grad(multinomial_grad)
    .sample(&[draw(&[2, 3]).within(0.1, 1.0)], &[("shape", [4].into())]);

    r.op(
        "_backward_sample_multinomial",
        "head / probability at the classes drawn, summed over draws; else 0.",
    )
    .input("head", "gradient of the logarithms")
    .input("data", "probabilities")
    .input("drawn", "class numbers")
    .infer(|s| {
        if s.expect_float(0)? != s.dtype(1) {
            return Err(s.fail("head and data are of different types; they must be of one"));
        }
        s.expect_shape(2, s.shape(0))?;
        s.same(1)
    })
    .kernel(|c| {
        let prob = c.dtype(1);
        dispatch_float!(prob, T => multinomial_back::<T>(c), else c.bad_dtype(prob))
    })
    .gpu(on_gpu::multinomial_back)
    .hidden()
    .sample(&[draw(&[2, 4]), draw(&[2, 3]).within(0.1, 1.0), draw(&[2, 4]).indices(3)], &[]);
}

fn multinomial_shapes(s: &Sig) -> Result<Specs> {
    let prob = s.expect_float(0)?;
    let Some((&classes, rows)) = s.shape(0).split_last() else {
        return Err(s.fail("data has no axis of classes; 1 dimension or more are expected"));
    };
    let dtype = chosen(s, &[DType::I32, DType::U8, DType::F16, DType::F32, DType::F64])?;
    // The largest class number that the type holds exactly.
    let largest = match dtype {
        DType::U8 => u8::MAX as usize,
        DType::F16 => 1 << 11,
        DType::F32 => 1 << 24,
        _ => i32::MAX as usize,
    };
    if classes == 0 || classes - 1 > largest {
        return Err(s.fail(format!(
            "{classes} classes cannot be drawn from as {dtype}; 1 to {} are allowed",
            largest + 1
        )));
    }
    let draws = s.attrs.shape("shape")?;
    let shape = match rows.is_empty() && draws.is_empty() {
        true => Shape::from([1]),
        false => joined(rows, &draws)?,
    };
    let mut out: Specs = smallvec::smallvec![Spec::new(shape.clone(), dtype)];
    if s.attrs.bool("get_prob") {
        out.push(Spec::new(shape, prob));
    }
    Ok(out)
}

fn multinomial_kernel<T: Float>(c: &Ctx) -> Result<()> {
    let prob = c.x::<T>(0);
    let classes = c.shape(0).last().copied().unwrap_or(1);
    let rows = prob.len() / classes;
    if rows == 0 {
        return Ok(());
    }
    if prob.iter().any(|p| !(p.to_f64() >= 0.0 && p.to_f64().is_finite())) {
        return Err(c.fail("data has an entry that is negative or not finite; probabilities are expected"));
    }
    let logs = c.attrs.bool("get_prob").then(|| c.y::<T>(1));
    let draws = c.out_shape(0).size() / rows;
    fn drawn<T: Float, O: Elem>(c: &Ctx, prob: &[T], classes: usize, draws: usize, logs: Option<&mut [T]>) {
        sample::multinomial(stream(c), prob, classes, draws, c.y::<O>(0), logs);
    }
    match c.out_dtype(0) {
        DType::I32 => drawn::<T, i32>(c, prob, classes, draws, logs),
        DType::U8 => drawn::<T, u8>(c, prob, classes, draws, logs),
        DType::F16 => drawn::<T, f16>(c, prob, classes, draws, logs),
        DType::F32 => drawn::<T, f32>(c, prob, classes, draws, logs),
        DType::F64 => drawn::<T, f64>(c, prob, classes, draws, logs),
        dtype => return c.bad_dtype(dtype),
    }
    Ok(())
}

fn multinomial_grad(b: &mut dyn Build, g: &GradArgs) -> Result<Grads> {
    match g.heads.get(1) {
        Some(Some(head)) => {
            let grad = b.op1("_backward_sample_multinomial", &[*head, g.ins[0], g.outs[0]], &[])?;
            g.first(grad)
        }
        _ => Ok(g.none()),
    }
}

fn multinomial_back<T: Float>(c: &Ctx) -> Result<()> {
    let (head, prob, grad) = (c.x::<T>(0), c.x::<T>(1), c.y::<T>(0));
    let drawn = c.indices(2);
    grad.fill(T::default());
    let classes = c.shape(1).last().copied().unwrap_or(1).max(1);
    let draws = drawn.len() / (prob.len() / classes).max(1);
    for (j, (head, class)) in head.iter().zip(&drawn).enumerate() {
        let row = j / draws.max(1);
        let Some(at) = usize::try_from(*class)
            .ok()
            .filter(|k| *k < classes && (row + 1) * classes <= prob.len())
            .map(|k| row * classes + k)
        else {
            return Err(c.fail(format!("class {class} was drawn from {classes}")));
        };
        grad[at] = T::from_f64(grad[at].to_f64() + head.to_f64() / prob[at].to_f64());
    }
    Ok(())
}

fn shuffle(r: &mut Registry) {
    r.op("_shuffle", "The entries along the first axis in random order.")
        .keeps_shape()
        .input("data", "an array of 1 dimension or more")
        .alias(&["shuffle", "_npi_shuffle"])
        .random()
        .infer(|s| {
            s.expect_ndim(0, 1..=usize::MAX)?;
            s.same(0)
        })
        .kernel(|c| {
            let rows = c.shape(0)[0];
            dispatch!(c.dtype(0), T => sample::shuffle(stream(c), c.x::<T>(0), rows, c.y::<T>(0)));
            Ok(())
        })
        .gpu(on_gpu::shuffle)
        .cost(|s, _| s.shape(0).size() as f64 + s.shape(0).first().map_or(0.0, |rows| *rows as f64 * 15.0))
        .sample(&[draw(&[5, 2])], &[]);
}

fn unique_zipfian(r: &mut Registry) {
    r.op(
        "_sample_unique_zipfian",
        "Rows of distinct whole numbers below `range_max`, drawn by the log-uniform law P(k) = ln((k + 2) / (k + 1)) / \
         ln(range_max + 1) until a row is full; the second output counts the draws of each row.",
    )
    .param(int("range_max", "how many numbers there are").at_least(1.0))
    .param(ints("shape", "(rows, distinct numbers in each)").or_none())
    .random()
    .visible(|_| 2)
    .infer(|s| {
        let shape = joined(&s.attrs.shape("shape")?, &[])?;
        if shape.ndim() != 2 {
            return Err(s.fail(format!("argument shape = {shape} is not valid; (rows, numbers) is expected")));
        }
        if shape[1] as u64 > s.attrs.int("range_max") as u64 {
            return Err(s.fail(format!("{} distinct numbers below {} do not exist", shape[1], s.attrs.int("range_max"))));
        }
        let rows = Shape::from([shape[0]]);
        Ok(smallvec::smallvec![Spec::new(shape, DType::I64), Spec::new(rows, DType::I64)])
    })
    .kernel(|c| {
        let (wide, most) = (c.out_shape(0)[1], c.attrs.int("range_max"));
        let (numbers, tries) = (c.y::<i64>(0), c.y::<i64>(1));
        if wide == 0 {
            tries.fill(0);
            return Ok(());
        }
        let (stream, scale) = (stream(c), ((most as f64) + 1.0).ln());
        let mut seen = HashSet::with_capacity(wide);
        for (row, (numbers, tries)) in numbers.chunks_exact_mut(wide).zip(tries).enumerate() {
            seen.clear();
            let mut count = 0u64;
            while seen.len() < wide {
                // A row has 2^40 draws of its own in this call's counter.
                let w = stream.block((row as u64) << 40 | count);
                count += 1;
                let k = ((unit_f64(w[0], w[1]) * scale).exp() as i64 - 1).clamp(0, most - 1);
                if seen.insert(k) {
                    numbers[seen.len() - 1] = k;
                }
            }
            *tries = count as i64;
        }
        Ok(())
    })
    .cost(|_, outs| outs[0].shape.size() as f64 * 100.0)
    .zero_grad()
    .sample(&[], &[("range_max", AttrValue::Int(20)), ("shape", [2, 3].into())]);
}
