//! Elementwise kernels and copies against the CPU's evaluation of the same formula.

use crate::shaders::copy::{launch_cast, launch_copy, launch_fill};
use crate::shaders::elem::{Place, Span};
use crate::shaders::map::launch_map;
use crate::shaders::testing::*;
use mxrs_base::{DType, Elem, f16};
use mxrs_formula::{E, Formula, Operand};
use mxrs_gpu::Device;
use mxrs_kernels::copy::View;

/// Strides of a row-major array.
fn rows(dims: &[usize]) -> Vec<isize> {
    View::of(dims).strides.to_vec()
}

/// Elements and strides.
type Input<T> = (Vec<T>, Vec<isize>);
/// Name, instruction, tolerance.
type Unary = (&'static str, fn(E) -> E, f32);
type Binary = (&'static str, fn(E, E) -> E, f32);

/// Runs a formula over contiguous or broadcast inputs on both sides.
fn both<T: Elem>(
    device: &Device,
    f: &Formula,
    params: &[f64],
    dims: &[usize],
    ins: &[Input<T>],
) -> (Vec<T>, Vec<T>) {
    let n: usize = dims.iter().product();
    let mut want = vec![T::default(); n];
    let steps: Vec<Vec<usize>> = ins.iter().map(|(_, s)| s.iter().map(|v| *v as usize).collect()).collect();
    let operands: Vec<Operand> = ins
        .iter()
        .zip(&steps)
        .map(|((v, _), s)| Operand { ptr: v.as_ptr().cast(), strides: s.as_slice() })
        .collect();
    // SAFETY: the inputs hold what their strides reach, as the tests build them.
    unsafe { f.eval(T::DTYPE, params, dims, &operands, want.as_mut_ptr().cast(), T::DTYPE) };
    // In device memory everything begins a little further on.
    let buffers: Vec<_> =
        ins.iter().map(|(v, _)| upload(device, &[&vec![T::default(); 4][..], v].concat())).collect();
    let places: Vec<Place> = buffers
        .iter()
        .zip(ins)
        .map(|(buffer, (_, strides))| Place { buffer, dtype: T::DTYPE, offset: 4, strides })
        .collect();
    let y = upload(device, &vec![T::default(); n + 3]);
    let out = Place { buffer: &y, dtype: T::DTYPE, offset: 0, strides: &rows(dims) };
    launch_map(device, f, params, dims, &places, out, "test").unwrap();
    let got = download::<T>(device, &y);
    assert!(got[n..].iter().all(|v| *v == T::default()), "written beyond the end");
    (got[..n].to_vec(), want)
}

/// Fourteen inputs: in buffers of their own, in one with the output among them, and mixed with repeated and packed ones.
#[test]
fn formulas_of_many_arrays_fit_every_device() {
    let sum = Formula::build(14, &[], |a| {
        (1..14).fold(a.x(0), |s, i| if i % 2 == 0 { s + a.x(i) } else { s - a.x(i) * 0.5 })
    });
    let value = |row: &dyn Fn(usize) -> f32| {
        (1..14).fold(row(0), |s, i| if i % 2 == 0 { s + row(i) } else { s - row(i) * 0.5 })
    };
    on_devices(|d| {
        let (n, many) = (6 * 20, 14);
        let all = numbers(n * (many + 1), 3);
        let dims = [6, 20];
        let (whole, line, single) = ([20, 1], [0, 1], [0, 0]);
        // One buffer holds all, the result as well.
        let block = upload(d, &all);
        let at = |i: usize| Place { buffer: &block, dtype: DType::F32, offset: i * n, strides: &whole };
        let ins: Vec<Place> = (0..many).map(at).collect();
        launch_map(d, &sum, &[], &dims, &ins, at(many), "sum").unwrap();
        let want: Vec<f32> = (0..n).map(|e| value(&|i| all[i * n + e])).collect();
        assert_close(&download::<f32>(d, &block)[many * n..], &want, 1e-5, "in one buffer");
        // Each has its own; every third repeats, every fifth is of bytes, and one is written over.
        let bytes: Vec<u8> = (0..n).map(|e| (e % 7) as u8).collect();
        let held: Vec<_> = (0..many)
            .map(|i| if i % 5 == 4 { upload(d, &bytes) } else { upload(d, &all[i * n..(i + 1) * n]) })
            .collect();
        let place = |i: usize| Place {
            buffer: &held[i],
            dtype: if i % 5 == 4 { DType::U8 } else { DType::F32 },
            offset: 0,
            strides: if i % 3 != 1 {
                &whole
            } else if i == 1 {
                &single
            } else {
                &line
            },
        };
        let ins: Vec<Place> = (0..many).map(place).collect();
        launch_map(d, &sum, &[], &dims, &ins, place(0), "sum").unwrap();
        let element = |i: usize, e: usize| {
            let e = if i % 3 != 1 {
                e
            } else if i == 1 {
                0
            } else {
                e % 20
            };
            if i % 5 == 4 { bytes[e] as f32 } else { all[i * n + e] }
        };
        let want: Vec<f32> = (0..n).map(|e| value(&|i| element(i, e))).collect();
        assert_close(&download::<f32>(d, &held[0]), &want, 1e-5, "apart");
    });
}

#[test]
fn formulas_agree_with_the_cpu() {
    let f = Formula::build(2, &["scale"], |a| {
        (a.x(0) * a.param("scale") + 1.0).max(a.x(1)).tanh() - a.x(1) * a.x(0)
    });
    on_devices(|d| {
        let x = |n: usize, seed| numbers(n, seed);
        let cases: [(&[usize], Vec<Input<f32>>); 8] = [
            (&[1], vec![(x(1, 1), vec![1]), (x(1, 2), vec![1])]),
            (&[1023], vec![(x(1023, 1), vec![1]), (x(1023, 2), vec![1])]),
            (&[40, 30], vec![(x(1200, 1), vec![30, 1]), (x(1, 2), vec![0, 0])]),
            (&[7, 9], vec![(x(63, 1), vec![9, 1]), (x(9, 2), vec![0, 1])]),
            (&[7, 9, 8], vec![(x(504, 1), vec![72, 8, 1]), (x(9, 2), vec![0, 1, 0])]),
            (&[5, 3, 7], vec![(x(105, 1), vec![1, 5, 15]), (x(35, 2), vec![7, 0, 1])]),
            (&[3, 2, 4, 5, 6], vec![(x(720, 1), vec![240, 120, 30, 6, 1]), (x(30, 2), vec![10, 0, 0, 2, 0])]),
            (&[300, 1000], vec![(x(300_000, 1), vec![1, 300]), (x(300, 2), vec![1, 0])]),
        ];
        for (dims, ins) in &cases {
            let (got, want) = both(d, &f, &[1.5], dims, ins);
            assert_close(&got, &want, 1e-5, &format!("{dims:?}"));
        }
        let (got, want) = both::<f32>(d, &f, &[1.5], &[0, 3], &[(vec![], vec![3, 1]), (vec![], vec![3, 1])]);
        assert_eq!(got, want);
    });
}

#[test]
fn every_instruction_agrees_with_the_cpu() {
    let unary: [Unary; 35] = [
        ("exp", |x| x.exp(), 1e-6),
        ("log", |x| x.abs().log(), 1e-6),
        ("log2", |x| x.abs().log2(), 1e-6),
        ("log10", |x| x.abs().log10(), 1e-6),
        ("log1p", |x| x.abs().log1p(), 1e-6),
        ("expm1", |x| x.expm1(), 1e-6),
        ("sqrt", |x| x.abs().sqrt(), 1e-6),
        ("rsqrt", |x| x.abs().rsqrt(), 1e-6),
        ("cbrt", |x| x.cbrt(), 1e-6),
        ("sin", |x| x.sin(), 1e-6),
        ("cos", |x| x.cos(), 1e-6),
        ("tan", |x| (x * 0.5).tan(), 1e-6),
        // The precision that WGSL asks of its own atan and atan2 is low.
        ("arcsin", |x| (x * 0.5).asin(), 1e-5),
        ("arccos", |x| (x * 0.5).acos(), 1e-5),
        ("arctan", |x| x.atan(), 1e-5),
        ("sinh", |x| x.sinh(), 1e-6),
        ("cosh", |x| x.cosh(), 1e-6),
        ("tanh", |x| x.tanh(), 1e-6),
        ("arcsinh", |x| x.asinh(), 1e-6),
        ("arccosh", |x| (x.abs() + 1.0).acosh(), 1e-5),
        ("arctanh", |x| (x * 0.45).atanh(), 1e-6),
        ("sigmoid", |x| x.sigmoid(), 1e-6),
        ("softrelu", |x| x.softplus(), 1e-6),
        ("erf", |x| x.erf(), 1e-6),
        ("erfinv", |x| (x * 0.45).erfinv(), 1e-5),
        ("gammaln", |x| (x + 2.5).lgamma(), 1e-5),
        ("gamma", |x| (x + 2.5).gamma(), 1e-4),
        ("relu", |x| x.relu(), 0.0),
        ("square", |x| x.square(), 1e-6),
        ("abs", |x| x.abs(), 0.0),
        ("sign", |x| x.sign(), 0.0),
        ("floor", |x| x.floor(), 0.0),
        ("rint", |x| x.rint(), 0.0),
        ("round", |x| x.round(), 0.0),
        ("logical_not", |x| x.logical_not(), 0.0),
    ];
    let binary: [Binary; 12] = [
        ("/", |x, y| x / y, 1e-6),
        ("%", |x, y| x % y, 1e-6),
        ("pow", |x, y| x.abs().pow(y), 2e-6),
        ("hypot", |x, y| x.hypot(y), 1e-6),
        ("arctan2", |x, y| x.arctan2(y), 1e-5),
        ("copysign", |x, y| x.copysign(y), 0.0),
        ("ldexp", |x, y| x.ldexp(y), 1e-6),
        ("max", |x, y| x.max(y), 0.0),
        ("min", |x, y| x.min(y), 0.0),
        (">", |x, y| x.gt(y), 0.0),
        ("&&", |x, y| x.gt(0.5).and(y.gt(0.0)), 0.0),
        ("select", |x, y| x.gt(y).select(x, y), 0.0),
    ];
    on_devices(|d| {
        let mut values = numbers(501, 3);
        values[..3].copy_from_slice(&[0.0, -0.0, 1.0]);
        for (name, build, tolerance) in unary {
            let f = Formula::build(1, &[], |a| build(a.x(0)));
            let (got, want) = both(d, &f, &[], &[501], &[(values.clone(), vec![1])]);
            assert_close(&got, &want, tolerance, name);
        }
        let other = numbers(501, 4);
        for (name, build, tolerance) in binary {
            let f = Formula::build(2, &[], |a| build(a.x(0), a.x(1)));
            let ins = [(values[2..].to_vec(), vec![1]), (other[2..].to_vec(), vec![1])];
            let (got, want) = both(d, &f, &[], &[499], &ins);
            assert_close(&got, &want, tolerance, name);
        }
    });
}

#[test]
fn whole_numbers_stay_whole() {
    let f = Formula::build(2, &["k"], |a| a.x(0) * a.param("k") / a.x(1) + a.x(0).max(a.x(1)) - a.x(1).abs());
    on_devices(|d| {
        let a: Vec<i32> = (0..70).map(|i| (i - 30) * 50_000_001).collect();
        let b: Vec<i32> = (0..70).map(|i| i % 7 - 3).collect();
        let (got, want) = both(d, &f, &[3.0], &[10, 7], &[(a, vec![7, 1]), (b, vec![7, 1])]);
        assert_eq!(got, want);
        let bytes: Vec<u8> = (0..70).map(|i| (i * 37) as u8).collect();
        let y = upload(d, &[9u8; 75]);
        let x = upload(d, &bytes);
        let add = Formula::build(2, &[], |a| a.x(0) + a.x(1));
        let place = |offset| Place { buffer: &x, dtype: DType::U8, offset, strides: &[1] };
        let out = Place { buffer: &y, dtype: DType::U8, offset: 3, strides: &[1] };
        launch_map(d, &add, &[], &[65], &[place(0), place(5)], out, "t").unwrap();
        let want: Vec<u8> = (0..65).map(|i| bytes[i].wrapping_add(bytes[i + 5])).collect();
        assert_eq!(download::<u8>(d, &y), [&[9; 3][..], &want, &[9; 7]].concat());
        // Instructions that only floating point has are refused by name.
        let f = Formula::build(1, &[], |a| a.x(0).exp());
        let strides = [1];
        let one = Place { buffer: &x, dtype: DType::I32, offset: 0, strides: &strides };
        let error = launch_map(d, &f, &[], &[4], &[one], Place { buffer: &y, ..one }, "Op").unwrap_err();
        assert!(error.message().contains("Op: 'exp'"), "{error}");
        let error =
            launch_cast(d, 3, Span::new(&x, DType::F32), Span::new(&y, DType::F64), "Op").unwrap_err();
        assert!(error.message().contains("float64 is not supported on a GPU"), "{error}");
    });
}

fn cast_case<S: Elem, D: Elem + std::fmt::Debug>(d: &Device, values: &[S]) {
    if [S::DTYPE, D::DTYPE].contains(&DType::F16) && !d.features().f16 {
        return;
    }
    let mut want = vec![D::default(); values.len()];
    mxrs_simd::cast(values, &mut want);
    let (x, y) = (upload(d, values), upload(d, &vec![D::default(); values.len()]));
    launch_cast(d, values.len(), Span::new(&x, S::DTYPE), Span::new(&y, D::DTYPE), "cast").unwrap();
    assert_eq!(download::<D>(d, &y), want, "{} to {}", S::DTYPE, D::DTYPE);
}

#[test]
fn casts_agree_with_the_cpu() {
    let floats = [
        0.0f32,
        -0.0,
        1.0,
        -1.0,
        2.5,
        -2.5,
        300.7,
        -300.7,
        3e9,
        -3e9,
        65504.0,
        1e-30,
        f32::INFINITY,
        f32::NAN,
    ];
    let ints = [0i32, 1, -1, 127, -128, 255, 256, 65536, i32::MAX, i32::MIN, 12345678];
    let bytes: Vec<u8> = (0..=255).collect();
    on_devices(|d| {
        cast_case::<f32, i32>(d, &floats);
        cast_case::<f32, u8>(d, &floats);
        cast_case::<f32, i8>(d, &floats);
        cast_case::<f32, bool>(d, &floats);
        cast_case::<f32, f32>(d, &floats[..13]);
        cast_case::<i32, f32>(d, &ints);
        cast_case::<i32, u8>(d, &ints);
        cast_case::<i32, bool>(d, &ints);
        cast_case::<u8, f32>(d, &bytes);
        cast_case::<u8, i32>(d, &bytes);
        cast_case::<u8, i8>(d, &bytes);
        let signed: Vec<i8> = bytes.iter().map(|b| *b as i8).collect();
        cast_case::<i8, f32>(d, &signed);
        cast_case::<i8, i32>(d, &signed);
        cast_case::<bool, f32>(d, &[true, false, true, true, false]);
        cast_case::<f32, f16>(d, &floats[..8]);
        cast_case::<f16, f32>(d, &[f16::from_f32(1.5), f16::from_f32(-0.1), f16::from_f32(65504.0)]);
    });
}

/// Gathers through a view and scatters back through it, on both sides.
fn view_case<T: Elem>(d: &Device, dims: &[usize], view: &View) {
    let n: usize = dims.iter().product();
    let data: Vec<T> = (0..n).map(|i| T::from_i64(i as i64 % 101)).collect();
    let mut want = vec![T::default(); view.size()];
    let at = |mut i: usize| {
        let mut offset = view.offset;
        for (dim, stride) in view.dims.iter().zip(&view.strides).rev() {
            offset += (i % dim) as isize * stride;
            i /= dim;
        }
        offset as usize
    };
    want.iter_mut().enumerate().for_each(|(i, w)| *w = data[at(i)]);
    let x = upload(d, &data);
    let y = upload(d, &vec![T::default(); want.len()]);
    let source = Place { buffer: &x, dtype: T::DTYPE, offset: view.offset as usize, strides: &view.strides };
    let plain = rows(&view.dims);
    let target = Place { buffer: &y, dtype: T::DTYPE, offset: 0, strides: &plain };
    launch_copy(d, &view.dims, source, target, "gather").unwrap();
    assert_eq!(download::<T>(d, &y), want, "gather {view:?}");
    if view.strides.contains(&0) {
        return;
    }
    let mut spread = vec![T::from_i64(7); n];
    (0..want.len()).for_each(|i| spread[at(i)] = want[i]);
    let z = upload(d, &vec![T::from_i64(7); n]);
    launch_copy(d, &view.dims, target, Place { buffer: &z, ..source }, "scatter").unwrap();
    assert_eq!(download::<T>(d, &z), spread, "scatter {view:?}");
}

#[test]
fn views_are_copied() {
    on_devices(|d| {
        let dims = [3, 10, 33];
        let whole = View::of(&dims);
        let views = [
            whole.clone(),
            whole.transpose(&[0, 2, 1]),
            whole.transpose(&[2, 1, 0]),
            whole.transpose(&[1, 0, 2]),
            whole.clone().slice(1, 2, 3, 3).slice(2, 32, -1, 20),
            whole.clone().flip(0).flip(2),
            whole.clone().tile(&[2, 1, 3]),
            whole.clone().repeat(1, 2),
            View::of(&[4, 1, 5]).broadcast(1, 6),
            View::of(&[65, 70]).transpose(&[1, 0]),
            View::of(&[5]).slice(0, 4, 1, 0),
        ];
        for view in &views {
            let n = 3 * 10 * 33 * 5;
            view_case::<f32>(d, &[n], view);
            view_case::<i32>(d, &[n], view);
            view_case::<u8>(d, &[n], view);
            if d.features().f16 {
                view_case::<f16>(d, &[n], view);
            }
        }
        let y = upload(d, &[0.0f32; 10]);
        let inside = Place { buffer: &y, dtype: DType::F32, offset: 2, strides: &[1] };
        launch_fill(d, &[5], 2.5, inside, "fill").unwrap();
        assert_eq!(download::<f32>(d, &y), [0.0, 0.0, 2.5, 2.5, 2.5, 2.5, 2.5, 0.0, 0.0, 0.0]);
    });
}
