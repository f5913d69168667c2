//! Bytes to, from and on a device, in order with dispatches.

use crate::buffer::Buffer;
use crate::command::Command;
use crate::counters::add;
use crate::device::{Device, Shared};
use crate::pipeline::Key;
use crate::readback::Ticket;
use crate::shader::{Params, Shader, Slot, linear_groups};
use crate::staging::PIECE;
use mxrs_base::{Error, Result};
use std::sync::Arc;

impl Device {
    /// Writes `bytes` to the buffer from `at` on, in order with dispatches; the bytes are copied before it returns.
    ///
    /// # Errors
    /// If the range is not the buffer's, or `at` or the length is no multiple of four. The length may be any where the
    /// write reaches the buffer's end.
    pub fn write(&self, buffer: &Buffer, at: u64, bytes: &[u8], label: &'static str) -> Result<()> {
        let shared = &self.0;
        shared.check_range(buffer, at, bytes.len() as u64, true, label)?;
        let mut to = at;
        for piece in bytes.chunks(PIECE as usize) {
            while shared.staging.is_full() && !self.is_lost() {
                // The oldest pages come free when what was sent so far is through.
                self.catch_up();
            }
            let (page, from) =
                shared.staging.put(&shared.raw, &shared.counters, piece).map_err(|e| e.within(label))?;
            let len = (piece.len() as u64).next_multiple_of(4);
            let chunk = buffer.0.chunk.clone();
            shared.send(Command::Upload { page, from, chunk, to, bytes: len, label }, label)?;
            to += piece.len() as u64;
        }
        add(&shared.counters.bytes_written, bytes.len() as u64);
        Ok(())
    }

    /// Waits until everything sent so far is through, whatever became of it.
    fn catch_up(&self) {
        if let Ok(seq) = self.0.send(Command::Flush, "writing to the GPU") {
            self.0.settle(seq);
        }
        let _ = self.0.raw.poll(wgpu::PollType::Poll);
    }

    /// Begins to read `len` bytes from `at` on, as they are after what was queued before. Later work is not held up.
    pub fn read(&self, buffer: &Buffer, at: u64, len: u64, label: &'static str) -> Result<Ticket> {
        let shared = &self.0;
        shared.check_range(buffer, at, len, false, label)?;
        let from = at & !3;
        let bytes = (at + len - from).next_multiple_of(4).max(4);
        let landing =
            shared.landings.get(&shared.raw, &shared.counters, bytes).map_err(|e| e.within(label))?;
        let command =
            Command::Read { chunk: buffer.0.chunk.clone(), from, bytes, landing: landing.clone(), label };
        let seq = shared.send(command, label)?;
        add(&shared.counters.bytes_read, len);
        let (from, len) = ((at - from) as usize, len as usize);
        Ok(Ticket { shared: shared.clone(), landing, seq, from, len, label })
    }

    /// Copies bytes between two buffers. They must not be the same memory: a kernel copies within one.
    pub fn copy(
        &self,
        source: &Buffer,
        from: u64,
        target: &Buffer,
        to: u64,
        bytes: u64,
        label: &'static str,
    ) -> Result<()> {
        let shared = &self.0;
        shared.check_range(source, from, bytes, true, label)?;
        shared.check_range(target, to, bytes, true, label)?;
        if source.same_memory(target) {
            return Err(Error::op(format!("{label}: a GPU buffer cannot be copied onto itself")));
        }
        if bytes == 0 {
            return Ok(());
        }
        add(&shared.counters.bytes_copied, bytes);
        let (source, target) = (source.0.chunk.clone(), target.0.chunk.clone());
        let bytes = bytes.next_multiple_of(4);
        shared.send(Command::Copy { source, from, target, to, bytes, label }, label)?;
        Ok(())
    }

    /// Fills words (four bytes each) with `word`: `at` and `bytes` are as for [`Device::write`].
    pub fn fill(&self, buffer: &Buffer, at: u64, bytes: u64, word: u32, label: &'static str) -> Result<()> {
        let shared = &self.0;
        shared.check_range(buffer, at, bytes, true, label)?;
        if bytes == 0 {
            return Ok(());
        }
        let len = bytes.next_multiple_of(4);
        if word == 0 {
            let chunk = buffer.0.chunk.clone();
            shared.send(Command::Clear { chunk, from: at, bytes: len, label }, label)?;
            return Ok(());
        }
        let pipeline = self.pipeline(&Key::new("fill words"), || {
            Ok(Shader::new("fill words", FILL)
                .slot(Slot::write("y", "u32"))
                .param("first", "u32")
                .param("n", "u32")
                .param("word", "u32")
                .trusted())
        })?;
        let words = len / 4;
        let params = Params::new().size((at / 4) as usize)?.size(words as usize)?.u32(word);
        self.dispatch(&pipeline, &[buffer], params, linear_groups(words.div_ceil(256))?, label)
    }
}

const FILL: &str = "
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = mx_group(group) * 256u + local;
    if (i < p.n) { y[p.first + i] = p.word; }
}
";

impl Shared {
    /// Refuses a range that is not the buffer's, or (`words`) not made of whole words, and a lost device.
    fn check_range(&self, buffer: &Buffer, at: u64, len: u64, words: bool, label: &str) -> Result<()> {
        if !std::ptr::eq(Arc::as_ptr(&buffer.0.shared), self) {
            buffer.0.shared.faults.check(label)?;
            return Err(Error::op(format!("{label}: {buffer:?} belongs to another device")));
        }
        self.faults.check(label)?;
        let end = at.checked_add(len).filter(|end| *end <= buffer.len());
        let Some(end) = end else {
            return Err(Error::index(format!("{label}: {len} bytes at {at} are not inside {buffer:?}")));
        };
        let whole = at.is_multiple_of(4) && (len.is_multiple_of(4) || end == buffer.len());
        if words && !whole {
            return Err(Error::op(format!(
                "{label}: {len} bytes at {at} do not begin and end with words of four bytes"
            )));
        }
        Ok(())
    }
}
