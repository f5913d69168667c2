//! What a fork-join costs beside its work.

use mxrs_lanes::{for_each, set_count};

fn main() {
    divan::main();
}

/// Two chunks that do nothing: publishing, a lane that may come, the join.
#[divan::bench(args = [1, 2])]
fn empty(bencher: divan::Bencher, lanes: usize) {
    set_count(lanes);
    bencher.bench_local(|| {
        for_each(2, 1, |range| {
            divan::black_box(range);
        })
    });
}

/// 64 KiB of additions, where a second lane begins to pay.
#[divan::bench(args = [1, 2])]
fn sixteen_thousand_adds(bencher: divan::Bencher, lanes: usize) {
    set_count(lanes);
    let data = vec![1f32; 16384];
    bencher.bench_local(|| {
        for_each(data.len(), 4096, |range| {
            divan::black_box(data[range].iter().sum::<f32>());
        });
    });
}
