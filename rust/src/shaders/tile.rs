//! The text of tiled products: `c(i, j) = sum over k of a(i, k) * b(k, j)`, for any way of finding a, b and c.
//!
//! A workgroup computes a block of c. Slices of a and b travel through workgroup memory; each invocation keeps a small
//! block of sums in registers, as vectors of four. The next slices are fetched while the current ones are multiplied.
//! Where elements lie is written by the caller as WGSL functions ([`Sides`]): matrices and patches of images differ in
//! nothing else.

use std::fmt::Write;

/// The sizes of a tiling: the block of a workgroup, the depth of a slice, the block of an invocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tile {
    pub rows: usize,
    pub cols: usize,
    pub depth: usize,
    /// Rows and columns of an invocation, multiples of four.
    pub per_row: usize,
    pub per_col: usize,
}

/// The tuning table, large blocks first. Every one fits WebGPU's limits: 256 invocations, 16 KiB of shared memory.
pub const TILES: [Tile; 5] = [
    Tile { rows: 128, cols: 128, depth: 8, per_row: 8, per_col: 8 },
    Tile { rows: 64, cols: 64, depth: 16, per_row: 4, per_col: 4 },
    Tile { rows: 16, cols: 64, depth: 32, per_row: 4, per_col: 4 },
    Tile { rows: 64, cols: 16, depth: 32, per_row: 4, per_col: 4 },
    Tile { rows: 32, cols: 32, depth: 16, per_row: 4, per_col: 4 },
];

/// Workgroups that keep a large device busy.
const BUSY: usize = 128;
/// The shortest sum worth cutting in two.
const LONG: usize = 256;

/// How a product is cut: the place of its tile in [`TILES`], and parts of the sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    pub tile: usize,
    pub splits: usize,
}

impl Tile {
    pub fn invocations(&self) -> usize {
        (self.rows / self.per_row) * (self.cols / self.per_col)
    }
    /// Blocks that cover c.
    pub fn blocks(&self, m: usize, n: usize) -> usize {
        m.div_ceil(self.rows) * n.div_ceil(self.cols)
    }
}

impl Cut {
    /// The largest tile that still gives the device enough to do; sums are cut where even the smallest does not.
    pub fn of(m: usize, n: usize, k: usize, batch: usize, may_split: bool) -> Cut {
        let narrow = if m <= 16 {
            Some(2)
        } else if n <= 16 {
            Some(3)
        } else {
            None
        };
        let enough = |t: &usize| TILES[*t].blocks(m, n) * batch >= BUSY;
        let wasteful = |t: &usize| {
            let tile = TILES[*t];
            tile.blocks(m, n) * tile.rows * tile.cols > 2 * m * n
        };
        let tile =
            narrow.unwrap_or_else(|| [0, 1].into_iter().find(|t| enough(t) && !wasteful(t)).unwrap_or(4));
        let blocks = TILES[tile].blocks(m, n) * batch;
        let splits =
            if may_split && blocks < BUSY { (BUSY / blocks.max(1)).min(k / LONG).clamp(1, 64) } else { 1 };
        Cut { tile, splits }
    }
}

/// Where the elements of a product are, as WGSL.
///
/// `a` defines `struct Row`, `fn a_row(i: u32) -> Row`, `struct AStep`, `fn a_step(k: u32) -> AStep` and
/// `fn a_at(row: Row, step: AStep) -> f32`, which is zero outside; `b` the same with `Col`, `b_col(j)`, `BStep`,
/// `b_step(k)`, `b_at`. `store` defines `fn store(i: u32, j: u32, v: f32)`, which ignores what is outside. All see the
/// private variables `batch` and `split`, and the parameters `m`, `n`, `k`, `splits`, `split_depth`, `first_batch`.
pub struct Sides {
    pub a: String,
    /// Whether neighbours of a in memory follow k (and not i); likewise for b.
    pub a_along_k: bool,
    pub b: String,
    pub b_along_k: bool,
    pub store: String,
}

/// The parameters that every product has, in order.
pub const PARAMS: [&str; 6] = ["m", "n", "k", "splits", "split_depth", "first_batch"];

