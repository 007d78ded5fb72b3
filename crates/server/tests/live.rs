//! The live protocol against a real server.

mod common;

use common::{Got, Server, paint, painted, png, same};
use prima_pipeline::{InitImage, Picture, Request, ScheduleOptions};
use serde_json::json;
use std::time::{Duration, Instant};

fn request(prompt: &str, steps: usize) -> Request {
    Request {
        prompt: prompt.to_owned(),
        seed: 7,
        schedule: ScheduleOptions::steps(steps),
        ..Request::default()
    }
}

#[tokio::test]
async fn a_session_begins_with_what_the_model_is_and_may_be_asked() {
    let server = Server::start().await;
    let live = server.live().await;
    assert_eq!(live.hello["protocol"], 1);
    assert_eq!(live.hello["model"]["name"], "tiny-sdxl");
    assert_eq!(live.hello["model"]["width"], 64);
    assert!(
        live.hello["model"]["schedulers"]
            .as_array()
            .unwrap()
            .contains(&json!("euler"))
    );
    assert_eq!(live.hello["limits"]["variants"], 16);
}

#[tokio::test]
async fn a_quick_tier_comes_first_and_the_last_is_what_paint_makes() {
    let server = Server::start().await;
    let mut live = server.live().await;
    live.send(&paint(1, "a cat")).await;
    let frames = live.frames_until(1).await;
    assert_eq!(frames.len(), 2, "one step at once, then the two that were asked for");
    let (first, last) = (&frames[0], &frames[1]);
    assert_eq!(
        (first.0["tier"].as_u64(), first.0["final"].as_bool()),
        (Some(0), Some(false))
    );
    assert_eq!(
        (first.0["step"].as_u64(), first.0["steps"].as_u64()),
        (Some(1), Some(2))
    );
    assert_eq!((last.0["tier"].as_u64(), last.0["step"].as_u64()), (Some(1), Some(2)));
    same(&first.1, &painted(&request("a cat", 1)), "one step");
    same(&last.1, &painted(&request("a cat", 2)), "two steps");
    assert!(last.0["parameters"].as_str().unwrap().starts_with("a cat\nSteps: 2"));
    assert_eq!(
        last.0["text_cached"], true,
        "the first tier has read the prompt already"
    );
}

#[tokio::test]
async fn weights_in_the_prompt_change_the_picture_and_brackets_can_be_escaped() {
    let server = Server::start().await;
    let mut live = server.live().await;
    let mut pictures = Vec::new();
    for (rev, prompt) in (1..).zip(["a red cat", "a (red:1.6) cat", "a (red:1.0) cat"]) {
        let mut message = paint(rev, prompt);
        message["preview"] = json!(false);
        live.send(&message).await;
        pictures.push(live.frames_until(rev).await.pop().unwrap().1);
    }
    assert!(pictures[0] != pictures[1], "the weight changes nothing");
    same(&pictures[0], &pictures[2], "a weight of 1");
}

#[tokio::test]
async fn the_latest_revision_wins_and_none_goes_backwards() {
    let server = Server::start().await;
    let mut live = server.live().await;
    let prompt = "a cat wearing sunglasses";
    let last = prompt.len() as u64;
    for rev in 1..=last {
        live.send(&paint(rev, &prompt[..rev as usize])).await;
    }
    let frames = live.frames_until(last).await;
    let revs: Vec<u64> = frames.iter().map(|f| f.0["rev"].as_u64().unwrap()).collect();
    assert!(revs.is_sorted(), "{revs:?}");
    let shown: std::collections::BTreeSet<u64> = revs.iter().copied().collect();
    let header = &frames.last().unwrap().0;
    let given_up = header["dropped"].as_u64().unwrap() + header["cancelled"].as_u64().unwrap();
    assert!(given_up > 0, "all {last} keystrokes at once were painted one by one");
    assert!(
        shown.len() as u64 + given_up <= last,
        "{shown:?} shown and {given_up} given up of {last}"
    );
    same(
        &frames.last().unwrap().1,
        &painted(&request(prompt, 2)),
        "the last revision",
    );
}

#[tokio::test]
async fn two_sessions_are_both_served() {
    let server = Server::start().await;
    let (mut a, mut b) = (server.live().await, server.live().await);
    for rev in 1..=10 {
        a.send(&paint(rev, &"a cat".repeat(rev as usize))).await;
        b.send(&paint(rev, &"a dog".repeat(rev as usize))).await;
    }
    let (a, b) = tokio::join!(a.frames_until(10), b.frames_until(10));
    assert!(a.last().unwrap().1 != b.last().unwrap().1);
}

