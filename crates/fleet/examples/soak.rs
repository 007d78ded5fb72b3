//! `cargo xtask soak --fleet`: a gateway and three workers for a long time, under more jobs than they can paint at once, with one who
//! types; each minute a worker is asked to leave and another comes. Nothing may be lost, answered twice, or grow.
//!
//! `soak PRIMA MINUTES`; ends with 1 where something was.

#[allow(dead_code, reason = "each example uses its part")]
#[path = "shared/processes.rs"]
mod processes;
#[allow(dead_code, reason = "each example uses its part")]
#[path = "shared/typist.rs"]
mod typist;

use prima_fleet::simulation::quantile;
use processes::{Any, Program, free_port, start_nats};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const WORKERS: usize = 3;
/// Jobs of each client that are not answered yet.
const OPEN: usize = 10;
const CLIENTS: usize = 4;
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What a program may grow by from the first third to the last, beside a fifth.
const ROOM_MB: f64 = 30.0;

struct Run {
    gateway: String,
    http: reqwest::Client,
    over: AtomicBool,
    accepted: AtomicUsize,
    answered: AtomicUsize,
    lost: AtomicUsize,
    twice: AtomicUsize,
    refused: AtomicUsize,
}

impl Run {
    async fn get(&self, path: &str) -> Any<reqwest::Response> {
        Ok(self
            .http
            .get(format!("{}{path}", self.gateway))
            .send()
            .await?
            .error_for_status()?)
    }

