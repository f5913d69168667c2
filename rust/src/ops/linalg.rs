//! Matrix products: fully connected layers, dot, batched and scaled products.
//!
//! Every gradient of a product is a product of the same family with other transposition flags, so derivatives of any
//! order exist. Factorisations, triangles and diagonals are in `factor`.

use super::registry::Registry;
use super::{
    Attrs, Build, Ctx, GpuCtx, GradArgs, Grads, Sig, Spec, Specs, Value, draw, flag, float, int, one,
};
use crate::shaders::copy::launch_cast;
use crate::shaders::epilogue::{Bias, Epilogue};
use crate::shaders::matmul::{self, launch_matmul};
use mxrs_base::{AttrValue, DType, Error, Result, Shape, f16};
use mxrs_kernels::conv::in_parts;
use mxrs_kernels::gemm::{Gemm, Product, batch_gemm, gemm, gemm_then};

/// Multiply-adds of one core in a nanosecond, counted as two operations each.
const FLOPS_PER_NS: f64 = 30.0;

/// Runs `$body` with `$T` standing for the type of `$dtype` where products exist in it.
macro_rules! dispatch_gemm {
    ($c:expr, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            DType::Bool => $c.bad_dtype(DType::Bool),
            DType::F32 => dispatch_gemm!(@ f32, $T, $body),
            DType::F64 => dispatch_gemm!(@ f64, $T, $body),
            DType::F16 => dispatch_gemm!(@ f16, $T, $body),
            DType::U8 => dispatch_gemm!(@ u8, $T, $body),
            DType::I8 => dispatch_gemm!(@ i8, $T, $body),
            DType::I32 => dispatch_gemm!(@ i32, $T, $body),
            DType::I64 => dispatch_gemm!(@ i64, $T, $body),
        }
    };
    (@ $Type:ty, $T:ident, $body:expr) => {{
        type $T = $Type;
        $body
    }};
}

pub fn register(r: &mut Registry) {
    dot(r);
    batch_dot(r);
    scaled_products(r);
    symmetric_product(r);
    khatri_rao(r);
}

/// Nanoseconds of a product on one core.
pub(super) fn product_cost(m: usize, n: usize, k: usize) -> f64 {
    let (m, n, k) = (m as f64, n as f64, k as f64);
    2.0 * m * n * k / FLOPS_PER_NS + (m * k + k * n + m * n) * 0.1 + 100.0
}

/// One input's gradient, when it is wanted.
pub(super) fn wanted(g: &GradArgs, i: usize, make: impl FnOnce() -> Result<Value>) -> Result<Option<Value>> {
    if g.need.get(i).copied().unwrap_or(false) { make().map(Some) } else { Ok(None) }
}

/// Sets shape `i` where it is asked for and unknown.
pub(super) fn fill(shapes: &mut [Option<Shape>], i: usize, make: impl FnOnce() -> Shape) {
    if let Some(slot @ None) = shapes.get_mut(i) {
        *slot = Some(make());
    }
}

/// The product operator `name` of two values with their transposition flags.
pub(super) fn product(
    b: &mut dyn Build,
    name: &str,
    (x, tx): (Value, bool),
    (y, ty): (Value, bool),
) -> Result<Value> {
    b.op1(name, &[x, y], &[("transpose_a", tx.into()), ("transpose_b", ty.into())])
}

// ---- dot ----

const STORAGE: &[&str] = &["default", "row_sparse", "csr"];

fn transposition() -> [super::Param; 3] {
    [
        flag("transpose_a", "transpose the first operand").or(false),
        flag("transpose_b", "transpose the second operand").or(false),
        super::choice("forward_stype", STORAGE, "storage of the result; arrays are dense").or_none(),
    ]
}

