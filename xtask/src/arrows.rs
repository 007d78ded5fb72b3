//! The crates' dependencies point down only, as drawn in docs/ARCHITECTURE.md.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::path::Path;
use std::process::Command;

/// What anybody's tests may use: the shipped binary has no emulator in it, and only `cli` and the benches know of CUDA.
const FOR_TESTS: &[&str] = &["prima-cuda", "prima-emulator"];

/// Each crate and all that it may depend on. `server`, `train` and `eval` never see each other.
const ALLOWED: &[(&str, &[&str])] = &[
    ("prima-schedulers", &[]),
    ("prima-tensor", &[]),
    ("prima-picture", &[]),
    ("prima-data", &["prima-picture"]),
    ("prima-cuda", &["prima-tensor"]),
    ("prima-emulator", &["prima-tensor", "prima-cuda"]),
    ("prima-checkpoint", &["prima-tensor"]),
    ("prima-models", &["prima-tensor", "prima-checkpoint"]),
    (
        "prima-finish",
        &["prima-picture", "prima-tensor", "prima-checkpoint", "prima-models"],
    ),
    (
        "prima-pipeline",
        &[
            "prima-picture",
            "prima-tensor",
            "prima-checkpoint",
            "prima-models",
            "prima-schedulers",
        ],
    ),
    (
        "prima-engine",
        &[
            "prima-tensor",
            "prima-checkpoint",
            "prima-models",
            "prima-schedulers",
            "prima-pipeline",
        ],
    ),
    (
        "prima-server",
        &[
            "prima-picture",
            "prima-tensor",
            "prima-checkpoint",
            "prima-models",
            "prima-finish",
            "prima-schedulers",
            "prima-pipeline",
            "prima-engine",
        ],
    ),
    ("prima-hub", &["prima-tensor", "prima-checkpoint"]),
    // It knows HTTP and NATS, and nothing of pictures.
    ("prima-fleet", &[]),
    // It knows HTTP, votes and pictures' files, and no model.
    ("prima-arena", &["prima-picture"]),
    (
        "prima-train",
        &[
            "prima-picture",
            "prima-tensor",
            "prima-checkpoint",
            "prima-models",
            "prima-schedulers",
            "prima-pipeline",
            "prima-data",
        ],
    ),
    (
        "prima-eval",
        &[
            "prima-picture",
            "prima-tensor",
            "prima-checkpoint",
            "prima-models",
            "prima-schedulers",
            "prima-pipeline",
            "prima-data",
        ],
    ),
    (
        "prima-cli",
        &[
            "prima-picture",
            "prima-tensor",
            "prima-cuda",
            "prima-data",
            "prima-checkpoint",
            "prima-models",
            "prima-finish",
            "prima-schedulers",
            "prima-pipeline",
            "prima-engine",
            "prima-server",
            "prima-fleet",
            "prima-train",
            "prima-eval",
            "prima-arena",
            "prima-hub",
        ],
    ),
    (
        "prima-bench",
        &[
            "prima-picture",
            "prima-tensor",
            "prima-cuda",
            "prima-checkpoint",
            "prima-models",
            "prima-finish",
            "prima-schedulers",
            "prima-pipeline",
            "prima-engine",
            "prima-server",
            "prima-train",
            "prima-eval",
            "prima-data",
        ],
    ),
    // Whatever reads what strangers send.
    (
        "prima-fuzz",
        &[
            "prima-picture",
            "prima-checkpoint",
            "prima-models",
            "prima-finish",
            "prima-schedulers",
            "prima-pipeline",
            "prima-server",
        ],
    ),
    ("xtask", &[]),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// Set for crates of this workspace.
    path: Option<String>,
    /// `dev` for what only tests, examples and benches use.
    kind: Option<String>,
}

/// Fails with every arrow that points up or sideways.
pub fn check(root: &Path) -> Result<()> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("cannot start `cargo metadata`")?;
    if !output.status.success() {
        bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("`cargo metadata` is not JSON")?;
    let wrong = wrong_arrows(&metadata.packages);
    if !wrong.is_empty() {
        bail!(
            "dependencies point down only (docs/ARCHITECTURE.md):\n  {}",
            wrong.join("\n  ")
        );
    }
    eprintln!(
        "xtask: dependencies of {} crates point down only",
        metadata.packages.len()
    );
    Ok(())
}

fn wrong_arrows(packages: &[Package]) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in packages {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
            wrong.push(format!("{} has no line in xtask/src/arrows.rs", package.name));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| d.path.is_some()) {
            let name = dependency.name.as_str();
            let for_tests = dependency.kind.as_deref() == Some("dev") && FOR_TESTS.contains(&name);
            if !for_tests && !allowed.contains(&name) {
                wrong.push(format!("{} may not depend on {name}", package.name));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        let dependency = |d: &&str| Dependency {
            name: (*d).to_owned(),
            path: Some("crates/x".to_owned()),
            kind: None,
        };
        Package {
            name: name.to_owned(),
            dependencies: dependencies.iter().map(dependency).collect(),
        }
    }

    #[test]
    fn arrows_down_pass() {
        assert!(wrong_arrows(&[package("prima-models", &["prima-tensor", "prima-checkpoint"])]).is_empty());
    }

    #[test]
    fn arrows_up_and_sideways_and_unknown_crates_are_named() {
        let packages = [
            package("prima-tensor", &["prima-models"]),
            package("prima-eval", &["prima-train"]),
            package("extra", &[]),
        ];
        let wrong = wrong_arrows(&packages);
        assert_eq!(wrong.len(), 3);
        assert_eq!(wrong[0], "prima-tensor may not depend on prima-models");
        assert_eq!(wrong[1], "prima-eval may not depend on prima-train");
        assert!(wrong[2].starts_with("extra has no line"));
    }

    #[test]
    fn the_emulator_is_for_tests_only() {
        let mut train = package("prima-train", &["prima-emulator"]);
        assert_eq!(
            wrong_arrows(std::slice::from_ref(&train)),
            ["prima-train may not depend on prima-emulator"]
        );
        train.dependencies[0].kind = Some("dev".to_owned());
        assert!(wrong_arrows(&[train]).is_empty());
    }

    #[test]
    fn the_table_itself_has_no_cycle() {
        // Each crate may only depend on crates listed before it.
        for (i, (name, allowed)) in ALLOWED.iter().enumerate() {
            for dependency in *allowed {
                assert!(
                    ALLOWED[..i].iter().any(|(n, _)| n == dependency),
                    "{name} -> {dependency}"
                );
            }
        }
    }
}
