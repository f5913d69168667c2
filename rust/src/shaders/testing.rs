//! What the tests of the templates share: a device, typed bytes, and the translation of every text to the languages of
//! the other systems.

use mxrs_base::{DType, Elem};
use mxrs_gpu::{Buffer, Device, Profile, all_adapters, describe};

/// Runs `test` on the first adapter with all it has, with WebGPU's limits and with Metal's; then checks every shader
/// that was compiled. Says aloud where there is no adapter.
pub fn on_devices(test: impl Fn(&Device)) {
    on_profiles(&[Profile::Full, Profile::WebGpu, Profile::Metal], test);
}

/// The same with some of the three: a shader of a few hundred lines takes a software adapter seconds to compile.
pub fn on_profiles(profiles: &[Profile], test: impl Fn(&Device)) {
    let Some(adapter) = all_adapters().first() else {
        eprintln!("skipped: {}", describe());
        return;
    };
    for profile in profiles {
        let device = Device::open(adapter, *profile).expect("the adapter opens");
        test(&device);
        device.wait().expect("no operation failed");
        for (name, text) in device.shader_texts() {
            translate(&name, &text);
        }
        device.close();
    }
}

/// Validates a WGSL text and translates it to SPIR-V, MSL and HLSL.
pub fn translate(name: &str, text: &str) {
    use naga::back::{hlsl, msl, spv};
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    let module = naga::front::wgsl::parse_str(text)
        .unwrap_or_else(|e| panic!("{name}: {}\n{text}", e.emit_to_string(text)));
    let capabilities = Capabilities::IMMEDIATES | Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|e| panic!("{name}: {e:?}\n{text}"));
    let binary = spv::write_vec(&module, &info, &spv::Options::default(), None);
    assert!(!binary.unwrap_or_else(|e| panic!("{name} as SPIR-V: {e}\n{text}")).is_empty());

    let entry = naga::ShaderStage::Compute;
    let options = msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
    let pipeline = msl::PipelineOptions { entry_point: Some((entry, "main".into())), ..Default::default() };
    let metal = msl::write_string(&module, &info, &options, &pipeline);
    assert!(metal.unwrap_or_else(|e| panic!("{name} as MSL: {e}\n{text}")).0.contains("kernel"));

    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_2,
        fake_missing_bindings: true,
        immediates_target: Some(hlsl::BindTarget::default()),
        ..Default::default()
    };
    let pipeline = hlsl::PipelineOptions { entry_point: Some((entry, "main".into())) };
    let mut out = String::new();
    let mut writer = hlsl::Writer::new(&mut out, &options, &pipeline);
    writer.write(&module, &info, None).unwrap_or_else(|e| panic!("{name} as HLSL: {e}\n{text}"));
    assert!(out.contains("numthreads"));
}

pub fn upload<T: Elem>(device: &Device, values: &[T]) -> Buffer {
    let bytes = mxrs_kernels::parts::bytes_of(values);
    let buffer = device.alloc(bytes.len() as u64).unwrap();
    device.write(&buffer, 0, bytes, "upload").unwrap();
    buffer
}

pub fn download<T: Elem>(device: &Device, buffer: &Buffer) -> Vec<T> {
    let bytes = device.read(buffer, 0, buffer.len(), "download").unwrap().wait().unwrap();
    let size = T::DTYPE.size();
    let value = |b: &[u8]| match T::DTYPE {
        DType::F32 => T::from_f64(f32::from_ne_bytes(b.try_into().unwrap()) as f64),
        DType::F16 => T::from_f64(mxrs_base::f16::from_ne_bytes(b.try_into().unwrap()).to_f64()),
        DType::I32 => T::from_i64(i32::from_ne_bytes(b.try_into().unwrap()) as i64),
        DType::I64 => T::from_i64(i64::from_ne_bytes(b.try_into().unwrap())),
        DType::F64 => T::from_f64(f64::from_ne_bytes(b.try_into().unwrap())),
        DType::I8 => T::from_i64(b[0] as i8 as i64),
        _ => T::from_i64(b[0] as i64),
    };
    bytes.chunks_exact(size).map(value).collect()
}

/// Numbers between -2 and 2 that look random and are the same every time.
pub fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2654435761).wrapping_add(12345);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 24) as f32 * 4.0 - 2.0
    };
    (0..n).map(|_| next()).collect()
}

/// Whether two results agree to `relative` of the larger scale.
#[track_caller]
pub fn assert_close(got: &[f32], want: &[f32], relative: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().filter(|v| v.is_finite()).fold(1e-6f32, |m, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let same = g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= relative * scale;
        assert!(same, "{what}: element {i} is {g}, not {w} (scale {scale})");
    }
}
