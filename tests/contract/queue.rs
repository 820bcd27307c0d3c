//! Builds wait for capacity, in the order of acceptance, and say why.

use nomad_build::backend::Backend;
use nomad_build::build::{Fault, Kind, State};

use crate::lab::{Bench, Lab, Victim, assert_cancelled_by};
use crate::order::Order;

cases!(
    position_and_reason,
    in_order_of_acceptance,
    principals_take_turns,
    two_slots_run_two_builds,
    gives_up_after_its_time,
    a_stranger_stops_a_waiter;
    // On a cluster a build that waits is no process anywhere.
    local a_dead_waiter_is_started_again,
);

async fn position_and_reason<L: Lab>() {
    let bench = Bench::<L>::narrow();
    let first = bench.submit_until_it_says(Order::endless(), "ready").await;
    let second = bench.submit(Order::endless()).await;
    let third = bench.submit(Order::quick()).await;
    for (id, position) in [(&second, 1), (&third, 2)] {
        let view = bench
            .until(id, "the reason why it waits", |view| {
                view.queue
                    .as_ref()
                    .is_some_and(|queue| queue.code == L::BUSY.0)
            })
            .await;
        assert_eq!(view.state(), State::Queued);
        let queue = view.queue.expect("it does not say why it waits");
        assert_eq!(queue.position, Some(position));
        assert_eq!(queue.code, L::BUSY.0);
        assert!(queue.reason.contains(L::BUSY.1), "{}", queue.reason);
        assert!(
            (290..=300).contains(&queue.gives_up_in_seconds),
            "{queue:?}"
        );
    }
    assert!(bench.server.look(&first).await.unwrap().queue.is_none());

    bench.cancel(&first).await;
    bench.ends_as(&first, State::Cancelled).await;
    bench.until_it_says(&second, "ready").await;
    let view = bench.server.look(&third).await.unwrap();
    assert_eq!(view.state(), State::Queued);
    assert_eq!(view.queue.unwrap().position, Some(1));

    bench.cancel(&second).await;
    bench.ends_as(&third, State::Succeeded).await;
    bench.ends_as(&second, State::Cancelled).await;
}

async fn in_order_of_acceptance<L: Lab>() {
    let bench = Bench::<L>::narrow();
    let first = bench.submit_until_it_says(Order::endless(), "ready").await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(bench.submit(Order::quick()).await);
    }
    bench.cancel(&first).await;
    let mut began = Vec::new();
    for id in &ids {
        bench.ends_as(id, State::Succeeded).await;
        began.push(bench.server.look(id).await.unwrap().record.began.unwrap());
    }
    assert!(began.is_sorted(), "{began:?}");
}

async fn principals_take_turns<L: Lab>() {
    let bench = Bench::<L>::narrow();
    let first = bench.submit_until_it_says(Order::endless(), "ready").await;
    let mut many = Vec::new();
    for _ in 0..3 {
        many.push(bench.submit(Order::quick()).await);
    }
    let other = bench.submit(Order::quick().by("another")).await;
    bench.cancel(&first).await;
    for id in many.iter().chain([&other]) {
        bench.ends_as(id, State::Succeeded).await;
    }
    let mut began = Vec::new();
    for id in [&other, &many[1], &many[2]] {
        began.push(bench.server.look(id).await.unwrap().record.began.unwrap());
    }
    assert!(began.is_sorted(), "{began:?}");
}

async fn two_slots_run_two_builds<L: Lab>() {
    let bench = Bench::<L>::plain();
    let a = bench.submit(Order::endless()).await;
    let b = bench.submit(Order::endless()).await;
    bench.until_it_says(&a, "ready").await;
    bench.until_it_says(&b, "ready").await;
    let third = bench.submit(Order::quick()).await;
    let view = bench.server.look(&third).await.unwrap();
    assert_eq!(view.state(), State::Queued);
    assert_eq!(view.queue.unwrap().position, Some(1));
    for id in [&a, &b] {
        assert_eq!(bench.server.look(id).await.unwrap().state(), State::Running);
        bench.cancel(id).await;
    }
    for id in [&a, &b] {
        bench.ends_as(id, State::Cancelled).await;
    }
    bench.ends_as(&third, State::Succeeded).await;
}

async fn gives_up_after_its_time<L: Lab>() {
    let bench = Bench::<L>::narrow();
    let first = bench.submit_until_it_says(Order::endless(), "ready").await;
    let second = bench.submit(Order::quick().queue_timeout(1)).await;
    let end = bench.ends_as(&second, State::Failed).await;
    let failure = end.failure.unwrap();
    assert_eq!(
        (failure.kind, failure.fault, failure.phase),
        (Kind::QueueTimedOut, Fault::Operator, None)
    );
    assert_eq!(end.phase, None);
    let record = bench.server.look(&second).await.unwrap().record;
    assert_eq!(record.began, None);
    let still = bench.server.look(&first).await.unwrap();
    assert_eq!(still.state(), State::Running);
}

async fn a_dead_waiter_is_started_again<L: Lab>() {
    let bench = Bench::<L>::narrow();
    let first = bench.submit_until_it_says(Order::endless(), "ready").await;
    let second = bench.submit(Order::run(&["echo once"])).await;
    bench.lab.kill(&second, Victim::Job);
    // Several servers see it at once; it is started once.
    let other = bench.lab.server();
    let (a, b, list) = tokio::join!(
        other.look(&second),
        bench.server.look(&second),
        other.list()
    );
    for view in [a.unwrap(), b.unwrap(), list.unwrap().swap_remove(0)] {
        assert_eq!(view.record.id, second);
        assert_eq!(view.state(), State::Queued);
    }
    bench.cancel(&first).await;
    bench.ends_as(&second, State::Succeeded).await;
    let said = bench.log(&second).await;
    assert_eq!(
        said.iter().filter(|(_, line)| line.text == "once").count(),
        1
    );
}

/// The queue has not failed it: it waits on, or is lost; or it is known that somebody stopped it.
async fn a_stranger_stops_a_waiter<L: Lab>() {
    let bench = Bench::<L>::narrow();
    let first = bench.submit_until_it_says(Order::endless(), "ready").await;
    let second = bench.submit(Order::quick()).await;
    bench
        .until(&second, "its place", |view| view.queue.is_some())
        .await;
    bench.lab.terminate(&second);
    bench.cancel(&first).await;
    let end = bench.end(&second).await;
    match end.state {
        State::Succeeded => {}
        State::Lost => assert_eq!(end.failure.unwrap().fault, Fault::Transient),
        State::Cancelled => {
            let view = bench.server.look(&second).await.unwrap();
            assert_cancelled_by(&view, "unknown");
        }
        _ => panic!("a stranger's SIGTERM is no want of capacity: {end:#?}"),
    }
}
