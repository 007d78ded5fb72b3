//! Processor time of child processes, which other work on the machine does not change as it changes the clock's.

use anyhow::{Context, Result};

/// Of a second, as Linux tells processor times to programs on every machine that it runs on here.
const TICKS: f64 = 100.0;

/// Processor seconds that the children of `work` took, all of their threads together.
pub fn of(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let before = of_children()?;
    work()?;
    Ok(of_children()? - before)
}

/// `cutime` and `cstime` of proc(5): of all children that were waited for.
fn of_children() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("processor time is told by Linux alone")?;
    parsed(&stat).context("/proc/self/stat is not as proc(5) says")
}

fn parsed(stat: &str) -> Option<f64> {
    // The name before may have spaces and brackets.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(13);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_children_is_read_behind_a_name_with_brackets() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 200 0 0 11 12 250 50 20 0 1 0 100 1000 10";
        assert_eq!(parsed(stat), Some(3.0));
    }

    #[test]
    fn a_child_that_works_costs_time() {
        let burn = || {
            let status = std::process::Command::new("sh")
                .args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"])
                .status();
            assert!(status.unwrap().success());
            Ok(())
        };
        assert!(of(burn).unwrap() > 0.0);
    }
}
