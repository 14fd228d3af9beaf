//! The section `sigv4`: requests that are signed as AWS wants it.
//!
//! Source: Prometheus' documentation, "configuration", and AWS' "Shared config and credentials files".

use std::path::PathBuf;

use scraper::config::Secret;
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::resolve::{Fault, fault};

/// Amazon's service for Prometheus.
const SERVICE: &str = "aps";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SigV4 {
    region: String,
    access_key: String,
    secret_key: String,
    profile: String,
    role_arn: String,
    external_id: String,
    use_fips_sts_endpoint: bool,
    service_name: String,
}

/// How requests are signed, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SigV4Options {
    pub(crate) region: String,
    pub(crate) service: String,
    pub(crate) identity: Identity,
    /// Whom that identity is exchanged for.
    pub(crate) role: Option<Role>,
}

/// Whose requests they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// That of a key.
    Key { access: String, secret: Secret },
    /// That of a key in a file.
    Profile(Profile),
    /// What the environment says, or who asks for it on a machine or in a pod of AWS.
    Ambient(Vec<(String, String)>),
}

/// A section of a credentials file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
}

/// A role that is assumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) arn: String,
    pub(crate) external_id: String,
    /// URL of the service that gives temporary keys.
    pub(crate) endpoint: String,
}

/// A section as it may be used; `at` is where the one stands that has it, and `has_auth` whether that says already how
/// requests are authorized. `all` names every way to say so.
pub(super) fn resolve(
    section: Option<&Spanned<SigV4>>,
    has_auth: bool,
    all: &str,
) -> Result<Option<SigV4Options>, Fault> {
    let Some(section) = section else { return Ok(None) };
    let at = section.referenced;
    if has_auth {
        return fault(at, format!("at most one of {all} must be configured"));
    }
    section.value.resolve(at, &|name| std::env::var(name).ok().filter(|value| !value.is_empty())).map(Some)
}

impl SigV4 {
    fn resolve(
        &self,
        at: Location,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<SigV4Options, Fault> {
        if self.access_key.is_empty() != self.secret_key.is_empty() {
            return fault(
                at,
                "must provide a AWS SigV4 Access key and Secret Key if credentials are specified in the SigV4 config",
            );
        }
        if !self.external_id.is_empty() && self.role_arn.is_empty() {
            return fault(at, "external_id can only be used with role_arn");
        }
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        let region =
            given(&self.region).or_else(|| variable("AWS_REGION")).or_else(|| variable("AWS_DEFAULT_REGION"));
        let Some(region) = region else {
            return fault(at, "sigv4: no region, neither here nor in AWS_REGION");
        };
        let role = given(&self.role_arn).map(|arn| Role {
            arn,
            external_id: self.external_id.clone(),
            endpoint: variable("AWS_ENDPOINT_URL_STS")
                .unwrap_or_else(|| sts(&region, self.use_fips_sts_endpoint)),
        });
        let service = given(&self.service_name).unwrap_or_else(|| SERVICE.to_owned());
        Ok(SigV4Options { region, service, identity: self.identity(at, variable)?, role })
    }

    fn identity(&self, at: Location, variable: &dyn Fn(&str) -> Option<String>) -> Result<Identity, Fault> {
        if !self.access_key.is_empty() {
            let secret = Secret::Inline(self.secret_key.clone());
            return Ok(Identity::Key { access: self.access_key.clone(), secret });
        }
        let named =
            if self.profile.is_empty() { variable("AWS_PROFILE") } else { Some(self.profile.clone()) };
        let Some(name) = named else {
            let all = std::env::vars().filter(|(name, _)| name.starts_with("AWS_"));
            return Ok(Identity::Ambient(all.collect()));
        };
        let home = || variable("HOME").map(|home| PathBuf::from(home).join(".aws/credentials"));
        let path = variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from).or_else(home);
        let Some(path) = path else {
            let what = "sigv4: neither AWS_SHARED_CREDENTIALS_FILE nor HOME says where profiles are";
            return fault(at, what);
        };
        let profile = Profile { path, name };
        match profile.read() {
            Ok(_) => Ok(Identity::Profile(profile)),
            Err(what) => fault(at, format!("sigv4: {what}")),
        }
    }
}