fn dot(r: &mut Registry) {
    r.op("dot", "The product over the last axis of lhs and the first of rhs; two vectors give shape (1,).")
        .input("lhs", "(m..., k); with `transpose_a` (k, m...)")
        .input("rhs", "(k, n...); with `transpose_b` (n..., k)")
        .params(transposition())
        .alias(&["_sparse_dot"])
        .method(&["dot"])
        .infer(dot_infer)
        .kernel(|c| {
            let p = flat_product(c.attrs, c.shape(0), c.shape(1));
            dispatch_gemm!(c, c.dtype(0), T => {
                let (a, b, y, finish) = (c.x::<T>(0), c.x::<T>(1), c.y::<T>(0), c.finish());
                gemm_then(&p, unit::<T>(), a, b, T::default(), y, &|rows, cols| {
                    rows.map(|row| row * p.n).for_each(|row| finish(row + cols.start..row + cols.end));
                });
                Ok(())
            })
        })
        .finishes()
        .gpu(|c| {
            let p = on_gpu(&flat_product(c.attrs, c.shape(0), c.shape(1)), 1);
            launch_matmul(c.device, &p, c.x(0), c.x(1), c.y(0), &c.epilogue(Bias::None), c.op.name)
        })
        .cost(|s, _| {
            let p = flat_product(s.attrs, s.shape(0), s.shape(1));
            product_cost(p.m, p.n, p.k)
        })
        .keeps(&[0, 1], &[])
        .grad(dot_grad)
        .sample(&[draw(&[2, 3]), draw(&[3, 4])], &[])
        .sample(
            &[draw(&[3, 2, 2]), draw(&[4, 3])],
            &[("transpose_a", true.into()), ("transpose_b", true.into())],
        )
        .sample(&[draw(&[3]), draw(&[3])], &[]);
}

/// The same product, `batch` times, in the terms of a GPU.
fn on_gpu(p: &Product, batch: usize) -> matmul::Product {
    matmul::Product::dense(p.transa, p.transb, p.m, p.n, p.k, batch)
}

/// Which axis of an operand of `dot` is summed: the last of lhs and the first of rhs, exchanged by transposing. A
/// vector has one axis however it is turned.
fn dot_axes(attrs: &Attrs, lhs: &Shape, rhs: &Shape) -> (usize, usize) {
    let (ta, tb) = (attrs.bool("transpose_a"), attrs.bool("transpose_b"));
    let last = |s: &Shape| s.ndim().saturating_sub(1);
    (if ta { 0 } else { last(lhs) }, if tb { last(rhs) } else { 0 })
}

fn dot_infer(s: &Sig) -> Result<Specs> {
    let dtype = s.one_dtype()?;
    if dtype == DType::Bool {
        return Err(s.fail("arrays of bool have no product; cast them to a numeric type"));
    }
    s.expect_ndim(0, 1..=Shape::MAX_NDIM)?;
    s.expect_ndim(1, 1..=Shape::MAX_NDIM)?;
    let (a, b) = dot_axes(s.attrs, s.shape(0), s.shape(1));
    if s.shape(0)[a] != s.shape(1)[b] {
        return Err(s.fail(format!(
            "axis {a} of lhs has {} elements and axis {b} of rhs has {}; they must be equal",
            s.shape(0)[a],
            s.shape(1)[b]
        )));
    }
    let mut out = s.shape(0).clone();
    out.remove(a);
    let mut right = s.shape(1).clone();
    right.remove(b);
    right.iter().for_each(|d| out.push(*d));
    if out.ndim() == 0 {
        out.push(1);
    }
    out.checked_size()?;
    s.shaped(out)
}

/// `dot` as a product of matrices: the axes that are not summed are joined.
fn flat_product(attrs: &Attrs, lhs: &Shape, rhs: &Shape) -> Product {
    let (a, b) = dot_axes(attrs, lhs, rhs);
    let others = |s: &Shape, axis: usize| {
        s.iter().enumerate().filter(|(i, _)| *i != axis).map(|(_, d)| d).product::<usize>()
    };
    // A flag on a vector changes nothing, and the matrix it is taken for is a row or a column as fits.
    let ta = attrs.bool("transpose_a") && lhs.ndim() > 1;
    let tb = attrs.bool("transpose_b") && rhs.ndim() > 1;
    Product::dense(ta, tb, others(lhs, a), others(rhs, b), lhs[a])
}

fn dot_grad(b: &mut dyn Build, g: &GradArgs) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let (lhs, rhs) = (b.shape(g.ins[0]).clone(), b.shape(g.ins[1]).clone());
    let p = flat_product(g.attrs, &lhs, &rhs);
    let pair = |rows, cols, turned: bool| Shape::new(&if turned { [cols, rows] } else { [rows, cols] });
    let head = b.reshape(head, &Shape::new(&[p.m, p.n]))?;
    let mut grads = g.none();
    grads[0] = wanted(g, 0, || {
        let right = b.reshape(g.ins[1], &pair(p.k, p.n, p.transb))?;
        let grad = left_grad(b, "dot", (p.transa, p.transb), head, right)?;
        b.reshape(grad, &lhs)
    })?;
    grads[1] = wanted(g, 1, || {
        let left = b.reshape(g.ins[0], &pair(p.m, p.k, p.transa))?;
        let grad = right_grad(b, "dot", (p.transa, p.transb), head, left)?;
        b.reshape(grad, &rhs)
    })?;
    Ok(grads)
}

