//! Order along an axis against the kernels of the CPU: rows that share a workgroup, rows of many tiles, ties.

use crate::shaders::elem::Span;
use crate::shaders::sort::{launch_at_places, launch_put_back, launch_sort};
use crate::shaders::testing::*;
use mxrs_base::{DType, Elem};
use mxrs_gpu::Device;
use mxrs_kernels::sort::{Around, Wanted, topk};

fn check<T: Elem + PartialEq>(d: &Device, x: &[T], around: (usize, usize, usize), k: usize, ascending: bool) {
    let (outer, size, inner) = around;
    let n = outer * k * inner;
    let (mut values, mut places) = (vec![T::default(); n], vec![0i32; n]);
    let mut mask = vec![T::default(); x.len()];
    let wanted = Wanted { values: Some(&mut values), indices: Some(&mut places), mask: Some(&mut mask) };
    topk(x, Around { outer, size, inner }, k, ascending, wanted);

    let what = format!("{around:?}, k {k}, ascending {ascending}");
    let xs = upload(d, x);
    let of = Span::new(&xs, T::DTYPE);
    let sorted = launch_sort(d, of, around, k, ascending, "sort").unwrap();
    let (y, m) = (upload(d, &vec![T::default(); n]), upload(d, &vec![T::default(); x.len()]));
    sorted.values(d, of, Span::new(&y, T::DTYPE), "values").unwrap();
    sorted.mask(d, of, Span::new(&m, T::DTYPE), "mask").unwrap();
    assert!(download::<T>(d, &y) == values, "values of {what}");
    assert!(download::<T>(d, &m) == mask, "mask of {what}");
    let at = upload(d, &vec![7i32; n]);
    sorted.indices(d, Span::new(&at, DType::I32), "indices").unwrap();
    assert_eq!(download::<i32>(d, &at), places, "indices of {what}");

    let long = upload(d, &vec![7i32; 2 * n]);
    let long = Span::new(&long, DType::I64);
    sorted.places(d, long, "places").unwrap();
    let words: Vec<i32> = places.iter().flat_map(|p| [*p, 0]).collect();
    assert_eq!(download::<i32>(d, long.buffer), words, "places of {what}");
    // There and back: the chosen elements where they were, zeros elsewhere.
    let back = upload(d, &vec![T::default(); x.len()]);
    let back = Span::new(&back, T::DTYPE);
    launch_put_back(d, (Span::new(&y, T::DTYPE), long), around, k, back, "put back").unwrap();
    let kept: Vec<T> =
        x.iter().zip(&mask).map(|(v, m)| if m.to_i64() == 1 { *v } else { T::default() }).collect();
    assert!(download::<T>(d, back.buffer) == kept, "put back of {what}");
    let again = upload(d, &vec![T::default(); n]);
    launch_at_places(d, (back, long), around, k, Span::new(&again, T::DTYPE), "at places").unwrap();
    assert!(download::<T>(d, &again) == values, "at places of {what}");
}

#[test]
fn order_of_rows() {
    on_devices(|d| {
        for (around, k) in [
            ((3, 5, 1), 2),
            ((40, 7, 3), 7),
            ((2, 1024, 1), 1000),
            ((2, 1500, 3), 200),
            ((1, 300_000, 1), 5),
            ((2, 5000, 1), 5000),
        ] {
            let n = around.0 * around.1 * around.2;
            // Few distinct values: ties everywhere.
            let few: Vec<i32> = numbers(n, 1).iter().map(|v| (v * 20.0) as i32).collect();
            let odd = |(i, v): (usize, &f32)| match i % 17 {
                3 => -0.0,
                5 => 0.0,
                7 => f32::INFINITY,
                11 => f32::NEG_INFINITY,
                _ => *v,
            };
            let floats: Vec<f32> = numbers(n, 2).iter().enumerate().map(odd).collect();
            for ascending in [true, false] {
                check(d, &few, around, k, ascending);
                check(d, &floats, around, k, ascending);
            }
        }
    });
}
