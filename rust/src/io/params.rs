//! NDArray list files (`.params`, `nd.save`): the bytes of MXNet 1.x, read and written.
//!
//! A file is the magic 0x112, a reserved word, a count and that many arrays, then a count of names and the names (none,
//! or one per array). Three layouts of an array are read: version 2 (the one 1.x writes), version 3 (its twin under NumPy
//! shapes, where a scalar is an array), version 1 (no storage type) and the oldest, which begins with its number of
//! dimensions and has 32-bit sizes. All numbers are little-endian. Files are not trusted: every size is checked against
//! the bytes that are left before anything of it is allocated, and errors name what was read and at which offset.
//! What an entry becomes, and list or dict, is decided above.

use mxrs_base::{DType, Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const LIST_MAGIC: u64 = 0x112;
const V1: u32 = 0xF993_FAC8;
const V2: u32 = 0xF993_FAC9;
const V3: u32 = 0xF993_FACA;
/// More dimensions than this are refused, as everywhere in mxrs.
const MAX_NDIM: u32 = 32;

/// One array of a file; the elements are the file's own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub dtype: DType,
    /// The sizes of the dimensions; empty for a scalar.
    pub shape: Vec<i64>,
    /// Device type (1 is the CPU, 2 a GPU) and number of the array when it was saved.
    pub ctx: (i32, i32),
    /// Little-endian elements in row-major order.
    pub data: &'a [u8],
    /// An array that had no memory ("none"): shape () of the versions before 3.
    pub is_none: bool,
}

/// Reads what is left of a file, and knows where it is.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8]> {
        let left = self.bytes.len() - self.at;
        if n > left {
            return Err(self.error(format!("{what} needs {n} bytes, and {left} are left")));
        }
        let part = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(part)
    }
    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }
    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }
    fn i32(&mut self, what: &str) -> Result<i32> {
        Ok(i32::from_le_bytes(self.array(what)?))
    }
    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }
    /// A count of things that take at least `least` bytes each in what is left.
    fn count(&mut self, least: usize, what: &str) -> Result<usize> {
        let start = self.at;
        let n = self.u64(what)?;
        let left = self.bytes.len() - self.at;
        match usize::try_from(n) {
            Ok(n) if n <= left / least => Ok(n),
            _ => Err(at(start, format!("{what} is {n}, more than the {left} bytes left can hold"))),
        }
    }
    fn error(&self, message: String) -> Error {
        at(self.at, message)
    }
}

fn at(offset: usize, message: String) -> Error {
    Error::op(format!("damaged NDArray file, at byte {offset}: {message}"))
}

/// All arrays of a file and their names (none where the file holds a list).
///
/// Errors (`MXNetError`): wrong magic, sizes beyond the file, unknown element or storage types, sparse arrays (by
/// name), names that are not UTF-8, bytes after the end.
pub fn read(bytes: &[u8]) -> Result<(Vec<Entry<'_>>, Vec<String>)> {
    let mut r = Reader { bytes, at: 0 };
    let magic = r.u64("the magic number")?;
    if magic != LIST_MAGIC {
        return Err(at(
            0,
            format!("the magic number is {magic:#x}; an NDArray file begins with {LIST_MAGIC:#x}"),
        ));
    }
    r.u64("the reserved word")?;
    let n = r.count(4, "the number of arrays")?;
    let mut entries = Vec::new();
    for index in 0..n {
        entries.push(read_entry(&mut r).map_err(|e| e.note(&format!("(array {index} of {n})")))?);
    }
    let start = r.at;
    let count = r.count(8, "the number of names")?;
    if count != 0 && count != n {
        return Err(at(start, format!("{count} names for {n} arrays; allowed are none or one per array")));
    }
    let mut names = Vec::new();
    for _ in 0..count {
        let len = r.count(1, "the length of a name")?;
        let start = r.at;
        let name = std::str::from_utf8(r.take(len, "a name")?);
        names.push(name.map_err(|e| at(start, format!("a name is not UTF-8: {e}")))?.to_owned());
    }
    if r.at != bytes.len() {
        return Err(r.error(format!("{} bytes follow the end of the list", bytes.len() - r.at)));
    }
    Ok((entries, names))
}

fn read_entry<'a>(r: &mut Reader<'a>) -> Result<Entry<'a>> {
    let start = r.at;
    let magic = r.u32("the array's magic number")?;
    if magic == V2 || magic == V3 {
        let start = r.at;
        match r.i32("the storage type")? {
            0 => {}
            1 => return Err(at(start, "a row_sparse array; sparse arrays cannot be read yet".into())),
            2 => return Err(at(start, "a csr array; sparse arrays cannot be read yet".into())),
            other => {
                return Err(at(start, format!("unknown storage type {other}; known are 0 (dense), 1, 2")));
            }
        }
    }
    let shape = match magic {
        V1 | V2 | V3 => {
            let ndim = r.i32("the number of dimensions")?;
            // Under NumPy shapes, -1 dimensions say that the shape is unknown: an array without memory.
            if magic == V3 && ndim == -1 { None } else { Some(read_shape(r, ndim as u32, false)?) }
        }
        ndim => {
            if ndim > MAX_NDIM {
                return Err(at(
                    start,
                    format!("{ndim:#x} is neither an array's magic number nor its dimensions"),
                ));
            }
            Some(read_shape(r, ndim, true)?)
        }
    };
    let shape = match shape {
        Some(shape) if magic == V3 || !shape.is_empty() => shape,
        // Nothing more follows an array without memory.
        _ => return Ok(Entry { dtype: DType::F32, shape: vec![], ctx: (1, 0), data: &[], is_none: true }),
    };
    let ctx = (r.i32("the device type")?, r.i32("the device number")?);
    let start = r.at;
    let flag = r.i32("the element type")?;
    let dtype = DType::from_flag(flag as i64).map_err(|e| at(start, e.message().to_owned()))?;
    let bytes = shape.iter().try_fold(dtype.size(), |n, d| n.checked_mul(usize::try_from(*d).ok()?));
    let bytes =
        bytes.ok_or_else(|| r.error(format!("shape {shape:?} has more elements than memory can address")))?;
    let data = r.take(bytes, &format!("the data of shape {shape:?} and type {dtype}"))?;
    Ok(Entry { dtype, shape, ctx, data, is_none: false })
}

