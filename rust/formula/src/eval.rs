//! Evaluation on the CPU.
//!
//! One instruction over arrays of one layout is one vector loop from the inputs to the output. Everything else runs
//! over tiles that stay in the nearest cache, one instruction after the other. Large arrays spread over the lanes.

use crate::broadcast::{Geometry, Reach, flat, gather};
use crate::plan::{Plan, Src, Step, Uniform};
use crate::{Formula, Node};
use mxrs_base::{DType, dispatch, f16};
use mxrs_simd::{
    Binary, BinaryFn, Form, SelectFn, UnaryFn, binary_kernel, cast_kernel, select_kernel, unary_kernel,
};
use smallvec::SmallVec;
use std::mem::MaybeUninit;
use std::ops::Range;

/// An input of an evaluation.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The element at index zero of every dimension.
    pub ptr: *const u8,
    /// For each output dimension the step between neighbours, in elements; 0 repeats the same element.
    pub strides: &'a [usize],
}

/// What a lane should at least have to do, in nanoseconds.
const LANE_WORK: f64 = 20_000.0;
/// Bytes of tiles on the stack: half of a small first-level cache.
const TILE_BYTES: usize = 24 * 1024;
const MAX_TILE: usize = 2048;
const MIN_TILE: usize = 64;

/// One value of any element type.
type Slot = [u8; 8];

/// A pointer that lanes may share: they write disjoint ranges.
#[derive(Clone, Copy)]
struct Shared<T>(T);
// SAFETY: used only for pointers whose validity for all lanes the caller of `eval` promises.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}
impl<T: Copy> Shared<T> {
    // A method, so that closures capture the wrapper rather than its field.
    fn get(self) -> T {
        self.0
    }
}

