//! `cargo xtask chaos`: jobs through a gateway and three workers as real processes around NATS, all of which are killed at random
//! or stand still; with one server of NATS, wires to it are cut without a word, too, and its disk runs full if it is a small one.
//! What was accepted has to be answered, and once.
//!
//! `chaos PRIMA JOBS NODES SEED [DISK]`; ends with 1 where a job was lost or answered twice. DISK is a folder on a file system of a
//! few hundred MB.

#[path = "shared/processes.rs"]
mod processes;
#[path = "shared/wire.rs"]
mod wire;

use processes::{Any, Dice, Program, free_port, spawn, start_nats};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::time::sleep;
use wire::Wire;

/// Jobs that are on their way to the gateway at once.
const SENDERS: usize = 8;
const WORKERS: usize = 3;
/// All jobs are handed in over this time, in which things break.
const TIME: Duration = Duration::from_mins(2);
/// After the last fault all jobs have this long.
const PATIENCE: Duration = Duration::from_mins(5);

struct Run {
    gateway: String,
    http: reqwest::Client,
    accepted: Mutex<HashMap<usize, String>>,
    next: AtomicUsize,
    retries: AtomicU64,
    done: AtomicBool,
}

impl Run {
    /// Hands in jobs until each was accepted; what is not answered is sent again under the same key.
    async fn send(self: Arc<Self>, jobs: usize, run: u64) {
        loop {
            let job = self.next.fetch_add(1, Ordering::Relaxed);
            if job >= jobs {
                return;
            }
            sleep(TIME * SENDERS as u32 / jobs as u32).await;
            loop {
                let request = self.http.post(format!("{}/v1/images/generations", self.gateway));
                let request =
                    request.json(&json!({ "prompt": "a red apple", "seed": job, "response_format": "b64_json" }));
                let request = request
                    .header("idempotency-key", format!("{run}-{job}"))
                    .header("prefer", "respond-async");
                let answer = request.timeout(Duration::from_secs(10)).send().await;
                if let Ok(answer) = answer
                    && answer.status() == 202
                    && let Ok(record) = answer.json::<Value>().await
                    && let Some(id) = record["id"].as_str()
                {
                    self.accepted.lock().await.insert(job, id.to_owned());
                    break;
                }
                self.retries.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(100)).await;
            }
        }
    }

    async fn get(&self, path: &str) -> Option<reqwest::Response> {
        let request = self
            .http
            .get(format!("{}{path}", self.gateway))
            .timeout(Duration::from_secs(10));
        request.send().await.ok().filter(|answer| answer.status().is_success())
    }

    async fn state(&self, id: &str) -> Option<Value> {
        self.get(&format!("/jobs/{id}")).await?.json().await.ok()
    }
}

/// How long a disk is full.
const FULL: Duration = Duration::from_secs(3);

/// Fills the disk, and frees it.
async fn fill(disk: &Path) -> Any<()> {
    let filler = disk.join("filler");
    {
        let mut file = std::fs::File::create(&filler)?;
        let junk = vec![1u8; 1 << 20];
        // Until the disk says no; 4 GB at most, where it is no small one.
        for _ in 0..4096 {
            if file.write_all(&junk).is_err() {
                break;
            }
        }
    }
    sleep(FULL).await;
    Ok(std::fs::remove_file(filler)?)
}

/// Every second or so something is killed, cut off, or stands still for longer than a worker may be silent.
async fn break_things(
    run: Arc<Run>,
    mut programs: Vec<Program>,
    wires: Vec<Wire>,
    disk: Option<PathBuf>,
    seed: u64,
) -> Any<(Vec<Program>, HashMap<String, u64>)> {
    let mut dice = Dice(seed);
    let is_cluster = programs
        .iter()
        .filter(|program| program.name.starts_with("nats"))
        .count()
        > 1;
    let mut faults: HashMap<String, u64> = HashMap::new();
    while !run.done.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(500 + dice.below(1500) as u64)).await;
        // What ended by itself is started again, as a supervisor would.
        for program in &mut programs {
            if program.child.try_wait()?.is_some() {
                program.child = spawn(&program.command)?;
                *faults.entry(format!("{} ended by itself", program.name)).or_default() += 1;
            }
        }
        if !wires.is_empty() && dice.below(6) == 0 {
            wires[dice.below(wires.len())].cut();
            *faults.entry("wire cut".into()).or_default() += 1;
            continue;
        }
        if let Some(disk) = disk.as_ref().filter(|_| dice.below(12) == 0) {
            fill(disk).await?;
            // JetStream is off after that until the server is started again.
            programs[0].kill_and_restart()?;
            *faults.entry("disk full".into()).or_default() += 1;
            continue;
        }
        let victim = dice.below(programs.len());
        let program = &mut programs[victim];
        let stands_still = program.name.starts_with("worker") && dice.below(4) == 0;
        if stands_still {
            program.signal("-STOP")?;
            sleep(Duration::from_secs(7)).await;
            program.signal("-CONT")?;
            *faults.entry(format!("{} stood still", program.name)).or_default() += 1;
        } else {
            program.kill_and_restart()?;
            *faults.entry(format!("{} killed", program.name)).or_default() += 1;
            if program.name.starts_with("nats") && is_cluster {
                // Of three, one at a time: the others choose a leader, and it catches up.
                sleep(Duration::from_secs(12)).await;
            }
        }
    }
    Ok((programs, faults))
}

