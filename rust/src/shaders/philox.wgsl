// Words of block `number` of the stream. A shader has no 64-bit product: its upper half is made of products of halves.
fn high_product(a: u32, b: u32) -> u32 {
    let al = a & 0xffffu;
    let ah = a >> 16u;
    let bl = b & 0xffffu;
    let bh = b >> 16u;
    let middle = ah * bl + ((al * bl) >> 16u);
    let other = al * bh + (middle & 0xffffu);
    return ah * bh + (middle >> 16u) + (other >> 16u);
}
fn philox(number: u32) -> vec4<u32> { return philox_at(number, 0u); }
fn philox_at(low: u32, high: u32) -> vec4<u32> {
    var c = vec4<u32>(low, high, p.offset0, p.offset1);
    var key = vec2<u32>(p.seed0, p.seed1);
    for (var i = 0u; i < 10u; i++) {
        let p0 = 0xd2511f53u * c.x;
        let p1 = 0xcd9e8d57u * c.z;
        let h0 = high_product(0xd2511f53u, c.x);
        let h1 = high_product(0xcd9e8d57u, c.z);
        c = vec4<u32>(h1 ^ c.y ^ key.x, p1, h0 ^ c.w ^ key.y, p0);
        key = key + vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return c;
}
// 24 bits as a number in [0, 1).
fn unit(word: u32) -> f32 { return f32(word >> 8u) * (1.0 / 16777216.0); }
