//! A star of TCP connections, rank 0 in the middle: how processes find each other, how they agree, and how they add up
//! gradients on the CPU. Sums are taken in the order of ranks, so that they are the same from run to run.

use super::launch::Launch;
use crate::error::{Error, Result};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// What a connection begins with: anything else is a stranger.
const MAGIC: [u8; 8] = *b"primaDP1";
/// A stranger may connect and say nothing for this long.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(100);

pub(super) struct Star {
    /// Rank 0: to ranks 1, 2, ...; the others: to rank 0.
    links: Vec<Link>,
}

struct Link {
    rank: usize,
    stream: TcpStream,
}

impl Star {
    /// Returns once all have come; ends after `timeout`, as does each later wait for another process.
    pub(super) fn connect(launch: &Launch, timeout: Duration) -> Result<Self> {
        let deadline = Instant::now() + timeout;
        let links = if launch.is_first() {
            gather(launch, deadline, timeout)?
        } else {
            vec![join(launch, deadline, timeout)?]
        };
        for link in &links {
            let stream = &link.stream;
            let set = || {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            };
            set().map_err(|source| link.lost(source))?;
        }
        Ok(Self { links })
    }

    /// Rank 0's bytes, for all.
    pub(super) fn broadcast(&mut self, is_first: bool, bytes: &mut [u8]) -> Result<()> {
        for link in &mut self.links {
            if is_first {
                link.send(bytes)?;
            } else {
                link.receive(bytes)?;
            }
        }
        Ok(())
    }

    /// The sum over all ranks, for all.
    pub(super) fn sum(&mut self, is_first: bool, values: &mut [f32]) -> Result<()> {
        let mut other = vec![0.0f32; values.len()];
        for link in &mut self.links {
            if is_first {
                link.receive(bytemuck::cast_slice_mut(&mut other))?;
                values.iter_mut().zip(&other).for_each(|(sum, value)| *sum += value);
            } else {
                link.send(bytemuck::cast_slice(values))?;
            }
        }
        self.broadcast(is_first, bytemuck::cast_slice_mut(values))
    }
}

impl Link {
    fn lost(&self, source: std::io::Error) -> Error {
        Error::PeerLost {
            rank: self.rank,
            source,
        }
    }

    /// The length, then the bytes.
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let length = (bytes.len() as u64).to_le_bytes();
        let sent = self
            .stream
            .write_all(&length)
            .and_then(|()| self.stream.write_all(bytes));
        sent.map_err(|source| self.lost(source))
    }

    fn receive(&mut self, bytes: &mut [u8]) -> Result<()> {
        let mut length = [0; 8];
        self.stream
            .read_exact(&mut length)
            .map_err(|source| self.lost(source))?;
        let found = u64::from_le_bytes(length);
        if found != bytes.len() as u64 {
            let message = format!(
                "rank {} sent {found} bytes where {} were expected: all processes need the same configuration",
                self.rank,
                bytes.len()
            );
            return Err(Error::Launch(message));
        }
        self.stream.read_exact(bytes).map_err(|source| self.lost(source))
    }
}

/// Rank 0: waits for all others.
fn gather(launch: &Launch, deadline: Instant, timeout: Duration) -> Result<Vec<Link>> {
    let address = listening_address(launch)?;
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    let listener = listener.map_err(|e| Error::Launch(format!("rank 0 cannot listen at {address}: {e}")))?;
    let mut links: Vec<Option<Link>> = (1..launch.world).map(|_| None).collect();
    while links.iter().any(Option::is_none) {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(_) if Instant::now() < deadline => {
                std::thread::sleep(RETRY);
                continue;
            }
            Err(_) => {
                let missing = (1..).zip(&links).filter(|(_, link)| link.is_none());
                let missing: Vec<String> = missing.map(|(rank, _)| rank.to_string()).collect();
                let message = format!(
                    "rank {} of {} did not come to {}:{} within {} s",
                    missing.join(", "),
                    launch.world,
                    launch.host,
                    launch.port,
                    timeout.as_secs()
                );
                return Err(Error::Launch(message));
            }
        };
        let Some((rank, world)) = hello(&stream) else { continue };
        if world != launch.world || rank == 0 || rank >= world {
            let message = format!(
                "a process says that it is rank {rank} of {world}, this one rank 0 of {}",
                launch.world
            );
            return Err(Error::Launch(message));
        }
        if links[rank - 1].replace(Link { rank, stream }).is_some() {
            return Err(Error::Launch(format!("two processes say that they are rank {rank}")));
        }
    }
    Ok(links.into_iter().flatten().collect())
}

/// Rank and number of processes, if it is one of ours.
fn hello(mut stream: &TcpStream) -> Option<(usize, usize)> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(HELLO_TIMEOUT)).ok()?;
    let mut bytes = [0; 16];
    stream.read_exact(&mut bytes).ok()?;
    let number = |at: usize| bytes[at..].first_chunk().copied().map_or(0, u32::from_le_bytes) as usize;
    (bytes[..8] == MAGIC).then(|| (number(8), number(12)))
}

/// All interfaces, unless the name is this machine's own loopback.
fn listening_address(launch: &Launch) -> Result<SocketAddr> {
    let found = resolve(launch).map_err(|e| Error::Launch(format!("MASTER_ADDR {:?}: {e}", launch.host)))?;
    let ip = match found.ip() {
        ip if ip.is_loopback() => ip,
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    Ok(SocketAddr::new(ip, launch.port))
}

fn resolve(launch: &Launch) -> std::io::Result<SocketAddr> {
    let mut addresses = (launch.host.as_str(), launch.port).to_socket_addrs()?;
    addresses.next().ok_or_else(|| ErrorKind::NotFound.into())
}

/// The other ranks: tries until rank 0 listens.
fn join(launch: &Launch, deadline: Instant, timeout: Duration) -> Result<Link> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(RETRY);
        let connected = resolve(launch).and_then(|address| TcpStream::connect_timeout(&address, left));
        match connected {
            Ok(mut stream) => {
                let numbers = [launch.rank as u32, launch.world as u32].map(u32::to_le_bytes);
                let hello = [&MAGIC[..], numbers.as_flattened()].concat();
                let link = |stream| Link { rank: 0, stream };
                return match stream.write_all(&hello) {
                    Ok(()) => Ok(link(stream)),
                    Err(source) => Err(link(stream).lost(source)),
                };
            }
            Err(_) if Instant::now() < deadline => std::thread::sleep(RETRY),
            Err(why) => {
                let message = format!(
                    "rank {} of {} found no rank 0 at {}:{} within {} s ({why})",
                    launch.rank,
                    launch.world,
                    launch.host,
                    launch.port,
                    timeout.as_secs()
                );
                return Err(Error::Launch(message));
            }
        }
    }
}
