//! The project's chores: `cargo xtask check | test | test-gpu | bench | soak | kills | chaos | simulate | fuzz | sanitize | clients | goldens | table`.

mod arrows;
mod benches;
mod browser;
mod circles;
mod fuzz;
mod not_run;
mod nvrtc;
mod outside;
mod serving;
mod table;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "prima's chores")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// The direction of the crates' dependencies, circles of files, licences, format, and clippy with warnings as errors
    Check,
    /// `check`, then every test of the workspace
    Test,
    /// The checks that need an NVIDIA GPU: every op, pictures and training losses against the CPU's
    TestGpu,
    /// Side-by-side measurements on this machine
    Bench {
        #[command(subcommand)]
        bench: benches::Bench,
    },
    /// Bad clients and an honest one against `prima serve`: no panic, flat memory, no suffering
    Soak {
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// Instead: a gateway and three workers, of which one is replaced every minute, under more jobs than they can, with one who types
        #[arg(long)]
        fleet: bool,
    },
    /// `prima train` and `prima paint`, killed at random moments: nothing torn, nothing lost, nothing left behind
    Kills {
        /// For each of the two
        #[arg(long, default_value_t = 200)]
        count: usize,
    },
    /// Jobs through a gateway and three workers while they and NATS are killed at random: none lost, none answered twice
    Chaos {
        #[arg(long, default_value_t = 1000)]
        jobs: usize,
        /// Servers of NATS: 1 or 3
        #[arg(long, default_value_t = 1)]
        nodes: usize,
        /// Of the faults
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// A folder on a file system of a few hundred MB, which runs full at times (as root: mount -t tmpfs -o size=300m none FOLDER)
        #[arg(long)]
        disk: Option<PathBuf>,
    },
    /// A fleet of 1 to 1000 workers as a model, with the times that `bench fleet` recorded: tables, and plots into docs/images
    Simulate,
    /// Files, pictures and texts that nobody should send: each target of fuzz/ for a while
    Fuzz {
        /// For each target
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// One of them: safetensors, single_file, configs, tokenizer, pictures, metadata, prompt, schedule, live, openai, openai_edit,
        /// a1111, prediction
        target: Option<String>,
    },
    /// The engine's tests under AddressSanitizer and ThreadSanitizer, and Miri; says what cannot run here
    Sanitize,
    /// Clients that people use (openai, webuiapi, litellm, langchain, a ComfyUI one), in Python, against `prima serve`
    Clients {
        /// A Python that has the packages of scripts/clients/requirements.txt [default: $PRIMA_PYTHON or python3]
        #[arg(long)]
        python: Option<PathBuf>,
    },
    /// One teacher, the same CPU time for every method of distillation, and what came of it (docs/results)
    Table(Box<table::Args>),
    /// Write the fixtures in goldens/ again, from diffusers
    Goldens {
        /// A Python that has the packages of scripts/goldens/requirements.txt
        #[arg(long, default_value = "python3")]
        python: PathBuf,
        /// The generator to run, a file of scripts/goldens/; without it, lists them
        script: Option<String>,
    },
}

fn main() -> ExitCode {
    match perform(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    let root = workspace_root()?;
    match task {
        Task::Check => {
            if let Some(missing) = check(&root)? {
                println!("\nNot run here:\n  {missing}");
            }
            Ok(())
        }
        Task::Test => {
            let mut missing = Vec::from_iter(check(&root)?);
            browser::check_types(&root)?;
            browser::install();
            missing.extend(nvrtc::install(&target(&root)));
            missing.extend(not_run::no_cpp_compiler());
            missing.extend(not_run::no_nats_server());
            missing.extend(not_run::no_postgres());
            cargo(&root, &["test", "--release", "--workspace"])?;
            test_lesser_processors(&root)?;
            fuzz::short(&root)?;
            missing.extend(serving::clients(&root, None)?);
            not_run::report(&root, &missing)
        }
        Task::TestGpu => test_gpu(&root),
        Task::Bench { bench } => benches::perform(&root, bench),
        Task::Soak { minutes, fleet: false } => benches::soak(&root, minutes),
        Task::Soak { minutes, fleet: true } => benches::with_fleet(&root, "soak", &[&minutes.to_string()]),
        Task::Kills { count } => kills(&root, count),
        Task::Chaos {
            jobs,
            nodes,
            seed,
            disk,
        } => {
            let numbers = [jobs as u64, nodes as u64, seed].map(|number| number.to_string());
            let mut args: Vec<&str> = numbers.iter().map(String::as_str).collect();
            args.extend(disk.as_deref().and_then(Path::to_str));
            benches::with_fleet(&root, "chaos", &args)
        }
        Task::Simulate => benches::simulate(&root),
        Task::Fuzz { minutes, target } => fuzz::long(&root, minutes, target.as_deref()),
        Task::Sanitize => outside::sanitize(&root),
        Task::Clients { python } => match serving::clients(&root, python)? {
            Some(missing) => bail!("not run: {missing}"),
            None => Ok(()),
        },
        Task::Table(args) => table::make(&root, &args),
        Task::Goldens { python, script } => goldens(&root, &python, script.as_deref()),
    }
}

/// The folder above this crate.
fn workspace_root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask lies in the workspace root")?.to_path_buf())
}

