//! Softmax along an axis, its logarithm, their gradients, and the losses that are made of one.
//!
//! A row is read three times (largest, sum of exponentials, result), of which the last two find it in a cache. Where rows
//! are few and long, workgroups share them: the same three steps are reductions and maps.

use crate::shaders::elem::{self, Num, Span};
use crate::shaders::map::launch_map;
use crate::shaders::reduce::{Reduction, launch_reduce};
use crate::shaders::rows::{self, Around, BITS, Rows};
use mxrs_base::{DType, Result};
use mxrs_formula::Formula;
use mxrs_gpu::{Buffer, Device, Key, Params, Shader, Slot, linear_groups};
use mxrs_kernels::softmax::{Kind, Normalization, OutputGrad};
use smallvec::{SmallVec, smallvec};
use std::sync::LazyLock;

/// What is written for a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Give {
    Softmax,
    Log,
    /// -log of the label's softmax, one number a row, not above -log(1e-8); not-a-number where the label is no class.
    Loss,
}

/// exp(x / temperature) over its sum along the middle axis, or what `kind` makes of it. With `lengths` (int32, one a
/// row) only so many elements of a row count, and the others become 0.
///
/// # Errors
/// For element types that GPUs do not have, and sizes that 32 bits do not count.
#[allow(clippy::too_many_arguments)] // a launch is what its caller has checked, passed on
pub fn launch_softmax(
    device: &Device,
    kind: Kind,
    around: Around,
    temperature: f64,
    x: Span,
    lengths: Option<Span>,
    y: Span,
    label: &'static str,
) -> Result<()> {
    let scale = if kind == Kind::Softmin { -1.0 } else { 1.0 } / temperature;
    let give = if kind == Kind::LogSoftmax { Give::Log } else { Give::Softmax };
    if lengths.is_none() && is_shared(&Rows::along(around)) {
        return launch_shared(device, give, around, scale, (x, y), label);
    }
    launch(device, give, around, scale, x, lengths, y, label)
}

/// Whether rows are too few for a workgroup each to use a device, and long enough for several launches.
fn is_shared(rows: &Rows) -> bool {
    rows.count() > 0 && rows.count() < 64 && rows.extent() >= 1 << 14
}

/// What the steps between reductions calculate: the exponential, its share, the logarithm of that.
static SHARED: LazyLock<[Formula; 3]> = LazyLock::new(|| {
    [
        Formula::build(2, &["scale"], |a| (a.x(0) * a.param("scale") - a.x(1) * a.param("scale")).exp()),
        Formula::build(2, &[], |a| a.x(0) / a.x(1)),
        Formula::build(3, &["scale"], |a| {
            a.x(0) * a.param("scale") - a.x(1) * a.param("scale") - a.x(2).log()
        }),
    ]
});

fn launch_shared(
    device: &Device,
    give: Give,
    around: Around,
    scale: f64,
    (x, y): (Span, Span),
    label: &'static str,
) -> Result<()> {
    let (outer, n, inner) = around;
    let (dims, all, one) = ([outer, n, inner], rows::whole(around), rows::outside(around));
    let room = |n: usize| device.alloc(4 * n as u64);
    let (top, total, terms) = (room(outer * inner)?, room(outer * inner)?, room(outer * n * inner)?);
    let [top, total, terms] = [&top, &total, &terms].map(|b| Span::new(b, DType::F32));
    let most = if scale < 0.0 { Reduction::Min } else { Reduction::Max };
    launch_reduce(device, most, &dims, &[1], x.strided(&all), top, label)?;
    let (of, of_top) = (x.strided(&all), top.strided(&one));
    launch_map(device, &SHARED[0], &[scale], &dims, &[of, of_top], terms.strided(&all), label)?;
    launch_reduce(device, Reduction::Sum, &dims, &[1], terms.strided(&all), total, label)?;
    let (of_total, to) = (total.strided(&one), y.strided(&all));
    match give {
        Give::Log => launch_map(device, &SHARED[2], &[scale], &dims, &[of, of_top, of_total], to, label),
        _ => launch_map(device, &SHARED[1], &[], &dims, &[terms.strided(&all), of_total], to, label),
    }
}