fn read_shape(r: &mut Reader, ndim: u32, narrow: bool) -> Result<Vec<i64>> {
    if ndim > MAX_NDIM {
        return Err(r.error(format!("{} dimensions; at most {MAX_NDIM} are allowed", ndim as i32)));
    }
    let mut shape = Vec::with_capacity(ndim as usize);
    for _ in 0..ndim {
        let start = r.at;
        let d = if narrow { r.u32("a dimension")? as i64 } else { r.u64("a dimension")? as i64 };
        if d < 0 {
            return Err(at(start, format!("the dimension {d} is negative")));
        }
        shape.push(d);
    }
    Ok(shape)
}

/// Writes `entries` as MXNet 1.9.1 does: version 2, and all in version 3 where one is a scalar or has no elements
/// (which version 2 cannot say). `names` is empty or has one name per entry.
pub fn write(entries: &[Entry], names: &[String], out: &mut impl Write) -> Result<()> {
    if !names.is_empty() && names.len() != entries.len() {
        let (n, m) = (names.len(), entries.len());
        return Err(Error::value(format!(
            "save: {n} names for {m} arrays; allowed are none or one per array"
        )));
    }
    for e in entries {
        let bytes = e.shape.iter().try_fold(e.dtype.size(), |n, d| n.checked_mul(usize::try_from(*d).ok()?));
        if !e.is_none && bytes != Some(e.data.len()) {
            return Err(Error::value(format!(
                "save: an array of shape {:?} and type {} with {} bytes of data",
                e.shape,
                e.dtype,
                e.data.len()
            )));
        }
    }
    write_list(entries, names, out).map_err(|e| Error::op(format!("save: {e}")))
}

fn write_list(entries: &[Entry], names: &[String], out: &mut impl Write) -> io::Result<()> {
    out.write_all(&LIST_MAGIC.to_le_bytes())?;
    out.write_all(&0u64.to_le_bytes())?;
    out.write_all(&(entries.len() as u64).to_le_bytes())?;
    let numpy = entries.iter().any(|e| !e.is_none && (e.shape.is_empty() || e.shape.contains(&0)));
    for e in entries {
        out.write_all(&(if numpy { V3 } else { V2 }).to_le_bytes())?;
        out.write_all(&0i32.to_le_bytes())?;
        let ndim = if e.is_none && numpy { -1 } else { e.shape.len() as i32 };
        out.write_all(&ndim.to_le_bytes())?;
        for d in &e.shape {
            out.write_all(&d.to_le_bytes())?;
        }
        if e.is_none {
            continue;
        }
        for word in [e.ctx.0, e.ctx.1, e.dtype as i32] {
            out.write_all(&word.to_le_bytes())?;
        }
        out.write_all(e.data)?;
    }
    out.write_all(&(names.len() as u64).to_le_bytes())?;
    for name in names {
        out.write_all(&(name.len() as u64).to_le_bytes())?;
        out.write_all(name.as_bytes())?;
    }
    Ok(())
}

/// Writes a file so that, whenever the process or the machine stops, `path` is the old file or the whole new one:
/// a temporary file beside it, flushed to the disk, takes its name. Symbolic links are followed.
pub fn save_atomic(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let failed = |what: &str, e: io::Error| Error::op(format!("cannot save {}: {what}: {e}", path.display()));
    let path_real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let folder = match path_real.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let (temporary, file) =
        create_beside(&path_real, &folder).map_err(|e| failed("creating a file beside it", e))?;
    let done = (|| {
        let mut out = BufWriter::new(file);
        fill(&mut out)?;
        let file = out.into_inner().map_err(|e| failed("writing", e.into_error()))?;
        if let Ok(old) = fs::metadata(&path_real) {
            // The new file keeps the old one's permissions; failing that is no reason not to save.
            let _ = file.set_permissions(old.permissions());
        }
        file.sync_all().map_err(|e| failed("flushing", e))?;
        fs::rename(&temporary, &path_real).map_err(|e| failed("renaming", e))
    })();
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
        return done;
    }
    #[cfg(unix)]
    File::open(&folder).and_then(|f| f.sync_all()).map_err(|e| failed("flushing the folder", e))?;
    Ok(())
}

/// A new file in `folder` whose name nobody has; two savers at once get different ones.
fn create_beside(path: &Path, folder: &Path) -> io::Result<(PathBuf, File)> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?.to_string_lossy();
    // A long name would make the temporary one too long.
    let stem: String = name.chars().take(40).collect();
    loop {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!(".{stem}.{}.{id}.tmp", std::process::id()));
        match File::create_new(&temporary) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            other => return other.map(|f| (temporary, f)),
        }
    }
}

#[cfg(test)]
#[path = "params_tests.rs"]
mod tests;
