//! What graphics processors the machine has, in an order that does not change from run to run.
//!
//! Real hardware comes first to last as discrete, integrated, virtual, other. A software adapter (Mesa's lavapipe,
//! Microsoft's WARP) is taken only where `MXRS_ALLOW_SOFTWARE_GPU=1` is set: a user who asks for a GPU does not mean
//! the processor in disguise. A greater number lists it that often, each time as a device of its own, so that programs
//! for several GPUs can be tried without any.

use std::sync::OnceLock;

/// What sort of hardware an adapter is, in the order in which adapters are listed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Discrete,
    Integrated,
    Virtual,
    Other,
    Software,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Discrete => "discrete",
            Kind::Integrated => "integrated",
            Kind::Virtual => "virtual",
            Kind::Other => "other",
            Kind::Software => "software",
        }
    }
}

/// Optional capabilities that the shaders make use of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// Half-precision arithmetic in shaders.
    pub f16: bool,
    /// Parameters travel inside the command stream.
    pub immediates: bool,
    /// Begin and end of passes can be timed on the device.
    pub timestamps: bool,
    /// Operations across the invocations of a subgroup.
    pub subgroups: bool,
}

impl Features {
    pub(crate) fn of(features: wgpu::Features) -> Features {
        Features {
            f16: features.contains(wgpu::Features::SHADER_F16),
            immediates: features.contains(wgpu::Features::IMMEDIATES),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            subgroups: features.contains(wgpu::Features::SUBGROUP),
        }
    }

    /// The names of those that are there.
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (self.f16, "f16"),
            (self.immediates, "immediates"),
            (self.timestamps, "timestamps"),
            (self.subgroups, "subgroups"),
        ];
        all.into_iter().filter_map(|(there, name)| there.then_some(name)).collect()
    }
}

/// Storage buffers that a shader may bind, whatever the device allows: a set of them is the bits of a word.
const SLOTS: u32 = 31;

/// The bounds that matter to compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of the largest buffer that a shader can see whole.
    pub buffer_bytes: u64,
    /// Storage buffers that one shader can bind.
    pub storage_buffers: u32,
    /// Bytes of memory that the invocations of a workgroup share.
    pub workgroup_bytes: u32,
    /// Invocations of one workgroup.
    pub workgroup_size: u32,
    /// Bytes of parameters inside the command stream; 0 without that feature.
    pub immediate_bytes: u32,
    /// Workgroups along one axis of a dispatch.
    pub groups_per_axis: u32,
    /// The least and the greatest number of invocations that a subgroup can have.
    pub subgroup_size: (u32, u32),
}

impl Limits {
    pub(crate) fn of(limits: &wgpu::Limits, features: Features, info: &wgpu::AdapterInfo) -> Limits {
        Limits {
            buffer_bytes: limits.max_buffer_size.min(limits.max_storage_buffer_binding_size) & !3,
            storage_buffers: limits.max_storage_buffers_per_shader_stage.min(SLOTS),
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            workgroup_size: limits.max_compute_invocations_per_workgroup,
            immediate_bytes: if features.immediates { limits.max_immediate_size } else { 0 },
            groups_per_axis: limits.max_compute_workgroups_per_dimension,
            subgroup_size: (info.subgroup_min_size, info.subgroup_max_size),
        }
    }
}

/// One adapter: a graphics processor as one of its drivers offers it.
#[derive(Debug)]
pub struct Adapter {
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: &'static str,
    /// The driver's name and version.
    pub driver: String,
    pub kind: Kind,
    pub features: Features,
    pub limits: Limits,
    /// Bytes of the largest heap that is local to the device, where the driver tells.
    pub memory: Option<u64>,
    pub(crate) raw: wgpu::Adapter,
    /// What tells two listings of the same hardware.
    identity: (u32, u32, String),
}

/// The backends that this build can use on this system, in order of preference.
const BACKENDS: wgpu::Backends =
    wgpu::Backends::VULKAN.union(wgpu::Backends::METAL).union(wgpu::Backends::DX12);

impl Adapter {
    fn of(raw: wgpu::Adapter) -> Adapter {
        let info = raw.get_info();
        let features = Features::of(raw.features());
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => Kind::Discrete,
            wgpu::DeviceType::IntegratedGpu => Kind::Integrated,
            wgpu::DeviceType::VirtualGpu => Kind::Virtual,
            wgpu::DeviceType::Cpu => Kind::Software,
            wgpu::DeviceType::Other => Kind::Other,
        };
        Adapter {
            backend: info.backend.to_str(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
            kind,
            features,
            limits: Limits::of(&raw.limits(), features, &info),
            memory: device_memory(&raw),
            identity: (info.vendor, info.device, info.device_pci_bus_id),
            name: info.name,
            raw,
        }
    }

    /// One line for people: name, kind, backend, driver.
    pub fn line(&self) -> String {
        let driver = if self.driver.is_empty() { String::new() } else { format!(", {}", self.driver) };
        format!("{} ({}, {}{driver})", self.name, self.kind.name(), self.backend)
    }
}

