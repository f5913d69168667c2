// One sample per workgroup. Barriers stand where every invocation comes: what a shorter sample leaves out is inside.
const NONE = -1e30;
var<workgroup> size: u32;
var<workgroup> end: u32;
var<workgroup> likelihood: f32;
fn log_add(a: f32, b: f32) -> f32 {
    let high = max(a, b);
    if (high <= -1e29) { return NONE; }
    return high + log(1.0 + exp(min(a, b) - high));
}
fn symbol_at(sample: u32, i: u32) -> u32 {
    if ((i & 1u) == 0u) { return p.blank; }
    return u32(labels[sample * p.width + i / 2u]);
}
// Whether place i may be reached over the blank before it.
fn skips(sample: u32, i: u32) -> bool {
    if (i < 2u || (i & 1u) == 0u) { return false; }
    let symbol = symbol_at(sample, i);
    return symbol != p.blank && symbol != symbol_at(sample, i - 2u);
}
// The label's length and the sample's steps; no steps where a class does not exist.
fn measure(sample: u32) {
    var count = u32(clamp(lengths[p.batch + sample], 0, i32(p.width)));
    if (p.given == 0u) {
        count = 0u;
        let padding = select(-1, 0, p.blank == 0u);
        while (count < p.width && labels[sample * p.width + count] != padding) { count += 1u; }
    }
    var steps = u32(clamp(lengths[sample], 0, i32(p.steps)));
    for (var i = 0u; i < count; i++) {
        let symbol = labels[sample * p.width + i];
        if (symbol < 0 || symbol >= i32(p.classes)) { steps = 0u; }
    }
    size = 2u * count + 1u;
    end = steps;
}
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let live = mx_group(group) < p.batch;
    let sample = min(mx_group(group), p.batch - 1u);
    let path = 2u * p.width + 1u;
    let a0 = sample * p.steps * path;
    if (local == 0u) { measure(sample); }
    workgroupBarrier();
    for (var t = 0u; t < p.steps; t++) {
        if (live && t < end) {
            let now = a0 + t * path;
            for (var i = local; i < size; i += 256u) {
                var a = select(NONE, 0.0, i < 2u);
                if (t > 0u) {
                    let before = now - path;
                    a = alpha[before + i];
                    if (i > 0u) { a = log_add(a, alpha[before + i - 1u]); }
                    if (skips(sample, i)) { a = log_add(a, alpha[before + i - 2u]); }
                }
                alpha[now + i] = max(a + logs[(t * p.batch + sample) * p.classes + symbol_at(sample, i)], NONE);
            }
        }
        storageBarrier();
        workgroupBarrier();
    }
    if (local == 0u) {
        likelihood = NONE;
        if (end > 0u) {
            let last = a0 + (end - 1u) * path + size - 1u;
            likelihood = alpha[last];
            if (size > 1u) { likelihood = log_add(likelihood, alpha[last - 1u]); }
        }
        if (likelihood <= -1e29) { end = 0u; }
        if (live) {
            loss[sample] = select(-likelihood, 0.0, end == 0u);
            lengths[sample] = i32(end);
            lengths[p.batch + sample] = i32(size / 2u);
        }
    }
    workgroupBarrier();
    if (p.back == 0u) { return; }
    let b0 = sample * 2u * path;
    for (var back = 0u; back < p.steps; back++) {
        let t = p.steps - 1u - back;
        if (live && t < end) {
            for (var i = local; i < size; i += 256u) {
                var b = select(NONE, 0.0, i + 2u >= size);
                if (t + 1u < end) { b = beta[b0 + i]; }
                let at = a0 + t * path + i;
                alpha[at] = exp(alpha[at] + b - likelihood);
                beta[b0 + path + i] = max(b + logs[(t * p.batch + sample) * p.classes + symbol_at(sample, i)], NONE);
            }
        }
        storageBarrier();
        workgroupBarrier();
        if (live && t < end) {
            for (var i = local; i < size; i += 256u) {
                let after = b0 + path + i;
                var b = beta[after];
                if (i + 1u < size) { b = log_add(b, beta[after + 1u]); }
                if (i + 2u < size && skips(sample, i + 2u)) { b = log_add(b, beta[after + 2u]); }
                beta[b0 + i] = b;
            }
        }
        storageBarrier();
        workgroupBarrier();
    }
}
