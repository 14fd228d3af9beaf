//! Basic authentication with bcrypt hashes.
//!
//! A bcrypt check costs tens of milliseconds by design, so the outcome of a good one is remembered: not
//! the password, but its HMAC under a key that dies with the process. Looking that up tells nothing by
//! its time, because nobody outside can compute the key's tags.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use ring::{hmac, rand};

/// So many good passwords are remembered; beyond it, all are forgotten.
const REMEMBERED_MAX: usize = 128;
/// Checked in place of an unknown user's hash, so that its absence takes no less time.
const NOBODY: &str = "$2b$10$abcdefghijklmnopqrstuu5LcUmXf9mFhfbdG1uUjgkOG2xQ0oYlK";

/// Who may ask.
pub(super) struct Users {
    hashes: BTreeMap<String, String>,
    key: hmac::Key,
    good: Mutex<HashSet<Vec<u8>>>,
}

impl Users {
    /// None if there are no users: then everybody may ask.
    pub(super) fn new(hashes: BTreeMap<String, String>) -> Result<Option<Arc<Self>>, String> {
        if hashes.is_empty() {
            return Ok(None);
        }
        for (user, hash) in &hashes {
            let parsed = hash.parse::<bcrypt::HashParts>();
            parsed.map_err(|_| format!("basic_auth_users: the hash of {user:?} is not one of bcrypt"))?;
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())
            .map_err(|_| "the kernel gives no random numbers".to_owned())?;
        Ok(Some(Arc::new(Self { hashes, key, good: Mutex::default() })))
    }

    /// Whether a request names a user and the password. Takes tens of milliseconds for those not seen
    /// before.
    pub(super) fn allow(&self, headers: &HeaderMap) -> bool {
        let Some((user, password)) = credentials(headers) else { return false };
        let (known, hash) = match self.hashes.get(&user) {
            Some(hash) => (true, hash.as_str()),
            None => (false, NOBODY),
        };
        let mut context = hmac::Context::with_key(&self.key);
        for part in [user.as_str(), hash, &password] {
            context.update(&part.len().to_le_bytes());
            context.update(part.as_bytes());
        }
        let tag = context.sign().as_ref().to_vec();
        if known && self.good.lock().is_ok_and(|good| good.contains(&tag)) {
            return true;
        }
        let right = bcrypt::verify(password, hash).unwrap_or(false) && known;
        if right && let Ok(mut good) = self.good.lock() {
            if good.len() >= REMEMBERED_MAX {
                good.clear();
            }
            good.insert(tag);
        }
        right
    }
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(user: &str, password: &str) -> HeaderMap {
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        HeaderMap::from_iter([(header::AUTHORIZATION, format!("Basic {text}").parse().unwrap())])
    }

    #[test]
    fn only_the_right_password() {
        let hash = bcrypt::hash("open sesame", 4).unwrap();
        let users = Users::new(BTreeMap::from([("alice".to_owned(), hash)])).unwrap().unwrap();
        for _ in 0..2 {
            assert!(users.allow(&asking("alice", "open sesame")));
            assert!(!users.allow(&asking("alice", "open")));
            assert!(!users.allow(&asking("bob", "open sesame")));
            assert!(!users.allow(&HeaderMap::new()));
        }
        assert_eq!(users.good.lock().unwrap().len(), 1);
        assert!(Users::new(BTreeMap::new()).unwrap().is_none());
        assert!(NOBODY.parse::<bcrypt::HashParts>().is_ok());
    }
}
