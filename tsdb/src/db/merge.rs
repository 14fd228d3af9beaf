//! Joining sorted lists of series.

use model::Labels;

/// Series of several sources, those of equal labels next to each other.
pub(super) struct Merged {
    /// Source and number within the source.
    pub(super) entries: Vec<(u32, u32)>,
    /// Where the entries of each series begin; `None`: one entry a series.
    pub(super) starts: Option<Vec<u32>>,
}

struct Cursor {
    source: u32,
    ids: Vec<u32>,
    at: usize,
    labels: Labels,
}

/// Merges lists that are each ascending by labels. Of equal series, entries keep the order of sources.
pub(super) fn merge<E>(
    sources: Vec<(u32, Vec<u32>)>,
    labels_of: impl Fn(u32, u32) -> Result<Labels, E>,
) -> Result<Merged, E> {
    let mut sources: Vec<_> = sources.into_iter().filter(|(_, ids)| !ids.is_empty()).collect();
    if sources.len() < 2 {
        let (source, ids) = sources.pop().unwrap_or_default();
        let entries = ids.into_iter().map(|id| (source, id)).collect();
        return Ok(Merged { entries, starts: None });
    }
    let mut cursors = Vec::with_capacity(sources.len());
    for (source, ids) in sources {
        let labels = labels_of(source, ids[0])?;
        cursors.push(Cursor { source, ids, at: 0, labels });
    }
    let (mut entries, mut starts) = (Vec::new(), Vec::new());
    while let Some(least) = cursors.iter().map(|cursor| &cursor.labels).min().cloned() {
        starts.push(u32::try_from(entries.len()).unwrap_or(u32::MAX));
        for cursor in cursors.iter_mut().filter(|cursor| cursor.labels == least) {
            entries.push((cursor.source, cursor.ids[cursor.at]));
            cursor.at += 1;
            if let Some(&next) = cursor.ids.get(cursor.at) {
                cursor.labels = labels_of(cursor.source, next)?;
            }
        }
        cursors.retain(|cursor| cursor.at < cursor.ids.len());
    }
    Ok(Merged { entries, starts: Some(starts) })
}

impl Merged {
    /// The number of series.
    pub(super) fn len(&self) -> usize {
        self.starts.as_ref().map_or(self.entries.len(), Vec::len)
    }

    /// The entries of one series.
    pub(super) fn entries(&self, index: usize) -> &[(u32, u32)] {
        match &self.starts {
            None => &self.entries[index..=index],
            Some(starts) => {
                let end = starts.get(index + 1).map_or(self.entries.len(), |&end| end as usize);
                &self.entries[starts[index] as usize..end]
            }
        }
    }
}
