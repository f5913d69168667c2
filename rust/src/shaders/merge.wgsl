// One pass of a stable merge sort of pairs by their first number: neighbouring runs of `run` pairs become one. Among
// equals those of the left run come first.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let e = mx_group(group) * 256u + local;
    if (e >= p.n) { return; }
    let mine = e / p.run;
    let right = (mine & 1u) == 1u;
    let first = mine * p.run;
    let other = select(first + p.run, first - p.run, right);
    let pair = x[e];
    // How many of the other run stand before this pair.
    var low = min(other, p.n);
    let start = low;
    var high = min(low + p.run, p.n);
    while (low < high) {
        let middle = low + (high - low) / 2u;
        let key = x[middle].x;
        if (key < pair.x || (right && key == pair.x)) { low = middle + 1u; } else { high = middle; }
    }
    y[min(first, other) + (e - first) + (low - start)] = pair;
}
