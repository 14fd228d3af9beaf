//! The subject of an X.509 certificate: its common name and organizations.
//!
//! Source: RFC 5280, section 4.1, and X.690 for the encoding. A certificate is a sequence whose first element is a
//! sequence of version (tag `a0`, optional), serial number, signature algorithm, issuer, validity and subject. A name
//! is a sequence of sets of pairs of an object identifier and a text. Only certificates whose signature has been
//! verified are looked at.

use k8s::User;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const IDENTIFIER: u8 = 0x06;
const VERSION: u8 = 0xa0;
/// 2.5.4.3 and 2.5.4.10.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const TELETEX: u8 = 0x14;
const IA5: u8 = 0x16;

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Tag and content of the next element.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first & 0x7f);
        if first & 0x80 != 0 {
            let (bytes, after) = rest.split_at_checked(length)?;
            if bytes.is_empty() || bytes.len() > 4 {
                return None;
            }
            length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            rest = after;
        }
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }
}

/// The user that a certificate names: the common name is the user's, organizations are groups. None if it names nobody or
/// cannot be read. Whether the certificate is to be believed is not looked at.
#[must_use]
pub fn user(certificate: &[u8]) -> Option<User> {
    let whole = Reader(certificate).expect(SEQUENCE)?;
    let mut fields = Reader(Reader(whole).expect(SEQUENCE)?);
    let (tag, _) = fields.next()?;
    if tag == VERSION {
        fields.next()?;
    }
    for _ in ["signature algorithm", "issuer", "validity"] {
        fields.expect(SEQUENCE)?;
    }
    let mut names = Reader(fields.expect(SEQUENCE)?);
    let mut user = User::default();
    while let Some(set) = names.expect(SET) {
        let mut pairs = Reader(set);
        while let Some(pair) = pairs.expect(SEQUENCE) {
            let mut pair = Reader(pair);
            let kind = pair.expect(IDENTIFIER)?;
            let (tag, text) = pair.next()?;
            if !matches!(tag, UTF8 | PRINTABLE | TELETEX | IA5) {
                continue;
            }
            let text = std::str::from_utf8(text).ok()?.to_owned();
            match kind {
                COMMON_NAME => user.name = text,
                ORGANIZATION => user.groups.push(text),
                _ => {}
            }
        }
    }
    Some(user).filter(|user| !user.name.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        match u8::try_from(content.len()) {
            Ok(length) if length < 0x80 => out.push(length),
            _ => {
                out.push(0x82);
                out.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
            }
        }
        out.extend_from_slice(content);
        out
    }

    fn certificate(names: &[(&[u8], &str)], with_version: bool) -> Vec<u8> {
        let name = |(kind, text): &(&[u8], &str)| {
            let pair = [element(IDENTIFIER, kind), element(UTF8, text.as_bytes())].concat();
            element(SET, &element(SEQUENCE, &pair))
        };
        let subject: Vec<u8> = names.iter().flat_map(name).collect();
        let mut fields = if with_version { element(VERSION, &element(2, &[2])) } else { Vec::new() };
        fields.extend(element(2, &[1]));
        for content in [&b"alg"[..], b"issuer", b"validity"] {
            fields.extend(element(SEQUENCE, content));
        }
        fields.extend(element(SEQUENCE, &subject));
        element(SEQUENCE, &element(SEQUENCE, &fields))
    }

    proptest! {
        #[test]
        fn names_come_back(name in "[a-z:]{1,200}", groups in prop::collection::vec("[a-z:]{0,80}", 0..5), version: bool) {
            let mut names: Vec<(&[u8], &str)> = groups.iter().map(|group| (ORGANIZATION, group.as_str())).collect();
            names.push((COMMON_NAME, &name));
            names.push((&[0x55, 0x04, 0x06], "DE"));
            let user = user(&certificate(&names, version)).unwrap();
            prop_assert_eq!(user.name, name);
            prop_assert_eq!(user.groups, groups);
        }

        #[test]
        fn nothing_panics(mut bytes: Vec<u8>, at: prop::sample::Index, byte: u8) {
            let _ = user(&bytes);
            bytes = certificate(&[(COMMON_NAME, "a"), (ORGANIZATION, "b")], true);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = user(&bytes);
            let _ = user(&bytes[..at]);
        }
    }

    #[test]
    fn a_certificate_without_a_name_is_nobody() {
        assert_eq!(user(&certificate(&[(ORGANIZATION, "system:masters")], true)), None);
        assert_eq!(user(&[]), None);
    }
}
