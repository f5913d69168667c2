//! Activation layers that choose their function by name. The functions themselves are formulas.

use super::registry::Registry;
use super::{Attrs, Build, Ctx, GpuCtx, Shapes, Sig, Specs, Value, Values, choice, draw, float};
use crate::shaders::copy::launch_fill;
use crate::shaders::map::launch_map;
use crate::shaders::random::{Draw, launch_random};
use mxrs_base::{DType, Elem, Error, Result, Shape, dispatch_float};
use mxrs_formula::Formula;
use mxrs_kernels::philox::Stream;
use mxrs_kernels::real::Float;
use mxrs_kernels::sample;
use std::sync::LazyLock;

/// Constants of the self-normalizing unit (Klambauer and others, 2017).
const SELU_ALPHA: f64 = 1.673_263_242_354_377_3;
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

pub fn register(r: &mut Registry) {
    formulas(r);
    activation(r);
    leaky(r);
    random_leaky(r);
}

fn formulas(r: &mut Registry) {
    r.op("_activation_relu", "x where it is positive, else 0; unlike `relu`, not-a-number becomes 0.")
        .unary(|x| x.gt(0.0).select(x, 0.0))
        .hidden()
        .sample(&[draw(&[2, 3])], &[]);
    r.op("_softrelu", "log(1 + exp(x)).").unary(|x| x.softplus()).hidden().sample(&[draw(&[2, 3])], &[]);
    r.op("_leaky", "x where it is positive, else slope * x.")
        .input("data", "values of any shape")
        .param(float("slope", "the slope below zero"))
        .formula(Shapes::Same, |a| a.x(0).gt(0.0).select(a.x(0), a.param("slope") * a.x(0)))
        .hidden()
        .sample(&[draw(&[2, 3])], &[("slope", 0.3.into())]);
    r.op("_elu", "x where it is positive, else slope * (exp(x) - 1).")
        .input("data", "values of any shape")
        .param(float("slope", "minus the limit at minus infinity"))
        .formula(Shapes::Same, |a| a.x(0).gt(0.0).select(a.x(0), a.param("slope") * a.x(0).expm1()))
        .hidden()
        .sample(&[draw(&[2, 3])], &[("slope", 0.3.into())]);
    r.op("_selu", "The scaled exponential linear unit.")
        .unary(|x| x.gt(0.0).select(x, x.expm1() * SELU_ALPHA) * SELU_SCALE)
        .hidden()
        .sample(&[draw(&[2, 3])], &[]);
    r.op("_gelu", "x times the probability that a standard normal variable is below x.")
        .unary(|x| x * 0.5 * ((x * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0))
        .hidden()
        .sample(&[draw(&[2, 3])], &[]);
    r.op("_prelu", "x where it is positive, else gamma * x; gamma broadcasts.")
        .input("data", "values of any shape")
        .input("gamma", "slopes below zero")
        .formula(Shapes::Broadcast, |a| a.x(0).gt(0.0).select(a.x(0), a.x(1) * a.x(0)))
        .hidden()
        .sample(&[draw(&[2, 3]), draw(&[3])], &[]);
}

fn expect_float(op: &str, dtype: DType) -> Result<()> {
    if dtype.is_float() {
        return Ok(());
    }
    Err(Error::op(format!("{op}: data is {dtype}; float32, float64 and float16 are allowed")))
}

fn activation(r: &mut Registry) {
    r.op("Activation", "The function `act_type` of each element.")
        .keeps_shape()
        .input("data", "values of any shape")
        .param(choice(
            "act_type",
            &["relu", "sigmoid", "softrelu", "softsign", "tanh"],
            "relu: max(x, 0); sigmoid; softrelu: log(1 + exp(x)); softsign: x / (1 + |x|); tanh",
        ))
        .alias(&["_npx_activation"])
        .infer(|s| {
            s.expect_float(0)?;
            s.same(0)
        })
        .compose(|b, a, v| {
            expect_float("Activation", b.dtype(v[0]))?;
            let function = match a.str("act_type") {
                "relu" => "_activation_relu",
                "softrelu" => "_softrelu",
                same => same,
            };
            b.op(function, v, &[])
        })
        .sample(&[draw(&[2, 3])], &[("act_type", "relu".into())])
        .sample(&[draw(&[2, 3])], &[("act_type", "softrelu".into())])
        .sample(&[draw(&[2, 3])], &[("act_type", "tanh".into())]);
}

fn leaky(r: &mut Registry) {
    r.op("LeakyReLU", "Rectifiers that let something through below zero, by `act_type`.")
        .input("data", "values of any shape")
        .input("gamma", "with prelu: slopes below zero, one or one per channel (axis 1)")
        .input_count(|a| 1 + usize::from(a.str("act_type") == "prelu"))
        .params([
            choice(
                "act_type",
                &["elu", "gelu", "leaky", "prelu", "rrelu", "selu"],
                "leaky: slope * x below zero; elu: slope * (exp(x) - 1); selu; gelu: x times the normal \
                 distribution function; prelu: learned slopes; rrelu: slopes drawn while training",
            )
            .or("leaky"),
            float("slope", "the slope of leaky, the scale of elu").or(0.25),
            float("lower_bound", "rrelu: the least slope").or(0.125),
            float("upper_bound", "rrelu: the largest slope").or(0.333_999_991_416_931_15),
        ])
        .alias(&["_npx_leaky_relu"])
        .visible(|a| if a.str("act_type") == "rrelu" { 2 } else { 1 })
        .output_names(&["output", "mask"])
        .init(1, r#"["Constant", {"value": 0.25}]"#)
        .infer(|s| {
            s.expect_float(0)?;
            let mut specs = s.same(0)?;
            if s.attrs.str("act_type") == "rrelu" {
                specs.push(s.ins[0].clone());
            }
            Ok(specs)
        })
        .complete(|a, shapes| {
            if let (Some(Some(data)), "prelu") = (shapes.first(), a.str("act_type"))
                && shapes.len() > 1
                && shapes[1].is_none()
            {
                let channels = data.get(1).or(data.first()).copied().unwrap_or(1);
                shapes[1] = Some(Shape::new(&[channels]));
            }
            Ok(())
        })
        .compose(leaky_body)
        .sample(&[draw(&[2, 3])], &[])
        .sample(&[draw(&[2, 3])], &[("act_type", "elu".into())])
        .sample(&[draw(&[2, 3])], &[("act_type", "selu".into())])
        .sample(&[draw(&[2, 3])], &[("act_type", "gelu".into())])
        .sample(&[draw(&[2, 3, 2]), draw(&[3])], &[("act_type", "prelu".into())]);
}

fn leaky_body(b: &mut dyn Build, a: &Attrs, v: &[Value]) -> Result<Values> {
    expect_float("LeakyReLU", b.dtype(v[0]))?;
    let slope = || a.get("slope").clone();
    match a.str("act_type") {
        "leaky" => b.op("_leaky", v, &[("slope", slope())]),
        "elu" => b.op("_elu", v, &[("slope", slope())]),
        "selu" => b.op("_selu", v, &[]),
        "gelu" => b.op("_gelu", v, &[]),
        "rrelu" => {
            let bounds = ["lower_bound", "upper_bound"].map(|name| (name, a.get(name).clone()));
            b.op("_rrelu", v, &bounds)
        }
        _ => {
            let (data, gamma) = (b.shape(v[0]).clone(), b.shape(v[1]).clone());
            let aligned = align_gamma(&data, &gamma).ok_or_else(|| {
                Error::op(format!(
                    "LeakyReLU: gamma has shape {gamma}; one slope, or one for each index of axis 1 of data (shape \
                     {data}) is expected"
                ))
            })?;
            let gamma = b.reshape(v[1], &aligned)?;
            b.op("_prelu", &[v[0], gamma], &[])
        }
    }
}

/// The shape with which gamma broadcasts to data: a vector lies along axis 1, a gamma of more axes starts at axis 0.
fn align_gamma(data: &Shape, gamma: &Shape) -> Option<Shape> {
    if gamma.size() == 1 {
        return Some(Shape::new(&[1]));
    }
    let first = usize::from(gamma.ndim() == 1 && data.ndim() > 1);
    if first + gamma.ndim() > data.ndim() {
        return None;
    }
    let mut aligned = vec![1usize; data.ndim()];
    aligned[first..first + gamma.ndim()].copy_from_slice(gamma);
    aligned.iter().zip(data.iter()).all(|(g, d)| *g == 1 || g == d).then(|| Shape::new(&aligned))
}

fn random_leaky(r: &mut Registry) {
    r.op("_rrelu", "x where it is positive, else x times a slope drawn for it (Xu and others, 2015).")
        .input("data", "values of any shape")
        .params([float("lower_bound", "the least slope"), float("upper_bound", "the largest slope")])
        .random()
        .trains()
        .hidden()
        .infer(two_alike)
        .kernel(|c| {
            dispatch_float!(c.dtype(0), T => {
                rrelu(c, c.x::<T>(0), c.y::<T>(0), c.y::<T>(1))
            }, else c.bad_dtype(c.dtype(0)))
        })
        .gpu(rrelu_on_gpu)
        .keeps(&[0], &[1])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let slopes = if g.train { g.outs[1] } else { mean_slope(b, g.attrs, g.ins[0])? };
            let one = b.op1("ones_like", &[slopes], &[])?;
            let positive = b.op1("_greater_scalar", &[g.ins[0]], &[("scalar", 0.0.into())])?;
            let factor = b.op1("where", &[positive, one, slopes], &[])?;
            let grad = b.mul(head, factor)?;
            g.first(grad)
        })
        .cost(|s, _| s.shape(0).size() as f64 * 4.0)
        .sample(&[draw(&[2, 3])], &[("lower_bound", 0.1.into()), ("upper_bound", 0.3.into())]);
}

