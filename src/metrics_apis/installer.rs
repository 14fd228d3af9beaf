//! `pyrometer install-ca-bundle`: has the API server verify who answers for the metrics APIs.
//!
//! A job of the installation runs it, and a cron job again. It keeps a certificate in a secret, which the servers mount, and
//! writes what verifies it into `caBundle` of the APIServices. A new certificate is verifiable before it is used: first the
//! bundle gets it, beside the one before, then the secret. Whoever else changes those objects meanwhile is not written over.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use k8s::Client;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::certificate::Made;

/// So often an object is read anew that somebody else has changed.
const ATTEMPTS: u32 = 8;
const DAY_MS: i64 = 86_400_000;
/// When a certificate made here ends, in milliseconds since the epoch, and what it was made for. A secret without them was
/// made by somebody else, who renews it.
const NOT_AFTER: &str = "pyrometer/not-after-ms";
const NAMES: &str = "pyrometer/names";

/// Have the API server verify the certificate of the metrics APIs: write its authority into `caBundle` of APIServices.
#[derive(Clone, Debug, Args)]
pub(crate) struct InstallCaBundle {
    /// The secret, NAMESPACE/NAME, with tls.crt, tls.key and ca.crt. It is made if it is not there, and renewed if it was
    /// made here.
    #[arg(long, value_name = "SECRET", required_unless_present = "ca_file", conflicts_with = "ca_file")]
    secret: Option<String>,
    /// What the certificate is made for: pyrometer.NAMESPACE.svc. May be given several times.
    #[arg(long = "name", value_name = "NAME", required_unless_present = "ca_file")]
    names: Vec<String>,
    /// Days that a new certificate is good for.
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(i64).range(1..=3650))]
    days: i64,
    /// Days before its end at which a certificate is replaced.
    #[arg(long, value_name = "DAYS", default_value_t = 60, value_parser = clap::value_parser!(i64).range(0..=3650))]
    renew_before: i64,
    /// An authority that somebody else keeps, as PEM: nothing is made.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The APIServices: v1beta1.metrics.k8s.io.
    #[arg(required = true, value_name = "APISERVICE")]
    services: Vec<String>,
}

/// Installs, and says what has changed.
pub(crate) fn run(options: &InstallCaBundle) -> anyhow::Result<()> {
    let access = k8s::find(k8s::Mode::Auto, &crate::config::cluster::environment())?;
    let access = access.context("there is no cluster: neither a kubeconfig nor a service account")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let client = access.connect().await?;
        install(&client, options).await
    })
}

async fn install(client: &Client, options: &InstallCaBundle) -> anyhow::Result<()> {
    if let Some(path) = &options.ca_file {
        let pem = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        check(&pem, path)?;
        return write_bundles(client, &options.services, &pem).await;
    }
    let secret = Secret::of(options)?;
    for _ in 0..ATTEMPTS {
        let known = secret.read(client).await?;
        if let Some(bundle) = secret.bundle_in_force(known.as_ref(), options, crate::wire::now())? {
            println!("{}: it is good", secret.at);
            return write_bundles(client, &options.services, &bundle).await;
        }
        let made = Made::new(&options.names, options.days)?;
        let before = known.as_ref().and_then(|known| text(known, "tls.crt"));
        let bundle = made.certificate.pem() + &before.unwrap_or_default();
        write_bundles(client, &options.services, &bundle).await?;
        if secret.write(client, known, (&made, &bundle), options).await? {
            println!("{}: a new certificate, good for {} days", secret.at, options.days);
            return Ok(());
        }
    }
    anyhow::bail!("{}: somebody else keeps changing it", secret.at)
}

fn check(pem: &str, path: &Path) -> anyhow::Result<()> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.with_context(|| path.display().to_string())?;
    anyhow::ensure!(!all.is_empty(), "{}: there is no certificate in it", path.display());
    Ok(())
}

/// A text of a secret.
fn text(secret: &Value, key: &str) -> Option<String> {
    let bytes = BASE64.decode(secret["data"][key].as_str()?).ok()?;
    String::from_utf8(bytes).ok()
}

