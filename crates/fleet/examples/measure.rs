//! `cargo xtask bench fleet`: jobs a second of one, two and three workers on this machine, and what someone who types feels of jobs in
//! the queue; writes what `simulate` reads.
//!
//! `measure PRIMA FILE [JOBS]`. Each worker computes on one thread.

#[allow(dead_code, reason = "each example uses its part")]
#[path = "shared/processes.rs"]
mod processes;
#[path = "shared/times.rs"]
mod times;
#[path = "shared/typist.rs"]
mod typist;

use prima_fleet::simulation::quantile;
use processes::{Any, Program, free_port, start_nats};
use serde_json::json;
use std::time::{Duration, Instant};
use times::Times;
use tokio::time::sleep;
use typist::{Until, type_at};

/// Answers one after the other that are timed.
const TIMED: usize = 60;
/// How long someone types, so many times alone and beside jobs, in turns: others on the machine disturb both.
const TYPED: Duration = Duration::from_secs(5);
const ROUNDS: usize = 4;
/// Jobs beside which someone types. Those that are not begun when that is over are not painted any more.
const QUEUED: usize = 1000;
const SENDERS: usize = 8;

struct Fleet {
    prima: String,
    nats: String,
    gateway: String,
    metrics: String,
    http: reqwest::Client,
    programs: Vec<Program>,
    _folder: tempfile::TempDir,
}

impl Fleet {
    async fn start(prima: &str) -> Any<Self> {
        let folder = tempfile::tempdir()?;
        let (mut programs, nats) = start_nats(folder.path(), 1)?;
        sleep(Duration::from_secs(1)).await;
        let (port, metrics) = (free_port()?.to_string(), format!("127.0.0.1:{}", free_port()?));
        let gateway = [
            prima,
            "gateway",
            "--port",
            &port,
            "--nats",
            &nats,
            "--metrics",
            &metrics,
        ];
        programs.push(Program::start("gateway".into(), gateway.map(str::to_owned).to_vec())?);
        Ok(Self {
            prima: prima.into(),
            gateway: format!("http://127.0.0.1:{port}"),
            metrics: format!("http://{metrics}/metrics"),
            http: reqwest::Client::new(),
            nats,
            programs,
            _folder: folder,
        })
    }

    /// Its server's address.
    fn start_worker(&mut self, name: &str) -> Any<String> {
        let port = free_port()?.to_string();
        let command = [
            &self.prima,
            "--threads",
            "1",
            "worker",
            "--name",
            name,
            "--port",
            &port,
            "--nats",
            &self.nats,
        ];
        let command = command.map(str::to_owned).to_vec();
        self.programs.push(Program::start(format!("worker {name}"), command)?);
        Ok(format!("http://127.0.0.1:{port}"))
    }

    fn job(&self, at: &str, seed: usize) -> reqwest::RequestBuilder {
        let job = json!({"prompt": "a red apple", "seed": seed, "response_format": "b64_json"});
        self.http.post(format!("{at}/v1/images/generations")).json(&job)
    }

    /// Queues jobs; milliseconds for each.
    async fn queue(&self, jobs: usize, deadline: Duration) -> Any<f64> {
        let began = Instant::now();
        let sends = (0..SENDERS).map(async |sender| {
            for job in (sender..jobs).step_by(SENDERS) {
                let sent = self
                    .job(&self.gateway, job)
                    .header("prefer", "respond-async")
                    .header("prima-deadline-s", deadline.as_secs())
                    .send()
                    .await?;
                sent.error_for_status()?;
            }
            Any::Ok(())
        });
        futures_util::future::try_join_all(sends).await?;
        Ok(began.elapsed().as_secs_f64() * 1e3 / jobs as f64)
    }

