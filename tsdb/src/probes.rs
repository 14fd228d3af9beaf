//! Inner parts as `benches` measures them and tests set them up; nobody else needs these.

use model::{Matcher, Samples, TimeRange, Timestamp};

use crate::chunk::xor::{self, XorAppender};
use crate::db::Db;

/// Encodes samples as one XOR chunk into `out`, which must be empty.
pub fn xor_encode(samples: &[(Timestamp, f64)], out: &mut Vec<u8>) {
    let Some((&(ts, value), rest)) = samples.split_first() else { return };
    let mut appender = XorAppender::start(out, ts, value);
    for &(ts, value) in rest {
        appender.append(out, ts, value);
    }
    appender.finish(out);
}

/// Decodes the samples of an XOR chunk from `start` on; a malformed one gives fewer samples.
pub fn xor_decode(chunk: &[u8], start: Timestamp, into: &mut Samples) {
    let _ = xor::decode(chunk, usize::MAX, TimeRange::new(start, Timestamp::MAX), into);
}

/// How many series of the head fulfil `matchers`, by postings alone.
#[must_use]
pub fn postings(db: &Db, matchers: &[Matcher]) -> u64 {
    db.inner.head.catalog.read_recursive().select(matchers, None).cardinality()
}

/// Puts the values of a label in order now, as is done aside once it has been asked for often.
pub fn rank(db: &Db, name: &str) {
    db.inner.head.rank(name);
}
