//! How the API server of a cluster is reached, from what the configuration and the environment say.

use std::path::PathBuf;

use k8s::{Access, Origin};

/// What of the process' environment decides about access to a cluster.
pub(crate) fn environment() -> k8s::Environment {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let home = set("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    k8s::Environment {
        kubeconfig: set("KUBECONFIG").map(PathBuf::from).or(home),
        service: set("KUBERNETES_SERVICE_HOST").zip(set("KUBERNETES_SERVICE_PORT")),
        service_account_dir: PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount"),
    }
}

/// Access for a `kubernetes_sd_configs` entry. What the entry says is judged (outer error); that this process
/// is in no cluster, or a file is not there, shows when it is run (inner error).
pub(crate) fn access(
    api_server: Option<&str>,
    kubeconfig: Option<PathBuf>,
) -> Result<Result<Access, String>, String> {
    if let Some(path) = kubeconfig {
        return Ok(Access::of_kubeconfig(&path).map_err(|error| error.to_string()));
    }
    let Some(server) = api_server else {
        let found = k8s::find(k8s::Mode::InCluster, &environment());
        let found =
            found.and_then(|access| access.ok_or_else(|| k8s::AccessError::NotInCluster(String::new())));
        return Ok(found.map_err(|error| error.to_string()));
    };
    let parsed =
        server.parse::<http::Uri>().ok().filter(|uri| uri.scheme().is_some() && uri.authority().is_some());
    if parsed.is_none() {
        return Err(format!("api_server: {server:?} is not a URL"));
    }
    Ok(Ok(Access { origin: Origin::Given, server: server.trim_end_matches('/').to_owned() }))
}
