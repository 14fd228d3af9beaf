//! Which representation a client asked for.

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, USER_AGENT};

use crate::errors::ApiError;

/// The media type of Kubernetes' protobuf envelope.
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// What an answer is shaped as; JSON but for two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Object,
    Yaml,
    Protobuf,
    /// With the API version of the table the client knows.
    Table(&'static str),
    PartialObjectMetadata,
}

/// One element of an Accept header.
struct MediaType<'a> {
    name: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl MediaType<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v)
    }

    fn is_json(&self) -> bool {
        matches!(self.name, "application/json" | "application/*" | "*/*")
    }
}

fn media_types(headers: &HeaderMap) -> impl Iterator<Item = MediaType<'_>> {
    let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter(|element| !element.trim().is_empty()).map(|element| {
        let mut parts = element.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let parameters = parts.filter_map(|part| part.split_once('=')).collect();
        MediaType { name, parameters }
    })
}

/// The first shape in the header's order that can be served.
pub(crate) fn shape(headers: &HeaderMap) -> Result<Shape, ApiError> {
    let mut asked = false;
    for media_type in media_types(headers) {
        asked = true;
        if media_type.name == PROTOBUF && media_type.parameters.is_empty() {
            return Ok(Shape::Protobuf);
        }
        if matches!(media_type.name, "application/yaml" | "application/x-yaml") {
            return Ok(Shape::Yaml);
        }
        if !media_type.is_json() {
            continue;
        }
        let group = media_type.parameter("g");
        let meta = group == Some("meta.k8s.io");
        return Ok(match (media_type.parameter("as"), media_type.parameter("v")) {
            (None, _) => Shape::Object,
            (Some("Table"), Some("v1")) if meta => Shape::Table("meta.k8s.io/v1"),
            (Some("Table"), Some("v1beta1")) if meta => Shape::Table("meta.k8s.io/v1beta1"),
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("v1")) if meta => {
                Shape::PartialObjectMetadata
            }
            _ => continue,
        });
    }
    if asked { Err(ApiError::not_acceptable()) } else { Ok(Shape::Object) }
}

/// Core objects are shown as JSON only.
pub(crate) fn core(headers: &HeaderMap) -> Result<(), ApiError> {
    let (mut asked, mut json) = (false, false);
    for media_type in media_types(headers) {
        asked = true;
        json |= media_type.is_json();
    }
    if json || !asked { Ok(()) } else { Err(ApiError::not_acceptable()) }
}

/// The version of the aggregated discovery document, exactly as asked for, or none for the legacy
/// list. Clients of 1.27 to 1.29 ask for `v2beta1` alone and take nothing else.
pub(crate) fn discovery(headers: &HeaderMap) -> Result<Option<&'static str>, ApiError> {
    let mut asked = false;
    for media_type in media_types(headers) {
        asked = true;
        if !media_type.is_json() {
            continue;
        }
        match (media_type.parameter("as"), media_type.parameter("g"), media_type.parameter("v")) {
            (None, _, _) => return Ok(None),
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => {
                return Ok(Some("v2"));
            }
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => {
                return Ok(Some("v2beta1"));
            }
            _ => {}
        }
    }
    if asked { Err(ApiError::not_acceptable()) } else { Ok(None) }
}

/// Whether a person is reading: browsers and curl get indented JSON, as from an API server.
pub(crate) fn wants_pretty(headers: &HeaderMap, parameter: Option<&str>) -> bool {
    if let Some(parameter) = parameter {
        return !matches!(parameter, "0" | "false");
    }
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|human| agent.starts_with(human))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, value.parse().unwrap());
        headers
    }

    #[test]
    fn shapes_by_order() {
        let of = |value| shape(&accept(value));
        assert_eq!(of("application/vnd.kubernetes.protobuf, */*"), Ok(Shape::Protobuf));
        assert_eq!(of("application/json,application/vnd.kubernetes.protobuf"), Ok(Shape::Object));
        assert_eq!(
            of("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io, */*"),
            Ok(Shape::Object)
        );
        assert_eq!(
            of(
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
            ),
            Ok(Shape::Table("meta.k8s.io/v1"))
        );
        assert_eq!(
            of("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
            Ok(Shape::PartialObjectMetadata)
        );
        assert_eq!(of("application/json;as=Table;v=v9;g=meta.k8s.io, application/json"), Ok(Shape::Object));
        assert_eq!(of("application/yaml"), Ok(Shape::Yaml));
        assert!(of("text/html").is_err());
        assert!(of("application/cbor").is_err());
        assert_eq!(shape(&HeaderMap::new()), Ok(Shape::Object));
    }

    #[test]
    fn discovery_matches_the_exact_version() {
        let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let v2beta1 =
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(discovery(&accept(v2)), Ok(Some("v2")));
        assert_eq!(discovery(&accept(v2beta1)), Ok(Some("v2beta1")));
        assert_eq!(discovery(&accept("application/json")), Ok(None));
        assert_eq!(discovery(&accept("*/*")), Ok(None));
        let v3 = "application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList";
        assert!(discovery(&accept(v3)).is_err());
    }
}
