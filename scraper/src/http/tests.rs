//! The client against small servers, and its parsers against hostile bytes.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::HeaderMap;
use http::{Response, StatusCode, Uri};
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::http1::{Chunks, Progress, framing, parse_head, read_body, read_head};
use super::*;
use crate::config::{
    Assertion, Auth, Grant, HttpOptions, OAuth2, Proxy, Secret, SignatureAlgorithm, TlsOptions, WallClock,
};

/// A server that answers each request on each connection with what `answer` makes of it.
async fn serve(
    answer: impl Fn(&str) -> String + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (noted, answer) = (Arc::clone(&requests), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (noted, answer) = (Arc::clone(&noted), Arc::clone(&answer));
            tokio::spawn(async move {
                while let Some(request) = read_request(&mut stream).await {
                    let text = answer(&request);
                    noted.lock().push(request);
                    if stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, requests)
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let mut byte = [0];
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        text.push(byte[0]);
        if text.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8(text).unwrap();
            let length = head
                .to_lowercase()
                .find("content-length: ")
                .map_or(0, |at| head[at + 16..].lines().next().unwrap().parse().unwrap());
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.ok()?;
            return Some(head + &String::from_utf8(body).unwrap());
        }
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

async fn get(options: HttpOptions, url: &str) -> Result<String, String> {
    let roots = Arc::new(Roots::default());
    let authorizer = Authorizer::new(&options, &roots);
    let headers = authorizer.headers().await?;
    let dialer = Dialer::new(options, roots);
    let uri: Uri = url.parse().unwrap();
    let mut body = Vec::new();
    let request = Outgoing::get(uri, headers, 1 << 20);
    let head = Session::default().exchange(&dialer, Peer::default(), &request, &mut body).await;
    let head = head.map_err(|error| error.to_string())?;
    Ok(format!("{} {}", head.status().as_u16(), String::from_utf8(body).unwrap()))
}

#[tokio::test]
async fn a_connection_is_used_again_and_replaced_when_it_is_closed() {
    let (address, requests) = serve(|request| {
        if request.contains("/last") {
            ok("x").replace("200 OK", "200 OK\r\nConnection: close")
        } else {
            ok("x")
        }
    })
    .await;
    let dialer = Dialer::new(HttpOptions::default(), Arc::default());
    let mut session = Session::default();
    for path in ["/a", "/last", "/b"] {
        let uri: Uri = format!("http://{address}{path}").parse().unwrap();
        let mut body = Vec::new();
        let request = Outgoing::get(uri, HeaderMap::new(), 10);
        let head = session.exchange(&dialer, Peer::default(), &request, &mut body).await.unwrap();
        assert_eq!((head.status(), body.as_slice()), (StatusCode::OK, &b"x"[..]));
    }
    assert!(requests.lock()[0].starts_with(&format!("GET /a HTTP/1.1\r\nHost: {address}\r\n")));
}

#[tokio::test]
async fn a_token_is_fetched_once_and_sent() {
    let (server, tokens) = serve(|request| {
        // The credentials are wanted in the body, not in the header.
        if request.contains("authorization: ") {
            return "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n".to_owned();
        }
        ok(r#"{"access_token": "t0k3n", "token_type": "bearer", "expires_in": 3600}"#)
    })
    .await;
    let (target, requests) = serve(|_| ok("page")).await;
    let oauth2 = OAuth2 {
        client_id: "me & you".into(),
        grant: Grant::Credentials(Some(Secret::Inline("s3cret".into()))),
        token_url: format!("http://{server}/token"),
        scopes: vec!["a".into(), "b".into()],
        endpoint_params: vec![("audience".into(), "x".into())],
        http: HttpOptions::default(),
    };
    let options = HttpOptions { auth: Auth::OAuth2(Box::new(oauth2)), ..HttpOptions::default() };
    let authorizer = Authorizer::new(&options, &Arc::default());
    for _ in 0..3 {
        assert_eq!(authorizer.headers().await.unwrap()["authorization"], "Bearer t0k3n");
    }
    assert_eq!(tokens.lock().len(), 2);
    let asked = tokens.lock()[1].clone();
    for part in [
        "grant_type=client_credentials",
        "scope=a+b",
        "audience=x",
        "client_id=me+%26+you",
        "client_secret=s3cret",
    ] {
        assert!(asked.contains(part), "{asked}");
    }
    // A token that a server refuses is asked for anew.
    authorizer.distrust().await;
    authorizer.headers().await.unwrap();
    assert_eq!(tokens.lock().len(), 4);
    assert_eq!(get(options, &format!("http://{target}/")).await.unwrap(), "200 page");
    assert!(requests.lock()[0].contains("authorization: Bearer t0k3n\r\n"));
}

/// An RSA key of 2,048 bits made for this test.
const RSA_KEY: &str = include_str!("../testdata/rsa.key");

#[tokio::test]
async fn a_signed_statement_is_shown_for_a_token() {
    use base64::Engine as _;
    let (server, asked) =
        serve(|_| ok(r#"{"access_token": "t", "token_type": "bearer"}"#).replace("200 OK", "201 Created"))
            .await;
    let claims = serde_json::json!({"tenant": {"id": 7}, "sub": "other"});
    let assertion = Assertion {
        key: Some(Secret::Inline(RSA_KEY.into())),
        key_id: "k1".into(),
        algorithm: SignatureAlgorithm::Rs384,
        issuer: String::new(),
        audience: String::new(),
        claims: claims.as_object().unwrap().clone(),
        clock: WallClock(Arc::new(|| 1_700_000_000_999)),
    };
    let mut oauth2 = OAuth2 {
        client_id: "me".into(),
        grant: Grant::Assertion(Box::new(assertion.clone())),
        token_url: format!("http://{server}/token"),
        scopes: vec!["a".into(), "b".into()],
        endpoint_params: vec![("x".into(), "y".into())],
        http: HttpOptions::default(),
    };
    let authorizer = |oauth2: &OAuth2| {
        let auth = Auth::OAuth2(Box::new(oauth2.clone()));
        Authorizer::new(&HttpOptions { auth, ..HttpOptions::default() }, &Arc::default())
    };
    assert_eq!(authorizer(&oauth2).headers().await.unwrap()["authorization"], "Bearer t");
    let request = asked.lock()[0].clone();
    let form = request.split("\r\n\r\n").nth(1).unwrap();
    let field = |name: &str| {
        let found = form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("{form}")).to_owned()
    };
    assert_eq!(field("grant_type"), "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer");
    assert_eq!((field("scope").as_str(), field("x").as_str()), ("a+b", "y"));
    let token = field("assertion");
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let decode = |part: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
    let parts: Vec<serde_json::Value> =
        signed.split('.').map(|part| serde_json::from_slice(&decode(part)).unwrap()).collect();
    assert_eq!(parts[0], serde_json::json!({"alg": "RS384", "typ": "JWT", "kid": "k1"}));
    let mut claims = parts[1].clone();
    let unique = claims.as_object_mut().unwrap().remove("jti").unwrap();
    assert_eq!(unique.as_str().unwrap().len(), 36);
    let wanted = serde_json::json!({
        "iss": "me", "sub": "other", "aud": oauth2.token_url, "iat": 1_700_000_000, "exp": 1_700_000_600,
        "scope": "a b", "tenant": {"id": 7},
    });
    assert_eq!(claims, wanted);
    let public = include_bytes!("../testdata/rsa.pub.der");
    let verifier =
        ring::signature::UnparsedPublicKey::new(&ring::signature::RSA_PKCS1_2048_8192_SHA384, public);
    verifier.verify(signed.as_bytes(), &decode(signature)).unwrap();
    for (key, wanted) in [
        (None, "oauth2: client secret is required"),
        (Some("x"), "oauth2: client_certificate_key: no items found"),
        (
            Some(include_str!("../testdata/client.key")),
            "oauth2: client_certificate_key: it is not an RSA key",
        ),
    ] {
        let key = key.map(|key| Secret::Inline(key.into()));
        oauth2.grant = Grant::Assertion(Box::new(Assertion { key, ..assertion.clone() }));
        let error = authorizer(&oauth2).headers().await.unwrap_err();
        assert!(error.starts_with(wanted), "{error}");
    }
}

#[tokio::test]
async fn a_redirected_request_keeps_its_body_and_loses_its_credentials() {
    let (other, requests) = serve(|_| ok("there")).await;
    let (first, asked) = serve(move |request| match request {
        request if request.starts_with("POST /own") => {
            "HTTP/1.1 308 R\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n".to_owned()
        }
        request if request.starts_with("POST /see") => {
            "HTTP/1.1 303 R\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n".to_owned()
        }
        _ => format!("HTTP/1.1 307 R\r\nLocation: http://{other}/x\r\nContent-Length: 0\r\n\r\n"),
    })
    .await;
    let credentials = Secret::Inline("s3cret".into());
    let auth = Auth::Authorization { kind: "Bearer".into(), credentials };
    let send = |follow_redirects, path: &str| {
        let options = HttpOptions { auth: auth.clone(), follow_redirects, ..HttpOptions::default() };
        let request = http::Request::post(format!("http://{first}/{path}")).body("what".into()).unwrap();
        let carried = transport(&options, Vec::new())(request);
        async move { carried.await.unwrap().status().as_u16() }
    };
    assert_eq!((send(false, "own").await, send(true, "see").await), (308, 303));
    assert_eq!(send(true, "own").await, 200);
    let (asked, there) = (asked.lock().clone(), requests.lock().clone());
    assert!(
        asked[3].starts_with("POST /next") && asked[3].contains("authorization: Bearer s3cret"),
        "{asked:?}"
    );
    assert!(there[0].ends_with("\r\n\r\nwhat") && !there[0].contains("s3cret"), "{there:?}");
}

/// This machine is reached directly whatever the environment says, but not if the configuration says otherwise.
#[test]
fn a_proxy_of_the_environment_is_not_for_this_machine() {
    let uri: Uri = "http://127.0.0.1:9/".parse().unwrap();
    let mut proxy = Proxy { http: Some("http://p:1".into()), ..Proxy::default() };
    assert_eq!(super::proxy::proxy_for(&proxy, &uri), Some("http://p:1"));
    proxy.is_from_environment = true;
    assert_eq!(super::proxy::proxy_for(&proxy, &uri), None);
    assert!(super::proxy::proxy_for(&proxy, &"http://a.test/".parse().unwrap()).is_some());
}

fn through(proxy: &str) -> HttpOptions {
    let proxy = Proxy { http: Some(proxy.to_owned()), https: Some(proxy.to_owned()), ..Proxy::default() };
    HttpOptions { proxy, ..HttpOptions::default() }
}

#[tokio::test]
async fn proxies_are_sent_whole_urls_or_asked_for_a_tunnel() {
    let (proxy, requests) = serve(|request| {
        if request.starts_with("CONNECT") {
            "HTTP/1.1 403 Forbidden\r\n\r\n".to_owned()
        } else {
            ok("by proxy")
        }
    })
    .await;
    let options = || through(&format!("http://user:pass@{proxy}"));
    assert_eq!(get(options(), "http://far.test:81/x?y").await.unwrap(), "200 by proxy");
    let error = get(options(), "https://far.test/x").await.unwrap_err();
    assert!(error.contains("proxy: 403"), "{error}");
    let requests = requests.lock().clone();
    assert!(
        requests[0].starts_with("GET http://far.test:81/x?y HTTP/1.1\r\nHost: far.test:81\r\n"),
        "{requests:?}"
    );
    assert!(requests[0].contains("proxy-authorization: Basic dXNlcjpwYXNz\r\n"));
    assert!(requests[1].starts_with("CONNECT far.test:443 HTTP/1.1\r\n"));
    // What is exempt is reached directly.
    let (target, _) = serve(|_| ok("direct")).await;
    let mut exempt = options();
    exempt.proxy.no_proxy = "10.0.0.0/8, 127.0.0.1".into();
    assert_eq!(get(exempt, &format!("http://{target}/")).await.unwrap(), "200 direct");
}

#[tokio::test]
async fn a_socks_proxy_resolves_and_connects() {
    let (target, _) = serve(|_| ok("page")).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(greeting, [5, 2, 0, 2]);
        stream.write_all(&[5, 2]).await.unwrap();
        let mut user = [0; 7];
        stream.read_exact(&mut user).await.unwrap();
        assert_eq!(user, *b"\x01\x01u\x03p/w");
        stream.write_all(&[1, 0]).await.unwrap();
        let mut request = [0; 5 + 8 + 2];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
        let mut onward = TcpStream::connect(target).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
        request
    });
    let options = through(&format!("socks5://u:p%2Fw@{proxy}"));
    assert_eq!(get(options, "http://far.test:81/").await.unwrap(), "200 page");
    assert_eq!(asked.await.unwrap(), *b"\x05\x01\x00\x03\x08far.test\x00\x51");
}

#[tokio::test]
async fn http2_is_spoken_where_it_is_agreed_on() {
    use rustls::pki_types::pem::PemObject as _;
    let certificate = include_bytes!("../testdata/server.pem");
    let key = include_bytes!("../testdata/server.key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let certificate = rustls::pki_types::CertificateDer::from_pem_slice(certificate).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key).unwrap();
    let mut config = builder.unwrap().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route(
        "/",
        axum::routing::get(
            |version: http::Version| async move { format!("{version:?} {}", "x".repeat(300_000)) },
        ),
    );
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let stream = hyper_util::rt::TokioIo::new(acceptor.accept(stream).await.unwrap());
                let service = hyper_util::service::TowerToHyperService::new(router);
                let builder =
                    hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                let _ = builder.serve_connection(stream, service).await;
            });
        }
    });
    let tls = TlsOptions { insecure_skip_verify: true, ..TlsOptions::default() };
    for (http2, version) in [(true, "HTTP/2.0"), (false, "HTTP/1.1")] {
        let options = HttpOptions { tls: tls.clone(), http2, ..HttpOptions::default() };
        let page = get(options, &format!("https://{address}/")).await.unwrap();
        assert!(page.starts_with(&format!("200 {version} xxx")) && page.len() > 300_000, "{page:.40}");
    }
}

