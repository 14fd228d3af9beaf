//! gRPC: which path is which call, and how a call runs.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use bytes::{Buf as _, BufMut as _, Bytes};
use futures::Stream;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::mpsc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::Grpc;
use tonic::{Code, Status};

use crate::proto::{
    HealthRequest, HealthResponse, InfoRequest, LabelNamesRequest, LabelValuesRequest, SERVING,
    SeriesRequest, Texts,
};
use crate::series::Sink;
use crate::store::Store;

/// Frames that are ready while the client still reads the one before.
const FRAMES_AHEAD: usize = 2;
/// A request has matchers and names, no samples.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Reads messages, and sends bytes that are messages already.
struct Wire<T>(PhantomData<T>);

impl<T> Wire<T> {
    fn grpc() -> Grpc<Self>
    where
        T: Message + Default + 'static,
    {
        Grpc::new(Self(PhantomData)).max_decoding_message_size(REQUEST_BYTES_MAX)
    }
}

impl<T: Message + Default + 'static> Codec for Wire<T> {
    type Encode = Bytes;
    type Decode = T;
    type Encoder = Put;
    type Decoder = Read<T>;

    fn encoder(&mut self) -> Put {
        Put
    }

    fn decoder(&mut self) -> Read<T> {
        Read(PhantomData)
    }
}

struct Put;

impl Encoder for Put {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(item.len());
        into.put(item);
        Ok(())
    }
}

struct Read<T>(PhantomData<T>);

impl<T: Message + Default> Decoder for Read<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        let message = from.copy_to_bytes(from.remaining());
        T::decode(message).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

/// The calls, by path.
pub(crate) fn routes(store: &Arc<Store>) -> Router {
    let unknown =
        || async { Status::unimplemented("there is no such call here").into_http::<axum::body::Body>() };
    Router::new()
        .route("/grpc.health.v1.Health/Check", post(|request| unary(request, health)))
        .route(
            "/thanos.info.Info/Info",
            with(store, |store, request| {
                unary(request, async move |_: InfoRequest| Ok(store.info().encode_to_vec()))
            }),
        )
        .route(
            "/thanos.Store/LabelNames",
            with(store, |store, request| {
                unary(request, move |request: LabelNamesRequest| async move {
                    let strict = (request.partial_response_disabled, request.partial_response_strategy);
                    store
                        .texts(strict, move |read| read.label_names(&request))
                        .await
                        .map(|texts| encode(&texts))
                })
            }),
        )
        .route(
            "/thanos.Store/LabelValues",
            with(store, |store, request| {
                unary(request, move |request: LabelValuesRequest| async move {
                    let strict = (request.partial_response_disabled, request.partial_response_strategy);
                    store
                        .texts(strict, move |read| read.label_values(&request))
                        .await
                        .map(|texts| encode(&texts))
                })
            }),
        )
        .route("/thanos.Store/Series", with(store, series))
        .fallback(unknown)
}

fn encode(texts: &Texts) -> Vec<u8> {
    texts.encode_to_vec()
}

async fn health(request: HealthRequest) -> Result<Vec<u8>, Status> {
    match request.service.as_str() {
        "" | "thanos.Store" | "thanos.info.Info" => Ok(HealthResponse { status: SERVING }.encode_to_vec()),
        other => Err(Status::not_found(format!("no service {other:?}"))),
    }
}

fn with<F>(
    store: &Arc<Store>,
    call: impl Fn(Arc<Store>, Request) -> F + Clone + Send + Sync + 'static,
) -> axum::routing::MethodRouter
where
    F: Future<Output = Response> + Send + 'static,
{
    let store = Arc::clone(store);
    post(move |request: Request| call(Arc::clone(&store), request))
}

/// A call with one answer.
async fn unary<T, F>(request: Request, call: impl FnOnce(T) -> F) -> Response
where
    T: Message + Default + 'static,
    F: Future<Output = Result<Vec<u8>, Status>>,
{
    let mut call = Some(call);
    let service = tower::service_fn(|request: tonic::Request<T>| {
        let call = call.take();
        async move {
            let call = call.ok_or_else(|| Status::internal("called twice"))?;
            call(request.into_inner()).await.map(|answer| tonic::Response::new(Bytes::from(answer)))
        }
    });
    Wire::<T>::grpc().unary(service, request).await.into_response()
}

type Frames = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

async fn series(store: Arc<Store>, request: Request) -> Response {
    let service = tower::service_fn(|request: tonic::Request<SeriesRequest>| {
        let (store, deadline) = (Arc::clone(&store), deadline(request.metadata()));
        async move {
            let query = store.series(&request.into_inner())?;
            let turn = store.turn().await;
            let (send, mut frames) = mpsc::channel(FRAMES_AHEAD);
            let end = Arc::new(Mutex::new(Some(Status::internal("reading has ended early"))));
            let reading_end = Arc::clone(&end);
            let runtime = tokio::runtime::Handle::current();
            let mut channel = Channel { send, runtime, patience: store.patience(), until: deadline };
            tokio::task::spawn_blocking(move || {
                let _turn = turn;
                *reading_end.lock() = query.run(&mut channel).err();
            });
            // After the last frame comes how it ended, also where nobody took frames for a while: an answer that lacks
            // something must not look like one that does not.
            let frames = futures::stream::poll_fn(move |context| {
                frames.poll_recv(context).map(|frame| match frame {
                    Some(frame) => Some(Ok(frame)),
                    None => end.lock().take().map(Err),
                })
            });
            Ok(tonic::Response::new(Box::pin(frames) as Frames))
        }
    });
    Wire::<SeriesRequest>::grpc().server_streaming(service, request).await.into_response()
}

/// When the client gives up, as it says (`grpc-timeout`: up to eight digits and a unit).
fn deadline(metadata: &tonic::metadata::MetadataMap) -> Option<tokio::time::Instant> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    let time = match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    tokio::time::Instant::now().checked_add(time)
}

/// The way from the thread that reads to the connection.
struct Channel {
    send: mpsc::Sender<Bytes>,
    runtime: tokio::runtime::Handle,
    patience: Duration,
    until: Option<tokio::time::Instant>,
}

impl Sink for Channel {
    fn send(&mut self, frame: Bytes) -> Result<(), Status> {
        let patience = tokio::time::Instant::now() + self.patience;
        let until = self.until.map_or(patience, |until| until.min(patience));
        let sending = self.send.send(frame);
        match self.runtime.block_on(tokio::time::timeout_at(until, sending)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::cancelled("the client has gone")),
            Err(_) => Err(Status::new(Code::DeadlineExceeded, "the client has not read for too long")),
        }
    }

    fn is_gone(&self) -> bool {
        self.send.is_closed() || self.until.is_some_and(|until| tokio::time::Instant::now() >= until)
    }
}