/// The gradient of `op(A) op(B)` with respect to A.
fn left_grad(
    b: &mut dyn Build,
    name: &str,
    (ta, tb): (bool, bool),
    head: Value,
    right: Value,
) -> Result<Value> {
    if ta {
        product(b, name, (right, tb), (head, true))
    } else {
        product(b, name, (head, false), (right, !tb))
    }
}

/// The gradient of `op(A) op(B)` with respect to B.
fn right_grad(
    b: &mut dyn Build,
    name: &str,
    (ta, tb): (bool, bool),
    head: Value,
    left: Value,
) -> Result<Value> {
    if tb { product(b, name, (head, true), (left, ta)) } else { product(b, name, (left, !ta), (head, false)) }
}

fn unit<T: Gemm>() -> T {
    T::from_f64(1.0)
}

// ---- batched products ----

fn batch_dot(r: &mut Registry) {
    r.op("batch_dot", "The matrix products of two equally long stacks of matrices.")
        .input("lhs", "(..., m, k); with `transpose_a` (..., k, m)")
        .input("rhs", "(..., k, n); with `transpose_b` (..., n, k); the axes in front equal those of lhs")
        .params(transposition())
        .alias(&["_npx_batch_dot"])
        .infer(|s| {
            s.expect_ndim(0, 3..=Shape::MAX_NDIM)?;
            let dims = Stack::of(s, 0, 1)?;
            s.shaped(dims.shape(s.shape(0)))
        })
        .kernel(|c| {
            Stack::of(&sig_of(c).borrow(), 0, 1)?.run(c, 1.0, None)?;
            in_parts(c.out_shape(0).size(), &c.finish());
            Ok(())
        })
        .finishes()
        .gpu(|c| {
            // The axes in front of the rows: nothing lies between rows and columns.
            let stack = Stack::of_gpu(c)?;
            let p = on_gpu(&stack.product, stack.outer);
            launch_matmul(c.device, &p, c.x(0), c.x(1), c.y(0), &c.epilogue(Bias::None), c.op.name)
        })
        .cost(stack_cost)
        .keeps(&[0, 1], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let flags = (g.attrs.bool("transpose_a"), g.attrs.bool("transpose_b"));
            let mut grads = g.none();
            grads[0] = wanted(g, 0, || left_grad(b, "batch_dot", flags, head, g.ins[1]))?;
            grads[1] = wanted(g, 1, || right_grad(b, "batch_dot", flags, head, g.ins[0]))?;
            Ok(grads)
        })
        .sample(&[draw(&[2, 2, 3]), draw(&[2, 3, 2])], &[])
        .sample(
            &[draw(&[2, 3, 2]), draw(&[2, 4, 3])],
            &[("transpose_a", true.into()), ("transpose_b", true.into())],
        );
}

/// The inputs' shapes and types of a run, for rules shared with inference.
struct OwnedSig<'a, 'b> {
    c: &'b Ctx<'a>,
    ins: Vec<&'a Spec>,
}

impl OwnedSig<'_, '_> {
    fn borrow(&self) -> Sig<'_> {
        Sig { op: self.c.op, attrs: self.c.attrs, ins: &self.ins }
    }
}

fn sig_of<'a, 'b>(c: &'b Ctx<'a>) -> OwnedSig<'a, 'b> {
    OwnedSig { c, ins: c.ins.iter().map(|v| v.spec).collect() }
}

/// Stacks of matrices whose rows run along one axis and whose columns along the last; `inner` matrices lie between
/// one row of a matrix and its next, `outer` such groups behind one another.
struct Stack {
    row_axis: usize,
    outer: usize,
    inner: usize,
    product: Product,
}

