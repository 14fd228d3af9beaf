//! The messages, as far as they are read or small. Field numbers are those of Thanos' published
//! `info/infopb/rpc.proto`, `store/storepb/rpc.proto`, `store/storepb/types.proto` and `store/labelpb/types.proto`;
//! those of `Health` are gRPC's own `grpc/health/v1/health.proto`. Fields that change nothing here (hints, aggregates
//! of downsampled blocks) are skipped when reading. Answers with samples are written by `frame.rs`.

/// A label.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Label {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// Labels, ascending by name.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct LabelSet {
    #[prost(message, repeated, tag = "1")]
    pub(crate) labels: Vec<Label>,
}

/// A condition. `kind`: 0 equal, 1 not equal, 2 matches, 3 does not match.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct LabelMatcher {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) value: String,
}

/// What somebody who asks says of failures: 0 is "what you have, with a warning", 1 "all of it or an error".
pub(crate) const ABORT: i32 = 1;

/// Which part of the series is wanted.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ShardInfo {
    #[prost(int64, tag = "1")]
    pub(crate) shard_index: i64,
    #[prost(int64, tag = "2")]
    pub(crate) total_shards: i64,
    #[prost(bool, tag = "3")]
    pub(crate) by: bool,
    #[prost(string, repeated, tag = "4")]
    pub(crate) labels: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct SeriesRequest {
    #[prost(int64, tag = "1")]
    pub(crate) min_time: i64,
    #[prost(int64, tag = "2")]
    pub(crate) max_time: i64,
    #[prost(message, repeated, tag = "3")]
    pub(crate) matchers: Vec<LabelMatcher>,
    #[prost(bool, tag = "6")]
    pub(crate) partial_response_disabled: bool,
    #[prost(int32, tag = "7")]
    pub(crate) partial_response_strategy: i32,
    #[prost(bool, tag = "8")]
    pub(crate) skip_chunks: bool,
    #[prost(message, optional, tag = "13")]
    pub(crate) shard_info: Option<ShardInfo>,
    #[prost(string, repeated, tag = "14")]
    pub(crate) without_replica_labels: Vec<String>,
    #[prost(int64, tag = "15")]
    pub(crate) limit: i64,
    #[prost(int64, tag = "16")]
    pub(crate) response_batch_size: i64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct LabelNamesRequest {
    #[prost(bool, tag = "1")]
    pub(crate) partial_response_disabled: bool,
    #[prost(int32, tag = "2")]
    pub(crate) partial_response_strategy: i32,
    #[prost(int64, tag = "3")]
    pub(crate) start: i64,
    #[prost(int64, tag = "4")]
    pub(crate) end: i64,
    #[prost(message, repeated, tag = "6")]
    pub(crate) matchers: Vec<LabelMatcher>,
    #[prost(string, repeated, tag = "7")]
    pub(crate) without_replica_labels: Vec<String>,
    #[prost(int64, tag = "8")]
    pub(crate) limit: i64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct LabelValuesRequest {
    #[prost(string, tag = "1")]
    pub(crate) label: String,
    #[prost(bool, tag = "2")]
    pub(crate) partial_response_disabled: bool,
    #[prost(int32, tag = "3")]
    pub(crate) partial_response_strategy: i32,
    #[prost(int64, tag = "4")]
    pub(crate) start: i64,
    #[prost(int64, tag = "5")]
    pub(crate) end: i64,
    #[prost(message, repeated, tag = "7")]
    pub(crate) matchers: Vec<LabelMatcher>,
    #[prost(string, repeated, tag = "8")]
    pub(crate) without_replica_labels: Vec<String>,
    #[prost(int64, tag = "9")]
    pub(crate) limit: i64,
}

/// Label names, or values of one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Texts {
    #[prost(string, repeated, tag = "1")]
    pub(crate) texts: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) warnings: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct InfoRequest {}

/// What this server is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct InfoResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) label_sets: Vec<LabelSet>,
    #[prost(string, tag = "2")]
    pub(crate) component_type: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) store: Option<StoreInfo>,
}

/// Which samples it has.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct StoreInfo {
    #[prost(int64, tag = "1")]
    pub(crate) min_time: i64,
    #[prost(int64, tag = "2")]
    pub(crate) max_time: i64,
    #[prost(bool, tag = "3")]
    pub(crate) supports_sharding: bool,
    #[prost(bool, tag = "5")]
    pub(crate) supports_without_replica_labels: bool,
    #[prost(message, repeated, tag = "6")]
    pub(crate) tsdb_infos: Vec<TsdbInfo>,
}

/// One of its stores.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct TsdbInfo {
    #[prost(message, optional, tag = "1")]
    pub(crate) labels: Option<LabelSet>,
    #[prost(int64, tag = "2")]
    pub(crate) min_time: i64,
    #[prost(int64, tag = "3")]
    pub(crate) max_time: i64,
}

/// Of a server that serves.
pub(crate) const SERVING: i32 = 1;

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct HealthRequest {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct HealthResponse {
    #[prost(int32, tag = "1")]
    pub(crate) status: i32,
}
