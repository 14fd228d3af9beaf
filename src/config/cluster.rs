//! How the API server of a cluster is reached, from what the configuration and the environment say.

use std::path::PathBuf;

use k8s::{Access, Credentials, Origin};
use scraper::config::{Auth, HttpOptions, Secret, TlsOptions};

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
    options: &HttpOptions,
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
    if options.proxy != scraper::config::Proxy::default() {
        return Err("kubernetes_sd_configs: proxies are not supported".to_owned());
    }
    let origin = match credentials(options)? {
        Ok(credentials) => Origin::Given(credentials),
        Err(error) => return Ok(Err(error)),
    };
    Ok(Ok(Access { origin, server: server.trim_end_matches('/').to_owned() }))
}

fn read(secret: &Secret) -> Result<Vec<u8>, String> {
    match secret {
        Secret::Inline(text) => Ok(text.clone().into_bytes()),
        Secret::File(path) => std::fs::read(path).map_err(|error| format!("{}: {error}", path.display())),
    }
}

fn text(secret: &Secret) -> Result<String, String> {
    let bytes = read(secret)?;
    String::from_utf8(bytes).map(|text| text.trim().to_owned()).map_err(|error| error.to_string())
}

fn credentials(options: &HttpOptions) -> Result<Result<Credentials, String>, String> {
    let TlsOptions { ca, cert, key, server_name, insecure_skip_verify, .. } = &options.tls;
    let mut out = Credentials {
        server_name: server_name.clone(),
        insecure_skip_verify: *insecure_skip_verify,
        ..Credentials::default()
    };
    match &options.auth {
        Auth::None => {}
        Auth::Basic { username, password } => match (text(username), text(password)) {
            (Ok(name), Ok(password)) => out.basic = Some((name, password)),
            (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
        },
        Auth::Authorization { kind, .. } if !kind.eq_ignore_ascii_case("bearer") => {
            return Err(format!("kubernetes_sd_configs: authorization of type {kind:?} is not supported"));
        }
        Auth::Authorization { credentials: Secret::Inline(token), .. } => out.token = Some(token.clone()),
        Auth::Authorization { credentials: Secret::File(path), .. } => out.token_file = Some(path.clone()),
        Auth::OAuth2(_) => return Err("kubernetes_sd_configs: oauth2 is not supported".to_owned()),
    }
    match ca {
        Some(Secret::File(path)) => out.ca_file = Some(path.clone()),
        Some(Secret::Inline(pem)) => out.ca_pem = Some(pem.clone().into_bytes()),
        None => {}
    }
    if let (Some(cert), Some(key)) = (cert, key) {
        match (read(cert), read(key)) {
            (Ok(cert), Ok(key)) => out.identity_pem = Some((cert, key)),
            (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
        }
    }
    Ok(Ok(out))
}
