//! Metadata of objects, packed.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Names with values in the order of the object: labels or annotations.
///
/// All text lies in one string, and each end takes 4 bytes: ten labels of 40 bytes cost 400 + 80 + 32 bytes in two
/// allocations, where a map of strings would cost 1.3 KB in twenty-one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pairs {
    text: Box<str>,
    ends: Box<[u32]>,
}

impl Pairs {
    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let start =
            |at: usize| at.checked_sub(1).and_then(|at| self.ends.get(at)).map_or(0, |end| *end as usize);
        (0..self.ends.len() / 2).map(move |pair| {
            let (from, name_end, end) = (start(2 * pair), start(2 * pair + 1), start(2 * pair + 2));
            (&self.text[from..name_end], &self.text[name_end..end])
        })
    }

    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// The number of pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len() / 2
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Pairs {
    /// Pairs beyond 4 GiB of text are left out.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::new());
        for (name, value) in pairs {
            let name_end = u32::try_from(text.len() + name.as_ref().len());
            let end = u32::try_from(text.len() + name.as_ref().len() + value.as_ref().len());
            let (Ok(name_end), Ok(end)) = (name_end, end) else { break };
            text.push_str(name.as_ref());
            text.push_str(value.as_ref());
            ends.extend([name_end, end]);
        }
        Self { text: text.into(), ends: ends.into() }
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of texts")
            }

            fn visit_unit<E>(self) -> Result<Pairs, E> {
                Ok(Pairs::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs: Vec<(String, String)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Option<String>>()? {
                    pairs.push((name, value.unwrap_or_default()));
                }
                Ok(pairs.into_iter().collect())
            }
        }
        deserializer.deserialize_any(PairsVisitor)
    }
}

/// What all objects have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Meta {
    /// Unique in its namespace.
    pub name: Box<str>,
    /// Empty for what belongs to the whole cluster.
    pub namespace: Box<str>,
    /// Unique for ever.
    pub uid: Box<str>,
    /// When it came to be, milliseconds since the epoch.
    #[serde(rename = "creationTimestamp", deserialize_with = "milliseconds")]
    pub created_ms: i64,
    /// Its labels.
    pub labels: Pairs,
    /// Its annotations.
    pub annotations: Pairs,
    /// What it belongs to: the owner that controls it.
    #[serde(rename = "ownerReferences", deserialize_with = "controller")]
    pub controller: Option<Box<Owner>>,
    /// Where a watch goes on; empty in a store.
    pub(crate) resource_version: String,
}

/// What controls an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// `ReplicaSet`
    pub kind: Box<str>,
    /// Its name.
    pub name: Box<str>,
}

impl Meta {
    /// `namespace/name`, or `name`.
    #[must_use]
    pub fn key(&self) -> String {
        if self.namespace.is_empty() {
            self.name.to_string()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }
}

/// A time in RFC 3339; 0 if there is none.
pub(crate) fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let time = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    Ok(time.map_or(0, jiff::Timestamp::as_millisecond))
}

pub(crate) fn controller<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<Owner>>, D::Error> {
    #[derive(Deserialize)]
    struct Reference {
        #[serde(default)]
        kind: Box<str>,
        #[serde(default)]
        name: Box<str>,
        #[serde(default)]
        controller: Option<bool>,
    }
    let references = Option::<Vec<Reference>>::deserialize(deserializer)?.unwrap_or_default();
    let controls = references.into_iter().find(|reference| reference.controller == Some(true));
    Ok(controls.map(|Reference { kind, name, .. }| Box::new(Owner { kind, name })))
}

/// Reads `null` as the default, as the API server's encoders write empty lists and maps that way.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
