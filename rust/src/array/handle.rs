//! The handle itself: creation, windows, and moving bytes in and out.

use super::node::Link;
use super::transfer::{TO_GPU, ask};
use crate::device::{Context, Storage};
use crate::engine::{self, Chunk, ChunkRef, Waited};
use crate::ops::{GpuView, Spec, View};
use mxrs_base::{DType, Elem, Error, Result, Shape};
use std::time::Duration;

/// A contiguous window on a chunk. Cloning shares the memory.
#[derive(Clone)]
pub struct Array {
    pub(super) chunk: ChunkRef,
    /// Where the window starts, in elements.
    pub(super) offset: usize,
    pub(super) spec: Spec,
    /// The recorded value this is, if any.
    pub link: Option<Link>,
}

impl Array {
    /// An array of undefined content.
    pub fn empty(spec: Spec, context: Context) -> Result<Array> {
        Array::result(spec, context, false)
    }

    /// An array that a call is to write. Where the call is held back, on a GPU, it gets its memory when that is issued.
    #[inline]
    pub(super) fn result(spec: Spec, context: Context, held: bool) -> Result<Array> {
        let bytes = spec.bytes()?;
        let chunk = if held { Chunk::unfilled(bytes, context) } else { Chunk::new(bytes, context)? };
        Ok(Array { chunk, offset: 0, spec, link: None })
    }

    /// An array holding a copy of `values`.
    pub fn from_slice<T: Elem>(values: &[T], shape: Shape, context: Context) -> Result<Array> {
        if shape.checked_size()? != values.len() {
            return Err(Error::value(format!("{} values do not fill shape {shape}", values.len())));
        }
        // SAFETY: elements are plain numbers without gaps.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        Array::from_bytes(bytes, Spec::new(shape, T::DTYPE), context)
    }

