//! Finding access to a cluster: which one, and with which credentials.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::client::Client;

/// Which cluster to look for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A service account if there is one, else a kubeconfig, else none.
    #[default]
    Auto,
    /// None, even if there is one.
    Off,
    /// The cluster this process runs in.
    InCluster,
    /// The current context of a kubeconfig file.
    Kubeconfig,
}

/// What of the process' environment decides about access.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `KUBECONFIG`, or the default path in the home directory.
    pub kubeconfig: Option<PathBuf>,
    /// `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`.
    pub service: Option<(String, String)>,
    /// Where the service account's token lies.
    pub service_account_dir: PathBuf,
}

/// How a cluster was found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// By the service account of the pod this process runs in.
    ServiceAccount {
        /// Where its token, certificate authority and namespace lie.
        dir: PathBuf,
    },
    /// By a context of a kubeconfig file.
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The context.
        context: String,
    },
    /// By its URL alone: without credentials, or with those of whoever carries the requests ([`Client::over`]).
    Given,
}

/// A cluster that may be talked to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// How it was found.
    pub origin: Origin,
    /// The API server's URL.
    pub server: String,
}

/// Why there is no access.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// `--kubernetes=in-cluster` outside of one.
    #[error("not in a cluster: {0}")]
    NotInCluster(String),
    /// `--kubernetes=kubeconfig` without a file.
    #[error("no kubeconfig: {0}")]
    NoKubeconfig(String),
    /// The kubeconfig is broken.
    #[error("{}: {what}", path.display())]
    BadKubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The API server does not answer.
    #[error("{server}: {what}")]
    Unreachable {
        /// The API server's URL.
        server: String,
        /// Why.
        what: String,
    },
}

/// Looks for a cluster without talking to it.
///
/// # Errors
/// What `mode` demands is not there, or a kubeconfig cannot be read.
pub fn find(mode: Mode, environment: &Environment) -> Result<Option<Access>, AccessError> {
    match mode {
        Mode::Off => Ok(None),
        Mode::InCluster => service_account(environment).map(Some),
        Mode::Kubeconfig => match &environment.kubeconfig {
            Some(path) => kubeconfig(path).map(Some),
            None => {
                Err(AccessError::NoKubeconfig("KUBECONFIG is not set and there is no home directory".into()))
            }
        },
        Mode::Auto => match (service_account(environment), &environment.kubeconfig) {
            (Ok(access), _) => Ok(Some(access)),
            (Err(_), Some(path)) if path.exists() => kubeconfig(path).map(Some),
            _ => Ok(None),
        },
    }
}

fn service_account(environment: &Environment) -> Result<Access, AccessError> {
    let Some((host, port)) = &environment.service else {
        let what = "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set";
        return Err(AccessError::NotInCluster(what.to_owned()));
    };
    let token = environment.service_account_dir.join("token");
    std::fs::metadata(&token)
        .map_err(|error| AccessError::NotInCluster(format!("{}: {error}", token.display())))?;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let origin = Origin::ServiceAccount { dir: environment.service_account_dir.clone() };
    Ok(Access { origin, server: format!("https://{host}:{port}") })
}

fn kubeconfig(path: &Path) -> Result<Access, AccessError> {
    let bad = |what: String| AccessError::BadKubeconfig { path: path.to_owned(), what };
    let file = Kubeconfig::read_from(path).map_err(|error| match error {
        kube::config::KubeconfigError::ReadConfig(source, _) => bad(source.to_string()),
        other => bad(other.to_string()),
    })?;
    let context = file.current_context.clone().ok_or_else(|| bad("no current-context".to_owned()))?;
    let named = file.contexts.iter().find(|named| named.name == context);
    let named = named.ok_or_else(|| bad(format!("there is no context {context:?}")))?;
    let cluster = named.context.as_ref().map(|context| context.cluster.clone()).unwrap_or_default();
    let server = file
        .clusters
        .iter()
        .find(|named| named.name == cluster)
        .and_then(|named| named.cluster.as_ref()?.server.clone())
        .ok_or_else(|| bad(format!("cluster {cluster:?} has no server")))?;
    Ok(Access { origin: Origin::Kubeconfig { path: path.to_owned(), context }, server })
}

impl Access {
    /// Access with a kubeconfig file and its current context.
    ///
    /// # Errors
    /// The file cannot be read or names no server.
    pub fn of_kubeconfig(path: &Path) -> Result<Self, AccessError> {
        kubeconfig(path)
    }

