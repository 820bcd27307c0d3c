//! Run once: a runner that finds its build begun or ended does nothing.

use nomad_build::backend::Backend;
use nomad_build::build::State;

use crate::lab::{Bench, Lab};
use crate::order::Order;

cases!(
    a_second_job_beside_a_running_one,
    a_second_job_after_the_end
);

async fn a_second_job_beside_a_running_one<L: Lab>() {
    let bench = Bench::<L>::plain();
    let order = Order::run(&["echo begun", "echo ready; usleep 4000000", "echo done"]);
    let id = bench.submit_until_it_says(order, "ready").await;
    bench.lab.run_again(&id).await;
    let end = bench.ends_as(&id, State::Succeeded).await;
    assert_eq!(end.failure, None);
    let lines = bench.log(&id).await;
    for text in ["begun", "ready", "done"] {
        let said = lines.iter().filter(|(_, line)| line.text == text).count();
        assert_eq!(said, 1, "{text}: {lines:#?}");
    }
    let numbers: Vec<u64> = lines.iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, (1..=lines.len() as u64).collect::<Vec<_>>());
}

async fn a_second_job_after_the_end<L: Lab>() {
    let bench = Bench::<L>::plain();
    let id = bench.submit(Order::run(&["echo begun"])).await;
    bench.ends_as(&id, State::Succeeded).await;
    let (view, lines) = (bench.server.look(&id).await.unwrap(), bench.log(&id).await);
    bench.lab.run_again(&id).await;
    assert_eq!(bench.server.look(&id).await.unwrap(), view);
    assert_eq!(bench.log(&id).await, lines);
    assert!(bench.lab.remains(&id).is_empty());
}
