//! Finds the Kubernetes cluster that this process belongs to or may talk to.
//!
//! This crate is *not* a general client: it carries what the metrics path needs of an API server, on
//! top of the `kube` crate. Today that is finding and reaching one; list and watch stores come next.
//! It reads neither the environment nor the clock: both come in through [`Environment`].
//!
//! ```
//! let nowhere = k8s::Environment::default();
//! assert!(k8s::find(k8s::Mode::Auto, &nowhere).unwrap().is_none());
//! assert!(k8s::find(k8s::Mode::InCluster, &nowhere).is_err());
//! ```
//!
//! The hard decision: finding access (files, instant) and reaching the server (network, seconds) are
//! two calls, so that start-up never waits for an API server that is not there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// By the service account of the pod this process runs in.
    ServiceAccount,
    /// By a context of a kubeconfig file.
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The context.
        context: String,
    },
}

/// A cluster that may be talked to.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    Ok(Access { origin: Origin::ServiceAccount, server: format!("https://{host}:{port}") })
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
    /// Asks the API server for its version, to see whether it can be reached: `v1.36.2`.
    ///
    /// # Errors
    /// It does not answer within `patience`, or refuses.
    pub async fn reach(&self, patience: Duration) -> Result<String, AccessError> {
        let unreachable = |what: String| AccessError::Unreachable { server: self.server.clone(), what };
        let config = match &self.origin {
            Origin::ServiceAccount => {
                kube::Config::incluster().map_err(|error| unreachable(error.to_string()))?
            }
            Origin::Kubeconfig { path, context } => {
                let file = Kubeconfig::read_from(path).map_err(|error| unreachable(error.to_string()))?;
                let options = KubeConfigOptions { context: Some(context.clone()), ..Default::default() };
                let config = kube::Config::from_custom_kubeconfig(file, &options).await;
                config.map_err(|error| unreachable(error.to_string()))?
            }
        };
        let client = kube::Client::try_from(config).map_err(|error| unreachable(error.to_string()))?;
        match tokio::time::timeout(patience, client.apiserver_version()).await {
            Ok(Ok(version)) => Ok(version.git_version),
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
            (Origin::ServiceAccount, "https://[fd00::1]:443")
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
