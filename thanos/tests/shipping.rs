//! Blocks on their way to a bucket: the order in which objects come, what a failure at any step leaves, and that doing
//! it again changes nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its assumptions do")]

mod s3;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use model::{Labels, Querier as _, Samples, Selection, TimeRange};
use object_store::memory::InMemory;
use object_store::path::Path as Object;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use thanos::ship::{Bucket, BucketOptions, Encryption, Keys, Place, S3Options, ShipStats, Shipper};
use tsdb::{BlockMeta, Db, Options};

/// A store in memory whose step number `fails_at` fails: `before` it is done, or after.
#[derive(Debug)]
struct Failing {
    inner: InMemory,
    steps: AtomicUsize,
    fails_at: Mutex<Option<(usize, bool)>>,
    /// What was written, in order.
    written: Mutex<Vec<String>>,
}

impl Failing {
    fn new() -> Arc<Self> {
        let (inner, steps) = (InMemory::new(), AtomicUsize::new(0));
        Arc::new(Self { inner, steps, fails_at: Mutex::default(), written: Mutex::default() })
    }

    fn fail_at(&self, step: Option<(usize, bool)>) {
        self.steps.store(0, Ordering::Relaxed);
        self.written.lock().unwrap().clear();
        *self.fails_at.lock().unwrap() = step;
    }

