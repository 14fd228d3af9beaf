//! Whom to believe: what the config map `extension-apiserver-authentication` says.
//!
//! Source: the Kubernetes documentation on the aggregation layer, "Authentication flow".

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::HeaderMap;
use k8s::User;
use model::Timestamp;
use rustls::RootCertStore;
use rustls::crypto::ring as provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::der;

/// What a client has shown of itself in the handshake, its own certificate first. That it has the key is verified;
/// who has signed it is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCertificates(pub Vec<CertificateDer<'static>>);

/// Certificate authorities, and the front proxy's headers.
#[derive(Debug, Default)]
pub struct Trust {
    clients: Option<Arc<dyn ClientCertVerifier>>,
    proxies: Option<Arc<dyn ClientCertVerifier>>,
    /// Empty: every name.
    proxy_names: Vec<String>,
    user_headers: Vec<String>,
    uid_headers: Vec<String>,
    group_headers: Vec<String>,
    extra_prefixes: Vec<String>,
}

/// Whom a certificate stands for.
pub(crate) enum Bearer {
    /// Nobody has shown one, or it is a proxy's that speaks for nobody.
    Nobody,
    User(User),
    /// It is signed by nobody who counts.
    Unknown,
}

impl Trust {
    /// Reads the data of the config map.
    ///
    /// # Errors
    /// A key cannot be read; the message names it.
    pub fn read(data: &BTreeMap<String, String>) -> Result<Self, String> {
        let text = |key: &str| data.get(key).map(String::as_str).filter(|text| !text.trim().is_empty());
        let list = |key: &str| match text(key) {
            Some(text) => {
                serde_json::from_str::<Vec<String>>(text).map_err(|error| format!("{key}: {error}"))
            }
            None => Ok(Vec::new()),
        };
        let authority = |key: &str| {
            let pem = text(key);
            pem.map(|pem| verifier(pem.as_bytes()).map_err(|what| format!("{key}: {what}"))).transpose()
        };
        Ok(Self {
            clients: authority("client-ca-file")?,
            proxies: authority("requestheader-client-ca-file")?,
            proxy_names: list("requestheader-allowed-names")?,
            user_headers: list("requestheader-username-headers")?,
            uid_headers: list("requestheader-uid-headers")?,
            group_headers: list("requestheader-group-headers")?,
            extra_prefixes: list("requestheader-extra-headers-prefix")?,
        })
    }

    /// Whom a client's certificates stand for, with the headers of the request.
    pub(crate) fn bearer(&self, peer: &PeerCertificates, headers: &HeaderMap, now: Timestamp) -> Bearer {
        let Some((own, between)) = peer.0.split_first() else { return Bearer::Nobody };
        let seconds = std::time::Duration::from_secs(u64::try_from(now.div_euclid(1000)).unwrap_or(0));
        let now = UnixTime::since_unix_epoch(seconds);
        let signed_by = |authority: &Option<Arc<dyn ClientCertVerifier>>| {
            authority.as_ref().is_some_and(|it| it.verify_client_cert(own, between, now).is_ok())
        };
        let named = der::user(own);
        let may_speak =
            |name: &str| self.proxy_names.is_empty() || self.proxy_names.iter().any(|it| it == name);
        let is_proxy = signed_by(&self.proxies)
            && may_speak(named.as_ref().map(|user| user.name.as_str()).unwrap_or_default());
        if is_proxy && let Some(user) = self.spoken_for(headers) {
            return Bearer::User(user);
        }
        if signed_by(&self.clients) {
            return named.map_or(Bearer::Unknown, Bearer::User);
        }
        if is_proxy { Bearer::Nobody } else { Bearer::Unknown }
    }

    /// The user that a proxy speaks for.
    fn spoken_for(&self, headers: &HeaderMap) -> Option<User> {
        let texts = |name: &String| {
            let values = headers.get_all(name.as_str()).into_iter();
            values.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect::<Vec<_>>()
        };
        let first = |names: &[String]| {
            names.iter().find_map(|name| texts(name).into_iter().find(|text| !text.trim().is_empty()))
        };
        let mut user = User {
            name: first(&self.user_headers)?,
            uid: first(&self.uid_headers).unwrap_or_default(),
            groups: self
                .group_headers
                .iter()
                .flat_map(texts)
                .filter(|group| !group.trim().is_empty())
                .collect(),
            extra: BTreeMap::new(),
        };
        for prefix in
            self.extra_prefixes.iter().map(|prefix| prefix.to_lowercase()).filter(|it| !it.is_empty())
        {
            for name in headers.keys() {
                if let Some(key) = name.as_str().strip_prefix(&prefix) {
                    let values = texts(&name.as_str().to_owned());
                    user.extra.entry(decoded(key)).or_default().extend(values);
                }
            }
        }
        Some(user)
    }
}

/// A key of extra data: header names are in lower case, and what cannot stand in one is percent-encoded.
fn decoded(key: &str) -> String {
    let mut out = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| byte == b'%') {
            Some(code) => {
                out.push(code);
                rest = &after[2..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| key.to_owned())
}

fn verifier(pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    let provider = Arc::new(provider::default_provider());
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    built.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_extra_data_are_decoded() {
        assert_eq!(
            decoded("authentication.kubernetes.io%2fcredential-id"),
            "authentication.kubernetes.io/credential-id"
        );
        assert_eq!(decoded("a%zz%"), "a%zz%");
        assert_eq!(decoded("%ff"), "%ff");
    }

    #[test]
    fn a_broken_key_is_named() {
        let data = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let error = |key, value| Trust::read(&data(key, value)).unwrap_err();
        assert!(
            error("requestheader-allowed-names", "front-proxy").starts_with("requestheader-allowed-names: ")
        );
        assert!(error("client-ca-file", "no PEM").starts_with("client-ca-file: "));
        assert!(Trust::read(&BTreeMap::new()).is_ok());
    }
}
