//! Compiled shaders, each compiled once.

use crate::counters::add;
use crate::device::Shared;
use crate::error;
use crate::shader::{Access, PARAM_BYTES, Shader};
use mxrs_base::{Error, Result};
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;

/// What tells one shader from another without its text: a template's name and what its text depends on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    template: &'static str,
    words: SmallVec<[u64; 14]>,
}

impl Key {
    #[inline]
    pub fn new(template: &'static str) -> Key {
        Key { template, words: SmallVec::new() }
    }
    /// The key with one more thing that the text depends on.
    #[inline]
    pub fn with(mut self, word: u64) -> Key {
        self.words.push(word);
        self
    }
}

/// A shader that a device can run.
pub struct Pipeline {
    pub(crate) shader: Shader,
    /// Parameters come from a uniform buffer: the device has no immediates, or not so many bytes of them.
    pub(crate) uniform: bool,
    /// The text as it stands.
    plain: Arc<Compiled>,
    /// Texts in which inputs that share a buffer with an output are writable; bit i for slot i.
    in_place: Mutex<Vec<(u32, Arc<Compiled>)>>,
}

/// One compiled text.
pub(crate) struct Compiled {
    pub id: u32,
    pub name: String,
    pub raw: wgpu::ComputePipeline,
    pub layout: Arc<Layout>,
    /// 0 where parameters travel as immediates or there are none.
    pub uniform_bytes: u32,
}

/// The shape of a bind group, shared by all pipelines that bind alike.
pub(crate) struct Layout {
    pub id: u32,
    pub group: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
    uniform: bool,
}

#[derive(PartialEq, Eq, Hash)]
struct LayoutKey {
    access: SmallVec<[Access; 8]>,
    immediates: u32,
    uniform: u32,
}

#[derive(Default)]
pub(crate) struct Pipelines {
    known: RwLock<HashMap<Key, Arc<Pipeline>>>,
    /// Held while compiling, so that nothing is compiled twice.
    layouts: Mutex<HashMap<LayoutKey, Arc<Layout>>>,
    ids: Mutex<u32>,
}

impl Pipeline {
    pub fn name(&self) -> &str {
        &self.shader.name
    }

    /// The text for buffers of which `same` tells which share memory.
    pub(crate) fn compiled(
        &self,
        shared: &Shared,
        same: impl Fn(usize, usize) -> bool,
    ) -> Result<Arc<Compiled>> {
        let slots = &self.shader.slots;
        let mut writable = 0u32;
        for (o, _) in slots.iter().enumerate().filter(|(_, s)| s.access == Access::ReadWrite) {
            for (i, _) in slots.iter().enumerate().filter(|(_, s)| s.access == Access::Read) {
                if same(i, o) {
                    writable |= 1 << i;
                }
            }
        }
        if writable == 0 {
            return Ok(self.plain.clone());
        }
        let mut variants = self.in_place.lock();
        if let Some((_, compiled)) = variants.iter().find(|(mask, _)| *mask == writable) {
            return Ok(compiled.clone());
        }
        let compiled = shared.pipelines.compile(shared, &self.shader, writable, self.uniform)?;
        variants.push((writable, compiled.clone()));
        Ok(compiled)
    }
}

impl Pipelines {
    /// The pipeline of `key`; `make` writes its shader when it is asked for the first time.
    pub fn get(
        &self,
        shared: &Shared,
        key: &Key,
        make: impl FnOnce() -> Result<Shader>,
    ) -> Result<Arc<Pipeline>> {
        if let Some(pipeline) = self.known.read().get(key) {
            return Ok(pipeline.clone());
        }
        let shader = make()?;
        let bytes = shader.param_bytes();
        let uniform = bytes > shared.limits.immediate_bytes;
        let plain = self.compile(shared, &shader, 0, uniform)?;
        let pipeline = Arc::new(Pipeline { shader, uniform, plain, in_place: Mutex::default() });
        // Where two threads came at once the first one's is kept.
        Ok(self.known.write().entry(key.clone()).or_insert(pipeline).clone())
    }

    /// Name and WGSL of everything compiled so far, as it was compiled.
    pub fn texts(&self) -> Vec<(String, String)> {
        let mut texts = Vec::new();
        for pipeline in self.known.read().values() {
            let masks: Vec<u32> = pipeline.in_place.lock().iter().map(|(mask, _)| *mask).collect();
            for mask in std::iter::once(0).chain(masks) {
                texts.push((pipeline.name().to_string(), pipeline.shader.wgsl(mask, pipeline.uniform)));
            }
        }
        texts
    }

