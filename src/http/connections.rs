//! Connections: accepted, bounded in number and in time, and let go when the server ends.
//!
//! Whoever connects and says nothing must not keep others out: when there are as many connections as
//! there may be, the one that has been idle for longest makes room.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::listen::{Listener, Peer, Stream};

/// How long the greeting of TLS may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often a connection over HTTP/2 is asked whether it is still there, and how long the answer may take.
const PING: Duration = Duration::from_secs(20);
/// Requests at the same time over one connection (HTTP/2).
const STREAMS: u32 = 128;
/// Bytes of a head at most.
const HEAD_BYTES: usize = 64 * 1024;

/// The connections of a server.
#[derive(Debug, Clone)]
pub struct Connections {
    most: usize,
    /// How long a connection may be without a request, with half of one, or with an answer that its client
    /// does not take.
    idle: Duration,
    open: Arc<Mutex<HashMap<u64, Arc<Connection>>>>,
}

/// One of them.
#[derive(Debug)]
struct Connection {
    /// Requests whose answers are not yet sent.
    busy: AtomicUsize,
    /// When it began, or its last request ended.
    idle_since: Mutex<Instant>,
    /// Since when answers have a part ready that the client does not take, by the number of the request.
    untaken: Mutex<HashMap<usize, Instant>>,
    requests: AtomicUsize,
    evicted: CancellationToken,
}

impl Connection {
    fn idle_since(&self) -> Option<Instant> {
        let since = *self
            .idle_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (self.busy.load(Ordering::Acquire) == 0).then_some(since)
    }

    /// Until when it is of use, as things are now: somebody may ask something, and takes the answer.
    fn of_use_until(&self, idle: Duration) -> Instant {
        let untaken = self.untaken.lock().unwrap_or_else(PoisonError::into_inner);
        let untaken = untaken.values().min().map(|since| *since + idle);
        let unasked = self.idle_since().map(|since| since + idle);
        let first = unasked.into_iter().chain(untaken).min();
        // One that is busy is looked at again, for what becomes of it.
        first.unwrap_or_else(|| Instant::now() + idle)
    }
}

/// A request that is being answered.
struct Busy {
    connection: Arc<Connection>,
    number: usize,
}