/// How the elements of a slice are dealt to invocations.
struct Deal {
    /// Elements that each invocation fetches.
    each: usize,
    /// Text of line (row or column of c) and depth of the `l`-th, in terms of `local`.
    line: Vec<String>,
    depth: Vec<String>,
}

impl Deal {
    fn new(lines: usize, depth: usize, threads: usize, along_k: bool) -> Deal {
        let each = lines * depth / threads;
        let inner = if along_k { depth } else { lines };
        let (mut outer_texts, mut inner_texts) = (Vec::new(), Vec::new());
        for l in 0..each {
            // Element local + l * threads of the slice, in the order of memory.
            if threads.is_multiple_of(inner) {
                inner_texts.push(format!("local % {inner}u"));
                outer_texts.push(format!("local / {inner}u + {}u", l * threads / inner));
            } else {
                inner_texts.push(format!("(local + {}u) % {inner}u", l * threads));
                outer_texts.push(format!("(local + {}u) / {inner}u", l * threads));
            }
        }
        match along_k {
            true => Deal { each, line: outer_texts, depth: inner_texts },
            false => Deal { each, line: inner_texts, depth: outer_texts },
        }
    }
}

/// The whole body of a product's shader.
pub fn body(tile: Tile, sides: &Sides) -> String {
    let threads = tile.invocations();
    let Tile { rows, cols, depth, per_row, per_col } = tile;
    let deals = [
        ("a", Deal::new(rows, depth, threads, sides.a_along_k), rows, "a_row", "row0"),
        ("b", Deal::new(cols, depth, threads, sides.b_along_k), cols, "b_col", "col0"),
    ];
    let mut t =
        format!("var<private> batch: u32;\nvar<private> split: u32;\n{}{}{}", sides.a, sides.b, sides.store);
    // A String takes every write.
    let _ = write!(
        t,
        "// Slices, transposed so that neighbours along a line are a vector; a vector is left free behind each depth, so that
// those who store along the depth find different banks.
var<workgroup> slice_a: array<vec4<f32>, {}>;
var<workgroup> slice_b: array<vec4<f32>, {}>;
@compute @workgroup_size({threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {{
    let block = mx_group(group);
    let down = (p.m + {}u) / {rows}u;
    if (block >= down * ((p.n + {}u) / {cols}u)) {{ return; }}
    batch = p.first_batch + group.z / p.splits;
    split = group.z % p.splits;
    let row0 = block % down * {rows}u;
    let col0 = block / down * {cols}u;
    let k_begin = split * p.split_depth;
    let k_end = min(k_begin + p.split_depth, p.k);
    let ty = local / {}u;
    let tx = local % {}u;
",
        (rows / 4 + 1) * depth,
        (cols / 4 + 1) * depth,
        rows - 1,
        cols - 1,
        cols / per_col,
        cols / per_col,
    );
    for (side, deal, _, line, start) in &deals {
        for l in 0..deal.each {
            let _ = writeln!(t, "    let line_{side}{l} = {line}({start} + {});", deal.line[l]);
            let _ = writeln!(t, "    var next_{side}{l} = 0.0;");
        }
    }
    for i in 0..per_row {
        for j in 0..per_col / 4 {
            let _ = writeln!(t, "    var sum{i}_{j} = vec4<f32>();");
        }
    }
    fetch(&mut t, &deals, "k_begin", "    ");
    slices(&mut t, tile, &deals);
    results(&mut t, tile);
    t
}

/// The loop over slices: store what was fetched, fetch what comes next, multiply.
fn slices(t: &mut String, tile: Tile, deals: &[Dealt; 2]) {
    let Tile { rows, cols, depth, per_row, per_col } = tile;
    let _ = writeln!(t, "    for (var k0 = k_begin; k0 < k_end; k0 += {depth}u) {{");
    for (side, deal, lines, _, _) in deals {
        for l in 0..deal.each {
            let (line, at) = (&deal.line[l], &deal.depth[l]);
            let _ = writeln!(
                t,
                "        {{ let line = {line}; slice_{side}[({at}) * {}u + line / 4u][line % 4u] = next_{side}{l}; }}",
                lines / 4 + 1
            );
        }
    }
    let _ = writeln!(t, "        workgroupBarrier();\n        if (k0 + {depth}u < k_end) {{");
    fetch(t, deals, &format!("k0 + {depth}u"), "            ");
    let _ = writeln!(t, "        }}\n        for (var k = 0u; k < {depth}u; k++) {{");
    // An invocation's lines come in runs of four, spread over the block.
    for r in 0..per_row / 4 {
        let _ = writeln!(
            t,
            "            let a{r} = slice_a[k * {}u + {}u + ty];",
            rows / 4 + 1,
            r * rows / per_row
        );
    }
    for c in 0..per_col / 4 {
        let _ = writeln!(
            t,
            "            let b{c} = slice_b[k * {}u + {}u + tx];",
            cols / 4 + 1,
            c * cols / per_col
        );
    }
    for i in 0..per_row {
        for c in 0..per_col / 4 {
            let component = ["x", "y", "z", "w"][i % 4];
            let _ = writeln!(t, "            sum{i}_{c} = a{}.{component} * b{c} + sum{i}_{c};", i / 4);
        }
    }
    t.push_str("        }\n        workgroupBarrier();\n    }\n");
}

/// Statements that store the sums of an invocation, and the end of the function.
fn results(t: &mut String, tile: Tile) {
    let Tile { rows, cols, per_row, per_col, .. } = tile;
    for i in 0..per_row {
        let _ = writeln!(
            t,
            "    {{\n        let i = row0 + {}u + ty * 4u;",
            (i / 4) * (rows * 4 / per_row) + i % 4
        );
        for c in 0..per_col / 4 {
            let _ = writeln!(t, "        let j{c} = col0 + {}u + tx * 4u;", c * (cols * 4 / per_col));
            for (q, component) in ["x", "y", "z", "w"].iter().enumerate() {
                let _ = writeln!(t, "        store(i, j{c} + {q}u, sum{i}_{c}.{component});");
            }
        }
        t.push_str("    }\n");
    }
    t.push_str("}\n");
}

/// The body for products of a few rows: an invocation for each element of c, neighbours along j.
pub fn dot_body(sides: &Sides) -> String {
    format!(
        "var<private> batch: u32;\nvar<private> split: u32;\n{}{}{}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {{
    let e = mx_group(group) * 64u + local;
    if (e >= p.m * p.n) {{ return; }}
    batch = p.first_batch + group.z;
    let i = e / p.n;
    let j = e % p.n;
    let row = a_row(i);
    let col = b_col(j);
    var sum = 0.0;
    for (var k = 0u; k < p.k; k++) {{ sum += a_at(row, a_step(k)) * b_at(col, b_step(k)); }}
    store(i, j, sum);
}}
",
        sides.a, sides.b, sides.store
    )
}

/// The body for products of few elements and long sums: a workgroup for each element of c.
pub fn sum_body(sides: &Sides) -> String {
    format!(
        "var<private> batch: u32;\nvar<private> split: u32;\n{}{}{}
var<workgroup> parts: array<f32, 256>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {{
    let e = mx_group(group);
    if (e >= p.m * p.n) {{ return; }}
    batch = p.first_batch + group.z;
    let row = a_row(e / p.n);
    let col = b_col(e % p.n);
    var sum = 0.0;
    for (var k = local; k < p.k; k += 256u) {{ sum += a_at(row, a_step(k)) * b_at(col, b_step(k)); }}
    parts[local] = sum;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half = half / 2u) {{
        if (local < half) {{ parts[local] += parts[local + half]; }}
        workgroupBarrier();
    }}
    if (local == 0u) {{ store(e / p.n, e % p.n, parts[0]); }}
}}
",
        sides.a, sides.b, sides.store
    )
}

type Dealt<'a> = (&'a str, Deal, usize, &'a str, &'a str);

/// Statements that fetch the slices that begin at depth `from`.
fn fetch(t: &mut String, deals: &[Dealt; 2], from: &str, indent: &str) {
    for (side, deal, ..) in deals {
        for l in 0..deal.each {
            let k = format!("{from} + {}", deal.depth[l]);
            let _ = writeln!(
                t,
                "{indent}next_{side}{l} = 0.0;\n{indent}if ({k} < k_end) {{ next_{side}{l} = {side}_at(line_{side}{l}, {side}_step({k})); }}"
            );
        }
    }
}
