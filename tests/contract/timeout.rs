//! The time of a whole build.

use nomad_build::build::{Kind, Phase, State};

use crate::lab::{Bench, Lab};
use crate::order::{ENDLESS, Order};
use crate::registry::{Registry, app};
use crate::stall::{Act, Proxy, is_blob_upload};

cases!(in_build, in_test, in_publish);

/// The first build of a place finds out what the host can do; that would count. What comes before the phase is done in a
/// second, or in a few where the disk is busy.
async fn warm<L: Lab>(bench: &Bench<L>) {
    let id = bench.submit(Order::quick()).await;
    bench.ends_as(&id, State::Succeeded).await;
}

async fn out_of_time<L: Lab>(bench: &Bench<L>, order: Order, phase: Phase) {
    let id = bench.submit(order).await;
    let end = bench.ends_as(&id, State::TimedOut).await;
    let failure = end.failure.unwrap();
    assert_eq!((failure.phase, failure.kind), (Some(phase), Kind::TimedOut));
    assert_eq!(end.phase, Some(phase));
}

async fn in_build<L: Lab>() {
    let bench = Bench::<L>::plain();
    warm(&bench).await;
    out_of_time(&bench, Order::endless().timeout(10), Phase::Build).await;
}

/// It is the build's end, not the test's.
async fn in_test<L: Lab>() {
    let bench = Bench::<L>::plain();
    warm(&bench).await;
    let order = Order::quick().test("endless", ENDLESS).timeout(10);
    out_of_time(&bench, order, Phase::Test).await;
}

async fn in_publish<L: Lab>() {
    let registry = Registry::open();
    let proxy = Proxy::before(registry.host, is_blob_upload, Act::Hold).await;
    let bench = Bench::<L>::with_registries(&[proxy.host.to_string()]);
    warm(&bench).await;
    let order = Order::quick().tag(app(proxy.host, "1")).timeout(10);
    out_of_time(&bench, order, Phase::Publish).await;
    assert!(registry.is_untagged());
}