impl Formula {
    /// Evaluates the formula for every element of an output of extents `dims`, in `dtype`.
    ///
    /// `params` are converted to `dtype` first. `out_dtype` is `dtype`, or `Bool` for "the result is not zero".
    /// float16 is computed in float32 and rounded at the end.
    ///
    /// # Panics
    /// If the number of inputs, parameters or strides does not fit, or `out_dtype` is another type.
    ///
    /// # Safety
    /// Every input's elements (of `dtype`) at the offsets that `dims` and its strides span are readable and aligned.
    /// `out` is writable and aligned for the product of `dims` elements of `out_dtype`, contiguous in row-major
    /// order. It may coincide exactly with an input of `dtype` that has the same extents and is contiguous (if
    /// `out_dtype` has the same size), and otherwise overlaps no input. Bool elements are 0 or 1.
    #[inline]
    pub unsafe fn eval(
        &self,
        dtype: DType,
        params: &[f64],
        dims: &[usize],
        ins: &[Operand],
        out: *mut u8,
        out_dtype: DType,
    ) {
        assert!(
            ins.len() == self.arity() && params.len() == self.params().len(),
            "formula '{}' takes {} inputs and {} parameters; given were {} and {}",
            self.text_for_panic(),
            self.arity(),
            self.params().len(),
            ins.len(),
            params.len()
        );
        assert!(ins.iter().all(|i| i.strides.len() == dims.len()), "one stride for each dimension");
        assert!(
            out_dtype == dtype || out_dtype == DType::Bool,
            "a formula's result has its own type or bool"
        );
        let flat = flat(dims, ins);
        if let ([(step, _)], Some((n, scalars)), true) = (&*self.plan.steps, flat, out_dtype == dtype) {
            // SAFETY: the caller's promise.
            if unsafe { self.one_loop(*step, dtype, params, n, scalars, ins, out) } {
                return;
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.tiled(dtype, params, dims, ins, out, out_dtype) }
    }

    #[cold]
    fn text_for_panic(&self) -> String {
        self.text()
    }

    /// A single instruction as a single loop. Says whether the case was one for it.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // the arguments of `eval`
    unsafe fn one_loop(
        &self,
        step: Step,
        dtype: DType,
        params: &[f64],
        n: usize,
        scalars: u32,
        ins: &[Operand],
        out: *mut u8,
    ) -> bool {
        let mut slot: Slot = [0; 8];
        // The operand's place and whether it is a single element.
        let place = |src: Src, slot: &mut Slot| match src {
            Src::Input(i) => Some((ins[i as usize].ptr, scalars >> i & 1 != 0)),
            Src::Uniform(u) => {
                let value = match self.plan.uniforms[u as usize] {
                    Uniform::Param(p) => params[p as usize],
                    Uniform::Const(v) => v,
                    _ => return None,
                };
                store(dtype, value, slot);
                Some((slot.as_ptr(), true))
            }
            Src::Reg(_) => None,
        };
        let size = dtype.size();
        match step {
            Step::Unary(op, x) => {
                let Some((x, false)) = place(x, &mut slot) else { return false };
                if x == out.cast_const() {
                    return false;
                }
                let kernel = unary_kernel(op, dtype);
                let x = Shared(x);
                // SAFETY: the caller's promise; ranges are disjoint.
                self.spread(n, size, out, |range, out| unsafe {
                    kernel(x.get().add(range.start * size), out, range.len());
                });
            }
            Step::Binary(op, a, b) => {
                // At most one operand of an instruction that was not folded is uniform: one slot is enough.
                let (Some((a, a_one)), Some((b, b_one))) = (place(a, &mut slot), place(b, &mut slot)) else {
                    return false;
                };
                if a == out.cast_const() || b == out.cast_const() {
                    return false;
                }
                let form = match (a_one, b_one) {
                    (false, false) => Form::Vectors,
                    (true, false) => Form::LeftScalar,
                    (false, true) => Form::RightScalar,
                    (true, true) => return false,
                };
                let kernel = binary_kernel(op, dtype, form);
                let operands = Shared((a, b));
                // SAFETY: as above; a single element stays where it is.
                self.spread(n, size, out, |range, out| unsafe {
                    let (a, b) = operands.get();
                    let at = |p: *const u8, one: bool| if one { p } else { p.add(range.start * size) };
                    kernel(at(a, a_one), at(b, b_one), out, range.len());
                });
            }
            Step::Copy(_) | Step::Select(..) => return false,
        }
        true
    }

    /// Runs `body` over `0..n`, on the lanes where that pays; `body` gets its range and the output's address there.
    #[inline(always)]
    fn spread(&self, n: usize, size: usize, out: *mut u8, body: impl Fn(Range<usize>, *mut u8) + Sync) {
        if (n as f64) * self.plan.cost.max(0.1) < 2.0 * LANE_WORK {
            if n > 0 {
                body(0..n, out);
            }
        } else {
            self.spread_wide(n, size, out, body);
        }
    }

    #[cold]
    #[inline(never)]
    fn spread_wide(&self, n: usize, size: usize, out: *mut u8, body: impl Fn(Range<usize>, *mut u8) + Sync) {
        let grain = (LANE_WORK / self.plan.cost.max(0.15)) as usize;
        let out = Shared(out);
        mxrs_lanes::for_each(n, grain.max(64), |range| {
            // SAFETY: range lies inside 0..n, and the output holds n elements.
            let there = unsafe { out.get().add(range.start * size) };
            body(range, there);
        });
    }

    #[inline(never)]
    unsafe fn tiled(
        &self,
        dtype: DType,
        params: &[f64],
        dims: &[usize],
        ins: &[Operand],
        out: *mut u8,
        out_dtype: DType,
    ) {
        let n: usize = dims.iter().product();
        if n == 0 {
            return;
        }
        // SAFETY: the caller's promise.
        let prepared = unsafe { self.prepare(dtype, params, dims, ins, out, out_dtype) };
        self.spread(n, out_dtype.size(), out, |range, _| {
            // SAFETY: the caller's promise; ranges are disjoint.
            unsafe { prepared.range(range) }
        });
    }

    /// An evaluation with all decisions made, to be run part by part as its inputs come to be.
    ///
    /// # Safety
    /// As for [`Formula::eval`]; an input's elements need be there only when the outputs that read them are computed.
    pub unsafe fn prepare(
        &self,
        dtype: DType,
        params: &[f64],
        dims: &[usize],
        ins: &[Operand],
        out: *mut u8,
        out_dtype: DType,
    ) -> Prepared {
        let compute = if dtype == DType::F16 { DType::F32 } else { dtype };
        let geometry = Geometry::of(dims, ins);
        let mut slots: SmallVec<[Slot; 16]> = SmallVec::new();
        // SAFETY: slots hold one element of any type.
        unsafe { self.plan.uniform_values(dtype, compute, params, &mut slots) };
        let aliased = ins.iter().any(|i| i.ptr == out.cast_const());
        let run = Run::new(&self.plan, geometry, (dtype, compute, out_dtype), aliased, slots);
        Prepared { run, inputs: Shared(ins.iter().map(|i| i.ptr).collect()), out: Shared(out) }
    }

    /// Whether the formula is made of this one instruction of its inputs in their order.
    pub fn as_binary(&self) -> Option<Binary> {
        match *self.nodes {
            [Node::Input(0), Node::Input(1), Node::Binary(op, 0, 1)] => Some(op),
            _ => None,
        }
    }
}

/// Writes `value` as an element of `dtype`.
#[inline(always)]
fn store(dtype: DType, value: f64, slot: &mut Slot) {
    macro_rules! put {
        ($v:expr) => {{
            let bytes = $v.to_ne_bytes();
            slot[..bytes.len()].copy_from_slice(&bytes);
        }};
    }
    use mxrs_base::Elem;
    match dtype {
        DType::F32 => put!(value as f32),
        DType::F64 => put!(value),
        DType::F16 => put!(f16::from_f64(value)),
        DType::U8 => put!(<u8 as Elem>::from_f64(value)),
        DType::I8 => put!(<i8 as Elem>::from_f64(value)),
        DType::I32 => put!(<i32 as Elem>::from_f64(value)),
        DType::I64 => put!(<i64 as Elem>::from_f64(value)),
        DType::Bool => put!((value != 0.0) as u8),
    }
}

impl Plan {
    /// The values that are the same for all elements, in `compute`; leaves are rounded to `dtype` first.
    unsafe fn uniform_values(
        &self,
        dtype: DType,
        compute: DType,
        params: &[f64],
        slots: &mut SmallVec<[Slot; 16]>,
    ) {
        for uniform in &self.uniforms {
            let mut slot: Slot = [0; 8];
            let leaf = |value: f64, slot: &mut Slot| {
                let value = if dtype == DType::F16 { f16::from_f64(value).to_f64() } else { value };
                store(compute, value, slot);
            };
            let at = |i: u16| slots[i as usize].as_ptr();
            // SAFETY: slots hold one element of `compute`, and the new one is not among them yet.
            unsafe {
                match *uniform {
                    Uniform::Param(p) => leaf(params[p as usize], &mut slot),
                    Uniform::Const(v) => leaf(v, &mut slot),
                    Uniform::Unary(op, a) => unary_kernel(op, compute)(at(a), slot.as_mut_ptr(), 1),
                    Uniform::Binary(op, a, b) => {
                        binary_kernel(op, compute, Form::Vectors)(at(a), at(b), slot.as_mut_ptr(), 1)
                    }
                    Uniform::Select(c, a, b) => {
                        select_kernel(compute)(at(c), at(a), at(b), 0, slot.as_mut_ptr(), 1)
                    }
                }
            }
            slots.push(slot);
        }
    }
}

/// See [`Formula::prepare`].
pub struct Prepared {
    run: Run,
    inputs: Shared<SmallVec<[*const u8; 6]>>,
    out: Shared<*mut u8>,
}

impl Prepared {
    /// Computes output elements `range` on this thread.
    ///
    /// # Safety
    /// The range lies in the output, its inputs are there, and nobody else uses these elements.
    pub unsafe fn range(&self, range: Range<usize>) {
        // SAFETY: the caller's promise; the first element of the range lies in the output.
        unsafe {
            let out = self.out.get().add(range.start * self.run.types.2.size());
            self.run.range(&self.inputs.0, range, out);
        }
    }
}

/// A step with its kernel found.
#[derive(Clone, Copy)]
enum Op {
    Copy(Place),
    Unary(UnaryFn, Place),
    Binary(BinaryFn, Place, Place),
    Select(SelectFn, u8, Place, Place, Place),
    /// All operands are single elements in this run: computed once and repeated.
    Fill(usize),
}

/// Where an operand is during one run over contiguous output elements.
#[derive(Clone, Copy)]
enum Place {
    /// Input, moving along with the output.
    Direct(usize),
    /// Input, one element for the run.
    Scalar(usize),
    Uniform(usize),
    /// A tile, holding elements or (true) one element.
    Tile(usize, bool),
}

impl Place {
    fn single(self) -> bool {
        matches!(self, Place::Scalar(_) | Place::Uniform(_) | Place::Tile(_, true))
    }
}

/// Everything that is the same for all tiles of one evaluation.
struct Run {
    geometry: Geometry,
    /// The type of the inputs, of the arithmetic, of the output.
    types: (DType, DType, DType),
    slots: SmallVec<[Slot; 16]>,
    ops: SmallVec<[(Op, usize); 8]>,
    /// Inputs copied to tiles: (input, tile).
    gathered: SmallVec<[(usize, usize); 4]>,
    /// The output cannot be written by the last step directly.
    indirect: bool,
    tiles: usize,
    tile: usize,
}

impl Run {
    fn new(
        plan: &Plan,
        geometry: Geometry,
        types: (DType, DType, DType),
        aliased: bool,
        slots: SmallVec<[Slot; 16]>,
    ) -> Run {
        let (dtype, compute, out_dtype) = types;
        let mut tiles = plan.registers;
        let mut gathered: SmallVec<[(usize, usize); 4]> = SmallVec::new();
        let inputs: SmallVec<[Place; 6]> = geometry
            .reach
            .iter()
            .enumerate()
            .map(|(i, reach)| match reach {
                Reach::Direct if dtype == compute => Place::Direct(i),
                Reach::Scalar if dtype == compute => Place::Scalar(i),
                reach => {
                    gathered.push((i, tiles));
                    tiles += 1;
                    Place::Tile(tiles - 1, *reach == Reach::Scalar)
                }
            })
            .collect();
        let mut single = vec![false; plan.registers];
        let mut ops = SmallVec::new();
        for (step, target) in &plan.steps {
            let place = |src: Src| match src {
                Src::Input(i) => inputs[i as usize],
                Src::Uniform(u) => Place::Uniform(u as usize),
                Src::Reg(r) => Place::Tile(r as usize, single[r as usize]),
            };
            let (op, one) = resolve(*step, compute, place);
            single[*target as usize] = one;
            ops.push((op, *target as usize));
        }
        let last = plan.steps[plan.steps.len() - 1].1 as usize;
        if single[last] {
            ops.push((Op::Fill(last), last));
        }
        // One tile more for values of the inputs' type before they are widened.
        if dtype != compute {
            tiles += 1;
        }
        let fit = TILE_BYTES / (compute.size() * tiles) / MIN_TILE * MIN_TILE;
        let tile = fit.clamp(MIN_TILE, MAX_TILE);
        Run { geometry, types, slots, ops, gathered, indirect: aliased || out_dtype != compute, tiles, tile }
    }