/// A gateway and workers, each with a wire of its own to the one server; of three each names the others to its clients, past any wire.
async fn start_fleet(prima: &Path, nats: &str, nodes: usize, port: u16) -> Any<(Vec<Program>, Vec<Wire>)> {
    let replicas = if nodes >= 3 { "3" } else { "1" };
    let (mut programs, mut wires) = (Vec::new(), Vec::new());
    for i in 0..=WORKERS {
        let url = match nats.rsplit_once(':').filter(|_| nodes == 1) {
            Some((_, to)) => {
                let wire = Wire::lay(to.parse()?).await?;
                let url = format!("nats://127.0.0.1:{}", wire.port);
                wires.push(wire);
                url
            }
            None => nats.to_owned(),
        };
        let (title, role) = if i == 0 {
            ("gateway".to_owned(), format!("gateway --port {port}"))
        } else {
            (
                format!("worker {i}"),
                format!("worker --name w{i} --port {}", free_port()?),
            )
        };
        let mut command = vec![prima.display().to_string()];
        command.extend(
            role.split(' ')
                .chain(["--nats", &url, "--replicas", replicas])
                .map(str::to_owned),
        );
        programs.push(Program::start(title, command)?);
    }
    Ok((programs, wires))
}

#[tokio::main]
async fn main() -> Any<()> {
    let mut args = std::env::args().skip(1);
    let prima = PathBuf::from(args.next().ok_or("chaos PRIMA JOBS NODES SEED")?);
    let mut number = |default: u64| args.next().map_or(Ok(default), |text| text.parse::<u64>());
    let (jobs, nodes, seed) = (number(1000)? as usize, number(1)? as usize, number(1)?);
    let disk = args.next().map(PathBuf::from);
    let folder = match &disk {
        Some(disk) => tempfile::tempdir_in(disk)?,
        None => tempfile::tempdir()?,
    };
    let (servers, nats) = start_nats(folder.path(), nodes)?;
    sleep(Duration::from_secs(if nodes > 1 { 8 } else { 1 })).await;
    let port = free_port()?;
    let (fleet, wires) = start_fleet(&prima, &nats, nodes, port).await?;
    let programs: Vec<Program> = servers.into_iter().chain(fleet).collect();
    let run = Arc::new(Run {
        gateway: format!("http://127.0.0.1:{port}"),
        http: reqwest::Client::builder().no_proxy().build()?,
        accepted: Mutex::default(),
        next: AtomicUsize::new(0),
        retries: AtomicU64::new(0),
        done: AtomicBool::new(false),
    });
    let began = Instant::now();
    while run.get("/readyz").await.is_none() {
        if began.elapsed() > Duration::from_mins(1) {
            return Err("no worker became ready in a minute".into());
        }
        sleep(Duration::from_millis(200)).await;
    }
    let began = Instant::now();
    let breaker = tokio::spawn(break_things(run.clone(), programs, wires, disk, seed));
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| tokio::spawn(run.clone().send(jobs, seed)))
        .collect();
    for sender in senders {
        sender.await?;
    }
    println!(
        "{jobs} jobs accepted in {:.0} s, {} tries were sent again",
        began.elapsed().as_secs_f64(),
        run.retries.load(Ordering::Relaxed)
    );
    run.done.store(true, Ordering::Relaxed);
    let (programs, faults) = breaker.await??;
    let (lost, twice) = settle(&run).await?;
    let mut faults: Vec<_> = faults.into_iter().collect();
    faults.sort();
    println!(
        "faults: {}",
        faults
            .iter()
            .map(|(what, n)| format!("{what} {n} times"))
            .collect::<Vec<_>>()
            .join(", ")
    );
    println!(
        "accepted {jobs}, lost {lost}, answered twice {twice}, in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    drop(programs);
    if lost + twice > 0 {
        Err("jobs were lost or answered twice".into())
    } else {
        Ok(())
    }
}

/// Waits for every accepted job: how many never ended well, and how many gave two answers.
async fn settle(run: &Run) -> Any<(usize, usize)> {
    let accepted = run.accepted.lock().await.clone();
    let ids: HashSet<&String> = accepted.values().collect();
    let mut open: Vec<&String> = ids.iter().copied().collect();
    let mut answers: HashMap<&String, Vec<u8>> = HashMap::new();
    let until = Instant::now() + PATIENCE;
    let mut lost = accepted.len() - ids.len();
    while !open.is_empty() && Instant::now() < until {
        let mut still = Vec::new();
        for id in open {
            let state = run.state(id).await.unwrap_or_default();
            match state["state"].as_str() {
                Some("done") if state["status"] == 200 => match run.get(&format!("/jobs/{id}/answer")).await {
                    Some(answer) => {
                        answers.insert(id, answer.bytes().await?.to_vec());
                    }
                    None => still.push(id),
                },
                Some("failed" | "cancelled" | "expired" | "done") => {
                    println!("lost: {state}");
                    lost += 1;
                }
                _ => still.push(id),
            }
        }
        open = still;
        sleep(Duration::from_millis(500)).await;
    }
    lost += open.len();
    // Whoever was slow and came back may not have changed what was answered.
    sleep(Duration::from_secs(8)).await;
    let mut twice = 0;
    for (id, before) in &answers {
        let again = run.get(&format!("/jobs/{id}/answer")).await;
        let again = again.ok_or("an answer went away")?.bytes().await?;
        twice += usize::from(again != before[..]);
    }
    Ok((lost, twice))
}
