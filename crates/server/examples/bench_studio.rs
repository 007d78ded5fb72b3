//! The studio's benchmark: typists at human speed against the live protocol, over real sockets, in
//! one process with the server. A key is answered by the first frame of its own or a later revision.
//!
//! `cargo xtask bench studio [-- --typists 1,4,16 --json]`

mod support;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use prima_pipeline::engine::{Engine, Stage};
use prima_pipeline::{LoadOptions, ModelSource};
use prima_server::{ServerOptions, serve};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::{SCRIPT, Seen, keys, mean, percentile, typist};
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
    /// What is typed, a line after the other (see examples/support/mod.rs)
    #[arg(long)]
    script: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(bench(args))
}

async fn bench(args: Args) -> Result<()> {
    let folder = args
        .model
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/prima-mini"));
    let script = match &args.script {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => SCRIPT.to_owned(),
    };
    let engine = Engine::start(ModelSource::open(&folder)?, LoadOptions::default(), 16);
    while engine.stage() != Stage::Ready {
        if let Stage::Failed(reason) = engine.stage() {
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
    for &count in &args.typists {
        let row = run(&url, &script, count, args.speed).await?;
        if !args.json {
            println!(
                "{:>8} {:>6} {:>7} {:>8.0} {:>8.0} {:>8.0} {:>8} {:>10} {:>16.2} {:>8}",
                count,
                row["keys"].as_u64().unwrap_or(0),
                row["frames"].as_u64().unwrap_or(0),
                row["p50_ms"].as_f64().unwrap_or(0.0),
                row["p95_ms"].as_f64().unwrap_or(0.0),
                row["max_ms"].as_f64().unwrap_or(0.0),
                row["dropped"].as_u64().unwrap_or(0),
                row["cancelled"].as_u64().unwrap_or(0),
                row["slowest_to_average"].as_f64().unwrap_or(0.0),
                if row["last_painted"] == true {
                    "painted"
                } else {
                    "MISSING"
                }
            );
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
