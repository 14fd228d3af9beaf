//! Recording and alerting rules, and the notifier that hands alerts to Alertmanager.
//!
//! This crate is *not* a query engine and keeps no samples: a rule reads and writes the same store as
//! everybody else. Evaluation is not there yet; [`start`] refuses any group with a typed error, so that
//! a configuration with `rule_files` is refused by name rather than silently never evaluated.
//!
//! ```
//! assert!(rules::start(&[]).is_ok());
//! let group = rules::Group { name: "node".into(), file: "node.yml".into() };
//! let refused = rules::start(&[group]).err().unwrap();
//! assert_eq!(refused.to_string(), "node.yml: rule group \"node\": evaluating rules is not supported yet");
//! ```

/// A group of rules that is evaluated at one moment, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The group's name, unique in its file.
    pub name: String,
    /// The file it stands in.
    pub file: String,
}

/// Why rules could not be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Evaluation is not there yet.
    #[error("{file}: rule group {name:?}: evaluating rules is not supported yet")]
    NotSupported {
        /// The group.
        name: String,
        /// Its file.
        file: String,
    },
}

/// The running rules.
#[derive(Clone, Debug, Default)]
pub struct Handle {
    groups: Vec<Group>,
}

impl Handle {
    /// The groups that are being evaluated.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }
}

/// Starts evaluating `groups`.
///
/// # Errors
/// There is a group: see [`StartError::NotSupported`].
pub fn start(groups: &[Group]) -> Result<Handle, StartError> {
    match groups.first() {
        None => Ok(Handle::default()),
        Some(group) => Err(StartError::NotSupported { name: group.name.clone(), file: group.file.clone() }),
    }
}
