//! The mutation run of stable Rust: `prima-fuzz TARGET SEEDS FINDINGS (count N | seconds S)`. Prints executions and their
//! rate. A panic, more than a second or more than 512 MiB is a finding: its input is kept in FINDINGS and the exit code is
//! 1. What ends the process (memory that is refused, a stack that is full) leaves its input there as `TARGET-last`.

use prima_fuzz::mutate::{Random, mutated};
use prima_fuzz::{TARGETS, Target};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MAX_TIME: Duration = Duration::from_secs(1);
/// After this it is taken for a loop without end.
const HANG_SECONDS: u64 = 20;
const MAX_MEMORY_KIB: u64 = 512 << 10;
/// Executions between two looks at the memory.
const MEMORY_EVERY: u64 = 16;
/// The seed of every run: the same inputs everywhere.
const SEED: u64 = 20_250_101;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("prima-fuzz: {message}");
            ExitCode::from(2)
        }
    }
}

/// The number of findings.
fn run(args: &[String]) -> Result<usize, String> {
    let [name, seeds, findings, until, amount] = args else {
        return Err("usage: prima-fuzz TARGET SEEDS FINDINGS (count N | seconds S)".to_owned());
    };
    let target = TARGETS.iter().find(|target| target.name == name).ok_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        format!("no target {name}; there are {}", names.join(", "))
    })?;
    let number: f64 = match amount.as_str() {
        "short" => target.short_run as f64,
        _ => amount.parse().map_err(|_| format!("{amount} is no number"))?,
    };
    let seeds = read_seeds(Path::new(seeds))?;
    let findings = Path::new(findings);
    fs::create_dir_all(findings).map_err(|e| format!("cannot create {}: {e}", findings.display()))?;
    // A panic is caught and counted; its message and place are in the finding's line.
    std::panic::set_hook(Box::new(|info| eprintln!("  {info}")));
    // What a target loads once is no execution's time.
    (target.run)(b"");
    let mut runner = Runner::new(target, findings);
    for seed in &seeds {
        runner.execute(seed);
    }
    let mut random = Random(SEED);
    let enough = |runner: &Runner| match until.as_str() {
        "seconds" => runner.started.elapsed().as_secs_f64() >= number,
        _ => runner.executions as f64 >= number,
    };
    while !enough(&runner) && runner.findings < 10 {
        runner.execute(&mutated(&seeds, &mut random));
    }
    let seconds = runner.started.elapsed().as_secs_f64();
    println!(
        "{name}: {} executions from {} seeds in {seconds:.1} s, {:.0} a second, {} findings",
        runner.executions,
        seeds.len(),
        runner.executions as f64 / seconds,
        runner.findings
    );
    let _ = fs::remove_file(&runner.last);
    Ok(runner.findings)
}

fn read_seeds(folder: &Path) -> Result<Vec<Vec<u8>>, String> {
    let failed = |e: std::io::Error| format!("cannot read the seeds in {}: {e}", folder.display());
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    paths.iter().map(|path| fs::read(path).map_err(failed)).collect()
}

struct Runner<'a> {
    target: &'a Target,
    folder: &'a Path,
    /// The input that is being tried, should the process end.
    last: PathBuf,
    started: Instant,
    executions: u64,
    findings: usize,
    /// The peak that is no finding.
    memory_kib: u64,
    /// Milliseconds after `started` at which the current execution began.
    began_ms: Arc<AtomicU64>,
}

impl<'a> Runner<'a> {
    fn new(target: &'a Target, folder: &'a Path) -> Self {
        let runner = Self {
            target,
            folder,
            last: folder.join(format!("{}-last", target.name)),
            started: Instant::now(),
            executions: 0,
            findings: 0,
            memory_kib: peak_kib(),
            began_ms: Arc::default(),
        };
        let (started, began_ms, last) = (runner.started, runner.began_ms.clone(), runner.last.clone());
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_secs(1));
                let running = started.elapsed().as_millis() as u64 - began_ms.load(Ordering::Relaxed);
                if running > HANG_SECONDS * 1000 {
                    eprintln!("  more than {HANG_SECONDS} s: {}", last.display());
                    std::process::exit(1);
                }
            }
        });
        runner
    }

    /// How long an input takes that took `once`: on a busy machine anything may take long now and then.
    fn at_best(&self, input: &[u8], once: Duration) -> Duration {
        let mut best = once;
        for _ in 0..3 {
            if best <= MAX_TIME {
                break;
            }
            let again = Instant::now();
            self.began_ms
                .store(again.duration_since(self.started).as_millis() as u64, Ordering::Relaxed);
            let _ = catch_unwind(AssertUnwindSafe(|| (self.target.run)(input)));
            best = best.min(again.elapsed());
        }
        best
    }

    fn execute(&mut self, input: &[u8]) {
        self.executions += 1;
        let _ = fs::write(&self.last, input);
        let began = Instant::now();
        let began_ms = began.duration_since(self.started).as_millis() as u64;
        self.began_ms.store(began_ms, Ordering::Relaxed);
        let panicked = catch_unwind(AssertUnwindSafe(|| (self.target.run)(input))).is_err();
        let taken = self.at_best(input, began.elapsed());
        // Asking the system costs more than most executions.
        let grown = if self.executions.is_multiple_of(MEMORY_EVERY) {
            peak_kib().saturating_sub(self.memory_kib)
        } else {
            0
        };
        let reason = if panicked {
            "panic".to_owned()
        } else if taken > MAX_TIME {
            format!("{:.1}s", taken.as_secs_f64())
        } else if grown > MAX_MEMORY_KIB {
            self.memory_kib = peak_kib();
            format!("{}MiB-or-up-to-{MEMORY_EVERY}-before", grown >> 10)
        } else {
            return;
        };
        self.findings += 1;
        let path = self
            .folder
            .join(format!("{}-{}-{reason}", self.target.name, self.executions));
        let _ = fs::write(&path, input);
        println!("{}: {reason}: {}", self.target.name, path.display());
    }
}

/// The most memory that this process had at once; 0 where the system does not say.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
