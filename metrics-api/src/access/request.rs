//! What a request wants, as the API server sees it.
//!
//! Source: the Kubernetes documentation on authorization, "Request attributes".

use axum::http::{Method, Uri};
use k8s::AccessRequest;

/// The value of a parameter of a query string, if it is plain.
fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match (byte, digit(ahead.next()), digit(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                bytes = ahead;
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What a request wants to do with what.
pub(crate) fn attributes(method: &Method, uri: &Uri) -> AccessRequest {
    let path = uri.path();
    let parts: Vec<String> = path.trim_matches('/').split('/').map(decoded).collect();
    let verb = match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    };
    let (group, version, rest) = match parts.as_slice() {
        [root, group, version, rest @ ..] if root == "apis" && !rest.is_empty() => {
            (group.as_str(), version, rest)
        }
        [root, version, rest @ ..] if root == "api" && !rest.is_empty() => ("", version, rest),
        _ => {
            let verb = if verb == "create" { "post".to_owned() } else { method.as_str().to_lowercase() };
            return AccessRequest::Path { path: path.to_owned(), verb };
        }
    };
    let (mut namespace, mut rest) = (String::new(), rest);
    if let [word, name, more @ ..] = rest
        && word == "namespaces"
    {
        namespace.clone_from(name);
        // What belongs to a namespace; else it is the namespace itself.
        if !more.is_empty() {
            rest = more;
        }
    }
    let part = |at: usize| rest.get(at).cloned().unwrap_or_default();
    let (resource, mut name, subresource) = (part(0), part(1), part(2));
    if name.is_empty()
        && let Some(field) = parameter(uri, "fieldSelector").map(decoded)
        && let Some(only) = field.strip_prefix("metadata.name=")
        && !only.contains([',', '='])
    {
        only.clone_into(&mut name);
    }
    let watches = matches!(parameter(uri, "watch"), Some("true" | "1"));
    let verb = match verb {
        "get" if watches => "watch",
        "get" if part(1).is_empty() => "list",
        "delete" if part(1).is_empty() => "deletecollection",
        verb => verb,
    };
    AccessRequest::Resource {
        group: group.to_owned(),
        version: version.clone(),
        resource,
        subresource,
        namespace,
        name,
        verb: verb.to_owned(),
    }
}

/// What a refusal says of the request.
pub(crate) fn described(request: &AccessRequest, user: &str) -> String {
    match request {
        AccessRequest::Path { path, verb } => format!("User {user:?} cannot {verb} path {path:?}"),
        AccessRequest::Resource { group, resource, subresource, namespace, verb, .. } => {
            let resource =
                if subresource.is_empty() { resource.clone() } else { format!("{resource}/{subresource}") };
            let place = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {namespace:?}")
            };
            format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, path: &str) -> String {
        let request = attributes(&method.parse().unwrap(), &path.parse().unwrap());
        match request {
            AccessRequest::Path { path, verb } => format!("{verb} {path}"),
            AccessRequest::Resource { group, version, resource, subresource, namespace, name, verb } => {
                format!("{verb} {group}/{version} {resource}/{subresource} {namespace:?} {name:?}")
            }
        }
    }

    #[test]
    fn as_the_api_server_sees_them() {
        let m = "/apis/metrics.k8s.io/v1beta1";
        for (method, path, expected) in [
            ("GET", "/apis".to_owned(), "get /apis"),
            ("GET", m.to_owned(), "get /apis/metrics.k8s.io/v1beta1"),
            ("POST", "/openapi/v2".to_owned(), "post /openapi/v2"),
            ("GET", format!("{m}/nodes"), "list metrics.k8s.io/v1beta1 nodes/ \"\" \"\""),
            ("GET", format!("{m}/nodes/a"), "get metrics.k8s.io/v1beta1 nodes/ \"\" \"a\""),
            ("GET", format!("{m}/nodes?watch=true"), "watch metrics.k8s.io/v1beta1 nodes/ \"\" \"\""),
            (
                "GET",
                format!("{m}/nodes?fieldSelector=metadata.name%3Da"),
                "list metrics.k8s.io/v1beta1 nodes/ \"\" \"a\"",
            ),
            (
                "DELETE",
                format!("{m}/namespaces/d/pods"),
                "deletecollection metrics.k8s.io/v1beta1 pods/ \"d\" \"\"",
            ),
            (
                "GET",
                "/apis/custom.metrics.k8s.io/v1beta2/namespaces/d/pods/%2A/m".to_owned(),
                "get custom.metrics.k8s.io/v1beta2 pods/m \"d\" \"*\"",
            ),
            (
                "GET",
                "/apis/custom.metrics.k8s.io/v1beta2/namespaces/d/metrics/m".to_owned(),
                "get custom.metrics.k8s.io/v1beta2 metrics/ \"d\" \"m\"",
            ),
            (
                "GET",
                "/apis/custom.metrics.k8s.io/v1beta2/namespaces/d".to_owned(),
                "get custom.metrics.k8s.io/v1beta2 namespaces/ \"d\" \"d\"",
            ),
            (
                "GET",
                "/apis/external.metrics.k8s.io/v1beta1/namespaces/d/m".to_owned(),
                "list external.metrics.k8s.io/v1beta1 m/ \"d\" \"\"",
            ),
        ] {
            assert_eq!(of(method, &path), expected, "{path}");
        }
    }
}
