//! Moving elements: between any strides, into another type, and as one value everywhere.
//!
//! Transpose, slice, flip, tile, repeat, diagonal are strides of the source; a part of a concatenation or the inside of
//! a padded array are strides of the target. A cast is a copy between types.

use crate::shaders::each::{Each, Read};
use crate::shaders::elem::{Place, Span, is_wide};
use crate::shaders::map::launch_map;
use mxrs_base::{DType, Result};
use mxrs_formula::Formula;
use mxrs_gpu::{Device, Key, Params, Shader, Slot};
use smallvec::SmallVec;
use std::sync::LazyLock;

static IDENTITY: LazyLock<Formula> = LazyLock::new(|| Formula::build(1, &[], |a| a.x(0)));
static VALUE: LazyLock<Formula> = LazyLock::new(|| Formula::build(0, &["value"], |a| a.param("value")));

/// Edge of the square that a workgroup transposes.
const TILE: usize = 32;

/// Copies the elements of `source` at every index of `dims` to where `target` has them, converted to its type as the
/// host converts.
///
/// # Errors
/// As [`launch_map`].
pub fn launch_copy(
    device: &Device,
    dims: &[usize],
    source: Place,
    target: Place,
    label: &'static str,
) -> Result<()> {
    if let Some(t) = Transpose::of(dims, &source, &target) {
        return t.launch(device, &source, &target, label);
    }
    if is_wide(source.dtype) && source.dtype == target.dtype {
        // Two words each, along a dimension of their own.
        let dims: SmallVec<[usize; 5]> = dims.iter().copied().chain([2]).collect();
        let words = |p: &Place| p.strides.iter().map(|s| 2 * s).chain([1]).collect::<SmallVec<[isize; 5]>>();
        let (from, to) = (words(&source), words(&target));
        let source = Place { dtype: DType::I32, offset: 2 * source.offset, strides: &from, ..source };
        let target = Place { dtype: DType::I32, offset: 2 * target.offset, strides: &to, ..target };
        return launch_map(device, &IDENTITY, &[], &dims, &[source], target, label);
    }
    launch_map(device, &IDENTITY, &[], dims, &[source], target, label)
}

/// Copies `n` elements that lie one after the other, converted to the target's type. Types of 64 bits are only sources,
/// or both sides.
pub fn launch_cast(device: &Device, n: usize, source: Span, target: Span, label: &'static str) -> Result<()> {
    match (is_wide(source.dtype), is_wide(target.dtype)) {
        (true, true) if source.dtype == target.dtype => {
            return launch_copy(device, &[n], source.strided(&[1]), target.strided(&[1]), label);
        }
        (true, false) => {
            let body = || "fn element(e: u32) -> VALUE { return x(e); }\n".to_string();
            return Each::new("narrow", target)
                .input("x", source, Read::Narrowed)
                .launch(device, n, body, label);
        }
        _ => {}
    }
    launch_map(device, &IDENTITY, &[], &[n], &[source.strided(&[1])], target.strided(&[1]), label)
}

/// Stores `value` at every index of `dims`.
pub fn launch_fill(
    device: &Device,
    dims: &[usize],
    value: f64,
    target: Place,
    label: &'static str,
) -> Result<()> {
    launch_map(device, &VALUE, &[value], dims, &[], target, label)
}

/// A copy whose source runs along one dimension and whose target runs along another: squares go through workgroup
/// memory, so that both sides touch neighbours together.
struct Transpose {
    batch: usize,
    batch_steps: (isize, isize),
    /// Extent along which the source runs, and the target's step there.
    a: (usize, isize),
    /// Extent along which the target runs, and the source's step there.
    b: (usize, isize),
}

impl Transpose {
    fn of(dims: &[usize], source: &Place, target: &Place) -> Option<Transpose> {
        let same_type = source.dtype == target.dtype && matches!(source.dtype, DType::F32 | DType::I32);
        if !same_type || source.buffer.same_memory(target.buffer) {
            return None;
        }
        let axes: Vec<usize> = (0..dims.len()).filter(|d| dims[*d] != 1).collect();
        // Dimensions that merge on both sides, innermost first: (extent, source step, target step).
        let mut merged: Vec<(usize, isize, isize)> = Vec::new();
        for d in axes.into_iter().rev() {
            let (s, t) = (source.strides[d], target.strides[d]);
            match merged.last_mut() {
                Some((n, ps, pt)) if s == *ps * *n as isize && t == *pt * *n as isize => *n *= dims[d],
                _ => merged.push((dims[d], s, t)),
            }
        }
        let a = merged.iter().position(|m| m.1 == 1)?;
        let b = merged.iter().position(|m| m.2 == 1)?;
        if a == b || merged.len() > 3 || merged[a].0 < 8 || merged[b].0 < 8 {
            return None;
        }
        let rest = (0..merged.len()).find(|k| *k != a && *k != b).map(|k| merged[k]);
        let (batch, s, t) = rest.unwrap_or((1, 0, 0));
        let (a, b) = (merged[a], merged[b]);
        // Steps are counted in 32 bits, and the batch is the third axis of the grid.
        let fits = [a.2, b.1, s, t].iter().all(|s| i32::try_from(*s).is_ok());
        let grid = [a.0.div_ceil(TILE), b.0.div_ceil(TILE), batch].iter().all(|g| *g <= 65535);
        (fits && grid).then_some(Transpose { batch, batch_steps: (s, t), a: (a.0, a.2), b: (b.0, b.1) })
    }

    fn launch(&self, device: &Device, source: &Place, target: &Place, label: &'static str) -> Result<()> {
        // Only bits move: every type of four bytes is a word.
        let pipeline = device.pipeline(&Key::new("transpose"), || {
            let mut shader = Shader::new("transpose", include_str!("transpose.wgsl"))
                .slot(Slot::read("x", "u32"))
                .slot(Slot::write("y", "u32"));
            for name in ["o_x", "o_y", "na", "nb", "x_step_b", "y_step_a", "x_step_batch", "y_step_batch"] {
                shader = shader.param(name, "u32");
            }
            Ok(shader.trusted())
        })?;
        let word = |step: isize| step as i32 as u32;
        let params = Params::new()
            .size(source.offset)?
            .size(target.offset)?
            .size(self.a.0)?
            .size(self.b.0)?
            .u32(word(self.b.1))
            .u32(word(self.a.1))
            .u32(word(self.batch_steps.0))
            .u32(word(self.batch_steps.1));
        let tiles = |n: usize| n.div_ceil(TILE) as u32;
        let groups = [tiles(self.a.0), tiles(self.b.0), self.batch as u32];
        device.dispatch(&pipeline, &[source.buffer, target.buffer], params, groups, label)
    }
}
