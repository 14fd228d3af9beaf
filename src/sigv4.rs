//! Requests that are signed as AWS wants it. Signing itself, and asking a pod's or a machine's metadata who it is, are the
//! `object_store` crate's; here is what it has not: roles that are assumed with the keys of somebody else.
//!
//! Source: AWS' "Signature Version 4 for API requests", and the reference of STS, "AssumeRole".

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Bytes;
use http::{HeaderMap, Request, header};
use object_store::aws::{
    AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer, AwsCredential, AwsCredentialProvider,
};
use remote::send::Transport;

use crate::config::sigv4::{Identity, Role, SigV4Options};
use crate::jobs::system_roots;

/// The service that gives temporary keys may take so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Temporary keys are renewed so long before they end, in milliseconds.
const EARLY_MS: i64 = 300_000;

/// Signs requests.
pub(crate) struct Signer {
    region: String,
    service: String,
    identity: Source,
    role: Option<Assumed>,
}

/// Where keys come from.
enum Source {
    Provider(AwsCredentialProvider),
    Profile(crate::config::sigv4::Profile),
}

/// A role, and the keys that it was last given with their end.
struct Assumed {
    role: Role,
    client: scraper::Client,
    keys: Mutex<Option<(Arc<AwsCredential>, i64)>>,
}

impl Signer {
    /// Prepares to sign; nothing is asked.
    pub(crate) fn new(options: &SigV4Options) -> anyhow::Result<Self> {
        // What asks for credentials does it with the cryptography that everybody here uses.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let identity = match &options.identity {
            Identity::Profile(profile) => Source::Profile(profile.clone()),
            Identity::Key { access, secret } => {
                let scraper::config::Secret::Inline(secret) = secret else {
                    anyhow::bail!("sigv4: the key is not given")
                };
                let builder =
                    AmazonS3Builder::new().with_access_key_id(access).with_secret_access_key(secret);
                Source::Provider(provider(builder, &options.region)?)
            }
            Identity::Ambient(environment) => {
                let mut builder = AmazonS3Builder::new();
                for (name, value) in environment {
                    if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                        builder = builder.with_config(key, value);
                    }
                }
                Source::Provider(provider(builder, &options.region)?)
            }
        };
        let role = options.role.clone().map(|role| Assumed {
            role,
            client: scraper::Client::new(&scraper::config::HttpOptions::default(), system_roots()),
            keys: Mutex::default(),
        });
        Ok(Self { region: options.region.clone(), service: options.service.clone(), identity, role })
    }

    /// The request with the headers that prove whose it is.
    pub(crate) async fn sign(&self, request: Request<Bytes>) -> Result<Request<Bytes>, String> {
        let own = match &self.identity {
            Source::Provider(provider) => {
                provider.get_credential().await.map_err(|error| format!("sigv4: {error}"))?
            }
            Source::Profile(profile) => {
                let (key_id, secret_key, token) =
                    profile.read().map_err(|error| format!("sigv4: {error}"))?;
                Arc::new(AwsCredential { key_id, secret_key, token })
            }
        };
        let keys = match &self.role {
            Some(assumed) => assumed.keys(&own, &self.region).await?,
            None => own,
        };
        signed(request, &keys, (&self.service, &self.region))
    }
}

/// Who it is that builds a client for a bucket, which none is asked for.
fn provider(builder: AmazonS3Builder, region: &str) -> anyhow::Result<AwsCredentialProvider> {
    let store = builder.with_bucket_name("none").with_region(region).build().context("sigv4")?;
    Ok(Arc::clone(store.credentials()))
}

/// A request with a signature for a service in a region.
fn signed(
    request: Request<Bytes>,
    keys: &AwsCredential,
    (service, region): (&str, &str),
) -> Result<Request<Bytes>, String> {
    let (mut parts, body) = request.into_parts();
    // What is signed is the URL as it is parsed there; so that is also what is asked for.
    let url = reqwest::Url::parse(&parts.uri.to_string()).map_err(|error| format!("sigv4: {error}"))?;
    parts.uri = url.as_str().parse().map_err(|error| format!("sigv4: {url}: {error}"))?;
    let is_text =
        |headers: &HeaderMap| headers.values().all(|value| std::str::from_utf8(value.as_bytes()).is_ok());
    if !is_text(&parts.headers) {
        return Err("sigv4: a header is not UTF-8, so it cannot be signed".to_owned());
    }
    if keys.token.as_ref().is_some_and(|token| http::HeaderValue::from_str(token).is_err()) {
        return Err("sigv4: the session's token is no text of a header".to_owned());
    }
    let mut head = Request::from_parts(parts, body.clone().into());
    AwsAuthorizer::new(keys, service, region)
        .try_authorize(&mut head, None)
        .map_err(|error| format!("sigv4: {error}"))?;
    Ok(head.map(|_| body))
}

impl Assumed {
    /// The role's keys, given to whom `own` are, in a region.
    async fn keys(&self, own: &AwsCredential, region: &str) -> Result<Arc<AwsCredential>, String> {
        let known = self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((keys, end)) = known
            && crate::wire::now() < end - EARLY_MS
        {
            return Ok(keys);
        }
        let (keys, end) = self
            .ask(own, region)
            .await
            .map_err(|error| format!("sigv4: role {:?}: {error}", self.role.arn))?;
        let keys = Arc::new(keys);
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Some((Arc::clone(&keys), end));
        Ok(keys)
    }

    async fn ask(&self, own: &AwsCredential, region: &str) -> Result<(AwsCredential, i64), String> {
        let Role { arn, external_id, endpoint } = &self.role;
        let escape = crate::tools::escape;
        let mut form =
            format!("Action=AssumeRole&Version=2011-06-15&RoleSessionName=pyrometer&RoleArn={}", escape(arn));
        if !external_id.is_empty() {
            form.push_str(&format!("&ExternalId={}", escape(external_id)));
        }
        let request = Request::post(endpoint)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8")
            .body(Bytes::from(form))
            .map_err(|error| format!("{endpoint:?}: {error}"))?;
        let (parts, body) = signed(request, own, ("sts", region))?.into_parts();
        let answer = self.client.send(Request::from_parts(parts, &body[..]), PATIENCE).await?;
        let status = answer.status();
        let text = String::from_utf8_lossy(answer.body());
        if !status.is_success() {
            return Err(format!("{status}: {}", element(&text, "Message").unwrap_or_default()));
        }
        let value =
            |name| element(&text, name).map(str::to_owned).ok_or_else(|| format!("an answer without {name}"));
        let end = value("Expiration")?.parse::<jiff::Timestamp>().map_err(|error| error.to_string())?;
        let keys = AwsCredential {
            key_id: value("AccessKeyId")?,
            secret_key: value("SecretAccessKey")?,
            token: Some(value("SessionToken")?),
        };
        Ok((keys, end.as_millisecond()))
    }
}

/// The content of an element that has none below it.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(content, _)| content.trim())
}

/// Sends what is signed before, each time that it is sent.
pub(crate) fn carry(transport: Transport, signer: Signer) -> Transport {
    let signer = Arc::new(signer);
    Arc::new(move |request| {
        let (transport, signer) = (Arc::clone(&transport), Arc::clone(&signer));
        Box::pin(async move { transport(signer.sign(request).await?).await })
    })
}