/// Bytes of the largest device-local heap. Only Vulkan's interface tells without a window into the system's own.
fn device_memory(raw: &wgpu::Adapter) -> Option<u64> {
    #[cfg(not(target_vendor = "apple"))]
    {
        // SAFETY: the handle is only asked for properties and lives as long as the guard.
        unsafe {
            let adapter = raw.as_hal::<wgpu::hal::api::Vulkan>()?;
            let instance = adapter.shared_instance().raw_instance();
            let memory = instance.get_physical_device_memory_properties(adapter.raw_physical_device());
            let heaps = &memory.memory_heaps[..(memory.memory_heap_count as usize).min(16)];
            // Bit 0 of a heap's flags says that it is local to the device.
            heaps.iter().filter(|h| h.flags.as_raw() & 1 != 0).map(|h| h.size).max()
        }
    }
    #[cfg(target_vendor = "apple")]
    {
        let _ = raw;
        None
    }
}

/// Every adapter of the machine, software ones included, in their order.
pub fn all_adapters() -> &'static [Adapter] {
    static ALL: OnceLock<Vec<Adapter>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut desc = wgpu::InstanceDescriptor::new_without_display_handle();
        desc.backends = BACKENDS;
        desc.flags = wgpu::InstanceFlags::empty();
        let desc = desc.with_env();
        let backends = desc.backends;
        let instance = wgpu::Instance::new(desc);
        let found = pollster::block_on(instance.enumerate_adapters(backends));
        let mut list: Vec<Adapter> = found.into_iter().map(Adapter::of).collect();
        let preference = |a: &Adapter| ["metal", "vulkan", "dx12"].iter().position(|b| *b == a.backend);
        list.sort_by(|a, b| {
            (a.kind, preference(a), &a.identity.2, &a.name).cmp(&(
                b.kind,
                preference(b),
                &b.identity.2,
                &b.name,
            ))
        });
        // The same hardware through a second backend is not a second adapter.
        let mut kept: Vec<Adapter> = Vec::new();
        for adapter in list {
            let twin = |k: &Adapter| k.backend != adapter.backend && same_hardware(k, &adapter);
            if !kept.iter().any(twin) {
                kept.push(adapter);
            }
        }
        kept
    })
}

fn same_hardware(a: &Adapter, b: &Adapter) -> bool {
    let (ka, kb) = (&a.identity, &b.identity);
    (ka.0, ka.1) == (kb.0, kb.1) && (ka.2 == kb.2 || ka.2.is_empty() || kb.2.is_empty())
}

/// How often each software adapter counts; 0 where the environment does not ask for it in a number.
fn software_copies() -> usize {
    let asked = std::env::var("MXRS_ALLOW_SOFTWARE_GPU").ok();
    asked.and_then(|v| v.trim().parse().ok()).map_or(0, |n: usize| n.min(64))
}

/// The adapters that count: the i-th is `mx.gpu(i)`. A software adapter can be there several times.
pub fn adapters() -> Vec<&'static Adapter> {
    let software = software_copies();
    let copies = |a: &Adapter| if a.kind == Kind::Software { software } else { 1 };
    all_adapters().iter().flat_map(|a| std::iter::repeat_n(a, copies(a))).collect()
}

/// What was looked for and what was found, for messages and for people.
pub fn describe() -> String {
    let enabled = wgpu::Instance::enabled_backend_features();
    let backends: Vec<_> = [
        (wgpu::Backends::VULKAN, "Vulkan"),
        (wgpu::Backends::METAL, "Metal"),
        (wgpu::Backends::DX12, "DirectX 12"),
    ]
    .into_iter()
    .filter_map(|(b, name)| enabled.contains(b).then_some(name))
    .collect();
    let found: Vec<String> = all_adapters()
        .iter()
        .map(|a| match a.kind {
            Kind::Software => match software_copies() {
                0 => format!("{}: software, taken only with MXRS_ALLOW_SOFTWARE_GPU=1", a.line()),
                1 => a.line(),
                n => format!("{} (counted {n} times)", a.line()),
            },
            _ => a.line(),
        })
        .collect();
    let found = if found.is_empty() { "no adapter".to_string() } else { found.join("; ") };
    format!("looked for adapters of {}; found {found}", backends.join(", "))
}

/// Which capabilities a device is opened with: all that the adapter has, or less, to test what others must do with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// The adapter's limits and every feature that the shaders know.
    Full,
    /// WebGPU's default limits, which every device of every browser has; no optional feature but f16.
    WebGpu,
    /// The limits of the first Apple processors with Metal 3.
    Metal,
}

/// The features and limits to ask of an adapter.
pub(crate) fn request(adapter: &Adapter, profile: Profile) -> (wgpu::Features, wgpu::Limits) {
    let wanted = wgpu::Features::SHADER_F16
        | wgpu::Features::IMMEDIATES
        | wgpu::Features::TIMESTAMP_QUERY
        | wgpu::Features::SUBGROUP;
    let (features, limits) = match profile {
        Profile::Full => (wanted, adapter.raw.limits()),
        Profile::WebGpu => (wgpu::Features::SHADER_F16, wgpu::Limits::default()),
        Profile::Metal => {
            let limits = wgpu::Limits {
                max_buffer_size: 4 << 30,
                max_storage_buffer_binding_size: 4 << 30,
                max_storage_buffers_per_shader_stage: 29,
                max_compute_workgroup_storage_size: 32 << 10,
                max_compute_invocations_per_workgroup: 1024,
                max_compute_workgroup_size_x: 1024,
                max_compute_workgroup_size_y: 1024,
                max_compute_workgroup_size_z: 1024,
                max_immediate_size: 4096,
                min_storage_buffer_offset_alignment: 32,
                min_uniform_buffer_offset_alignment: 32,
                ..wgpu::Limits::default()
            };
            (wanted, limits)
        }
    };
    (features & adapter.raw.features(), limits.or_worse_values_from(&adapter.raw.limits()))
}
