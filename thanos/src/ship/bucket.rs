//! A bucket: a directory, or S3.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt as _, RetryConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Files that are longer go in parts of this size: three of them are in memory at most, and S3's ten thousand parts are
/// more than an index can have.
const PART_BYTES: usize = 8 << 20;
/// The least that S3 takes as a part.
const PART_BYTES_MIN: usize = 5 << 20;
/// Parts under way at once; each is in memory.
const PARTS_AT_ONCE: usize = 2;
/// What is read from a file at once.
const READ_BYTES: usize = 1 << 20;
/// A request with a part must be through in this time: a part of the default size at 30 kB/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);

/// Why a bucket does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// It refused, or cannot be reached.
    #[error("{}: {source}", object.as_deref().unwrap_or("bucket"))]
    Store {
        /// What was to be read or written.
        object: Option<String>,
        /// Why it failed.
        source: Box<object_store::Error>,
    },
    /// A file that was to be sent cannot be read.
    #[error("{}: {source}", path.display())]
    Local {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl BucketError {
    fn store(object: &str) -> impl FnOnce(object_store::Error) -> Self + use<> {
        let object = Some(object.to_owned());
        move |source| Self::Store { object, source: Box::new(source) }
    }
}

/// Which bucket.
#[derive(Clone, Debug)]
pub struct BucketOptions {
    /// Where it is.
    pub place: Place,
    /// Objects are below this.
    pub prefix: String,
}

/// Where a bucket is.
#[derive(Clone, Debug)]
pub enum Place {
    /// A directory.
    Directory(PathBuf),
    /// S3, or what speaks its protocol.
    S3(Box<S3Options>),
}

/// A bucket of S3.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    /// Its name.
    pub bucket: String,
    /// The server, as `host` or `host:port`.
    pub endpoint: String,
    /// The region; `us-east-1` if empty.
    pub region: String,
    /// Who we are. `None`: whoever `environment` or the machine's metadata says.
    pub keys: Option<Keys>,
    /// Settings of AWS' tools (`AWS_...`), where keys are not given.
    pub environment: Vec<(String, String)>,
    /// Plain HTTP.
    pub insecure: bool,
    /// The bucket's name is part of the host's.
    pub virtual_hosted: bool,
    /// Certificates are not verified.
    pub insecure_skip_verify: bool,
    /// An authority (PEM) that is trusted besides those of the system.
    pub ca: Option<Vec<u8>>,
    /// Files that are longer go in parts of this size.
    pub part_bytes: Option<usize>,
    /// How objects are encrypted where they lie.
    pub encryption: Encryption,
}

/// How objects are encrypted where they lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// As the bucket has it.
    #[default]
    Default,
    /// By S3 with keys of its own.
    S3,
    /// By S3 with this key of its key service.
    Kms(String),
}

/// Credentials. They are in no message.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// The key's name.
    pub access: String,
    /// The key.
    pub secret: String,
    /// A session's token, if it is for one.
    pub token: String,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(...)")
    }
}

/// A bucket that is written to.
#[derive(Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    part_bytes: usize,
}

impl Bucket {
    /// Makes ready what is needed to reach a bucket; nothing is sent.
    ///
    /// # Errors
    /// The options make no sense, or the directory cannot be made.
    pub fn open(options: &BucketOptions) -> Result<Self, BucketError> {
        let failed = |source| BucketError::Store { object: None, source: Box::new(source) };
        let mut part_bytes = PART_BYTES;
        let store: Arc<dyn ObjectStore> = match &options.place {
            Place::Directory(path) => {
                std::fs::create_dir_all(path)
                    .map_err(|source| BucketError::Local { path: path.clone(), source })?;
                Arc::new(LocalFileSystem::new_with_prefix(path).map_err(failed)?.with_fsync(true))
            }
            Place::S3(options) => {
                part_bytes = options.part_bytes.unwrap_or(part_bytes);
                Arc::new(s3(options).map_err(failed)?)
            }
        };
        let store: Arc<dyn ObjectStore> = match options.prefix.trim_matches('/') {
            "" => store,
            prefix => Arc::new(PrefixStore::new(store, prefix)),
        };
        Ok(Self { part_bytes: part_bytes.max(PART_BYTES_MIN), ..Self::over(store) })
    }

