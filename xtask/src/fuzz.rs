//! What reads what strangers send, given what nobody should: by cargo-fuzz where it is, else by seeded mutations.

use crate::{cargo, succeeds, target};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

/// Of `prima_fuzz::TARGETS`; each has a folder of seeds.
const TARGETS: [&str; 16] = [
    "safetensors",
    "single_file",
    "gguf",
    "lora",
    "configs",
    "tokenizer",
    "pictures",
    "metadata",
    "prompt",
    "schedule",
    "live",
    "openai",
    "openai_edit",
    "a1111",
    "prediction",
    "comfy",
];

/// `minutes` for one target, or for each.
pub fn long(root: &Path, minutes: f64, only: Option<&str>) -> Result<()> {
    let targets = match only {
        Some(name) if !TARGETS.contains(&name) => bail!("no target {name}; there are {}", TARGETS.join(", ")),
        Some(name) => vec![name],
        None => TARGETS.to_vec(),
    };
    let seconds = (minutes * 60.0).max(1.0);
    if let Some(missing) = no_cargo_fuzz() {
        println!("by seeded mutations, not by coverage: {missing}");
        return mutations(root, &targets, &["seconds", &seconds.to_string()]);
    }
    all(&targets, &root.join("fuzz/artifacts"), |name| {
        let corpus = root.join("fuzz/corpus").join(name);
        std::fs::create_dir_all(&corpus)?;
        let mut command = Command::new("cargo");
        command
            .args(["+nightly", "fuzz", "run", name])
            .arg(corpus)
            .arg(root.join("fuzz/seeds").join(name))
            // Under AddressSanitizer, and on a machine that does other things too, everything takes many times as long.
            .args(["--", "-timeout=20", "-rss_limit_mb=1024", "-print_final_stats=1"])
            .arg(format!("-max_total_time={}", seconds.ceil()))
            .current_dir(root);
        Ok(command)
    })
}

/// The seeds of every target and a fixed number of mutations: the same inputs each time, less than a minute in all.
pub fn short(root: &Path) -> Result<()> {
    mutations(root, &TARGETS, &["count", "short"])
}

/// Runs what `command` says for each target, so that one finding does not hide the next.
fn all(targets: &[&str], findings: &Path, command: impl Fn(&str) -> Result<Command>) -> Result<()> {
    let mut failed = Vec::new();
    for &name in targets {
        let status = command(name)?.status()?;
        if !status.success() {
            println!("{name}: {status}; what it met is in {}", findings.display());
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("fuzzing met something in {}", failed.join(", "))
}

fn mutations(root: &Path, targets: &[&str], until: &[&str; 2]) -> Result<()> {
    cargo(root, &["build", "--release", "-p", "prima-fuzz"])?;
    let findings = target(root).join("fuzz-findings");
    all(targets, &findings, |name| {
        let mut command = Command::new(target(root).join("release/prima-fuzz"));
        command
            .arg(name)
            .arg(root.join("fuzz/seeds").join(name))
            .arg(&findings)
            .args(until);
        Ok(command)
    })
}

fn no_cargo_fuzz() -> Option<&'static str> {
    if !succeeds("cargo", &["+nightly", "--version"]) {
        return Some("there is no nightly Rust");
    }
    let there = succeeds("cargo", &["+nightly", "fuzz", "--version"]);
    (!there).then_some("there is no cargo-fuzz (`cargo install cargo-fuzz`)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn one_finding_does_not_hide_the_next() {
        let error = all(&["a", "b", "c"], Path::new("findings"), |name| {
            Ok(Command::new(if name == "b" { "true" } else { "false" }))
        });
        assert_eq!(error.unwrap_err().to_string(), "fuzzing met something in a, c");
    }

    #[test]
    fn every_target_has_seeds_and_an_entry_for_cargo_fuzz() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        let library = std::fs::read_to_string(fuzz.join("targets/src/lib.rs")).unwrap();
        let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        assert_eq!(library.matches("    target(\"").count(), TARGETS.len());
        for name in TARGETS {
            assert!(library.contains(&format!("target(\"{name}\"")), "{name}");
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            assert!(fuzz.join(format!("fuzz_targets/{name}.rs")).is_file(), "{name}");
            assert!(fuzz.join("seeds").join(name).read_dir().unwrap().count() > 0, "{name}");
        }
    }
}