#[tokio::test]
async fn three_pictures_are_begun_at_once_and_no_more() {
    let server = Server::start().await;
    let mut sessions = Vec::new();
    for _ in 0..6 {
        let mut live = server.live().await;
        let slow = json!({"type": "paint", "rev": 1, "prompt": "slow", "steps": 100, "preview": false, "width": 512, "height": 512});
        live.send(&slow).await;
        sessions.push(live);
    }
    let (mut most, mut end) = (0, Instant::now() + Duration::from_mins(1));
    while Instant::now() < end {
        let begun = server.engine.occupancy().begun;
        if begun > most {
            most = begun;
            // A fourth would come soon.
            end = if most == 3 {
                Instant::now() + Duration::from_secs(1)
            } else {
                end
            };
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(most, 3);
}

#[tokio::test]
async fn a_sketch_is_painted_over() {
    let server = Server::start().await;
    let mut live = server.live().await;
    let header = json!({"type": "paint", "rev": 1, "prompt": "a cat", "seed": 7, "steps": 2, "strength": 0.5, "width": 64, "height": 64});
    let sketch = png(48, 80);
    live.send_binary(&header, &sketch).await;
    let frames = live.frames_until(1).await;
    let expected = painted(&Request {
        width: Some(64),
        height: Some(64),
        init_image: Some(InitImage {
            picture: Picture::decode(&sketch, "sketch").unwrap(),
            strength: Some(0.5),
        }),
        ..request("a cat", 2)
    });
    same(&frames.last().unwrap().1, &expected, "the sketch");
}

#[tokio::test]
async fn variants_come_one_frame_each() {
    let server = Server::start().await;
    let mut live = server.live().await;
    live.send(&json!({"type": "variants", "rev": 3, "prompt": "a cat", "steps": 1, "seeds": [7, 8, 9]}))
        .await;
    let mut pictures = Vec::new();
    for index in 0..3 {
        let (header, picture) = live.frame().await;
        assert_eq!(
            (header["index"].as_u64(), header["count"].as_u64()),
            (Some(index), Some(3))
        );
        assert_eq!(header["seed"], 7 + index);
        pictures.push(picture);
    }
    same(&pictures[0], &painted(&request("a cat", 1)), "the first seed");
    assert!(pictures[0] != pictures[1], "two seeds, one picture");
    live.send(
        &json!({"type": "variants", "rev": 4, "prompt": "", "seed": 7, "steps": 1, "prompts": ["a dog", "a cat"]}),
    )
    .await;
    live.frame().await;
    same(&live.frame().await.1, &pictures[0], "the second prompt");
}

#[tokio::test]
async fn sensitivity_names_each_word_and_its_place() {
    let server = Server::start().await;
    let mut live = server.live().await;
    live.send(&json!({"type": "sensitivity", "rev": 1, "prompt": "a (red:1.2) été", "seed": 7, "steps": 1}))
        .await;
    let answer = live.text().await;
    assert_eq!(
        (answer["type"].as_str(), answer["rev"].as_u64()),
        (Some("sensitivity"), Some(1))
    );
    let words = answer["words"].as_array().unwrap();
    let places: Vec<(&str, u64, u64)> = words
        .iter()
        .map(|w| {
            (
                w["word"].as_str().unwrap(),
                w["start"].as_u64().unwrap(),
                w["end"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(places, [("a", 0, 1), ("red", 3, 6), ("été", 12, 15)]);
    assert!(words.iter().all(|w| w["change"].as_f64().unwrap() > 0.0), "{words:?}");
}

#[tokio::test]
async fn pongs_and_formats() {
    let server = Server::start().await;
    let mut live = server.live().await;
    live.send(&json!({"type": "ping", "id": 42})).await;
    assert_eq!(live.text().await, json!({"type": "pong", "id": 42}));
    for (rev, format) in (1..).zip(["png", "jpeg", "webp"]) {
        live.send(&json!({"type": "paint", "rev": rev, "prompt": "x", "steps": 1, "format": format}))
            .await;
        let (header, picture) = live.frame().await;
        assert_eq!(header["format"], format);
        assert_eq!((picture.width, picture.height), (64, 64));
    }
}

#[tokio::test]
async fn cancel_ends_work_and_later_revisions_go_on() {
    let server = Server::start().await;
    let mut live = server.live().await;
    live.send(&json!({"type": "paint", "rev": 1, "prompt": "slow", "steps": 100, "preview": false}))
        .await;
    live.send(&json!({"type": "cancel", "rev": 1})).await;
    live.send(&json!({"type": "paint", "rev": 2, "prompt": "quick", "steps": 1}))
        .await;
    let (header, _) = live.frame().await;
    assert_eq!(header["rev"], 2);
}

/// What a session says to a message that it cannot follow; it goes on afterwards.
async fn refused(message: serde_json::Value) -> serde_json::Value {
    let server = Server::start().await;
    let mut live = server.live().await;
    live.send(&message).await;
    let error = live.text().await;
    assert_eq!(error["type"], "error", "{error}");
    live.send(&json!({"type": "paint", "rev": 100, "prompt": "still here", "steps": 1}))
        .await;
    assert_eq!(live.frame().await.0["rev"], 100);
    error
}

#[tokio::test]
async fn impossible_revisions_are_refused_by_name_and_the_session_goes_on() {
    let with = |field: &str, value: serde_json::Value| {
        let mut message = paint(5, "a cat");
        message[field] = value;
        message
    };
    for (message, said) in [
        (with("width", json!(4)), "width 4"),
        (with("width", json!(4096)), "width 4096"),
        (with("steps", json!(0)), "steps 0"),
        (with("steps", json!(5000)), "steps 5000"),
        (with("guidance_scale", json!(-1)), "guidance_scale -1"),
        (with("scheduler", json!("heun3")), "heun3"),
        (with("prompt", json!("x".repeat(3000))), "prompt has 3000 characters"),
        (with("seed", json!(-1)), "not understood"),
        (
            json!({"type": "variants", "rev": 5, "prompt": "a", "seeds": []}),
            "either seeds or prompts",
        ),
        (
            json!({"type": "variants", "rev": 5, "prompt": "a", "seeds": vec![1; 17]}),
            "1 to 16",
        ),
        (json!({"type": "sensitivity", "rev": 5, "prompt": "..."}), "no words"),
        (json!({"type": "dance", "rev": 5}), "not understood"),
    ] {
        let error = refused(message).await;
        assert!(
            error["message"].as_str().unwrap().contains(said),
            "{said:?} is not in {error}"
        );
        assert_eq!(error["rev"], 5, "{error}");
    }
}

#[tokio::test]
async fn malformed_messages_are_refused_and_the_session_goes_on() {
    use futures_util::SinkExt;
    use tokio_tungstenite::tungstenite::Message;
    let server = Server::start().await;
    let mut live = server.live().await;
    let header = json!({"type": "paint", "rev": 1, "prompt": "x", "steps": 2, "strength": 1.0});
    for (message, said) in [
        (Message::text("{\"type\": \"paint\", "), "not understood"),
        (Message::text("[]"), "not understood"),
        (Message::binary(vec![1, 0]), "shorter than its length"),
        (Message::binary(vec![255, 255, 255, 255, 1]), "shorter than the header"),
        (Message::binary(vec![2, 0, 0, 0, 0xff, 0xfe, 1, 2]), "not understood"),
        (
            Message::binary(common::packed(&header, b"not a picture")),
            "not a picture",
        ),
        (
            Message::binary(common::packed(&header, &common::bomb(100_000))),
            "not a picture",
        ),
        (
            Message::binary(common::packed(&header, &common::bomb(5000))),
            "more than",
        ),
    ] {
        live.socket.send(message).await.unwrap();
        let error = live.text().await;
        assert!(
            error["message"].as_str().unwrap().contains(said),
            "{said:?} is not in {error}"
        );
    }
    live.send(&paint(2, "a cat")).await;
    live.frames_until(2).await;
    live.send(&paint(2, "a cat")).await;
    assert!(live.text().await["message"].as_str().unwrap().contains("not newer"));
}

#[tokio::test]
async fn a_message_over_the_limit_closes_the_session_with_1009() {
    let server = Server::with(|o| o.limits.image_bytes = 1 << 20).await;
    let mut live = server.live().await;
    live.send_binary(&paint(1, "x"), &vec![0; 2 << 20]).await;
    let (code, reason) = live.closed().await;
    assert_eq!(code, 1009, "{reason}");
    assert!(reason.contains("more than"), "{reason}");
}

#[tokio::test]
async fn a_flood_closes_the_session_with_1008_and_others_go_on() {
    let server = Server::start().await;
    let (mut flood, mut honest) = (server.live().await, server.live().await);
    for id in 0..2000 {
        use futures_util::SinkExt;
        let message = json!({"type": "ping", "id": id}).to_string();
        if flood
            .socket
            .send(tokio_tungstenite::tungstenite::Message::text(message))
            .await
            .is_err()
        {
            break;
        }
    }
    let (code, reason) = flood.closed().await;
    assert!(
        code == 1008 && reason.contains("messages a second") || code == 0,
        "{code} {reason}"
    );
    honest.send(&paint(1, "a cat")).await;
    honest.frames_until(1).await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off_and_others_go_on() {
    let server = Server::with(|o| {
        o.limits.stall = Duration::from_millis(200);
        o.limits.message_burst = 1e9;
        o.limits.max_side_px = 1024;
    })
    .await;
    let mut stalled = server.live().await;
    let mut honest = server.live().await;
    // Enough pictures to fill every buffer between the two ends, none of them read.
    let mut rev = 0;
    while server.engine.occupancy().sessions == 2 {
        rev += 1;
        use futures_util::SinkExt;
        let message =
            json!({"type": "paint", "rev": rev, "prompt": rev.to_string(), "steps": 1, "width": 512, "height": 512});
        if stalled
            .socket
            .send(tokio_tungstenite::tungstenite::Message::text(message.to_string()))
            .await
            .is_err()
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(rev < 100_000, "the stalled client was never cut off");
    }
    honest.send(&paint(1, "a cat")).await;
    honest.frames_until(1).await;
}

#[tokio::test]
async fn strangers_are_told_why_they_may_not_stay() {
    let server = Server::with(|o| o.token = Some("a-secret-of-this-test".into())).await;
    for path in ["/live", "/live?token=wrong"] {
        let (code, reason) = server.live_at(path, &[]).await.closed().await;
        assert_eq!(code, 1008);
        assert!(reason.contains("token"), "{reason}");
    }
    let mut live = server.live_at("/live?token=a-secret-of-this-test", &[]).await;
    assert_eq!(live.text().await["type"], "hello");
    let mut live = server
        .live_at("/live", &[("authorization", "Bearer a-secret-of-this-test")])
        .await;
    assert_eq!(live.text().await["type"], "hello");
}

#[tokio::test]
async fn a_foreign_origin_is_refused_and_the_pages_own_is_not() {
    let server = Server::with(|o| o.cors = vec!["http://friend.example".into()]).await;
    let own = format!("http://{}", server.address);
    for origin in [own.as_str(), "http://friend.example"] {
        let mut live = server.live_at("/live", &[("origin", origin)]).await;
        assert_eq!(live.text().await["type"], "hello", "{origin}");
    }
    for origin in ["http://evil.example", "null", "https://friend.example"] {
        let (code, reason) = server.live_at("/live", &[("origin", origin)]).await.closed().await;
        assert_eq!(code, 1008, "{origin}");
        assert!(reason.contains("other sites"), "{reason}");
    }
}

#[tokio::test]
async fn one_session_too_many_is_told_to_come_back() {
    let server = Server::with(|o| o.max_sessions = 1).await;
    let first = server.live().await;
    let (code, reason) = server.live_at("/live", &[]).await.closed().await;
    assert_eq!(code, 1013);
    assert!(reason.contains("too many sessions"), "{reason}");
    drop(first);
    while server.engine.occupancy().sessions > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The permit is given back just after the session ends.
    loop {
        let mut live = server.live_at("/live", &[]).await;
        if matches!(live.next().await, Got::Text(_)) {
            break;
        }
    }
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_nothing_behind() {
    let server = Server::start().await;
    let mut live = server.live().await;
    live.send(&json!({"type": "paint", "rev": 1, "prompt": "slow", "steps": 100, "preview": false, "width": 512, "height": 512})).await;
    while server.engine.occupancy().begun == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(live);
    while server.engine.occupancy() != prima_engine::Occupancy::default() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn shutting_down_says_goodbye() {
    let mut server = Server::start().await;
    let mut live = server.live().await;
    server.stop();
    let (code, reason) = live.closed().await;
    assert_eq!(code, 1001);
    assert!(reason.contains("shutting down"), "{reason}");
    drop(live);
    server.ended.await.unwrap().unwrap();
}
