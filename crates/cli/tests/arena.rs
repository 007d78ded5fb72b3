//! `prima arena`: two models' pictures, votes, ratings.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;
#[allow(dead_code, reason = "each test file uses its part")]
#[path = "common/serving.rs"]
mod serving;

use common::{folder, golden, prima, refused};
use serde_json::Value;
use serving::Serving;

fn body(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or_else(|_| panic!("{answer}"))
}

#[test]
fn pictures_are_painted_once_shown_in_pairs_and_votes_are_told() {
    let folder = folder("arena");
    let at = |name: &str| folder.join(name).display().to_string();
    std::fs::write(folder.join("list.txt"), "a red apple\na cat\n").unwrap();
    let (model, votes, list) = (
        golden("tiny-sdxl").display().to_string(),
        at("votes.sqlite"),
        at("list.txt"),
    );
    let args = [
        "arena",
        "--model",
        &model,
        "--prompts",
        &list,
        "--steps",
        "1,2",
        "--seeds",
        "1",
        "--votes",
        &votes,
        "--port",
        "0",
    ];
    let painted = |i: usize, steps: usize| folder.join(format!("votes.pictures/tiny-sdxl-{steps}/000{i}-0.png"));
    let serving = Serving::start(&args);
    let shown = body(&serving.get("/pair"));
    assert!(
        ["a red apple", "a cat"].contains(&shown["prompt"].as_str().unwrap()),
        "{shown}"
    );
    let vote = format!(
        r#"{{"pair": {}, "voter": "v", "follows": "left", "prettier": "same", "took_ms": 9}}"#,
        shown["pair"]
    );
    let answer = serving.post("/vote", "application/json", vote.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(serving);
    let before = std::fs::metadata(painted(1, 2)).unwrap().modified().unwrap();
    // What was painted and voted is used again.
    let serving = Serving::start(&args);
    assert_eq!(body(&serving.get("/pair?voter=v"))["done"], 1);
    drop(serving);
    assert_eq!(std::fs::metadata(painted(1, 2)).unwrap().modified().unwrap(), before);
    assert!(painted(0, 1).exists());
    let told = |form: &str| {
        let output = prima(&folder, &["arena", "--results", "--votes", &votes, "--format", form]);
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(told("text").contains("of 1 voters"), "{}", told("text"));
    let results: Value = serde_json::from_str(&told("json")).unwrap();
    assert_eq!(results["voters"], 1);
    let csv = told("csv");
    assert!(
        csv.starts_with("unix_ms,voter,kind") && csv.lines().count() == 2,
        "{csv}"
    );
}

#[test]
fn an_arena_without_two_models_or_without_votes_says_what_it_wants() {
    let folder = folder("arena-refused");
    for name in ["a", "b"] {
        std::fs::create_dir(folder.join(name)).unwrap();
    }
    refused(
        &folder,
        &prima(&folder, &["arena", "a", "b"]),
        2,
        &["two models", "a has 0 prompts"],
    );
    refused(
        &folder,
        &prima(&folder, &["arena", "a", "x=a", "a"]),
        2,
        &["NAME=FOLDER"],
    );
    refused(&folder, &prima(&folder, &["arena", "nowhere"]), 1, &["nowhere"]);
    refused(
        &folder,
        &prima(&folder, &["arena", "--results"]),
        2,
        &["arena.sqlite", "no votes"],
    );
    refused(
        &folder,
        &prima(&folder, &["arena", "a", "--steps", "0"]),
        2,
        &["--steps"],
    );
}
