//! Host time of a dispatch: on the calling thread, and until the worker has encoded and submitted it. The kernel does
//! next to nothing, so a software adapter serves as well as a real one.

use mxrs_gpu::{Device, Key, Params, Profile, Shader, Slot, all_adapters, describe};
use std::time::Instant;

fn main() {
    let Some(adapter) = all_adapters().first() else {
        println!("skipped: {}", describe());
        return;
    };
    println!("{}", adapter.line());
    for profile in [Profile::Full, Profile::WebGpu] {
        let device = Device::open(adapter, profile).expect("the adapter opens");
        let body = "@compute @workgroup_size(1) fn main() { y[0] = x[0] + p.a; }";
        let make = || {
            let shader = Shader::new("tiny", body).slot(Slot::read("x", "f32")).slot(Slot::write("y", "f32"));
            Ok(shader.param("a", "f32").param("n", "u32").param("m", "u32"))
        };
        let pipeline = device.pipeline(&Key::new("tiny"), make).expect("it compiles");
        let buffers: Vec<_> = (0..64).map(|_| device.alloc(4096).expect("memory")).collect();
        for n in [2_000usize, 20_000, 100_000] {
            device.wait().expect("idle");
            device.reset_counts();
            let before = worker_time();
            let start = Instant::now();
            for i in 0..n {
                let (x, y) = (&buffers[i % 64], &buffers[(i + 1) % 64]);
                let params = Params::new().f32(1.0).u32(i as u32).u32(3);
                device.dispatch(&pipeline, &[x, y], params, [1, 1, 1], "tiny").expect("accepted");
            }
            let called = start.elapsed();
            device.wait().expect("done");
            let done = start.elapsed();
            let worker = (worker_time() - before) / n as f64;
            let micros = |t: std::time::Duration| t.as_secs_f64() * 1e6 / n as f64;
            println!(
                "{profile:?} {n:>7} dispatches: {:.2} us a call, {worker:.2} us of its worker, {:.2} us until done, {} submits, {} bind groups",
                micros(called),
                micros(done),
                device.counts().submits,
                device.counts().bind_groups
            );
        }
        device.close();
    }
}

/// Microseconds of processor time that workers have used, where the system tells.
fn worker_time() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let workers = tasks.map(|t| t.path()).filter(|t| read(t.join("comm")).trim() == "mxrs-gpu");
    let nanos = workers.filter_map(|t| read(t.join("schedstat")).split(' ').next()?.parse::<f64>().ok());
    nanos.sum::<f64>() / 1e3
}