fn mean(a: &Attrs) -> f64 {
    (a.float("lower_bound") + a.float("upper_bound")) / 2.0
}

fn mean_slope(b: &mut dyn Build, a: &Attrs, like: Value) -> Result<Value> {
    let zeros = b.zeros_like(like)?;
    b.shift(zeros, mean(a))
}

fn two_alike(s: &Sig) -> Result<Specs> {
    s.expect_float(0)?;
    let (low, high) = (s.attrs.float("lower_bound"), s.attrs.float("upper_bound"));
    if !(low <= high && low.is_finite() && high.is_finite()) {
        return Err(
            s.fail(format!("lower_bound = {low}, upper_bound = {high}; finite lower <= upper is allowed"))
        );
    }
    let mut specs = s.same(0)?;
    specs.push(s.ins[0].clone());
    Ok(specs)
}

/// While training the second output takes the slopes; else it is 0 and the slope is the mean of the bounds.
fn rrelu<T: Float>(c: &Ctx, x: &[T], y: &mut [T], slopes: &mut [T]) -> Result<()> {
    let average = mean(c.attrs);
    if c.train {
        let (low, high) = (c.attrs.float("lower_bound"), c.attrs.float("upper_bound"));
        sample::uniform(Stream::new(c.rng.seed, c.rng.offset), &[low], &[high], slopes);
    } else {
        slopes.fill(T::default());
    }
    for ((y, x), slope) in y.iter_mut().zip(x).zip(slopes) {
        let (v, slope) = (x.to_f64(), if c.train { slope.to_f64() } else { average });
        *y = if v > 0.0 { *x } else { <T as Elem>::from_f64(v * slope) };
    }
    Ok(())
}

static LEAK: LazyLock<Formula> = LazyLock::new(|| {
    Formula::build(2, &["average"], |a| {
        let slope = a.x(1) + a.param("average");
        a.x(0).gt(a.c(0.0)).select(a.x(0), a.x(0) * slope)
    })
});

/// The slopes of the same stream; those of inference are 0, and their mean stands in the formula.
fn rrelu_on_gpu(c: &GpuCtx) -> Result<()> {
    let n = c.out_shape(0).size();
    let average = if c.train { 0.0 } else { mean(c.attrs) };
    if c.train {
        let draw = Draw::Uniform { low: c.attrs.float("lower_bound"), high: c.attrs.float("upper_bound") };
        launch_random(c.device, draw, (c.rng.seed, c.rng.offset), n, c.y(1), c.op.name)?;
    } else {
        launch_fill(c.device, &[n], 0.0, c.y(1).strided(&[1]), c.op.name)?;
    }
    let ins = [c.x(0).strided(&[1]), c.y(1).strided(&[1])];
    launch_map(c.device, &LEAK, &[average], &[n], &ins, c.y(0).strided(&[1]), c.op.name)
}