impl Stack {
    /// The product of inputs `i` and `j`, checked.
    fn of(s: &Sig, i: usize, j: usize) -> Result<Stack> {
        if s.one_dtype()? == DType::Bool {
            return Err(s.fail("arrays of bool have no product; cast them to a numeric type"));
        }
        s.expect_ndim(i, 2..=Shape::MAX_NDIM)?;
        let (lhs, rhs) = (s.shape(i), s.shape(j));
        let row_axis = match s.op.param_index("axis") {
            Some(_) => s.axis(i, s.attrs.int("axis"))?,
            None => lhs.ndim() - 2,
        };
        let last = lhs.ndim() - 1;
        if row_axis == last {
            return Err(
                s.fail("argument axis names the last axis, which holds the columns; any other is allowed")
            );
        }
        let fits = rhs.ndim() == lhs.ndim() && (0..last).all(|d| d == row_axis || lhs[d] == rhs[d]);
        if !fits {
            return Err(s.fail("the operands must have equal axes but for those of rows and columns"));
        }
        let turned = |name: &str, shape: &Shape| {
            let (rows, cols) = (shape[row_axis], shape[last]);
            if s.attrs.bool(name) { (cols, rows) } else { (rows, cols) }
        };
        let ((m, k), (k2, n)) = (turned("transpose_a", lhs), turned("transpose_b", rhs));
        if k != k2 {
            return Err(s.fail(format!("the summed axes have {k} and {k2} elements; they must be equal")));
        }
        let inner: usize = lhs[row_axis + 1..last].iter().product();
        let mut product = Product::dense(s.attrs.bool("transpose_a"), s.attrs.bool("transpose_b"), m, n, k);
        product.lda *= inner;
        product.ldb *= inner;
        product.ldc *= inner;
        Ok(Stack { row_axis, outer: lhs[..row_axis].iter().product(), inner, product })
    }

    /// The result's shape.
    fn shape(&self, lhs: &Shape) -> Shape {
        let mut out = lhs.clone();
        out.set(self.row_axis, self.product.m);
        out.set(lhs.ndim() - 1, self.product.n);
        out
    }

    fn of_gpu(c: &GpuCtx) -> Result<Stack> {
        let ins: Vec<&Spec> = c.ins.iter().map(|v| v.spec).collect();
        Stack::of(&Sig { op: c.op, attrs: c.attrs, ins: &ins }, 0, 1)
    }

    /// `output = alpha * op(A) op(B) + beta * output` on a GPU.
    fn run_on_gpu(&self, c: &GpuCtx, alpha: f64, beta: f64) -> Result<()> {
        let p = &self.product;
        let sizes = [p.m * p.k, p.k * p.n, p.m * p.n];
        // One after the other where nothing lies between rows, side by side where whole rows of others do.
        let columns = [if p.transa { p.m } else { p.k }, if p.transb { p.k } else { p.n }, p.n];
        let (times, batch, steps) =
            if self.inner == 1 { (1, self.outer, sizes) } else { (self.outer, self.inner, columns) };
        let turned = |lead: usize, transposed: bool| if transposed { (1, lead) } else { (lead, 1) };
        let ((am, ak), (bk, bn)) = (turned(p.lda, p.transa), turned(p.ldb, p.transb));
        let (a, b, to) = ([am, ak, steps[0]], [bk, bn, steps[1]], [p.ldc, 1, steps[2]]);
        let product = matmul::Product { m: p.m, n: p.n, k: p.k, batch, a, b, c: to };
        let epilogue = Epilogue { alpha: alpha as f32, beta: beta as f32, ..Epilogue::NONE };
        for i in 0..times {
            let (mut a, mut b, mut to) = (c.x(0), c.x(1), c.y(0));
            for (span, size) in [&mut a, &mut b, &mut to].into_iter().zip(sizes) {
                span.offset += i * batch * size;
            }
            launch_matmul(c.device, &product, a, b, to, &epilogue, c.op.name)?;
        }
        Ok(())
    }

    /// `output = alpha * op(A) op(B)`, plus `beta` times the third input where there is one.
    fn run(&self, c: &Ctx, alpha: f64, beta: Option<f64>) -> Result<()> {
        dispatch_gemm!(c, c.dtype(0), T => {
            let number = |v: f64| <T as mxrs_base::Elem>::from_f64(v);
            let out = c.y::<T>(0);
            if beta.is_some() {
                out.copy_from_slice(c.x::<T>(2));
            }
            self.multiply(number(alpha), c.x::<T>(0), c.x::<T>(1), number(beta.unwrap_or(0.0)), out);
            Ok(())
        })
    }

