// Draws of one element: block k of its own stream, whose counter is (element, number of the draw).
var<private> draw_element: u32;
var<private> draw_number: u32;
fn draw() -> vec4<u32> {
    let words = philox_at(draw_element, (draw_number & 0xfffffu) << 12u);
    draw_number += 1u;
    return words;
}
// 53 bits as a number in (0, 1), rounded.
fn open(low: u32, high: u32) -> f32 {
    return f32(high) * (1.0 / 4294967296.0) + (f32(low >> 11u) + 0.5) * (1.0 / 9007199254740992.0);
}
// Its logarithm. Near 1 it is the complement that is exact.
fn log_open(low: u32, high: u32) -> f32 {
    if (high < 0xc0000000u) { return logarithm(open(low, high)); }
    let t = open(~low, ~high);
    let s = t / (2.0 - t);
    let z = s * s;
    return -2.0 * s * (1.0 + z * (0.33333334 + z * (0.2 + z * (0.14285715 + z * 0.11111111))));
}
fn normal() -> f32 {
    let w = draw();
    return sqrt(-2.0 * log_open(w.x, w.y)) * turned(open(w.z, w.w)).x;
}
// ln(1 + x) - x.
fn log_rest(x: f32) -> f32 {
    if (abs(x) > 0.1) { return logarithm(1.0 + x) - x; }
    let tail = 0.2 + x * (-0.16666667 + x * (0.14285715 + x * (-0.125 + x * 0.11111111)));
    return x * x * (-0.5 + x * (0.33333334 + x * (-0.25 + x * tail)));
}
// Marsaglia and Tsang 2000, as on the host.
fn gamma(alpha: f32) -> f32 {
    if (mx_is_nan(alpha) || alpha <= 0.0) { return mx_nan(); }
    var boost = 1.0;
    var d = alpha - 0.33333334;
    if (alpha < 1.0) {
        let w = draw();
        boost = exp(log_open(w.x, w.y) / alpha);
        d = alpha + 0.6666667;
    }
    let c = 1.0 / sqrt(9.0 * d);
    for (var attempt = 0u; attempt < 256u; attempt++) {
        let x = normal();
        let w = draw();
        let z = c * x;
        if (z <= -1.0) { continue; }
        let v = (1.0 + z) * (1.0 + z) * (1.0 + z);
        // x^2 / 2 + d - d v + d ln v, whose large terms cancel.
        var limit = 0.5 * x * x + d * (3.0 * log_rest(z) - z * z * (3.0 + z));
        if (abs(z) < 0.1) {
            limit = d * z * z * z * z * (-0.75 + z * (0.6 + z * (-0.5 + z * (0.42857143 - z * 0.375))));
        }
        if (log_open(w.x, w.y) < limit) { return d * v * boost; }
    }
    return d * boost;
}
fn exponential() -> f32 {
    let w = draw();
    return -log_open(w.x, w.y);
}
// ln(lam^k e^-lam / k!)
fn log_poisson(k: f32, lam: f32) -> f32 {
    if (k < 10.0) {
        var product = 1.0;
        for (var i = 2.0; i <= k; i += 1.0) { product = product * i; }
        return k * logarithm(lam) - lam - logarithm(product);
    }
    // By Stirling's series, whose large terms cancel.
    let r = 1.0 / k;
    let correction = r * (0.083333336 - r * r * (2.7777778e-3 - r * r * 7.9365080e-4));
    return k * log_rest((lam - k) / k) - 0.5 * logarithm(k) - 0.9189385 - correction;
}
fn poisson(lam: f32) -> f32 {
    if (mx_is_nan(lam) || lam < 0.0) { return mx_nan(); }
    if (lam < 12.0) {
        let w = draw();
        let u = open(w.x, w.y);
        var term = exp(-lam);
        var k = 0.0;
        var below = term;
        // Far out a term moves the sum no more.
        while (u > below && k < 200.0 && !(k > lam && term < 1e-10)) {
            k += 1.0;
            term = term * (lam / k);
            below += term;
        }
        return k;
    }
    // Transformed rejection (Hörmann 1993, PTRS).
    let b = 0.931 + 2.53 * sqrt(lam);
    let a = -0.059 + 0.02483 * b;
    let inverse = 1.1239 + 1.1328 / (b - 3.4);
    let vr = 0.9277 - 3.6224 / (b - 2.0);
    for (var attempt = 0u; attempt < 256u; attempt++) {
        let w = draw();
        let u = open(w.x, w.y) - 0.5;
        let v = open(w.z, w.w);
        let us = 0.5 - abs(u);
        let k = floor((2.0 * a / us + b) * u + lam + 0.43);
        if (us >= 0.07 && v <= vr) { return k; }
        if (k < 0.0 || (us < 0.013 && v > us)) { continue; }
        if (logarithm(v * inverse / (a / (us * us) + b)) <= log_poisson(k, lam)) { return k; }
    }
    return floor(lam);
}
