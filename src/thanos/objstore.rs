//! `objstore.config`: which bucket, in the form that all of Thanos' components read.
//!
//! Source: Thanos' documentation, "storage", and `thanos-io/objstore`. Of its kinds FILESYSTEM and S3 are known. Settings
//! without an effect here are accepted as long as they ask for nothing that would be missed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use serde::de::IgnoredAny;
use thanos::ship::{BucketOptions, Encryption, Keys, Place, S3Options};

#[derive(Debug, Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<T> {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    config: T,
    #[serde(default)]
    prefix: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filesystem {
    directory: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct S3 {
    bucket: String,
    endpoint: String,
    region: String,
    aws_sdk_auth: bool,
    access_key: String,
    secret_key: String,
    session_token: String,
    insecure: bool,
    signature_version2: bool,
    put_user_metadata: BTreeMap<String, String>,
    http_config: Http,
    bucket_lookup_type: String,
    part_size: u64,
    sse_config: Sse,
    sts_endpoint: String,
    // Without an effect: how objects are listed and checked is the library's affair, and nothing is traced.
    #[serde(rename = "disable_dualstack")]
    _disable_dualstack: IgnoredAny,
    #[serde(rename = "list_objects_version")]
    _list_objects_version: IgnoredAny,
    #[serde(rename = "send_content_md5")]
    _send_content_md5: IgnoredAny,
    #[serde(rename = "disable_multipart")]
    _disable_multipart: IgnoredAny,
    #[serde(rename = "trace")]
    _trace: IgnoredAny,
    #[serde(rename = "max_retries")]
    _max_retries: IgnoredAny,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Http {
    insecure_skip_verify: bool,
    tls_config: Tls,
    // Of Go's client.
    #[serde(rename = "response_header_timeout")]
    _response_header_timeout: IgnoredAny,
    #[serde(rename = "idle_conn_timeout")]
    _idle_conn_timeout: IgnoredAny,
    #[serde(rename = "tls_handshake_timeout")]
    _tls_handshake_timeout: IgnoredAny,
    #[serde(rename = "expect_continue_timeout")]
    _expect_continue_timeout: IgnoredAny,
    #[serde(rename = "max_idle_conns")]
    _max_idle_conns: IgnoredAny,
    #[serde(rename = "max_idle_conns_per_host")]
    _max_idle_conns_per_host: IgnoredAny,
    #[serde(rename = "max_conns_per_host")]
    _max_conns_per_host: IgnoredAny,
    #[serde(rename = "disable_compression")]
    _disable_compression: IgnoredAny,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tls {
    ca_file: String,
    cert_file: String,
    key_file: String,
    server_name: String,
    insecure_skip_verify: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Sse {
    #[serde(rename = "type")]
    kind: String,
    kms_key_id: String,
    kms_encryption_context: BTreeMap<String, String>,
    encryption_key: String,
}

/// Reads a file. `environment`: where AWS' tools look for credentials.
pub(super) fn load(path: &Path, environment: Vec<(String, String)>) -> anyhow::Result<BucketOptions> {
    let text = std::fs::read_to_string(path);
    text.map_err(anyhow::Error::from)
        .and_then(|text| parse(&text, environment))
        .with_context(|| format!("--objstore.config-file={}", path.display()))
}

/// Reads a text.
pub(super) fn parse(text: &str, environment: Vec<(String, String)>) -> anyhow::Result<BucketOptions> {
    let Kind { kind } = read_loosely(text)?;
    match kind.to_ascii_uppercase().as_str() {
        "FILESYSTEM" => {
            let Document { config: Filesystem { directory }, prefix, .. } = read(text)?;
            anyhow::ensure!(!directory.is_empty(), "config.directory is missing");
            Ok(BucketOptions { place: Place::Directory(PathBuf::from(directory)), prefix })
        }
        "S3" => {
            let Document { config, prefix, .. } = read::<Document<S3>>(text)?;
            Ok(BucketOptions { place: Place::S3(Box::new(s3(config, environment)?)), prefix })
        }
        other => anyhow::bail!(
            "type {other:?} is not supported; FILESYSTEM and S3 are, and GCS, MinIO, Ceph and others speak S3's protocol"
        ),
    }
}

/// The message has no snippet: there are secrets in the text.
fn read<T: serde::de::DeserializeOwned>(text: &str) -> anyhow::Result<T> {
    serde_saphyr::from_str(text).map_err(|error| anyhow::anyhow!("{}", error.without_snippet()))
}

fn read_loosely(text: &str) -> anyhow::Result<Kind> {
    read(text)
}

fn s3(config: S3, environment: Vec<(String, String)>) -> anyhow::Result<S3Options> {
    let tls = &config.http_config.tls_config;
    let refused = [
        (config.signature_version2, "signature_version2: only version 4 is spoken"),
        (!config.put_user_metadata.is_empty(), "put_user_metadata"),
        (!config.sts_endpoint.is_empty(), "sts_endpoint"),
        (
            !tls.cert_file.is_empty() || !tls.key_file.is_empty(),
            "http_config.tls_config: client certificates",
        ),
        (!tls.server_name.is_empty(), "http_config.tls_config.server_name"),
        (!config.sse_config.kms_encryption_context.is_empty(), "sse_config.kms_encryption_context"),
        (!config.sse_config.encryption_key.is_empty(), "sse_config.encryption_key"),
    ];
    if let Some((_, what)) = refused.iter().find(|(given, _)| *given) {
        anyhow::bail!("config.{what}: not supported");
    }
    for (value, name) in [(&config.bucket, "bucket"), (&config.endpoint, "endpoint")] {
        anyhow::ensure!(!value.is_empty(), "config.{name} is missing");
    }
    anyhow::ensure!(
        !config.endpoint.contains("://"),
        "config.endpoint: a host, without a scheme; see config.insecure"
    );
    let pair = (config.access_key.is_empty(), config.secret_key.is_empty());
    let keys = match (pair, config.aws_sdk_auth) {
        ((false, false), false) => {
            Some(Keys { access: config.access_key, secret: config.secret_key, token: config.session_token })
        }
        ((true, true), _) => None,
        ((false, false), true) => {
            anyhow::bail!("config.aws_sdk_auth: not together with access_key and secret_key")
        }
        _ => anyhow::bail!("config.access_key and config.secret_key: only one of them is given"),
    };
    let virtual_hosted = match config.bucket_lookup_type.as_str() {
        "virtual-hosted" => true,
        "path" => false,
        "" | "auto" => config.endpoint.ends_with(".amazonaws.com"),
        other => {
            anyhow::bail!("config.bucket_lookup_type {other:?}: neither auto nor virtual-hosted nor path")
        }
    };
    let encryption = match config.sse_config.kind.as_str() {
        "" => Encryption::Default,
        "SSE-S3" => Encryption::S3,
        "SSE-KMS" if !config.sse_config.kms_key_id.is_empty() => {
            Encryption::Kms(config.sse_config.kms_key_id)
        }
        other => anyhow::bail!(
            "config.sse_config.type {other:?}: SSE-S3, or SSE-KMS with kms_key_id, is supported"
        ),
    };
    let ca = Some(&tls.ca_file).filter(|path| !path.is_empty());
    let ca = ca
        .map(|path| std::fs::read(path).with_context(|| format!("tls_config.ca_file {path}")))
        .transpose()?;
    Ok(S3Options {
        insecure_skip_verify: config.http_config.insecure_skip_verify || tls.insecure_skip_verify,
        part_bytes: usize::try_from(config.part_size).ok().filter(|bytes| *bytes > 0),
        bucket: config.bucket,
        endpoint: config.endpoint,
        region: config.region,
        environment: if keys.is_none() { environment } else { Vec::new() },
        keys,
        insecure: config.insecure,
        virtual_hosted,
        ca,
        encryption,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = "access_key: AK, secret_key: topsecret";

    fn s3_of(config: &str) -> anyhow::Result<S3Options> {
        let environment = vec![("AWS_REGION".to_owned(), "x".to_owned())];
        match parse(&format!("type: S3\nconfig: {{bucket: b, {config}}}\nprefix: p\n"), environment)? {
            BucketOptions { place: Place::S3(options), prefix } if prefix == "p" => Ok(*options),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_what_thanos_reads() {
        let options =
            s3_of(&format!("endpoint: 'minio:9000', insecure: true, {KEYS}, part_size: 0")).unwrap();
        assert_eq!(
            (options.endpoint.as_str(), options.insecure, options.virtual_hosted),
            ("minio:9000", true, false)
        );
        assert!(options.keys.is_some() && options.environment.is_empty() && options.part_bytes.is_none());
        assert!(!format!("{options:?}").contains("topsecret"));
        let options = s3_of(
            "endpoint: s3.eu-north-1.amazonaws.com, aws_sdk_auth: true, sse_config: {type: SSE-S3}, \
             http_config: {response_header_timeout: 2m, max_idle_conns: 100}, trace: {enable: false}",
        )
        .unwrap();
        assert!(options.keys.is_none() && options.virtual_hosted && options.environment.len() == 1);
        assert_eq!(options.encryption, Encryption::S3);
        let options = parse("type: FILESYSTEM\nconfig: {directory: /b}\n", Vec::new()).unwrap();
        assert!(matches!(options.place, Place::Directory(path) if path == Path::new("/b")));
    }

    #[test]
    fn refuses_what_it_cannot_do_and_tells_no_secret() {
        let cases = [
            ("endpoint: e, access_key: topsecret", "only one"),
            ("endpoint: 'https://e'", "without a scheme"),
            ("region: x", "config.endpoint is missing"),
            ("endpoint: e, signature_version2: true, secret_key: topsecret", "signature_version2"),
            ("endpoint: e, sse_config: {type: SSE-C}", "SSE-C"),
            ("endpoint: e, nonsense: 1, secret_key: topsecret", "nonsense"),
            ("endpoint: e, secret_key: [topsecret]", ""),
        ];
        for (config, expected) in cases {
            let error = s3_of(config).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("topsecret"), "{error}");
        }
        for (text, expected) in
            [("type: GCS\nconfig: {}\n", "GCS"), ("config: {}\n", "type"), ("type: [", "")]
        {
            let error = parse(text, Vec::new()).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
