//! Where this server is: its address, the URL under which users know it, the path below which it
//! answers.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::response::Redirect;
use axum::routing::any;
use model::regex::AnchoredRegex;

use crate::cli::Cli;
use crate::web::Guard;

/// Where this server is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The first address it listens on.
    pub(crate) address: SocketAddr,
    /// For links; no slash at its end.
    pub(crate) external_url: String,
    /// Path of all routes; no slash at its end, so empty for the root.
    pub(crate) prefix: String,
    /// Origins of pages that may read the API.
    pub(crate) cors_origin: Arc<AnchoredRegex>,
    /// Whether TLS or passwords may be asked for.
    pub(crate) guarded: bool,
    has_tls: bool,
    /// The machine's name.
    pub(crate) host_name: String,
}

impl Place {
    /// From the flags and the bound address.
    pub(crate) fn new(cli: &Cli, address: SocketAddr, guard: Option<&Guard>) -> anyhow::Result<Self> {
        let web = &cli.web;
        let has_tls = guard.is_some_and(Guard::has_tls);
        let external_url = if web.external_url.is_empty() {
            format!("{}://{address}", scheme(has_tls))
        } else {
            web.external_url.trim_end_matches('/').to_owned()
        };
        let uri: http::Uri = external_url
            .parse()
            .ok()
            .filter(|uri: &http::Uri| uri.scheme().is_some() && uri.host().is_some())
            .with_context(|| {
                format!("--web.external-url={}: not a URL with a scheme and a host", web.external_url)
            })?;
        let prefix = web.route_prefix.as_deref().unwrap_or(uri.path()).trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        anyhow::ensure!(
            !prefix.contains(['{', '}', '*', '?', '#', ' ']),
            "--web.route-prefix={prefix}: not a plain path"
        );
        let cors_origin = AnchoredRegex::new(&web.cors_origin)
            .with_context(|| format!("--web.cors.origin={}", web.cors_origin))?;
        let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Ok(Self {
            address,
            external_url,
            prefix,
            cors_origin: Arc::new(cors_origin),
            guarded: guard.is_some(),
            has_tls,
            host_name: host_name.trim().to_owned(),
        })
    }

    /// Puts `router` below the prefix; the root leads there.
    pub(crate) fn mount(&self, router: Router) -> Router {
        if self.prefix.is_empty() {
            return router;
        }
        let target = format!("{}/", self.prefix);
        let to_prefix = any(move || std::future::ready(Redirect::to(&target)));
        Router::new().nest(&self.prefix, router).route("/", to_prefix)
    }

    /// The address for whoever is on this machine.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}{}", scheme(self.has_tls), self.address, self.prefix)
    }
}

fn scheme(has_tls: bool) -> &'static str {
    if has_tls { "https" } else { "http" }
}
