//! Says which checks did not run on this machine, and why: nothing is skipped in silence.

use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// Prints each ignored test of the workspace with its reason, after what else was `missing`.
pub fn report(root: &Path, missing: &[String]) -> Result<()> {
    let mut found = Vec::new();
    for folder in ["crates", "bench", "xtask"] {
        walk(&root.join(folder), &mut found)?;
    }
    println!("\nNot run here:");
    println!("  GPU checks: they are a task of their own, `cargo xtask test-gpu`.");
    for what in missing {
        println!("  {what}");
    }
    for (file, test, reason) in &found {
        println!(
            "  {}: {test}: {reason}",
            Path::new(file).strip_prefix(root).unwrap_or(Path::new(file)).display()
        );
    }
    if found.is_empty() {
        println!("  Hub files: no test asks for any. Everything else ran.");
    }
    Ok(())
}

/// Without a C++ compiler the CUDA kernels are not emulated (crates/emulator).
pub fn no_cpp_compiler() -> Option<String> {
    let name = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let there = Command::new(&name).arg("--version").output();
    let missing = !there.is_ok_and(|output| output.status.success());
    missing.then(|| format!("CUDA kernels by emulation: there is no C++ compiler `{name}`."))
}

/// Gateways and workers are tested around a real server.
pub fn no_nats_server() -> Option<String> {
    let name = std::env::var("PRIMA_NATS_SERVER").unwrap_or_else(|_| "nats-server".to_owned());
    let there = Command::new(&name).arg("--version").output();
    let missing = !there.is_ok_and(|output| output.status.success());
    missing.then(|| format!("Gateways and workers (crates/fleet): there is no `{name}`; Debian has it as nats-server."))
}

/// Accounts are tested on `SQLite` everywhere.
pub fn no_postgres() -> Option<String> {
    let missing = std::env::var_os("PRIMA_TEST_POSTGRES").is_none();
    missing.then(|| {
        "Accounts on PostgreSQL (crates/fleet): name a database that may be emptied, as postgres://USER@HOST/DATABASE, in \
         PRIMA_TEST_POSTGRES."
            .to_owned()
    })
}

fn walk(folder: &Path, found: &mut Vec<(String, String, String)>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            found.extend(
                ignored(&text)
                    .into_iter()
                    .map(|(t, r)| (path.display().to_string(), t, r)),
            );
        }
    }
    Ok(())
}

/// `(test, reason)` of each `#[ignore]` attribute at the start of a line.
fn ignored(source: &str) -> Vec<(String, String)> {
    let mut lines = source.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(rest) = line.trim().strip_prefix("#[ignore") else {
            continue;
        };
        let reason = rest.split('"').nth(1).unwrap_or("no reason given").to_owned();
        let name = lines
            .by_ref()
            .find_map(|l| l.trim().strip_prefix("fn ")?.split('(').next().map(str::to_owned));
        found.push((name.unwrap_or_default(), reason));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_tests_are_found_with_their_reasons() {
        let source =
            "#[test]\n    #[ignore = \"needs a GPU\"]\n    fn attention_on_cuda() {}\n#[ignore]\nfn other() {}\n";
        let want = [("attention_on_cuda", "needs a GPU"), ("other", "no reason given")];
        assert_eq!(ignored(source), want.map(|(t, r)| (t.to_owned(), r.to_owned())));
    }
}
