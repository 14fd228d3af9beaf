//! Statements that a client signs to get a token (RFC 7523), as JSON web tokens (RFC 7519).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SecureRandom as _;
use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use crate::config::{Assertion, OAuth2, SignatureAlgorithm};

pub(super) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// How long a statement may be used.
const VALID_S: i64 = 600;

/// The statement of now, signed with an RSA key in PEM form.
pub(super) fn sign(oauth2: &OAuth2, assertion: &Assertion, key: &str) -> Result<String, String> {
    let (name, scheme) = match assertion.algorithm {
        SignatureAlgorithm::Rs256 => ("RS256", SignatureScheme::RSA_PKCS1_SHA256),
        SignatureAlgorithm::Rs384 => ("RS384", SignatureScheme::RSA_PKCS1_SHA384),
        SignatureAlgorithm::Rs512 => ("RS512", SignatureScheme::RSA_PKCS1_SHA512),
    };
    let unusable = |error: &dyn std::fmt::Display| format!("client_certificate_key: {error}");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| unusable(&error))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|error| unusable(&error))?;
    let signer = key.choose_scheme(&[scheme]).ok_or_else(|| unusable(&"it is not an RSA key"))?;
    let mut header = json!({"alg": name, "typ": "JWT"});
    if !assertion.key_id.is_empty() {
        header["kid"] = json!(assertion.key_id);
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims(oauth2, assertion)?));
    let signature = signer.sign(signed.as_bytes()).map_err(|error| unusable(&error))?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn claims(oauth2: &OAuth2, assertion: &Assertion) -> Result<Value, String> {
    let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    let now_s = (assertion.clock.0)().div_euclid(1_000);
    let mut claims = json!({
        "iss": or(&assertion.issuer, &oauth2.client_id),
        "sub": oauth2.client_id,
        "jti": unique()?,
        "aud": or(&assertion.audience, &oauth2.token_url),
        "iat": now_s,
        "exp": now_s + VALID_S,
    });
    if !oauth2.scopes.is_empty() {
        claims["scope"] = json!(oauth2.scopes.join(" "));
    }
    for (name, value) in &assertion.claims {
        claims[name] = value.clone();
    }
    Ok(claims)
}

/// A random UUID, so that no statement is taken twice.
fn unique() -> Result<String, String> {
    let mut random = [0u8; 16];
    let filled = ring::rand::SystemRandom::new().fill(&mut random);
    filled.map_err(|_| "no random numbers".to_owned())?;
    // The version, 4, and the variant (RFC 9562).
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}
