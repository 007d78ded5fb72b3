//! A small hub on this machine: repositories by name, and what goes wrong there.

#![allow(dead_code, reason = "each test file uses its part")]

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub has and does.
#[derive(Default)]
pub struct World {
    /// `ORG/NAME` to its files.
    pub repositories: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Repositories that want this token.
    pub gated: BTreeMap<String, String>,
    /// Answers with a body of weights that end after so many bytes, one after the other.
    pub cuts: Vec<usize>,
    /// Answers with a body of weights that are of this status, before all others.
    pub statuses: Vec<u16>,
    /// What is said of weights is said of other bytes.
    pub lies: bool,
    /// So many bodies of weights that follow an answer that was cut never come.
    pub stalls: usize,
    /// Ranges are not known.
    pub no_ranges: bool,
    /// Large files lie at another address.
    pub elsewhere: bool,
    /// Etags as other servers make them.
    pub foreign_etags: bool,
    /// Each request's first line, and its range and token where it has them.
    pub log: Vec<String>,
}

pub struct TestHub {
    pub address: SocketAddr,
    pub world: Arc<Mutex<World>>,
}

impl TestHub {
    pub fn start(world: World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let world = Arc::new(Mutex::new(world));
        let shared = world.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let world = shared.clone();
                std::thread::spawn(move || {
                    // A client that goes away is its own matter.
                    let _ = answer(&world, stream);
                });
            }
        });
        Self { address, world }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn log(&self) -> Vec<String> {
        self.world.lock().unwrap().log.clone()
    }
}

/// A repository of these files.
pub fn with(repository: &str, files: &[(&str, Vec<u8>)]) -> World {
    let files = files
        .iter()
        .map(|(name, bytes)| ((*name).to_owned(), bytes.clone()))
        .collect();
    World {
        repositories: BTreeMap::from([(repository.to_owned(), files)]),
        ..World::default()
    }
}

/// Bytes that repeat nowhere near.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(next).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

/// As the hub calls a file.
pub fn etag(name: &str, bytes: &[u8]) -> String {
    if is_large(name) {
        return hex(&Sha256::digest(bytes));
    }
    let mut git = sha1::Sha1::new();
    sha1::Digest::update(&mut git, format!("blob {}\0", bytes.len()));
    sha1::Digest::update(&mut git, bytes);
    hex(&sha1::Digest::finalize(git))
}

struct Asked {
    method: String,
    path: String,
    range: Option<usize>,
    token: Option<String>,
}

fn read_request(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let mut asked = Asked {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        range: None,
        token: None,
    };
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            return Some(asked);
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => asked.range = value.strip_prefix("bytes=")?.trim_end_matches('-').parse().ok(),
            "authorization" => asked.token = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
}

fn answer(world: &Mutex<World>, mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(asked) = read_request(&mut reader) {
        let mut world = world.lock().unwrap();
        let mut line = format!("{} {}", asked.method, asked.path);
        if let Some(range) = asked.range {
            write!(line, " from {range}").unwrap();
        }
        if let Some(token) = &asked.token {
            write!(line, " as {token}").unwrap();
        }
        world.log.push(line);
        let stalls = world.stalls > 0 && world.cuts.is_empty() && asked.method == "GET" && is_large(&asked.path);
        let (head, body, cut) = respond(&mut world, &asked);
        drop(world);
        if stalls {
            // Until the client is gone.
            let _ = stream.read(&mut [0]);
            return Ok(());
        }
        stream.write_all(head.as_bytes())?;
        let body = if asked.method == "HEAD" { &[][..] } else { &body[..] };
        stream.write_all(&body[..cut.unwrap_or(body.len()).min(body.len())])?;
        if cut.is_some() {
            return Ok(());
        }
    }
    let _ = stream.read(&mut [0]);
    Ok(())
}

fn plain(status: u16, headers: &str, body: Vec<u8>) -> (String, Vec<u8>, Option<usize>) {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    (head, body, None)
}

