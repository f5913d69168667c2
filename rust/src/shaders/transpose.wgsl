// A square of 32 x 32 elements per workgroup: read along the source's rows, written along the target's.
// Rows of 33 words keep neighbouring invocations on different banks.
var<workgroup> square: array<u32, 1056>;

@compute @workgroup_size(32, 8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let x_base = p.o_x + group.z * p.x_step_batch;
    let y_base = p.o_y + group.z * p.y_step_batch;
    for (var k = 0u; k < 32u; k += 8u) {
        let a = group.x * 32u + local.x;
        let b = group.y * 32u + local.y + k;
        if (a < p.na && b < p.nb) {
            square[(local.y + k) * 33u + local.x] = x[x_base + a + b * p.x_step_b];
        }
    }
    workgroupBarrier();
    for (var k = 0u; k < 32u; k += 8u) {
        let b = group.y * 32u + local.x;
        let a = group.x * 32u + local.y + k;
        if (a < p.na && b < p.nb) {
            y[y_base + b + a * p.y_step_a] = square[local.x * 33u + local.y + k];
        }
    }
}
