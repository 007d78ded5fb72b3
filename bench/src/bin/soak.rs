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

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use prima_bench::typist::{SCRIPT, connect, keys, percentile, typist};
use prima_engine::Engine;
use prima_pipeline::LoadOptions;
use prima_server::ServerOptions;
use serde_json::json;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

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
    only: Vec<Attack>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Attack {
    Flood,
    Stall,
    Vanish,
    Garbage,
    Silent,
    Slow,
    Bombs,
    Heavy,
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

/// The honest typist alone, before and after.
const QUIET: Duration = Duration::from_secs(30);

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

    let strangers = strangers()?;
    attack(&strangers, &args.only, &host, &deeds);
    let health = tokio::spawn(attacks::health(host.clone(), deeds.clone()));
    let total = Duration::from_secs_f64(args.minutes * 60.0);
    let (all, sizes) = watch(&mut server, &waits, &deeds, total).await?;
    strangers.shutdown_background();
    health.abort();
    // What they asked for is given up.
    sleep(Duration::from_secs(10)).await;
    quiet.extend(alone(&waits).await);

    let (p95, quiet) = (percentile(&all, 0.95), percentile(&quiet, 0.95));
    let third = sizes.len().div_ceil(3);
    let early = sizes.iter().take(third).copied().fold(at_rest, f64::max);
    let late = sizes.iter().rev().take(third).copied().fold(0.0, f64::max);
    println!(
        "honest typist under attack: {} keys, p50 {:.0} ms, p95 {p95:.0} ms (alone {quiet:.0} ms, {:.2} times)",
        all.len(),
        percentile(&all, 0.5),
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

/// The honest typist's waits while nobody else is there.
async fn alone(waits: &Mutex<Vec<f64>>) -> Vec<f64> {
    waits.lock().await.clear();
    sleep(QUIET).await;
    let seen = std::mem::take(&mut *waits.lock().await);
    let (p50, p95) = (percentile(&seen, 0.5), percentile(&seen, 0.95));
    println!(
        "honest typist alone: {} keys, p50 {p50:.0} ms, p95 {p95:.0} ms",
        seen.len()
    );
    seen
}

/// Threads of the lowest priority, for all clients but the honest one.
fn strangers() -> Result<tokio::runtime::Runtime> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all();
    #[cfg(target_os = "linux")]
    runtime.on_thread_start(|| {
        let _ = rustix::process::nice(19);
    });
    Ok(runtime.build()?)
}

/// Begins these attacks, or all.
fn attack(strangers: &tokio::runtime::Runtime, only: &[Attack], host: &str, deeds: &Arc<Deeds>) {
    let live = format!("ws://{host}/live");
    let (host, deeds) = (host.to_owned(), deeds.clone());
    let chosen = |attack| only.is_empty() || only.contains(&attack);
    let _guard = strangers.enter();
    if chosen(Attack::Flood) {
        tokio::spawn(flood(live.clone(), deeds.clone()));
    }
    if chosen(Attack::Stall) {
        tokio::spawn(stall(live.clone(), deeds.clone()));
    }
    if chosen(Attack::Vanish) {
        tokio::spawn(vanish(live.clone(), deeds.clone()));
        tokio::spawn(vanish_over_http(host.clone(), deeds.clone()));
    }
    if chosen(Attack::Garbage) {
        tokio::spawn(garbage(live, host.clone(), deeds.clone()));
    }
    if chosen(Attack::Silent) {
        tokio::spawn(attacks::silent(host.clone(), deeds.clone()));
    }
    if chosen(Attack::Slow) {
        tokio::spawn(attacks::slow_bodies(host.clone(), deeds.clone()));
    }
    if chosen(Attack::Bombs) {
        attacks::bombers(&host, &deeds);
    }
    if chosen(Attack::Heavy) {
        tokio::spawn(attacks::heavy(host, deeds));
    }
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

/// Prints a line every 15 s until `total` is over; the honest typist's waits in ms and the server's sizes in MB.
async fn watch(
    server: &mut Child,
    waits: &Mutex<Vec<f64>>,
    deeds: &Deeds,
    total: Duration,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let began = Instant::now();
    let (mut all, mut sizes) = (Vec::new(), Vec::new());
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
        sleep(Duration::from_secs(15).min(total)).await;
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
        all.extend(seen);
    }
    Ok((all, sizes))
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

/// Sends as fast as it can until it is thrown out.
async fn flood(url: String, deeds: Arc<Deeds>) {
    loop {
        if let Ok(mut socket) = connect(&url).await {
            deeds.floods.fetch_add(1, Ordering::Relaxed);
            for rev in 1..100_000 {
                let message = json!({"type": "paint", "rev": rev, "prompt": format!("flood {rev}")});
                if socket.send(Message::text(message.to_string())).await.is_err() {
                    break;
                }
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Asks for large pictures and never reads one.
async fn stall(url: String, deeds: Arc<Deeds>) {
    loop {
        if let Ok(mut socket) = connect(&url).await {
            deeds.stalls.fetch_add(1, Ordering::Relaxed);
            for rev in 1..100_000 {
                let message =
                    json!({"type": "paint", "rev": rev, "prompt": format!("stall {rev}"), "width": 256, "height": 256});
                if socket.send(Message::text(message.to_string())).await.is_err() {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Begins something and is gone.
async fn vanish(url: String, deeds: Arc<Deeds>) {
    for round in 0_u64.. {
        if let Ok(mut socket) = connect(&url).await {
            let message = json!({"type": "variants", "rev": 1, "prompt": "gone", "seeds": (0..16).collect::<Vec<u32>>(), "steps": 8});
            let _ = socket.send(Message::text(message.to_string())).await;
            sleep(Duration::from_millis(round * 37 % 200)).await;
            deeds.vanished.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The same over HTTP: the request is sent and the connection dropped.
async fn vanish_over_http(host: String, deeds: Arc<Deeds>) {
    let body = json!({"prompt": "gone", "steps": 20, "width": 256, "height": 256}).to_string();
    let head = format!(
        "POST /sdapi/v1/txt2img HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    for round in 0_u64.. {
        if let Ok(mut stream) = TcpStream::connect(&host).await {
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            sleep(Duration::from_millis(round * 53 % 300)).await;
            deeds.vanished.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(150)).await;
    }
}

/// Messages that mean nothing, pictures that are bombs, bodies that are too large.
async fn garbage(url: String, host: String, deeds: Arc<Deeds>) {
    let mut bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\x01\x86\xa0\0\x01\x86\xa0\x08\x02\0\0\0".to_vec();
    bomb.extend(0x2730_9c9f_u32.to_be_bytes());
    let header = json!({"type": "paint", "rev": 1, "prompt": "x"}).to_string();
    let mut picture = (header.len() as u32).to_le_bytes().to_vec();
    picture.extend(header.bytes());
    picture.extend(&bomb);
    loop {
        if let Ok(mut socket) = connect(&url).await {
            for message in [
                Message::text("{"),
                Message::text("[[[[[[[["),
                Message::binary(vec![0xff; 64]),
                Message::binary(picture.clone()),
                Message::binary(vec![0; 1 << 20]),
            ] {
                deeds.garbage.fetch_add(1, Ordering::Relaxed);
                if socket.send(message).await.is_err() {
                    break;
                }
                if let Ok(Some(Ok(Message::Text(_)))) =
                    tokio::time::timeout(Duration::from_secs(5), socket.next()).await
                {
                    deeds.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        if let Ok(mut stream) = TcpStream::connect(&host).await {
            let head =
                format!("POST /v1/images/generations HTTP/1.1\r\nhost: {host}\r\ncontent-length: 100000000\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&vec![b'{'; 1 << 20]).await;
            deeds.garbage.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(300)).await;
    }
}
