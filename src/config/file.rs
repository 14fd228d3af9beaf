//! The file as it is written: every key of Prometheus' format, each either read or refused by name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::discovery::{ConsulSd, DnsSd, FileSd, HttpSd, KubernetesSd, Sections};
use super::http::{Authorization, BasicAuth, Header, HttpClient, OAuth2, Tls, http_client};
use super::remote_read::RemoteRead;
use super::remote_write::RemoteWrite;
use super::scalars::{Duration, NameScheme, Protocol, Scheme, Size};
use super::sigv4::SigV4;
use super::storage::{Otlp, Storage};

/// A section that Pyrometer knows but does not carry. Its content is not looked at.
pub(crate) type Unsupported = Option<Spanned<serde_json::Value>>;

/// Defines a struct all of whose keys are known but refused, with a list of them.
macro_rules! refused {
    // With the keys of an HTTP client besides.
    ($(#[$doc:meta])* $name:ident { $($keys:tt)* } plus http { $($fields:tt)* }) => {
        refused! {
            $(#[$doc])* $name { $($keys)* } plus {
                $($fields)*
                basic_auth: Option<Spanned<BasicAuth>>,
                authorization: Option<Spanned<Authorization>>,
                oauth2: Option<Spanned<OAuth2>>,
                bearer_token: Option<Spanned<String>>,
                bearer_token_file: Option<Spanned<PathBuf>>,
                tls_config: Tls,
                proxy_url: Option<Spanned<String>>,
                no_proxy: Option<Spanned<String>>,
                proxy_from_environment: Option<Spanned<bool>>,
                proxy_connect_header: Option<Spanned<BTreeMap<String, Vec<String>>>>,
                follow_redirects: Option<bool>,
                enable_http2: Option<bool>,
                http_headers: BTreeMap<String, Spanned<Header>>,
            }
        }

        impl $name {
            /// The keys that say how servers are reached.
            pub(crate) fn http(&self) -> HttpClient {
                http_client!(self)
            }
        }
    };
    ($(#[$doc:meta])* $name:ident { $($key:ident),* $(,)? } plus { $($(#[$attr:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct $name {
            $($key: Unsupported,)*
            $($(#[$attr])* pub(crate) $field: $type,)*
        }

        impl $name {
            /// The refused keys that are there, with their values.
            pub(crate) fn refused(&self) -> impl Iterator<Item = (&'static str, &Spanned<serde_json::Value>)> {
                let keys: [(&'static str, Option<&Spanned<serde_json::Value>>); _] =
                    [$((stringify!($key), self.$key.as_ref()),)*];
                keys.into_iter()
                    .filter_map(|(key, value)| Some((key, value?)))
                    .filter(|(_, value)| !is_empty(&value.value))
            }
        }
    };
}

fn is_empty(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => true,
        serde_json::Value::Array(items) => items.is_empty(),
        serde_json::Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

refused! {
    /// The whole file.
    File {
        tracing,
    } plus {
        scrape_config_files: Vec<Spanned<String>>,
        rule_files: Vec<Spanned<String>>,
        alerting: Option<Alerting>,
        remote_write: Vec<Option<Spanned<RemoteWrite>>>,
        remote_read: Vec<Option<Spanned<RemoteRead>>>,
        storage: Option<Storage>,
        otlp: Option<Otlp>,
        global: Option<Global>,
        scrape_configs: Option<Vec<Option<Spanned<Scrape>>>>,
        /// Settings of another runtime; they mean nothing here.
        runtime: Option<serde_json::Value>,
    }
}

refused! {
    /// `global`
    Global {} plus {
        query_log_file: Option<PathBuf>,
        scrape_failure_log_file: Option<PathBuf>,
        scrape_interval: Option<Duration>,
        scrape_timeout: Option<Spanned<Duration>>,
        evaluation_interval: Option<Duration>,
        rule_query_offset: Option<Duration>,
        external_labels: BTreeMap<String, String>,
        scrape_protocols: Option<Vec<Spanned<Protocol>>>,
        body_size_limit: Size,
        sample_limit: u64,
        target_limit: u64,
        label_limit: u64,
        label_name_length_limit: u64,
        label_value_length_limit: u64,
        keep_dropped_targets: u64,
        metric_name_validation_scheme: Option<NameScheme>,
        metric_name_escaping_scheme: Option<Spanned<String>>,
        scrape_native_histograms: Option<bool>,
        convert_classic_histograms_to_nhcb: Option<bool>,
        always_scrape_classic_histograms: Option<bool>,
        extra_scrape_metrics: Option<bool>,
    }
}

refused! {
    /// One of `scrape_configs`
    Scrape {
        azure_sd_configs, digitalocean_sd_configs, docker_sd_configs,
        dockerswarm_sd_configs, ec2_sd_configs, eureka_sd_configs, gce_sd_configs,
        hetzner_sd_configs, ionos_sd_configs, kuma_sd_configs,
        lightsail_sd_configs, linode_sd_configs, marathon_sd_configs, nerve_sd_configs, nomad_sd_configs,
        oci_sd_configs, openstack_sd_configs, outscale_sd_configs, ovhcloud_sd_configs, puppetdb_sd_configs,
        scaleway_sd_configs, serverset_sd_configs, stackit_sd_configs, triton_sd_configs, uyuni_sd_configs,
        vultr_sd_configs,
    } plus http {
        job_name: String,
        scrape_interval: Option<Duration>,
        scrape_timeout: Option<Spanned<Duration>>,
        scrape_protocols: Option<Vec<Spanned<Protocol>>>,
        fallback_scrape_protocol: Option<Protocol>,
        body_size_limit: Option<Size>,
        sample_limit: Option<u64>,
        target_limit: Option<u64>,
        label_limit: Option<u64>,
        label_name_length_limit: Option<u64>,
        label_value_length_limit: Option<u64>,
        keep_dropped_targets: Option<u64>,
        native_histogram_bucket_limit: Option<u64>,
        native_histogram_min_bucket_factor: Option<Spanned<f64>>,
        /// Ours: beyond `sample_limit` only new series are refused.
        sample_limit_keeps_known: bool,
        metric_name_validation_scheme: Option<NameScheme>,
        metric_name_escaping_scheme: Option<Spanned<String>>,
        scrape_native_histograms: Option<bool>,
        convert_classic_histograms_to_nhcb: Option<bool>,
        always_scrape_classic_histograms: Option<bool>,
        extra_scrape_metrics: Option<bool>,
        honor_labels: bool,
        honor_timestamps: Option<bool>,
        track_timestamps_staleness: bool,
        params: BTreeMap<String, Vec<String>>,
        metrics_path: Option<String>,
        scheme: Option<Scheme>,
        enable_compression: Option<bool>,
        relabel_configs: Vec<Option<Spanned<Relabel>>>,
        metric_relabel_configs: Vec<Option<Spanned<Relabel>>>,
        static_configs: Vec<StaticConfig>,
        file_sd_configs: Vec<Spanned<FileSd>>,
        http_sd_configs: Vec<Spanned<HttpSd>>,
        dns_sd_configs: Vec<Spanned<DnsSd>>,
        consul_sd_configs: Vec<Spanned<ConsulSd>>,
        kubernetes_sd_configs: Vec<Spanned<KubernetesSd>>,
        scrape_failure_log_file: Option<PathBuf>,
    }
}

/// A file of `scrape_config_files`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ScrapeFile {
    pub(crate) scrape_configs: Vec<Option<Spanned<Scrape>>>,
}

/// `alerting`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Alerting {
    pub(crate) alert_relabel_configs: Vec<Option<Spanned<Relabel>>>,
    pub(crate) alertmanagers: Vec<Spanned<Alertmanager>>,
}

refused! {
    /// One of `alerting.alertmanagers`
    Alertmanager {
        azure_sd_configs, digitalocean_sd_configs, docker_sd_configs, dockerswarm_sd_configs, ec2_sd_configs,
        eureka_sd_configs, gce_sd_configs, hetzner_sd_configs, ionos_sd_configs, kuma_sd_configs,
        lightsail_sd_configs, linode_sd_configs, marathon_sd_configs, nerve_sd_configs, nomad_sd_configs,
        oci_sd_configs, openstack_sd_configs, outscale_sd_configs, ovhcloud_sd_configs, puppetdb_sd_configs,
        scaleway_sd_configs, serverset_sd_configs, stackit_sd_configs, triton_sd_configs, uyuni_sd_configs,
        vultr_sd_configs,
    } plus http {
        sigv4: Option<Spanned<SigV4>>,
        timeout: Option<Duration>,
        relabel_configs: Vec<Option<Spanned<Relabel>>>,
        alert_relabel_configs: Vec<Option<Spanned<Relabel>>>,
        scheme: Option<Scheme>,
        path_prefix: String,
        api_version: Option<Spanned<String>>,
        static_configs: Vec<StaticConfig>,
        file_sd_configs: Vec<Spanned<FileSd>>,
        http_sd_configs: Vec<Spanned<HttpSd>>,
        dns_sd_configs: Vec<Spanned<DnsSd>>,
        consul_sd_configs: Vec<Spanned<ConsulSd>>,
        kubernetes_sd_configs: Vec<Spanned<KubernetesSd>>,
    }
}

/// A section with discoveries: those that are carried.
macro_rules! discoveries {
    ($($name:ident),*) => {$(
        impl $name {
            /// The discoveries that are carried.
            pub(crate) fn discoveries(&self) -> Sections<'_> {
                Sections {
                    file: &self.file_sd_configs,
                    http: &self.http_sd_configs,
                    dns: &self.dns_sd_configs,
                    consul: &self.consul_sd_configs,
                    kubernetes: &self.kubernetes_sd_configs,
                }
            }
        }
    )*};
}
discoveries!(Scrape, Alertmanager);

/// One of `static_configs`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StaticConfig {
    pub(crate) targets: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// One of `relabel_configs`; what is absent takes its default where it is used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Relabel {
    pub(crate) source_labels: Vec<String>,
    pub(crate) separator: Option<String>,
    pub(crate) regex: Option<String>,
    pub(crate) modulus: Option<u64>,
    pub(crate) target_label: Option<String>,
    pub(crate) replacement: Option<String>,
    pub(crate) action: Option<String>,
}
