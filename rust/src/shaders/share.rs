//! Maps of more arrays than a device binds buffers: WebGPU promises eight. Operands that lie in one buffer, as most
//! values of a plan do, share a binding; where that is not enough, the smallest are copied into one buffer first.

use crate::shaders::elem::Place;
use crate::shaders::map::launch_map;
use mxrs_base::{Error, Result};
use mxrs_formula::Formula;
use mxrs_gpu::{Buffer, Device};
use smallvec::SmallVec;
use std::sync::LazyLock;

/// For each operand (the inputs, then the output), the one under whose name its buffer is bound.
pub type Owners = SmallVec<[u8; 8]>;

/// Operands bound under names of their own.
pub fn bindings(owners: &Owners) -> usize {
    owners.iter().enumerate().filter(|(k, o)| *k == **o as usize).count()
}

/// Operands share where buffer and element are the same; with the output, under its name.
pub fn shared(places: &[&Place], elements: &[String]) -> Owners {
    let out = places.len() - 1;
    let owner = |k: usize| {
        let same = |j: &usize| places[*j].buffer.same_memory(places[k].buffer) && elements[*j] == elements[k];
        [out].into_iter().chain(0..k).find(same).unwrap_or(k) as u8
    };
    (0..places.len()).map(owner).collect()
}

static ITSELF: LazyLock<Formula> = LazyLock::new(|| Formula::build(1, &[], |a| a.x(0)));

/// Elements between the beginnings of arrays that were copied into one buffer: whole vectors, whole words.
const APART: usize = 16;

/// [`launch_map`] where `places` (the inputs that `used` names, then the output) are bound under more names than the
/// device has: copies inputs of one kind of element into one buffer, and tries again.
#[allow(clippy::too_many_arguments)] // a launch is what its caller has checked, passed on
pub fn launch_gathered(
    device: &Device,
    formula: &Formula,
    params: &[f64],
    dims: &[usize],
    ins: &[Place],
    out: Place,
    (used, owners, elements): (&[usize], &Owners, &[String]),
    label: &'static str,
) -> Result<()> {
    let most = device.limits().storage_buffers as usize;
    let chosen = choice(owners, elements, bindings(owners) - most + 1, |k| count(dims, &ins[used[k]]));
    let Some(chosen) = chosen else {
        return Err(Error::op(format!(
            "{label}: a formula of {} arrays in {} buffers; this GPU binds {most}",
            used.len(),
            bindings(owners)
        )));
    };
    let moved: SmallVec<[usize; 8]> =
        (0..used.len()).filter(|k| chosen.contains(&(owners[*k] as usize))).map(|k| used[k]).collect();
    let room = |i: &usize| count(dims, &ins[*i]).next_multiple_of(APART);
    let bytes = moved.iter().map(|i| room(i) * ins[*i].dtype.size()).sum::<usize>();
    let buffer: Buffer = device.alloc(bytes as u64)?;
    let mut dense: SmallVec<[(usize, SmallVec<[isize; 6]>); 8]> = SmallVec::new();
    let mut offset = 0;
    for i in &moved {
        let from = &ins[*i];
        let own: SmallVec<[usize; 6]> =
            dims.iter().zip(from.strides).map(|(d, s)| if *s == 0 { 1 } else { *d }).collect();
        let mut steps: SmallVec<[isize; 6]> = SmallVec::from_elem(0, own.len());
        let mut step = 1;
        for d in (0..own.len()).rev().filter(|d| own[*d] != 1) {
            steps[d] = step;
            step *= own[d] as isize;
        }
        let to = Place { buffer: &buffer, dtype: from.dtype, offset, strides: &steps };
        launch_map(device, &ITSELF, &[], &own, &[*from], to, label)?;
        offset += room(i);
        dense.push((to.offset, steps));
    }
    let mut ins: SmallVec<[Place; 16]> = ins.into();
    for (i, (offset, strides)) in moved.iter().zip(&dense) {
        ins[*i] = Place { buffer: &buffer, dtype: ins[*i].dtype, offset: *offset, strides };
    }
    launch_map(device, formula, params, dims, &ins, out, label)
}

/// The elements of an operand over `dims`, each once.
fn count(dims: &[usize], place: &Place) -> usize {
    dims.iter().zip(place.strides).filter(|(_, s)| **s != 0).map(|(d, _)| *d).product()
}

/// Bindings to be joined, `wanted` of one kind of element or as many as there are, those of the fewest elements; `None`
/// where no two are alike.
fn choice(
    owners: &Owners,
    elements: &[String],
    wanted: usize,
    count: impl Fn(usize) -> usize,
) -> Option<Vec<usize>> {
    let out = owners.len() - 1;
    let inputs: Vec<usize> = (0..out).filter(|k| owners[*k] as usize == *k).collect();
    let kind = |k: usize| inputs.iter().copied().filter(move |j| elements[*j] == elements[k]);
    let most = inputs.iter().copied().max_by_key(|k| kind(*k).count())?;
    let size = |k: usize| (0..out).filter(|j| owners[*j] as usize == k).map(&count).sum::<usize>();
    let mut chosen: Vec<usize> = kind(most).collect();
    chosen.sort_by_key(|k| size(*k));
    chosen.truncate(wanted.max(2));
    (chosen.len() > 1).then_some(chosen)
}