struct Secret<'a> {
    at: &'a str,
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Secret<'a> {
    fn of(options: &'a InstallCaBundle) -> anyhow::Result<Self> {
        let at = options.secret.as_deref().unwrap_or_default();
        let parts = at.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
        let (namespace, name) = parts.with_context(|| format!("--secret={at}: not NAMESPACE/NAME"))?;
        Ok(Self { at, namespace, name })
    }

    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets", self.namespace)
    }

    async fn read(&self, client: &Client) -> anyhow::Result<Option<Value>> {
        match client.get(&format!("{}/{}", self.path(), self.name)).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error).with_context(|| format!("secret {}", self.at)),
        }
    }

    /// What verifies the certificate in the secret, if it stays.
    fn bundle_in_force(
        &self,
        known: Option<&Value>,
        options: &InstallCaBundle,
        now: i64,
    ) -> anyhow::Result<Option<String>> {
        let Some(known) = known else { return Ok(None) };
        let annotation = |name: &str| known["metadata"]["annotations"][name].as_str();
        let Some(not_after) = annotation(NOT_AFTER) else {
            let authority = text(known, "ca.crt").filter(|pem| !pem.is_empty());
            let at = self.at;
            let authority = authority.with_context(|| {
                format!("secret {at} was not made here, and has no ca.crt: give the authority with --ca-file")
            })?;
            return Ok(Some(authority));
        };
        let left = not_after.parse::<i64>().unwrap_or_default().saturating_sub(now);
        let stays = left > options.renew_before * DAY_MS
            && annotation(NAMES) == Some(options.names.join(",").as_str());
        Ok(text(known, "ca.crt").filter(|_| stays))
    }

    /// Writes over what was read; false if somebody else has written meanwhile.
    async fn write(
        &self,
        client: &Client,
        known: Option<Value>,
        (made, bundle): (&Made, &str),
        options: &InstallCaBundle,
    ) -> anyhow::Result<bool> {
        let is_new = known.is_none();
        let mut object = known.unwrap_or_else(|| {
            let metadata = json!({"namespace": self.namespace, "name": self.name});
            json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata})
        });
        let not_after = crate::wire::now().saturating_add((options.days - 1) * DAY_MS);
        object["metadata"]["annotations"][NOT_AFTER] = json!(not_after.to_string());
        object["metadata"]["annotations"][NAMES] = json!(options.names.join(","));
        let data = [
            ("tls.crt", made.certificate.pem()),
            ("tls.key", made.key.serialize_pem()),
            ("ca.crt", bundle.to_owned()),
        ];
        for (name, text) in data {
            object["data"][name] = json!(BASE64.encode(text));
        }
        let written: Result<Value, _> = if is_new {
            client.post(&self.path(), &object).await
        } else {
            client.put(&format!("{}/{}", self.path(), self.name), &object).await
        };
        match written {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error).with_context(|| format!("secret {}", self.at)),
        }
    }
}

async fn write_bundles(client: &Client, services: &[String], bundle: &str) -> anyhow::Result<()> {
    let bundle = BASE64.encode(bundle);
    for service in services {
        let changed = write_bundle(client, service, &bundle).await?;
        println!("{service}: {}", if changed { "caBundle is written" } else { "caBundle is right already" });
    }
    Ok(())
}

/// Says whether there was anything to change.
async fn write_bundle(client: &Client, service: &str, bundle: &str) -> anyhow::Result<bool> {
    let path = format!("/apis/apiregistration.k8s.io/v1/apiservices/{service}");
    for _ in 0..ATTEMPTS {
        let read: Result<Value, _> = client.get(&path).await;
        let mut object = read.with_context(|| format!("APIService {service}"))?;
        let spec = object["spec"].as_object_mut();
        let spec = spec.with_context(|| format!("APIService {service}: the object has no spec"))?;
        // The two exclude each other.
        let trusted = spec.remove("insecureSkipTLSVerify").is_some_and(|value| value == true);
        let before = spec.insert("caBundle".to_owned(), json!(bundle));
        if !trusted && before.is_some_and(|before| before == bundle) {
            return Ok(false);
        }
        let written: Result<Value, _> = client.put(&path, &object).await;
        match written {
            Ok(_) => return Ok(true),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error).with_context(|| format!("APIService {service}")),
        }
    }
    anyhow::bail!("APIService {service}: somebody else keeps changing it")
}
