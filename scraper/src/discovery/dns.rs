//! Targets with names in the DNS: a small resolver for four kinds of records (RFC 1035, RFC 2782, RFC 3596).
//!
//! The system's own resolver knows addresses only, and a general resolver library brings a dozen crates and a cache that
//! would stand between a changed record and the refresh interval that was configured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::Labels;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::feed::Feed;
use super::{DnsDiscovery, join_address};
use crate::config::TargetGroup;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsRecord {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Mail servers.
    Mx,
    /// Servers with ports.
    Srv,
}

impl DnsRecord {
    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
            Self::Mx => 15,
            Self::Srv => 33,
        }
    }
}

/// How long one server has for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
const PORT: u16 = 53;
/// The largest datagram that servers are told to send.
const UDP_BYTES: u16 = 4_096;
/// Names are at most this long, pointers followed at most so often.
const NAME_BYTES_MAX: usize = 255;
const POINTERS_MAX: usize = 64;

pub(super) async fn run(options: DnsDiscovery, feed: Arc<Feed>) {
    let every = Duration::from_millis(options.refresh_ms.max(1).unsigned_abs());
    loop {
        futures::future::join_all(options.names.iter().map(|name| refresh(name, &options, &feed))).await;
        tokio::time::sleep(every).await;
    }
}

async fn refresh(name: &str, options: &DnsDiscovery, feed: &Feed) {
    match lookup(name, options.record, &options.resolv_conf).await {
        Ok(records) => feed.replace_part(&prefix(name), vec![group(name, &records, options.port)]),
        // What was found last goes on.
        Err(error) => feed.fail("dns", name, &error),
    }
}

/// Ends in a byte that no name has.
fn prefix(name: &str) -> String {
    format!("{name}\n")
}

fn group(name: &str, records: &[Record], port: u16) -> TargetGroup {
    let target = |record: &Record| {
        let mut labels = vec![("__meta_dns_name", name.to_owned())];
        match record {
            Record::Address(address) => {
                labels.push(("__address__", join_address(&address.to_string(), port)));
            }
            Record::Mx(target) => {
                labels.push(("__address__", join_address(target.trim_end_matches('.'), port)));
                labels.push(("__meta_dns_mx_record_target", target.clone()));
            }
            Record::Srv(target, port) => {
                labels.push(("__address__", join_address(target.trim_end_matches('.'), port)));
                labels.push(("__meta_dns_srv_record_target", target.clone()));
                labels.push(("__meta_dns_srv_record_port", port.to_string()));
            }
        }
        Labels::from_pairs(labels)
    };
    let targets = records.iter().map(target).collect();
    TargetGroup { source: prefix(name), targets, labels: Labels::empty() }
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Address(IpAddr),
    Mx(String),
    Srv(String, u16),
}

/// Where names are looked up.
#[derive(Debug, Default, PartialEq, Eq)]
struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with so many dots is looked up as it is first.
    dots: usize,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut resolver = Self { dots: 1, ..Self::default() };
        for line in text.lines() {
            let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
            match words.next() {
                Some("nameserver") => resolver.servers.extend(words.next().and_then(server)),
                Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let dots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok()).next();
                    resolver.dots = dots.unwrap_or(resolver.dots);
                }
                _ => {}
            }
        }
        if resolver.servers.is_empty() {
            resolver.servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
        }
        resolver
    }

    /// The full names that a name may stand for.
    fn names(&self, name: &str) -> Vec<String> {
        if let Some(name) = name.strip_suffix('.') {
            return vec![name.to_owned()];
        }
        let mut names: Vec<String> =
            self.search.iter().map(|domain| format!("{name}.{}", domain.trim_matches('.'))).collect();
        let at = if name.matches('.').count() >= self.dots { 0 } else { names.len() };
        names.insert(at, name.to_owned());
        names
    }
}

/// An address, perhaps with a port, as some systems write it.
fn server(text: &str) -> Option<SocketAddr> {
    let address = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
    address.ok().or_else(|| text.parse().ok())
}