    /// Evaluates output elements `range`; `out` is the address of the first.
    unsafe fn range(&self, inputs: &[*const u8], range: Range<usize>, out: *mut u8) {
        let mut stack = [MaybeUninit::<u64>::uninit(); TILE_BYTES / 8];
        let mut heap: Vec<MaybeUninit<u64>> = Vec::new();
        let stride = self.tile * self.types.1.size();
        let memory = if self.tiles * stride <= TILE_BYTES {
            stack.as_mut_ptr()
        } else {
            heap.resize(self.tiles * stride / 8 + 1, MaybeUninit::uninit());
            heap.as_mut_ptr()
        }
        .cast::<u8>();
        let row =
            if self.geometry.rows { self.geometry.dims[self.geometry.dims.len() - 1] } else { usize::MAX };
        let out_size = self.types.2.size();
        let mut bases: SmallVec<[*const u8; 6]> = SmallVec::from_slice(inputs);
        let mut at = range.start;
        while at < range.end {
            let end = if row == usize::MAX { range.end } else { range.end.min((at / row + 1) * row) };
            for (i, base) in bases.iter_mut().enumerate() {
                let offset = match self.geometry.reach[i] {
                    Reach::Direct if row == usize::MAX => at,
                    Reach::Direct | Reach::Scalar => self.geometry.offset(i, at),
                    Reach::Gathered => continue,
                };
                // SAFETY: the offset is that of an element of the input.
                *base = unsafe { inputs[i].add(offset * self.types.0.size()) };
            }
            let mut done = at;
            while done < end {
                let len = self.tile.min(end - done);
                // SAFETY: the run at..end of the output, tile by tile.
                unsafe {
                    let out = out.add((done - range.start) * out_size);
                    self.one_tile(&bases, done - at, done, len, memory, stride, out);
                }
                done += len;
            }
            at = end;
        }
    }

