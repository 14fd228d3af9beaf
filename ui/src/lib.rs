//! The web page: files embedded in the binary.
//!
//! This crate is *not* a web server: it maps a path to bytes, and whoever serves decides the rest.
//! The page needs no build step, no network and nothing but this process' own HTTP API.
//!
//! ```
//! let page = ui::file("/").unwrap();
//! assert_eq!(page.content_type, "text/html; charset=utf-8");
//! assert!(ui::file("/no-such-file").is_none());
//! ```
//!
//! The hard decision: a plain page first. It stays as the fallback of the richer front end, so a
//! machine without a JavaScript toolchain never builds an empty page.

/// One embedded file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// The value of its `Content-Type`.
    pub content_type: &'static str,
    /// Its content.
    pub bytes: &'static [u8],
}

const FILES: [(&str, File); 3] = [
    ("/", File { content_type: "text/html; charset=utf-8", bytes: include_bytes!("../page/index.html") }),
    (
        "/page.css",
        File { content_type: "text/css; charset=utf-8", bytes: include_bytes!("../page/page.css") },
    ),
    (
        "/page.js",
        File { content_type: "text/javascript; charset=utf-8", bytes: include_bytes!("../page/page.js") },
    ),
];

/// The file at `path`, which begins with a slash.
#[must_use]
pub fn file(path: &str) -> Option<File> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, file)| *file)
}

/// The paths of all files.
pub fn paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(path, _)| *path)
}
