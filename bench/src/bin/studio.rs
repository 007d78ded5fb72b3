//! The studio's benchmark: typists at human speed against the live protocol, over real sockets, in
//! one process with the server. A key is answered by the first frame of its own or a later revision.
//!
//! `cargo xtask bench studio [-- --typists 1,4,16 --json]`

use anyhow::{Context, Result, ensure};
use clap::Parser;
use prima_bench::typist::{SCRIPT, Seen, keys, mean, percentile, typist};
use prima_engine::{Engine, Readiness};
use prima_pipeline::LoadOptions;
use prima_server::{ServerOptions, serve};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpListener;

#[derive(Parser)]
struct Args {
    /// A model folder [default: assets/prima-mini]
    #[arg(long)]
    model: Option<PathBuf>,
    /// How many type at once, one run each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16])]
    typists: Vec<usize>,
    /// Keys a second of each
    #[arg(long, default_value_t = 8.0)]
    speed: f64,
    /// What is typed, a line after the other (see bench/src/typist.rs)
    #[arg(long)]
    script: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    prima_bench::runtime()?.block_on(bench(args))
}

async fn bench(args: Args) -> Result<()> {
    let script = match &args.script {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => SCRIPT.to_owned(),
    };
    let model = prima_bench::model(args.model.as_deref())?;
    let engine = Engine::start(model, LoadOptions::default(), 16);
    while engine.readiness() != Readiness::Ready {
        if let Readiness::Failed(reason) = engine.readiness() {
            anyhow::bail!("the model cannot be used: {reason}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/live", listener.local_addr()?);
    let server = tokio::spawn(serve(
        listener,
        engine,
        ServerOptions::default(),
        std::future::pending(),
    ));

    let mut rows = Vec::new();
    if !args.json {
        print_head();
    }
    for &count in &args.typists {
        let row = run(&url, &script, count, args.speed).await?;
        if !args.json {
            print_row(&row);
        }
        rows.push(row);
    }
    server.abort();
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&json!({"speed_keys_per_s": args.speed, "runs": rows}))?
        );
    }
    for row in &rows {
        ensure!(row["last_painted"] == true, "a last revision was not painted: {row}");
        ensure!(row["went_backwards"] == false, "a frame went backwards: {row}");
    }
    Ok(())
}

fn print_head() {
    println!(
        "{:>8} {:>6} {:>7} {:>8} {:>8} {:>8} {:>8} {:>10} {:>16} {:>8}",
        "typists",
        "keys",
        "frames",
        "p50 ms",
        "p95 ms",
        "max ms",
        "dropped",
        "cancelled",
        "slowest/average",
        "last rev"
    );
}

fn print_row(row: &Value) {
    let count = |name: &str| row[name].as_u64().unwrap_or(0);
    let number = |name: &str| row[name].as_f64().unwrap_or(0.0);
    println!(
        "{:>8} {:>6} {:>7} {:>8.0} {:>8.0} {:>8.0} {:>8} {:>10} {:>16.2} {:>8}",
        count("typists"),
        count("keys"),
        count("frames"),
        number("p50_ms"),
        number("p95_ms"),
        number("max_ms"),
        count("dropped"),
        count("cancelled"),
        number("slowest_to_average"),
        if row["last_painted"] == true {
            "painted"
        } else {
            "MISSING"
        }
    );
}

async fn run(url: &str, script: &str, count: usize, speed: f64) -> Result<Value> {
    let mut tasks = Vec::new();
    for i in 0..count {
        let (url, keys) = (url.to_owned(), keys(script, i, speed));
        tasks.push(tokio::spawn(async move { typist(&url, &keys, i as u64).await }));
    }
    let mut all: Vec<Seen> = Vec::new();
    for task in tasks {
        all.push(task.await??);
    }
    let latencies: Vec<f64> = all.iter().flat_map(|s| s.latencies_ms.clone()).collect();
    let means: Vec<f64> = all.iter().map(|s| mean(&s.latencies_ms)).collect();
    let slowest = means.iter().copied().fold(0.0, f64::max);
    Ok(json!({
        "typists": count,
        "keys": all.iter().map(|s| s.keys).sum::<usize>(),
        "answered": latencies.len(),
        "frames": all.iter().map(|s| s.frames).sum::<usize>(),
        "p50_ms": percentile(&latencies, 0.5),
        "p95_ms": percentile(&latencies, 0.95),
        "max_ms": percentile(&latencies, 1.0),
        "dropped": all.iter().map(|s| s.dropped).sum::<u64>(),
        "cancelled": all.iter().map(|s| s.cancelled).sum::<u64>(),
        "slowest_to_average": slowest / mean(&means),
        "last_painted": all.iter().all(|s| s.last_painted && s.latencies_ms.len() == s.keys),
        "went_backwards": all.iter().any(|s| s.went_backwards),
    }))
}
