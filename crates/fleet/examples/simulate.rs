//! `cargo xtask simulate`: the fleet as a model, from one worker to a thousand, with the times that `measure` recorded.
//!
//! `simulate TIMES FOLDER` prints tables and writes plots into the folder.

#[path = "shared/plot.rs"]
mod plot;
#[path = "shared/times.rs"]
mod times;

use plot::Plot;
use prima_fleet::simulation::{Fleet, Seen, quantile, run};
use std::error::Error;
use std::path::Path;
use times::Times;

/// Of what the workers can.
const LOADS: [f64; 8] = [0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99];
const WORKERS: [usize; 6] = [1, 3, 10, 30, 100, 1000];
const CLIENTS: usize = 50;
/// Keystrokes of each who types, as `measure` does it.
const KEYS_PER_S: f64 = 8.0;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "simulate TIMES FOLDER";
    let (file, folder) = (args.next().ok_or(usage)?, args.next().ok_or(usage)?);
    let times: Times = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let folder = Path::new(&folder);
    println!("Times of {}.\n", times.about);
    beside_this_machine(&times);
    std::fs::write(folder.join("scaling-jobs.svg"), jobs(&times).svg())?;
    std::fs::write(folder.join("scaling-keystrokes.svg"), keystrokes(&times).svg())?;
    fair(&times);
    Ok(())
}

/// Each worker with a machine of its own.
fn fleet(times: &Times, workers: usize) -> Fleet {
    Fleet {
        workers,
        processors: f64::INFINITY,
        job_ms: times.job_ms.clone(),
        keystroke_ms: times.keystroke_ms.clone(),
        accept_ms: times.accept_ms,
        store_ms: times.store_ms,
        jobs_per_s: 0.0,
        clients: CLIENTS,
        backlog: 0,
        sessions: 0,
        keys_per_s: KEYS_PER_S,
        seconds: 60.0,
        seed: 1,
    }
}

/// Jobs a second that the workers can, if the gateway brings them.
fn most(times: &Times, workers: usize) -> f64 {
    let mean = times.job_ms.iter().sum::<f64>() / times.job_ms.len() as f64;
    workers as f64 * 1e3 / (mean + times.store_ms)
}

fn cells(values: &[f64]) -> String {
    let cells = [0.5, 0.95, 0.99].map(|share| format!("{:.0}", quantile(values, share)));
    cells.join(" | ")
}

fn beside_this_machine(times: &Times) {
    println!("| workers on this machine | jobs/s measured | jobs/s simulated |\n|---|---|---|");
    for (i, measured) in times.jobs_per_s.iter().enumerate() {
        let seen = run(&Fleet {
            processors: times.processors as f64,
            backlog: 100_000,
            ..fleet(times, i + 1)
        });
        println!("| {} | {measured:.1} | {:.1} |", i + 1, seen.jobs_per_s());
    }
    println!("\n| one typist | measured p50 | p95 | p99 | simulated p50 | p95 | p99 |\n|---|---|---|---|---|---|---|");
    for (name, measured, backlog) in [
        ("alone", &times.alone_ms, 0),
        ("beside 1000 queued jobs", &times.beside_ms, 1000),
    ] {
        let seen = run(&Fleet {
            sessions: 1,
            backlog,
            seconds: 20.0,
            ..fleet(times, 1)
        });
        println!("| {name} | {} | {} |", cells(measured), cells(&seen.keystrokes_ms));
    }
}

fn jobs(times: &Times) -> Plot<'static> {
    println!(
        "\n| workers | load | jobs/s asked | jobs/s done | p50 ms | p95 | p99 | left in the queue |\n|---|---|---|---|---|---|---|---|"
    );
    let line = |workers: usize| {
        let point = |load: f64| {
            let jobs_per_s = load * most(times, workers);
            let seen = run(&Fleet {
                jobs_per_s,
                ..fleet(times, workers)
            });
            let Seen { jobs_ms, left, .. } = &seen;
            println!(
                "| {workers} | {load} | {jobs_per_s:.1} | {:.1} | {} | {left} |",
                seen.jobs_per_s(),
                cells(jobs_ms)
            );
            (load, quantile(jobs_ms, 0.95))
        };
        (format!("{workers} workers"), LOADS.map(point).to_vec())
    };
    Plot {
        title: "Jobs: 95th percentile from request to stored answer",
        x: "load, of what the workers can",
        y: "ms",
        lines: WORKERS.map(line).to_vec(),
        log_x: false,
    }
}

fn keystrokes(times: &Times) -> Plot<'static> {
    println!(
        "\n| sessions a worker | jobs queued | p50 ms | p95 | p99 | painted | jobs/s of a worker |\n|---|---|---|---|---|---|---|"
    );
    let line = |(name, backlog): (&str, usize)| {
        let point = |sessions: usize| {
            const MACHINES: usize = 10;
            let seen = run(&Fleet {
                sessions: sessions * MACHINES,
                backlog: backlog * MACHINES,
                ..fleet(times, MACHINES)
            });
            let painted = seen.keystrokes_ms.len() as f64 / (seen.keystrokes_ms.len() + seen.replaced).max(1) as f64;
            println!(
                "| {sessions} | {name} | {} | {:.0} % | {:.1} |",
                cells(&seen.keystrokes_ms),
                painted * 100.0,
                seen.jobs_per_s() / MACHINES as f64
            );
            (sessions as f64, quantile(&seen.keystrokes_ms, 0.95))
        };
        (name.to_owned(), [1, 2, 4, 8, 16, 32, 64].map(point).to_vec())
    };
    Plot {
        title: "Keystrokes: 95th percentile to the first picture",
        x: "people who type at each worker, 8 keystrokes a second each",
        y: "ms",
        lines: [("no jobs", 0), ("jobs without end", 100_000)].map(line).to_vec(),
        log_x: true,
    }
}

/// Other clients beside one with a long queue.
fn fair(times: &Times) {
    println!("\n| the others' jobs while one client's queue is never empty | p50 ms | p95 | p99 |\n|---|---|---|---|");
    for workers in WORKERS {
        let seen = run(&Fleet {
            backlog: workers * 3000,
            jobs_per_s: 0.3 * most(times, workers),
            ..fleet(times, workers)
        });
        println!("| {workers} workers | {} |", cells(&seen.jobs_ms));
    }
}