/// The records of a name: of the first full form of it that has any. None at all are no error if a server said so.
async fn lookup(name: &str, record: DnsRecord, resolv_conf: &Path) -> Result<Vec<Record>, String> {
    let text = tokio::fs::read_to_string(resolv_conf).await;
    let text = text.map_err(|error| format!("{}: {error}", resolv_conf.display()))?;
    let resolver = Resolver::parse(&text);
    let mut failure = None;
    let mut is_known = false;
    for full in resolver.names(name) {
        for server in &resolver.servers {
            match ask(*server, &full, record).await {
                Ok(records) if records.is_empty() => {
                    is_known = true;
                    break;
                }
                Ok(records) => return Ok(records),
                Err(error) => failure = Some(format!("server {server}: {error}")),
            }
        }
    }
    match failure {
        Some(failure) if !is_known => Err(failure),
        _ => Ok(Vec::new()),
    }
}

async fn ask(server: SocketAddr, name: &str, record: DnsRecord) -> Result<Vec<Record>, String> {
    use std::hash::{BuildHasher as _, RandomState};
    let [id, _, _, _, _, _, _, _] = RandomState::new().hash_one(0).to_ne_bytes().map(u16::from);
    let id = id << 8 | u16::from(RandomState::new().hash_one(1).to_ne_bytes()[0]);
    let query = query(id, name, record)?;
    let answer = tokio::time::timeout(PATIENCE, ask_udp(server, &query)).await;
    let answer = answer.map_err(|_| "no answer in time")?.map_err(|error| error.to_string())?;
    if let Some(records) = parse(&answer, id, record)? {
        return Ok(records);
    }
    let answer = tokio::time::timeout(PATIENCE, ask_tcp(server, &query)).await;
    let answer = answer.map_err(|_| "no answer in time")?.map_err(|error| error.to_string())?;
    parse(&answer, id, record)?.ok_or_else(|| "the answer is cut short".to_owned())
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let own: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(own).await?;
    // From then on only the server's own datagrams arrive.
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut answer = vec![0; usize::from(UDP_BYTES)];
    loop {
        let length = socket.recv(&mut answer).await?;
        if answer[..length].starts_with(&query[..2]) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).unwrap_or(u16::MAX);
    stream.write_all(&[&length.to_be_bytes()[..], query].concat()).await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// A question with recursion desired, and an EDNS record that allows large datagrams.
fn query(id: u16, name: &str, record: DnsRecord) -> Result<Vec<u8>, String> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    for part in name.split('.') {
        let length = u8::try_from(part.len()).ok().filter(|length| (1..64).contains(length));
        out.push(length.ok_or_else(|| format!("{name:?} is not a name"))?);
        out.extend(part.as_bytes());
    }
    if name.len() > NAME_BYTES_MAX - 2 {
        return Err(format!("{name:?} is too long"));
    }
    out.push(0);
    out.extend(record.number().to_be_bytes());
    out.extend([0, 1]);
    let [high, low] = UDP_BYTES.to_be_bytes();
    out.extend([0, 0, 41, high, low, 0, 0, 0, 0, 0, 0]);
    Ok(out)
}

