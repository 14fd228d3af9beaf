//! Where this server is: its address, the URL under which users know it, the path below which it
//! answers.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse as _;
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
    pub(crate) cors_origin: Option<Arc<AnchoredRegex>>,
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
        let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host_name = host_name.trim().to_owned();
        let external_url = if web.external_url.is_empty() {
            // As others may reach it: the address may be any of the machine's.
            match host_name.is_empty() {
                true => format!("{}://{address}", scheme(has_tls)),
                false => format!("{}://{host_name}:{}", scheme(has_tls), address.port()),
            }
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
        Ok(Self {
            address,
            external_url,
            prefix,
            cors_origin: (web.cors_origin != ".*").then(|| Arc::new(cors_origin)),
            guarded: guard.is_some(),
            has_tls,
            host_name,
        })
    }

    /// Puts `router` below the prefix; the root leads there.
    pub(crate) fn mount(&self, router: Router) -> Router {
        if self.prefix.is_empty() {
            return router;
        }
        let (bare, target) = (self.prefix.clone(), format!("{}/", self.prefix));
        // The page names its files relatively, so it is at the prefix with a slash and nowhere else.
        let to_prefix = move |request: Request, next: Next| {
            let away = request.uri().path() == "/" || request.uri().path() == bare;
            let moved =
                away.then(|| (StatusCode::FOUND, [(header::LOCATION, target.clone())]).into_response());
            async move {
                match moved {
                    Some(moved) => moved,
                    None => next.run(request).await,
                }
            }
        };
        let root = any(async || StatusCode::NOT_FOUND);
        let router = Router::new().nest_service(&self.prefix, router).route("/", root);
        router.layer(from_fn(to_prefix))
    }

    /// The address for whoever is on this machine.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}{}", scheme(self.has_tls), self.address, self.prefix)
    }
}

fn scheme(has_tls: bool) -> &'static str {
    if has_tls { "https" } else { "http" }
}
