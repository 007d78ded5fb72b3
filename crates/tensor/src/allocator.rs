/// Keeps large buffers for reuse. glibc maps fresh pages for each of them and unmaps them when
/// they are dropped; a network allocates one per op, and the page faults cost about a fifth of its time. It also gives
/// each thread an arena of its own, made of parts of 64 MiB, which it unmaps whole when they are empty: after
/// every training step, since the tape is dropped then. So there is one arena, which stays.
/// Call once at the start of a program, before other threads. Does nothing with another allocator.
pub fn keep_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets the allocator's own thresholds, and accepts these values.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives the system back what was freed and is kept all the same: after something large has gone for good.
pub fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim only returns pages that nothing lies in.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Smaller buffers lie in pages that are there.
const LARGE: usize = 2 << 20;

/// Room for `len` values, in huge pages where it is large and the system has them: half of the time of reading a model, and a
/// tenth of that of its first picture, went to faults of small ones.
pub(crate) fn room<T>(len: usize) -> Vec<T> {
    let values: Vec<T> = Vec::with_capacity(len);
    #[cfg(target_os = "linux")]
    if len * size_of::<T>() >= LARGE {
        const PAGE: usize = 4096;
        let (start, bytes) = (values.as_ptr().cast_mut(), len * size_of::<T>());
        // Whole pages: neighbours then become one area, whose huge pages need not end where a buffer does.
        let before = start.addr() % PAGE;
        // SAFETY: it is a wish about how pages come to be, and changes no contents, whosever they are.
        unsafe {
            libc::madvise(
                start.byte_sub(before).cast(),
                (before + bytes).next_multiple_of(PAGE),
                libc::MADV_HUGEPAGE,
            )
        };
    }
    values
}