    async fn queued(&self) -> Any<usize> {
        let text = self.http.get(&self.metrics).send().await?.text().await?;
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("prima_queue_jobs{")?.split_once("} "));
        Ok(lines.filter_map(|(_, count)| count.parse::<f64>().ok()).sum::<f64>() as usize)
    }

    /// Jobs a second while the middle eight tenths of `jobs` that are queued are painted.
    async fn drain(&self, jobs: usize) -> Any<f64> {
        let mut first = None;
        loop {
            let (left, now) = (self.queued().await?, Instant::now());
            if left * 10 <= jobs * 9 && first.is_none() {
                first = Some((left, now));
            }
            if let Some((from, began)) = first
                && left * 10 <= jobs
            {
                return Ok((from - left) as f64 / (now - began).as_secs_f64());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until_empty(&self) -> Any<()> {
        while self.queued().await? > 0 {
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn until(&self, url: &str) -> Any<()> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_mins(2) {
            let answer = self.http.get(url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        Err(format!("{url} did not answer within 2 minutes").into())
    }
}

/// Alone, and beside queued jobs.
async fn type_in_turns(fleet: &Fleet) -> Any<(Vec<f64>, Vec<f64>)> {
    let (mut alone_ms, mut beside_ms, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let alone = type_at(&fleet.gateway, Until::Passed(TYPED)).await?;
        fleet.queue(QUEUED, TYPED + Duration::from_secs(2)).await?;
        let beside = type_at(&fleet.gateway, Until::Passed(TYPED)).await?;
        if fleet.queued().await? == 0 {
            return Err("the queue was empty before the typing was over".into());
        }
        fleet.until_empty().await?;
        ratios.push(quantile(&beside, 0.95) / quantile(&alone, 0.95));
        alone_ms.extend(alone);
        beside_ms.extend(beside);
    }
    println!("typing beside jobs, p95 of each round: {ratios:.2?} times what it is alone");
    Ok((alone_ms, beside_ms))
}

#[tokio::main]
async fn main() -> Any<()> {
    let mut args = std::env::args().skip(1);
    let usage = "measure PRIMA FILE [JOBS]";
    let (prima, file) = (args.next().ok_or(usage)?, args.next().ok_or(usage)?);
    let jobs = args.next().map_or(Ok(300), |jobs| jobs.parse())?;
    let mut fleet = Fleet::start(&prima).await?;
    fleet.until(&format!("{}/healthz", fleet.gateway)).await?;
    let mut accept_ms = f64::INFINITY;
    let mut jobs_per_s = Vec::new();
    for workers in 1..=3 {
        // Without workers: what the gateway and NATS take alone.
        fleet.programs.truncate(2);
        accept_ms = accept_ms.min(fleet.queue(jobs, Duration::from_hours(1)).await?);
        for worker in 0..workers {
            fleet.start_worker(&format!("m{workers}-{worker}"))?;
        }
        jobs_per_s.push(fleet.drain(jobs).await?);
        fleet.until_empty().await?;
        println!("{workers} workers: {:.2} jobs/s", jobs_per_s[workers - 1]);
    }
    fleet.programs.truncate(2);
    let worker = fleet.start_worker("alone")?;
    fleet.until(&format!("{worker}/readyz")).await?;
    let mut job_ms = Vec::new();
    for seed in 0..TIMED {
        let began = Instant::now();
        fleet
            .job(&worker, seed)
            .send()
            .await?
            .error_for_status()?
            .bytes()
            .await?;
        job_ms.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let keystroke_ms = type_at(&worker, Until::Seen(TIMED)).await?;
    // The gateway has to know it, and forget the others.
    sleep(Duration::from_secs(3)).await;
    let (alone_ms, beside_ms) = type_in_turns(&fleet).await?;
    let mean = job_ms.iter().sum::<f64>() / job_ms.len() as f64;
    let times = Times {
        about: format!("the embedded model, {jobs} jobs, workers on one thread each"),
        processors: std::thread::available_parallelism()?.get(),
        store_ms: (1e3 / jobs_per_s[0] - mean).max(0.0),
        job_ms,
        keystroke_ms,
        accept_ms,
        jobs_per_s,
        alone_ms,
        beside_ms,
    };
    let of = |values: &[f64]| [0.5, 0.95, 0.99].map(|share| (quantile(values, share) * 10.0).round() / 10.0);
    println!(
        "a job p50, p95, p99 {:?} ms, a keystroke {:?} ms",
        of(&times.job_ms),
        of(&times.keystroke_ms)
    );
    println!(
        "accepting {:.2} ms a job, storing and taking {:.1} ms",
        times.accept_ms, times.store_ms
    );
    println!(
        "typing alone {:?} ms, beside {QUEUED} queued jobs {:?} ms",
        of(&times.alone_ms),
        of(&times.beside_ms)
    );
    std::fs::write(file, serde_json::to_string_pretty(&times)? + "\n")?;
    Ok(())
}