/// Where cargo puts what it builds.
fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

/// What could not be checked here, if anything.
fn check(root: &Path) -> Result<Option<String>> {
    arrows::check(root)?;
    circles::check(root)?;
    let missing = outside::deny(root)?;
    cargo(root, &["fmt", "--all", "--check"])?;
    cargo(
        root,
        &[
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    )?;
    // What is shipped does not panic on a value that is not there; tests and examples may.
    cargo(
        root,
        &[
            "clippy",
            "--release",
            "--workspace",
            "--",
            "-D",
            "warnings",
            "-D",
            "clippy::unwrap_used",
            "-D",
            "clippy::expect_used",
        ],
    )?;
    // The binary without GPU code; all below it are the same crates.
    cargo(
        root,
        &[
            "clippy",
            "--release",
            "-p",
            "prima-cli",
            "--bins",
            "--no-default-features",
            "--",
            "-D",
            "warnings",
        ],
    )?;
    Ok(missing)
}

/// The engine's tests as on processors that have less than this one.
fn test_lesser_processors(root: &Path) -> Result<()> {
    for level in ["portable", "avx2", "avx-vnni", "avx512", "avx512-vnni"] {
        println!("the engine's kernels for {level}, or this processor's if it has less:");
        let tests = ["depthwise", "int8", "norm", "pointwise", "products"].map(|test| ["--test", test]);
        run(cargo_in(root)
            .env("PRIMA_CPU", level)
            .args(["test", "--release", "-p", "prima-tensor", "--lib"])
            .args(tests.as_flattened()))?;
    }
    Ok(())
}

/// The test that `test` runs with a few kills, with more.
fn kills(root: &Path, count: usize) -> Result<()> {
    let test = ["test", "--release", "-p", "prima-cli", "--test", "kills"];
    run(cargo_in(root).env("PRIMA_KILLS", count.to_string()).args(test).args([
        "--",
        "--nocapture",
        "--test-threads",
        "1",
    ]))
}

/// Builds the GPU checks as one program, says how to carry it to a machine without cargo, and runs it here.
fn test_gpu(root: &Path) -> Result<()> {
    let example = ["-p", "prima-pipeline", "--example", "test_gpu"];
    cargo(root, &[&["build", "--release"], &example[..]].concat())?;
    let program = target(root).join("release/examples/test_gpu");
    println!(
        "The checks are one program, {}; on a machine without cargo, run it beside a copy of goldens/tiny-sdxl:\n  test_gpu \
         [--device cuda:N] [--model tiny-sdxl]",
        program.display()
    );
    run(Command::new(program).arg("--model").arg(root.join("goldens/tiny-sdxl")))
}

/// The Python that was given, or `$PRIMA_PYTHON`, or python3.
fn python_or_default(given: Option<PathBuf>) -> PathBuf {
    let from_env = || std::env::var_os("PRIMA_PYTHON").map(PathBuf::from);
    given.or_else(from_env).unwrap_or_else(|| "python3".into())
}

/// Runs cargo in the workspace root; its output goes to the terminal.
fn cargo(root: &Path, args: &[&str]) -> Result<()> {
    run(cargo_in(root).args(args))
}

fn cargo_in(root: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root);
    cargo
}

/// Whether a tool is here: it answers this.
fn succeeds(program: &str, args: &[&str]) -> bool {
    let answer = Command::new(program).args(args).output();
    answer.is_ok_and(|output| output.status.success())
}

fn run(command: &mut Command) -> Result<()> {
    let line = describe(command);
    eprintln!("xtask: {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let args = command.get_args().map(|a| a.to_string_lossy().into_owned());
    std::iter::once(program).chain(args).collect::<Vec<_>>().join(" ")
}

/// Runs one generator of `scripts/goldens/`, or says which there are.
fn goldens(root: &Path, python: &Path, script: Option<&str>) -> Result<()> {
    let folder = root.join("scripts/goldens");
    let mut scripts: Vec<String> = std::fs::read_dir(&folder)
        .with_context(|| format!("{} cannot be read", folder.display()))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| Path::new(name).extension().is_some_and(|e| e == "py") && name != "common.py")
        .collect();
    scripts.sort();
    let Some(script) = script else {
        println!("The fixtures in goldens/ come from diffusers. To write them again, in a fresh Python environment:");
        println!("  python3 -m venv .venv && .venv/bin/pip install -r scripts/goldens/requirements.txt");
        for script in scripts {
            println!("  cargo xtask goldens --python .venv/bin/python {script}");
        }
        return Ok(());
    };
    if !scripts.iter().any(|s| s == script) {
        bail!("scripts/goldens has no {script}; it has {}", scripts.join(", "));
    }
    run(Command::new(python).current_dir(root).arg(folder.join(script)))
}
