//! Which requests go through a proxy, and how a connection is made through one.

use std::net::IpAddr;

use base64::Engine as _;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::auth::read_secret;
use super::http1;
use super::stream::Stream;
use crate::config::Proxy;

/// The proxy for a URL, if there is one.
pub(crate) fn proxy_for<'a>(proxy: &'a Proxy, uri: &Uri) -> Option<&'a str> {
    let chosen = if uri.scheme_str() == Some("https") { &proxy.https } else { &proxy.http };
    let chosen = chosen.as_deref().filter(|url| !url.is_empty())?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let is_local = proxy.is_from_environment && is_loopback(&host);
    (!is_local && !is_exempt(&proxy.no_proxy, &host, port)).then_some(chosen)
}

/// Proxies of the environment never stand before this machine.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether `no_proxy` names the host: `*`, a name and what is below it, `.suffix`, an address or a network,
/// each perhaps with a port.
fn is_exempt(no_proxy: &str, host: &str, port: u16) -> bool {
    no_proxy.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        if entry == "*" {
            return true;
        }
        if let Some((network, bits)) = entry.split_once('/') {
            return in_network(host, network, bits);
        }
        let (name, wanted) = match entry.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
                (name.trim_matches(['[', ']']), digits.parse::<u16>().ok())
            }
            _ => (entry.trim_matches(['[', ']']), None),
        };
        if wanted.is_some_and(|wanted| wanted != port) {
            return false;
        }
        if let (Ok(a), Ok(b)) = (name.parse::<IpAddr>(), host.parse::<IpAddr>()) {
            return a == b;
        }
        let suffix = name.strip_prefix('*').unwrap_or(name);
        match suffix.strip_prefix('.') {
            Some(_) => host.ends_with(suffix),
            None => host == suffix || host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.')),
        }
    })
}

fn in_network(host: &str, network: &str, bits: &str) -> bool {
    let (Ok(host), Ok(network), Ok(bits)) = (host.parse(), network.parse(), bits.parse::<u32>()) else {
        return false;
    };
    let shared =
        |a: u128, b: u128, width: u32| bits <= width && (bits == 0 || (a ^ b) >> (width - bits) == 0);
    match (host, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => shared(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => shared(a.into(), b.into(), 128),
        _ => false,
    }
}

/// `Proxy-Authorization` of a proxy's URL, if it names a user.
pub(crate) fn authorization(proxy: &Uri) -> Option<HeaderValue> {
    let (user, _) = proxy.authority()?.as_str().rsplit_once('@')?;
    let decoded = percent_decoded(user);
    let decoded = if decoded.contains(&b':') { decoded } else { [decoded, b":".to_vec()].concat() };
    let mut value =
        HeaderValue::try_from(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(decoded)))
            .ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let [byte, tail @ ..] = rest {
        let digits =
            tail.get(..2).filter(|_| *byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(decoded) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            out.push(decoded);
            rest = &tail[2..];
        } else {
            out.push(*byte);
            rest = tail;
        }
    }
    out
}

/// Headers for the proxy itself.
pub(crate) async fn headers(options: &Proxy, proxy: &Uri) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    if let Some(value) = authorization(proxy) {
        headers.insert(http::header::PROXY_AUTHORIZATION, value);
    }
    for (name, secret) in &options.connect_headers {
        let name =
            HeaderName::try_from(name.as_str()).map_err(|error| format!("proxy_connect_header: {error}"))?;
        let value = read_secret(secret).await?;
        let value = HeaderValue::try_from(value).map_err(|error| format!("proxy_connect_header: {error}"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Has an HTTP proxy connect the stream to `authority`.
pub(crate) async fn connect(stream: &mut Stream, authority: &str, headers: &HeaderMap) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("proxy: {error}");
    let line = (&Method::CONNECT, authority, authority);
    http1::write_request(stream, line, headers, &[]).await.map_err(|error| failed(&error))?;
    let mut rest = Vec::new();
    let head = http1::read_head(stream, &mut rest).await.map_err(|error| failed(&error))?;
    if head.status() != StatusCode::OK {
        return Err(failed(&head.status()));
    }
    if rest.is_empty() { Ok(()) } else { Err(failed(&"bytes before the tunnel was used")) }
}

/// Has a SOCKS 5 proxy (RFC 1928, RFC 1929) connect the stream to a host, which it resolves itself.
pub(crate) async fn connect_socks(
    stream: &mut Stream,
    (host, port): (&str, u16),
    proxy: &Uri,
) -> Result<(), String> {
    let failed = |what: &str| format!("socks proxy: {what}");
    let io = |error: std::io::Error| format!("socks proxy: {error}");
    let user =
        proxy.authority().and_then(|authority| authority.as_str().rsplit_once('@')).map(|(user, _)| user);
    let greeting: &[u8] = if user.is_some() { &[5, 2, 0, 2] } else { &[5, 1, 0] };
    stream.write_all(greeting).await.map_err(io)?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await.map_err(io)?;
    match (chosen, user) {
        ([5, 0], _) => {}
        ([5, 2], Some(user)) => {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let mut message = vec![1];
            for part in [percent_decoded(name), percent_decoded(password)] {
                message.push(u8::try_from(part.len()).map_err(|_| failed("the user's name is too long"))?);
                message.extend(part);
            }
            stream.write_all(&message).await.map_err(io)?;
            stream.read_exact(&mut chosen).await.map_err(io)?;
            if chosen[1] != 0 {
                return Err(failed("it refuses the user"));
            }
        }
        _ => return Err(failed("it offers no way to authenticate")),
    }
    let mut message =
        vec![5, 1, 0, 3, u8::try_from(host.len()).map_err(|_| failed("the host's name is too long"))?];
    message.extend(host.as_bytes());
    message.extend(port.to_be_bytes());
    stream.write_all(&message).await.map_err(io)?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.map_err(io)?;
    if head[1] != 0 {
        return Err(failed(&format!("it cannot connect to {host}:{port} (reply {})", head[1])));
    }
    let mut length = [0; 1];
    let bytes = match head[3] {
        1 => 4,
        4 => 16,
        3 => {
            stream.read_exact(&mut length).await.map_err(io)?;
            usize::from(length[0])
        }
        _ => return Err(failed("malformed reply")),
    };
    let mut bound = vec![0; bytes + 2];
    stream.read_exact(&mut bound).await.map_err(io)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_names_hosts_networks_and_ports() {
        let exempt = |no_proxy: &str, host: &str| is_exempt(no_proxy, host, 9090);
        for (no_proxy, host, expected) in [
            ("*", "a", true),
            ("example.com", "example.com", true),
            ("example.com", "a.example.com", true),
            ("example.com", "notexample.com", false),
            (".example.com", "example.com", false),
            (".example.com", "a.example.com", true),
            ("a, b ,c", "b", true),
            ("10.0.0.0/8", "10.9.8.7", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "11.0.0.1", true),
            ("fd00::/8", "fd12::1", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("a:9090", "a", true),
            ("a:80", "a", false),
            ("[::1]:9090", "::1", true),
            ("", "a", false),
        ] {
            assert_eq!(exempt(no_proxy, host), expected, "{no_proxy} {host}");
        }
    }

    #[test]
    fn a_proxy_s_user_is_decoded() {
        let value = authorization(&"http://us%65r:p%40ss@h:1".parse().unwrap()).unwrap();
        assert_eq!(value.to_str().unwrap(), "Basic dXNlcjpwQHNz");
        assert!(authorization(&"http://h:1".parse().unwrap()).is_none());
    }
}
