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
