//! How much memory this machine has left for a model.

use std::path::Path;

/// Free and all memory in bytes, swap included, within the limit of the process's control group; `None` where the system
/// does not say (other than Linux).
pub(crate) fn free_and_total() -> Option<(usize, usize)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| number_after(&text, name).map(|kib| kib << 10);
    let swap = |name: &str| field(name).unwrap_or(0);
    let free = field("MemAvailable:")? + swap("SwapFree:");
    let total = field("MemTotal:")? + swap("SwapTotal:");
    Some(match group_limit() {
        Some((left, limit)) => (free.min(left), total.min(limit)),
        None => (free, total),
    })
}

/// What the control group may still take, and all that it may. Pages of files do not count: they are given back.
fn group_limit() -> Option<(usize, usize)> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = Path::new("/sys/fs/cgroup").join(path);
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
    // "max" where there is no limit.
    let limit: usize = read("memory.max")?.trim().parse().ok()?;
    let used = number_after(&read("memory.stat")?, "anon ")?;
    Some((limit.saturating_sub(used), limit))
}

/// The number that follows `name` at the start of a line.
fn number_after(text: &str, name: &str) -> Option<usize> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_the_start_of_their_line() {
        let text = "MemTotal:       24000 kB\nMemAvailable:    9000 kB\n";
        assert_eq!(number_after(text, "MemAvailable:"), Some(9000));
        assert_eq!(number_after(text, "Available:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_says_what_it_has() {
        let (free, total) = free_and_total().unwrap();
        assert!(0 < free && free <= total);
    }
}
