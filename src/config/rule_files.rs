//! Rule files: which ones a pattern means, and reading them.

use std::path::{Path, PathBuf};

use super::ConfigError;

/// The files that `pattern` means, ascending. Only the last part of a path may hold `*` and `?`; a file
/// that is not there is no error, as in Prometheus.
pub(crate) fn matching(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let path = folder.join(pattern);
    let (parent, last) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
    let last = last.to_string_lossy().into_owned();
    let wild = |text: &str| text.contains(['*', '?', '[']);
    if wild(pattern.rsplit_once('/').map_or("", |(parent, _)| parent)) || last.contains('[') {
        return Err(format!("invalid rule file path {pattern:?}: only the file name may hold * and ?"));
    }
    if !wild(&last) {
        return Ok(if path.is_file() { vec![path] } else { Vec::new() });
    }
    let Ok(entries) = std::fs::read_dir(parent) else { return Ok(Vec::new()) };
    let mut files: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| fits(last.as_bytes(), entry.file_name().to_string_lossy().as_bytes()))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    Ok(files)
}

/// Whether `name` is of the form `pattern`: `*` is any text, `?` any byte.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => fits(rest, name) || !name.is_empty() && fits(pattern, &name[1..]),
        ([b'?', pattern @ ..], [_, name @ ..]) => fits(pattern, name),
        ([a, pattern @ ..], [b, name @ ..]) => a == b && fits(pattern, name),
        _ => false,
    }
}

/// Reads one rule file.
pub(crate) fn load(path: &Path, dialect: rules::Dialect) -> Result<Vec<rules::Group>, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let mut groups = rules::parse_with(&text, dialect)
        .map_err(|fault| ConfigError::Rules { path: path.to_owned(), fault })?;
    for group in &mut groups {
        group.file = path.display().to_string();
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*.yml", "a.yml", true),
            ("*.yml", "a.yaml", false),
            ("a?c*", "abc", true),
            ("a?c", "ac", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.rules", "a.rules", "c.txt"] {
            std::fs::write(dir.path().join(name), "groups: []").unwrap();
        }
        let found = matching(dir.path(), "*.rules").unwrap();
        assert_eq!(found, [dir.path().join("a.rules"), dir.path().join("b.rules")]);
        assert!(matching(dir.path(), "missing.yml").unwrap().is_empty());
        assert!(matching(dir.path(), "*/a.rules").is_err());
    }
}
