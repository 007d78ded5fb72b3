//! What the page's checks need: a browser for `crates/server/tests/studio.rs`, and the type check of `web/`.

use anyhow::Result;
use std::path::Path;
use std::process::{Command, Stdio};

/// Debian's Chromium and its driver, put in where they are missing and this may be done. Without
/// them the browser test says that it did not run.
pub fn install() {
    if runs("chromedriver", &["--version"]) || !runs("apt-get", &["--version"]) {
        return;
    }
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|o| o.stdout.trim_ascii() == b"0");
    let packages = ["install", "-y", "chromium", "chromium-driver"];
    let line = format!("apt-get {}", packages.join(" "));
    if !root {
        eprintln!("xtask: the browser test wants `{line}`, which only root may do");
        return;
    }
    // The first try may fail for want of package lists.
    let installed = runs("apt-get", &packages) || (runs("apt-get", &["update"]) && runs("apt-get", &packages));
    if !installed {
        eprintln!("xtask: `{line}` failed");
    }
}

/// Checks the types of the page's modules, where node and npm are.
pub fn check_types(root: &Path) -> Result<()> {
    if !runs("node", &["--version"]) || !runs("npm", &["--version"]) {
        println!("not run: the type check of web/ (node and npm are not installed)");
        return Ok(());
    }
    // Installed below target/: web/ is embedded in the binary as it is.
    let folder = root.join("target/web-check");
    std::fs::create_dir_all(&folder)?;
    for name in ["package.json", "package-lock.json"] {
        std::fs::copy(root.join("web").join(name), folder.join(name))?;
    }
    let compiler = folder.join("node_modules/.bin/tsc");
    if !compiler.exists() {
        let installed = Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(&folder)
            .status();
        if !installed.is_ok_and(|status| status.success()) {
            println!("not run: the type check of web/ (npm could not install TypeScript)");
            return Ok(());
        }
    }
    crate::run(Command::new(compiler).arg("-p").arg(root.join("web/jsconfig.json")))
}

fn runs(program: &str, args: &[&str]) -> bool {
    let status = Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
