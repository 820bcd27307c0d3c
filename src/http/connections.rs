//! Connections: accepted, bounded in number and in time, and let go when the server ends.
//!
//! Whoever connects and says nothing must not keep others out: when there are as many connections as
//! there may be, the one that has been idle for longest makes room.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::listen::{Listener, Peer, Stream};

/// How long the greeting of TLS may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(15);
/// How long a connection may be without a request. Longer than proxies and clients keep theirs, which
/// else send a request into a connection that is just being closed.
const IDLE: Duration = Duration::from_secs(90);
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
    open: Arc<Mutex<HashMap<u64, Arc<Connection>>>>,
}

/// One of them.
#[derive(Debug)]
struct Connection {
    /// Requests whose answers are not yet sent.
    busy: AtomicUsize,
    /// When it began, or its last request ended.
    idle_since: Mutex<Instant>,
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
}

/// A request that is being answered.
struct Busy(Arc<Connection>);

impl Busy {
    fn of(connection: &Arc<Connection>) -> Self {
        connection.busy.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(connection))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *(self.0.idle_since.lock()).unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Connections {
    /// None yet; `most` at the same time.
    pub fn new(most: usize) -> Self {
        Self {
            most,
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
                match (stream, acceptor) {
                    (Stream::Unix(stream), _) => {
                        attend(stream, peer, app, &connection, ending).await
                    }
                    (Stream::Tcp(stream), acceptor) => {
                        // Without this an answer waits for the acknowledgement of what came before it.
                        if let Err(error) = stream.set_nodelay(true) {
                            tracing::debug!(%error, "a connection stays slow");
                        }
                        match acceptor {
                            None => attend(stream, peer, app, &connection, ending).await,
                            Some(acceptor) => {
                                let greeting =
                                    tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
                                match greeting.await {
                                    Ok(Ok(stream)) => {
                                        attend(stream, peer, app, &connection, ending).await;
                                    }
                                    Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS"),
                                    Err(_) => tracing::debug!(%peer, "TLS takes too long"),
                                }
                            }
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

/// Answers the requests of one connection.
async fn attend<S>(
    stream: S,
    peer: Peer,
    app: Router,
    connection: &Arc<Connection>,
    ending: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
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
            // Until the last byte of the answer.
            Ok::<_, Infallible>(response.map(|body| {
                body.map_frame(move |frame| {
                    let _ = &busy;
                    frame
                })
            }))
        }
    });
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), answer));
    let mut closing = false;
    loop {
        let look = connection.idle_since().unwrap_or_else(Instant::now) + IDLE;
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
                if connection.idle_since().is_some_and(|since| since.elapsed() >= IDLE) {
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
        let all = Connections::new(2);
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
}