/// Reads an answer from bytes.
async fn read(mut bytes: &[u8], limit: u64) -> Result<(Response<()>, Vec<u8>), String> {
    let mut body = Vec::new();
    let head = read_head(&mut bytes, &mut body).await.map_err(|error| error.to_string())?;
    let framing = framing(&head).map_err(|error| error.to_string())?;
    read_body(&mut bytes, framing, limit, &mut body).await.map_err(|error| error.to_string())?;
    Ok((head, body))
}

#[tokio::test]
async fn answers_that_lie_are_refused() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "unexpected EOF"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc", "more bytes than announced"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", "bad Content-Length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc", "bad Content-Length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabc", "bad Content-Length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\nabc", "body size limit exceeded"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", "no line end"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "bad chunk size"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", "bad chunk size"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n", "body size limit exceeded"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "unexpected EOF"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: br\r\n\r\n", "unsupported transfer encoding"),
        ("SSH-2.0-OpenSSH\r\n\r\n", "malformed HTTP response"),
        ("", "EOF"),
    ] {
        let error = read(answer.as_bytes(), 1_000).await.unwrap_err();
        assert!(error.contains(expected), "{error} for {answer}");
    }
    let (_, body) = read(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 1_000).await.unwrap();
    assert_eq!(body, b"until the end");
    let interim = b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na";
    assert_eq!(read(interim, 10).await.unwrap().1, b"a");
    let endless = [b"HTTP/1.1 200 OK\r\n".to_vec(), vec![b'a'; 200_000]].concat();
    assert!(read(&endless, 10).await.unwrap_err().contains("head is too large"));
    assert!(read(b"HTTP/1.0 200 OK\r\n\r\ntoo long", 3).await.unwrap_err().contains("body size limit"));
}

