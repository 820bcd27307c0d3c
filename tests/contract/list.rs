//! The list of builds, and how long they stay in it.

use nomad_build::backend::{Backend, View};
use nomad_build::build::{BuildId, State};

use crate::lab::{Bench, Knobs, Lab, PATIENCE};
use crate::order::Order;

cases!(newest_first_for_every_server, retention);

fn ids(list: &[View]) -> Vec<BuildId> {
    list.iter().map(|view| view.record.id.clone()).collect()
}

async fn newest_first_for_every_server<L: Lab>() {
    let bench = Bench::<L>::narrow();
    let mut newest_first = Vec::new();
    let first = bench.submit_until_it_says(Order::endless(), "ready").await;
    newest_first.insert(0, first.clone());
    for _ in 0..3 {
        newest_first.insert(0, bench.submit(Order::quick()).await);
    }
    let other = bench.lab.server();
    let list = bench.server.list().await.unwrap();
    assert_eq!(ids(&list), newest_first);
    let states: Vec<State> = list.iter().map(View::state).collect();
    assert_eq!(
        states,
        [State::Queued, State::Queued, State::Queued, State::Running]
    );
    assert_eq!(ids(&other.list().await.unwrap()), newest_first);

    bench.cancel(&first).await;
    for id in &newest_first {
        bench.end(id).await;
    }
    let list = bench.server.list().await.unwrap();
    assert_eq!(ids(&list), newest_first);
    assert_eq!(other.list().await.unwrap(), list);
    let states: Vec<State> = list.iter().map(View::state).collect();
    assert_eq!(states[3], State::Cancelled);
    assert_eq!(states[..3], [State::Succeeded; 3]);
}

async fn retention<L: Lab>() {
    let bench = Bench::<L>::new(Knobs {
        keep_builds: 2,
        ..Knobs::default()
    });
    // The oldest of all, and it runs.
    let running = bench.submit_until_it_says(Order::endless(), "ready").await;
    let mut ended = Vec::new();
    for _ in 0..4 {
        let id = bench.submit(Order::quick()).await;
        bench.ends_as(&id, State::Succeeded).await;
        ended.push(id);
    }
    let last = bench.submit(Order::endless()).await;
    let expected = vec![last, ended[3].clone(), ended[2].clone(), running.clone()];
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let list = ids(&bench.server.list().await.unwrap());
        if list == expected {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{list:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(bench.server.look(&ended[0]).await.is_err());
    let view = bench.server.look(&running).await.unwrap();
    assert_eq!(view.state(), State::Running);
    // What is kept can still be read.
    assert!(!bench.log(&ended[2]).await.is_empty());
}