fn respond(world: &mut World, asked: &Asked) -> (String, Vec<u8>, Option<usize>) {
    let path = asked.path.split('?').next().unwrap().replace("%20", " ");
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["api", "models", org, name, "revision", revision] => {
            let repository = format!("{org}/{name}");
            let Some(files) = world.repositories.get(&repository) else {
                return plain(401, "x-error-code: RepoNotFound\r\n", Vec::new());
            };
            if ![COMMIT, "main", "v1"].contains(revision) {
                return plain(404, "x-error-code: RevisionNotFound\r\n", Vec::new());
            }
            let files: Vec<String> = files
                .keys()
                .map(|name| format!(r#"{{"rfilename": "{name}"}}"#))
                .collect();
            let body = format!(
                r#"{{"id": "{repository}", "sha": "{COMMIT}", "siblings": [{}]}}"#,
                files.join(",")
            );
            plain(200, "content-type: application/json\r\n", body.into_bytes())
        }
        [org, name, "resolve", COMMIT, file @ ..] => {
            let repository = format!("{org}/{name}");
            if let Some(token) = world.gated.get(&repository)
                && asked.token.as_ref() != Some(token)
            {
                let status = if asked.token.is_some() { 403 } else { 401 };
                return plain(status, "x-error-code: GatedRepo\r\n", Vec::new());
            }
            file_of(world, asked, &repository, &file.join("/"))
        }
        ["elsewhere", org, name, file @ ..] => {
            let file = file.join("/");
            let bytes = world.repositories[&format!("{org}/{name}")][&file].clone();
            bytes_of(world, asked, &file, &bytes, "")
        }
        _ => plain(404, "", Vec::new()),
    }
}

fn file_of(world: &mut World, asked: &Asked, repository: &str, file: &str) -> (String, Vec<u8>, Option<usize>) {
    let Some(bytes) = world
        .repositories
        .get(repository)
        .and_then(|files| files.get(file))
        .cloned()
    else {
        return plain(404, "x-error-code: EntryNotFound\r\n", Vec::new());
    };
    let said = if world.lies && is_large(file) {
        etag(file, b"other bytes")
    } else {
        etag(file, &bytes)
    };
    let said = if world.foreign_etags {
        format!("{:x}-{:x}", bytes.len(), 7)
    } else {
        said
    };
    if is_large(file) {
        let facts = format!(
            "x-linked-etag: \"{said}\"\r\nx-linked-size: {}\r\nx-repo-commit: {COMMIT}\r\n",
            bytes.len()
        );
        if world.elsewhere {
            // As the hub's storage is another host than the hub.
            let port = "localhost";
            let to =
                format!("location: http://{port}:{{PORT}}/elsewhere/{repository}/{file}\r\n{facts}etag: \"ours\"\r\n");
            return plain(302, &to.replace("{PORT}", &world.port()), Vec::new());
        }
        return bytes_of(world, asked, file, &bytes, &facts);
    }
    bytes_of(world, asked, file, &bytes, &format!("etag: W/\"{said}\"\r\n"))
}

impl World {
    /// The hub's own, kept in the log by the test that needs it.
    fn port(&self) -> String {
        let line = self.log.iter().find_map(|line| line.strip_prefix("PORT "));
        line.unwrap_or("0").to_owned()
    }
}

fn bytes_of(
    world: &mut World,
    asked: &Asked,
    file: &str,
    bytes: &[u8],
    headers: &str,
) -> (String, Vec<u8>, Option<usize>) {
    let mut cut = None;
    if asked.method == "GET" && is_large(file) {
        if !world.statuses.is_empty() {
            return plain(world.statuses.remove(0), "", Vec::new());
        }
        if !world.cuts.is_empty() {
            cut = Some(world.cuts.remove(0));
        }
    }
    let from = asked.range.filter(|_| !world.no_ranges);
    match from {
        Some(from) if from >= bytes.len() => plain(416, "", Vec::new()),
        Some(from) => {
            let range = format!("content-range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
            let (head, body, _) = plain(206, &format!("{headers}{range}"), bytes[from..].to_vec());
            (head, body, cut)
        }
        None => {
            let (head, body, _) = plain(200, headers, bytes.to_vec());
            (head, body, cut)
        }
    }
}
