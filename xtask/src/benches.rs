//! The programs of `bench/`, beside other engines where a script of it brings them.

use crate::{cargo, describe, python_or_default, run, target};
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Subcommand)]
pub enum Bench {
    /// GFLOP/s of each op of the engine beside the machine's measured peak
    Ops {
        /// Beside PyTorch and ONNX Runtime, in the same run
        #[arg(long)]
        peers: bool,
        /// A Python that has torch, and onnxruntime and onnx if it shall [default: $PRIMA_PYTHON or python3]
        #[arg(long)]
        python: Option<PathBuf>,
        /// With peers, for the script: --rounds 5 --threads N --only conv,attention --json FILE; alone: --list, --json NUMBER...
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// How long LoRAs take to come and go on a model, and whether they leave a trace
    Loras {
        /// A diffusers folder or a single file
        model: String,
        /// Changes
        #[arg(default_value_t = 50)]
        rounds: usize,
    },
    /// Nanoseconds a value of the ops that memory limits
    Pointwise,
    /// SDXL and training on an NVIDIA GPU beside PyTorch
    Gpu {
        /// A Python that has torch, diffusers and transformers [default: $PRIMA_PYTHON or python3]
        #[arg(long)]
        python: Option<PathBuf>,
        /// For the bench: --device cuda:1 --dtype f32 --only train --json FILE; --device cpu --tiny tries it without a GPU
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Jobs a second of 1, 2 and 3 workers on this machine, and what a typist feels of queued jobs; writes bench/fleet.json
    Fleet,
    /// A whole model at full size beside PyTorch through diffusers, on the CPU
    Peers {
        /// A Python that has torch, diffusers and transformers [default: $PRIMA_PYTHON or python3]
        #[arg(long)]
        python: Option<PathBuf>,
        /// For the script: --model FOLDER (bench/peers/make_sdxl.py makes one) --dtype f32 --size 1024 --rounds 3 --json FILE
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// From keystroke to picture in the studio, with 1, 4 and 16 typists
    Studio {
        /// For the bench: --typists 1,4 --speed 8 --script FILE --json
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

pub fn perform(root: &Path, bench: Bench) -> Result<()> {
    match bench {
        Bench::Ops { peers, python, args } => {
            let program = build(root, "ops")?;
            if peers {
                beside_peers(&root.join("bench/ops/bench.py"), &program, python, &args)
            } else {
                run(Command::new(program).args(args))
            }
        }
        Bench::Loras { model, rounds } => run(Command::new(build(root, "loras")?).args([model, rounds.to_string()])),
        Bench::Fleet => with_fleet(root, "measure", &[&fleet_times(root)]),
        Bench::Pointwise => run(&mut Command::new(build(root, "pointwise")?)),
        Bench::Gpu { python, args } => gpu(root, python, &args),
        Bench::Peers { python, args } => {
            let program = built(root, "prima-cli", "prima")?;
            beside_peers(&root.join("bench/peers/bench.py"), &program, python, &args)
        }
        Bench::Studio { args } => run(Command::new(build(root, "studio")?).args(args)),
    }
}

/// Bad clients beside an honest one, against the same server in a process of its own.
pub fn soak(root: &Path, minutes: f64) -> Result<()> {
    run(Command::new(build(root, "soak")?).args(["--minutes", &minutes.to_string()]))
}

/// Builds a program of the package `bench/` and says where it is.
fn build(root: &Path, program: &str) -> Result<PathBuf> {
    built(root, "prima-bench", program)
}

pub fn built(root: &Path, package: &str, program: &str) -> Result<PathBuf> {
    cargo(root, &["build", "--release", "-p", package, "--bin", program])?;
    Ok(target(root)
        .join("release")
        .join(format!("{program}{}", std::env::consts::EXE_SUFFIX)))
}

/// Builds prima's side of the bench as one program, says how to carry it to a machine without cargo, and runs both sides here.
fn gpu(root: &Path, python: Option<PathBuf>, args: &[String]) -> Result<()> {
    let program = build(root, "gpu")?;
    let script = root.join("bench/gpu/bench.py");
    println!(
        "The bench is one program, {}, and one script, {}; on a machine without cargo:\n  python3 bench.py --prima ./gpu",
        program.display(),
        script.display()
    );
    beside_peers(&script, &program, python, args)
}

/// Runs a script that measures a program beside others.
fn beside_peers(script: &Path, program: &Path, python: Option<PathBuf>, args: &[String]) -> Result<()> {
    let mut command = Command::new(python_or_default(python));
    command.arg(script).arg("--prima").arg(program).args(args);
    let line = describe(&command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    match status.code() {
        Some(0) => Ok(()),
        // 3: something is missing here, and the script said what.
        Some(code) => std::process::exit(code),
        None => bail!("`{line}` was ended"),
    }
}

/// What `bench fleet` writes.
fn fleet_times(root: &Path) -> String {
    root.join("bench/fleet.json").display().to_string()
}

/// An example of `crates/fleet` with the release binary, which it starts as often as it wants.
pub fn with_fleet(root: &Path, example: &str, args: &[&str]) -> Result<()> {
    cargo(root, &["build", "--release", "-p", "prima-cli"])?;
    let prima = target(root).join("release/prima").display().to_string();
    fleet_example(root, example, &[&[prima.as_str()], args].concat())
}

/// `crates/fleet/examples/simulate.rs`, without any of them.
pub fn simulate(root: &Path) -> Result<()> {
    let (times, images) = (fleet_times(root), root.join("docs/images").display().to_string());
    fleet_example(root, "simulate", &[&times, &images])
}

fn fleet_example(root: &Path, example: &str, args: &[&str]) -> Result<()> {
    let command = ["run", "--release", "-p", "prima-fleet", "--example", example, "--"];
    cargo(root, &[&command[..], args].concat())
}
