//! Behaviour of the lanes: coverage, nesting, concurrent callers, panics, forks.

use mxrs_lanes::{count, for_each, for_each_block, set_count};
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The number of lanes is global: tests that set it run one after the other.
fn with_lanes(n: usize) -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    let guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    set_count(n);
    guard
}

fn visits(n: usize, grain: usize) -> Vec<usize> {
    let seen: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
    for_each(n, grain, |range| {
        assert!(!range.is_empty());
        assert!(range.start.is_multiple_of(grain.max(1)));
        for i in range {
            seen[i].fetch_add(1, Ordering::Relaxed);
        }
    });
    seen.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn every_index_once() {
    for lanes in [1, 2, 3, 8] {
        let _guard = with_lanes(lanes);
        assert_eq!(count(), lanes);
        for n in [0, 1, 2, 7, 63, 64, 65, 1000, 4097] {
            for grain in [0, 1, 3, 64, 5000, usize::MAX] {
                assert!(visits(n, grain).iter().all(|v| *v == 1), "n {n}, grain {grain}, lanes {lanes}");
            }
        }
    }
}

#[test]
fn blocks_do_not_depend_on_the_number_of_lanes() {
    let blocks = |lanes| {
        let _guard = with_lanes(lanes);
        let seen = Mutex::new(Vec::new());
        for_each_block(1003, 100, |i, range| seen.lock().unwrap().push((i, range.start, range.end)));
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        seen
    };
    let expected: Vec<_> = (0..11).map(|i| (i, i * 100, (i * 100 + 100).min(1003))).collect();
    assert_eq!(blocks(1), expected);
    assert_eq!(blocks(5), expected);
}

#[test]
fn nested_calls_run_on_the_lane_that_makes_them() {
    let _guard = with_lanes(4);
    let total = AtomicUsize::new(0);
    for_each(50, 1, |outer| {
        for _ in outer {
            let me = std::thread::current().id();
            for_each(20, 1, |inner| {
                assert_eq!(std::thread::current().id(), me);
                assert_eq!(inner, 0..20);
                total.fetch_add(inner.len(), Ordering::Relaxed);
            });
        }
    });
    assert_eq!(total.into_inner(), 1000);
}

#[test]
fn work_reaches_named_lanes() {
    let _guard = with_lanes(3);
    let names = Mutex::new(HashSet::new());
    // Lanes come when the system schedules them: give them time, in as many calls as it takes.
    for _ in 0..1000 {
        for_each(12, 1, |_| {
            names.lock().unwrap().insert(std::thread::current().name().map(str::to_owned));
            std::thread::sleep(std::time::Duration::from_micros(200));
        });
        if names.lock().unwrap().len() == 3 {
            break;
        }
    }
    let names = names.into_inner().unwrap();
    assert!(names.contains(&Some("mxrs-lane-1".into())) && names.contains(&Some("mxrs-lane-2".into())));
    assert_eq!(names.len(), 3);
}

#[test]
fn concurrent_callers() {
    let _guard = with_lanes(3);
    std::thread::scope(|scope| {
        for caller in 0..6 {
            scope.spawn(move || {
                for call in 0..300 {
                    let n = 1 + (caller * 37 + call * 13) % 200;
                    let sum = AtomicUsize::new(0);
                    for_each(n, 1, |range| {
                        sum.fetch_add(range.sum(), Ordering::Relaxed);
                    });
                    assert_eq!(sum.into_inner(), n * (n - 1) / 2);
                }
            });
        }
    });
}

#[test]
fn panics_reach_the_caller_and_the_pool_survives() {
    let _guard = with_lanes(4);
    for round in 0..50 {
        let result = std::panic::catch_unwind(|| {
            for_each(100, 1, |range| {
                if range.contains(&(round * 2)) {
                    panic!("at {}", round * 2);
                }
            });
        });
        let payload = result.expect_err("the panic is passed on");
        assert_eq!(payload.downcast_ref::<String>(), Some(&format!("at {}", round * 2)));
        assert!(visits(100, 1).iter().all(|v| *v == 1));
    }
}

#[test]
fn many_tiny_calls() {
    let _guard = with_lanes(2);
    let total = AtomicUsize::new(0);
    for _ in 0..20_000 {
        for_each(2, 1, |range| {
            total.fetch_add(range.len(), Ordering::Relaxed);
        });
    }
    assert_eq!(total.into_inner(), 40_000);
}

#[test]
fn lanes_come_and_go() {
    let _guard = with_lanes(2);
    for round in 0..200 {
        set_count(1 + round % 7);
        assert!(visits(100, 1).iter().all(|v| *v == 1));
    }
}

#[cfg(unix)]
#[test]
fn a_forked_child_has_lanes_of_its_own() {
    let _guard = with_lanes(3);
    assert!(visits(100, 1).iter().all(|v| *v == 1));
    // SAFETY: the child only uses the lanes and atomics, then ends without running destructors.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let mut met = false;
        for _ in 0..2000 {
            let sum = AtomicUsize::new(0);
            let helped = AtomicUsize::new(0);
            let me = std::thread::current().id();
            for_each(16, 1, |range| {
                sum.fetch_add(range.sum(), Ordering::Relaxed);
                helped.fetch_add((std::thread::current().id() != me) as usize, Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_micros(100));
            });
            if sum.into_inner() != 120 {
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(1) };
            }
            met |= helped.into_inner() > 0;
            if met {
                break;
            }
        }
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(if met { 0 } else { 2 }) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert!(libc::WIFEXITED(status));
    assert_eq!(libc::WEXITSTATUS(status), 0);
}
