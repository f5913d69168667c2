//! Devices on the first adapter that the machine has; a machine without one skips these tests and says so.

use mxrs_base::ErrorKind;
use mxrs_gpu::{Buffer, Device, Key, Params, Profile, Shader, Slot, all_adapters, describe, linear_groups};

/// A device of its own for a test, or `None` (said aloud) where there is no adapter.
fn device(profile: Profile) -> Option<Device> {
    match all_adapters().first() {
        Some(adapter) => Some(Device::open(adapter, profile).expect("the adapter opens")),
        None => {
            eprintln!("skipped: {}", describe());
            None
        }
    }
}

const PROFILES: [Profile; 3] = [Profile::Full, Profile::WebGpu, Profile::Metal];

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|w| f32::from_ne_bytes(w.try_into().unwrap())).collect()
}

fn upload(device: &Device, values: &[f32]) -> Buffer {
    let buffer = device.alloc(4 * values.len() as u64).unwrap();
    device.write(&buffer, 0, &bytes(values), "upload").unwrap();
    buffer
}

fn download(device: &Device, buffer: &Buffer) -> Vec<f32> {
    floats(&device.read(buffer, 0, buffer.len(), "download").unwrap().wait().unwrap())
}

/// y[i] = a * x[i] + y[i]
fn axpy(device: &Device, a: f32, x: &Buffer, y: &Buffer) {
    let body = "
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) l: u32) {
    let i = mx_group(g) * 64u + l;
    if (i < p.n) { y[i] = p.a * x[i] + y[i]; }
}";
    let make = || {
        let shader = Shader::new("axpy", body).slot(Slot::read("x", "f32")).slot(Slot::write("y", "f32"));
        Ok(shader.param("n", "u32").param("a", "f32"))
    };
    let pipeline = device.pipeline(&Key::new("axpy"), make).unwrap();
    let n = y.len() / 4;
    let params = Params::new().u32(n as u32).f32(a);
    device.dispatch(&pipeline, &[x, y], params, linear_groups(n.div_ceil(64)).unwrap(), "axpy").unwrap();
}

#[test]
fn bytes_make_round_trips() {
    for profile in PROFILES {
        let Some(d) = device(profile) else { return };
        for len in [0usize, 1, 3, 4, 5, 255, 256, 65536, 70001, 5 << 20] {
            let data: Vec<u8> = (0..len).map(|i| (i * 7 + 3) as u8).collect();
            let buffer = d.alloc(len as u64).unwrap();
            d.write(&buffer, 0, &data, "w").unwrap();
            assert_eq!(d.read(&buffer, 0, len as u64, "r").unwrap().wait().unwrap(), data, "{len} bytes");
            if len > 10 {
                let mut part = vec![0; len - 6];
                d.read(&buffer, 5, (len - 6) as u64, "r").unwrap().wait_into(&mut part).unwrap();
                assert_eq!(part, data[5..len - 1]);
            }
        }
        d.close();
    }
}

#[test]
fn large_writes_travel_in_pieces() {
    let Some(d) = device(Profile::Full) else { return };
    let data: Vec<u8> = (0..(70usize << 20) + 2).map(|i| (i ^ i >> 11) as u8).collect();
    let buffer = d.alloc(data.len() as u64).unwrap();
    for _ in 0..5 {
        d.write(&buffer, 0, &data, "w").unwrap();
    }
    assert!(d.read(&buffer, 0, buffer.len(), "r").unwrap().wait().unwrap() == data);
    d.close();
}

#[test]
fn commands_run_in_order() {
    for profile in PROFILES {
        let Some(d) = device(profile) else { return };
        let one = upload(&d, &[1.0; 1000]);
        let y = upload(&d, &[0.0; 1000]);
        axpy(&d, 2.0, &one, &y);
        let early = d.read(&y, 0, 4000, "r").unwrap();
        d.write(&y, 2000, &bytes(&[10.0; 500]), "w").unwrap();
        axpy(&d, 3.0, &one, &y);
        let z = d.alloc(4000).unwrap();
        d.copy(&y, 0, &z, 0, 4000, "c").unwrap();
        d.fill(&y, 0, 400, 0, "zero").unwrap();
        d.fill(&y, 400, 400, 7.5f32.to_bits(), "fill").unwrap();
        assert_eq!(download(&d, &z), [vec![5.0; 500], vec![13.0; 500]].concat());
        assert_eq!(download(&d, &y)[..201], [vec![0.0; 100], vec![7.5; 100], vec![5.0]].concat());
        // Read before all of that, and waited for after it.
        assert_eq!(floats(&early.wait().unwrap()), vec![2.0; 1000]);
        d.close();
    }
}

