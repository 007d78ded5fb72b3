//! A gateway that strangers use: keys, limits, words, and what is told of them.

use crate::common::{Nats, nats, start_gateway_with, start_worker, until, until_ready};
use futures_util::{SinkExt, StreamExt};
use prima_fleet::{Accounts, GatewayOptions, KeyLimits, Words};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const LIMITS: KeyLimits = KeyLimits {
    per_minute: 0,
    burst: 0,
    pictures_a_day: 0,
    pictures_a_month: 0,
    sessions: 0,
};

/// A gateway with accounts in a file, and the file's folder.
async fn gateway(nats: &Nats) -> (String, Accounts, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("accounts.db").display().to_string();
    let accounts = Accounts::open(&file).await.unwrap();
    let options = GatewayOptions {
        token: Some("the operator's own token".into()),
        accounts: Some(accounts.clone()),
        words: Words::read("bomb\n", "bath bomb\n"),
        ..GatewayOptions::default()
    };
    (start_gateway_with(nats, options).await, accounts, folder)
}

async fn ask(gateway: &str, path: &str, key: &str, body: Value) -> Response {
    let request = Client::new().post(format!("{gateway}{path}")).bearer_auth(key);
    request.json(&body).send().await.unwrap()
}

/// A path as it is written, which clients' libraries tidy up; the status.
async fn raw(gateway: &str, path: &str) -> u16 {
    let address = gateway.strip_prefix("http://").unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Its status, seconds of Retry-After, and body.
async fn refused(answer: Response) -> (StatusCode, Option<u64>, Value) {
    let retry = answer.headers().get("retry-after");
    let retry = retry.map(|value| value.to_str().unwrap().parse().unwrap());
    (answer.status(), retry, answer.json().await.unwrap())
}

#[tokio::test]
async fn nobody_paints_without_a_key_and_each_sees_its_own_jobs() {
    let Some(nats) = nats().await else { return };
    let (gateway, accounts, _folder) = gateway(&nats).await;
    let _worker = start_worker(&nats, "one", 0).await;
    until_ready(&gateway).await;
    let [ada, bob] = ["ada", "bob"].map(|name| accounts.add(name, LIMITS, "root"));
    let (ada, bob) = (ada.await.unwrap(), bob.await.unwrap());
    for (path, shape) in [
        ("/v1/images/generations", "/error/message"),
        ("/sdapi/v1/txt2img", "/detail"),
        ("/v1/predictions", "/detail"),
        ("/prompt", "/error/message"),
    ] {
        let (status, _, body) = refused(ask(&gateway, path, "prima_no", json!({})).await).await;
        assert_eq!(status, 401);
        assert!(
            body.pointer(shape).unwrap().as_str().unwrap().contains("not known"),
            "{body}"
        );
    }
    for key in [&ada, &bob, "the operator's own token"] {
        let answer = ask(&gateway, "/v1/images/generations", key, json!({"prompt": key})).await;
        assert_eq!(answer.status(), 200);
        let jobs = Client::new()
            .get(format!("{gateway}/jobs"))
            .bearer_auth(key)
            .send()
            .await
            .unwrap();
        assert_eq!(jobs.json::<Vec<Value>>().await.unwrap().len(), 1);
    }
    // As A1111's clients send it.
    let basic = Client::new()
        .post(format!("{gateway}/sdapi/v1/txt2img"))
        .basic_auth("any", Some(&ada));
    assert_eq!(basic.json(&json!({})).send().await.unwrap().status(), 200);
    // From what is open no path leads to what is not.
    for path in [
        "/js/../sdapi/v1/progress",
        "/js/%2e%2e/sdapi/v1/progress",
        "/sdapi/v1/progress",
    ] {
        let status = raw(&gateway, path).await;
        assert!(status == 400 || status == 401, "{path}: {status}");
    }
    let (status, _, _) = refused(ask(&gateway, "/prompt", &ada, json!({})).await).await;
    assert_eq!(status, 403);
    accounts.revoke("ada", "root").await.unwrap();
    let (status, _, body) = refused(ask(&gateway, "/v1/images/generations", &ada, json!({})).await).await;
    assert_eq!(
        (status.as_u16(), &body["error"]["code"]),
        (401, &json!("invalid_api_key"))
    );
}

#[tokio::test]
async fn rates_and_quotas_are_told_in_the_api_s_own_shape_with_the_time_to_come_back() {
    let Some(nats) = nats().await else { return };
    let (gateway, accounts, _folder) = gateway(&nats).await;
    let worker = start_worker(&nats, "one", 0).await;
    until_ready(&gateway).await;
    let limits = KeyLimits {
        pictures_a_day: 5,
        ..LIMITS
    };
    let key = accounts.add("quota", limits, "root").await.unwrap();
    let openai = "/v1/images/generations";
    assert_eq!(ask(&gateway, openai, &key, json!({"n": 4})).await.status(), 200);
    let (status, retry, body) = refused(ask(&gateway, openai, &key, json!({"n": 2})).await).await;
    assert_eq!(status, 429);
    assert!((1..=86_400).contains(&retry.unwrap()));
    assert_eq!(
        (&body["error"]["type"], &body["error"]["code"]),
        (&json!("insufficient_quota"), &json!("insufficient_quota"))
    );
    let (status, _, body) = refused(ask(&gateway, "/sdapi/v1/txt2img", &key, json!({"batch_size": 2})).await).await;
    assert_eq!((status.as_u16(), &body["error"]), (429, &json!("HTTPException")));
    // What was wrong costs nothing.
    let wrong = Client::new()
        .post(format!("{gateway}{openai}"))
        .bearer_auth(&key)
        .body("wrong");
    assert_eq!(wrong.send().await.unwrap().status(), 422);
    until("the picture back", async || {
        accounts
            .usage(Some("quota"), "")
            .await
            .unwrap()
            .iter()
            .all(|used| used.pictures == 4)
    })
    .await;
    assert_eq!(worker.finished(), 2);
    // The same job, sent again, is counted once.
    for _ in 0..3 {
        let request = Client::new().post(format!("{gateway}{openai}")).bearer_auth(&key);
        let answer = request
            .header("idempotency-key", "k")
            .json(&json!({}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
    }
    let limits = KeyLimits {
        per_minute: 6,
        burst: 2,
        ..LIMITS
    };
    let key = accounts.add("rate", limits, "root").await.unwrap();
    for _ in 0..2 {
        assert_eq!(ask(&gateway, openai, &key, json!({})).await.status(), 200);
    }
    let (status, retry, body) = refused(ask(&gateway, openai, &key, json!({})).await).await;
    assert_eq!(
        (status.as_u16(), &body["error"]["code"]),
        (429, &json!("rate_limit_exceeded"))
    );
    assert!((1..=10).contains(&retry.unwrap()));
}

#[tokio::test]
async fn unwanted_words_are_refused_in_requests_and_in_sessions() {
    let Some(nats) = nats().await else { return };
    let (gateway, accounts, _folder) = gateway(&nats).await;
    let worker = start_worker(&nats, "one", 0).await;
    until_ready(&gateway).await;
    let limits = KeyLimits { sessions: 1, ..LIMITS };
    let key = accounts.add("ada", limits, "root").await.unwrap();
    let openai = "/v1/images/generations";
    let (status, _, body) = refused(ask(&gateway, openai, &key, json!({"prompt": "a BOMB"})).await).await;
    assert_eq!(
        (status.as_u16(), &body["error"]["code"]),
        (400, &json!("content_policy_violation"))
    );
    assert_eq!(
        ask(&gateway, openai, &key, json!({"prompt": "a bath bomb"}))
            .await
            .status(),
        200
    );
    assert_eq!(worker.finished(), 1);
    let url = format!("{}/live?token={key}", gateway.replacen("http", "ws", 1));
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    let second = tokio_tungstenite::connect_async(url.clone().into_client_request().unwrap()).await;
    assert!(second.unwrap_err().to_string().contains("429"));
    let header = br#"{"type":"paint","rev":2,"prompt":"a bomb"}"#;
    let with_picture = [&(header.len() as u32).to_le_bytes()[..], header, b"a picture"].concat();
    for message in [
        Message::Text(r#"{"type":"paint","rev":1,"prompt":"a bomb"}"#.into()),
        Message::Binary(with_picture.into()),
        Message::Text(r#"{"type":"paint","rev":3,"prompt":"a bath bomb"}"#.into()),
    ] {
        socket.send(message).await.unwrap();
    }
    let mut told = Vec::new();
    while told.len() < 4 {
        told.push(socket.next().await.unwrap().unwrap().into_text().unwrap().to_string());
    }
    let errors: Vec<Value> = told[..]
        .iter()
        .filter_map(|text| serde_json::from_str(text).ok())
        .collect();
    let errors: Vec<_> = errors.iter().filter(|error| error["type"] == "error").collect();
    assert_eq!((&errors[0]["rev"], &errors[1]["rev"]), (&json!(1), &json!(2)));
    assert!(
        told.iter()
            .any(|text| text.starts_with("one has") && text.contains("bath"))
    );
}
