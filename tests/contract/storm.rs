//! Many builds at once on a cluster: every one has its own end, and nothing is lost.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use nomad_build::backend::Backend;
use nomad_build::backend::nomad::NomadBackend;
use nomad_build::build::{BuildId, State};

use crate::agent;
use crate::lab::{Bench, Knobs, Lab};
use crate::nomad::{NomadLab, PROGRAM};
use crate::order::Order;

/// In place of the task `build`: says what a build says, in no time. The others are real.
const STAND_IN: &str = r#"#!/bin/sh
[ "$3" = build ] || exec PROGRAM "$@"
t=$(date +%s)000
say() { printf '{"v":1,"n":%s,"t":%s,%s}\n' "$1" "$t" "$2"; }
say 0 '"event":{"kind":"phase_started","phase":"build"}'
n=0
while [ $n -lt 50 ]; do
  n=$((n+1))
  say $n "\"phase\":\"build\",\"stream\":\"output\",\"text\":\"line $n\""
done
say 50 '"event":{"kind":"phase_ended","phase":"build","seconds":0.1}'
say 50 '"event":{"kind":"image","id":"sha256:0000000000000000000000000000000000000000000000000000000000000000"}'
say 50 '"event":{"kind":"result","outcome":"passed"}'
"#;

/// Each server takes its turn.
async fn submit_in_turn(
    servers: &[NomadBackend],
    orders: impl Iterator<Item = Order>,
) -> Vec<BuildId> {
    let mut ids = Vec::new();
    for (order, server) in orders.zip(servers.iter().cycle()) {
        ids.push(order.id.clone());
        server
            .submit(order.submission(server.staging()))
            .await
            .unwrap();
    }
    ids
}

/// Two servers, as many agents of a fleet that ask all the time.
async fn all_end(lab: &NomadLab, servers: &[NomadBackend], ids: &[BuildId]) {
    let mut states: HashMap<State, usize> = HashMap::new();
    for (index, id) in ids.iter().enumerate() {
        let server = &servers[index % servers.len()];
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(300);
        let mut changes = server.watch(id);
        loop {
            let view = server.look(id).await.unwrap();
            if view.state().is_final() {
                *states.entry(view.state()).or_default() += 1;
                break;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{view:#?}\n{}",
                lab.explain(id)
            );
            changes.next(deadline).await;
        }
    }
    assert_eq!(states, HashMap::from([(State::Succeeded, ids.len())]));
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_light_builds() {
    light_builds(40).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make test-all"]
async fn two_hundred_light_builds() {
    light_builds(200).await;
}

async fn light_builds(count: usize) {
    let roomy = agent::Knobs {
        memory_mb: Some(64_000),
        ..agent::Knobs::default()
    };
    let lab = NomadLab::with(Knobs::default(), roomy);
    let program = lab.agent.dir().join("stand-in");
    fs::write(&program, STAND_IN.replace("PROGRAM", PROGRAM)).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let program = program.display().to_string();
    let light = [
        ("program", program.as_str()),
        ("memory", "64"),
        ("cpu", "20"),
        ("disk", "400"),
    ];
    lab.register(&light);
    let servers = [lab.server(), lab.server()];
    let orders = (0..count).map(|_| Order::tiny());
    let ids = submit_in_turn(&servers, orders).await;
    all_end(&lab, &servers, &ids).await;
    // Each log is there as a whole, for a server that has seen none of them.
    let fresh = lab.server();
    let list = fresh.list().await.unwrap();
    assert_eq!(list.len(), ids.len());
    assert!(list.iter().all(|view| view.state() == State::Succeeded));
    let bench = Bench { lab, server: fresh };
    for id in ids.iter().step_by(count / 5) {
        let lines = bench.log(id).await;
        let numbers: Vec<u64> = lines.iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_real_builds() {
    let knobs = Knobs {
        slots: 4,
        ..Knobs::default()
    };
    let lab = NomadLab::with(knobs, agent::Knobs::default());
    let servers = [lab.server(), lab.server()];
    let order = || Order::run(&["echo built", "usleep 200000"]).test("unit", "true");
    let ids = submit_in_turn(&servers, (0..8).map(|_| order())).await;
    all_end(&lab, &servers, &ids).await;
    for id in &ids {
        let remains = lab.remains(id);
        assert!(remains.is_empty(), "{remains:#?}");
    }
}
