// Sorts tiles of WIDTH pairs, as many as 1024 hold, by the bitonic network. What is missing in a row's last tile sorts
// last.
var<workgroup> part: array<vec2<u32>, 1024>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = mx_group(group) * (1024u / WIDTH);
    for (var s = local; s < 1024u; s += 256u) {
        let tile = first + s / WIDTH;
        let j = tile % p.tiles * WIDTH + s % WIDTH;
        var v = vec2<u32>(0xffffffffu);
        if (tile < p.count && j < p.size) { v = pair(tile / p.tiles, j); }
        part[s] = v;
    }
    workgroupBarrier();
    for (var k = 2u; k <= WIDTH; k = k * 2u) {
        for (var d = k / 2u; d > 0u; d = d / 2u) {
            for (var t = local; t < 512u; t += 256u) {
                let i = 2u * t - (t & (d - 1u));
                let a = part[i];
                let b = part[i + d];
                let before = a.x < b.x || (a.x == b.x && a.y < b.y);
                if (before != (((i % WIDTH) & k) == 0u)) {
                    part[i] = b;
                    part[i + d] = a;
                }
            }
            workgroupBarrier();
        }
    }
    for (var s = local; s < 1024u; s += 256u) {
        let tile = first + s / WIDTH;
        let i = s % WIDTH;
        let at = tile % p.tiles * p.keep + i;
        if (tile < p.count && i < p.keep && at < p.step) { y[tile / p.tiles * p.step + at] = part[s]; }
    }
}