    async fn step<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        let fails = *self.fails_at.lock().unwrap();
        let refusal = || object_store::Error::Generic { store: "failing", source: "no more".into() };
        match fails.filter(|(at, _)| *at == step) {
            Some((_, true)) => Err(refusal()),
            Some((_, false)) => {
                let _ = work.await;
                Err(refusal())
            }
            None => work.await,
        }
    }

    fn written(&self) -> Vec<String> {
        self.written.lock().unwrap().clone()
    }

    async fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = BTreeMap::new();
        let mut list = self.inner.list(None);
        while let Some(object) = list.next().await {
            let path = object.unwrap().location;
            let content = self.inner.get(&path).await.unwrap().bytes().await.unwrap();
            all.insert(path.to_string(), content.to_vec());
        }
        all
    }
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failing")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Failing {
    async fn put_opts(&self, location: &Object, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let done = self.step(self.inner.put_opts(location, payload, opts)).await;
        self.written.lock().unwrap().push(location.to_string());
        done
    }

    async fn put_multipart_opts(
        &self,
        location: &Object,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Object, options: GetOptions) -> Result<GetResult> {
        self.step(self.inner.get_opts(location, options)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Object>>,
    ) -> BoxStream<'static, Result<Object>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Object>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Object>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Object, to: &Object, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

const NOW: i64 = 1_700_000_000_000;
const HOURS_2: i64 = 7_200_000;

fn external() -> Labels {
    Labels::from_pairs([("cluster", "c1"), ("replica", "a")])
}

fn ulid(number: usize) -> String {
    format!("01HF0000000000000000000{number:03}")
}

/// A block that looks like one, with files of its own.
fn block(dir: &Path, number: usize, level: u32, samples: u64, min: i64) -> BlockMeta {
    let name = ulid(number);
    let chunks = dir.join(&name).join("chunks");
    std::fs::create_dir_all(&chunks).unwrap();
    for file in ["chunks/000001", "chunks/000002", "index", "meta.json", "tombstones"] {
        std::fs::write(dir.join(&name).join(file), format!("{file} of {name}")).unwrap();
    }
    let meta = json!({
        "ulid": name, "minTime": min, "maxTime": min + HOURS_2, "version": 1,
        "stats": {"numSamples": samples, "numSeries": 1, "numChunks": 2},
        "compaction": {"level": level, "sources": [name]},
    });
    serde_json::from_value(meta).unwrap()
}

/// Every block whose `meta.json` is there has all files that it names, and those of the right lengths.
fn assert_readable(objects: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let mut whole = Vec::new();
    for (path, content) in objects {
        let Some(name) = path.strip_suffix("/meta.json") else { continue };
        let meta: Value = serde_json::from_slice(content).unwrap();
        assert_eq!(meta["ulid"], name);
        for file in meta["thanos"]["files"].as_array().unwrap() {
            let relative = file["rel_path"].as_str().unwrap();
            let object = objects.get(&format!("{name}/{relative}")).expect("a file that meta.json names");
            let size = object.len() as u64;
            assert!(relative == "meta.json" || file["size_bytes"] == size, "{name}/{relative}: {file}");
        }
        whole.push(name.to_owned());
    }
    whole
}

#[tokio::test]
async fn blocks_come_oldest_first_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = [
        block(dir.path(), 3, 1, 5, 3 * HOURS_2),
        block(dir.path(), 1, 1, 5, HOURS_2),
        block(dir.path(), 2, 2, 5, 2 * HOURS_2),
        block(dir.path(), 4, 1, 0, 0),
    ];
    let store = Failing::new();
    let shipper = Shipper::new(dir.path(), Bucket::over(Arc::<Failing>::clone(&store)));
    let (shipped, kept_from) = shipper.sync(&blocks, &external(), NOW).await;
    let shipped = shipped.unwrap();
    assert_eq!((shipped.blocks, shipped.compacted, kept_from), (vec![ulid(1), ulid(3)], 1, i64::MAX));
    let files = ["chunks/000001", "chunks/000002", "index", "meta.json"];
    let expected: Vec<String> =
        [1, 3].iter().flat_map(|at| files.map(|file| format!("{}/{file}", ulid(*at)))).collect();
    assert_eq!(store.written(), expected);
    let objects = store.objects().await;
    assert_eq!(assert_readable(&objects), [ulid(1), ulid(3)]);
    assert_eq!(objects[&format!("{}/index", ulid(1))], format!("index of {}", ulid(1)).into_bytes());
    let meta: Value = serde_json::from_slice(&objects[&format!("{}/meta.json", ulid(1))]).unwrap();
    let length = format!("index of {}", ulid(1)).len();
    assert_eq!(
        meta["thanos"],
        json!({
            "version": 1,
            "labels": {"cluster": "c1", "replica": "a"},
            "downsample": {"resolution": 0},
            "source": "sidecar",
            "segment_files": ["000001", "000002"],
            "files": [
                {"rel_path": "chunks/000001", "size_bytes": length + 8},
                {"rel_path": "chunks/000002", "size_bytes": length + 8},
                {"rel_path": "index", "size_bytes": length},
                {"rel_path": "meta.json"},
            ],
            "index_stats": {},
            "upload_time": "2023-11-14T22:13:20Z",
        })
    );
    assert_eq!((&meta["minTime"], &meta["compaction"]["level"]), (&json!(HOURS_2), &json!(1)));
    let record: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("thanos.shipper.json")).unwrap()).unwrap();
    assert_eq!(record, json!({"version": 1, "uploaded": [ulid(1), ulid(3)]}));
    assert!(std::fs::read_dir(dir.path().join("thanos/upload")).unwrap().next().is_none());
    assert!(!dir.path().join(ulid(1)).join("meta.json.tmp").exists());

    // Again: not even a question. Without the record: a question each. What was compacted away stays away.
    store.fail_at(Some((0, true)));
    let again = shipper.sync(&blocks, &external(), NOW).await.0.unwrap();
    assert_eq!(again.blocks, Vec::<String>::new());
    store.fail_at(None);
    std::fs::write(dir.path().join("thanos.shipper.json"), "no record").unwrap();
    assert_eq!(shipper.sync(&blocks, &external(), NOW + 1).await.0.unwrap().blocks, Vec::<String>::new());
    assert!(store.written().is_empty());
    assert_eq!(store.objects().await, objects);
    assert_eq!(shipper.stats(), ShipStats { syncs: 3, sync_failures: 0, uploads: 2, upload_failures: 0 });
}

