//! Service discovery: the `*_sd_configs` that are carried.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use scraper::config::{
    Attach as KubernetesAttach, ConsulDiscovery, Discovery, DnsDiscovery, DnsRecord, FileDiscovery,
    HttpDiscovery, KubernetesDiscovery, KubernetesRole, KubernetesSelector, Secret,
};
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::http::with_http;
use super::resolve::{Fault, fault};
use super::scalars::Duration;

/// Where a resolver keeps its configuration.
const RESOLV_CONF: &str = "/etc/resolv.conf";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FileSd {
    files: Vec<String>,
    refresh_interval: Option<Duration>,
}

with_http! {
    /// `http_sd_configs`
    HttpSd {
        url: Option<String>,
        refresh_interval: Option<Duration>,
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DnsSd {
    names: Vec<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    port: u16,
    refresh_interval: Option<Duration>,
}

with_http! {
    /// `consul_sd_configs`
    ConsulSd {
        server: Option<String>,
        path_prefix: String,
        token: Option<String>,
        datacenter: String,
        namespace: String,
        partition: String,
        tag_separator: Option<String>,
        scheme: Option<String>,
        username: String,
        password: String,
        allow_stale: Option<bool>,
        services: Vec<String>,
        tags: Vec<String>,
        node_meta: BTreeMap<String, String>,
        filter: String,
        health_filter: String,
        refresh_interval: Option<Duration>,
    }
}

with_http! {
    /// `kubernetes_sd_configs`
    KubernetesSd {
        role: Option<Spanned<String>>,
        api_server: Option<String>,
        kubeconfig_file: Option<PathBuf>,
        namespaces: Namespaces,
        selectors: Vec<Spanned<Selector>>,
        attach_metadata: Attach,
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Namespaces {
    names: Vec<String>,
    own_namespace: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Selector {
    role: String,
    label: String,
    field: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Attach {
    node: bool,
    namespace: bool,
    deployment: bool,
    job: bool,
    cronjob: bool,
}

/// The discoveries of one job.
pub(crate) struct Sections<'a> {
    pub(crate) file: &'a [Spanned<FileSd>],
    pub(crate) http: &'a [Spanned<HttpSd>],
    pub(crate) dns: &'a [Spanned<DnsSd>],
    pub(crate) consul: &'a [Spanned<ConsulSd>],
    pub(crate) kubernetes: &'a [Spanned<KubernetesSd>],
}

impl Sections<'_> {
    /// Checks all of them; paths are relative to `folder`.
    pub(crate) fn resolve(&self, folder: &Path) -> Result<Vec<Discovery>, Fault> {
        let mut out = Vec::new();
        for it in self.file {
            out.push(Discovery::File(file(&it.value, folder, it.referenced)?));
        }
        for it in self.http {
            out.push(Discovery::Http(Box::new(http(&it.value, folder, it.referenced)?)));
        }
        for it in self.dns {
            out.push(Discovery::Dns(dns(&it.value, it.referenced)?));
        }
        for it in self.consul {
            out.push(Discovery::Consul(Box::new(consul(&it.value, folder, it.referenced)?)));
        }
        for it in self.kubernetes {
            out.push(Discovery::Kubernetes(Box::new(kubernetes(&it.value, folder, it.referenced)?)));
        }
        Ok(out)
    }
}

fn milliseconds(duration: Option<Duration>, default: i64) -> i64 {
    duration.map(|duration| duration.0).filter(|ms| *ms > 0).unwrap_or(default)
}

fn file(sd: &FileSd, folder: &Path, at: Location) -> Result<FileDiscovery, Fault> {
    if sd.files.is_empty() {
        return fault(at, "file service discovery config must contain at least one path name");
    }
    for path in &sd.files {
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        let extension = name.rsplit_once('.').map(|(_, extension)| extension).unwrap_or_default();
        let is_known = ["json", "yml", "yaml", "JSON", "YML", "YAML"].contains(&extension);
        if !is_known || parents.contains('*') || name.matches('*').count() > 1 {
            return fault(at, format!("path name {path:?} is not valid for file discovery"));
        }
    }
    let files = sd.files.iter().map(|path| folder.join(path)).collect();
    Ok(FileDiscovery { files, refresh_ms: milliseconds(sd.refresh_interval, 300_000) })
}

/// Checks that a URL has a scheme and a host.
fn check_url(url: &str, at: Location) -> Result<(), Fault> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return fault(at, "URL scheme must be 'http' or 'https'");
    };
    if !matches!(scheme, "http" | "https") {
        return fault(at, "URL scheme must be 'http' or 'https'");
    }
    if rest.is_empty() || rest.starts_with(['/', '?', '#', ':']) {
        return fault(at, "host is missing in URL");
    }
    match url.parse::<::http::Uri>() {
        Ok(_) => Ok(()),
        Err(error) => fault(at, format!("{url:?} is not a URL: {error}")),
    }
}

fn http(sd: &HttpSd, folder: &Path, at: Location) -> Result<HttpDiscovery, Fault> {
    let Some(url) = sd.url.clone().filter(|url| !url.is_empty()) else { return fault(at, "URL is missing") };
    check_url(&url, at)?;
    let http = sd.http().options(folder, at)?;
    Ok(HttpDiscovery { url, refresh_ms: milliseconds(sd.refresh_interval, 60_000), http })
}

fn dns(sd: &DnsSd, at: Location) -> Result<DnsDiscovery, Fault> {
    if sd.names.is_empty() {
        return fault(at, "DNS-SD config must contain at least one SRV record name");
    }
    let record = match sd.kind.as_deref().unwrap_or("SRV").to_ascii_uppercase().as_str() {
        "SRV" => DnsRecord::Srv,
        "A" => DnsRecord::A,
        "AAAA" => DnsRecord::Aaaa,
        "MX" => DnsRecord::Mx,
        other => return fault(at, format!("invalid DNS-SD records type {other}")),
    };
    if record != DnsRecord::Srv && sd.port == 0 {
        return fault(at, "a port is required in DNS-SD configs for all record types except SRV");
    }
    Ok(DnsDiscovery {
        names: sd.names.clone(),
        record,
        port: sd.port,
        refresh_ms: milliseconds(sd.refresh_interval, 30_000),
        resolv_conf: PathBuf::from(RESOLV_CONF),
    })
}

fn consul(sd: &ConsulSd, folder: &Path, at: Location) -> Result<ConsulDiscovery, Fault> {
    let server = sd.server.as_deref().unwrap_or("localhost:8500").trim();
    if server.is_empty() {
        return fault(at, "consul SD configuration requires a server address");
    }
    let mut client = sd.http();
    if !sd.username.is_empty() || !sd.password.is_empty() {
        if client.basic_auth.is_some() {
            return fault(
                at,
                "at most one of consul SD configuration username and password and basic auth configured",
            );
        }
        client.set_basic_auth(&sd.username, &sd.password, at);
    }
    let has_auth = client.authorization.is_some() || client.oauth2.is_some() || client.basic_auth.is_some();
    if sd.token.as_ref().is_some_and(|token| !token.is_empty()) && has_auth {
        return fault(
            at,
            "at most one of consul SD token, authorization, basic_auth, or oauth2 can be configured",
        );
    }
    let mut http = client.options(folder, at)?;
    if let Some(token) = sd.token.clone().filter(|token| !token.is_empty()) {
        http.headers.push(("X-Consul-Token".to_owned(), Secret::Inline(token)));
    }
    let server = if server.contains("://") {
        server.to_owned()
    } else {
        format!("{}://{server}", sd.scheme.as_deref().unwrap_or("http"))
    };
    check_url(&server, at)?;
    let prefix = sd.path_prefix.trim_matches('/');
    let server = if prefix.is_empty() { server } else { format!("{server}/{prefix}") };
    let mut parameters = Vec::new();
    for (name, value) in [("dc", &sd.datacenter), ("ns", &sd.namespace), ("partition", &sd.partition)] {
        if !value.is_empty() {
            parameters.push((name.to_owned(), value.clone()));
        }
    }
    if sd.allow_stale.unwrap_or(true) {
        parameters.push(("stale".to_owned(), String::new()));
    }
    Ok(ConsulDiscovery {
        server,
        parameters,
        services: sd.services.clone(),
        tags: sd.tags.clone(),
        node_meta: sd.node_meta.clone().into_iter().collect(),
        filter: sd.filter.clone(),
        health_filter: sd.health_filter.clone(),
        tag_separator: sd.tag_separator.clone().unwrap_or_else(|| ",".to_owned()),
        refresh_ms: milliseconds(sd.refresh_interval, 30_000),
        http,
    })
}

fn role(name: &str) -> Option<KubernetesRole> {
    Some(match name {
        "node" => KubernetesRole::Node,
        "pod" => KubernetesRole::Pod,
        "service" => KubernetesRole::Service,
        "endpoints" => KubernetesRole::Endpoints,
        "endpointslice" => KubernetesRole::EndpointSlice,
        "ingress" => KubernetesRole::Ingress,
        _ => return None,
    })
}

fn kubernetes(sd: &KubernetesSd, folder: &Path, at: Location) -> Result<KubernetesDiscovery, Fault> {
    let Some(name) = sd.role.as_ref().filter(|role| !role.value.is_empty()) else {
        return fault(at, "role missing (one of: pod, service, endpoints, endpointslice, node, ingress)");
    };
    let Some(own_role) = role(&name.value) else {
        return fault(name.referenced, format!("unknown Kubernetes SD role {:?}", name.value));
    };
    let (client, api_server) = (sd.http(), sd.api_server.as_deref().filter(|url| !url.is_empty()));
    let kubeconfig = sd.kubeconfig_file.as_ref().filter(|path| !path.as_os_str().is_empty());
    // Its faults are said first, wherever it may stand.
    let options = client.options(folder, at)?;
    let conflict = match (kubeconfig, api_server) {
        (Some(_), Some(_)) => Some("cannot use 'kubeconfig_file' and 'api_server' simultaneously"),
        (Some(_), None) if !client.is_default() => {
            Some("cannot use a custom HTTP client configuration together with 'kubeconfig_file'")
        }
        (None, None) if !client.is_default() => {
            Some("to use custom HTTP client configuration please provide the 'api_server' URL explicitly")
        }
        (None, Some(_)) if sd.namespaces.own_namespace => {
            Some("cannot use 'api_server' and 'namespaces.own_namespace' simultaneously")
        }
        (Some(_), None) if sd.namespaces.own_namespace => {
            Some("cannot use 'kubeconfig_file' and 'namespaces.own_namespace' simultaneously")
        }
        _ => None,
    };
    if let Some(what) = conflict {
        return fault(at, what);
    }
    let attach = &sd.attach_metadata;
    Ok(KubernetesDiscovery {
        role: own_role,
        access: super::cluster::access(api_server, kubeconfig.map(|path| folder.join(path)))
            .map_err(|what| Fault { location: Some(at), what })?,
        namespaces: sd.namespaces.names.clone(),
        own_namespace: sd.namespaces.own_namespace,
        selectors: selectors(&sd.selectors, own_role, &name.value)?,
        attach: KubernetesAttach {
            node: attach.node,
            namespace: attach.namespace,
            deployment: attach.deployment,
            job: attach.job,
            cronjob: attach.cronjob,
        },
        http: api_server.map(|_| Box::new(options)),
    })
}

fn selectors(
    selectors: &[Spanned<Selector>],
    own: KubernetesRole,
    own_name: &str,
) -> Result<Vec<KubernetesSelector>, Fault> {
    use KubernetesRole as Role;
    let allowed: &[Role] = match own {
        Role::Pod => &[Role::Pod, Role::Node],
        Role::Endpoints => &[Role::Pod, Role::Service, Role::Endpoints],
        Role::EndpointSlice => &[Role::Pod, Role::Service, Role::EndpointSlice],
        Role::Node => &[Role::Node],
        Role::Service => &[Role::Service],
        Role::Ingress => &[Role::Ingress],
    };
    let mut out: Vec<KubernetesSelector> = Vec::new();
    for selector in selectors {
        let (it, at) = (&selector.value, selector.referenced);
        let Some(of) = role(&it.role) else {
            return fault(at, format!("invalid selector role: {:?}", it.role));
        };
        if out.iter().any(|known| known.role == of) {
            return fault(at, format!("duplicated selector role: {}", it.role));
        }
        if !allowed.contains(&of) {
            let names: Vec<&str> = ["pod", "service", "endpoints", "endpointslice", "node", "ingress"]
                .into_iter()
                .filter(|name| role(name).is_some_and(|role| allowed.contains(&role)))
                .collect();
            return fault(at, format!("{own_name} role supports only {} selectors", names.join(", ")));
        }
        let parts = it.field.split(',').filter(|part| !part.is_empty());
        if let Some(part) = parts.into_iter().find(|part| !part.contains('=')) {
            return fault(at, format!("invalid field selector: {part:?}"));
        }
        if let Err(error) = metrics_api::LabelSelector::parse(&it.label) {
            return fault(at, format!("invalid label selector {:?}: {error}", it.label));
        }
        out.push(KubernetesSelector { role: of, labels: it.label.clone(), fields: it.field.clone() });
    }
    Ok(out)
}
