//! Real processes around NATS, for programs that try a fleet.

use std::error::Error;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub type Any<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A program that is started again when it was killed.
pub struct Program {
    pub name: String,
    pub command: Vec<String>,
    pub child: Child,
}

impl Program {
    pub fn start(name: String, command: Vec<String>) -> Any<Self> {
        let child = spawn(&command)?;
        Ok(Self { name, command, child })
    }

    pub fn kill_and_restart(&mut self) -> Any<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = spawn(&self.command)?;
        Ok(())
    }

    pub fn signal(&self, signal: &str) -> Any<()> {
        Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()?;
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn spawn(command: &[String]) -> Any<Child> {
    let mut process = Command::new(&command[0]);
    process
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(process.spawn()?)
}

pub fn free_port() -> Any<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// SplitMix64: which fault comes next.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// One server, or a cluster.
pub fn start_nats(folder: &Path, nodes: usize) -> Any<(Vec<Program>, String)> {
    let ports: Vec<(u16, u16)> = (0..nodes)
        .map(|_| Ok((free_port()?, free_port()?)))
        .collect::<Any<_>>()?;
    let routes: Vec<String> = ports
        .iter()
        .map(|(_, route)| format!("nats://127.0.0.1:{route}"))
        .collect();
    let program = std::env::var("PRIMA_NATS_SERVER").unwrap_or_else(|_| "nats-server".into());
    let mut servers = Vec::new();
    for (i, (port, route)) in ports.iter().enumerate() {
        let store = folder.join(format!("nats-{i}"));
        let mut command: Vec<String> = [
            &program,
            "-js",
            "-a",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-n",
            &format!("n{i}"),
            "-sd",
        ]
        .map(str::to_owned)
        .to_vec();
        command.push(store.display().to_string());
        if nodes > 1 {
            let cluster = format!("nats://127.0.0.1:{route}");
            command.extend(
                [
                    "--cluster_name",
                    "prima",
                    "--cluster",
                    &cluster,
                    "--routes",
                    &routes.join(","),
                ]
                .map(str::to_owned),
            );
        }
        servers.push(Program::start(format!("nats {i}"), command)?);
    }
    let urls: Vec<String> = ports
        .iter()
        .map(|(port, _)| format!("nats://127.0.0.1:{port}"))
        .collect();
    Ok((servers, urls.join(",")))
}