/// The records of an answer; `None` if it was cut short. A name that does not exist has none.
pub(crate) fn parse(message: &[u8], id: u16, record: DnsRecord) -> Result<Option<Vec<Record>>, String> {
    let malformed = || "malformed answer".to_owned();
    let number = |at: usize| -> Result<u16, String> {
        let bytes = message.get(at..at + 2).ok_or_else(malformed)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let flags = number(2)?;
    if number(0)? != id || flags & 0x8000 == 0 {
        return Err(malformed());
    }
    if flags & 0x0200 != 0 {
        return Ok(None);
    }
    match flags & 0xf {
        0 => {}
        3 => return Ok(Some(Vec::new())),
        code => return Err(format!("the server fails with code {code}")),
    }
    let mut at = 12;
    for _ in 0..number(4)? {
        at = name(message, at).ok_or_else(malformed)?.1 + 4;
    }
    let mut records = Vec::new();
    for _ in 0..number(6)? {
        at = name(message, at).ok_or_else(malformed)?.1;
        let (kind, length) = (number(at)?, usize::from(number(at + 8)?));
        let content = at + 10;
        let data = message.get(content..content + length).ok_or_else(malformed)?;
        // Other records, such as aliases, only lead to those asked for.
        if kind == record.number() {
            records.push(record_of(message, content, data, record).ok_or_else(malformed)?);
        }
        at = content + length;
    }
    Ok(Some(records))
}

fn record_of(message: &[u8], at: usize, data: &[u8], record: DnsRecord) -> Option<Record> {
    Some(match record {
        DnsRecord::A => Record::Address(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
        DnsRecord::Aaaa => Record::Address(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
        DnsRecord::Mx => Record::Mx(name(message, at + 2)?.0),
        DnsRecord::Srv => {
            let port = u16::from_be_bytes([*data.get(4)?, *data.get(5)?]);
            Record::Srv(name(message, at + 6)?.0, port)
        }
    })
}

/// The name at a place, with a dot at its end, and where it ends.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut out, mut end) = (Vec::new(), None);
    for _ in 0..POINTERS_MAX {
        loop {
            let length = usize::from(*message.get(at)?);
            if length >= 0xc0 {
                break;
            }
            at += 1;
            if length == 0 {
                if out.is_empty() {
                    out.push(b'.');
                }
                return Some((String::from_utf8_lossy(&out).into_owned(), end.unwrap_or(at)));
            }
            if length > 63 || out.len() + length > NAME_BYTES_MAX {
                return None;
            }
            out.extend_from_slice(message.get(at..at + length)?);
            out.push(b'.');
            at += length;
        }
        let pointer = usize::from(*message.get(at)? & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
        end = end.or(Some(at + 2));
        at = pointer;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_searched_in_order() {
        let resolver = Resolver::parse(
            "# x\nnameserver 10.0.0.1\nnameserver fd00::1\nnameserver 127.0.0.1:5353\nsearch ns.svc.cluster.local svc.cluster.local\noptions ndots:2 timeout:1\n",
        );
        assert_eq!(resolver.servers.len(), 3);
        assert_eq!(resolver.servers[2], "127.0.0.1:5353".parse().unwrap());
        assert_eq!(resolver.names("a.b"), ["a.b.ns.svc.cluster.local", "a.b.svc.cluster.local", "a.b"]);
        assert_eq!(resolver.names("a.b.c")[0], "a.b.c");
        assert_eq!(resolver.names("a.b."), ["a.b"]);
        assert_eq!(Resolver::parse("").servers, ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn names_that_are_none_are_refused() {
        assert!(query(1, "a..b", DnsRecord::A).is_err());
        assert!(query(1, &"a".repeat(64), DnsRecord::A).is_err());
        assert!(query(1, &"abc.".repeat(80), DnsRecord::A).is_err());
    }

    #[test]
    fn a_name_that_points_at_itself_is_malformed() {
        let mut message = query(7, "a.b", DnsRecord::Srv).unwrap();
        message[2] |= 0x80;
        message[7] = 1;
        let answer = [0xc0, 31, 0, 33, 0, 1, 0, 0, 0, 0, 0, 0];
        message.truncate(21);
        message.extend(answer);
        assert!(parse(&message, 7, DnsRecord::Srv).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_message_is_a_panic(message: Vec<u8>, flags in 0u8..16) {
            let mut message = message;
            if let [a, b, c, d, ..] = message.as_mut_slice() {
                (*a, *b, *c, *d) = (0, 7, 0x80, flags & 3);
            }
            for record in [DnsRecord::A, DnsRecord::Aaaa, DnsRecord::Mx, DnsRecord::Srv] {
                let _ = parse(&message, 7, record);
            }
        }
    }
}
