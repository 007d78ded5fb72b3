//! Other programs' clients against `prima serve`.

use crate::{cargo, python_or_default, run};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The scripts of scripts/clients and the package that each of them is.
const CLIENTS: [(&str, &str); 5] = [
    ("openai_client.py", "openai"),
    ("a1111_client.py", "webuiapi"),
    ("litellm_client.py", "litellm"),
    ("langchain_client.py", "langchain_community"),
    ("comfyui_client.py", "comfy_api_simplified"),
];

/// The clients that are there against a running server, a line for each; says which are not.
pub fn clients(root: &Path, python: Option<PathBuf>) -> Result<Option<String>> {
    let python = python_or_default(python);
    let is_there = |package: &str| {
        let status = Command::new(&python)
            .args([
                "-c",
                &format!("import importlib.util as u, sys; sys.exit(u.find_spec('{package}') is None)"),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    };
    let (there, missing): (Vec<_>, Vec<_>) = CLIENTS.into_iter().partition(|(_, package)| is_there(package));
    if !there.is_empty() {
        cargo(root, &["build", "--release", "-p", "prima-cli"])?;
        let mut server = Server::start(root)?;
        for (script, _) in there {
            let script = root.join("scripts/clients").join(script);
            let args: [OsString; 2] = [script.into(), server.url.clone().into()];
            run(Command::new(&python).args(args))?;
        }
        server.check()?;
    }
    let missing: Vec<&str> = missing.into_iter().map(|(_, package)| package).collect();
    Ok((!missing.is_empty()).then(|| {
        format!(
            "Python clients: python3 (or $PRIMA_PYTHON) lacks {} of scripts/clients/requirements.txt.",
            missing.join(", ")
        )
    }))
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