#[test]
fn an_output_may_be_an_input() {
    for profile in PROFILES {
        let Some(d) = device(profile) else { return };
        let y = upload(&d, &[3.0; 333]);
        axpy(&d, 2.0, &y, &y);
        assert_eq!(download(&d, &y), vec![9.0; 333]);
        axpy(&d, -1.0, &y, &y);
        assert_eq!(download(&d, &y), vec![0.0; 333]);
        d.wait().unwrap();
        d.close();
    }
}

#[test]
fn more_than_65535_workgroups_are_folded() {
    let Some(d) = device(Profile::WebGpu) else { return };
    let n = 64 * 70_000 + 5;
    let one = upload(&d, &vec![1.0; n]);
    let y = upload(&d, &vec![0.5; n]);
    axpy(&d, 2.0, &one, &y);
    assert!(download(&d, &y).iter().all(|v| *v == 2.5));
    assert!(linear_groups(1 << 40).is_err());
    d.close();
}

#[test]
fn parameters_may_be_many() {
    // More than travel as immediates, and in all more than the buffer of a batch holds.
    for profile in [Profile::Full, Profile::WebGpu] {
        let Some(d) = device(profile) else { return };
        let (n, each) = (300, 600);
        let y = upload(&d, &vec![0.0; n]);
        let body = "@compute @workgroup_size(1)\nfn main() { y[p.at] = p.q0 + p.q500; }";
        let shader = |count: usize| {
            let shader = Shader::new("many", body).slot(Slot::write("y", "f32")).param("at", "u32");
            Ok((0..count).fold(shader, |s, q| s.param(format!("q{q}"), "f32")))
        };
        let pipeline = d.pipeline(&Key::new("many"), || shader(each)).unwrap();
        for i in 0..n {
            let params = (0..each).fold(Params::new().u32(i as u32), |p, q| p.f32((i * q) as f32));
            d.dispatch(&pipeline, &[&y], params, [1, 1, 1], "many").unwrap();
        }
        let want: Vec<f32> = (0..n).map(|i| (i * 500) as f32).collect();
        assert_eq!(download(&d, &y), want);
        let error = d.pipeline(&Key::new("more"), || shader(2000)).err().unwrap();
        assert!(error.message().contains("2001 parameters"), "{error}");
        d.close();
    }
}

#[test]
fn freed_memory_is_used_again() {
    let Some(d) = device(Profile::Full) else { return };
    let a = d.alloc(1000).unwrap();
    let b = d.alloc(5000).unwrap();
    let used = d.memory().used;
    assert!((6000..8000).contains(&used));
    drop(a);
    let memory = d.memory();
    assert!(memory.pooled > 0 && memory.used + memory.pooled == used && memory.peak == used);
    d.reset_counts();
    let a = d.alloc(900).unwrap();
    assert_eq!((d.counts().buffers, d.memory().used), (0, used));
    // Memory whose last use is still queued can be handed out: what comes later in the queue runs later.
    let one = upload(&d, &[1.0; 200]);
    for i in 0..200 {
        let y = upload(&d, &[i as f32; 200]);
        axpy(&d, 1.0, &one, &y);
        let read = d.read(&y, 0, 800, "r").unwrap();
        drop(y);
        let z = upload(&d, &[-1.0; 200]);
        axpy(&d, 1.0, &one, &z);
        assert_eq!(floats(&read.wait().unwrap()), vec![i as f32 + 1.0; 200]);
    }
    assert!(d.counts().buffers <= 3);
    drop((a, b, one));
    d.empty_pool().unwrap();
    assert_eq!((d.memory().used, d.memory().pooled), (0, 0));
    d.close();
}

#[test]
fn too_much_memory_is_an_error() {
    let Some(d) = device(Profile::Full) else { return };
    let error = d.alloc(1 << 60).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Memory);
    assert!(d.alloc(u64::MAX).is_err());
    d.set_memory_limit(Some(1 << 20));
    let a = d.alloc(600 << 10).unwrap();
    let error = d.alloc(600 << 10).unwrap_err();
    assert!(error.kind() == ErrorKind::Memory && error.message().contains("limit"), "{error}");
    drop(a);
    // What the pool keeps gives way to what is asked for.
    d.alloc(900 << 10).unwrap();
    d.alloc(400).unwrap();
    assert_eq!(download(&d, &upload(&d, &[1.0, 2.0])), [1.0, 2.0]);
    d.close();
}

