//! Who asks, and how many of his requests are here. A peer has an entry only while it has a request, so the map is as large as what is
//! in flight or waits, and at most [`PEERS`]; peers beyond that share one entry. It gives its room back after a burst.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

/// Peers that have an entry of their own, by default: 16,384.
pub const PEERS: usize = 16_384;
/// The longest name that is kept of a peer, in bytes. Of a longer one the first 47 are, and a hash of the whole: see [`Peer::name`].
pub const NAME_BYTES: usize = 64;
/// `#` and 16 digits.
const HASH_BYTES: usize = 17;
/// A constant of the process, which nobody outside knows: whoever could aim at a hash could use up another one's share.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
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
    /// All those together for whom there is no entry, because others have all of them: see [`Settings::peers`](super::Settings::peers).
    Others,
}

impl Peer {
    /// A peer by name. One of more than [`NAME_BYTES`] is cut, and `#` and 64 bits of a hash of the whole take the place of the rest, so that
    /// two that begin alike are two. The hash has a key of this process: it means nothing elsewhere.
    ///
    /// What is shown of peers ([`Gate::top_peers`](super::Gate::top_peers)) shows the name: a secret belongs into [`Peer::secret`].
    pub fn name(name: &str) -> Peer {
        if name.len() <= NAME_BYTES {
            return Peer::Name(name.into());
        }
        let mut end = NAME_BYTES - HASH_BYTES;
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        Peer::Name(format!("{}{}", &name[..end], hash(name.as_bytes())).into())
    }

    /// A peer by a secret: a token, a session's cookie. Only a hash is kept and shown, with a key of this process.
    pub fn secret(secret: &[u8]) -> Peer {
        Peer::Name(hash(secret).into())
    }
}

fn hash(bytes: &[u8]) -> String {
    format!("#{:016x}", HASHER.hash_one(bytes))
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
            Peer::Others => f.write_str("others"),
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
            // An entry lasts as long as requests: who may have none gets none.
            None if cap == 0 => return None,
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
            if self.others.requests == 0 {
                self.others.refused = 0;
            }
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

    /// The peers with most requests, then most refusals, at most `most` of them; those without an entry together as one.
    pub(super) fn top(&self, most: usize) -> Vec<PeerFigures> {
        let figures = |(peer, entry): (&Peer, &Entry)| PeerFigures {
            peer: peer.clone(),
            requests: entry.requests,
            refused: entry.refused,
        };
        let others = (self.others.requests > 0).then_some((&Peer::Others, &self.others));
        let mut all: Vec<_> = self.map.iter().chain(others).map(figures).collect();
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
    }

    #[test]
    fn long_names_that_begin_alike_are_told_apart_and_stay_short() {
        let token =
            |end: &str| format!("Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGU{end}");
        let [a, b] = ["iYSJ9.c2lnYQ", "iYiJ9.c2lnYg"].map(token);
        assert_ne!(Peer::name(&a), Peer::name(&b));
        assert_eq!(Peer::name(&a), Peer::name(&a));
        let exactly = "x".repeat(NAME_BYTES);
        assert_eq!(Peer::name(&exactly).to_string(), exactly);
        for name in [a, "é".repeat(40), "x".repeat(NAME_BYTES + 1)] {
            let shown = Peer::name(&name).to_string();
            assert!(shown.len() <= NAME_BYTES && name.starts_with(&shown[..40]) && !name.contains('#'), "{shown}");
        }
    }

    #[test]
    fn of_a_secret_nothing_is_shown() {
        let [a, b] = ["hunter2", "hunter3"].map(|secret| Peer::secret(secret.as_bytes()));
        assert_ne!(a, b);
        assert_eq!(a, Peer::secret(b"hunter2"));
        let shown = a.to_string();
        assert!(shown.len() == 17 && shown.starts_with('#') && !format!("{a:?}").contains("hunter"), "{shown}");
    }

    #[test]
    fn entries_last_as_long_as_requests_and_strangers_beyond_the_bound_share_one() {
        let mut peers = Peers::new(2);
        let [a, b, c, d] = ["a", "b", "c", "d"].map(Peer::name);
        assert_eq!((peers.enter(&a, 2), peers.enter(&a, 2), peers.enter(&a, 2)), (Some(true), Some(true), None));
        assert_eq!((peers.enter(&b, 1), peers.enter(&c, 1), peers.enter(&d, 1)), (Some(true), Some(false), None));
        assert_eq!(peers.top(1), [PeerFigures { peer: a.clone(), requests: 2, refused: 1 }]);
        assert!(
            peers.top(3).contains(&PeerFigures { peer: Peer::Others, requests: 1, refused: 1 }),
            "{:?}",
            peers.top(3)
        );
        peers.leave(&b, true);
        assert_eq!(peers.enter(&d, 1), Some(true), "there is room for one again");
        peers.leave(&c, false);
        peers.leave(&a, true);
        peers.leave(&a, true);
        peers.leave(&d, true);
        assert_eq!((peers.len(), peers.others.requests, peers.others.refused), (0, 0, 0));
        assert!(peers.top(3).is_empty());
    }

    #[test]
    fn who_may_have_none_leaves_no_entry() {
        let mut peers = Peers::new(PEERS);
        assert!((0..1_000u32).all(|n| peers.enter(&Peer::name(&n.to_string()), 0).is_none()));
        assert_eq!((peers.len(), peers.others.refused), (0, 0));
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
