//! Jobs between a gateway, workers and a real NATS server: answered once, whatever dies.

use crate::common::{nats, start_gateway, start_worker, until, until_ready};
use serde_json::Value;
use std::time::Duration;

#[tokio::test]
async fn an_answer_is_the_one_of_the_worker_s_own_server() {
    let Some(nats) = nats().await else { return };
    let gateway = start_gateway(&nats, None).await;
    let worker = start_worker(&nats, "one", 0).await;
    until_ready(&gateway).await;
    let http = reqwest::Client::new();
    // Also with a body and an answer that no message of NATS holds.
    let large = vec![7u8; 3 << 20];
    for body in [b"small".to_vec(), large] {
        let asked = http.post(format!("{gateway}/v1/images/generations?size=2&token=mine"));
        let answer = asked
            .header("content-type", "text/x")
            .body(body.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-painted-by"], "one");
        assert_eq!(
            (&answer.headers()["x-query"], &answer.headers()["x-kind"]),
            (&"size=2".parse().unwrap(), &"text/x".parse().unwrap())
        );
        assert_eq!(answer.bytes().await.unwrap(), body);
    }
    let answer = http
        .post(format!("{gateway}/sdapi/v1/txt2img"))
        .body("wrong")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 422);
    assert_eq!(worker.finished(), 3);
}

#[tokio::test]
async fn the_same_key_is_the_same_job_and_painted_once() {
    let Some(nats) = nats().await else { return };
    let gateway = start_gateway(&nats, None).await;
    let worker = start_worker(&nats, "one", 300).await;
    until_ready(&gateway).await;
    let http = reqwest::Client::new();
    let ask = async |body: &'static str| {
        let request = http
            .post(format!("{gateway}/v1/images/generations"))
            .header("idempotency-key", "k1");
        request.body(body).send().await.unwrap().text().await.unwrap()
    };
    let (first, second) = tokio::join!(ask("a"), ask("b"));
    assert_eq!(first, second);
    assert_eq!(ask("c").await, first);
    assert_eq!(worker.begun(), 1);
}

#[tokio::test]
async fn a_job_whose_worker_dies_is_answered_by_another() {
    let Some(nats) = nats().await else { return };
    let gateway = start_gateway(&nats, None).await;
    let mut first = start_worker(&nats, "first", 60_000).await;
    until_ready(&gateway).await;
    let request = reqwest::Client::new()
        .post(format!("{gateway}/v1/images/generations"))
        .body("x")
        .send();
    let asked = tokio::spawn(request);
    until("the first worker's begin", async || first.begun() == 1).await;
    first.kill();
    let second = start_worker(&nats, "second", 0).await;
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-painted-by"]),
        (200, &"second".parse().unwrap())
    );
    assert_eq!((first.finished(), second.finished()), (0, 1));
}

#[tokio::test]
async fn a_job_that_is_not_waited_for_is_asked_about_later_by_its_owner_alone() {
    let Some(nats) = nats().await else { return };
    let gateway = start_gateway(&nats, Some("the gateway's token")).await;
    let _worker = start_worker(&nats, "one", 50).await;
    let http = reqwest::Client::new();
    let get = async |path: &str| {
        http.get(format!("{gateway}{path}"))
            .bearer_auth("the gateway's token")
            .send()
            .await
            .unwrap()
    };
    let asked = http
        .post(format!("{gateway}/v1/images/generations"))
        .body("later")
        .header("prefer", "respond-async");
    let denied = asked.try_clone().unwrap().send().await.unwrap();
    assert_eq!(denied.status(), 401);
    let accepted = asked.bearer_auth("the gateway's token").send().await.unwrap();
    assert_eq!(accepted.status(), 202);
    let place = accepted.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(accepted.json::<Value>().await.unwrap()["state"], "queued");
    until("the answer", async || {
        get(&place).await.json::<Value>().await.unwrap()["state"] == "done"
    })
    .await;
    assert_eq!(get(&format!("{place}/answer")).await.text().await.unwrap(), "later");
    let list: Value = get("/jobs").await.json().await.unwrap();
    assert_eq!(
        (list.as_array().unwrap().len(), &list[0]["class"]),
        (1, &Value::from("batch"))
    );
    assert_eq!(get("/jobs/00000000000000000000000000000000").await.status(), 404);
}

