//! Which connections are open, from where, and which of them gives way when there are too many: one that asks for nothing at
//! the moment, however long it has been silent or has been writing its head.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Whose connection it is, as far as shares go: an IPv4 address, or the /64 that one IPv6 customer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Peer(u64);

impl Peer {
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            // Under a prefix that no host has (0::/64 with the sign of an IPv4 address in it).
            IpAddr::V4(v4) => Self(0xffff_0000_0000 | u64::from(v4.to_bits())),
            IpAddr::V6(v6) => Self((v6.to_bits() >> 64) as u64),
        }
    }
}

/// Bounds on connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub all: usize,
    pub of_one_peer: usize,
    /// Beyond those, for health checks alone.
    pub spare: usize,
}

struct Entry {
    peer: Peer,
    spare: bool,
    /// Requests being answered: at most one, in HTTP/1.
    requests: usize,
    /// Dropped to close the connection.
    _close: oneshot::Sender<()>,
}

/// All open connections, oldest first.
pub(crate) struct Connections {
    bounds: Bounds,
    open: Mutex<(u64, BTreeMap<u64, Entry>)>,
}

/// An open connection; leaves the table when dropped.
pub(crate) struct Connection {
    table: Arc<Connections>,
    id: u64,
    pub peer: Peer,
    /// Only health checks are answered on it.
    pub spare: bool,
}

/// A request being answered on it; ends when dropped.
pub(crate) struct Answering(Arc<Connection>);

impl Connections {
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            open: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Entry>)> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in, and the receiver that hears when it has to give way; `None` if there is no room even for a
    /// health check.
    pub fn admit(self: &Arc<Self>, peer: Peer) -> Option<(Connection, oneshot::Receiver<()>)> {
        let mut open = self.lock();
        let (next, table) = &mut *open;
        let count = |table: &BTreeMap<u64, Entry>, wanted: &dyn Fn(&Entry) -> bool| {
            table.values().filter(|entry| wanted(entry)).count()
        };
        let mut room = true;
        if count(table, &|e| !e.spare && e.peer == peer) >= self.bounds.of_one_peer {
            room = close_idle(table, |e| !e.spare && e.peer == peer);
        } else if count(table, &|e| !e.spare) >= self.bounds.all {
            room = close_idle(table, |e| !e.spare);
        }
        let spare = !room;
        if spare && count(table, &|e| e.spare) >= self.bounds.spare && !close_idle(table, |e| e.spare) {
            return None;
        }
        let (close, closed) = oneshot::channel();
        let id = *next;
        *next += 1;
        table.insert(
            id,
            Entry {
                peer,
                spare,
                requests: 0,
                _close: close,
            },
        );
        let connection = Connection {
            table: self.clone(),
            id,
            peer,
            spare,
        };
        Some((connection, closed))
    }

    /// Requests being answered.
    pub fn requests(&self) -> usize {
        self.lock().1.values().map(|entry| entry.requests).sum()
    }
}

/// Closes the oldest of the connections `among` which no request is being answered.
fn close_idle(table: &mut BTreeMap<u64, Entry>, among: impl Fn(&Entry) -> bool) -> bool {
    let idle = table.iter().find(|(_, entry)| entry.requests == 0 && among(entry));
    let Some(id) = idle.map(|(id, _)| *id) else {
        return false;
    };
    table.remove(&id);
    true
}

impl Connection {
    pub fn answering(self: &Arc<Self>) -> Answering {
        if let Some(entry) = self.table.lock().1.get_mut(&self.id) {
            entry.requests += 1;
        }
        Answering(self.clone())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.table.lock().1.remove(&self.id);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let connection = &self.0;
        if let Some(entry) = connection.table.lock().1.get_mut(&connection.id) {
            entry.requests = entry.requests.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> Peer {
        Peer::of(IpAddr::from([192, 0, 2, last]))
    }

    fn table() -> Arc<Connections> {
        Connections::new(Bounds {
            all: 4,
            of_one_peer: 2,
            spare: 1,
        })
    }

    #[test]
    fn one_peer_pushes_out_its_own_silent_connections_and_nobody_elses() {
        let table = table();
        let (_other, mut others) = table.admit(peer(1)).unwrap();
        let (_a, mut first) = table.admit(peer(2)).unwrap();
        let (_b, mut second) = table.admit(peer(2)).unwrap();
        let (third, _) = table.admit(peer(2)).unwrap();
        assert!(!third.spare && first.try_recv() == Err(oneshot::error::TryRecvError::Closed));
        for stays in [&mut others, &mut second] {
            assert_eq!(stays.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        }
    }

    #[test]
    fn requests_are_not_pushed_out_and_health_checks_have_room_beside_them() {
        let table = table();
        let mut busy = Vec::new();
        for last in [1, 1, 2, 2] {
            let (connection, _closed) = table.admit(peer(last)).unwrap();
            busy.push(Arc::new(connection).answering());
        }
        assert_eq!(table.requests(), 4);
        for last in [1, 3] {
            let (connection, _closed) = table.admit(peer(last)).unwrap();
            assert!(connection.spare, "peer {last}");
        }
        let (spare, _closed) = table.admit(peer(4)).unwrap();
        let asked = Arc::new(spare).answering();
        assert!(table.admit(peer(5)).is_none());
        drop((busy, asked));
        assert!(!table.admit(peer(5)).unwrap().0.spare);
        assert_eq!(table.requests(), 0);
    }

    #[test]
    fn a_customer_of_ipv6_is_one_peer_and_a_mapped_ipv4_address_is_that_address() {
        let of = |text: &str| Peer::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
        assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
    }
}
