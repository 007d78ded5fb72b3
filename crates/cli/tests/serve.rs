//! `prima serve` and bare `prima`: the address on stdout, the page behind it, a clean end.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;
#[allow(dead_code, reason = "each test file uses its part")]
#[path = "common/serving.rs"]
mod serving;

use common::{copied_model, folder, golden, prima, stderr};
use serving::Serving;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn it_prints_the_address_serves_the_page_and_ends_on_request() {
    let model = golden("tiny-sdxl").display().to_string();
    let mut serving = Serving::start(&["serve", "--port", "0", "--model", &model]);
    assert!(serving.get("/healthz").starts_with("HTTP/1.1 200"));
    let page = serving.get("/");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("<html"), "{page}");
    while !serving.get("/readyz").contains("\"ready\":true") {}
    #[cfg(unix)]
    {
        let id = serving.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(serving.process.wait().unwrap().success());
    }
}

#[test]
fn bare_prima_serves_on_this_machine_only_and_takes_the_next_free_port() {
    let first = Serving::start(&[]);
    let second = Serving::start(&[]);
    for serving in [&first, &second] {
        assert!(serving.url.starts_with("http://127.0.0.1:"), "{}", serving.url);
        assert!(serving.get("/healthz").starts_with("HTTP/1.1 200"));
    }
    assert_ne!(first.url, second.url);
}

#[test]
#[cfg(unix)]
fn bare_prima_opens_its_own_address_in_the_browser() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder("serve-browser");
    let (browser, opened) = (folder.join("browser"), folder.join("opened"));
    // Renamed into place, so that a reader sees all of it or nothing.
    let script = "#!/bin/sh\nprintf %s \"$1\" > \"$0.tmp\" && mv \"$0.tmp\" \"$(dirname \"$0\")/opened\"\n";
    std::fs::write(&browser, script).unwrap();
    std::fs::set_permissions(&browser, std::fs::Permissions::from_mode(0o755)).unwrap();
    let serving = Serving::start_with_browser(&[], browser.as_os_str());
    let started = Instant::now();
    while !opened.exists() {
        assert!(started.elapsed() < Duration::from_mins(1), "no browser was opened");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(std::fs::read_to_string(&opened).unwrap(), serving.url);
}

#[test]
fn a_public_address_without_a_token_is_refused() {
    let folder = folder("serve-public");
    let output = prima(&folder, &["serve", "--host", "0.0.0.0", "--port", "0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--token"), "{}", stderr(&output));
}

#[test]
fn what_cannot_be_served_is_said_in_a_sentence() {
    let folder = folder("serve-wrong");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let broken = copied_model(&folder);
    std::fs::write(broken.join("unet/config.json"), "{").unwrap();
    let broken = broken.display().to_string();
    for (args, code, said) in [
        (vec!["serve", "--port", &port], 1, "cannot listen"),
        (vec!["serve", "--port", "0", "--cors", "*"], 2, "--cors *"),
        (vec!["serve", "--port", "0", "--token", " "], 2, "--token"),
        (vec!["serve", "--port", "0", "--token", "a"], 2, "openssl rand"),
        (vec!["serve", "--port", "0", "--token", "12345"], 2, "openssl rand"),
        (
            vec!["serve", "--port", "0", "--token", "fifteen-letters"],
            2,
            "openssl rand",
        ),
        (vec!["serve", "--port", "0", "--model", "nowhere"], 1, "nowhere"),
        (vec!["serve", "--port", "0", "--model", &broken], 1, "unet/config.json"),
        (vec!["serve", "--max-sessions", "0"], 2, "--max-sessions"),
    ] {
        let output = prima(&folder, &args);
        assert_eq!(output.status.code(), Some(code), "{args:?} {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{said:?} is not in {}", stderr(&output));
    }
}

#[test]
#[cfg(unix)]
fn a_request_to_stop_answers_the_client_of_a_long_job() {
    let model = golden("tiny-sdxl").display().to_string();
    let mut serving = Serving::start(&["serve", "--port", "0", "--model", &model]);
    while !serving.get("/readyz").contains("\"ready\":true") {}
    let body = r#"{"prompt": "a", "steps": 100, "width": 1024, "height": 1024, "batch_size": 16}"#;
    let mut job = TcpStream::connect(serving.host()).unwrap();
    let (host, length) = (serving.host(), body.len());
    write!(
        job,
        "POST /sdapi/v1/txt2img HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let id = serving.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let mut answer = String::new();
    job.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after"),
        "{answer}"
    );
    assert!(serving.process.wait().unwrap().success());
}
