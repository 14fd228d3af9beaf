//! HTTP client options: the keys that scrapes and discoveries share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use scraper::config::{
    Assertion, Auth, Grant, HttpOptions, OAuth2 as OAuth2Options, Proxy, Secret, SignatureAlgorithm,
    TlsOptions, WallClock,
};
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::resolve::{Fault, fault};
use super::sigv4::{SigV4, SigV4Options};

/// The grant of a statement that the client signs.
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The keys, wherever they stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct HttpClient {
    pub(crate) basic_auth: Option<Spanned<BasicAuth>>,
    pub(crate) authorization: Option<Spanned<Authorization>>,
    pub(crate) oauth2: Option<Spanned<OAuth2>>,
    pub(crate) bearer_token: Option<Spanned<String>>,
    pub(crate) bearer_token_file: Option<Spanned<PathBuf>>,
    pub(crate) tls_config: Tls,
    pub(crate) proxy_url: Option<Spanned<String>>,
    pub(crate) no_proxy: Option<Spanned<String>>,
    pub(crate) proxy_from_environment: Option<Spanned<bool>>,
    pub(crate) proxy_connect_header: Option<Spanned<BTreeMap<String, Vec<String>>>>,
    pub(crate) follow_redirects: Option<bool>,
    pub(crate) enable_http2: Option<bool>,
    pub(crate) http_headers: BTreeMap<String, Spanned<Header>>,
}

/// The keys of a section that has them among its own.
macro_rules! http_client {
    ($section:expr) => {
        $crate::config::http::HttpClient {
            basic_auth: $section.basic_auth.clone(),
            authorization: $section.authorization.clone(),
            oauth2: $section.oauth2.clone(),
            bearer_token: $section.bearer_token.clone(),
            bearer_token_file: $section.bearer_token_file.clone(),
            tls_config: $section.tls_config.clone(),
            proxy_url: $section.proxy_url.clone(),
            no_proxy: $section.no_proxy.clone(),
            proxy_from_environment: $section.proxy_from_environment.clone(),
            proxy_connect_header: $section.proxy_connect_header.clone(),
            follow_redirects: $section.follow_redirects,
            enable_http2: $section.enable_http2,
            http_headers: $section.http_headers.clone(),
        }
    };
}
pub(crate) use http_client;

