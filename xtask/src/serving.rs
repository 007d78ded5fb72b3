//! Other programs' clients against `prima serve`.

use crate::{cargo, python_or_default, run};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The clients of scripts/clients against a running server; says why not where Python or the
/// packages are missing.
pub fn clients(root: &Path, python: Option<PathBuf>) -> Result<Option<String>> {
    let python = python_or_default(python);
    let there = Command::new(&python)
        .args(["-c", "import openai, webuiapi"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !there.is_ok_and(|status| status.success()) {
        return Ok(Some(
            "Python clients: python3 (or $PRIMA_PYTHON) lacks the packages of scripts/clients/requirements.txt."
                .to_owned(),
        ));
    }
    cargo(root, &["build", "--release", "-p", "prima-cli"])?;
    let mut server = Server::start(root)?;
    for script in ["openai_client.py", "a1111_client.py"] {
        let script = root.join("scripts/clients").join(script);
        let args: [OsString; 2] = [script.into(), server.url.clone().into()];
        run(Command::new(&python).args(args))?;
    }
    server.check()?;
    Ok(None)
}

fn binary(root: &Path) -> PathBuf {
    crate::target(root)
        .join("release")
        .join(format!("prima{}", std::env::consts::EXE_SUFFIX))
}

/// `prima serve` on a free port, ended when dropped.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(root: &Path) -> Result<Self> {
        let mut process = Command::new(binary(root))
            .args(["serve", "--port", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start prima serve")?;
        let mut url = String::new();
        let output = process.stdout.take().context("no stdout")?;
        BufReader::new(output).read_line(&mut url)?;
        let server = Self {
            process,
            url: url.trim().to_owned(),
        };
        if server.url.is_empty() {
            bail!("prima serve ended without an address");
        }
        Ok(server)
    }

    fn check(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            Some(status) => bail!("prima serve ended: {status}"),
            None => Ok(()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
