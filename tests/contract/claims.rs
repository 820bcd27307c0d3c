//! A claim is held by one build.

use nomad_build::backend::{Backend, Submitted};
use nomad_build::build::State;

use crate::lab::{Bench, Lab, submit};
use crate::order::Order;

cases!(
    held_by_the_first,
    one_of_many_at_once,
    only_as_long_as_unfinished,
);

async fn held_by_the_first<L: Lab>() {
    let bench = Bench::<L>::plain();
    let first = bench.submit(Order::quick().claim("key", false)).await;
    let held = Submitted::Held(first.clone());
    let other = bench.lab.server();
    let again = Order::quick().claim("key", false);
    let refused = again.id.clone();
    assert_eq!(submit(&other, again).await, held);
    assert!(bench.server.look(&refused).await.is_err());
    assert!(bench.lab.staged().is_empty(), "{:?}", bench.lab.staged());
    // Any of several claims is enough, and a refused build claims nothing.
    let two = Order::quick().claim("fresh", false).claim("key", false);
    assert_eq!(submit(&other, two).await, held);
    let fresh = Order::quick().claim("fresh", false);
    assert_eq!(submit(&other, fresh).await, Submitted::Accepted);
    // After the end as well.
    bench.ends_as(&first, State::Succeeded).await;
    let late = Order::quick().claim("key", false);
    assert_eq!(submit(&other, late).await, held);
    assert_eq!(bench.server.list().await.unwrap().len(), 2);
}

async fn one_of_many_at_once<L: Lab>() {
    let bench = Bench::<L>::plain();
    let servers = [bench.lab.server(), bench.lab.server()];
    let servers = servers.map(std::sync::Arc::new);
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..8 {
        let server = std::sync::Arc::clone(&servers[index % 2]);
        let order = Order::quick().claim("key", false);
        tasks.spawn(async move {
            let id = order.id.clone();
            let answer = submit(server.as_ref(), order).await;
            if answer == Submitted::Accepted {
                // Who has accepted it lists it at once; the others are told of it.
                let list = server.list().await.unwrap();
                assert!(list.iter().any(|view| view.record.id == id), "{list:?}");
            }
            (id, answer)
        });
    }
    let answers = tasks.join_all().await;
    let accepted: Vec<_> = answers
        .iter()
        .filter(|(_, answer)| *answer == Submitted::Accepted)
        .map(|(id, _)| id.clone())
        .collect();
    assert_eq!(accepted.len(), 1, "{answers:?}");
    for (id, answer) in &answers {
        if *id != accepted[0] {
            assert_eq!(*answer, Submitted::Held(accepted[0].clone()));
        }
    }
    bench.ends_as(&accepted[0], State::Succeeded).await;
    for server in servers.iter().map(std::sync::Arc::as_ref) {
        let list = server.list().await.unwrap();
        assert_eq!(list.len(), 1, "{list:?}");
    }
    assert_eq!(bench.server.list().await.unwrap().len(), 1);
}

async fn only_as_long_as_unfinished<L: Lab>() {
    let bench = Bench::<L>::plain();
    let order = Order::endless().claim("same", true);
    let first = bench.submit_until_it_says(order, "ready").await;
    let second = Order::quick().claim("same", true);
    let held = submit(&bench.server, second).await;
    assert_eq!(held, Submitted::Held(first.clone()));
    bench.cancel(&first).await;
    bench.ends_as(&first, State::Cancelled).await;
    let third = bench.submit(Order::quick().claim("same", true)).await;
    bench.ends_as(&third, State::Succeeded).await;
}