impl Profile {
    /// Its key, the key's secret and the session's token, read now.
    pub(crate) fn read(&self) -> Result<(String, String, Option<String>), String> {
        let Self { path, name } = self;
        let path = path.display();
        let text = std::fs::read_to_string(&self.path).map_err(|error| format!("{path}: {error}"))?;
        let (mut is_found, mut is_inside) = (false, false);
        let mut values = [None, None, None];
        for line in text.lines().map(str::trim) {
            if let Some(section) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
                is_inside = section.trim() == name;
                is_found |= is_inside;
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| is_inside) else { continue };
            let keys = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];
            if let Some(at) = keys.iter().position(|known| *known == key.trim()) {
                values[at] = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            }
        }
        match values {
            [Some(access), Some(secret), token] => Ok((access, secret, token)),
            _ if !is_found => Err(format!("{path}: there is no profile {name:?}")),
            _ => Err(format!(
                "{path}: the profile {name:?} has no aws_access_key_id and aws_secret_access_key; other kinds of profiles are not supported, but a role can be given as role_arn"
            )),
        }
    }
}

/// Where temporary keys are given in a region.
fn sts(region: &str, fips: bool) -> String {
    let name = if fips { "sts-fips" } else { "sts" };
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://{name}.{region}.{domain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str, variables: &[(&str, &str)]) -> Result<SigV4Options, String> {
        let section: Spanned<SigV4> = serde_saphyr::from_str(text).unwrap();
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        section.value.resolve(section.referenced, &variable).map_err(|fault| fault.what)
    }

    #[test]
    fn a_section_says_who_signs_for_where() {
        let both = resolved("{region: r-1, access_key: a, secret_key: b}", &[]).unwrap();
        assert_eq!((both.region.as_str(), both.service.as_str(), both.role), ("r-1", "aps", None));
        let hidden = format!("{:?}", both.identity);
        assert!(hidden.contains("<secret>") && !hidden.contains("\"b\""), "{hidden}");

        let text = "{role_arn: 'arn:x', external_id: e, use_fips_sts_endpoint: true, service_name: es}";
        let role = resolved(text, &[("AWS_REGION", "cn-north-1")]).unwrap();
        assert_eq!((role.region.as_str(), role.service.as_str()), ("cn-north-1", "es"));
        assert_eq!(role.role.unwrap().endpoint, "https://sts-fips.cn-north-1.amazonaws.com.cn");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let why = |text| resolved(text, &[]).unwrap_err();
        assert!(why("{region: r, access_key: a}").starts_with("must provide a AWS SigV4 Access key"));
        assert_eq!(why("{region: r, external_id: a}"), "external_id can only be used with role_arn");
        assert_eq!(why("{access_key: a, secret_key: b}"), "sigv4: no region, neither here nor in AWS_REGION");
    }

    #[test]
    fn a_profile_is_a_section_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        std::fs::write(
            &path,
            "[default]\naws_access_key_id = A\naws_secret_access_key=S\n# [two]\n[two]\naws_access_key_id=B\n\
             aws_secret_access_key = c/d=\naws_session_token=t\n[three]\nrole_arn = arn:y\n",
        )
        .unwrap();
        let file = path.display().to_string();
        let read = |name: &str| {
            let text = format!("{{region: r, profile: {name}}}");
            match resolved(&text, &[("AWS_SHARED_CREDENTIALS_FILE", &file)])?.identity {
                Identity::Profile(profile) => profile.read(),
                other => Err(format!("{other:?}")),
            }
        };
        assert_eq!(read("default"), Ok(("A".to_owned(), "S".to_owned(), None)));
        assert_eq!(read("two"), Ok(("B".to_owned(), "c/d=".to_owned(), Some("t".to_owned()))));
        assert!(read("three").unwrap_err().contains("other kinds of profiles are not supported"));
        assert!(read("four").unwrap_err().ends_with("there is no profile \"four\""));
    }
}
