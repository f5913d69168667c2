use super::*;

/// A small generator, so that runs repeat.
pub(crate) struct Rng(pub u64);
impl Rng {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n.max(1)
    }
}

/// Every index of `dims`, row-major.
fn indices(dims: &[usize]) -> Vec<Vec<usize>> {
    let size: usize = dims.iter().product();
    (0..size)
        .map(|mut i| {
            let mut at = vec![0; dims.len()];
            for d in (0..dims.len()).rev() {
                at[d] = i % dims[d];
                i /= dims[d];
            }
            at
        })
        .collect()
}

fn places(view: &View) -> Vec<usize> {
    let place = |at: &Vec<usize>| {
        let moved: isize = at.iter().zip(&view.strides).map(|(i, s)| *i as isize * s).sum();
        (view.offset + moved) as usize
    };
    indices(&view.dims).iter().map(place).collect()
}

fn ramp<U: TryFrom<usize>>(n: usize) -> Vec<U> {
    (0..n).map(|i| U::try_from(i % 251).ok().expect("251 fits every unit")).collect()
}

fn random_view(rng: &mut Rng, sizes: &[usize]) -> (usize, View) {
    let dims: Vec<usize> = (0..1 + rng.below(5)).map(|_| sizes[rng.below(sizes.len())]).collect();
    let mut view = View::of(&dims);
    let len = view.size();
    for (axis, &extent) in dims.iter().enumerate() {
        match rng.below(4) {
            0 => view = view.flip(axis),
            1 if extent > 1 => {
                let begin = rng.below(extent);
                let step = 1 + rng.below(2);
                let count = (extent - begin).div_ceil(step);
                view = view.slice(axis, begin, step as isize, count);
            }
            _ => {}
        }
    }
    let mut axes: Vec<usize> = (0..dims.len()).collect();
    for i in (1..axes.len()).rev() {
        axes.swap(i, rng.below(i + 1));
    }
    (len, view.transpose(&axes))
}

fn check_view<U: Unit + TryFrom<usize>>(len: usize, view: &View) {
    let src: Vec<U> = ramp(len);
    let at = places(view);
    let mut dst = vec![U::default(); view.size()];
    gather(&src, view, &mut dst);
    assert!(at.iter().zip(&dst).all(|(p, v)| src[*p] == *v), "gather {view:?}");
    if view.is_injective() {
        let values: Vec<U> = ramp(at.len());
        let (mut got, mut want) = (src.clone(), src.clone());
        scatter(&values, &mut got, view);
        at.iter().zip(&values).for_each(|(p, v)| want[*p] = *v);
        assert_eq!(got, want, "scatter {view:?}");
    }
}

#[test]
fn random_views_match_index_loops() {
    let mut rng = Rng(7);
    for round in 0..400 {
        let sizes: &[usize] = if round % 4 == 0 { &[1, 17, 33] } else { &[0, 1, 2, 3, 5, 7] };
        let (len, view) = random_view(&mut rng, sizes);
        if len > 200_000 {
            continue;
        }
        check_view::<u8>(len, &view);
        check_view::<u16>(len, &view);
        check_view::<u32>(len, &view);
        check_view::<u64>(len, &view);
    }
}

#[test]
fn large_transposes_in_parallel() {
    for dims in [[1, 300, 517], [3, 64, 1000], [2, 1000, 3], [1, 16, 16], [4, 129, 31]] {
        let view = View::of(&dims).transpose(&[0, 2, 1]);
        check_view::<u32>(dims.iter().product(), &view);
        check_view::<u8>(dims.iter().product(), &view);
    }
    check_view::<u32>(100_000, &View::of(&[100_000]).flip(0));
}