    fn compile(
        &self,
        shared: &Shared,
        shader: &Shader,
        writable: u32,
        uniform: bool,
    ) -> Result<Arc<Compiled>> {
        let what = format!("GPU kernel '{}'", shader.name);
        shared.faults.check(&what)?;
        if shader.slots.len() as u32 > shared.limits.storage_buffers {
            let (n, most) = (shader.slots.len(), shared.limits.storage_buffers);
            return Err(Error::op(format!("{what} binds {n} buffers; this device allows {most}")));
        }
        if shader.param_bytes() > PARAM_BYTES {
            let n = shader.params.len();
            return Err(Error::op(format!("{what} has {n} parameters; {} are allowed", PARAM_BYTES / 4)));
        }
        if shader.f16 && !shared.features.f16 {
            return Err(Error::typ(format!("{what}: float16 is not supported by {}", shared.name)));
        }
        let text = shader.wgsl(writable, uniform);
        let layout = self.layout(shared, shader, writable, uniform)?;
        let raw = error::scoped(&shared.raw, &what, || {
            let source = wgpu::ShaderSource::Wgsl(text.as_str().into());
            let descriptor = wgpu::ShaderModuleDescriptor { label: Some(&shader.name), source };
            let mut checks = wgpu::ShaderRuntimeChecks::checked();
            checks.force_loop_bounding = false;
            checks.bounds_checks = !shader.trusted;
            // SAFETY: the shaders are this project's own. Their loops end; those that are trusted stay inside their
            // buffers by construction, as `Shader::trusted` demands.
            let module = unsafe { shared.raw.create_shader_module_trusted(descriptor, checks) };
            shared.raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&shader.name),
                layout: Some(&layout.pipeline),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[],
                    zero_initialize_workgroup_memory: false,
                },
                cache: None,
            })
        })?;
        add(&shared.counters.pipelines, 1);
        let mut ids = self.ids.lock();
        *ids += 1;
        let uniform_bytes = if uniform { shader.param_bytes() } else { 0 };
        let name = shader.name.to_string();
        Ok(Arc::new(Compiled { id: *ids, name, raw, layout, uniform_bytes }))
    }

    fn layout(&self, shared: &Shared, shader: &Shader, writable: u32, uniform: bool) -> Result<Arc<Layout>> {
        let access: SmallVec<[Access; 8]> = shader
            .slots
            .iter()
            .enumerate()
            .map(|(i, s)| if writable >> i & 1 != 0 { Access::ReadWrite } else { s.access })
            .collect();
        let bytes = shader.param_bytes();
        let (immediates, uniform) = if uniform { (0, bytes) } else { (bytes, 0) };
        let mut layouts = self.layouts.lock();
        let key = LayoutKey { access, immediates, uniform };
        if let Some(layout) = layouts.get(&key) {
            return Ok(layout.clone());
        }
        let entry = |binding: usize, ty: wgpu::BufferBindingType, dynamic: bool| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: dynamic, min_binding_size: None },
            count: None,
        };
        let storage = |(i, access): (usize, &Access)| {
            entry(i, wgpu::BufferBindingType::Storage { read_only: *access == Access::Read }, false)
        };
        let mut entries: Vec<_> = key.access.iter().enumerate().map(storage).collect();
        if uniform > 0 {
            entries.push(entry(key.access.len(), wgpu::BufferBindingType::Uniform, true));
        }
        let (group, pipeline) = error::scoped(&shared.raw, &format!("GPU kernel '{}'", shader.name), || {
            let group = shared.raw.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: None,
                entries: &entries,
            });
            let pipeline = shared.raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&group)],
                immediate_size: immediates,
            });
            (group, pipeline)
        })?;
        add(&shared.counters.layouts, 1);
        let layout = Arc::new(Layout { id: layouts.len() as u32, group, pipeline, uniform: uniform > 0 });
        layouts.insert(key, layout.clone());
        Ok(layout)
    }
}

impl Layout {
    /// The bind group of these buffers; `uniform` is the device's parameter buffer and the bytes one dispatch sees.
    pub fn bind<'a>(
        &self,
        device: &wgpu::Device,
        buffers: impl Iterator<Item = &'a wgpu::Buffer>,
        uniform: Option<(&'a wgpu::Buffer, u32)>,
    ) -> wgpu::BindGroup {
        let whole = |(i, buffer): (usize, &'a wgpu::Buffer)| wgpu::BindGroupEntry {
            binding: i as u32,
            resource: buffer.as_entire_binding(),
        };
        let mut entries: SmallVec<[_; 9]> = buffers.enumerate().map(whole).collect();
        if let (true, Some((buffer, bytes))) = (self.uniform, uniform) {
            let size = std::num::NonZeroU64::new(bytes as u64);
            entries.push(wgpu::BindGroupEntry {
                binding: entries.len() as u32,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: 0, size }),
            });
        }
        let layout = &self.group;
        device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
    }
}
