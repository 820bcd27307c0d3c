//! A build that was accepted is there, for everybody, at once.

use nomad_build::backend::{Backend, BackendError};
use nomad_build::build::{BuildId, State};
use nomad_build::log::Start;

use crate::lab::{Bench, Lab, query};
use crate::order::Order;

cases!(durable_at_once, unknown_builds_are_not_found, healthy);

async fn durable_at_once<L: Lab>() {
    let bench = Bench::<L>::plain();
    let order = Order::endless();
    let other = bench.lab.server();
    let submission = order.clone().submission(bench.server.staging());
    let (record, plan) = (submission.record.clone(), submission.plan.clone());
    let request = submission.request.clone();
    let snapshot = submission.snapshot.as_ref().unwrap().path().to_owned();
    bench.server.submit(submission).await.unwrap();

    // The first server is gone before anybody looked.
    drop(bench.server);
    let view = other.look(&record.id).await.unwrap();
    assert!(!view.state().is_final(), "{view:?}");
    let mut read = view.record.clone();
    read.began = None;
    assert_eq!(read, record);
    assert_eq!(bench.lab.plan(&record.id), plan);
    assert_eq!(other.request(&record.id).await.unwrap(), request);
    assert!(!snapshot.exists(), "the snapshot was not taken");
    assert!(bench.lab.staged().is_empty(), "{:?}", bench.lab.staged());
}

async fn unknown_builds_are_not_found<L: Lab>() {
    let bench = Bench::<L>::plain();
    let id = BuildId::from_random([9; 16]);
    let server = &bench.server;
    let not_found = |error: BackendError| matches!(error, BackendError::NotFound(x) if x == id);
    assert!(not_found(server.look(&id).await.unwrap_err()));
    assert!(not_found(server.request(&id).await.unwrap_err()));
    let log = server.read_log(&id, query(Start::After(0), 1)).await;
    assert!(not_found(log.unwrap_err()));
    let cancel = server.cancel(&id, crate::lab::mark("me")).await;
    assert!(not_found(cancel.unwrap_err()));
    assert!(server.list().await.unwrap().is_empty());
}

async fn healthy<L: Lab>() {
    let bench = Bench::<L>::plain();
    bench.is_ready().await;
    let id = bench.submit(Order::quick()).await;
    bench.ends_as(&id, State::Succeeded).await;
    bench.is_ready().await;
    assert!(bench.lab.staged().is_empty(), "{:?}", bench.lab.staged());
}