    /// `moved` elements into the run whose inputs start at `bases`, `flat` elements into the output.
    #[allow(clippy::too_many_arguments)] // one loop body, taken out to be readable
    unsafe fn one_tile(
        &self,
        bases: &[*const u8],
        moved: usize,
        flat: usize,
        len: usize,
        memory: *mut u8,
        stride: usize,
        out: *mut u8,
    ) {
        let (_, compute, out_dtype) = self.types;
        let size = compute.size();
        // SAFETY: tiles hold `self.tile >= len` elements; inputs reach as the geometry says.
        unsafe {
            let tile = |t: usize| memory.add(t * stride);
            for &(input, target) in &self.gathered {
                self.fetch(bases[input], input, moved, flat, len, tile(target), tile(self.tiles - 1));
            }
            let at = |place: Place| match place {
                Place::Direct(i) => bases[i].add(moved * size),
                Place::Scalar(i) => bases[i],
                Place::Uniform(u) => self.slots[u].as_ptr(),
                Place::Tile(t, _) => tile(t).cast_const(),
            };
            let last = self.ops.len() - 1;
            for (i, (op, target)) in self.ops.iter().enumerate() {
                let to = if i == last && !self.indirect { out } else { tile(*target) };
                match *op {
                    Op::Copy(x) => {
                        let n = if x.single() { 1 } else { len };
                        std::ptr::copy_nonoverlapping(at(x), to, n * size);
                    }
                    Op::Unary(f, x) => f(at(x), to, if x.single() { 1 } else { len }),
                    Op::Binary(f, a, b) => {
                        f(at(a), at(b), to, if a.single() && b.single() { 1 } else { len })
                    }
                    Op::Select(f, scalars, c, a, b) => {
                        f(at(c), at(a), at(b), scalars, to, if scalars == 7 { 1 } else { len })
                    }
                    Op::Fill(t) => dispatch!(compute, T => {
                        let value = *tile(t).cast::<T>();
                        for k in 0..len {
                            *to.cast::<T>().add(k) = value;
                        }
                    }),
                }
            }
            if self.indirect {
                let result = tile(self.ops[last].1).cast_const();
                cast_kernel(compute, out_dtype)(result, out, len);
            }
        }
    }

