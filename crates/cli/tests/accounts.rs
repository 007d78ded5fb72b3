//! `prima accounts`: keys in a file, made, listed, limited and revoked.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{folder, prima, stderr};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Output;

fn accounts(folder: &Path, args: &[&str]) -> Output {
    prima(folder, &[&["accounts"], args, &["--accounts", "accounts.db"]].concat())
}

fn told(output: Output) -> Value {
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_key_is_shown_once_and_its_limits_its_use_and_its_end_can_be_asked_for() {
    let here = folder("accounts");
    let output = accounts(&here, &["add", "ada", "--pictures-a-day", "10"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let key = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert!(key.starts_with("prima_") && key.len() == 49, "{key}");
    for file in std::fs::read_dir(&here).unwrap() {
        let file = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!file.windows(20).any(|bytes| bytes == &key.as_bytes()[12..32]));
    }
    told(accounts(&here, &["limit", "ada", "--per-minute", "5", "--json"]));
    let keys = told(accounts(&here, &["list", "--json"]));
    assert_eq!(
        (&keys[0]["per_minute"], &keys[0]["pictures_a_day"], &keys[0]["hint"]),
        (&json!(5), &json!(10), &json!(&key[..10]))
    );
    assert_eq!(told(accounts(&here, &["usage", "--json"])), json!([]));
    let list = accounts(&here, &["list"]);
    assert!(String::from_utf8(list.stdout).unwrap().contains("ada"));
    told(accounts(&here, &["revoke", "ada", "--json"]));
    let again = accounts(&here, &["revoke", "ada"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("there is no such key"), "{}", stderr(&again));
    let acts = told(accounts(&here, &["audit", "--json"]));
    let acts: Vec<_> = acts.as_array().unwrap().iter().map(|act| act["what"].clone()).collect();
    assert_eq!(acts, ["revoke", "limit", "add"]);
}