#[allow(clippy::too_many_arguments)] // as above
fn launch(
    device: &Device,
    give: Give,
    around: Around,
    scale: f64,
    x: Span,
    per_row: Option<Span>,
    y: Span,
    label: &'static str,
) -> Result<()> {
    let rows = Rows::along(around);
    for span in [Some(x), per_row, Some(y)].iter().flatten() {
        elem::check_dtype(span.dtype, label)?;
    }
    if rows.count() == 0 || (rows.extent() == 0 && give != Give::Loss) {
        return Ok(());
    }
    let of = per_row.map_or(15, |s| s.dtype as u64);
    let word = give as u64 | (x.dtype as u64) << 4 | (y.dtype as u64) << 8 | of << 12;
    let key = Key::new("softmax").with(word).with(rows.key());
    let pipeline = device.pipeline(&key, || {
        let mut shader = Shader::new("softmax", "")
            .slot(Slot::read("x", elem::element(x.dtype)))
            .slot(Slot::write("y", elem::element(y.dtype)));
        if let Some(s) = per_row {
            shader = shader.slot(Slot::read("labels", elem::element(s.dtype)));
        }
        shader = rows.declare(shader).param("scale", "f32");
        for name in ["o_x", "o_y", "o_labels"] {
            shader = shader.param(name, "u32");
        }
        shader.body = forward_text(give, &rows, x.dtype, per_row.map(|s| s.dtype), y.dtype).into();
        Ok(shader.trusted())
    })?;
    let params = rows.params()?.f32(scale as f32).size(x.offset)?.size(y.offset)?;
    let params = params.size(per_row.map_or(0, |s| s.offset))?;
    let mut buffers: SmallVec<[&Buffer; 3]> = smallvec![x.buffer, y.buffer];
    buffers.extend(per_row.map(|s| s.buffer));
    device.dispatch(&pipeline, &buffers, params, rows.grid()?, label)
}

fn forward_text(give: Give, rows: &Rows, from: DType, of: Option<DType>, to: DType) -> String {
    let value = |i: &str| {
        let at = format!("p.o_x + base + element_at({i})");
        format!("({} * p.scale)", elem::load(from, Num::F32, "x", &at))
    };
    let of = |num| of.map(|of| elem::load(of, num, "labels", "(p.o_labels + row)"));
    let length = match of(Num::I32) {
        Some(length) if give != Give::Loss => {
            format!("    if (live) {{ n = min(p.len, u32(max({length}, 0))); }}\n")
        }
        _ => "    if (live) { n = p.len; }\n".into(),
    };
    let result = match give {
        Give::Loss => format!(
            "    if (live && lane == 0u) {{
        let hot_class = {label};
        var loss = mx_nan();
        if (hot_class >= 0 && u32(hot_class) < n) {{
            loss = log(total) + top - {v};
            if (loss > 18.420680743952367) {{ loss = 18.420680743952367; }}
        }}
        y[p.o_y + row] = {stored};
    }}
",
            label = of(Num::I32).unwrap_or_else(|| "0".into()),
            v = value("u32(hot_class)"),
            stored = elem::pack(to, Num::F32, "loss"),
        ),
        _ => {
            let (once, v) = match give {
                Give::Log => ("log(total)", format!("({} - top) - once", value("i"))),
                _ => ("1.0 / total", format!("exp({} - top) * once", value("i"))),
            };
            format!(
                "    let once = {once};
    for (var i = lane; i < n; i += lanes) {{
        let v = {v};
        y[p.o_y + base + element_at(i)] = {stored};
    }}
    if (live) {{
        for (var i = n + lane; i < p.len; i += lanes) {{
            y[p.o_y + base + element_at(i)] = {zero};
        }}
    }}
",
                stored = elem::pack(to, Num::F32, "v"),
                zero = elem::pack(to, Num::F32, "0.0"),
            )
        }
    };
    let text = format!(
        "{BITS}{joins}{main}    var n = 0u;
{length}    var top = mx_infinity(0x80000000u);
    for (var i = lane; i < n; i += lanes) {{
        let v = {v};
        top = select(top, v, v > top || mx_is_nan(v));
    }}
    top = largest(top, local, lane);
    var total = 0.0;
    for (var i = lane; i < n; i += lanes) {{ total += exp({v} - top); }}
    total = sum(total, local, lane);
{result}}}
",
        joins =
            rows.text(&[("largest", "f32", "select(a, b, b > a || mx_is_nan(b))"), ("sum", "f32", "a + b")]),
        main = rows.main(),
        v = value("i"),
    );
    elem::helpers_for(&text) + &text
}