#[tokio::test]
async fn cancelled_and_late_jobs_are_not_painted_to_their_end() {
    let Some(nats) = nats().await else { return };
    let gateway = start_gateway(&nats, None).await;
    let worker = start_worker(&nats, "one", 3000).await;
    until_ready(&gateway).await;
    let http = reqwest::Client::new();
    let submit = async |deadline: &str| {
        let request = http.post(format!("{gateway}/v1/images/generations")).body("x");
        let request = request
            .header("prefer", "respond-async")
            .header("prima-deadline-s", deadline);
        request.send().await.unwrap().headers()["location"]
            .to_str()
            .unwrap()
            .to_owned()
    };
    let state = async |place: &str| {
        let answer = http.get(format!("{gateway}{place}")).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["state"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (first, late) = (submit("60").await, submit("0.5").await);
    until("the first one's begin", async || worker.begun() == 1).await;
    let cancelled = http.delete(format!("{gateway}{first}")).send().await.unwrap();
    assert_eq!(cancelled.json::<Value>().await.unwrap()["state"], "cancelled");
    // The worker is free at once, but too late for the second, if it was not asked to begin before.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let third = submit("60").await;
    until("the third one's end", async || state(&third).await == "done").await;
    assert_eq!(state(&first).await, "cancelled");
    assert!(["expired", "done"].contains(&state(&late).await.as_str()));
}

#[tokio::test]
async fn a_job_that_breaks_every_worker_is_given_up_with_a_reason() {
    let Some(nats) = nats().await else { return };
    let gateway = start_gateway(&nats, None).await;
    let worker = start_worker(&nats, "one", 0).await;
    until_ready(&gateway).await;
    let answer = reqwest::Client::new()
        .post(format!("{gateway}/v1/images/generations"))
        .body("break")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 500);
    assert!(answer.text().await.unwrap().contains("4 workers began it"));
    assert_eq!(worker.begun(), 4);
    // The worker goes on.
    let answer = reqwest::Client::new()
        .post(format!("{gateway}/v1/images/generations"))
        .body("whole")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.text().await.unwrap(), "whole");
}

#[tokio::test]
async fn a_worker_that_is_asked_to_end_finishes_what_it_has_and_takes_nothing_more() {
    let Some(nats) = nats().await else { return };
    let gateway = start_gateway(&nats, None).await;
    let first = start_worker(&nats, "first", 700).await;
    until_ready(&gateway).await;
    let ask = || {
        let request = reqwest::Client::new()
            .post(format!("{gateway}/v1/images/generations"))
            .body("x")
            .send();
        tokio::spawn(async {
            request.await.unwrap().headers()["x-painted-by"]
                .to_str()
                .unwrap()
                .to_owned()
        })
    };
    let one = ask();
    until("the begin", async || first.begun() == 1).await;
    let two = ask();
    first.drain().await;
    let _second = start_worker(&nats, "second", 0).await;
    assert_eq!(
        (one.await.unwrap().as_str(), two.await.unwrap().as_str()),
        ("first", "second")
    );
}

#[tokio::test]
async fn who_looks_at_a_job_hears_how_far_it_is_until_it_has_ended() {
    let Some(nats) = nats().await else { return };
    let gateway = start_gateway(&nats, None).await;
    let _worker = start_worker(&nats, "one", 1500).await;
    until_ready(&gateway).await;
    let http = reqwest::Client::new();
    for (query, picture) in [("", "null"), ("?previews=true", "\"a picture\"")] {
        let asked = http.post(format!("{gateway}/v1/images/generations")).body("x");
        let accepted = asked.header("prefer", "respond-async").send().await.unwrap();
        let place = accepted.headers()["location"].to_str().unwrap().to_owned();
        let stream = http
            .get(format!("{gateway}{place}/events{query}"))
            .send()
            .await
            .unwrap();
        assert_eq!(stream.headers()["content-type"], "text/event-stream");
        // It ends by itself.
        let text = stream.text().await.unwrap();
        let states: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split_once("\"state\":\"")?.1.split('"').next())
            .collect();
        assert_eq!(states.first(), Some(&"queued"), "{text}");
        assert_eq!(states.last(), Some(&"done"), "{text}");
        assert!(states.contains(&"running"), "{text}");
        let progress = text.lines().find(|line| line.contains("\"progress\":0.5")).unwrap();
        assert!(progress.contains(&format!("\"current_image\":{picture}")), "{progress}");
        assert!(progress.contains(place.strip_prefix("/jobs/").unwrap()), "{progress}");
    }
}