#[test]
fn views_of_operators() {
    let src: Vec<u32> = (0..6).collect();
    let take = |view: View| {
        let mut out = vec![0u32; view.size()];
        gather(&src, &view, &mut out);
        out
    };
    let m = || View::of(&[2, 3]);
    assert_eq!(take(m().transpose(&[1, 0])), [0, 3, 1, 4, 2, 5]);
    assert_eq!(take(m().slice(1, 2, -1, 3)), [2, 1, 0, 5, 4, 3]);
    assert_eq!(take(View::of(&[3]).tile(&[2])), [0, 1, 2, 0, 1, 2]);
    assert_eq!(take(m().tile(&[1, 2])), [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]);
    assert_eq!(take(View::of(&[3]).repeat(0, 2)), [0, 0, 1, 1, 2, 2]);
    assert_eq!(take(m().repeat(0, 2)), [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]);
    assert_eq!(take(View::of(&[3]).broadcast_to(&[2, 3])), [0, 1, 2, 0, 1, 2]);
    assert_eq!(take(m().diagonal(0, 1, 1)), [1, 5]);
    assert_eq!(take(m().diagonal(0, 1, -1)), [3]);
    assert_eq!(take(m().diagonal(0, 1, 9)), [0u32; 0]);
    assert_eq!(take(View::of(&[1, 2]).upsample(2)), [0, 0, 1, 1, 0, 0, 1, 1]);
    let eight: Vec<u32> = (0..8).collect();
    let mut out = [0; 8];
    gather(&eight, &View::depth_to_space([1, 8, 1, 1], 2), &mut out);
    assert_eq!(out, [0, 2, 4, 6, 1, 3, 5, 7]);
    let mut back = [0; 8];
    gather(&out, &View::space_to_depth([1, 2, 2, 2], 2), &mut back);
    assert_eq!(back.to_vec(), eight);
    let mut filled = [1u8; 6];
    scatter(&[9], &mut filled, &m().slice(1, 0, 2, 2));
    assert_eq!(filled, [9, 1, 9, 9, 1, 9]);
}

#[test]
fn accumulate_is_the_adjoint_of_gather() {
    let mut rng = Rng(3);
    for _ in 0..200 {
        let (len, mut view) = random_view(&mut rng, &[1, 2, 3, 5, 140]);
        if len > 100_000 {
            continue;
        }
        for _ in 0..rng.below(3) {
            let axis = rng.below(view.dims.len() + 1);
            view = view.insert(axis, 1 + rng.below(3));
        }
        let src: Vec<i64> = (0..view.size() as i64).map(|i| i % 13 - 5).collect();
        let (mut got, mut want) = (vec![1i64; len], vec![1i64; len]);
        accumulate(&src, &mut got, &view);
        places(&view).iter().zip(&src).for_each(|(p, v)| want[*p] += v);
        assert_eq!(got, want, "{view:?}");
    }
    // Overlapping windows are no injective view and still add up.
    let window = View { offset: 0, dims: [3, 2][..].into(), strides: [1, 1][..].into() };
    let mut sums = [0f32; 4];
    accumulate(&[1f32; 6], &mut sums, &window);
    assert_eq!(sums, [1.0, 2.0, 2.0, 1.0]);
}

#[test]
fn float16_sums_in_float32() {
    let ones = vec![f16::from_f32(1.0); 3000];
    let mut sum = [f16::from_f32(0.0)];
    accumulate(&ones, &mut sum, &View::of(&[1]).broadcast_to(&[3000]));
    assert_eq!(sum[0].to_f32(), 3000.0);
}

#[test]
#[should_panic(expected = "leaves its array")]
fn a_view_outside_is_refused() {
    gather(&[1u8, 2, 3], &View::of(&[3]).slice(0, 1, 1, 3), &mut [0; 3]);
}

#[test]
#[should_panic(expected = "twice")]
fn writing_a_place_twice_is_refused() {
    scatter(&[1u8, 2], &mut [0], &View::of(&[1]).broadcast_to(&[2]));
}

#[test]
fn concat_joins_rows() {
    let mut rng = Rng(11);
    for _ in 0..100 {
        let outer = rng.below(5);
        let widths: Vec<usize> = (0..1 + rng.below(4)).map(|_| rng.below(20000)).collect();
        let inputs: Vec<Vec<u16>> = widths.iter().map(|w| ramp(w * outer)).collect();
        let refs: Vec<&[u16]> = inputs.iter().map(|v| &v[..]).collect();
        let mut want = Vec::new();
        for row in 0..outer {
            for (input, w) in inputs.iter().zip(&widths) {
                want.extend_from_slice(&input[row * w..][..*w]);
            }
        }
        let mut got = vec![0; want.len()];
        concat(&refs, outer, &mut got);
        assert!(got == want);
    }
}

#[test]
fn generators() {
    let mut a = [0f32; 5];
    arange(&mut a, 0.5, -2.0, 2);
    assert_eq!(a, [0.5, 0.5, -1.5, -1.5, -3.5]);
    let mut e = [9i32; 6];
    eye(&mut e, 2, 3, 1);
    assert_eq!(e, [0, 1, 0, 0, 0, 1]);
    eye::<f32>(&mut [], 0, 3, 0);
    let mut f = vec![0u16; 100_001];
    fill(&mut f, 7);
    assert!(f.iter().all(|v| *v == 7));
}