#[tokio::test]
async fn a_failure_at_any_step_leaves_what_can_be_read_and_is_made_good() {
    let mut failures = 0;
    for before in [true, false] {
        for step in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let blocks = [block(dir.path(), 1, 1, 5, 0), block(dir.path(), 2, 1, 5, HOURS_2)];
            let store = Failing::new();
            let ship = || Shipper::new(dir.path(), Bucket::over(Arc::<Failing>::clone(&store)));
            store.fail_at(Some((step, before)));
            let shipper = ship();
            let (outcome, kept_from) = shipper.sync(&blocks, &external(), NOW).await;
            let whole = assert_readable(&store.objects().await);
            let Err(error) = outcome else { break };
            failures += 1;
            assert_eq!(shipper.stats().sync_failures, 1);
            // The message names the block; what is not known to be in the bucket is kept.
            let at = usize::from(step >= 5);
            assert!(error.to_string().starts_with(&ulid(1 + at)), "{error}");
            assert_eq!(kept_from, blocks[at].min_time);
            // Never the younger one without the older.
            assert!(whole.is_empty() || whole[0] == ulid(1), "{whole:?}");
            // After a crash there are links left, and perhaps no record.
            let left = dir.path().join("thanos/upload").join(ulid(9)).join("chunks");
            std::fs::create_dir_all(&left).unwrap();
            std::fs::create_dir_all(dir.path().join("thanos/upload").join(ulid(1)).join("chunks")).unwrap();
            if step % 2 == 0 {
                let _ = std::fs::remove_file(dir.path().join("thanos.shipper.json"));
            }
            store.fail_at(None);
            let (outcome, kept_from) = ship().sync(&blocks, &external(), NOW).await;
            outcome.unwrap();
            assert_eq!((kept_from, left.exists()), (i64::MAX, false));
            assert_eq!(assert_readable(&store.objects().await), [ulid(1), ulid(2)]);
        }
    }
    // A question and four objects for each of two blocks, before and after.
    assert_eq!(failures, 20);
}

#[tokio::test]
async fn a_block_that_has_gone_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = [block(dir.path(), 1, 1, 5, 0)];
    std::fs::remove_dir_all(dir.path().join(ulid(1))).unwrap();
    let store = Failing::new();
    let shipper = Shipper::new(dir.path(), Bucket::over(Arc::<Failing>::clone(&store)));
    let error = shipper.sync(&blocks, &external(), NOW).await.0.unwrap_err();
    assert!(error.to_string().contains(&ulid(1)), "{error}");
    assert!(store.written().is_empty());
}

/// All samples of a store, by series.
fn content(db: &Db) -> BTreeMap<Labels, (Vec<i64>, Vec<u64>)> {
    let snapshot = db.snapshot();
    let set = snapshot.select(&Selection::new(&[], TimeRange::ALL)).unwrap();
    let mut all = BTreeMap::new();
    for at in 0..set.len() {
        let mut samples = Samples::default();
        set.samples(at, TimeRange::ALL, &mut samples).unwrap();
        all.insert(
            set.labels(at),
            (samples.ts, samples.values.iter().map(|value| value.to_bits()).collect()),
        );
    }
    all
}

