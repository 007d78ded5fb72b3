//! Checks by tools that not every machine has: cargo-deny, the sanitizers and Miri of nightly Rust.

use crate::{run, succeeds, target};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// Licences, bans and sources of the dependencies (`deny.toml`); why not, where it cannot run. Known vulnerabilities are
/// looked for where their database can be had.
pub fn deny(root: &Path) -> Result<Option<String>> {
    if !succeeds("cargo", &["deny", "--version"]) {
        return Ok(Some(
            "licences, bans and sources of dependencies: there is no cargo-deny (`cargo install cargo-deny --locked`)."
                .to_owned(),
        ));
    }
    let deny = |args: &[&str]| {
        let mut command = Command::new("cargo");
        command.arg("deny").args(args).current_dir(root);
        command
    };
    run(&mut deny(&[
        "--log-level",
        "error",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]))?;
    let fetched = deny(&["fetch", "db"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !fetched {
        return Ok(Some(
            "advisories of dependencies: their database cannot be reached.".to_owned(),
        ));
    }
    run(&mut deny(&[
        "--log-level",
        "error",
        "check",
        "--hide-inclusion-graph",
        "advisories",
    ]))?;
    Ok(None)
}

/// The engine's tests under AddressSanitizer and ThreadSanitizer, and Miri on what it can run. Says what did not run, and
/// why.
pub fn sanitize(root: &Path) -> Result<()> {
    if !succeeds("cargo", &["+nightly", "--version"]) {
        println!("not run: the sanitizers and Miri need nightly Rust (`rustup toolchain install nightly`)");
        return Ok(());
    }
    let host = "x86_64-unknown-linux-gnu";
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        println!("not run: the sanitizers are set up for {host} only");
        return Ok(());
    }
    let nightly = |folder: &str, args: &[&str]| {
        let mut command = Command::new("cargo");
        command
            .arg("+nightly")
            .args(args)
            .env("CARGO_TARGET_DIR", target(root).join(folder))
            .current_dir(root);
        command
    };
    let test = ["test", "--release", "--target", host, "-p", "prima-tensor", "--tests"];
    run(nightly("asan", &test).env("RUSTFLAGS", "-Zsanitizer=address"))?;
    if has_component("rust-src") {
        // Without a standard library of its own kind, ThreadSanitizer reports every channel and lock.
        run(nightly("tsan", &[&test[..], &["-Zbuild-std"]].concat()).env("RUSTFLAGS", "-Zsanitizer=thread"))?;
    } else {
        println!("not run: ThreadSanitizer needs `rustup component add rust-src --toolchain nightly`");
    }
    if has_component("miri") && has_component("rust-src") {
        // It knows neither vector instructions of processors nor files that are mapped.
        run(&mut nightly(
            "miri",
            &["miri", "test", "-p", "prima-schedulers", "--lib"],
        ))?;
    } else {
        println!("not run: Miri needs `rustup component add miri rust-src --toolchain nightly`");
    }
    Ok(())
}

fn has_component(name: &str) -> bool {
    let list = Command::new("rustup")
        .args(["component", "list", "--toolchain", "nightly"])
        .output();
    list.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .any(|line| line.starts_with(name) && line.ends_with("(installed)"))
    })
}
