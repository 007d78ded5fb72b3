//! Who waits for whom.

use crate::common::{nats, start_gateway_with, start_worker, until_ready};
use futures_util::StreamExt as _;
use prima_fleet::{Accounts, GatewayOptions, KeyLimits};
use reqwest::Client;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Jobs that one client has queued.
const QUEUED: usize = 200;
const PICTURE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn one_job_waits_for_one_of_another_key_s_two_hundred_and_who_waits_himself_goes_first() {
    let Some(nats) = nats().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("accounts.db").display().to_string();
    let accounts = Accounts::open(&file).await.unwrap();
    let [busy, other] = ["busy", "other"].map(|name| accounts.add(name, KeyLimits::default(), "root"));
    let (busy, other) = (busy.await.unwrap(), other.await.unwrap());
    let options = GatewayOptions {
        accounts: Some(accounts),
        ..GatewayOptions::default()
    };
    let gateway = start_gateway_with(&nats, options).await;
    let worker = start_worker(&nats, "one", PICTURE.as_millis() as usize).await;
    until_ready(&gateway).await;
    let http = Client::new();
    let ask = async |key: &str, prefer: &str| {
        let request = http.post(format!("{gateway}/v1/images/generations")).bearer_auth(key);
        request.header("prefer", prefer).body("x").send().await.unwrap()
    };
    for _ in 0..QUEUED {
        assert_eq!(ask(&busy, "respond-async").await.status(), 202);
    }
    // A job that is not waited for, of a key that has no other.
    let mut waits = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let accepted = ask(&other, "respond-async").await;
        let place = accepted.headers()["location"].to_str().unwrap().to_owned();
        loop {
            let asked = http.get(format!("{gateway}{place}")).bearer_auth(&other);
            let record: Value = asked.send().await.unwrap().json().await.unwrap();
            if record["state"] == "done" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        waits.push(began.elapsed());
    }
    // One that is waited for, of the busy key itself.
    let began = Instant::now();
    assert_eq!(ask(&busy, "wait").await.status(), 200);
    waits.push(began.elapsed());
    let left = QUEUED + 6 - worker.finished();
    eprintln!("waited {waits:?} beside {QUEUED} queued jobs of {PICTURE:?}, {left} of which were left in the end");
    assert!(
        left > QUEUED / 2,
        "the queue was empty too soon for this to say anything"
    );
    waits.sort();
    // The picture that is being painted, one of the other's at most, and one's own; twice that on a busy machine.
    assert!(waits[waits.len() / 2] < PICTURE * 6, "{waits:?}");
}

#[tokio::test]
async fn a_client_that_comes_back_after_the_queue_forgot_it_is_served() {
    let Some(nats) = nats().await else { return };
    let gateway = start_gateway_with(&nats, GatewayOptions::default()).await;
    let worker = start_worker(&nats, "one", 0).await;
    until_ready(&gateway).await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(&nats.url).await.unwrap());
    let queue = jetstream.get_stream("PRIMA_JOBS").await.unwrap();
    for jobs in 1..=3 {
        let asked = Client::new().post(format!("{gateway}/v1/images/generations")).body("x");
        let answer = asked.timeout(Duration::from_secs(10)).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), worker.finished()), (200, jobs));
        // As the server does it with a lane that is idle for an hour.
        let names: Vec<_> = queue.consumer_names().collect().await;
        for name in names {
            queue.delete_consumer(&name.unwrap()).await.unwrap();
        }
    }
}
