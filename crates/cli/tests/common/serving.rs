//! `prima serve` in a process of its own, ended when dropped.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

pub struct Serving {
    pub process: Child,
    pub url: String,
}

impl Serving {
    pub fn start(args: &[&str]) -> Self {
        Self::start_with_browser(args, OsStr::new("true"))
    }

    /// `browser` is what bare `prima` opens its page with.
    pub fn start_with_browser(args: &[&str], browser: &OsStr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prima"));
        command.args(args).env("BROWSER", browser).stderr(Stdio::null());
        Self::run(&mut command)
    }

    /// With no more than this many KiB of address space.
    pub fn within(kib: usize, args: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -v {kib}; exec \"$0\" \"$@\"")])
            .arg(env!("CARGO_BIN_EXE_prima"))
            .args(args)
            .stderr(Stdio::null());
        Self::run(&mut command)
    }

    fn run(command: &mut Command) -> Self {
        let mut process = command
            .env_remove("PRIMA_TOKEN")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut url)
            .unwrap();
        Self {
            process,
            url: url.trim().to_owned(),
        }
    }

    pub fn host(&self) -> &str {
        self.url.strip_prefix("http://").unwrap().split('/').next().unwrap()
    }

    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.host()).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            self.host()
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The answer to a request with a body, whatever it is; empty if there was none.
    pub fn post(&self, path: &str, kind: &str, body: &[u8]) -> String {
        let mut answer = Vec::new();
        if let Ok(mut stream) = TcpStream::connect(self.host()) {
            let (host, length) = (self.host(), body.len());
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\
                 connection: close\r\n\r\n"
            );
            // A server that has refused the head does not read the body.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
            let _ = stream.read_to_end(&mut answer);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
