//! What happens to a product's sums on their way into memory: scale, bias, and a formula of the result and of other
//! arrays, so that what a plan does behind a product or a convolution costs no dispatch and no pass over memory.

use crate::shaders::elem::{self, Num, Span};
use mxrs_base::{DType, Error, Result};
use mxrs_formula::Formula;
use mxrs_gpu::{Buffer, Key, Params, Shader, Slot};
use smallvec::SmallVec;

/// What happens to a sum on its way into c.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    pub alpha: f32,
    /// 0 leaves c unread.
    pub beta: f32,
    pub bias: Bias<'a>,
    /// Applied last.
    pub finish: Option<Finish<'a>>,
}

/// A number added to each sum.
#[derive(Clone, Copy, Debug)]
pub enum Bias<'a> {
    None,
    /// One per row of c.
    Rows(Span<'a>),
    /// One per column of c.
    Cols(Span<'a>),
}

/// A formula of a result and of elements of other arrays.
#[derive(Clone, Copy, Debug)]
pub struct Finish<'a> {
    pub formula: &'a Formula,
    pub params: &'a [f64],
    /// Which of the formula's inputs is the result; the others are `others` in their order.
    pub at: usize,
    pub others: &'a [Other<'a>],
}

/// An array that repeats over c: element `e` of c, counted as c lies in memory, sees element `e / every % count`.
#[derive(Clone, Copy, Debug)]
pub struct Other<'a> {
    pub span: Span<'a>,
    pub every: usize,
    pub count: usize,
    /// The elements of c.
    pub of: usize,
}

/// How the text finds an element of an [`Other`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// It lies as c.
    Same,
    Single,
    /// Divides, and takes the remainder where that is needed.
    Spread {
        divides: bool,
        wraps: bool,
    },
}

impl<'a> Other<'a> {
    /// An array of `shape` over c of `dims`; `None` where its axes that do not repeat are not neighbours.
    pub fn over(span: Span<'a>, shape: &[usize], dims: &[usize]) -> Option<Other<'a>> {
        let lead = dims.len().checked_sub(shape.len())?;
        let of = dims.iter().product();
        let own: SmallVec<[usize; 6]> = (lead..dims.len()).filter(|d| shape[d - lead] != 1).collect();
        let (Some(first), Some(last)) = (own.first(), own.last()) else {
            return Some(Other { span, every: 1, count: 1, of });
        };
        let whole = (*first..=*last).all(|d| shape[d - lead] == dims[d]);
        let count = dims[*first..=*last].iter().product();
        whole.then(|| Other { span, every: dims[last + 1..].iter().product(), count, of })
    }

    /// Its steps along each of `dims`, which count c's elements as they lie; `None` where an axis repeats in parts.
    pub fn steps(&self, dims: &[usize]) -> Option<SmallVec<[isize; 4]>> {
        let round = self.every * self.count;
        let mut step = self.of;
        dims.iter()
            .map(|&dim| {
                let whole = step;
                step /= dim.max(1);
                let inside = step.is_multiple_of(self.every) && whole <= round;
                match () {
                    _ if dim == 1 || whole <= self.every || step.is_multiple_of(round) => Some(0),
                    _ if inside => Some((step / self.every) as isize),
                    _ => None,
                }
            })
            .collect()
    }

    fn form(&self) -> Form {
        match (self.every, self.count) {
            (_, 1) => Form::Single,
            (1, count) if count == self.of => Form::Same,
            (every, count) => Form::Spread { divides: every != 1, wraps: every * count != self.of },
        }
    }

    fn word(&self) -> u64 {
        let form = match self.form() {
            Form::Same => 0,
            Form::Single => 1,
            Form::Spread { divides, wraps } => 4 | (divides as u64) << 1 | wraps as u64,
        };
        form << 4 | self.span.dtype as u64
    }
}

impl<'a> Finish<'a> {
    /// A formula of the result alone.
    pub fn of(formula: &'a Formula, params: &'a [f64]) -> Finish<'a> {
        Finish { formula, params, at: 0, others: &[] }
    }
}