fn directory(path: &Path) -> Bucket {
    let place = Place::Directory(path.to_owned());
    Bucket::open(&BucketOptions { place, prefix: String::new() }).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// However often it is done, and wherever it was interrupted: the bucket has each block once, and a store that is
    /// opened on the bucket has the samples.
    #[test]
    fn a_bucket_has_every_sample_once(
        rounds in prop::collection::vec((1_usize..30, prop::option::of((0_usize..8, any::<bool>())), any::<bool>()), 1..5),
    ) {
        let (dir, bucket) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let options = Options { compact: false, retention_ms: None, out_of_order_window_ms: HOURS_2, ..Options::default() };
        let db = Db::open(dir.path(), options.clone()).unwrap();
        let store = Failing::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut ts = 0;
        for (samples, failure, forget) in rounds {
            let mut batch = db.appender();
            let series = batch.series(&Labels::from_pairs([("__name__", "x")])).unwrap();
            for _ in 0..samples {
                ts += 600_000;
                batch.append(series, ts, 1.5).unwrap();
                // And a late one for every third.
                if ts % 1_800_000 == 0 {
                    let _ = batch.append(series, ts - 900_001, 2.5);
                }
            }
            batch.commit().unwrap();
            db.cut_head().unwrap();
            db.maintain(ts).unwrap();
            if forget {
                let _ = std::fs::remove_file(dir.path().join("thanos.shipper.json"));
            }
            store.fail_at(failure);
            let shipper = Shipper::new(dir.path(), Bucket::over(Arc::<Failing>::clone(&store)));
            let _ = runtime.block_on(shipper.sync(&db.blocks(), &external(), NOW));
            assert_readable(&runtime.block_on(store.objects()));
        }
        store.fail_at(None);
        let shipper = Shipper::new(dir.path(), Bucket::over(Arc::<Failing>::clone(&store)));
        runtime.block_on(shipper.sync(&db.blocks(), &external(), NOW)).0.unwrap();
        let shipper = Shipper::new(dir.path(), directory(bucket.path()));
        std::fs::remove_file(dir.path().join("thanos.shipper.json")).unwrap();
        runtime.block_on(shipper.sync(&db.blocks(), &external(), NOW)).0.unwrap();
        let mut names: Vec<String> = db.blocks().iter().map(|block| block.ulid.to_string()).collect();
        names.sort();
        let objects = runtime.block_on(store.objects());
        prop_assert_eq!(assert_readable(&objects), names);
        for (path, content) in objects {
            prop_assert_eq!(std::fs::read(bucket.path().join(path)).unwrap(), content);
        }
        let reader = Db::open(bucket.path(), options).unwrap();
        prop_assert_eq!(content(&reader), content(&db));
    }
}

#[tokio::test]
async fn s3_is_spoken_with_signatures_and_in_parts() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let blocks = [block(dir.path(), 1, 1, 5, 0)];
    // Three parts of 5 MiB and a bit.
    let large: Vec<u8> =
        (0..16_000_000_u32).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    std::fs::write(dir.path().join(ulid(1)).join("chunks/000002"), &large).unwrap();
    let server = s3::Server::start().await;
    let options = |secret: &str| S3Options {
        bucket: "bucket".to_owned(),
        endpoint: server.address.clone(),
        region: "eu-north-1".to_owned(),
        keys: Some(Keys {
            access: "AKID".to_owned(),
            secret: secret.to_owned(),
            token: "session".to_owned(),
        }),
        insecure: true,
        part_bytes: Some(5 << 20),
        encryption: Encryption::S3,
        ..S3Options::default()
    };
    let secret = "a-secret-that-is-never-sent";
    assert!(!format!("{:?}", options(secret)).contains(secret));
    let place = Place::S3(Box::new(options(secret)));
    let bucket = Bucket::open(&BucketOptions { place, prefix: "/cell/1/".to_owned() }).unwrap();
    let shipper = Shipper::new(dir.path(), bucket);
    shipper.sync(&blocks, &external(), NOW).await.0.unwrap();
    let objects = server.objects();
    let prefix = format!("bucket/cell/1/{}", ulid(1));
    let names: Vec<&str> = objects.keys().map(String::as_str).collect();
    let files = ["chunks/000001", "chunks/000002", "index", "meta.json"];
    assert_eq!(names, files.map(|file| format!("{prefix}/{file}")));
    assert_eq!(objects[&format!("{prefix}/chunks/000002")], large);
    let requests = server.requests();
    let signature = "AWS4-HMAC-SHA256 Credential=AKID/";
    for request in &requests {
        assert!(request.authorization.starts_with(signature), "{request:?}");
        assert!(request.authorization.contains("/eu-north-1/s3/aws4_request"), "{request:?}");
        assert!(!format!("{request:?}").contains(secret) && request.token == "session");
    }
    assert_eq!(requests.iter().filter(|request| request.query.contains("partNumber=")).count(), 4);
    assert!(requests.last().unwrap().path.ends_with("/meta.json"));
    // An object is encrypted as was asked for.
    assert!(requests.iter().any(|request| request.encryption == "AES256"));

    // Whoever is refused is told by whom.
    server.refuse();
    std::fs::remove_file(dir.path().join("thanos.shipper.json")).unwrap();
    let error = shipper.sync(&blocks, &external(), NOW).await.0.unwrap_err();
    assert!(error.to_string().contains(&ulid(1)) && !error.to_string().contains(secret), "{error}");
}
