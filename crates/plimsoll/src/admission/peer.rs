//! Who asks, and how many of his requests are here. A peer has an entry only while it has a request, so the map is as large as what is
//! in flight or waits, and at most [`PEERS`]; peers beyond that share one entry. It gives its room back after a burst.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Peers that have an entry of their own, by default: 16,384.
pub const PEERS: usize = 16_384;
/// The longest name that is kept of a peer, in bytes; what is longer is cut.
pub const NAME_BYTES: usize = 64;
const KEPT_ROOM: usize = 64;

/// Who asks. An IPv6 address stands for its /64 network, which one customer has; a mapped IPv4 address for itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// By address.
    Address(IpAddr),
    /// By a name: a user, a tenant, a token.
    Name(Arc<str>),
    /// It cannot be told. No cap by peer holds for it but [`Settings::unknown_peers`](super::Settings::unknown_peers): one cap for
    /// all of these would refuse everybody where who asks is not set up.
    Unknown,
}

impl Peer {
    /// A peer by name, cut at [`NAME_BYTES`].
    pub fn name(name: &str) -> Peer {
        let mut end = name.len().min(NAME_BYTES);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        Peer::Name(name[..end].into())
    }
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Peer {
        let IpAddr::V6(v6) = address else { return Peer::Address(address) };
        match v6.to_ipv4_mapped() {
            Some(v4) => Peer::Address(v4.into()),
            None => Peer::Address(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into()),
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        address.ip().into()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Address(address @ IpAddr::V6(_)) => write!(f, "{address}/64"),
            Peer::Address(address) => address.fmt(f),
            Peer::Name(name) => name.fmt(f),
            Peer::Unknown => f.write_str("unknown"),
        }
    }
}

/// One peer that has requests here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerFigures {
    /// Who.
    pub peer: Peer,
    /// Requests of his that are worked on or wait.
    pub requests: u32,
    /// Requests of his that were refused since he last had none here.
    pub refused: u64,
}

#[derive(Debug, Default)]
struct Entry {
    requests: u32,
    refused: u64,
}

#[derive(Debug)]
pub(super) struct Peers {
    map: HashMap<Peer, Entry>,
    /// Of those for whom there is no entry.
    others: Entry,
    most: usize,
}

impl Peers {
    pub(super) fn new(most: usize) -> Peers {
        Peers { map: HashMap::new(), others: Entry::default(), most }
    }

    /// One request more of this peer, if he has fewer than `cap`. Says whether the entry is his own, for [`Peers::leave`].
    pub(super) fn enter(&mut self, peer: &Peer, cap: u32) -> Option<bool> {
        let room = self.map.len() < self.most;
        let (entry, own) = match self.map.get_mut(peer) {
            Some(entry) => (entry, true),
            None if room => (self.map.entry(peer.clone()).or_default(), true),
            None => (&mut self.others, false),
        };
        if entry.requests >= cap {
            entry.refused += 1;
            return None;
        }
        entry.requests += 1;
        Some(own)
    }

    pub(super) fn leave(&mut self, peer: &Peer, own: bool) {
        if !own {
            self.others.requests -= 1;
            return;
        }
        let Some(entry) = self.map.get_mut(peer) else { return };
        entry.requests -= 1;
        if entry.requests == 0 {
            self.map.remove(peer);
            if self.map.capacity() > KEPT_ROOM && self.map.len() < self.map.capacity() / 8 {
                self.map.shrink_to(self.map.len() * 2);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// The peers with most requests, then most refusals, at most `most` of them.
    pub(super) fn top(&self, most: usize) -> Vec<PeerFigures> {
        let figures = |(peer, entry): (&Peer, &Entry)| PeerFigures {
            peer: peer.clone(),
            requests: entry.requests,
            refused: entry.refused,
        };
        let mut all: Vec<_> = self.map.iter().map(figures).collect();
        all.sort_by_key(|figures| std::cmp::Reverse((figures.requests, figures.refused)));
        all.truncate(most);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_is_one_peer_whatever_address_of_his_he_uses() {
        let of = |text: &str| Peer::from(text.parse::<IpAddr>().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(Peer::name(&"é".repeat(40)).to_string().len(), 64);
    }

    #[test]
    fn entries_last_as_long_as_requests_and_strangers_beyond_the_bound_share_one() {
        let mut peers = Peers::new(2);
        let [a, b, c, d] = ["a", "b", "c", "d"].map(Peer::name);
        assert_eq!((peers.enter(&a, 2), peers.enter(&a, 2), peers.enter(&a, 2)), (Some(true), Some(true), None));
        assert_eq!((peers.enter(&b, 1), peers.enter(&c, 1), peers.enter(&d, 1)), (Some(true), Some(false), None));
        assert_eq!(peers.top(1), [PeerFigures { peer: a.clone(), requests: 2, refused: 1 }]);
        peers.leave(&b, true);
        assert_eq!(peers.enter(&d, 1), Some(true), "there is room for one again");
        peers.leave(&c, false);
        peers.leave(&a, true);
        peers.leave(&a, true);
        peers.leave(&d, true);
        assert_eq!((peers.len(), peers.others.requests), (0, 0));
    }

    #[test]
    fn room_is_given_back_after_a_burst() {
        let mut peers = Peers::new(PEERS);
        let all: Vec<_> = (0..10_000u32).map(|n| Peer::from(IpAddr::from(n.to_be_bytes()))).collect();
        all.iter().for_each(|peer| assert_eq!(peers.enter(peer, 1), Some(true)));
        all.iter().for_each(|peer| peers.leave(peer, true));
        assert!(peers.map.capacity() <= 2 * KEPT_ROOM, "{}", peers.map.capacity());
    }
}