impl Busy {
    fn of(connection: &Arc<Connection>) -> Self {
        connection.busy.fetch_add(1, Ordering::AcqRel);
        Self {
            connection: Arc::clone(connection),
            number: connection.requests.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Notes whether a part of the answer is ready.
    fn ready(&self, ready: bool) {
        let untaken = &self.connection.untaken;
        let mut untaken = untaken.lock().unwrap_or_else(PoisonError::into_inner);
        if ready {
            untaken.insert(self.number, Instant::now());
        } else {
            untaken.remove(&self.number);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.ready(false);
        let since = &self.connection.idle_since;
        *since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.connection.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The body of an answer: it is asked for its next part when the client has taken the one before.
struct Taken {
    body: Body,
    busy: Busy,
}

impl hyper::body::Body for Taken {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.busy.ready(frame.is_ready());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Connections {
    /// None yet; `most` at the same time, each without a request for as long as `idle`.
    pub fn new(most: usize, idle: Duration) -> Self {
        Self {
            most,
            idle,
            open: Arc::default(),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Serves until `ending` fires, and then what has been asked before, for `drain` at most. `true`:
    /// everything was answered.
    pub async fn serve(
        &self,
        listener: Listener,
        app: Router,
        ending: &CancellationToken,
        drain: Duration,
    ) -> bool {
        let tasks = TaskTracker::new();
        let mut number = 0;
        loop {
            let (stream, peer) = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ending.cancelled() => break,
            };
            number += 1;
            let connection = self.admit(number);
            let app = app.clone();
            let (all, ending) = (self.clone(), ending.clone());
            let acceptor = listener.certificates.as_ref().map(|one| one.acceptor());
            tasks.spawn(async move {
                let (connection, idle) = (&connection, all.idle);
                match (stream, acceptor) {
                    (Stream::Unix(stream), _) => {
                        attend(stream, peer, app, (connection, idle), ending).await;
                    }
                    (Stream::Tcp(stream), None) => {
                        attend(fast(stream), peer, app, (connection, idle), ending).await;
                    }
                    (Stream::Tcp(stream), Some(acceptor)) => {
                        let greeting = greet(fast(stream), acceptor, connection, &ending);
                        if let Some(stream) = greeting.await {
                            attend(stream, peer, app, (connection, idle), ending).await;
                        }
                    }
                }
                all.lock().remove(&number);
            });
        }
        drop(listener);
        tasks.close();
        tokio::time::timeout(drain, tasks.wait()).await.is_ok()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, number: u64) -> Arc<Connection> {
        let connection = Arc::new(Connection {
            busy: AtomicUsize::new(0),
            idle_since: Mutex::new(Instant::now()),
            untaken: Mutex::default(),
            requests: AtomicUsize::new(0),
            evicted: CancellationToken::new(),
        });
        let mut open = self.lock();
        if open.len() >= self.most {
            let idle = open
                .iter()
                .filter_map(|(number, one)| Some((one.idle_since()?, *number)))
                .min();
            // Where each of them is busy, this one is too many.
            let (evicted, own) = match idle.and_then(|(_, number)| open.remove(&number)) {
                Some(evicted) => (evicted, true),
                None => (Arc::clone(&connection), false),
            };
            evicted.evicted.cancel();
            if !own {
                return connection;
            }
        }
        open.insert(number, Arc::clone(&connection));
        connection
    }
}

/// Without this an answer waits for the acknowledgement of what came before it.
fn fast(stream: TcpStream) -> TcpStream {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection stays slow");
    }
    stream
}

/// The greeting of TLS, which must come in time.
async fn greet(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    connection: &Connection,
    ending: &CancellationToken,
) -> Option<TlsStream<TcpStream>> {
    tokio::select! {
        greeting = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)) => {
            let greeting = greeting.map_err(|_| "it takes too long".to_owned());
            let greeting = greeting.and_then(|done| done.map_err(|error| error.to_string()));
            greeting.inspect_err(|error| tracing::debug!(%error, "no TLS")).ok()
        }
        () = connection.evicted.cancelled() => None,
        () = ending.cancelled() => None,
    }
}

/// Answers the requests of one connection.
async fn attend<S>(
    stream: S,
    peer: Peer,
    app: Router,
    (connection, idle): (&Arc<Connection>, Duration),
    ending: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Also how long it may be without a request: the next one's head is waited for.
        .header_read_timeout(idle)
        .max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_header_list_size(HEAD_BYTES as u32)
        .max_concurrent_streams(STREAMS);
    let busy = Arc::clone(connection);
    let answer = service_fn(move |mut request: Request<Incoming>| {
        let busy = Busy::of(&busy);
        request.extensions_mut().insert(peer);
        let answered = app.clone().oneshot(request);
        async move {
            let Ok::<Response<Body>, Infallible>(response) = answered.await;
            busy.ready(true);
            Ok::<_, Infallible>(response.map(|body| Taken { body, busy }))
        }
    });
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), answer));
    let mut closing = false;
    loop {
        let look = connection.of_use_until(idle);
        tokio::select! {
            result = served.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%peer, %error, "a connection has broken");
                }
                return;
            }
            () = connection.evicted.cancelled() => return,
            () = ending.cancelled(), if !closing => {
                closing = true;
                served.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep_until(look) => {
                if connection.of_use_until(idle) <= Instant::now() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_makes_room_and_the_busy_do_not() {
        let all = Connections::new(2, Duration::from_secs(60));
        let first = all.admit(1);
        let second = all.admit(2);
        let busy = Busy::of(&first);
        let third = all.admit(3);
        assert!(second.evicted.is_cancelled() && !first.evicted.is_cancelled());
        let also = Busy::of(&third);
        let fourth = all.admit(4);
        assert!(fourth.evicted.is_cancelled(), "there is no room for it");
        assert!(!first.evicted.is_cancelled() && !third.evicted.is_cancelled());
        assert_eq!(all.count(), 2);
        drop((busy, also));
        assert!(!all.admit(5).evicted.is_cancelled());
        assert!(first.evicted.is_cancelled(), "it was idle before the other");
        assert_eq!(all.count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_or_asks_is_of_no_use() {
        let idle = Duration::from_secs(20);
        let all = Connections::new(2, idle);
        let connection = all.admit(1);
        let left = || connection.of_use_until(idle) - Instant::now();
        assert_eq!(left(), idle);
        let busy = Busy::of(&connection);
        tokio::time::advance(idle * 10).await;
        assert_eq!(left(), idle, "as long as it takes to answer");
        busy.ready(true);
        tokio::time::advance(idle).await;
        assert_eq!(left(), Duration::ZERO);
        busy.ready(false);
        assert_eq!(left(), idle, "it was taken, and there is no more yet");
        drop(busy);
        assert_eq!(left(), idle);
    }
}