    fn multiply<T: Gemm>(&self, alpha: T, a: &[T], b: &[T], beta: T, c: &mut [T]) {
        let p = &self.product;
        let lengths = (p.m * p.k, p.k * p.n, p.m * p.n);
        if self.inner == 1 {
            return batch_gemm(self.outer, p, alpha, (a, b), beta, c, lengths);
        }
        if self.inner == 0 || lengths.2 == 0 {
            return;
        }
        let (a_cols, b_cols) = (if p.transa { p.m } else { p.k }, if p.transb { p.k } else { p.n });
        for outer in 0..self.outer {
            let base = |length: usize, cols: usize, i: usize| outer * self.inner * length + i * cols;
            for i in 0..self.inner {
                let a = &a[base(lengths.0, a_cols, i)..];
                let b = &b[base(lengths.1, b_cols, i)..];
                gemm(p, alpha, a, b, beta, &mut c[base(lengths.2, p.n, i)..]);
            }
        }
    }
}

fn stack_cost(s: &Sig, _: &[Spec]) -> f64 {
    Stack::of(s, 0, 1)
        .map_or(0.0, |d| (d.outer * d.inner) as f64 * product_cost(d.product.m, d.product.n, d.product.k))
}

fn scaled_products(r: &mut Registry) {
    let flags = || {
        [
            flag("transpose_a", "transpose the matrices of A").or(false),
            flag("transpose_b", "transpose the matrices of B").or(false),
            float("alpha", "factor of the product").or(1.0),
        ]
    };
    let axis = || int("axis", "the axis of the rows; the last holds the columns").or(-2i64);
    r.op("_linalg_gemm2", "alpha * op(A) op(B) for stacks of matrices.")
        .input("A", "(..., m, k); with `transpose_a` (..., k, m)")
        .input("B", "(..., k, n); with `transpose_b` (..., n, k)")
        .params(flags())
        .param(axis())
        .alias(&["linalg_gemm2"])
        .infer(|s| {
            let dims = Stack::of(s, 0, 1)?;
            s.shaped(dims.shape(s.shape(0)))
        })
        .kernel(|c| Stack::of(&sig_of(c).borrow(), 0, 1)?.run(c, c.attrs.float("alpha"), None))
        .gpu(|c| Stack::of_gpu(c)?.run_on_gpu(c, c.attrs.float("alpha"), 0.0))
        .cost(stack_cost)
        .keeps(&[0, 1], &[])
        .grad(|b, g| {
            let mut grads = g.none();
            gemm_grads(b, g, &mut grads)?;
            Ok(grads)
        })
        .sample(&[draw(&[2, 3]), draw(&[3, 2])], &[("alpha", 1.5.into())])
        .sample(
            &[draw(&[2, 3, 2]), draw(&[2, 4, 3])],
            &[("transpose_a", true.into()), ("transpose_b", true.into())],
        )
        .sample(&[draw(&[2, 3, 4]), draw(&[4, 3, 2])], &[("axis", 0i64.into())]);
    r.op("_linalg_gemm", "alpha * op(A) op(B) + beta * C for stacks of matrices.")
        .input("A", "(..., m, k); with `transpose_a` (..., k, m)")
        .input("B", "(..., k, n); with `transpose_b` (..., n, k)")
        .input("C", "(..., m, n)")
        .params(flags())
        .param(float("beta", "factor of C").or(1.0))
        .param(axis())
        .alias(&["linalg_gemm"])
        .infer(|s| {
            let shape = Stack::of(s, 0, 1)?.shape(s.shape(0));
            s.expect_shape(2, &shape)?;
            s.shaped(shape)
        })
        .kernel(|c| {
            Stack::of(&sig_of(c).borrow(), 0, 1)?.run(c, c.attrs.float("alpha"), Some(c.attrs.float("beta")))
        })
        .gpu(|c| {
            launch_cast(c.device, c.out_shape(0).size(), c.x(2), c.y(0), c.op.name)?;
            Stack::of_gpu(c)?.run_on_gpu(c, c.attrs.float("alpha"), c.attrs.float("beta"))
        })
        .cost(stack_cost)
        .keeps(&[0, 1], &[])
        .grad(|b, g| {
            let mut grads = g.none();
            gemm_grads(b, g, &mut grads)?;
            if let (Some(head), true) = (g.heads[0], g.need[2]) {
                grads[2] = Some(b.scale(head, g.attrs.float("beta"))?);
            }
            Ok(grads)
        })
        .sample(
            &[draw(&[2, 3]), draw(&[3, 2]), draw(&[2, 2])],
            &[("alpha", 1.5.into()), ("beta", 0.5.into())],
        );
}

