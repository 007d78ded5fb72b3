//! A soak: clients that connect, flood, stall, vanish, send garbage, hold silent connections, send slow bodies and bombs to
//! each route, and ask for heavy pictures, beside one honest typist, against a running `prima serve` of its own. Fails on a
//! panic, on memory that grows, on a health check that waits, and if the honest typist suffers.
//!
//! Strangers compute on machines of their own; here they share the server's processors. So their threads, but not the honest
//! typist's, have the lowest priority (`nice` 19): what he waits for is what the server does for them.
//!
//! `cargo xtask soak --minutes 10`

#[path = "soak/attacks.rs"]
mod attacks;
#[path = "soak/strangers.rs"]
mod strangers;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use prima_bench::typist::{SCRIPT, keys, percentile, typist};
use prima_engine::Engine;
use prima_pipeline::LoadOptions;
use prima_server::ServerOptions;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::sleep;

#[derive(Parser)]
struct Args {
    /// The `prima` to run; without it, the same server inside this program, in a process of its own
    #[arg(long)]
    server: Option<PathBuf>,
    /// Be that server
    #[arg(long, hide = true)]
    serve: bool,
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Only these attacks, to see which of them is felt
    #[arg(long, value_delimiter = ',')]
    only: Vec<strangers::Attack>,
}

/// What the bad clients did.
#[derive(Default)]
struct Deeds {
    floods: AtomicU64,
    stalls: AtomicU64,
    vanished: AtomicU64,
    garbage: AtomicU64,
    refused: AtomicU64,
    /// Connections held in silence, or with a body that hardly comes.
    held: AtomicU64,
    bombs: AtomicU64,
    /// Large pictures asked for and answered, also with a refusal.
    heavy: AtomicU64,
    /// Health checks that were not answered in time.
    sick: AtomicU64,
    /// Last revisions of the honest typist that were never painted.
    missing: AtomicU64,
}

/// The honest typist is looked at in windows of this length: a machine that stands still once spoils one of them.
const WINDOW: Duration = Duration::from_secs(15);
/// Windows of the honest typist alone, before the attack, and again after it.
const ALONE: usize = 3;

fn main() -> Result<()> {
    let args = Args::parse();
    prima_bench::runtime()?.block_on(async {
        if args.serve {
            serve_shipped().await
        } else {
            soak(args).await
        }
    })
}

/// What `prima serve --port 0` does, with the model of assets/.
async fn serve_shipped() -> Result<()> {
    let options = ServerOptions::default();
    let engine = Engine::start(prima_bench::model(None)?, LoadOptions::default(), options.max_jobs);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/", listener.local_addr()?);
    Ok(prima_server::serve(listener, engine, options, std::future::pending()).await?)
}

async fn soak(args: Args) -> Result<()> {
    let (mut server, host) = start(args.server.as_ref()).await?;
    let panics = Arc::new(AtomicU64::new(0));
    watch_for_panics(&mut server, panics.clone());

    let live = format!("ws://{host}/live");
    let waits: Arc<Mutex<Vec<f64>>> = Arc::default();
    let deeds = Arc::new(Deeds::default());
    tokio::spawn(honest(live.clone(), waits.clone(), deeds.clone()));
    // The first pictures of a server are slow.
    sleep(Duration::from_secs(5)).await;
    let mut quiet = alone(&waits).await;
    let at_rest = resident_mb(&server)?;
    println!("the server has {at_rest:.0} MB");

    let machine = strangers::machine()?;
    strangers::attack(&machine, &args.only, &host, &deeds);
    let health = tokio::spawn(attacks::health(host.clone(), deeds.clone()));
    let total = Duration::from_secs_f64(args.minutes * 60.0);
    let (windows, sizes) = watch(&mut server, &waits, &deeds, total).await?;
    machine.shutdown_background();
    health.abort();
    // What they asked for is given up.
    sleep(Duration::from_secs(10)).await;
    quiet.extend(alone(&waits).await);

    let (p95, quiet) = (typical_p95(&windows), typical_p95(&quiet));
    let all = windows.concat();
    let third = sizes.len().div_ceil(3);
    let early = sizes.iter().take(third).copied().fold(at_rest, f64::max);
    let late = sizes.iter().rev().take(third).copied().fold(0.0, f64::max);
    println!(
        "honest typist under attack: {} keys, p50 {:.0} ms, p95 {:.0} ms",
        all.len(),
        percentile(&all, 0.5),
        percentile(&all, 0.95),
    );
    println!(
        "p95 in the median window: alone {quiet:.0} ms, under attack {p95:.0} ms, {:.2} times",
        p95 / quiet
    );
    let sick = deeds.sick.load(Ordering::Relaxed);
    println!(
        "health checks that took more than {} ms: {sick}",
        attacks::HEALTHY.as_millis()
    );
    println!("memory: {at_rest:.0} MB at rest, at most {early:.0} MB in the first third, {late:.0} MB in the last");
    ensure!(panics.load(Ordering::Relaxed) == 0, "the server panicked");
    ensure!(
        deeds.missing.load(Ordering::Relaxed) == 0,
        "a last revision of the honest typist was never painted"
    );
    ensure!(!all.is_empty(), "the honest typist was never answered");
    ensure!(late < 1.2 * early + 16.0, "memory grows");
    ensure!(sick == 0, "a health check waited");
    ensure!(p95 <= 2.0 * quiet, "the honest typist suffers");
    println!("passed");
    Ok(())
}

