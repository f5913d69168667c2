//! Optimizer updates: one pass over weight, gradient and states, in place; of several weights in one dispatch, as far as
//! the device binds their arrays.
//!
//! A [`Step`] is the arithmetic of one rule for one element, as `mxrs_kernels::update` has it for the host. It sees the
//! weight `w` and the states `s0`, ... and changes them; `g` is the gradient, `clipped` is clip(rescale g) and `decayed`
//! clip(rescale g + wd w). Arithmetic is in float32.

use crate::shaders::elem::{self, Num, Span};
use mxrs_base::{DType, Error, Result};
use mxrs_gpu::{Buffer, Device, Key, Params, Shader, Slot, linear_groups};
use smallvec::SmallVec;
use std::fmt::Write;

/// The arithmetic of one rule.
pub struct Step {
    pub name: &'static str,
    /// What the text calls its numbers, members of `p`, beside `lr`, `wd`, `rescale` and `clip`.
    pub numbers: &'static [&'static str],
    text: &'static str,
}

const fn step(name: &'static str, numbers: &'static [&'static str], text: &'static str) -> Step {
    Step { name, numbers, text }
}

const MOMENTS: &[&str] = &["beta1", "beta2", "epsilon"];

pub const SGD: Step = step("sgd", &[], "w = w - lr * (clipped + wd * w);");
pub const SGD_MOM: Step = step(
    "sgd_mom",
    &["momentum"],
    "s0 = p.momentum * s0 - lr * (clipped + wd * w);
    w = w + s0;",
);
pub const NAG_MOM: Step = step(
    "nag_mom",
    &["momentum"],
    "let q = p.momentum * s0;
    w = w - q + (1.0 + p.momentum) * (q - lr * (clipped + wd * w));
    s0 = q - lr * (clipped + wd * w);",
);
pub const ADAM: Step = step(
    "adam",
    MOMENTS,
    "s0 = p.beta1 * s0 + (1.0 - p.beta1) * decayed;
    s1 = p.beta2 * s1 + (1.0 - p.beta2) * decayed * decayed;
    w = w - lr * s0 / (sqrt(s1) + p.epsilon);",
);
pub const ADAMW: Step = step(
    "adamw",
    &["beta1", "beta2", "epsilon", "eta"],
    "if (rescale == 0.0 || (bitcast<u32>(rescale) & 0x7fffffffu) >= 0x7f800000u) { return; }
    s0 = p.beta1 * s0 + (1.0 - p.beta1) * clipped;
    s1 = p.beta2 * s1 + (1.0 - p.beta2) * clipped * clipped;
    w = w - p.eta * (lr * s0 / (sqrt(s1) + p.epsilon) + wd * w);",
);
pub const RMSPROP: Step = step(
    "rmsprop",
    &["gamma1", "epsilon", "limit"],
    "s0 = (1.0 - p.gamma1) * decayed * decayed + p.gamma1 * s0;
    w = bound(w - lr * decayed / sqrt(s0 + p.epsilon), p.limit);",
);
pub const RMSPROP_ALEX: Step = step(
    "rmspropalex",
    &["gamma1", "gamma2", "epsilon", "limit"],
    "s0 = (1.0 - p.gamma1) * decayed * decayed + p.gamma1 * s0;
    s1 = (1.0 - p.gamma1) * decayed + p.gamma1 * s1;
    s2 = p.gamma2 * s2 - lr * decayed / sqrt(s0 - s1 * s1 + p.epsilon);
    w = bound(w + s2, p.limit);",
);
pub const FTRL: Step = step(
    "ftrl",
    &["lamda1", "beta"],
    "let sum = s1 + clipped * clipped;
    s0 = s0 + clipped - (sqrt(sum) - sqrt(s1)) * w / lr;
    s1 = sum;
    let shrunk = (sign(s0) * p.lamda1 - s0) / ((p.beta + sqrt(sum)) / lr + wd);
    w = select(0.0, shrunk, abs(s0) > p.lamda1);",
);
pub const FTML: Step = step(
    "ftml",
    &["beta1", "beta2", "epsilon", "scale", "unbias"],
    "s1 = p.beta2 * s1 + (1.0 - p.beta2) * decayed * decayed;
    let divisor = p.scale * (sqrt(s1 / p.unbias) + p.epsilon);
    s2 = p.beta1 * s2 + (1.0 - p.beta1) * decayed - (divisor - p.beta1 * s0) * w;
    s0 = divisor;
    w = -s2 / divisor;",
);
pub const SIGNSGD: Step = step("signsgd", &[], "w = (1.0 - lr * wd) * w - lr * sign(clipped);");
pub const SIGNUM: Step = step(
    "signum",
    &["momentum", "wd_lh"],
    "s0 = p.momentum * s0 - (1.0 - p.momentum) * (clipped + wd * w);
    w = (1.0 - lr * p.wd_lh) * w + lr * sign(s0);",
);
pub const ADAGRAD: Step = step(
    "adagrad",
    &["epsilon"],
    "s0 = s0 + clipped * clipped;
    w = w - lr * (clipped / sqrt(s0 + p.epsilon) + wd * w);",
);

/// LAMB's direction in place of the weight.
pub const LAMB: Step = step(
    "lamb",
    &["beta1", "beta2", "epsilon", "mean_unbias", "var_unbias"],
    "s0 = p.beta1 * s0 + (1.0 - p.beta1) * clipped;
    s1 = p.beta2 * s1 + (1.0 - p.beta2) * clipped * clipped;
    w = s0 / p.mean_unbias / (sqrt(s1 / p.var_unbias) + p.epsilon) + wd * w;",
);

/// The arrays of one weight, each of `n` elements: all but the gradient are read and written.
pub struct Arrays<'a> {
    pub n: usize,
    pub weight: Span<'a>,
    pub grad: Span<'a>,
    pub states: SmallVec<[Span<'a>; 3]>,
    /// The weight in float32, of which the weight is the rounding.
    pub master: Option<Span<'a>>,
    /// Those of `lr`, `wd` and `rescale` that are not told but read: the element where a span begins.
    pub rates: SmallVec<[(&'static str, Span<'a>); 2]>,
}

impl<'a> Arrays<'a> {
    /// (name, array), those that are written first.
    fn list(&self) -> SmallVec<[(String, Span<'a>); 7]> {
        let states = self.states.iter().enumerate().map(|(k, s)| (format!("state{k}"), *s));
        let mut list: SmallVec<[_; 7]> = SmallVec::new();
        list.push(("weight".into(), self.weight));
        list.extend(states);
        list.extend(self.master.map(|m| ("master".into(), m)));
        list.push(("grad".into(), self.grad));
        list.extend(self.rates.iter().map(|(name, r)| (format!("of_{name}"), *r)));
        list
    }
    /// The arrays of [`Arrays::list`] with their first and last element, and whether they are written.
    fn ranges(&self) -> SmallVec<[(Span<'a>, usize, bool); 7]> {
        let whole = [self.weight].into_iter().chain(self.states.iter().copied()).chain(self.master);
        let mut ranges: SmallVec<[_; 7]> = whole.map(|s| (s, s.offset + self.n, true)).collect();
        ranges.push((self.grad, self.grad.offset + self.n, false));
        ranges.extend(self.rates.iter().map(|(_, r)| (*r, r.offset + 1, false)));
        ranges
    }
    fn slots(&self) -> usize {
        2 + self.states.len() + usize::from(self.master.is_some()) + self.rates.len()
    }
    fn written(&self) -> usize {
        1 + self.states.len() + usize::from(self.master.is_some())
    }
    /// What the text depends on.
    fn word(&self) -> u64 {
        let types = self.ranges().iter().fold(1, |w, (a, ..)| w << 4 | a.dtype as u64);
        let read = RATES.iter().enumerate().filter(|(_, name)| self.rates.iter().any(|r| r.0 == **name));
        read.fold(types << 4 | u64::from(self.master.is_some()), |form, (k, _)| form | 2 << k)
    }
    fn blocks(&self) -> usize {
        self.n.div_ceil(GROUP)
    }
}

const GROUP: usize = 256;

/// Whether one of the arrays is written while another, or the same one of another weight, is read or written.
fn collide(a: &Arrays, b: &Arrays, same_weight: bool) -> bool {
    let (left, right) = (a.ranges(), b.ranges());
    left.iter().enumerate().any(|(i, (x, x_end, x_written))| {
        right.iter().enumerate().skip(if same_weight { i + 1 } else { 0 }).any(
            |(_, (y, y_end, y_written))| {
                (*x_written || *y_written)
                    && x.buffer.same_memory(y.buffer)
                    && *x_end > y.offset
                    && *y_end > x.offset
            },
        )
    })
}

/// The numbers that all rules share.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    pub lr: f64,
    pub wd: f64,
    pub rescale: f64,
    /// The bound of the gradient; infinite where there is none.
    pub clip: f64,
}

/// One step of a rule.
///
/// # Errors
/// As [`launch_updates`].
pub fn launch_update(
    device: &Device,
    step: &'static Step,
    rates: Rates,
    numbers: &[f64],
    arrays: &Arrays,
    label: &'static str,
) -> Result<()> {
    launch_updates(device, step, &[(rates, arrays)], numbers, label)
}

/// One step of a rule for each weight, in order. Arrays that are written share no memory with the others of a weight.
///
/// # Errors
/// Where they do, or a type is not one of GPUs.
pub fn launch_updates(
    device: &Device,
    step: &'static Step,
    weights: &[(Rates, &Arrays)],
    numbers: &[f64],
    label: &'static str,
) -> Result<()> {
    for (_, arrays) in weights {
        for (array, ..) in arrays.ranges() {
            elem::check_dtype(array.dtype, label)?;
        }
        if arrays.n > 0 && collide(arrays, arrays, true) {
            return Err(Error::op(format!(
                "{label}: a state shares memory with another argument; give each its own array"
            )));
        }
    }
    let most = device.limits().storage_buffers as usize;
    let mut rest: SmallVec<[&(Rates, &Arrays); 8]> = weights.iter().filter(|(_, a)| a.n > 0).collect();
    while !rest.is_empty() {
        let mut slots = 0;
        let mut count = 0;
        while count < rest.len() {
            let next = rest[count].1;
            slots += next.slots();
            // One after the other where weights share memory.
            let apart = rest[..count].iter().all(|(_, a)| !collide(a, next, false));
            if count > 0 && (slots > most || !apart) {
                break;
            }
            count += 1;
        }
        launch(device, step, &rest[..count], numbers, label)?;
        rest.drain(..count);
    }
    Ok(())
}

fn launch(
    device: &Device,
    step: &'static Step,
    weights: &[&(Rates, &Arrays)],
    numbers: &[f64],
    label: &'static str,
) -> Result<()> {
    let key = weights.iter().fold(Key::new(step.name), |key, (_, arrays)| key.with(arrays.word()));
    let pipeline = device.pipeline(&key, || Ok(shader(step, weights)))?;
    let mut params = Params::new();
    let mut buffers: SmallVec<[&Buffer; 16]> = SmallVec::new();
    let mut blocks = 0;
    for (rates, arrays) in weights {
        params = params.size(blocks)?.size(arrays.n)?;
        for (a, ..) in arrays.ranges() {
            params = params.size(a.offset)?;
            buffers.push(a.buffer);
        }
        for number in [rates.lr, rates.wd, rates.rescale, rates.clip] {
            params = params.f32(number as f32);
        }
        blocks += arrays.blocks();
    }
    for number in numbers {
        params = params.f32(*number as f32);
    }
    device.dispatch(&pipeline, &buffers, params, linear_groups(blocks as u64)?, label)
}

/// Numbers that may be read from arrays.
const RATES: [&str; 3] = ["lr", "wd", "rescale"];

/// The names of weight `k`'s arrays and numbers end in `_k`.
fn shader(step: &Step, weights: &[&(Rates, &Arrays)]) -> Shader {
    let mut shader = Shader::new(format!("update {}", step.name), "");
    let mut text = String::from(
        "// Not-a-number stays.
fn bound(v: f32, limit: f32) -> f32 { return select(select(v, -limit, v < -limit), limit, v > limit); }
",
    );
    let mut main = String::from(
        "@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let block = mx_group(group);
",
    );
    for (k, (_, arrays)) in weights.iter().enumerate() {
        let list = arrays.list();
        for (i, (name, a)) in list.iter().enumerate() {
            let (name, element) = (format!("{name}_{k}"), elem::element(a.dtype));
            let written = i < arrays.written();
            shader =
                shader.slot(if written { Slot::write(name, element) } else { Slot::read(name, element) });
        }
        shader = shader.param(format!("first_{k}"), "u32").param(format!("n_{k}"), "u32");
        for (name, _) in &list {
            shader = shader.param(format!("o_{name}_{k}"), "u32");
        }
        for name in ["lr", "wd", "rescale", "clip"] {
            shader = shader.param(format!("{name}_{k}"), "f32");
        }
        text += &function(step, k, arrays);
        let call = format!("update_{k}((block - p.first_{k}) * {GROUP}u + local);");
        let _ = match k + 1 == weights.len() {
            true => writeln!(main, "    {call}\n}}"),
            false => writeln!(main, "    if (block < p.first_{}) {{ {call} return; }}", k + 1),
        };
    }
    for name in step.numbers {
        shader = shader.param(*name, "f32");
    }
    text += &main;
    shader.body = (elem::helpers_for(&text) + &text).into();
    shader.trusted = true;
    shader
}

/// `fn update_k(e)`: one element of weight `k`.
fn function(step: &Step, k: usize, arrays: &Arrays) -> String {
    let load = |name: &str, dtype: DType, at: &str| {
        elem::load(dtype, Num::F32, &format!("{name}_{k}"), &format!("p.o_{name}_{k} + {at}"))
    };
    let (weight, dtype) = match arrays.master {
        Some(_) => ("master", DType::F32),
        None => ("weight", arrays.weight.dtype),
    };
    let mut rates = String::new();
    for name in RATES {
        let read = arrays.rates.iter().find(|r| r.0 == name);
        let value = read.map_or(format!("p.{name}_{k}"), |r| load(&format!("of_{name}"), r.1.dtype, "0u"));
        let _ = writeln!(rates, "    let {name} = {value};");
    }
    let mut text = format!(
        "fn update_{k}(e: u32) {{
    if (e >= p.n_{k}) {{ return; }}
    var w = {};
    let g = {};
{rates}    let clipped = bound(rescale * g, p.clip_{k});
    let decayed = bound(rescale * g + wd * w, p.clip_{k});
",
        load(weight, dtype, "e"),
        load("grad", arrays.grad.dtype, "e"),
    );
    for (i, s) in arrays.states.iter().enumerate() {
        let _ = writeln!(text, "    var s{i} = {};", load(&format!("state{i}"), s.dtype, "e"));
    }
    let _ = writeln!(text, "    {}", step.text);
    let mut store = |name: &str, dtype: DType, value: &str| {
        let _ =
            writeln!(text, "    {name}_{k}[p.o_{name}_{k} + e] = {};", elem::pack(dtype, Num::F32, value));
    };
    store("weight", arrays.weight.dtype, "w");
    if arrays.master.is_some() {
        store("master", DType::F32, "w");
    }
    for (i, s) in arrays.states.iter().enumerate() {
        store(&format!("state{i}"), s.dtype, &format!("s{i}"));
    }
    text + "}\n"
}