/// The gradient of [`launch_softmax`] by its input, from its result `y` and the gradient `dy` of that.
#[allow(clippy::too_many_arguments)] // as above
pub fn launch_softmax_grad(
    device: &Device,
    kind: Kind,
    around: Around,
    temperature: f64,
    (y, dy): (Span, Span),
    lengths: Option<Span>,
    dx: Span,
    label: &'static str,
) -> Result<()> {
    let rows = Rows::along(around);
    for span in [Some(y), Some(dy), lengths, Some(dx)].iter().flatten() {
        elem::check_dtype(span.dtype, label)?;
    }
    if rows.count() == 0 || rows.extent() == 0 {
        return Ok(());
    }
    let log = kind == Kind::LogSoftmax;
    let scale = if kind == Kind::Softmin { -1.0 } else { 1.0 } / temperature;
    if lengths.is_none() && is_shared(&rows) {
        return launch_shared_grad(device, log, around, scale, [y, dy, dx], label);
    }
    let of = lengths.map_or(15, |s| s.dtype as u64);
    let word = u64::from(log) | (y.dtype as u64) << 4 | (dy.dtype as u64) << 8 | of << 12;
    let key = Key::new("softmax_grad").with(word | (dx.dtype as u64) << 16).with(rows.key());
    let pipeline = device.pipeline(&key, || {
        let mut shader = Shader::new("softmax_grad", "")
            .slot(Slot::read("y", elem::element(y.dtype)))
            .slot(Slot::read("dy", elem::element(dy.dtype)))
            .slot(Slot::write("dx", elem::element(dx.dtype)));
        if let Some(s) = lengths {
            shader = shader.slot(Slot::read("labels", elem::element(s.dtype)));
        }
        shader = rows.declare(shader).param("scale", "f32");
        for name in ["o_y", "o_dy", "o_dx", "o_labels"] {
            shader = shader.param(name, "u32");
        }
        shader.body = gradient_text(log, &rows, [y.dtype, dy.dtype, dx.dtype], lengths).into();
        Ok(shader.trusted())
    })?;
    let params = rows.params()?.f32(scale as f32).size(y.offset)?.size(dy.offset)?.size(dx.offset)?;
    let params = params.size(lengths.map_or(0, |s| s.offset))?;
    let mut buffers: SmallVec<[&Buffer; 4]> = smallvec![y.buffer, dy.buffer, dx.buffer];
    buffers.extend(lengths.map(|s| s.buffer));
    device.dispatch(&pipeline, &buffers, params, rows.grid()?, label)
}

/// The term that a row's sum is made of (of a softmax; a logarithm's is dy itself), and the slopes of both.
static SLOPES: LazyLock<[Formula; 3]> = LazyLock::new(|| {
    [
        Formula::build(2, &[], |a| a.x(0) * a.x(1)),
        Formula::build(3, &["scale"], |a| a.x(0) * (a.x(1) - a.x(2)) * a.param("scale")),
        Formula::build(3, &["scale"], |a| (a.x(1) - a.x(0).exp() * a.x(2)) * a.param("scale")),
    ]
});

fn launch_shared_grad(
    device: &Device,
    log: bool,
    around: Around,
    scale: f64,
    [y, dy, dx]: [Span; 3],
    label: &'static str,
) -> Result<()> {
    let (outer, n, inner) = around;
    let (dims, all, one) = ([outer, n, inner], rows::whole(around), rows::outside(around));
    let total = device.alloc(4 * (outer * inner) as u64)?;
    let total = Span::new(&total, DType::F32);
    let ins = [y.strided(&all), dy.strided(&all), total.strided(&one)];
    if log {
        launch_reduce(device, Reduction::Sum, &dims, &[1], dy.strided(&all), total, label)?;
    } else {
        let terms = device.alloc(4 * (outer * n * inner) as u64)?;
        let terms = Span::new(&terms, DType::F32).strided(&all);
        launch_map(device, &SLOPES[0], &[], &dims, &ins[..2], terms, label)?;
        launch_reduce(device, Reduction::Sum, &dims, &[1], terms, total, label)?;
    }
    launch_map(device, &SLOPES[1 + usize::from(log)], &[scale], &dims, &ins, dx.strided(&all), label)
}

