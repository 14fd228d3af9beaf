//! Entries for fuzzing the parsers of what strangers send that are not part of the crate's face.

/// Reads `bytes` as what `kind` chooses; must neither panic nor run on.
pub fn read(kind: u8, bytes: &[u8]) {
    match kind % 3 {
        0 => crate::discovery::read_answer(bytes),
        1 => crate::http::read_answer(bytes),
        _ => crate::http::read_certificate(bytes),
    }
}