    /// Reads the credentials. The server is not talked to yet.
    ///
    /// # Errors
    /// A file cannot be read, or a certificate or address cannot be used.
    pub async fn connect(&self) -> Result<Client, AccessError> {
        let unusable = |what: String| AccessError::Unreachable { server: self.server.clone(), what };
        let config = self.config().await.map_err(unusable)?;
        Client::new(config, self.namespace()).map_err(|error| unusable(error.to_string()))
    }

    async fn config(&self) -> Result<kube::Config, String> {
        let uri: http::Uri = self.server.parse().map_err(|error| format!("{error}"))?;
        let mut config = kube::Config::new(uri);
        match &self.origin {
            Origin::ServiceAccount { dir } => {
                config.root_cert_file = Some(dir.join("ca.crt"));
                config.auth_info.token_file = Some(dir.join("token").display().to_string());
            }
            Origin::Kubeconfig { path, context } => {
                let file = Kubeconfig::read_from(path).map_err(|error| error.to_string())?;
                let options = KubeConfigOptions { context: Some(context.clone()), ..Default::default() };
                let made = kube::Config::from_custom_kubeconfig(file, &options).await;
                config = made.map_err(|error| error.to_string())?;
            }
            Origin::Given => {}
        }
        // Lists and watches are retried by those who ask; nobody waits behind a hidden loop.
        config.default_retry = false;
        Ok(config)
    }

    /// The namespace this process runs in, if that is known.
    fn namespace(&self) -> Option<String> {
        let Origin::ServiceAccount { dir } = &self.origin else { return None };
        let text = std::fs::read_to_string(dir.join("namespace")).ok()?;
        Some(text.trim().to_owned()).filter(|name| !name.is_empty())
    }

    /// Asks the API server for its version, to see whether it can be reached: `v1.36.2`.
    ///
    /// # Errors
    /// It does not answer within `patience`, or refuses.
    pub async fn reach(&self, patience: Duration) -> Result<String, AccessError> {
        let unreachable = |what: String| AccessError::Unreachable { server: self.server.clone(), what };
        let client = self.connect().await?;
        match tokio::time::timeout(patience, client.version()).await {
            Ok(Ok(version)) => Ok(version),
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(unreachable(format!("no answer within {} ms", patience.as_millis()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(kubeconfig: &str) -> (tempfile::TempDir, Environment) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, kubeconfig).unwrap();
        (dir, Environment { kubeconfig: Some(path), ..Environment::default() })
    }

    const GOOD: &str = "apiVersion: v1\nkind: Config\ncurrent-context: dev\ncontexts:\n- name: dev\n  context: {cluster: c, user: u}\nclusters:\n- name: c\n  cluster: {server: 'http://127.0.0.1:1'}\nusers:\n- name: u\n  user: {}\n";

    #[test]
    fn finds_the_current_context() {
        let (_dir, environment) = environment(GOOD);
        let access = find(Mode::Auto, &environment).unwrap().unwrap();
        assert_eq!(access.server, "http://127.0.0.1:1");
        assert!(matches!(access.origin, Origin::Kubeconfig { context, .. } if context == "dev"));
        assert!(find(Mode::Off, &environment).unwrap().is_none());
    }

    #[test]
    fn a_broken_kubeconfig_is_named() {
        let (dir, environment) = environment("contexts: [");
        let message = find(Mode::Auto, &environment).unwrap_err().to_string();
        assert!(message.contains(&dir.path().join("config").display().to_string()), "{message}");
        let (_dir, environment) =
            self::environment(&GOOD.replace("current-context: dev", "current-context: nope"));
        assert!(find(Mode::Kubeconfig, &environment).unwrap_err().to_string().contains("\"nope\""));
    }

    #[test]
    fn a_service_account_wins_over_a_kubeconfig() {
        let (dir, mut environment) = environment(GOOD);
        std::fs::write(dir.path().join("token"), "t").unwrap();
        environment.service = Some(("fd00::1".into(), "443".into()));
        environment.service_account_dir = dir.path().to_owned();
        let access = find(Mode::Auto, &environment).unwrap().unwrap();
        assert_eq!(
            (access.origin, access.server.as_str()),
            (Origin::ServiceAccount { dir: dir.path().to_owned() }, "https://[fd00::1]:443")
        );
    }

    #[tokio::test]
    async fn an_unreachable_server_is_named() {
        let (_dir, environment) = environment(GOOD);
        let access = find(Mode::Auto, &environment).unwrap().unwrap();
        let error = access.reach(Duration::from_secs(5)).await.unwrap_err().to_string();
        assert!(error.starts_with("http://127.0.0.1:1: "), "{error}");
    }
}
