//! The phase publish: registries that fail, and a cancel on either side of the commit point.

use nomad_build::backend::Backend;
use nomad_build::build::record::CancelOutcome;
use nomad_build::build::status::TagState;
use nomad_build::build::{Failure, Fault, Kind, Phase, State};

use crate::lab::{Bench, Lab, assert_cancelled_by};
use crate::order::Order;
use crate::registry::{Registry, app};
use crate::stall::{Act, DENIED, Proxy, is_blob_upload, is_manifest, is_tag, is_upload_begun};

cases!(
    the_registry_goes_away,
    the_registry_denies,
    the_registry_denies_the_tag,
    cancelled_during_the_upload,
    the_mark_alone_closes_the_gate,
    committed_before_the_cancel,
);

/// A registry behind a proxy that disturbs some requests, and a bench that may push there.
async fn behind<L: Lab>(concerns: fn(&str) -> bool, act: Act) -> (Registry, Proxy, Bench<L>) {
    let registry = Registry::open();
    let proxy = Proxy::before(registry.host, concerns, act).await;
    let bench = Bench::with_registries(&[proxy.host.to_string()]);
    (registry, proxy, bench)
}

fn typed(failure: &Failure) -> (Option<Phase>, Kind, Fault) {
    (failure.phase, failure.kind, failure.fault)
}

async fn the_registry_goes_away<L: Lab>() {
    let (mut registry, proxy, bench) = behind::<L>(is_blob_upload, Act::Hold).await;
    let id = bench.submit(Order::quick().tag(app(proxy.host, "1"))).await;
    proxy.holds().await;
    registry.kill();
    proxy.release();
    let end = bench.ends_as(&id, State::Failed).await;
    assert_eq!(
        typed(&end.failure.unwrap()),
        (
            Some(Phase::Publish),
            Kind::RegistryUnreachable,
            Fault::Transient
        )
    );
    let image = end.image.unwrap();
    assert!(!image.published && image.tags.is_empty(), "{image:?}");
}

async fn the_registry_denies<L: Lab>() {
    let (registry, proxy, bench) = behind::<L>(is_upload_begun, Act::Answer(DENIED)).await;
    let id = bench.submit(Order::quick().tag(app(proxy.host, "1"))).await;
    let end = bench.ends_as(&id, State::Failed).await;
    assert_eq!(
        typed(&end.failure.unwrap()),
        (Some(Phase::Publish), Kind::PushDenied, Fault::Operator)
    );
    let image = end.image.unwrap();
    assert!(!image.published && image.tags.is_empty(), "{image:?}");
    let record = bench.server.look(&id).await.unwrap().record;
    assert_eq!(record.commit, None);
    assert!(registry.is_untagged());
}

/// Beyond the commit point a refusal is still told as what it is, tag by tag.
async fn the_registry_denies_the_tag<L: Lab>() {
    let second = |first: &str| is_tag(first) && first.contains("/second ");
    let (registry, proxy, bench) = behind::<L>(second, Act::Answer(DENIED)).await;
    let order = Order::quick()
        .tag(app(proxy.host, "first"))
        .tag(app(proxy.host, "second"));
    let id = bench.submit(order).await;
    let end = bench.ends_as(&id, State::Failed).await;
    assert_eq!(
        typed(&end.failure.unwrap()),
        (Some(Phase::Publish), Kind::PushDenied, Fault::Operator)
    );
    let image = end.image.unwrap();
    assert!(!image.published);
    let first = registry.tagged("first").unwrap();
    assert_eq!(registry.tagged("second"), None);
    // What is confirmed is listed; what was refused is certainly not there.
    assert_eq!(image.tags.len(), 1, "{image:?}");
    assert_eq!(image.tags[0].state, TagState::Confirmed);
    assert_eq!(image.tags[0].digest, Some(first.digest));
}

async fn cancelled_during_the_upload<L: Lab>() {
    let (registry, proxy, bench) = behind::<L>(is_blob_upload, Act::Hold).await;
    let id = bench.submit(Order::quick().tag(app(proxy.host, "1"))).await;
    proxy.holds().await;
    bench.until_phase(&id, Phase::Publish).await;
    assert_eq!(bench.cancel(&id).await, CancelOutcome::Marked);
    bench.ends_as(&id, State::Cancelled).await;
    proxy.release();
    let view = bench.server.look(&id).await.unwrap();
    assert_cancelled_by(&view, "tester");
    assert_eq!(view.record.commit, None);
    assert!(registry.is_untagged());
}

/// The runner hears nothing of the cancel and comes to its commit point: it must not pass.
async fn the_mark_alone_closes_the_gate<L: Lab>() {
    let (registry, proxy, bench) = behind::<L>(is_manifest, Act::Hold).await;
    let id = bench.submit(Order::quick().tag(app(proxy.host, "1"))).await;
    proxy.holds().await;
    bench.lab.freeze(&id);
    assert_eq!(bench.cancel(&id).await, CancelOutcome::Marked);
    proxy.release();
    bench
        .until(&id, "publish's last word", |view| {
            view.progress.outcome.is_some()
        })
        .await;
    bench.lab.thaw(&id);
    bench.ends_as(&id, State::Cancelled).await;
    let view = bench.server.look(&id).await.unwrap();
    assert_cancelled_by(&view, "tester");
    assert_eq!(view.record.commit, None);
    assert!(registry.is_untagged());
}

async fn committed_before_the_cancel<L: Lab>() {
    let (registry, proxy, bench) = behind::<L>(is_tag, Act::Hold).await;
    let id = bench.submit(Order::quick().tag(app(proxy.host, "1"))).await;
    proxy.holds().await;
    let other = bench.lab.server();
    assert_eq!(bench.cancel(&id).await, CancelOutcome::Committed);
    let again = other.cancel(&id, crate::lab::mark("other")).await.unwrap();
    assert_eq!(again, CancelOutcome::Committed);
    let view = bench.server.look(&id).await.unwrap();
    assert_eq!((view.state(), &view.record.cancel), (State::Running, &None));
    proxy.release();
    let end = bench.ends_as(&id, State::Succeeded).await;
    let found = registry.tagged("1").expect("the tag is not there");
    let image = end.image.unwrap();
    assert!(image.published);
    assert_eq!(image.tags[0].digest, Some(found.digest));
    assert_eq!(bench.cancel(&id).await, CancelOutcome::Ended);
}
