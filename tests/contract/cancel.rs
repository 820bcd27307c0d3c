//! A cancel in each phase, and by whom.

use nomad_build::backend::Backend;
use nomad_build::build::record::CancelOutcome;
use nomad_build::build::{Phase, State};

use crate::lab::{Bench, Lab, PATIENCE, assert_cancelled_by, mark};
use crate::order::{ENDLESS, Order};
use crate::stall::silent;

cases!(
    while_queued,
    in_source,
    in_build,
    in_test,
    after_the_end,
    twice_and_from_two_servers,
    in_the_first_moment,
);

async fn while_queued<L: Lab>() {
    let bench = Bench::<L>::narrow();
    let first = bench.submit_until_it_says(Order::endless(), "ready").await;
    let second = bench.submit(Order::run(&["echo never"])).await;
    assert_eq!(bench.cancel(&second).await, CancelOutcome::Marked);
    let end = bench.ends_as(&second, State::Cancelled).await;
    assert_eq!((end.phase, end.log_lines), (None, 0));
    let view = bench.server.look(&second).await.unwrap();
    assert_cancelled_by(&view, "tester");
    assert_eq!(view.record.began, None);
    assert!(bench.log(&second).await.is_empty());
    // It stands in nobody's way, and the one before it does not notice.
    let third = bench.submit(Order::quick()).await;
    let view = bench.server.look(&third).await.unwrap();
    assert_eq!(view.queue.unwrap().position, Some(1));
    let view = bench.server.look(&first).await.unwrap();
    assert_eq!(view.state(), State::Running);
}

async fn in_source<L: Lab>() {
    let (host, mut came) = silent().await;
    let bench = Bench::<L>::plain();
    let order = Order::from_git(format!("http://{host}/x.git"));
    let id = bench.submit(order).await;
    tokio::time::timeout(PATIENCE, came.wait_for(|count| *count > 0))
        .await
        .expect("git does not come")
        .unwrap();
    ends_in(&bench, &id, Phase::Source).await;
}

async fn in_build<L: Lab>() {
    let bench = Bench::<L>::plain();
    let id = bench.submit_until_it_says(Order::endless(), "ready").await;
    ends_in(&bench, &id, Phase::Build).await;
}

async fn in_test<L: Lab>() {
    let bench = Bench::<L>::plain();
    let order = Order::quick()
        .test("endless", ENDLESS)
        .test("never", "true");
    let id = bench.submit_until_it_says(order, "ready").await;
    ends_in(&bench, &id, Phase::Test).await;
}

async fn ends_in<L: Lab>(bench: &Bench<L>, id: &nomad_build::build::BuildId, phase: Phase) {
    assert_eq!(bench.cancel(id).await, CancelOutcome::Marked);
    let end = bench.ends_as(id, State::Cancelled).await;
    assert_eq!(end.phase, Some(phase));
    let view = bench.server.look(id).await.unwrap();
    assert_cancelled_by(&view, "tester");
    let reason = view.record.cancel.unwrap().reason;
    assert_eq!(reason.as_deref(), Some("tester said so"));
}

async fn after_the_end<L: Lab>() {
    let bench = Bench::<L>::plain();
    let id = bench.submit(Order::quick()).await;
    bench.ends_as(&id, State::Succeeded).await;
    let before = bench.server.look(&id).await.unwrap();
    for _ in 0..2 {
        assert_eq!(bench.cancel(&id).await, CancelOutcome::Ended);
    }
    assert_eq!(bench.server.look(&id).await.unwrap(), before);
    assert_eq!(before.record.cancel, None);
}

async fn twice_and_from_two_servers<L: Lab>() {
    let bench = Bench::<L>::plain();
    let id = bench.submit_until_it_says(Order::endless(), "ready").await;
    let other = bench.lab.server();
    let (a, b) = tokio::join!(
        bench.server.cancel(&id, mark("first")),
        other.cancel(&id, mark("second"))
    );
    let outcomes = [a.unwrap(), b.unwrap()];
    let winners: Vec<&str> = ["first", "second"]
        .into_iter()
        .zip(outcomes)
        .filter(|(_, outcome)| *outcome == CancelOutcome::Marked)
        .map(|(name, _)| name)
        .collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    let third = bench.cancel(&id).await;
    assert!(
        matches!(third, CancelOutcome::AlreadyMarked | CancelOutcome::Ended),
        "{third:?}"
    );
    bench.ends_as(&id, State::Cancelled).await;
    let view = bench.server.look(&id).await.unwrap();
    assert_cancelled_by(&view, winners[0]);
    assert_eq!(other.look(&id).await.unwrap(), view);
    assert_eq!(bench.cancel(&id).await, CancelOutcome::Ended);
}

/// Before anything of it runs: no moment is too early.
async fn in_the_first_moment<L: Lab>() {
    let bench = Bench::<L>::plain();
    for _ in 0..4 {
        let id = bench.submit(Order::endless()).await;
        assert_eq!(bench.cancel(&id).await, CancelOutcome::Marked);
        bench.ends_as(&id, State::Cancelled).await;
        let view = bench.server.look(&id).await.unwrap();
        assert_cancelled_by(&view, "tester");
    }
}
