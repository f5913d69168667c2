//! WGSL functions that instructions call where the language has none, or a built-in too coarse or undefined there.
//!
//! WGSL lets an implementation assume that infinities and not-a-number do not occur, so tests for them look at bits.

/// (name, text); a text may call other helpers.
const HELPERS: &[(&str, &str)] = &[
    (
        "mx_bits",
        // Through a variable: a constant expression with this value is an error.
        "fn mx_bits(bits: u32) -> f32 { var b = bits; return bitcast<f32>(b); }",
    ),
    (
        "mx_isnan",
        "fn mx_isnan(x: f32) -> f32 { return select(0.0, 1.0, (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u); }",
    ),
    (
        "mx_isinf",
        "fn mx_isinf(x: f32) -> f32 { return select(0.0, 1.0, (bitcast<u32>(x) & 0x7fffffffu) == 0x7f800000u); }",
    ),
    (
        "mx_isfinite",
        "fn mx_isfinite(x: f32) -> f32 { return select(0.0, 1.0, (bitcast<u32>(x) & 0x7fffffffu) < 0x7f800000u); }",
    ),
    (
        "mx_eq",
        // Both zeros are equal, not-a-number is equal to nothing, an infinity to itself.
        "fn mx_eq(a: f32, b: f32) -> f32 {
    let x = bitcast<u32>(a);
    let y = bitcast<u32>(b);
    let same = x == y || ((x | y) & 0x7fffffffu) == 0u;
    return select(0.0, 1.0, same && (x & 0x7fffffffu) <= 0x7f800000u);
}",
    ),
    (
        "mx_copysign",
        // Not by joining bits: Mesa 22 loses the exponent where it knows the sign of the second operand.
        "fn mx_copysign(a: f32, b: f32) -> f32 {
    return select(abs(a), -abs(a), bitcast<u32>(b) >= 0x80000000u);
}",
    ),
    (
        "mx_max",
        "fn mx_max(a: f32, b: f32) -> f32 { return select(b, a, a > b || mx_isnan(a) != 0.0); }",
    ),
    (
        "mx_min",
        "fn mx_min(a: f32, b: f32) -> f32 { return select(b, a, a < b || mx_isnan(a) != 0.0); }",
    ),
    (
        "mx_mod",
        "fn mx_mod(a: f32, b: f32) -> f32 {
    if (b == 0.0) { return 0.0; }
    let q = floor(a / b);
    if (q == 0.0) { return a; }
    return a - q * b;
}",
    ),
    (
        "mx_log1p",
        "fn mx_log1p(x: f32) -> f32 {
    if (abs(x) > 0.3) { return log(1.0 + x); }
    let s = x / (2.0 + x);
    let z = s * s;
    return 2.0 * s * (1.0 + z * (1.0 / 3.0 + z * (0.2 + z * (1.0 / 7.0 + z * (1.0 / 9.0)))));
}",
    ),
    (
        "mx_expm1",
        "fn mx_expm1(x: f32) -> f32 {
    if (abs(x) > 0.35) { return exp(x) - 1.0; }
    return x * (1.0 + x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0 + x * (1.0 / 120.0 + x * (1.0 / 720.0))))));
}",
    ),
    (
        "mx_cbrt",
        "fn mx_cbrt(x: f32) -> f32 {
    if (x == 0.0 || mx_isfinite(x) == 0.0) { return x; }
    let a = abs(x);
    var y = exp2(log2(a) / 3.0);
    y = y - (y - a / (y * y)) / 3.0;
    return mx_copysign(y, x);
}",
    ),
    (
        "mx_reduce",
        // x - k pi/2 with pi/2 in three parts, so that k up to some ten thousands keeps all digits.
        "fn mx_reduce(x: f32) -> vec2<f32> {
    let k = round(x * 0.63661977);
    let r = ((x - k * 1.5703125) - k * 4.837512969970703125e-4) - k * 7.549789948768648e-8;
    return vec2<f32>(r, k - 4.0 * floor(k * 0.25));
}",
    ),
    (
        "mx_sin_poly",
        "fn mx_sin_poly(r: f32) -> f32 {
    let z = r * r;
    return r + r * z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z * (1.0 / 362880.0))));
}",
    ),
    (
        "mx_cos_poly",
        "fn mx_cos_poly(r: f32) -> f32 {
    let z = r * r;
    return 1.0 + z * (-0.5 + z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z * (1.0 / 40320.0))));
}",
    ),
    (
        "mx_quarter",
        "fn mx_quarter(r: f32, quadrant: f32) -> f32 {
    let odd = quadrant == 1.0 || quadrant == 3.0;
    let value = select(mx_sin_poly(r), mx_cos_poly(r), odd);
    return select(value, -value, quadrant >= 2.0);
}",
    ),
    (
        "mx_sin",
        "fn mx_sin(x: f32) -> f32 { let r = mx_reduce(x); return mx_quarter(r.x, r.y); }",
    ),
    (
        "mx_cos",
        "fn mx_cos(x: f32) -> f32 {
    let r = mx_reduce(x);
    return mx_quarter(r.x, select(r.y + 1.0, 0.0, r.y == 3.0));
}",
    ),
    ("mx_tan", "fn mx_tan(x: f32) -> f32 { return mx_sin(x) / mx_cos(x); }"),
    (
        "mx_asin",
        "fn mx_asin(x: f32) -> f32 {
    if (abs(x) > 1.0) { return mx_bits(0x7fc00000u); }
    return atan2(x, sqrt((1.0 - x) * (1.0 + x)));
}",
    ),
    (
        "mx_acos",
        "fn mx_acos(x: f32) -> f32 {
    if (abs(x) > 1.0) { return mx_bits(0x7fc00000u); }
    return 2.0 * atan2(sqrt(1.0 - x), sqrt(1.0 + x));
}",
    ),
    (
        "mx_sinh",
        "fn mx_sinh(x: f32) -> f32 {
    let a = abs(x);
    if (a > 20.0) { return mx_copysign(exp(0.5 * a) * (0.5 * exp(0.5 * a)), x); }
    let e = mx_expm1(a);
    return mx_copysign(0.5 * (e + e / (e + 1.0)), x);
}",
    ),
    (
        "mx_tanh",
        "fn mx_tanh(x: f32) -> f32 {
    let e = mx_expm1(2.0 * min(abs(x), 10.0));
    return select(mx_copysign(e / (e + 2.0), x), x, mx_isnan(x) != 0.0);
}",
    ),
    (
        "mx_asinh",
        "fn mx_asinh(x: f32) -> f32 {
    let a = abs(x);
    if (a > 1e9) { return mx_copysign(log(a) + 0.69314718, x); }
    return mx_copysign(mx_log1p(a + a * a / (1.0 + sqrt(a * a + 1.0))), x);
}",
    ),
    (
        "mx_atanh",
        "fn mx_atanh(x: f32) -> f32 {
    let a = abs(x);
    if (a > 1.0) { return mx_bits(0x7fc00000u); }
    if (a == 1.0) { return mx_copysign(mx_bits(0x7f800000u), x); }
    return mx_copysign(0.5 * mx_log1p(2.0 * a / (1.0 - a)), x);
}",
    ),
    (
        "mx_sigmoid",
        "fn mx_sigmoid(x: f32) -> f32 { let e = exp(-abs(x)); return select(1.0, e, x < 0.0) / (1.0 + e); }",
    ),
    (
        "mx_softplus",
        "fn mx_softplus(x: f32) -> f32 { return select(x, 0.0, x < 0.0) + mx_log1p(exp(-abs(x))); }",
    ),
    (
        "mx_erfc_tail",
        // erfc(a) for a >= 1: exp(-a^2) t P(t), t = 1 / (1 + a/2), the fit of math32.
        "fn mx_erfc_tail(a: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.5 * a);
    let p = 0.28300555 + t * (0.26973956 + t * (0.3185305 + t * (-0.052747186
        + t * (0.5105283 + t * (-0.4409834 + t * 0.111969016)))));
    return exp(-a * a) * t * p;
}",
    ),
    (
        "mx_erf",
        "fn mx_erf(x: f32) -> f32 {
    if (mx_isnan(x) != 0.0) { return x; }
    let a = abs(x);
    if (a >= 1.0) { return mx_copysign(1.0 - mx_erfc_tail(min(a, 4.1)), x); }
    let z = x * x;
    return x * 1.1283792 * (1.0 + z * (-1.0 / 3.0 + z * (0.1 + z * (-1.0 / 42.0 + z * (1.0 / 216.0
        + z * (-1.0 / 1320.0 + z * (1.0 / 9360.0 + z * (-1.0 / 75600.0 + z * (1.0 / 685440.0)))))))));
}",
    ),
    (
        "mx_erfinv",
        // Winitzki's start, then Halley steps on what erf is short of the target.
        "fn mx_erfinv(x: f32) -> f32 {
    let a = abs(x);
    if (a > 1.0) { return mx_bits(0x7fc00000u); }
    if (a == 1.0) { return mx_copysign(mx_bits(0x7f800000u), x); }
    if (a < 1e-4) { return x * 0.88622693; }
    let l = mx_log1p(-a) + mx_log1p(a);
    let t = 4.3307467 + 0.5 * l;
    var y = sqrt(-l / 0.147 / (sqrt(t * t - l / 0.147) + t));
    for (var i = 0; i < 2; i++) {
        var short = mx_erf(y) - a;
        if (y >= 1.0) { short = (1.0 - a) - mx_erfc_tail(y); }
        let step = short / (1.1283792 * exp(-y * y));
        y = y - step / (1.0 + y * step);
    }
    return mx_copysign(y, x);
}",
    ),
    (
        "mx_lgamma_right",
        // Stirling's series after eight steps of the recurrence, for x >= 1/2.
        "fn mx_lgamma_right(x: f32) -> f32 {
    if (x > 1e30) { return x * (log(x) - 1.0); }
    var p = 1.0;
    var z = x;
    for (var i = 0; i < 8; i++) { if (z < 8.0) { p = p * z; z = z + 1.0; } }
    let r = 1.0 / z;
    return (z - 0.5) * log(z) - z + 0.9189385 + r * (1.0 / 12.0 - r * r * (1.0 / 360.0)) - log(p);
}",
    ),
    (
        "mx_lgamma",
        "fn mx_lgamma(x: f32) -> f32 {
    if (x >= 0.5) { return mx_lgamma_right(x); }
    let s = abs(mx_sin(3.14159265 * (x - round(x))));
    if (s == 0.0) { return mx_bits(0x7f800000u); }
    return log(3.14159265 / s) - mx_lgamma_right(1.0 - x);
}",
    ),
    (
        "mx_gamma",
        "fn mx_gamma(x: f32) -> f32 {
    if (x >= 0.5) { return exp(mx_lgamma_right(x)); }
    if (x == 0.0) { return mx_copysign(mx_bits(0x7f800000u), x); }
    let fraction = x - round(x);
    if (fraction == 0.0) { return mx_bits(0x7fc00000u); }
    let even = floor(round(x) * 0.5) * 2.0 == round(x);
    let s = mx_sin(3.14159265 * fraction);
    return 3.14159265 / (select(-s, s, even) * exp(mx_lgamma_right(1.0 - x)));
}",
    ),
    (
        "mx_digamma_right",
        "fn mx_digamma_right(x: f32) -> f32 {
    var sum = 0.0;
    var z = x;
    for (var i = 0; i < 6; i++) { if (z < 6.0) { sum = sum - 1.0 / z; z = z + 1.0; } }
    let r = 1.0 / z;
    let q = r * r;
    return sum + log(z) - 0.5 * r - q * (1.0 / 12.0 - q * (1.0 / 120.0 - q * (1.0 / 252.0)));
}",
    ),
    (
        "mx_digamma",
        "fn mx_digamma(x: f32) -> f32 {
    if (x > 0.0) { return mx_digamma_right(x); }
    let fraction = x - round(x);
    if (fraction == 0.0) { return mx_bits(0x7fc00000u); }
    return mx_digamma_right(1.0 - x) - 3.14159265 / mx_tan(3.14159265 * fraction);
}",
    ),
    (
        "mx_pow",
        "fn mx_pow(x: f32, y: f32) -> f32 {
    if (y == 0.0 || x == 1.0) { return 1.0; }
    let a = abs(x);
    let whole = floor(y) == y;
    let odd = whole && floor(y * 0.5) * 2.0 != y;
    if (x < 0.0 && !whole) { return mx_bits(0x7fc00000u); }
    if (a == 0.0 && y < 0.0) { return select(mx_bits(0x7f800000u), mx_copysign(mx_bits(0x7f800000u), x), odd); }
    if (a == 0.0) { return select(0.0, x, odd); }
    var value = 1.0;
    if (whole && abs(y) <= 16.0) {
        // Products keep small whole powers exact.
        for (var i = 0; i < 16; i++) { if (f32(i) < abs(y)) { value = value * a; } }
        if (y < 0.0) { value = 1.0 / value; }
    } else {
        value = exp2(y * log2(a));
    }
    return select(value, -value, odd && x < 0.0);
}",
    ),
    (
        "mx_hypot",
        "fn mx_hypot(a: f32, b: f32) -> f32 {
    let big = max(abs(a), abs(b));
    if (big == 0.0 || mx_isfinite(big) == 0.0) { return big; }
    let x = a / big;
    let y = b / big;
    return big * sqrt(x * x + y * y);
}",
    ),
];

/// The WGSL text of the helper function `name` (`mx_...`).
pub fn wgsl_helper(name: &str) -> Option<&'static str> {
    HELPERS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The helper functions that the given WGSL texts call, and those that these call, each once.
pub fn wgsl_helpers_for(texts: &[&str]) -> String {
    let mut needed: Vec<usize> = Vec::new();
    let mut open: Vec<&str> = texts.to_vec();
    while let Some(text) = open.pop() {
        for (i, (name, helper)) in HELPERS.iter().enumerate() {
            let called = text.match_indices(name).any(|(at, _)| text[at + name.len()..].starts_with('('));
            if called && !needed.contains(&i) {
                needed.push(i);
                open.push(helper);
            }
        }
    }
    needed.sort_unstable();
    needed.iter().map(|i| format!("{}\n", HELPERS[*i].1)).collect()
}
