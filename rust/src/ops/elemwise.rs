//! Elementwise operators: each is a formula, and the line that states it is the whole operator.
//!
//! Shape, type, SIMD loop, gradient of any order and WGSL text follow from the formula. Legacy MXNet compares into the
//! operands' own type (1.0 and 0.0), so comparisons do here too.

use super::registry::Registry;
use super::{Param, Shapes, draw, flag, float};
use mxrs_formula::E;

pub fn register(r: &mut Registry) {
    unary(r);
    rounding(r);
    activations(r);
    binary(r);
    scalar(r);
    identities(r);
}

/// Differentiable functions of one element: name, alias for sparse storage, sample range, sentence, formula.
fn unary(r: &mut Registry) {
    type Row = (&'static str, &'static str, (f64, f64), &'static str, fn(E) -> E);
    const ROWS: &[Row] = &[
        ("abs", "_sparse_abs", (-2.0, 2.0), "Absolute value of each element.", |x| x.abs()),
        ("sign", "_sparse_sign", (-2.0, 2.0), "-1, 0 or 1 by the sign of each element.", |x| x.sign()),
        ("exp", "_sparse_exp", (-2.0, 2.0), "e to the power of each element.", |x| x.exp()),
        ("expm1", "_sparse_expm1", (-1.0, 1.0), "exp(x) - 1, accurate near zero.", |x| x.expm1()),
        ("log", "_sparse_log", (0.2, 3.0), "Natural logarithm of each element.", |x| x.log()),
        ("log2", "_sparse_log2", (0.2, 3.0), "Logarithm to base 2 of each element.", |x| x.log2()),
        ("log10", "_sparse_log10", (0.2, 3.0), "Logarithm to base 10 of each element.", |x| x.log10()),
        ("log1p", "_sparse_log1p", (-0.5, 2.0), "log(1 + x), accurate near zero.", |x| x.log1p()),
        ("sqrt", "_sparse_sqrt", (0.2, 3.0), "Square root of each element.", |x| x.sqrt()),
        ("rsqrt", "_sparse_rsqrt", (0.2, 3.0), "1 / sqrt(x) of each element.", |x| x.rsqrt()),
        ("cbrt", "_sparse_cbrt", (0.2, 3.0), "Cube root of each element.", |x| x.cbrt()),
        ("rcbrt", "", (0.2, 3.0), "1 / cbrt(x) of each element.", |x| x.rcbrt()),
        ("square", "_sparse_square", (-2.0, 2.0), "Square of each element.", |x| x.square()),
        ("reciprocal", "", (0.3, 3.0), "1 / x of each element.", |x| x.recip()),
        ("negative", "_sparse_negative", (-2.0, 2.0), "Each element with its sign changed.", |x| -x),
        ("sin", "_sparse_sin", (-3.0, 3.0), "Sine of each element in radians.", |x| x.sin()),
        ("cos", "_sparse_cos", (-3.0, 3.0), "Cosine of each element in radians.", |x| x.cos()),
        ("tan", "_sparse_tan", (-1.0, 1.0), "Tangent of each element in radians.", |x| x.tan()),
        ("arcsin", "_sparse_arcsin", (-0.9, 0.9), "Inverse sine, in radians.", |x| x.asin()),
        ("arccos", "_sparse_arccos", (-0.9, 0.9), "Inverse cosine, in radians.", |x| x.acos()),
        ("arctan", "_sparse_arctan", (-3.0, 3.0), "Inverse tangent, in radians.", |x| x.atan()),
        ("sinh", "_sparse_sinh", (-2.0, 2.0), "Hyperbolic sine of each element.", |x| x.sinh()),
        ("cosh", "_sparse_cosh", (-2.0, 2.0), "Hyperbolic cosine of each element.", |x| x.cosh()),
        ("tanh", "_sparse_tanh", (-2.0, 2.0), "Hyperbolic tangent of each element.", |x| x.tanh()),
        ("arcsinh", "_sparse_arcsinh", (-2.0, 2.0), "Inverse hyperbolic sine.", |x| x.asinh()),
        ("arccosh", "_sparse_arccosh", (1.2, 4.0), "Inverse hyperbolic cosine.", |x| x.acosh()),
        ("arctanh", "_sparse_arctanh", (-0.8, 0.8), "Inverse hyperbolic tangent.", |x| x.atanh()),
        ("degrees", "_sparse_degrees", (-3.0, 3.0), "Radians to degrees.", |x| x.degrees()),
        ("radians", "_sparse_radians", (-90.0, 90.0), "Degrees to radians.", |x| x.radians()),
        ("erf", "_npx_erf", (-2.0, 2.0), "Gauss error function of each element.", |x| x.erf()),
        ("erfinv", "_npx_erfinv", (-0.8, 0.8), "Inverse of the error function.", |x| x.erfinv()),
        ("gamma", "_npx_gamma", (0.5, 4.0), "Gamma function of each element.", |x| x.gamma()),
        ("gammaln", "_npx_gammaln", (0.5, 4.0), "Logarithm of |gamma(x)|.", |x| x.lgamma()),
        ("digamma", "", (0.5, 4.0), "Derivative of gammaln.", |x| x.digamma()),
    ];
    for &(name, alias, (low, high), doc, formula) in ROWS {
        let op = r.op(name, doc).unary(formula).method(&[name]);
        op.sample(&[draw(&[2, 3]).within(low, high)], &[]);
        if !alias.is_empty() {
            op.alias(&[alias]);
        }
    }
    r.find_mut("gamma").alias(&["_sparse_gamma"]);
    r.find_mut("gammaln").alias(&["_sparse_gammaln"]);
}

/// Functions that are flat between their steps: the gradient is zero.
fn rounding(r: &mut Registry) {
    type Row = (&'static str, &'static str, &'static str, fn(E) -> E);
    const ROWS: &[Row] = &[
        ("floor", "_sparse_floor", "The largest whole number not above each element.", |x| x.floor()),
        ("ceil", "_sparse_ceil", "The smallest whole number not below each element.", |x| x.ceil()),
        ("round", "_sparse_round", "The nearest whole number; halves go away from zero.", |x| x.round()),
        ("rint", "_sparse_rint", "The nearest whole number; halves go down.", |x| x.rint()),
        ("trunc", "_sparse_trunc", "The whole number next to each element toward zero.", |x| x.trunc()),
        ("fix", "_sparse_fix", "The whole number next to each element toward zero.", |x| x.trunc()),
        ("logical_not", "", "1 where the element is zero, else 0.", |x| x.logical_not()),
    ];
    for &(name, alias, doc, formula) in ROWS {
        let op = r.op(name, doc).unary(formula).method(&[name]).zero_grad();
        op.sample(&[draw(&[2, 3]).within(-3.0, 3.0)], &[]);
        if !alias.is_empty() {
            op.alias(&[alias]);
        }
    }
}

fn activations(r: &mut Registry) {
    r.op("relu", "max(x, 0) of each element.")
        .unary(|x| x.relu())
        .alias(&["_sparse_relu", "_npx_relu"])
        .method(&["relu"])
        .sample(&[draw(&[2, 3])], &[]);
    r.op("sigmoid", "1 / (1 + exp(-x)) of each element.")
        .unary(|x| x.sigmoid())
        .alias(&["_sparse_sigmoid", "_npx_sigmoid"])
        .method(&["sigmoid"])
        .sample(&[draw(&[2, 3])], &[]);
    r.op("softsign", "x / (1 + |x|) of each element.")
        .unary(|x| x / (x.abs() + 1.0))
        .sample(&[draw(&[2, 3])], &[]);
    r.op("hard_sigmoid", "alpha * x + beta held between 0 and 1.")
        .input("data", "values of any shape")
        .param(float("alpha", "slope").or(0.2f32 as f64))
        .param(float("beta", "value at zero").or(0.5))
        .formula(Shapes::Same, |a| {
            let line = a.param("alpha") * a.x(0) + a.param("beta");
            line.gt(a.c(1.0)).select(a.c(1.0), line.lt(a.c(0.0)).select(a.c(0.0), line))
        })
        .sample(&[draw(&[2, 3])], &[]);
    r.op(
        "smooth_l1",
        "0.5 (s x)^2 where |x| < 1/s^2, else |x| - 0.5/s^2 (Girshick, Fast R-CNN, 2015); s is `scalar`.",
    )
    .input("data", "values of any shape")
    .param(float("scalar", "sigma: the quadratic part reaches to 1 / sigma^2").or(1.0))
    .alias(&["_npx_smooth_l1"])
    .formula(Shapes::Same, |a| {
        let (x, s) = (a.x(0), a.param("scalar"));
        let edge = a.c(1.0) / (s * s);
        x.abs().lt(edge).select(x * x * s * s * 0.5, x.abs() - edge * 0.5)
    })
    .sample(&[draw(&[2, 3]).within(-2.0, 2.0)], &[("scalar", 1.5.into())]);
    r.op("clip", "Each element held between `a_min` and `a_max`; the gradient passes at the bounds.")
        .input("data", "values of any shape")
        .param(float("a_min", "the least result"))
        .param(float("a_max", "the largest result"))
        .alias(&["_npi_clip", "_sparse_clip"])
        .method(&["clip"])
        .formula(Shapes::Same, |a| {
            let (x, low, high) = (a.x(0), a.param("a_min"), a.param("a_max"));
            x.gt(high).select(high, x.lt(low).select(low, x))
        })
        .sample(&[draw(&[2, 3])], &[("a_min", (-0.5).into()), ("a_max", 0.4.into())]);
}

use Shapes::{Broadcast, Same};

/// Name, other names, shapes, whether it has slopes, doc, formula.
type Pair = (&'static str, &'static [&'static str], Shapes, bool, &'static str, fn(E, E) -> E);

const PAIRS: &[Pair] = &[
    (
        "elemwise_add",
        &["_Plus", "_add", "_plus", "_sparse_elemwise_add", "_grad_add"],
        Same,
        true,
        "lhs + rhs, of equal shapes.",
        |a, b| a + b,
    ),
    (
        "elemwise_sub",
        &["_Minus", "_minus", "_sub", "_sparse_elemwise_sub"],
        Same,
        true,
        "lhs - rhs, of equal shapes.",
        |a, b| a - b,
    ),
    (
        "elemwise_mul",
        &["_Mul", "_mul", "_sparse_elemwise_mul"],
        Same,
        true,
        "lhs * rhs, of equal shapes.",
        |a, b| a * b,
    ),
    (
        "elemwise_div",
        &["_Div", "_div", "_sparse_elemwise_div"],
        Same,
        true,
        "lhs / rhs, of equal shapes; whole numbers divide toward zero.",
        |a, b| a / b,
    ),
    ("_power", &["_Power"], Same, true, "lhs to the power of rhs, of equal shapes.", |a, b| a.pow(b)),
    ("_mod", &["_Mod"], Same, true, "lhs modulo rhs, with the sign of rhs.", |a, b| a.modulo(b)),
    ("_maximum", &["_Maximum"], Same, true, "The larger of lhs and rhs.", |a, b| a.max(b)),
    ("_minimum", &["_Minimum"], Same, true, "The smaller of lhs and rhs.", |a, b| a.min(b)),
    ("_hypot", &["_Hypot"], Same, true, "sqrt(lhs^2 + rhs^2).", |a, b| a.hypot(b)),
    ("_equal", &["_Equal"], Same, false, "1 where lhs = rhs, else 0.", |a, b| a.eq(b)),
    ("_not_equal", &["_Not_Equal"], Same, false, "1 where lhs != rhs, else 0.", |a, b| a.ne(b)),
    ("_greater", &["_Greater"], Same, false, "1 where lhs > rhs, else 0.", |a, b| a.gt(b)),
    ("_greater_equal", &["_Greater_Equal"], Same, false, "1 where lhs >= rhs, else 0.", |a, b| a.ge(b)),
    ("_lesser", &["_Lesser"], Same, false, "1 where lhs < rhs, else 0.", |a, b| a.lt(b)),
    ("_lesser_equal", &["_Lesser_Equal"], Same, false, "1 where lhs <= rhs, else 0.", |a, b| a.le(b)),
    ("_logical_and", &["_Logical_And"], Same, false, "1 where both are not zero, else 0.", |a, b| a.and(b)),
    ("_logical_or", &["_Logical_Or"], Same, false, "1 where either is not zero, else 0.", |a, b| a.or(b)),
    ("_logical_xor", &["_Logical_Xor"], Same, false, "1 where exactly one is not zero, else 0.", |a, b| {
        a.xor(b)
    }),
    (
        "broadcast_add",
        &["broadcast_plus", "_sparse_broadcast_add", "_sparse_broadcast_plus"],
        Broadcast,
        true,
        "lhs + rhs with broadcasting.",
        |a, b| a + b,
    ),
    (
        "broadcast_sub",
        &["broadcast_minus", "_sparse_broadcast_sub", "_sparse_broadcast_minus"],
        Broadcast,
        true,
        "lhs - rhs with broadcasting.",
        |a, b| a - b,
    ),
    ("broadcast_mul", &["_sparse_broadcast_mul"], Broadcast, true, "lhs * rhs with broadcasting.", |a, b| {
        a * b
    }),
    (
        "broadcast_div",
        &["_sparse_broadcast_div"],
        Broadcast,
        true,
        "lhs / rhs with broadcasting; whole numbers divide toward zero.",
        |a, b| a / b,
    ),
    (
        "broadcast_mod",
        &[],
        Broadcast,
        true,
        "lhs modulo rhs, with the sign of rhs; 0 where rhs is 0.",
        |a, b| a.modulo(b),
    ),
    ("broadcast_power", &[], Broadcast, true, "lhs to the power of rhs with broadcasting.", |a, b| a.pow(b)),
    (
        "broadcast_maximum",
        &["_npi_maximum"],
        Broadcast,
        true,
        "The larger of lhs and rhs with broadcasting.",
        |a, b| a.max(b),
    ),
    (
        "broadcast_minimum",
        &["_npi_minimum"],
        Broadcast,
        true,
        "The smaller of lhs and rhs with broadcasting.",
        |a, b| a.min(b),
    ),
    ("broadcast_hypot", &[], Broadcast, true, "sqrt(lhs^2 + rhs^2) with broadcasting.", |a, b| a.hypot(b)),
    (
        "arctan2",
        &["_npi_arctan2"],
        Broadcast,
        true,
        "The angle of the point (rhs, lhs), in radians.",
        |a, b| a.arctan2(b),
    ),
    ("broadcast_equal", &[], Broadcast, false, "1 where lhs = rhs, else 0, with broadcasting.", |a, b| {
        a.eq(b)
    }),
    (
        "broadcast_not_equal",
        &[],
        Broadcast,
        false,
        "1 where lhs != rhs, else 0, with broadcasting.",
        |a, b| a.ne(b),
    ),
    ("broadcast_greater", &[], Broadcast, false, "1 where lhs > rhs, else 0, with broadcasting.", |a, b| {
        a.gt(b)
    }),
    (
        "broadcast_greater_equal",
        &[],
        Broadcast,
        false,
        "1 where lhs >= rhs, else 0, with broadcasting.",
        |a, b| a.ge(b),
    ),
    ("broadcast_lesser", &[], Broadcast, false, "1 where lhs < rhs, else 0, with broadcasting.", |a, b| {
        a.lt(b)
    }),
    (
        "broadcast_lesser_equal",
        &[],
        Broadcast,
        false,
        "1 where lhs <= rhs, else 0, with broadcasting.",
        |a, b| a.le(b),
    ),
    (
        "broadcast_logical_and",
        &[],
        Broadcast,
        false,
        "1 where both are not zero, with broadcasting.",
        |a, b| a.and(b),
    ),
    (
        "broadcast_logical_or",
        &[],
        Broadcast,
        false,
        "1 where either is not zero, with broadcasting.",
        |a, b| a.or(b),
    ),
    (
        "broadcast_logical_xor",
        &[],
        Broadcast,
        false,
        "1 where exactly one is not zero, with broadcasting.",
        |a, b| a.xor(b),
    ),
];

/// Operators of two arrays: `elemwise_`/`_x` forms want equal shapes, `broadcast_` forms broadcast.
fn binary(r: &mut Registry) {
    for &(name, aliases, shapes, differentiable, doc, formula) in PAIRS {
        let op = r.op(name, doc).binary(shapes, formula).alias(aliases);
        // Apart from one another, so that maximum and its like are smooth around the sample.
        let (a, b) = (draw(&[2, 3]).within(0.4, 1.4), draw(&[2, 3]).within(1.6, 2.6));
        op.sample(&[a.clone(), b], &[]);
        if shapes == Broadcast {
            op.sample(&[a, draw(&[2, 1, 3]).within(1.6, 2.6)], &[]);
        }
        if !differentiable {
            op.zero_grad();
        }
    }
}

/// Operators of an array and a number. The number is converted to the array's type first.
fn scalar(r: &mut Registry) {
    type Row = (&'static str, &'static [&'static str], bool, &'static str, fn(E, E) -> E);
    const ROWS: &[Row] = &[
        ("_plus_scalar", &["_PlusScalar", "_scatter_plus_scalar"], true, "data + scalar.", |x, s| x + s),
        ("_minus_scalar", &["_MinusScalar", "_scatter_minus_scalar"], true, "data - scalar.", |x, s| x - s),
        ("_rminus_scalar", &["_RMinusScalar"], true, "scalar - data.", |x, s| s - x),
        ("_mul_scalar", &["_MulScalar"], true, "data * scalar.", |x, s| x * s),
        ("_div_scalar", &["_DivScalar"], true, "data / scalar.", |x, s| x / s),
        ("_rdiv_scalar", &["_RDivScalar"], true, "scalar / data.", |x, s| s / x),
        ("_mod_scalar", &["_ModScalar"], true, "data modulo scalar, with the sign of scalar.", |x, s| {
            x.modulo(s)
        }),
        ("_rmod_scalar", &["_RModScalar"], true, "scalar modulo data, with the sign of data.", |x, s| {
            s.modulo(x)
        }),
        ("_power_scalar", &["_PowerScalar"], true, "data to the power of scalar.", |x, s| x.pow(s)),
        ("_rpower_scalar", &["_RPowerScalar"], true, "scalar to the power of data.", |x, s| s.pow(x)),
        (
            "_maximum_scalar",
            &["_MaximumScalar", "_npi_maximum_scalar"],
            true,
            "The larger of data and scalar.",
            |x, s| x.max(s),
        ),
        (
            "_minimum_scalar",
            &["_MinimumScalar", "_npi_minimum_scalar"],
            true,
            "The smaller of data and scalar.",
            |x, s| x.min(s),
        ),
        (
            "_hypot_scalar",
            &["_HypotScalar", "_npi_hypot_scalar"],
            true,
            "sqrt(data^2 + scalar^2).",
            |x, s| x.hypot(s),
        ),
        ("_equal_scalar", &["_EqualScalar"], false, "1 where data = scalar, else 0.", |x, s| x.eq(s)),
        ("_not_equal_scalar", &["_NotEqualScalar"], false, "1 where data != scalar, else 0.", |x, s| x.ne(s)),
        ("_greater_scalar", &["_GreaterScalar"], false, "1 where data > scalar, else 0.", |x, s| x.gt(s)),
        (
            "_greater_equal_scalar",
            &["_GreaterEqualScalar"],
            false,
            "1 where data >= scalar, else 0.",
            |x, s| x.ge(s),
        ),
        ("_lesser_scalar", &["_LesserScalar"], false, "1 where data < scalar, else 0.", |x, s| x.lt(s)),
        (
            "_lesser_equal_scalar",
            &["_LesserEqualScalar"],
            false,
            "1 where data <= scalar, else 0.",
            |x, s| x.le(s),
        ),
        ("_logical_and_scalar", &["_LogicalAndScalar"], false, "1 where both are not zero.", |x, s| x.and(s)),
        ("_logical_or_scalar", &["_LogicalOrScalar"], false, "1 where either is not zero.", |x, s| x.or(s)),
        ("_logical_xor_scalar", &["_LogicalXorScalar"], false, "1 where exactly one is not zero.", |x, s| {
            x.xor(s)
        }),
    ];
    for &(name, aliases, differentiable, doc, formula) in ROWS {
        let op = r
            .op(name, doc)
            .input("data", "values of any shape")
            .param(scalar_param())
            .param(flag("is_int", "whether the number was written as a whole number").or(true))
            .formula(Shapes::Same, |a| formula(a.x(0), a.param("scalar")))
            .alias(aliases);
        op.sample(&[draw(&[2, 3]).within(0.4, 1.3)], &[("scalar", 1.5.into())]);
        if !differentiable {
            op.zero_grad();
        }
    }
}

fn scalar_param() -> Param {
    float("scalar", "the number").or(1.0)
}

/// Operators that pass values on, or only their shape.
fn identities(r: &mut Registry) {
    r.op("_copy", "The same values in memory of their own.")
        .views()
        .unary(|x| x)
        .alias(&["identity"])
        .sample(&[draw(&[2, 3])], &[]);
    r.op("_copyto", "The same values in memory of their own, on the context of the output.")
        .unary(|x| x)
        .alias(&["_npi_copyto", "_CrossDeviceCopy"])
        .sample(&[draw(&[2, 3])], &[]);
    r.op("BlockGrad", "The same values; no gradient passes.")
        .views()
        .unary(|x| x)
        .alias(&["stop_gradient", "_sparse_stop_gradient"])
        .method(&["stop_gradient"])
        .zero_grad()
        .sample(&[draw(&[2, 3])], &[]);
    r.op("zeros_like", "Zeros of the shape and type of the input.")
        .input("data", "values of any shape")
        .alias(&["_sparse_zeros_like"])
        .method(&["zeros_like"])
        .formula(Shapes::Same, |a| a.c(0.0))
        .zero_grad()
        .sample(&[draw(&[2, 3])], &[]);
    r.op("ones_like", "Ones of the shape and type of the input.")
        .input("data", "values of any shape")
        .method(&["ones_like"])
        .formula(Shapes::Same, |a| a.c(1.0))
        .zero_grad()
        .sample(&[draw(&[2, 3])], &[]);
    r.op("_identity_with_attr_like_rhs", "lhs, which has the shape of rhs.")
        .views()
        .keeps_shape()
        .input("lhs", "the values")
        .input("rhs", "the shape")
        .infer(|s| s.elementwise())
        .kernel(|c| {
            c.y_bytes(0).copy_from_slice(c.x_bytes(0));
            Ok(())
        })
        .keeps(&[], &[])
        .grad(|_, g| {
            let mut grads = g.none();
            grads[0] = g.heads[0];
            Ok(grads)
        })
        .sample(&[draw(&[2, 3]), draw(&[2, 3])], &[]);
}
