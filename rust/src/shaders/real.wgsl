// The host's logarithm, sine and cosine (`mxrs_kernels::real`): those of a shading language may be coarse.
fn logarithm(x: f32) -> f32 {
    let bits = bitcast<u32>(x) - 0x3f3504f3u;
    let e = f32(bitcast<i32>(bits) >> 23u);
    let f = bitcast<f32>((bits & 0x007fffffu) + 0x3f3504f3u) - 1.0;
    let s = f / (f + 2.0);
    let z = s * s;
    let series = z * (0.6666667 + z * (0.4 + z * (0.2857143 + z * 0.2222222)));
    return e * 0.6933594 + (f - s * (f - series) + e * -2.1219444e-4);
}
// Cosine and sine of so many turns, in [0, 1].
fn turned(turns: f32) -> vec2<f32> {
    let t = turns * 4.0;
    let whole = round(t);
    let x = (t - whole) * 1.5707964;
    let z = x * x;
    let s = x + x * z * (-0.16666667 + z * (8.333333e-3 + z * (-1.984127e-4 + z * 2.755732e-6)));
    let c = 1.0 + z * (-0.5 + z * (4.1666668e-2 + z * (-1.3888889e-3 + z * 2.4801587e-5)));
    switch u32(whole) & 3u {
        case 0u: { return vec2<f32>(c, s); }
        case 1u: { return vec2<f32>(-s, c); }
        case 2u: { return vec2<f32>(-c, -s); }
        default: { return vec2<f32>(s, -c); }
    }
}