fn gradient_text(log: bool, rows: &Rows, [y, dy, dx]: [DType; 3], lengths: Option<Span>) -> String {
    let length = match lengths {
        Some(s) => {
            format!(
                "min(p.len, u32(max({}, 0)))",
                elem::load(s.dtype, Num::I32, "labels", "(p.o_labels + row)")
            )
        }
        None => "p.len".into(),
    };
    let (term, slope) = match log {
        true => ("d", "(d - exp(v) * total) * p.scale"),
        false => ("d * v", "v * (d - total) * p.scale"),
    };
    let text = format!(
        "{joins}{main}    var n = 0u;
    if (live) {{ n = {length}; }}
    var total = 0.0;
    for (var i = lane; i < n; i += lanes) {{
        let at = base + element_at(i);
        let v = {v};
        let d = {d};
        total += {term};
    }}
    total = sum(total, local, lane);
    for (var i = lane; i < n; i += lanes) {{
        let at = base + element_at(i);
        let v = {v};
        let d = {d};
        dx[p.o_dx + at] = {stored};
    }}
    if (live) {{
        for (var i = n + lane; i < p.len; i += lanes) {{ dx[p.o_dx + base + element_at(i)] = {zero}; }}
    }}
}}
",
        joins = rows.text(&[("sum", "f32", "a + b")]),
        main = rows.main(),
        v = elem::load(y, Num::F32, "y", "p.o_y + at"),
        d = elem::load(dy, Num::F32, "dy", "p.o_dy + at"),
        stored = elem::pack(dx, Num::F32, &format!("({slope})")),
        zero = elem::pack(dx, Num::F32, "0.0"),
    );
    elem::helpers_for(&text) + &text
}

// ---- losses ----

