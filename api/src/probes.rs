//! Inner parts as `benches` measures them; nobody else needs these.

use promql::Outcome;

/// Writes the answer to a query as JSON, piece by piece; its bytes.
#[must_use]
pub fn json_bytes(outcome: Outcome) -> usize {
    crate::json::Pieces::new(outcome, None).map(|piece| piece.len()).sum()
}