    /// Hands in jobs and reads their answers, so many at once.
    async fn client(self: Arc<Self>, client: usize) -> Any<()> {
        let mut open: Vec<String> = Vec::new();
        let mut next = 0usize;
        while !self.over.load(Ordering::Relaxed) || !open.is_empty() {
            while open.len() < OPEN && !self.over.load(Ordering::Relaxed) {
                let job = json!({"prompt": "a red apple", "seed": next, "response_format": "b64_json"});
                let request = self
                    .http
                    .post(format!("{}/v1/images/generations", self.gateway))
                    .json(&job);
                let key = format!("{client}-{next}");
                let sent = request
                    .header("prefer", "respond-async")
                    .header("idempotency-key", key)
                    .send()
                    .await;
                match sent {
                    Ok(answer) if answer.status() == 202 => {
                        let record: Value = answer.json().await?;
                        open.push(record["id"].as_str().unwrap_or_default().to_owned());
                        self.accepted.fetch_add(1, Ordering::Relaxed);
                        next += 1;
                    }
                    _ => {
                        self.refused.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                }
            }
            let mut still = Vec::new();
            for id in open {
                let record: Value = self.get(&format!("/jobs/{id}")).await?.json().await?;
                match record["state"].as_str() {
                    Some("done") if record["status"] == 200 => {
                        let answer = self.get(&format!("/jobs/{id}/answer")).await?.bytes().await?;
                        let again = self.get(&format!("/jobs/{id}/answer")).await?.bytes().await?;
                        self.twice.fetch_add(usize::from(answer != again), Ordering::Relaxed);
                        self.answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Some("queued" | "running") => still.push(id),
                    _ => {
                        eprintln!("lost: {record}");
                        self.lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            open = still;
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }
}

/// Resident memory, where there is `/proc`.
fn resident_mb(id: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

/// Replaces a worker every minute and writes down memory, until it is over.
async fn look_after(run: Arc<Run>, mut programs: Vec<Program>) -> Any<(Vec<Program>, HashMap<String, Vec<f64>>)> {
    let mut memory: HashMap<String, Vec<f64>> = HashMap::new();
    let (mut replaced, mut at) = (Instant::now(), 0);
    while !run.over.load(Ordering::Relaxed) {
        for program in &programs {
            let kept = memory.entry(program.name.clone()).or_default();
            kept.extend(resident_mb(program.child.id()));
        }
        if replaced.elapsed() > Duration::from_mins(1) {
            let first = programs.len() - WORKERS;
            let worker = &mut programs[first + at % WORKERS];
            worker.signal("-TERM")?;
            while worker.child.try_wait()?.is_none() {
                sleep(Duration::from_millis(100)).await;
            }
            worker.child = processes::spawn(&worker.command)?;
            (replaced, at) = (Instant::now(), at + 1);
        }
        sleep(LOOK_EVERY).await;
    }
    Ok((programs, memory))
}

/// The gateway's and NATS' growth, in words; whether it was too much. Workers are replaced, and say nothing of it.
fn growth(memory: &HashMap<String, Vec<f64>>) -> bool {
    let mut grew = false;
    for (name, values) in memory {
        let third = (values.len() / 3).max(1);
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
        let (first, last) = (
            mean(&values[..third.min(values.len())]),
            mean(&values[values.len().saturating_sub(third)..]),
        );
        println!("memory of {name}: {first:.0} MB in the first third, {last:.0} MB in the last");
        grew |= !name.starts_with("worker") && last > first * 1.2 + ROOM_MB;
    }
    grew
}

#[tokio::main]
async fn main() -> Any<()> {
    let mut args = std::env::args().skip(1);
    let prima = args.next().ok_or("soak PRIMA MINUTES")?;
    let minutes: f64 = args.next().ok_or("soak PRIMA MINUTES")?.parse()?;
    let folder = tempfile::tempdir()?;
    let (mut programs, nats) = start_nats(folder.path(), 1)?;
    sleep(Duration::from_secs(1)).await;
    let port = free_port()?.to_string();
    let mut start = |name: String, args: &[&str]| {
        let command = [&[prima.as_str()], args, &["--nats", &nats]].concat();
        programs.push(Program::start(name, command.into_iter().map(str::to_owned).collect())?);
        Any::Ok(())
    };
    // Answers are kept for an hour, as long as the first and the last third are apart.
    start("gateway".into(), &["gateway", "--port", &port, "--keep", "1"])?;
    for worker in 0..WORKERS {
        let (name, port) = (format!("s{worker}"), free_port()?.to_string());
        start(
            format!("worker {worker}"),
            &["worker", "--name", &name, "--port", &port],
        )?;
    }
    let run = Arc::new(Run {
        gateway: format!("http://127.0.0.1:{port}"),
        http: reqwest::Client::new(),
        over: AtomicBool::new(false),
        accepted: AtomicUsize::new(0),
        answered: AtomicUsize::new(0),
        lost: AtomicUsize::new(0),
        twice: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
    });
    while !run.get("/readyz").await.is_ok_and(|answer| answer.status() == 200) {
        sleep(Duration::from_millis(200)).await;
    }
    let alone = typist::type_at(
        &run.gateway,
        typist::Until::Passed(Duration::from_secs_f64(minutes * 6.0)),
    )
    .await?;
    let looks = tokio::spawn(look_after(run.clone(), programs));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| tokio::spawn(run.clone().client(client)))
        .collect();
    let until = Duration::from_secs_f64(minutes * 54.0);
    let beside = typist::type_at(&run.gateway, typist::Until::Passed(until)).await?;
    run.over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await??;
    }
    let (programs, memory) = looks.await??;
    drop(programs);
    let grew = growth(&memory);
    let p95 = |seen: &[f64]| quantile(seen, 0.95);
    println!(
        "typist's p95 alone {:.0} ms, beside jobs {:.0} ms; keystrokes painted {}",
        p95(&alone),
        p95(&beside),
        beside.len()
    );
    let count = |number: &AtomicUsize| number.load(Ordering::Relaxed);
    println!(
        "accepted {}, answered {}, lost {}, answered twice {}; {} tries were sent again",
        count(&run.accepted),
        count(&run.answered),
        count(&run.lost),
        count(&run.twice),
        count(&run.refused)
    );
    if count(&run.lost) + count(&run.twice) > 0 || count(&run.accepted) != count(&run.answered) || grew {
        return Err("something was lost, answered twice, or grew".into());
    }
    Ok(())
}
