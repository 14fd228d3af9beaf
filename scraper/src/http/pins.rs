//! Certificates of kubelets that no authority vouches for, trusted from their first use on.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;

/// Nodes with the SHA-256 of the certificate that they first showed, kept in a text file of lines
/// `<node> <sha-256>`. Whoever wants a changed certificate to be trusted deletes its line.
#[derive(Debug)]
pub struct Pins {
    path: PathBuf,
    known: Mutex<BTreeMap<String, String>>,
}

impl PartialEq for Pins {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Pins {
    /// Reads the file, if it is there.
    ///
    /// # Errors
    /// It cannot be read, or holds a line of another form.
    pub fn open(path: &Path) -> Result<Self, String> {
        let known = read(path)?;
        Ok(Self { path: path.to_owned(), known: Mutex::new(known) })
    }

    /// Remembers the certificate of a node that is new, and refuses one that is not the remembered one.
    pub(super) fn check(&self, node: &str, certificate: &CertificateDer<'_>) -> Result<(), String> {
        let seen = fingerprint(certificate);
        let mut known = self.known.lock();
        match known.get(node) {
            Some(pinned) if *pinned == seen => return Ok(()),
            // Its line may have been deleted meanwhile.
            Some(pinned) => {
                let now = read(&self.path)?;
                if now.get(node).is_some_and(|pinned| *pinned != seen) {
                    return Err(format!(
                        "shows another certificate than before (SHA-256 {seen}, it was {pinned}): somebody may stand \
                         between, or the kubelet has made itself a new one; if so, delete its line in {}",
                        self.path.display()
                    ));
                }
                *known = now;
            }
            None => {}
        }
        tracing::warn!("node {node} is trusted from now on by its certificate with SHA-256 {seen}");
        known.insert(node.to_owned(), seen);
        self.write(&known)
            .map_err(|error| format!("cannot be remembered in {}: {error}", self.path.display()))
    }

    /// Replaces the file in one step.
    fn write(&self, known: &BTreeMap<String, String>) -> std::io::Result<()> {
        let text: String = known.iter().map(|(node, pinned)| format!("{node} {pinned}\n")).collect();
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let mut file = std::fs::File::create(&name)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&name, &self.path)
    }
}

fn read(path: &Path) -> Result<BTreeMap<String, String>, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let mut known = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let bad = || format!("{}:{number}: not of the form <node> <sha-256>", path.display());
        let (node, pinned) = line.split_once(' ').ok_or_else(bad)?;
        if pinned.len() != 64 || !pinned.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        known.insert(node.to_owned(), pinned.to_owned());
    }
    Ok(known)
}

fn fingerprint(certificate: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The common name of a certificate's subject (X.509, RFC 5280 4.1): the last one, if there are several.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const OBJECT_ID: u8 = 0x06;
    const VERSION: u8 = 0xa0;
    /// 2.5.4.3
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest, VERSION)?.1;
    }
    // Serial number, signature algorithm, issuer, validity.
    for _ in 0..4 {
        rest = any_element(rest)?.2;
    }
    let (mut subject, _) = element(rest, SEQUENCE)?;
    let mut found = None;
    while !subject.is_empty() {
        let (mut names, next) = element(subject, SET)?;
        subject = next;
        while !names.is_empty() {
            let (pair, next) = element(names, SEQUENCE)?;
            names = next;
            let (kind, value) = element(pair, OBJECT_ID)?;
            if kind == COMMON_NAME {
                found = String::from_utf8(any_element(value)?.1.to_vec()).ok();
            }
        }
    }
    found
}

/// The content of an element of kind `tag`, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any_element(bytes)?;
    (found == tag).then_some((content, rest))
}

/// Kind and content of an element in DER, and what follows it.
fn any_element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) =
            rest.split_at_checked(usize::from(first & 0x7f)).filter(|(digits, _)| digits.len() <= 4)?;
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject as _;

    fn certificate(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn a_certificate_is_pinned_and_a_changed_one_refused() {
        let (a, b) = (
            certificate(include_str!("../testdata/server.pem")),
            certificate(include_str!("../testdata/client.pem")),
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pins");
        let pins = Pins::open(&path).unwrap();
        assert_eq!(pins.check("n1", &a), Ok(()));
        assert_eq!(pins.check("n1", &a), Ok(()));
        assert_eq!(pins.check("n2", &b), Ok(()));
        let refused = pins.check("n1", &b).unwrap_err();
        assert!(refused.contains("another certificate than before"), "{refused}");
        // It is remembered over a restart, and forgotten once its line is deleted.
        let pins = Pins::open(&path).unwrap();
        assert!(pins.check("n1", &b).is_err());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(
            &path,
            text.lines().filter(|line| !line.starts_with("n1 ")).collect::<String>() + "\n",
        )
        .unwrap();
        assert_eq!(pins.check("n1", &b), Ok(()));
        std::fs::write(&path, "n1 abc\n").unwrap();
        assert!(Pins::open(&path).unwrap_err().contains(":1: "));
    }

    #[test]
    fn the_common_name_is_found() {
        let name = common_name(&certificate(include_str!("../testdata/server.pem")));
        assert!(name.is_some(), "{name:?}");
        assert_eq!(common_name(b"\x30\x84\xff\xff\xff\xff"), None);
    }

    proptest::proptest! {
        /// Damaged certificates give no name, or another, but no panic.
        #[test]
        fn damage_is_no_panic(at in 0usize..600, byte: u8, cut in 0usize..900) {
            let mut bytes = certificate(include_str!("../testdata/server.pem")).to_vec();
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
            bytes.truncate(cut);
            let _ = common_name(&bytes);
        }
    }
}