/// Defines a section with keys of its own beside those of an HTTP client.
macro_rules! with_http {
    ($(#[$doc:meta])* $name:ident { $($(#[$attr:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct $name {
            $($(#[$attr])* $field: $type,)*
            basic_auth: Option<serde_saphyr::Spanned<$crate::config::http::BasicAuth>>,
            authorization: Option<serde_saphyr::Spanned<$crate::config::http::Authorization>>,
            oauth2: Option<serde_saphyr::Spanned<$crate::config::http::OAuth2>>,
            bearer_token: Option<serde_saphyr::Spanned<String>>,
            bearer_token_file: Option<serde_saphyr::Spanned<std::path::PathBuf>>,
            tls_config: $crate::config::http::Tls,
            proxy_url: Option<serde_saphyr::Spanned<String>>,
            no_proxy: Option<serde_saphyr::Spanned<String>>,
            proxy_from_environment: Option<serde_saphyr::Spanned<bool>>,
            proxy_connect_header:
                Option<serde_saphyr::Spanned<std::collections::BTreeMap<String, Vec<String>>>>,
            follow_redirects: Option<bool>,
            enable_http2: Option<bool>,
            http_headers: std::collections::BTreeMap<
                String,
                serde_saphyr::Spanned<$crate::config::http::Header>,
            >,
        }

        impl $name {
            fn http(&self) -> $crate::config::http::HttpClient {
                $crate::config::http::http_client!(self)
            }
        }
    };
}
pub(crate) use with_http;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BasicAuth {
    username: Option<String>,
    username_file: Option<PathBuf>,
    password: Option<String>,
    password_file: Option<PathBuf>,
    // By reference to a secret manager, which there is none of.
    username_ref: Option<String>,
    password_ref: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Authorization {
    #[serde(rename = "type")]
    kind: Option<String>,
    credentials: Option<String>,
    credentials_file: Option<PathBuf>,
    credentials_ref: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OAuth2 {
    client_id: String,
    client_secret: Option<String>,
    client_secret_file: Option<PathBuf>,
    client_secret_ref: Option<String>,
    client_certificate_key_id: Option<String>,
    client_certificate_key: Option<String>,
    client_certificate_key_file: Option<PathBuf>,
    client_certificate_key_ref: Option<String>,
    signature_algorithm: Option<String>,
    iss: Option<String>,
    audience: Option<String>,
    claims: Option<serde_json::Map<String, serde_json::Value>>,
    grant_type: Option<String>,
    scopes: Vec<String>,
    token_url: String,
    endpoint_params: BTreeMap<String, String>,
    tls_config: Tls,
    proxy_url: Option<Spanned<String>>,
    no_proxy: Option<Spanned<String>>,
    proxy_from_environment: Option<Spanned<bool>>,
    proxy_connect_header: Option<Spanned<BTreeMap<String, Vec<String>>>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tls {
    ca: Option<String>,
    ca_file: Option<PathBuf>,
    ca_ref: Option<String>,
    cert: Option<String>,
    cert_file: Option<PathBuf>,
    cert_ref: Option<String>,
    key: Option<String>,
    key_file: Option<PathBuf>,
    key_ref: Option<String>,
    server_name: Option<String>,
    insecure_skip_verify: bool,
    min_version: Option<String>,
    max_version: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Header {
    values: Vec<String>,
    secrets: Vec<String>,
    files: Vec<PathBuf>,
}

with_http! {
    /// A file that holds nothing else.
    HttpFile {}
}

/// Reads the text of a file of HTTP client options; paths are relative to `folder`.
pub(super) fn of_file(path: &Path, text: &str, folder: &Path) -> Result<HttpOptions, super::ConfigError> {
    let file: Spanned<HttpFile> = super::read(path, text)?;
    file.value.http().options(folder, file.referenced).map_err(|fault| super::ConfigError::Invalid {
        path: path.to_owned(),
        location: fault.location,
        what: fault.what,
    })
}

/// Headers that are set by the client itself.
pub(crate) const RESERVED_HEADERS: [&str; 18] = [
    "authorization",
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
    "x-prometheus-remote-write-version",
    "x-prometheus-remote-read-version",
    "x-prometheus-scrape-timeout-seconds",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
];

impl HttpClient {
    /// Whether nothing is said that differs from the defaults.
    pub(crate) fn is_default(&self) -> bool {
        let Self { basic_auth, authorization, oauth2, bearer_token, bearer_token_file, .. } = self;
        let has_auth = basic_auth.is_some()
            || authorization.is_some()
            || oauth2.is_some()
            || bearer_token.is_some()
            || bearer_token_file.is_some();
        let has_proxy = self.proxy_url.is_some()
            || self.proxy_from_environment.as_ref().is_some_and(|flag| flag.value)
            || self.no_proxy.is_some()
            || self.proxy_connect_header.is_some();
        !has_auth
            && !has_proxy
            && self.tls_config == Tls::default()
            && self.follow_redirects.unwrap_or(true)
            && self.enable_http2.unwrap_or(true)
            && self.http_headers.is_empty()
    }

    /// The options; paths are relative to `folder`, and `at` is where the section stands.
    pub(crate) fn options(&self, folder: &Path, at: Location) -> Result<HttpOptions, Fault> {
        let resolving = Resolving { folder, at };
        let mut headers = Vec::new();
        for (name, header) in &self.http_headers {
            if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                return fault(header.referenced, format!("setting header {name:?} is not allowed"));
            }
            if http::HeaderName::try_from(name.as_str()).is_err() {
                return fault(header.referenced, format!("{name:?} is not a valid header name"));
            }
            headers.extend(resolving.header(name, &header.value));
        }
        Ok(HttpOptions {
            auth: self.auth(&resolving)?,
            headers,
            tls: resolving.tls(&self.tls_config)?,
            follow_redirects: self.follow_redirects.unwrap_or(true),
            http2: self.enable_http2.unwrap_or(true),
            proxy: resolving.proxy(&ProxyKeys {
                url: self.proxy_url.as_ref(),
                no_proxy: self.no_proxy.as_ref(),
                from_environment: self.proxy_from_environment.as_ref(),
                connect_header: self.proxy_connect_header.as_ref(),
            })?,
        })
    }

    /// The options, with those of a section that says how requests are signed; `keys` names all ways to say who asks. A
    /// signature is for one server, so what is signed follows no redirection.
    pub(crate) fn signed(
        &self,
        section: Option<&Spanned<SigV4>>,
        keys: &str,
        (folder, at): (&Path, Location),
    ) -> Result<(HttpOptions, Option<SigV4Options>), Fault> {
        let options = self.options(folder, at)?;
        let sigv4 = super::sigv4::resolve(section, options.auth != Auth::None, keys)?;
        let follow_redirects = options.follow_redirects && sigv4.is_none();
        Ok((HttpOptions { follow_redirects, ..options }, sigv4))
    }

    /// A user given by keys of another section.
    pub(crate) fn set_basic_auth(&mut self, username: &str, password: &str, at: Location) {
        let value = BasicAuth {
            username: Some(username.to_owned()),
            password: Some(password.to_owned()),
            ..BasicAuth::default()
        };
        self.basic_auth = Some(Spanned { value, referenced: at, defined: at });
    }

    fn auth(&self, resolving: &Resolving<'_>) -> Result<Auth, Fault> {
        let at = resolving.at;
        let tokens = usize::from(self.bearer_token.is_some()) + usize::from(self.bearer_token_file.is_some());
        let [basic, oauth2, authorization] =
            [self.basic_auth.is_some(), self.oauth2.is_some(), self.authorization.is_some()].map(usize::from);
        if tokens > 1 {
            return fault(at, "at most one of bearer_token & bearer_token_file must be configured");
        }
        if basic + oauth2 + tokens > 1 {
            let what =
                "at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured";
            return fault(at, what);
        }
        if authorization + tokens > 1 {
            return fault(at, "authorization is not compatible with bearer_token & bearer_token_file");
        }
        if authorization + basic + oauth2 > 1 {
            return fault(at, "at most one of basic_auth, oauth2 & authorization must be configured");
        }
        let bearer = |credentials| Auth::Authorization { kind: "Bearer".to_owned(), credentials };
        if let Some(basic) = &self.basic_auth {
            resolving.basic_auth(basic)
        } else if let Some(authorization) = &self.authorization {
            resolving.authorization(authorization)
        } else if let Some(oauth2) = &self.oauth2 {
            resolving.oauth2(oauth2)
        } else if let Some(token) = &self.bearer_token {
            Ok(bearer(Secret::Inline(token.value.clone())))
        } else if let Some(file) = &self.bearer_token_file {
            Ok(bearer(Secret::File(resolving.folder.join(&file.value))))
        } else {
            Ok(Auth::None)
        }
    }
}

/// Where a section stands, and what its paths are relative to.
struct Resolving<'a> {
    folder: &'a Path,
    at: Location,
}

/// The keys that say what stands in between.
struct ProxyKeys<'a> {
    url: Option<&'a Spanned<String>>,
    no_proxy: Option<&'a Spanned<String>>,
    from_environment: Option<&'a Spanned<bool>>,
    connect_header: Option<&'a Spanned<BTreeMap<String, Vec<String>>>>,
}

impl Resolving<'_> {
    /// A secret given inline or by file, but not both.
    fn secret(
        &self,
        key: &str,
        inline: Option<&String>,
        file: Option<&PathBuf>,
        at: Location,
    ) -> Result<Option<Secret>, Fault> {
        let inline = inline.filter(|text| !text.is_empty());
        match (inline, file.filter(|path| !path.as_os_str().is_empty())) {
            (Some(_), Some(_)) => fault(at, format!("at most one of {key} & {key}_file must be configured")),
            (Some(text), None) => Ok(Some(Secret::Inline(text.clone()))),
            (None, Some(path)) => Ok(Some(Secret::File(self.folder.join(path)))),
            (None, None) => Ok(None),
        }
    }

    /// There is no secret manager that a reference could name.
    fn no_reference(&self, references: &[(&str, &Option<String>)], at: Location) -> Result<(), Fault> {
        match references.iter().find(|(_, reference)| reference.as_ref().is_some_and(|it| !it.is_empty())) {
            Some((key, _)) => fault(at, format!("{key} is not supported")),
            None => Ok(()),
        }
    }

    fn basic_auth(&self, basic: &Spanned<BasicAuth>) -> Result<Auth, Fault> {
        let BasicAuth { username, username_file, password, password_file, username_ref, password_ref } =
            &basic.value;
        let at = basic.referenced;
        self.no_reference(&[("username_ref", username_ref), ("password_ref", password_ref)], at)?;
        let empty = || Secret::Inline(String::new());
        let username = self.secret("username", username.as_ref(), username_file.as_ref(), at)?;
        let password = self.secret("password", password.as_ref(), password_file.as_ref(), at)?;
        Ok(Auth::Basic { username: username.unwrap_or_else(empty), password: password.unwrap_or_else(empty) })
    }

    fn authorization(&self, authorization: &Spanned<Authorization>) -> Result<Auth, Fault> {
        let Authorization { kind, credentials, credentials_file, credentials_ref } = &authorization.value;
        let at = authorization.referenced;
        self.no_reference(&[("credentials_ref", credentials_ref)], at)?;
        let kind = kind.as_deref().map_or("", str::trim);
        if kind.eq_ignore_ascii_case("basic") {
            return fault(at, "authorization type cannot be set to \"basic\", use \"basic_auth\" instead");
        }
        let kind = if kind.is_empty() { "Bearer" } else { kind }.to_owned();
        let credentials = self.secret("credentials", credentials.as_ref(), credentials_file.as_ref(), at)?;
        let credentials = credentials.unwrap_or_else(|| Secret::Inline(String::new()));
        Ok(Auth::Authorization { kind, credentials })
    }

    fn oauth2(&self, oauth2: &Spanned<OAuth2>) -> Result<Auth, Fault> {
        let (keys, at) = (&oauth2.value, oauth2.referenced);
        self.no_reference(
            &[
                ("client_secret_ref", &keys.client_secret_ref),
                ("client_certificate_key_ref", &keys.client_certificate_key_ref),
            ],
            at,
        )?;
        if keys.client_id.is_empty() {
            return fault(at, "oauth2 client_id must be configured");
        }
        if keys.token_url.is_empty() {
            return fault(at, "oauth2 token_url must be configured");
        }
        let grant = if keys.grant_type.as_deref() == Some(JWT_BEARER) {
            Grant::Assertion(Box::new(self.assertion(keys, at)?))
        } else {
            // Any other type, too, stands for the default one.
            let (text, file) = (keys.client_secret.as_ref(), keys.client_secret_file.as_ref());
            Grant::Credentials(self.secret("oauth2 client_secret", text, file, at)?)
        };
        let proxy = ProxyKeys {
            url: keys.proxy_url.as_ref(),
            no_proxy: keys.no_proxy.as_ref(),
            from_environment: keys.proxy_from_environment.as_ref(),
            connect_header: keys.proxy_connect_header.as_ref(),
        };
        Ok(Auth::OAuth2(Box::new(OAuth2Options {
            client_id: keys.client_id.clone(),
            grant,
            token_url: keys.token_url.clone(),
            scopes: keys.scopes.clone(),
            endpoint_params: keys.endpoint_params.clone().into_iter().collect(),
            http: HttpOptions {
                tls: self.tls(&keys.tls_config)?,
                proxy: self.proxy(&proxy)?,
                ..HttpOptions::default()
            },
        })))
    }

    /// What is signed for the token server; the keys for this mean nothing to the other grant.
    fn assertion(&self, keys: &OAuth2, at: Location) -> Result<Assertion, Fault> {
        let (text, file) = (keys.client_certificate_key.as_ref(), keys.client_certificate_key_file.as_ref());
        Ok(Assertion {
            key: self.secret("oauth2 client_certificate_key", text, file, at)?,
            key_id: keys.client_certificate_key_id.clone().unwrap_or_default(),
            algorithm: match keys.signature_algorithm.as_deref().unwrap_or_default() {
                "" | "RS256" => SignatureAlgorithm::Rs256,
                "RS384" => SignatureAlgorithm::Rs384,
                "RS512" => SignatureAlgorithm::Rs512,
                _ => return fault(at, "valid signature algorithms are RS256, RS384 and RS512"),
            },
            issuer: keys.iss.clone().unwrap_or_default(),
            audience: keys.audience.clone().unwrap_or_default(),
            claims: keys.claims.clone().unwrap_or_default(),
            clock: WallClock(std::sync::Arc::new(crate::wire::now)),
        })
    }

    fn header(&self, name: &str, header: &Header) -> Vec<(String, Secret)> {
        let inline = header.values.iter().chain(&header.secrets).map(|value| Secret::Inline(value.clone()));
        let files = header.files.iter().map(|path| Secret::File(self.folder.join(path)));
        inline.chain(files).map(|secret| (name.to_owned(), secret)).collect()
    }

    fn tls(&self, tls: &Tls) -> Result<TlsOptions, Fault> {
        let at = self.at;
        self.no_reference(
            &[("ca_ref", &tls.ca_ref), ("cert_ref", &tls.cert_ref), ("key_ref", &tls.key_ref)],
            at,
        )?;
        for version in [&tls.min_version, &tls.max_version].into_iter().flatten() {
            if !matches!(version.as_str(), "TLS10" | "TLS11" | "TLS12" | "TLS13") {
                return fault(at, format!("unknown TLS version: {version}"));
            }
        }
        let (min, max) = (tls.min_version.as_deref(), tls.max_version.as_deref());
        if matches!((min, max), (Some(min), Some(max)) if min > max) {
            return fault(
                at,
                "tls_config.max_version must be greater than or equal to tls_config.min_version if both are specified",
            );
        }
        if matches!(max, Some("TLS10" | "TLS11")) {
            return fault(at, format!("max_version {} is not supported", max.unwrap_or_default()));
        }
        let options = TlsOptions {
            ca: self.secret("ca", tls.ca.as_ref(), tls.ca_file.as_ref(), at)?,
            cert: self.secret("cert", tls.cert.as_ref(), tls.cert_file.as_ref(), at)?,
            key: self.secret("key", tls.key.as_ref(), tls.key_file.as_ref(), at)?,
            server_name: tls.server_name.clone().filter(|name| !name.is_empty()),
            insecure_skip_verify: tls.insecure_skip_verify,
            versions: (min == Some("TLS13"), max == Some("TLS12")),
            ..TlsOptions::default()
        };
        match (&options.cert, &options.key) {
            (Some(_), None) => fault(
                at,
                "exactly one of key or key_file must be configured when a client certificate is configured",
            ),
            (None, Some(_)) => fault(
                at,
                "exactly one of cert or cert_file must be configured when a client key is configured",
            ),
            _ => Ok(options),
        }
    }

    fn proxy(&self, keys: &ProxyKeys<'_>) -> Result<Proxy, Fault> {
        let url = keys.url.filter(|url| !url.value.is_empty());
        let no_proxy = keys.no_proxy.filter(|text| !text.value.is_empty());
        let headers = keys.connect_header.filter(|headers| !headers.value.is_empty());
        let from_environment = keys.from_environment.filter(|flag| flag.value);
        if let (Some(flag), Some(_)) = (from_environment, url) {
            return fault(
                flag.referenced,
                "if proxy_from_environment is configured, proxy_url must not be configured",
            );
        }
        if let (Some(flag), Some(_)) = (from_environment, no_proxy) {
            return fault(
                flag.referenced,
                "if proxy_from_environment is configured, no_proxy must not be configured",
            );
        }
        if let (Some(no_proxy), None) = (no_proxy, url) {
            return fault(
                no_proxy.referenced,
                "if no_proxy is configured, proxy_url must also be configured",
            );
        }
        if let (Some(headers), None, None) = (headers, url, from_environment) {
            let what = "if proxy_connect_header is configured, proxy_url or proxy_from_environment must also be configured";
            return fault(headers.referenced, what);
        }
        let connect_headers =
            headers.into_iter().flat_map(|headers| &headers.value).flat_map(|(name, values)| {
                values.iter().map(|value| (name.clone(), Secret::Inline(value.clone())))
            });
        let connect_headers = connect_headers.collect();
        if from_environment.is_some() {
            return Ok(Proxy { connect_headers, ..proxy_of_environment(|name| std::env::var(name).ok()) });
        }
        let Some(url) = url else { return Ok(Proxy::default()) };
        let scheme = url.value.split_once("://").map(|(scheme, _)| scheme).unwrap_or_default();
        if !matches!(scheme, "http" | "https" | "socks5" | "socks5h")
            || url.value.parse::<http::Uri>().is_err()
        {
            return fault(url.referenced, format!("proxy_url: {:?} is not a URL of a proxy", url.value));
        }
        Ok(Proxy {
            http: Some(url.value.clone()),
            https: Some(url.value.clone()),
            no_proxy: no_proxy.map(|text| text.value.clone()).unwrap_or_default(),
            connect_headers,
            is_from_environment: false,
        })
    }
}

/// What the environment says about proxies.
pub(super) fn proxy_of_environment(variable: impl Fn(&str) -> Option<String>) -> Proxy {
    let set = |names: [&str; 2]| {
        let mut values = names.iter().filter_map(|name| variable(name));
        values.find(|value| !value.is_empty())
    };
    let url = |names| {
        let url = set(names)?;
        Some(if url.contains("://") { url } else { format!("http://{url}") })
    };
    Proxy {
        http: url(["HTTP_PROXY", "http_proxy"]),
        https: url(["HTTPS_PROXY", "https_proxy"]),
        no_proxy: set(["NO_PROXY", "no_proxy"]).unwrap_or_default(),
        connect_headers: Vec::new(),
        is_from_environment: true,
    }
}
