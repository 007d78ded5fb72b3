//! Files whose bytes are used where they lie, and how many of their pages a process keeps.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Bytes of weights that pass through: what is multiplied with and what was just before.
const PASSING: usize = 128 << 20;
/// Pages are mapped in these.
const PAGE: usize = 4096;

/// A file in memory, which is not read before its bytes are looked at.
pub struct MappedFile {
    start: *const u8,
    len: usize,
    /// Open as long as it is mapped.
    _file: File,
    /// Whose pages are counted, and whether they may stay.
    kept: Option<(Arc<Residency>, bool)>,
}

// SAFETY: the bytes are only read, and belong to this until it is dropped.
unsafe impl Send for MappedFile {}
// SAFETY: as above.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    /// All of `file`. With a [`Residency`] its weights count there; they stay in memory as far as there is room if the flag
    /// says so, and else pass through.
    ///
    /// # Errors
    /// Of the system, of an empty file, and on systems other than Unix.
    ///
    /// # Safety
    /// Nobody changes or shortens the file as long as this is there.
    #[cfg(unix)]
    pub unsafe fn new(file: File, kept: Option<(Arc<Residency>, bool)>) -> io::Result<Arc<Self>> {
        use std::os::fd::AsRawFd;
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        // SAFETY: a new map at a place that the system chooses; its arguments are checked there.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Arc::new(Self {
            start: start.cast(),
            len,
            _file: file,
            kept,
        }))
    }

    /// # Safety
    /// None is needed where nothing is mapped.
    #[cfg(not(unix))]
    pub unsafe fn new(_: File, _: Option<(Arc<Residency>, bool)>) -> io::Result<Arc<Self>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: they are mapped, and whoever made this promised that nobody changes them.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// Tells the system of the whole pages of `range` what is to become of them; a wish, whose failure changes no result.
    fn advise(&self, range: Range<usize>, advice: Advice) {
        #[cfg(unix)]
        {
            let advice = match advice {
                Advice::Release => libc::MADV_DONTNEED,
                Advice::ReadAhead => libc::MADV_WILLNEED,
                #[cfg(target_os = "linux")]
                Advice::Map => libc::MADV_POPULATE_READ,
                #[cfg(not(target_os = "linux"))]
                Advice::Map => libc::MADV_WILLNEED,
            };
            let first = range.start / PAGE * PAGE;
            let end = range.end.min(self.len);
            if first < end {
                // SAFETY: the range lies inside the map. Its pages are those of a file that nobody changes: whichever are let
                // go come back with the same bytes when they are looked at.
                unsafe { libc::madvise(self.start.add(first).cast_mut().cast(), end - first, advice) };
            }
        }
        #[cfg(not(unix))]
        let _ = (range, advice);
    }
}

#[derive(Clone, Copy)]
enum Advice {
    /// The process does without them; they stay in the system's cache as long as there is room.
    Release,
    /// They are needed soon.
    ReadAhead,
    /// They are needed now.
    Map,
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        #[cfg(unix)]
        // SAFETY: the map is this one's own, and nobody has its bytes any more.
        unsafe {
            libc::munmap(self.start.cast_mut().cast(), self.len);
        }
    }
}

/// Some bytes of a mapped file.
#[derive(Clone)]
pub struct MappedBytes {
    file: Arc<MappedFile>,
    range: Range<usize>,
}

impl MappedBytes {
    /// `None` if they do not lie inside the file.
    pub fn new(file: &Arc<MappedFile>, range: Range<usize>) -> Option<Self> {
        file.bytes().get(range.clone())?;
        Some(Self {
            file: file.clone(),
            range,
        })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.file.bytes()[self.range.clone()]
    }

    /// They are about to be multiplied with.
    pub(crate) fn used(&self) {
        if let Some((residency, may_stay)) = &self.file.kept {
            residency.used(self, *may_stay);
        }
    }
}

impl std::fmt::Debug for MappedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MappedBytes({:?})", self.range)
    }
}

/// How many bytes of mapped weights stay in the memory of this process. Those that come first stay, as far as there is room;
/// all others are let go once the next ones are used, while the system reads ahead those that follow in their file. (Keeping
/// what was used last would keep nothing: a network uses its weights one after the other, again and again.)
pub struct Residency {
    bytes: usize,
    state: Mutex<Resident>,
}

#[derive(Default)]
struct Resident {
    /// By the address of the map, and where in it.
    staying: HashSet<(usize, usize)>,
    staying_bytes: usize,
    passing: VecDeque<(Weak<MappedFile>, Range<usize>)>,
    passing_bytes: usize,
}

impl Residency {
    /// The least that can be asked for: what passes through.
    pub const LEAST: usize = PASSING;

    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes,
            state: Mutex::default(),
        })
    }

    fn used(&self, part: &MappedBytes, may_stay: bool) {
        let (file, range) = (&part.file, &part.range);
        let id = (Arc::as_ptr(file).addr(), range.start);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.staying.contains(&id) {
            return;
        }
        if may_stay && (state.staying_bytes + range.len()).saturating_add(PASSING) <= self.bytes {
            state.staying.insert(id);
            state.staying_bytes += range.len();
            drop(state);
            return file.advise(range.clone(), Advice::Map);
        }
        let is_there = |(other, at): &(Weak<MappedFile>, Range<usize>)| {
            at.start == range.start && Weak::as_ptr(other).addr() == id.0
        };
        if state.passing.iter().any(is_there) {
            return;
        }
        state.passing.push_back((Arc::downgrade(file), range.clone()));
        state.passing_bytes += range.len();
        while state.passing_bytes > PASSING && state.passing.len() > 1 {
            if let Some((other, at)) = state.passing.pop_front() {
                state.passing_bytes -= at.len();
                if let Some(other) = other.upgrade() {
                    other.advise(at, Advice::Release);
                }
            }
        }
        drop(state);
        file.advise(range.end..range.end + PASSING / 2, Advice::ReadAhead);
        file.advise(range.clone(), Advice::Map);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn weights_stay_as_far_as_there_is_room_and_pass_through_beyond() {
        let mut file = tempfile::tempfile().unwrap();
        let part = PASSING / 2;
        for value in 0..6 {
            file.write_all(&vec![value; part]).unwrap();
        }
        let residency = Residency::new(2 * part + PASSING);
        // SAFETY: the file has no name, so nobody else has it.
        let map = unsafe { MappedFile::new(file, Some((residency.clone(), true))) }.unwrap();
        for round in 0..2 {
            for i in 0..6 {
                let bytes = MappedBytes::new(&map, i * part..(i + 1) * part).unwrap();
                bytes.used();
                assert!(bytes.bytes().iter().all(|&b| b == i as u8), "round {round}");
                let state = residency.state.lock().unwrap();
                assert_eq!(state.staying_bytes, part * 2.min(i + 1).max(2 * round));
                assert!(state.passing_bytes <= PASSING);
            }
        }
        assert!(MappedBytes::new(&map, 6 * part..6 * part + 1).is_none());
    }
}
