//! What a request says about who sends it.

use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use tokio::sync::Mutex;

use super::assertion;
use super::dial::{Dialer, Peer, Roots};
use super::exchange::{Outgoing, Session};
use crate::config::{Auth, Grant, HttpOptions, OAuth2, Secret};

/// An answer of a token server is no longer than that.
const TOKEN_BYTES_MAX: u64 = 1 << 20;
/// A token is replaced that long before it runs out.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// A secret, read anew if it lies in a file.
pub(crate) async fn read_secret(secret: &Secret) -> Result<String, String> {
    match secret {
        Secret::Inline(text) => Ok(text.clone()),
        Secret::File(path) => match tokio::fs::read_to_string(path).await {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) => Err(format!("{secret:?}: {error}")),
        },
    }
}

/// Makes the headers that identify us, for one job.
pub(crate) struct Authorizer {
    options: HttpOptions,
    tokens: Option<(Dialer, Mutex<Option<Token>>)>,
}

struct Token {
    value: String,
    until: Option<Instant>,
}

impl Authorizer {
    pub(crate) fn new(options: &HttpOptions, roots: &std::sync::Arc<Roots>) -> Self {
        let tokens = match &options.auth {
            Auth::OAuth2(oauth2) => {
                Some((Dialer::new(oauth2.http.clone(), std::sync::Arc::clone(roots)), Mutex::default()))
            }
            _ => None,
        };
        Self { options: options.clone(), tokens }
    }

    /// The headers for the server that is meant, not for one that it redirects to.
    pub(crate) async fn headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        let authorization = match &self.options.auth {
            Auth::None => None,
            Auth::Basic { username, password } => {
                let pair = format!("{}:{}", read_secret(username).await?, read_secret(password).await?);
                Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
            }
            Auth::Authorization { kind, credentials } => {
                Some(format!("{kind} {}", read_secret(credentials).await?))
            }
            Auth::OAuth2(oauth2) => Some(self.token(oauth2).await?),
        };
        if let Some(authorization) = authorization {
            let mut value = value_of(&authorization)?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        for (name, content) in &self.options.headers {
            let name =
                HeaderName::try_from(name.as_str()).map_err(|error| format!("header {name:?}: {error}"))?;
            headers.append(name, value_of(&read_secret(content).await?)?);
        }
        Ok(headers)
    }

    /// To be called when a server refused what was sent: a token may have been withdrawn.
    pub(crate) async fn distrust(&self) {
        if let Some((_, token)) = &self.tokens {
            *token.lock().await = None;
        }
    }

    /// `Bearer ...`; asked for anew once it runs out.
    async fn token(&self, oauth2: &OAuth2) -> Result<String, String> {
        let Some((dialer, token)) = &self.tokens else { return Err("oauth2: no token server".to_owned()) };
        // One asks, the others wait for the answer.
        let mut token = token.lock().await;
        let usable = |token: &Token| token.until.is_none_or(|until| Instant::now() + TOKEN_MARGIN < until);
        if let Some(token) = token.as_ref().filter(|token| usable(token)) {
            return Ok(token.value.clone());
        }
        let new = ask(oauth2, dialer).await.map_err(|error| format!("oauth2: {error}"))?;
        Ok(token.insert(new).value.clone())
    }
}

fn value_of(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|error| format!("header value: {error}"))
}

async fn ask(oauth2: &OAuth2, dialer: &Dialer) -> Result<Token, String> {
    let secret = match &oauth2.grant {
        Grant::Credentials(secret) => secret,
        Grant::Assertion(assertion) => &assertion.key,
    };
    let secret = read_secret(secret.as_ref().ok_or("client secret is required")?).await?;
    let refused = |status| format!("cannot fetch token: {status}");
    let mut body = Vec::new();
    if !oauth2.scopes.is_empty() {
        body.push(("scope", oauth2.scopes.join(" ")));
    }
    body.extend(oauth2.endpoint_params.iter().map(|(name, value)| (name.as_str(), value.clone())));
    match &oauth2.grant {
        Grant::Credentials(_) => {
            body.push(("grant_type", "client_credentials".to_owned()));
            ask_with_secret(oauth2, secret, dialer, body).await?.map_err(refused)
        }
        Grant::Assertion(assertion) => {
            // Some servers want the grant to be called something else.
            if oauth2.endpoint_params.iter().all(|(name, _)| name != "grant_type") {
                body.push(("grant_type", assertion::GRANT_TYPE.to_owned()));
            }
            body.push(("assertion", assertion::sign(oauth2, assertion, &secret)?));
            post(oauth2, dialer, &body, None).await?.map_err(refused)
        }
    }
}

/// The client credentials grant (RFC 6749 4.4): first with the credentials in a header, and, as many servers
/// know only one of both ways, then in the body.
async fn ask_with_secret(
    oauth2: &OAuth2,
    secret: String,
    dialer: &Dialer,
    mut body: Vec<(&str, String)>,
) -> Result<Result<Token, StatusCode>, String> {
    let pair = format!("{}:{}", encoded(&oauth2.client_id), encoded(&secret));
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    match post(oauth2, dialer, &body, Some(&basic)).await? {
        Ok(token) => Ok(Ok(token)),
        Err(_) => {
            body.push(("client_id", oauth2.client_id.clone()));
            body.push(("client_secret", secret));
            post(oauth2, dialer, &body, None).await
        }
    }
}

/// The token, or the status with which it is refused.
async fn post(
    oauth2: &OAuth2,
    dialer: &Dialer,
    form: &[(&str, String)],
    authorization: Option<&str>,
) -> Result<Result<Token, StatusCode>, String> {
    let uri = oauth2.token_url.parse().map_err(|error| format!("token_url: {error}"))?;
    let form: Vec<String> =
        form.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    let body = Bytes::from(form.join("&"));
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    if let Some(authorization) = authorization {
        headers.insert(header::AUTHORIZATION, value_of(authorization)?);
    }
    let outgoing = Outgoing {
        method: Method::POST,
        body: &body,
        wanted: |status| status.is_success(),
        ..Outgoing::get(uri, headers, TOKEN_BYTES_MAX)
    };
    let mut answer = Vec::new();
    let head = Session::default().exchange(dialer, Peer::default(), &outgoing, &mut answer).await;
    let head = head.map_err(|error| error.to_string())?;
    if !head.status().is_success() {
        return Ok(Err(head.status()));
    }
    #[derive(serde::Deserialize)]
    struct Granted {
        access_token: String,
        #[serde(default)]
        token_type: String,
        #[serde(default)]
        expires_in: Option<serde_json::Number>,
    }
    let granted: Granted =
        serde_json::from_slice(&answer).map_err(|error| format!("the token server's answer: {error}"))?;
    let seconds = granted.expires_in.and_then(|seconds| seconds.as_u64()).filter(|seconds| *seconds > 0);
    let kind = match granted.token_type.to_ascii_lowercase().as_str() {
        "" | "bearer" => "Bearer".to_owned(),
        "mac" => "MAC".to_owned(),
        "basic" => "Basic".to_owned(),
        _ => granted.token_type,
    };
    Ok(Ok(Token {
        value: format!("{kind} {}", granted.access_token),
        until: seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds.min(u64::from(u32::MAX)))),
    }))
}

/// A text as it stands in a form.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