#[test]
fn bad_calls_are_refused_by_name() {
    let Some(d) = device(Profile::Full) else { return };
    let broken = Shader::new("broken", "fn main( {").slot(Slot::write("y", "f32"));
    let error = d.pipeline(&Key::new("broken"), || Ok(broken)).err().unwrap();
    assert!(error.message().contains("'broken'"), "{error}");
    let body = "@compute @workgroup_size(1) fn main() { y[0] = p.a; }";
    let make = || Ok(Shader::new("one", body).slot(Slot::write("y", "f32")).param("a", "f32"));
    let one = d.pipeline(&Key::new("one"), make).unwrap();
    let y = d.alloc(10).unwrap();
    let run =
        |buffers: &[&Buffer], params, groups| d.dispatch(&one, buffers, params, groups, "op").unwrap_err();
    assert!(
        run(&[], Params::new().f32(1.0), [1, 1, 1]).message().starts_with("op: GPU kernel 'one' binds 1")
    );
    assert!(run(&[&y], Params::new(), [1, 1, 1]).message().contains("takes 1 parameters"));
    assert!(run(&[&y], Params::new().f32(1.0), [1 << 20, 1, 1]).message().contains("workgroups"));
    assert_eq!(d.write(&y, 8, &[0; 4], "w").unwrap_err().kind(), ErrorKind::Index);
    assert!(d.write(&y, 0, &[0; 5], "w").is_err());
    assert!(d.read(&y, u64::MAX, 2, "r").is_err());
    assert!(d.copy(&y, 0, &y, 4, 4, "c").is_err());
    let other = device(Profile::Full).unwrap();
    assert!(other.write(&y, 0, &[0; 4], "w").unwrap_err().message().contains("another device"));
    d.wait().unwrap();
    d.close();
    other.close();
}

#[test]
fn a_lost_device_leaves_others_alone() {
    let (Some(d), Some(other)) = (device(Profile::Full), device(Profile::Full)) else { return };
    let x = upload(&d, &[1.0; 10]);
    let ticket = d.read(&x, 0, 40, "reading x").unwrap();
    d.destroy();
    assert!(ticket.wait().is_err());
    assert!(d.alloc(4).unwrap_err().message().contains("lost"));
    assert!(d.write(&x, 0, &[0; 4], "writing x").unwrap_err().message().starts_with("writing x"));
    assert!(d.wait().is_err());
    drop(x);
    assert_eq!(download(&other, &upload(&other, &[4.0])), [4.0]);
    other.close();
}

#[test]
fn threads_share_a_device() {
    let Some(d) = device(Profile::Full) else { return };
    std::thread::scope(|scope| {
        for t in 0..4 {
            let d = &d;
            scope.spawn(move || {
                let one = upload(d, &[1.0; 257]);
                let y = upload(d, &[t as f32; 257]);
                for i in 0..1500 {
                    axpy(d, 1.0, &one, &y);
                    if i % 400 == 0 {
                        assert_eq!(download(d, &y)[256], (t + i + 1) as f32);
                    }
                }
                assert_eq!(download(d, &y), vec![(1500 + t) as f32; 257]);
            });
        }
    });
    assert_eq!(d.counts().dispatches, 6000);
    d.close();
}

#[test]
fn nothing_is_made_after_warm_up() {
    for profile in PROFILES {
        let Some(d) = device(profile) else { return };
        let one = upload(&d, &[1.0; 100]);
        let step = || {
            let mut y = upload(&d, &[0.0; 100]);
            for _ in 0..100 {
                let z = d.alloc(400).unwrap();
                d.copy(&y, 0, &z, 0, 400, "c").unwrap();
                axpy(&d, 1.0, &one, &z);
                y = z;
            }
            assert_eq!(download(&d, &y), vec![100.0; 100]);
        };
        step();
        d.reset_counts();
        step();
        let counts = d.counts();
        assert_eq!((counts.dispatches, counts.bytes_read), (100, 400));
        let made =
            [counts.pipelines, counts.layouts, counts.bind_groups, counts.buffers, counts.staging_buffers];
        assert_eq!(made, [0; 5], "{counts:?}");
        assert!(counts.submits <= 4, "{counts:?}");
        d.close();
    }
}

#[test]
fn dispatches_are_timed() {
    let Some(d) = device(Profile::Full) else { return };
    let before = std::time::Instant::now();
    if !d.profile_start().unwrap() {
        return;
    }
    let (x, y) = (upload(&d, &vec![1.0; 100_000]), upload(&d, &vec![0.0; 100_000]));
    for _ in 0..1100 {
        axpy(&d, 1.0, &x, &y);
    }
    d.profile_stop().unwrap();
    axpy(&d, 1.0, &x, &y);
    let spans = d.profile_take().unwrap();
    assert_eq!(spans.len(), 1100);
    assert!(spans.iter().all(|s| s.label == "axpy" && s.kernel == "axpy" && s.begin <= s.end));
    assert!(spans.windows(2).all(|w| w[0].begin <= w[1].begin));
    assert!(spans[0].begin > before && spans[1099].end < std::time::Instant::now());
    assert_eq!(download(&d, &y)[7], 1101.0);
    d.close();
}

#[test]
fn a_missing_gpu_says_what_was_found() {
    let error = Device::get(99).unwrap_err();
    assert!(error.message().starts_with("gpu(99): there "), "{error}");
    assert!(error.message().contains("looked for adapters of"), "{error}");
}