    /// An array of `spec` holding a copy of raw bytes.
    pub fn from_bytes(bytes: &[u8], spec: Spec, context: Context) -> Result<Array> {
        if spec.bytes()? != bytes.len() {
            return Err(Error::value(format!(
                "{} bytes do not fill {} {}",
                bytes.len(),
                spec.dtype,
                spec.shape
            )));
        }
        let array = Array::empty(spec, context)?;
        match array.chunk.buffer() {
            Some(buffer) => buffer.device().write(buffer, 0, bytes, TO_GPU)?,
            // SAFETY: the chunk is new, so nobody else touches it, and it holds the spec's bytes.
            None => unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), array.chunk.ptr(), bytes.len()) },
        }
        Ok(array)
    }

    /// An array over memory that `owner` keeps alive; `ptr` is aligned for the elements.
    ///
    /// # Safety
    /// `ptr` is valid for reads and writes of the spec's bytes while `owner` lives.
    pub unsafe fn from_foreign(
        ptr: *mut u8,
        spec: Spec,
        context: Context,
        owner: Box<dyn Send + Sync>,
    ) -> Result<Array> {
        let bytes = spec.bytes()?;
        if !(ptr as usize).is_multiple_of(spec.dtype.size()) {
            return Err(Error::value(format!("memory of {} elements is not aligned for them", spec.dtype)));
        }
        Ok(Array {
            chunk: Chunk::over(Storage::Foreign { ptr, owner }, bytes, context),
            offset: 0,
            spec,
            link: None,
        })
    }

    #[inline]
    pub fn shape(&self) -> &Shape {
        &self.spec.shape
    }
    #[inline]
    pub fn dtype(&self) -> DType {
        self.spec.dtype
    }
    #[inline]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }
    #[inline]
    pub fn context(&self) -> Context {
        self.chunk.context()
    }
    #[inline]
    pub fn chunk(&self) -> &ChunkRef {
        &self.chunk
    }
    #[inline]
    pub fn size(&self) -> usize {
        self.spec.shape.size()
    }

    /// The first element's address in host memory. Only an operation that was granted the chunk, or a thread that waited, may use it.
    #[inline]
    pub fn ptr(&self) -> *mut u8 {
        // Windows are only made inside their chunk; memory of a GPU has no address.
        self.chunk.ptr().wrapping_add(self.offset * self.spec.dtype.size())
    }

    /// The elements' bytes in host memory, for an operation that was granted the chunk.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: granted; the window lies in the chunk and holds as many bytes.
        unsafe { std::slice::from_raw_parts(self.ptr(), self.size() * self.dtype().size()) }
    }

    /// The elements' bytes in host memory, for an operation that was granted the chunk for writing. Ask once per operation.
    #[allow(clippy::mut_from_ref)]
    pub(super) fn bytes_mut(&self) -> &mut [u8] {
        // SAFETY: granted to this operation alone; the window lies in the chunk and holds as many bytes.
        unsafe { std::slice::from_raw_parts_mut(self.ptr(), self.size() * self.dtype().size()) }
    }

    /// Where the elements are, if that is on a GPU.
    #[inline]
    pub fn gpu_view(&self) -> Option<GpuView<'_>> {
        let buffer = self.chunk.buffer()?;
        Some(GpuView { buffer, offset: self.offset, spec: &self.spec })
    }

    /// The array in host memory, waited for: itself, or a copy from its GPU.
    pub fn to_host(&self) -> Result<Array> {
        engine::wait_read(&self.chunk, None)?;
        if self.chunk.buffer().is_none() {
            return Ok(self.detach());
        }
        // Nobody else has the chunk yet. The device need not be waited for: the read stands behind its work.
        let host = Array::empty(self.spec.clone(), Context::CPU)?;
        ask(self)?.wait_into(host.bytes_mut())?;
        Ok(host)
    }

    #[inline]
    pub(super) fn view(&self) -> View<'_> {
        View { ptr: self.ptr(), spec: &self.spec }
    }

    /// The same memory without its place on the tape.
    pub fn detach(&self) -> Array {
        Array { chunk: self.chunk.clone(), offset: self.offset, spec: self.spec.clone(), link: None }
    }

    /// The same elements in another shape of the same size (not recorded).
    pub fn with_shape(&self, shape: Shape) -> Result<Array> {
        if shape.checked_size()? != self.size() {
            return Err(Error::value(format!(
                "an array of shape {} cannot be seen as {shape}",
                self.shape()
            )));
        }
        Ok(Array {
            chunk: self.chunk.clone(),
            offset: self.offset,
            spec: Spec::new(shape, self.dtype()),
            link: None,
        })
    }

    /// The window of `shape` that starts `skip` elements in (not recorded).
    pub fn window(&self, skip: usize, shape: Shape) -> Result<Array> {
        let end = shape.checked_size()?.checked_add(skip);
        if end.is_none_or(|end| end > self.size()) {
            return Err(Error::index(format!(
                "a window of {shape} at {skip} leaves an array of {}",
                self.shape()
            )));
        }
        let spec = Spec::new(shape, self.dtype());
        Ok(Array { chunk: self.chunk.clone(), offset: self.offset + skip, spec, link: None })
    }

    /// Whether both are the same window of the same memory.
    pub fn same_memory(&self, other: &Array) -> bool {
        std::sync::Arc::ptr_eq(&self.chunk, &other.chunk)
            && self.offset == other.offset
            && self.spec == other.spec
    }

    /// Waits until the value is there.
    pub fn wait(&self) -> Result<()> {
        engine::wait_read(&self.chunk, None)?;
        self.chunk.buffer().map_or(Ok(()), |buffer| buffer.device().wait())
    }

    /// Like [`Array::wait`], for at most `limit`.
    pub fn wait_for(&self, limit: Duration) -> Result<Waited> {
        let waited = engine::wait_read(&self.chunk, Some(limit))?;
        if let (Waited::Done, Some(buffer)) = (waited, self.chunk.buffer()) {
            buffer.device().wait()?;
        }
        Ok(waited)
    }

    /// The elements, after waiting.
    pub fn to_vec<T: Elem>(&self) -> Result<Vec<T>> {
        if self.dtype() != T::DTYPE {
            return Err(Error::typ(format!("an array of {} was read as {}", self.dtype(), T::DTYPE)));
        }
        let host = self.to_host()?;
        // SAFETY: waited for; the window lies in the chunk and holds initialised elements of this type.
        Ok(unsafe { std::slice::from_raw_parts(host.ptr().cast::<T>(), self.size()) }.to_vec())
    }
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Array({} {} @{})", self.dtype(), self.shape(), self.context())
    }
}
