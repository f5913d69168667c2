//! The threaded engine against its naive twin, on random programs; errors; overlap.

use super::*;
use crate::device::Context;
use mxrs_base::Error;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};

/// A small generator of program choices, so that failures repeat.
struct Dice(u64);
impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % sides
    }
}

fn cell(chunk: &ChunkRef) -> *mut u64 {
    chunk.ptr().cast()
}

fn new_cells(n: usize) -> Vec<ChunkRef> {
    let cells: Vec<_> = (0..n).map(|_| Chunk::new(8, Context::CPU).unwrap()).collect();
    for (i, c) in cells.iter().enumerate() {
        // SAFETY: nobody else knows this chunk yet.
        unsafe { *cell(c) = i as u64 };
    }
    cells
}

/// One step: `cells[out] = mix(cells[ins])`; the mixing is order-sensitive, so a wrong order shows.
fn step(cells: &[ChunkRef], ins: &[usize], out: usize, salt: u64, spin: usize, small: bool) {
    let (i, o): (Vec<ChunkRef>, ChunkRef) =
        (ins.iter().map(|k| cells[*k].clone()).collect(), cells[out].clone());
    let body = move || {
        let mut v = salt;
        for c in &i {
            // SAFETY: the engine granted these chunks to this operation.
            v = v.wrapping_mul(31).wrapping_add(unsafe { *cell(c) });
        }
        for _ in 0..spin {
            std::hint::spin_loop();
        }
        // SAFETY: as above.
        unsafe { *cell(&o) = (*cell(&o)).rotate_left(7) ^ v };
        Ok(())
    };
    let reads: Vec<&ChunkRef> = ins.iter().map(|k| &cells[*k]).collect();
    let slot = std::cell::RefCell::new(Some(body));
    run(
        &reads,
        &[&cells[out]],
        small,
        0,
        || (slot.borrow_mut().take().unwrap())(),
        || Box::new(slot.borrow_mut().take().unwrap()),
    )
    .unwrap();
}

fn program(seed: u64, naive: bool) -> Vec<u64> {
    let mut dice = Dice(seed);
    let cells = new_cells(7);
    for _ in 0..400 {
        let ins: Vec<usize> = (0..dice.roll(4)).map(|_| dice.roll(7)).collect();
        let (out, salt, spin) = (dice.roll(7), dice.roll(1000) as u64, dice.roll(300));
        let small = dice.roll(3) == 0 || naive;
        step(&cells, &ins, out, salt, spin, small);
    }
    cells
        .iter()
        .map(|c| {
            wait_read(c, None).unwrap();
            // SAFETY: waited for, and this thread issues nothing more.
            unsafe { *cell(c) }
        })
        .collect()
}

#[test]
fn random_programs_give_the_naive_answer() {
    for seed in 0..60 {
        assert_eq!(program(seed, true), program(seed, false), "seed {seed}");
    }
}

#[test]
fn many_threads_issue_at_once() {
    let total = Chunk::new(8, Context::CPU).unwrap();
    // SAFETY: not shared yet.
    unsafe { *cell(&total) = 0 };
    std::thread::scope(|s| {
        for t in 0..4 {
            let total = &total;
            s.spawn(move || {
                for i in 0..500 {
                    let c = total.clone();
                    let add = move || {
                        // SAFETY: granted for writing.
                        unsafe { *cell(&c) += 1 };
                        Ok(())
                    };
                    let again = add.clone();
                    run(&[], &[total], (i + t) % 2 == 0, 0, add, || Box::new(again)).unwrap();
                }
            });
        }
    });
    wait_read(&total, None).unwrap();
    // SAFETY: waited for.
    assert_eq!(unsafe { *cell(&total) }, 2000);
}

#[test]
fn an_error_reaches_what_depends_on_it_and_nothing_else() {
    let cells = new_cells(4);
    let fail = || -> mxrs_base::Result<()> { Err(Error::op("broken")) };
    run(&[&cells[0]], &[&cells[1]], false, 0, fail, || Box::new(fail)).unwrap();
    step(&cells, &[1], 2, 0, 0, false);
    step(&cells, &[0], 3, 0, 0, false);
    assert_eq!(wait_read(&cells[2], None).unwrap_err().message(), "broken");
    assert_eq!(wait_read(&cells[1], None).unwrap_err().message(), "broken");
    wait_read(&cells[3], None).unwrap();
    // Overwriting heals.
    let c = cells[1].clone();
    let write = move || {
        // SAFETY: granted.
        unsafe { *cell(&c) = 5 };
        Ok(())
    };
    run(&[], &[&cells[1]], false, 0, write.clone(), || Box::new(write)).unwrap();
    wait_read(&cells[1], None).unwrap();
}

#[test]
fn a_panic_becomes_an_error() {
    let cells = new_cells(1);
    let boom = || -> mxrs_base::Result<()> { panic!("boom") };
    run(&[], &[&cells[0]], false, 0, boom, || Box::new(boom)).unwrap();
    assert!(wait_read(&cells[0], None).unwrap_err().message().contains("boom"));
}

#[test]
fn independent_operations_overlap() {
    if mxrs_lanes::count() < 2 || is_naive() {
        return;
    }
    let cells = new_cells(2);
    // Each waits for the other: this ends only if both run at the same time.
    let meet = Arc::new(Barrier::new(2));
    let ended = Arc::new(AtomicUsize::new(0));
    for c in &cells {
        let (meet, ended) = (meet.clone(), ended.clone());
        let body = move || {
            meet.wait();
            ended.fetch_add(1, SeqCst);
            Ok(())
        };
        run(&[], &[c], false, 0, body.clone(), || Box::new(body)).unwrap();
    }
    wait_read(&cells[0], None).unwrap();
    wait_read(&cells[1], None).unwrap();
    assert_eq!(ended.load(SeqCst), 2);
    assert!(cells.iter().all(|c| super::queue::is_idle(c)));
}
