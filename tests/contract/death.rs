//! Servers and runners die.

use nomad_build::backend::Backend;
use nomad_build::build::{BuildId, Fault, Kind, Phase, State};
use nomad_build::log::Start;

use crate::lab::{Bench, Lab, Victim, query};
use crate::order::{ENDLESS, Order};
use crate::registry::{Registry, app};
use crate::stall::{Act, Proxy, is_blob_upload, is_tag};

cases!(
    the_server_dies_and_another_returns,
    everything_is_killed_in_build,
    the_job_is_killed_in_build,
    the_runner_is_killed_in_build,
    everything_is_killed_in_test,
    the_job_is_killed_in_publish,
    the_job_is_killed_behind_the_commit_point,
    a_marked_build_that_dies_is_cancelled,
    a_stranger_stops_the_job,
);

const LINES: &str = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; usleep 10000; done";

async fn the_server_dies_and_another_returns<L: Lab>() {
    let bench = Bench::<L>::plain();
    let order = Order::run(&[LINES]).test("unit", "echo tested");
    let id = bench.submit(order).await;
    bench.until_phase(&id, Phase::Build).await;
    let Bench { lab, server } = bench;
    drop(server);

    let bench = Bench {
        server: lab.server(),
        lab,
    };
    let view = bench.server.look(&id).await.unwrap();
    assert_eq!(view.state(), State::Running, "it was over before");
    bench.ends_as(&id, State::Succeeded).await;
    let lines = bench.log(&id).await;
    let numbers: Vec<u64> = lines.iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, (1..=lines.len() as u64).collect::<Vec<_>>());
    let said: Vec<&str> = lines
        .iter()
        .filter(|(_, line)| line.text.starts_with("line "))
        .map(|(_, line)| line.text.as_str())
        .collect();
    let expected: Vec<String> = (1..=300).map(|i| format!("line {i}")).collect();
    assert_eq!(said, expected);
    assert!(lines.iter().any(|(_, line)| line.text == "tested"));
}

/// Nobody looks until it is dead; then two servers look at once, and both see the same end.
async fn lost_by<L: Lab>(bench: &Bench<L>, id: &BuildId, victim: Victim, phase: Phase) {
    bench.lab.kill(id, victim);
    let other = bench.lab.server();
    let (a, b) = tokio::join!(bench.server.look(id), other.look(id));
    assert_eq!((a.is_ok(), b.is_ok()), (true, true));
    let end = bench.ends_as(id, State::Lost).await;
    let failure = end.failure.clone().unwrap();
    assert_eq!(
        (failure.kind, failure.fault, failure.retryable),
        (Kind::Interrupted, Fault::Transient, true)
    );
    assert_eq!(end.phase, Some(phase));
    let view = other.look(id).await.unwrap();
    assert_eq!(view.record.end.as_ref(), Some(&end));
    assert_eq!(view, bench.server.look(id).await.unwrap());
    // What it had said is still there.
    assert_eq!(end.log_lines, bench.log(id).await.len() as u64);
    // The place is free again.
    let next = bench.submit(Order::quick()).await;
    bench.ends_as(&next, State::Succeeded).await;
}

async fn everything_is_killed_in_build<L: Lab>() {
    let bench = Bench::<L>::narrow();
    let id = bench.submit_until_it_says(Order::endless(), "ready").await;
    lost_by(&bench, &id, Victim::All, Phase::Build).await;
}

async fn the_job_is_killed_in_build<L: Lab>() {
    let bench = Bench::<L>::narrow();
    let id = bench.submit_until_it_says(Order::endless(), "ready").await;
    lost_by(&bench, &id, Victim::Job, Phase::Build).await;
}

async fn the_runner_is_killed_in_build<L: Lab>() {
    let bench = Bench::<L>::narrow();
    let id = bench.submit_until_it_says(Order::endless(), "ready").await;
    lost_by(&bench, &id, Victim::Runner, Phase::Build).await;
}

async fn everything_is_killed_in_test<L: Lab>() {
    let bench = Bench::<L>::narrow();
    let order = Order::quick().test("endless", ENDLESS);
    let id = bench.submit_until_it_says(order, "ready").await;
    lost_by(&bench, &id, Victim::All, Phase::Test).await;
}

async fn the_job_is_killed_in_publish<L: Lab>() {
    let registry = Registry::open();
    let proxy = Proxy::before(registry.host, is_blob_upload, Act::Hold).await;
    let bench = Bench::<L>::with_registries(&[proxy.host.to_string()]);
    let id = bench.submit(Order::quick().tag(app(proxy.host, "1"))).await;
    proxy.holds().await;
    lost_by(&bench, &id, Victim::Job, Phase::Publish).await;
    proxy.release();
    assert!(registry.is_untagged(), "a lost build was published");
}

/// The tag may be written or not: it is listed as unknown, and the hint says so.
async fn the_job_is_killed_behind_the_commit_point<L: Lab>() {
    let registry = Registry::open();
    let proxy = Proxy::before(registry.host, is_tag, Act::Hold).await;
    let bench = Bench::<L>::with_registries(&[proxy.host.to_string()]);
    let tag = app(proxy.host, "1");
    let id = bench.submit(Order::quick().tag(&tag)).await;
    proxy.holds().await;
    lost_by(&bench, &id, Victim::Job, Phase::Publish).await;
    let end = bench.end(&id).await;
    let image = end.image.unwrap();
    assert!(!image.published);
    assert_eq!(image.tags.len(), 1, "{image:?}");
    assert_eq!((&image.tags[0].tag, &image.tags[0].digest), (&tag, &None));
    let hint = end.failure.unwrap().hint.unwrap();
    assert!(hint.contains("image.tags"), "{hint}");
}

/// The mark decides what the death of the runner means.
async fn a_marked_build_that_dies_is_cancelled<L: Lab>() {
    let bench = Bench::<L>::plain();
    let id = bench.submit_until_it_says(Order::endless(), "ready").await;
    bench.lab.kill(&id, Victim::All);
    bench.cancel(&id).await;
    let end = bench.end(&id).await;
    let marked = bench.server.look(&id).await.unwrap().record.cancel;
    match end.state {
        State::Cancelled => assert_eq!(marked.unwrap().by, "tester"),
        _ => panic!("{end:#?}"),
    }
}

/// SIGTERM without a mark: interrupted, so lost, and the log is complete up to there.
async fn a_stranger_stops_the_job<L: Lab>() {
    let bench = Bench::<L>::plain();
    let id = bench.submit_until_it_says(Order::endless(), "ready").await;
    bench.lab.terminate(&id);
    let end = bench.ends_as(&id, State::Lost).await;
    let failure = end.failure.unwrap();
    assert_eq!(
        (failure.kind, failure.fault),
        (Kind::Interrupted, Fault::Transient)
    );
    let read = bench.server.read_log(&id, query(Start::After(0), 1000));
    let lines = read.await.unwrap().into_lines();
    assert!(lines.iter().any(|(_, line)| line.text == "ready"));
}