    /// A bucket over any store of objects.
    #[must_use]
    pub fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, part_bytes: PART_BYTES }
    }

    /// Whether there is an object.
    pub(super) async fn has(&self, object: &str) -> Result<bool, BucketError> {
        match self.store.head(&object.into()).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(BucketError::store(object)(error)),
        }
    }

    /// Writes an object.
    pub(super) async fn put(&self, object: &str, content: Vec<u8>) -> Result<(), BucketError> {
        self.store.put(&object.into(), content.into()).await.map(|_| ()).map_err(BucketError::store(object))
    }

    /// Writes an object with the content of a file, of which never more than a few parts are in memory.
    pub(super) async fn put_file(&self, object: &str, path: &Path) -> Result<(), BucketError> {
        let local = |source| BucketError::Local { path: path.to_owned(), source };
        let mut file = tokio::fs::File::open(path).await.map_err(local)?;
        let writer = BufWriter::with_capacity(Arc::clone(&self.store), object.into(), self.part_bytes);
        let mut writer = writer.with_max_concurrency(PARTS_AT_ONCE);
        let sent = async {
            loop {
                let mut piece = BytesMut::with_capacity(READ_BYTES);
                if file.read_buf(&mut piece).await.map_err(local)? == 0 {
                    return Ok(());
                }
                writer.put(Bytes::from(piece)).await.map_err(BucketError::store(object))?;
            }
        };
        match sent.await {
            Ok(()) => writer.shutdown().await.map_err(|error| {
                let source = object_store::Error::Generic { store: "bucket", source: Box::new(error) };
                BucketError::store(object)(source)
            }),
            Err(error) => {
                // Parts that came shall not stay.
                let _ = writer.abort().await;
                Err(error)
            }
        }
    }
}

fn s3(options: &S3Options) -> Result<impl ObjectStore, object_store::Error> {
    let scheme = if options.insecure { "http" } else { "https" };
    let mut client = ClientOptions::new()
        .with_allow_http(options.insecure)
        .with_timeout(REQUEST_TIMEOUT)
        .with_allow_invalid_certificates(options.insecure_skip_verify);
    if let Some(ca) = &options.ca {
        client = client.with_root_certificate(object_store::Certificate::from_pem(ca)?);
    }
    let mut builder = AmazonS3Builder::new();
    if options.keys.is_none() {
        for (name, value) in &options.environment {
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
    }
    let host = match options.virtual_hosted {
        true => format!("{scheme}://{}.{}", options.bucket, options.endpoint),
        false => format!("{scheme}://{}", options.endpoint),
    };
    builder = builder
        .with_bucket_name(&options.bucket)
        .with_endpoint(host)
        .with_virtual_hosted_style_request(options.virtual_hosted)
        .with_allow_http(options.insecure)
        .with_client_options(client)
        .with_retry(RetryConfig {
            max_retries: 3,
            retry_timeout: Duration::from_secs(60),
            ..RetryConfig::default()
        });
    if !options.region.is_empty() {
        builder = builder.with_region(&options.region);
    }
    if let Some(keys) = &options.keys {
        builder = builder.with_access_key_id(&keys.access).with_secret_access_key(&keys.secret);
        if !keys.token.is_empty() {
            builder = builder.with_token(&keys.token);
        }
    }
    builder = match &options.encryption {
        Encryption::Default => builder,
        Encryption::S3 => builder.with_config("aws_server_side_encryption".parse()?, "AES256"),
        Encryption::Kms(key) => builder.with_sse_kms_encryption(key),
    };
    builder.build()
}