    /// Brings an input that cannot be read in place to a tile, in the type of the arithmetic.
    #[allow(clippy::too_many_arguments)] // as `one_tile`
    unsafe fn fetch(
        &self,
        base: *const u8,
        input: usize,
        moved: usize,
        flat: usize,
        len: usize,
        to: *mut u8,
        staging: *mut u8,
    ) {
        let (dtype, compute, _) = self.types;
        let widen = cast_kernel(dtype, compute);
        // SAFETY: the contract of `one_tile`; the staging tile is used by nothing else.
        unsafe {
            match self.geometry.reach[input] {
                Reach::Direct => widen(base.add(moved * dtype.size()), to, len),
                Reach::Scalar => widen(base, to, 1),
                Reach::Gathered => {
                    let there = if dtype == compute { to } else { staging };
                    match dtype.size() {
                        1 => gather::<u8>(&self.geometry, input, base, flat, len, there),
                        2 => gather::<u16>(&self.geometry, input, base, flat, len, there),
                        4 => gather::<u32>(&self.geometry, input, base, flat, len, there),
                        _ => gather::<u64>(&self.geometry, input, base, flat, len, there),
                    }
                    if dtype != compute {
                        widen(there, to, len);
                    }
                }
            }
        }
    }
}

/// The kernel of a step, and whether its result is a single element.
fn resolve(step: Step, compute: DType, place: impl Fn(Src) -> Place) -> (Op, bool) {
    match step {
        Step::Copy(x) => {
            let x = place(x);
            (Op::Copy(x), x.single())
        }
        Step::Unary(op, x) => {
            let x = place(x);
            (Op::Unary(unary_kernel(op, compute), x), x.single())
        }
        Step::Binary(op, a, b) => {
            let (a, b) = (place(a), place(b));
            let form = match (a.single(), b.single()) {
                (true, false) => Form::LeftScalar,
                (false, true) => Form::RightScalar,
                _ => Form::Vectors,
            };
            (Op::Binary(binary_kernel(op, compute, form), a, b), a.single() && b.single())
        }
        Step::Select(c, a, b) => {
            let (c, a, b) = (place(c), place(a), place(b));
            let scalars = c.single() as u8 | (a.single() as u8) << 1 | (b.single() as u8) << 2;
            (Op::Select(select_kernel(compute), scalars, c, a, b), scalars == 7)
        }
    }
}