/// The honest typist's waits while nobody else is there, in windows.
async fn alone(waits: &Mutex<Vec<f64>>) -> Vec<Vec<f64>> {
    waits.lock().await.clear();
    let mut windows = Vec::new();
    for _ in 0..ALONE {
        sleep(WINDOW).await;
        windows.push(std::mem::take(&mut *waits.lock().await));
    }
    let all = windows.concat();
    let (p50, p95) = (percentile(&all, 0.5), percentile(&all, 0.95));
    println!(
        "honest typist alone: {} keys, p50 {p50:.0} ms, p95 {p95:.0} ms",
        all.len()
    );
    windows
}

/// The 95th percentile of the median window.
fn typical_p95(windows: &[Vec<f64>]) -> f64 {
    let of_each: Vec<f64> = windows.iter().map(|window| percentile(window, 0.95)).collect();
    percentile(&of_each, 0.5)
}

/// The server in a process of its own, and its `host:port`.
async fn start(binary: Option<&PathBuf>) -> Result<(Child, String)> {
    let mut command;
    if let Some(binary) = binary {
        command = Command::new(binary);
        command.args(["serve", "--port", "0"]);
    } else {
        command = Command::new(std::env::current_exe()?);
        command.arg("--serve");
    }
    let mut server = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the server")?;
    let mut lines = BufReader::new(server.stdout.take().context("no stdout")?).lines();
    let url = lines.next_line().await?.context("the server said nothing")?;
    let host = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    Ok((server, host))
}

/// Prints a line every 15 s until `total` is over; the honest typist's waits in ms in each window, and the server's sizes in MB.
async fn watch(
    server: &mut Child,
    waits: &Mutex<Vec<f64>>,
    deeds: &Deeds,
    total: Duration,
) -> Result<(Vec<Vec<f64>>, Vec<f64>)> {
    let began = Instant::now();
    let (mut windows, mut sizes) = (Vec::new(), Vec::new());
    println!(
        "{:>7} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "s",
        "RSS MB",
        "p50 ms",
        "p95 ms",
        "floods",
        "stalls",
        "vanished",
        "garbage",
        "refused",
        "held",
        "bombs",
        "heavy"
    );
    while began.elapsed() < total {
        sleep(WINDOW.min(total)).await;
        if let Some(status) = server.try_wait()? {
            bail!("the server ended: {status}");
        }
        let seen = std::mem::take(&mut *waits.lock().await);
        let size = resident_mb(server)?;
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        println!(
            "{:>7.0} {size:>8.0} {:>8.0} {:>8.0} {:>8} {:>8} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8}",
            began.elapsed().as_secs_f64(),
            percentile(&seen, 0.5),
            percentile(&seen, 0.95),
            count(&deeds.floods),
            count(&deeds.stalls),
            count(&deeds.vanished),
            count(&deeds.garbage),
            count(&deeds.refused),
            count(&deeds.held),
            count(&deeds.bombs),
            count(&deeds.heavy),
        );
        sizes.push(size);
        windows.push(seen);
    }
    Ok((windows, sizes))
}

fn watch_for_panics(server: &mut Child, panics: Arc<AtomicU64>) {
    let Some(stderr) = server.stderr.take() else { return };
    tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line.contains("panic") {
                eprintln!("server: {line}");
                panics.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
}

fn resident_mb(server: &Child) -> Result<f64> {
    let id = server.id().context("the server has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))
        .context("memory is read from /proc, which only Linux has")?;
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    Ok(line.split_whitespace().next().context("no VmRSS")?.parse::<f64>()? / 1024.0)
}

/// Types on and on.
async fn honest(url: String, waits: Arc<Mutex<Vec<f64>>>, deeds: Arc<Deeds>) {
    for round in 0.. {
        match typist(&url, &keys(SCRIPT, round, 8.0), 1).await {
            Ok(seen) => {
                deeds
                    .missing
                    .fetch_add(u64::from(!seen.last_painted), Ordering::Relaxed);
                waits.lock().await.extend(seen.latencies_ms);
            }
            Err(error) => {
                eprintln!("the honest typist: {error:#}");
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
}