impl Epilogue<'_> {
    pub const NONE: Epilogue<'static> = Epilogue { alpha: 1.0, beta: 0.0, bias: Bias::None, finish: None };

    /// Whether results of parts of the sum may be added up before it.
    pub(crate) fn is_linear(&self) -> bool {
        matches!(self.bias, Bias::None) && self.finish.is_none()
    }

    fn bias(&self) -> Option<Span<'_>> {
        match self.bias {
            Bias::None => None,
            Bias::Rows(span) | Bias::Cols(span) => Some(span),
        }
    }

    fn others(&self) -> &[Other<'_>] {
        self.finish.as_ref().map_or(&[], |f| f.others)
    }

    /// Refuses elements that products are not made of, and a formula that does not fit its inputs.
    ///
    /// # Errors
    /// For elements other than float32 and float16.
    pub(crate) fn check(&self, operands: [Span; 3], label: &str) -> Result<()> {
        for span in operands {
            if !matches!(span.dtype, DType::F32 | DType::F16) {
                return Err(Error::typ(format!(
                    "{label}: a product of {} is not supported on a GPU; allowed are float32 and float16",
                    span.dtype
                )));
            }
        }
        for other in self.others() {
            elem::check_dtype(other.span.dtype, label)?;
        }
        match &self.finish {
            Some(f)
                if f.formula.arity() != 1 + f.others.len()
                    || f.at > f.others.len()
                    || f.formula.params().len() != f.params.len() =>
            {
                Err(Error::op(format!(
                    "{label}: internal error: a formula behind a product has other inputs"
                )))
            }
            _ => Ok(()),
        }
    }

    /// The key with what the text depends on.
    pub(crate) fn key(&self, key: Key) -> Key {
        let bias = match self.bias {
            Bias::None => 0,
            Bias::Rows(s) => 1 | (s.dtype as u64) << 2,
            Bias::Cols(s) => 2 | (s.dtype as u64) << 2,
        };
        let mut key = key.with(bias << 1 | (self.beta != 0.0) as u64);
        if let Some(f) = &self.finish {
            key = key.with(f.formula.fingerprint()).with(f.at as u64);
            for others in f.others.chunks(8) {
                key = key.with(others.iter().fold(1, |word, o| word << 7 | o.word()));
            }
        }
        key
    }

    /// The buffers that the text binds beside a, b and c.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        self.bias().into_iter().map(|s| s.buffer).chain(self.others().iter().map(|o| o.span.buffer))
    }

    pub(crate) fn declare(&self, mut shader: Shader) -> Shader {
        if let Some(bias) = self.bias() {
            shader = shader.slot(Slot::read("bias", elem::element(bias.dtype))).param("o_bias", "u32");
        }
        shader = shader.param("alpha", "f32").param("beta", "f32");
        for (k, other) in self.others().iter().enumerate() {
            let name = format!("z{k}");
            shader = shader.slot(Slot::read(name.clone(), elem::element(other.span.dtype)));
            shader = shader.param(format!("o_{name}"), "u32");
            if let Form::Spread { divides, wraps } = other.form() {
                let more = [("every", divides), ("count", wraps)];
                for (what, _) in more.iter().filter(|m| m.1) {
                    shader = shader.param(format!("{what}_{name}"), "u32");
                }
            }
        }
        for q in 0..self.finish.map_or(0, |f| f.params.len()) {
            shader = shader.param(format!("q{q}"), "f32");
        }
        shader
    }

    pub(crate) fn values(&self, mut params: Params) -> Result<Params> {
        if let Some(bias) = self.bias() {
            params = params.size(bias.offset)?;
        }
        params = params.f32(self.alpha).f32(self.beta);
        for other in self.others() {
            params = params.size(other.span.offset)?;
            if let Form::Spread { divides, wraps } = other.form() {
                for (value, _) in [(other.every, divides), (other.count, wraps)].iter().filter(|m| m.1) {
                    params = params.size(*value)?;
                }
            }
        }
        for v in self.finish.map_or(&[][..], |f| f.params) {
            params = params.f32(*v as f32);
        }
        Ok(params)
    }

    /// `fn store`, given the WGSL of `fn c_at(i, j)` and of the place of a row's bias.
    pub(crate) fn store(&self, dtype: DType, c_at: &str, row: &str) -> String {
        let mut text = c_at.to_string();
        if let Some(finish) = &self.finish {
            text += &finish.text();
        }
        text += "fn store(i: u32, j: u32, v: f32) {\n    if (i >= p.m || j >= p.n) { return; }\n";
        text += "    let at = c_at(i, j);\n    var r = p.alpha * v;\n";
        if self.beta != 0.0 {
            text += &format!("    r += p.beta * {};\n", elem::load(dtype, Num::F32, "c", "at"));
        }
        match self.bias {
            Bias::None => {}
            Bias::Rows(s) => {
                text += &format!(
                    "    r += {};\n",
                    elem::load(s.dtype, Num::F32, "bias", &format!("p.o_bias + {row}"))
                )
            }
            Bias::Cols(s) => {
                text += &format!("    r += {};\n", elem::load(s.dtype, Num::F32, "bias", "p.o_bias + j"))
            }
        }
        if let Some(finish) = &self.finish {
            text += &finish.call();
        }
        text += &format!("    c[at] = {};\n}}\n", elem::pack(dtype, Num::F32, "r"));
        elem::helpers_for(&text) + &text
    }
}

impl Finish<'_> {
    /// `fn finish(v0, v1, ...) -> f32`.
    fn text(&self) -> String {
        let f = self.formula;
        let names: Vec<String> = (0..f.arity()).map(|i| format!("v{i}")).collect();
        let params: Vec<String> = (0..f.params().len()).map(|q| format!("p.q{q}")).collect();
        let args: Vec<String> = names.iter().map(|name| format!("{name}: f32")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let params: Vec<&str> = params.iter().map(String::as_str).collect();
        format!(
            "{}fn finish({}) -> f32 {{\n{}return result;\n}}\n",
            f.wgsl_helpers(),
            args.join(", "),
            f.wgsl(&names, &params)
        )
    }

    /// The statements that replace `r` by the formula's value.
    fn call(&self) -> String {
        let mut text = String::from("    let e = at - p.o_c;\n");
        let mut args = Vec::new();
        for (k, other) in self.others.iter().enumerate() {
            let name = format!("z{k}");
            let place = match other.form() {
                Form::Same => "e".to_string(),
                Form::Single => "0u".to_string(),
                Form::Spread { divides, wraps } => {
                    let part = if divides { format!("e / p.every_{name}") } else { "e".to_string() };
                    if wraps { format!("{part} % p.count_{name}") } else { part }
                }
            };
            text += &format!("    let at_{name} = p.o_{name} + {place};\n");
            args.push(elem::load(other.span.dtype, Num::F32, &name, &format!("at_{name}")));
        }
        args.insert(self.at, "r".to_string());
        text + &format!("    r = finish({});\n", args.join(", "))
    }
}