/// What the gradient of a loss is multiplied by, beside a number.
#[derive(Clone, Copy)]
enum Factor<'a> {
    One,
    /// The one element.
    Times(Span<'a>),
    /// 1 over the one element, which counts as 1 at least.
    Over(Span<'a>),
}

static COUNTS: LazyLock<Formula> =
    LazyLock::new(|| Formula::build(1, &["ignore"], |a| a.x(0).ne(a.param("ignore")).select(1.0, 0.0)));

/// The gradient of SoftmaxOutput by its data, from its result `y`, shape (outer, classes, inner), and the class numbers
/// `of`, shape (outer, inner).
pub fn launch_output_grad(
    device: &Device,
    how: &OutputGrad,
    around: Around,
    y: Span,
    of: Span,
    dx: Span,
    label: &'static str,
) -> Result<()> {
    let (outer, classes, inner) = around;
    let positions = outer * inner;
    let alpha = if how.multi_output { 0.0 } else { how.smooth_alpha };
    let spread = if classes > 1 { alpha / (classes - 1) as f64 } else { 0.0 };
    let mut onehot = OneHot { around, scale: how.grad_scale, hit: 1.0 - alpha, miss: spread, ignore: None };
    onehot.ignore = how.use_ignore.then_some(how.ignore_label);
    if how.normalization != Normalization::Valid {
        let batch = if how.normalization == Normalization::Batch { outer.max(1) } else { 1 };
        let places = if how.multi_output { inner.max(1) } else { 1 };
        onehot.scale /= (batch * places) as f64;
        return onehot.launch(device, Factor::One, y, of, dx, label);
    }
    if !how.multi_output && !how.use_ignore {
        onehot.scale /= positions.max(1) as f64;
        return onehot.launch(device, Factor::One, y, of, dx, label);
    }
    let (marks, count) = (device.alloc(4 * positions.max(1) as u64)?, device.alloc(4)?);
    let (marks, count) = (Span::new(&marks, DType::F32), Span::new(&count, DType::F32));
    let ignore = [how.ignore_label];
    launch_map(device, &COUNTS, &ignore, &[positions], &[of.strided(&[1])], marks.strided(&[1]), label)?;
    launch_reduce(device, Reduction::Sum, &[positions], &[0], marks.strided(&[1]), count, label)?;
    onehot.launch(device, Factor::Over(count), y, of, dx, label)
}

/// The sum over rows of -log(softmax(x)[label]), not-a-number where a label is no class.
pub fn launch_cross_entropy(
    device: &Device,
    (rows, classes): (usize, usize),
    x: Span,
    of: Span,
    y: Span,
    label: &'static str,
) -> Result<()> {
    let losses = device.alloc(4 * rows.max(1) as u64)?;
    let losses = Span::new(&losses, DType::F32);
    launch(device, Give::Loss, (rows, classes, 1), 1.0, x, Some(of), losses, label)?;
    launch_reduce(device, Reduction::Sum, &[rows], &[0], losses.strided(&[1]), y, label)
}

/// (softmax(x) - onehot(label)) * head.
pub fn launch_cross_entropy_grad(
    device: &Device,
    (rows, classes): (usize, usize),
    (x, of, head): (Span, Span, Span),
    dx: Span,
    label: &'static str,
) -> Result<()> {
    let around = (rows, classes, 1);
    let y = device.alloc(4 * (rows * classes).max(1) as u64)?;
    let y = Span::new(&y, DType::F32);
    launch(device, Give::Softmax, around, 1.0, x, None, y, label)?;
    let onehot = OneHot { around, scale: 1.0, hit: 1.0, miss: 0.0, ignore: None };
    onehot.launch(device, Factor::Times(head), y, of, dx, label)
}

/// (y - onehot) * scale * factor, with `hit` for the label's class and `miss` for the others.
struct OneHot {
    around: Around,
    scale: f64,
    hit: f64,
    miss: f64,
    /// Positions with this label become 0.
    ignore: Option<f64>,
}

impl OneHot {
    fn launch(
        &self,
        device: &Device,
        factor: Factor,
        y: Span,
        of: Span,
        dx: Span,
        label: &'static str,
    ) -> Result<()> {
        let (outer, classes, inner) = self.around;
        let by = match factor {
            Factor::One => None,
            Factor::Times(s) | Factor::Over(s) => Some(s),
        };
        for span in [Some(y), Some(of), Some(dx), by].iter().flatten() {
            elem::check_dtype(span.dtype, label)?;
        }
        let n = outer * classes * inner;
        if n == 0 {
            return Ok(());
        }
        let how = match factor {
            Factor::One => 0,
            Factor::Times(s) => 1 | (s.dtype as u64) << 4,
            Factor::Over(s) => 2 | (s.dtype as u64) << 4,
        };
        let types = (y.dtype as u64) << 8 | (of.dtype as u64) << 12 | (dx.dtype as u64) << 16;
        let key = Key::new("onehot").with(how | types | u64::from(self.ignore.is_some()) << 20);
        let pipeline = device.pipeline(&key, || {
            let mut shader = Shader::new("onehot", "")
                .slot(Slot::read("y", elem::element(y.dtype)))
                .slot(Slot::read("labels", elem::element(of.dtype)))
                .slot(Slot::write("dx", elem::element(dx.dtype)));
            if let Some(s) = by {
                shader = shader.slot(Slot::read("by", elem::element(s.dtype)));
            }
            for name in ["n", "classes", "inner", "o_y", "o_labels", "o_dx", "o_by"] {
                shader = shader.param(name, "u32");
            }
            for name in ["scale", "hit", "miss", "ignore"] {
                shader = shader.param(name, "f32");
            }
            shader.body = self.text(factor, y.dtype, of.dtype, dx.dtype).into();
            Ok(shader.trusted())
        })?;
        let mut params = Params::new().size(n)?.size(classes)?.size(inner)?;
        for offset in [y.offset, of.offset, dx.offset, by.map_or(0, |s| s.offset)] {
            params = params.size(offset)?;
        }
        for v in [self.scale, self.hit, self.miss, self.ignore.unwrap_or(0.0)] {
            params = params.f32(v as f32);
        }
        let mut buffers: SmallVec<[&Buffer; 4]> = smallvec![y.buffer, of.buffer, dx.buffer];
        buffers.extend(by.map(|s| s.buffer));
        device.dispatch(&pipeline, &buffers, params, linear_groups(n.div_ceil(256) as u64)?, label)
    }

    fn text(&self, factor: Factor, y: DType, of: DType, dx: DType) -> String {
        let by = |s: Span| elem::load(s.dtype, Num::F32, "by", "p.o_by");
        let scale = match factor {
            Factor::One => "p.scale".to_string(),
            Factor::Times(s) => format!("p.scale * {}", by(s)),
            Factor::Over(s) => format!("p.scale / max({}, 1.0)", by(s)),
        };
        let ignore = match self.ignore {
            Some(_) => {
                format!("    if ({} == p.ignore) {{ v = 0.0; }}\n", elem::load(of, Num::F32, "labels", "at"))
            }
            None => String::new(),
        };
        let text = format!(
            "@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {{
    let i = mx_group(group) * 256u + local;
    if (i >= p.n) {{ return; }}
    let rest = i / p.inner;
    let at = p.o_labels + rest / p.classes * p.inner + i % p.inner;
    let hot_class = {class};
    let hot = select(p.miss, p.hit, hot_class == i32(rest % p.classes));
    var v = ({v} - hot) * ({scale});
{ignore}    dx[p.o_dx + i] = {stored};
}}
",
            class = elem::load(of, Num::I32, "labels", "at"),
            v = elem::load(y, Num::F32, "y", "p.o_y + i"),
            stored = elem::pack(dx, Num::F32, "v"),
        );
        elem::helpers_for(&text) + &text
    }
}
