//! Doors for the fuzz targets.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use model::Labels;
use prost::Message as _;
use tsdb::Db;

use crate::names;
use crate::proto::{LabelNamesRequest, LabelValuesRequest, SeriesRequest};
use crate::series::{Bounds, Query, Sink};

/// Counts what it takes.
struct Count(usize);

impl Sink for Count {
    fn send(&mut self, frame: bytes::Bytes) -> Result<(), tonic::Status> {
        self.0 += frame.len();
        Ok(())
    }

    fn is_gone(&self) -> bool {
        false
    }
}

/// A few series in memory.
fn store() -> Option<&'static Db> {
    static STORE: OnceLock<Option<Db>> = OnceLock::new();
    let open = || {
        let disk = Arc::new(tsdb::disk::memory::Memory::new());
        let db = Db::open_on(disk, Path::new("db"), tsdb::Options::default(), &mut |_| {}).ok()?;
        let mut batch = db.appender();
        for pairs in
            [[("__name__", "a"), ("r", "1")], [("__name__", "a"), ("r", "2")], [("__name__", "b"), ("x", "")]]
        {
            let series = batch.series(&Labels::from_pairs(pairs)).ok()?;
            (0..200).try_for_each(|ts| batch.append(series, ts, 1.0)).ok()?;
        }
        batch.commit().ok()?;
        Some(db)
    };
    STORE.get_or_init(open).as_ref()
}

/// Reads bytes as each kind of request, and answers those that are some. Gives how many bytes the series took.
pub fn answer(message: &[u8]) -> usize {
    let Some(db) = store() else { return 0 };
    let (snapshot, external) = (db.snapshot(), Labels::from_pairs([("r", "x"), ("z", "1")]));
    if let Ok(request) = LabelNamesRequest::decode(message) {
        let _ = names::label_names(&snapshot, &request, &external);
    }
    if let Ok(request) = LabelValuesRequest::decode(message) {
        let _ = names::label_values(&snapshot, &request, &external);
    }
    let mut count = Count(0);
    if let Ok(request) = SeriesRequest::decode(message)
        && let Ok(query) = Query::new(&request, &external)
    {
        let _ = query.run(&snapshot, Bounds::default(), &mut count);
    }
    count.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::LabelMatcher;

    #[test]
    fn there_is_something_to_be_found() {
        let matcher = LabelMatcher { kind: 2, name: "__name__".to_owned(), value: ".*".to_owned() };
        let request = SeriesRequest { max_time: 500, matchers: vec![matcher], ..SeriesRequest::default() };
        assert!(answer(&request.encode_to_vec()) > 100);
    }
}