/// The gradients of `alpha * op(A) op(B)`.
fn gemm_grads(b: &mut dyn Build, g: &GradArgs, grads: &mut Grads) -> Result<()> {
    let Some(head) = g.heads[0] else { return Ok(()) };
    let (ta, tb) = (g.attrs.bool("transpose_a"), g.attrs.bool("transpose_b"));
    let mut call = |(x, tx): (Value, bool), (y, ty): (Value, bool)| {
        let flags = [("transpose_a", tx.into()), ("transpose_b", ty.into())];
        let copied = ["alpha", "axis"].map(|name| (name, g.attrs.get(name).clone()));
        b.op1("_linalg_gemm2", &[x, y], &[&flags[..], &copied[..]].concat())
    };
    let (left, right) = (g.ins[0], g.ins[1]);
    if g.need[0] {
        grads[0] =
            Some(if ta { call((right, tb), (head, true)) } else { call((head, false), (right, !tb)) }?);
    }
    if g.need[1] {
        grads[1] = Some(if tb { call((head, true), (left, ta)) } else { call((left, !ta), (head, false)) }?);
    }
    Ok(())
}

fn symmetric_product(r: &mut Registry) {
    r.op("_linalg_syrk", "alpha * A A^T, or alpha * A^T A with `transpose`, for stacks of matrices.")
        .input("A", "(..., m, n)")
        .param(flag("transpose", "multiply the transpose by the matrix").or(false))
        .param(float("alpha", "factor of the product").or(1.0))
        .alias(&["linalg_syrk"])
        .compose(|b, a, x| {
            let turned = a.bool("transpose");
            let attrs: [(&str, AttrValue); 3] = [
                ("transpose_a", turned.into()),
                ("transpose_b", (!turned).into()),
                ("alpha", a.get("alpha").clone()),
            ];
            b.op("_linalg_gemm2", &[x[0], x[0]], &attrs)
        })
        .sample(&[draw(&[2, 3])], &[("alpha", 1.5.into())])
        .sample(&[draw(&[2, 3, 2])], &[("transpose", true.into())]);
}

fn khatri_rao(r: &mut Registry) {
    r.op("khatri_rao", "The Kronecker products of equal columns of matrices.")
        .variadic("args", "matrices (rows, columns) of one number of columns", "num_args")
        .param(int("num_args", "how many matrices").or(1i64).at_least(1.0))
        .compose(|b, _, x| {
            // Refused before the first product is computed: the last may be the one that is too large.
            let results = khatri_rao_shapes(b, x).map_err(|e| e.within("khatri_rao"))?;
            let mut product = x[0];
            for (&next, result) in x[1..].iter().zip(&results) {
                let (left, right) = (b.shape(product).clone(), b.shape(next).clone());
                let over = b.reshape(product, &Shape::new(&[left[0], 1, left[1]]))?;
                let under = b.reshape(next, &Shape::new(&[1, right[0], right[1]]))?;
                let all = b.mul(over, under)?;
                product = b.reshape(all, result)?;
            }
            Ok(one(product))
        })
        .sample(&[draw(&[2, 2]), draw(&[3, 2])], &[("num_args", 2i64.into())]);
}

/// The shapes of the products of the first two matrices, the first three, and so on.
fn khatri_rao_shapes(b: &dyn Build, x: &[Value]) -> Result<Vec<Shape>> {
    let Some(first) = x.first().map(|v| b.spec(*v).clone()) else {
        return Err(Error::op("no matrix was given; 1 or more are allowed"));
    };
    if first.shape.ndim() != 2 {
        return Err(Error::op(format!("args0 has shape {}; two dimensions are allowed", first.shape)));
    }
    let (mut rows, columns) = (first.shape[0], first.shape[1]);
    let mut results = Vec::with_capacity(x.len());
    for (i, v) in x.iter().enumerate().skip(1) {
        let shape = &b.spec(*v).shape;
        if shape.ndim() != 2 || shape[1] != columns {
            return Err(Error::op(format!("args{i} has shape {shape}; (rows, {columns}) is allowed")));
        }
        rows = rows.checked_mul(shape[0]).ok_or_else(|| Error::memory("the result is too large"))?;
        let result = Shape::new(&[rows, columns]);
        Spec::new(result.clone(), first.dtype).bytes()?;
        results.push(result);
    }
    Ok(results)
}