proptest! {
    /// However a body is cut into chunks, and however these arrive, it is put together again.
    #[test]
    fn chunks_are_put_together(parts: Vec<Vec<u8>>, arrivals: Vec<u8>) {
        let mut encoded = Vec::new();
        for part in parts.iter().filter(|part| !part.is_empty()) {
            encoded.extend(format!("{:x};ext=1\r\n", part.len()).bytes());
            encoded.extend(part);
            encoded.extend(b"\r\n");
        }
        encoded.extend(b"0\r\nTrailer: x\r\n\r\n");
        let (mut chunks, mut buffer, mut rest) = (Chunks::default(), Vec::new(), encoded.as_slice());
        let mut lengths = arrivals.iter().map(|length| usize::from(*length).max(1)).chain(std::iter::repeat(usize::MAX));
        loop {
            let (now, later) = rest.split_at(lengths.next().unwrap().min(rest.len()));
            rest = later;
            buffer.extend_from_slice(now);
            match chunks.decode(&mut buffer).unwrap() {
                Progress::Done => break,
                Progress::More => prop_assert!(!rest.is_empty()),
            }
        }
        buffer.truncate(chunks.decoded);
        prop_assert_eq!(buffer, parts.concat());
    }

    #[test]
    fn no_bytes_are_a_panic(bytes: Vec<u8>, cut in 0usize..64) {
        let _ = parse_head(&bytes);
        let mut buffer = bytes[..cut.min(bytes.len())].to_vec();
        let mut chunks = Chunks::default();
        if chunks.decode(&mut buffer).is_ok() {
            buffer.extend_from_slice(&bytes[cut.min(bytes.len())..]);
            let _ = chunks.decode(&mut buffer);
        }
    }
}
