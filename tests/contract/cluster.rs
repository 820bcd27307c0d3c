//! What only a cluster does to a build: drains, preemption, agents that die, allocations that are
//! collected, machines that do not fit.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use nomad_build::backend::Backend;
use nomad_build::backend::nomad::NomadBackend;
use nomad_build::build::record::CancelOutcome;
use nomad_build::build::{BuildId, Fault, Kind, Phase, State};
use nomad_build::log::Start;
use nomad_build::nomad::{Client, Dispatch, Items, Options};

use crate::agent;
use crate::lab::{Bench, Knobs, Lab, PATIENCE, assert_cancelled_by, query};
use crate::nomad::NomadLab;
use crate::order::Order;
use crate::proxy;
use crate::registry::{Registry, app};
use crate::stall::{Act, Proxy};

fn bench(slots: u32, agent: agent::Knobs) -> Bench<NomadLab> {
    let knobs = Knobs {
        slots,
        ..Knobs::default()
    };
    let lab = NomadLab::with(knobs, agent);
    let server = lab.server();
    Bench { lab, server }
}

/// With other decisions of the operator.
fn server(
    lab: &mut NomadLab,
    change: impl FnOnce(&mut nomad_build::config::Nomad),
) -> NomadBackend {
    change(&mut lab.config.nomad);
    lab.server()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_placed_fails() {
    let bench = bench(1, agent::Knobs::default());
    let Bench { mut lab, .. } = bench;
    lab.register(&[("profile", "huge"), ("memory", "8192")]);
    let server = server(&mut lab, |config| config.unplaceable_after = 3);
    let bench = Bench { lab, server };
    let id = bench.submit(Order::quick().profile("huge")).await;
    let view = bench
        .until(&id, "why it waits", |view| {
            view.queue
                .as_ref()
                .is_some_and(|one| one.code == "unplaceable")
        })
        .await;
    let reason = view.queue.unwrap().reason;
    assert_eq!(
        reason,
        "no node in dc1 has 8192 MB of memory; the largest has 1536"
    );
    let end = bench.ends_as(&id, State::Failed).await;
    let failure = end.failure.unwrap();
    assert_eq!(
        (failure.kind, failure.fault),
        (Kind::Unplaceable, Fault::Operator)
    );
    assert_eq!(failure.message, reason);
    nothing_waits(&bench, &id).await;
}

/// The job of a build that has ended takes no place any more.
async fn nothing_waits(bench: &Bench<NomadLab>, id: &BuildId) {
    let deadline = Instant::now() + PATIENCE;
    for job in bench.lab.children(id) {
        let path = format!("/v1/job/{}", job.replace('/', "%2F"));
        loop {
            let job = bench.lab.must("GET", &path, None);
            if job["Status"] == "dead" {
                break;
            }
            assert!(Instant::now() < deadline, "{job:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_job_for_a_profile_is_the_operators_matter() {
    let bench = bench(1, agent::Knobs::default());
    let order = Order::quick().profile("other").claim("key", false);
    let id = order.id.clone();
    let error = bench
        .server
        .submit(order.submission(bench.server.staging()))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("nomad-build-other"), "{error}");
    assert!(bench.server.look(&id).await.is_err(), "it was not accepted");
    assert!(bench.server.list().await.unwrap().is_empty());
    // Its claim is free again.
    let next = bench.submit(Order::quick().claim("key", false)).await;
    bench.ends_as(&next, State::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_past_its_deadline_loses_the_build() {
    let bench = bench(1, agent::Knobs::default());
    let id = bench.submit_until_it_says(Order::endless(), "ready").await;
    let nodes = bench.lab.agent.must("GET", "/v1/nodes", None);
    let node = nodes[0]["ID"].as_str().unwrap();
    let path = format!("/v1/node/{node}/drain");
    let drain = json!({"DrainSpec": {"Deadline": 1_000_000_000}});
    bench.lab.agent.must("POST", &path, Some(&drain));
    let end = bench.ends_as(&id, State::Lost).await;
    let failure = end.failure.unwrap();
    assert_eq!(
        (failure.kind, failure.fault),
        (Kind::Interrupted, Fault::Transient)
    );
    assert!(failure.message.contains("drained"), "{}", failure.message);
    assert_eq!(end.phase, Some(Phase::Build));
    // Nomad would place it anew: it must not run twice.
    nothing_waits(&bench, &id).await;
    let open = json!({"DrainSpec": null, "MarkEligible": true});
    bench.lab.agent.must("POST", &path, Some(&open));
    let next = bench.submit(Order::quick()).await;
    bench.ends_as(&next, State::Succeeded).await;
    assert_eq!(bench.server.look(&id).await.unwrap().state(), State::Lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_more_important_job_takes_its_place() {
    let bench = bench(1, agent::Knobs::default());
    let preemption = json!({"SchedulerAlgorithm": "binpack", "PreemptionConfig": {
        "BatchSchedulerEnabled": true, "ServiceSchedulerEnabled": true, "SystemSchedulerEnabled": true}});
    let path = "/v1/operator/scheduler/configuration";
    bench.lab.agent.must("POST", path, Some(&preemption));
    let id = bench.submit_until_it_says(Order::endless(), "ready").await;
    let job = json!({"Job": {
        "ID": "important", "Type": "batch", "Priority": 90, "Datacenters": ["*"],
        "TaskGroups": [{"Name": "g", "Tasks": [{
            "Name": "t", "Driver": "raw_exec", "Config": {"command": "/bin/sleep", "args": ["5"]},
            "Resources": {"CPU": 10, "MemoryMB": 1024}}]}]}});
    bench.lab.agent.must("POST", "/v1/jobs", Some(&job));
    let end = bench.ends_as(&id, State::Lost).await;
    let message = end.failure.unwrap().message;
    assert!(message.contains("more important"), "{message}");
    nothing_waits(&bench, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_stops_the_nomad_job() {
    let bench = bench(2, agent::Knobs::default());
    for purge in ["false", "true"] {
        let id = bench.submit_until_it_says(Order::endless(), "ready").await;
        let child = bench.lab.children(&id).remove(0).replace('/', "%2F");
        let path = format!("/v1/job/{child}?purge={purge}");
        bench.lab.agent.must("DELETE", &path, None);
        bench.ends_as(&id, State::Cancelled).await;
        let view = bench.server.look(&id).await.unwrap();
        assert_cancelled_by(&view, "unknown");
    }
}

/// `kill -9` of the agent: its tasks go on, and it finds them when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn the_agent_is_killed_and_returns() {
    let bench = bench(
        1,
        agent::Knobs {
            durable: true,
            ..agent::Knobs::default()
        },
    );
    let long = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; usleep 20000; done";
    let order = Order::run(&["echo ready", long]).test("unit", "echo tested");
    let id = order.id.clone();
    bench.submit(order).await;
    bench
        .until(&id, "its lines", |view| view.progress.lines > 20)
        .await;
    let Bench { mut lab, server } = bench;
    lab.agent.kill();
    // What is known is still answered, by this server at least.
    assert_eq!(server.look(&id).await.unwrap().state(), State::Running);
    assert!(lab.agent.boot(), "{}", lab.agent.explain());
    let bench = Bench { lab, server };
    bench.ends_as(&id, State::Succeeded).await;
    let lines = bench.log(&id).await;
    let numbers: Vec<u64> = lines.iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, (1..=lines.len() as u64).collect::<Vec<_>>());
    assert!(lines.iter().any(|(_, line)| line.text == "line 400"));
    // A new build, and the other server, see the same cluster.
    let other = bench.lab.server();
    assert_eq!(other.look(&id).await.unwrap().state(), State::Succeeded);
    let next = bench.submit(Order::quick()).await;
    bench.ends_as(&next, State::Succeeded).await;
}

/// Nomad's events come twice, every other one does not come, or none does: builds end as they do.
#[tokio::test(flavor = "multi_thread")]
async fn events_come_twice_or_never() {
    let Bench { mut lab, .. } = bench(1, agent::Knobs::default());
    lab.config.nomad.kill_grace = 5;
    let faults: [proxy::Fault; 3] = [|_| 2, |number| number % 2, |_| 0];
    for times in faults {
        let address = proxy::open(lab.agent.address(), times).await;
        let server = lab.server_at(format!("http://{address}"));
        let bench = Bench { lab, server };
        let id = bench
            .submit(Order::run(&["echo built"]).test("unit", "true"))
            .await;
        bench.ends_as(&id, State::Succeeded).await;
        let log = bench.log(&id).await;
        let built = log.iter().any(|(_, line)| line.text == "built");
        assert!(built, "{log:#?}");
        let id = bench.submit(Order::endless()).await;
        runs(&bench, &id).await;
        bench.cancel(&id).await;
        let view = bench
            .until(&id, "its end", |view| view.state().is_final())
            .await;
        assert_cancelled_by(&view, "tester");
        // Its end may be known before that of what it runs is.
        nothing_remains(&bench, &id).await;
        lab = bench.lab;
    }
}

/// The machine of a build does not answer: a killed build ends all the same, and never publishes.
#[tokio::test(flavor = "multi_thread")]
async fn its_machine_does_not_answer() {
    let registry = Registry::open();
    let knobs = Knobs {
        insecure: vec![registry.host.to_string()],
        ..Knobs::default()
    };
    let mut lab = NomadLab::with(knobs, agent::Knobs::default());
    let far = lab.agent.client();
    let node = lab.agent.node().unwrap();
    let path = format!("/v1/node/{node}/eligibility");
    let closed = json!({"Eligibility": "ineligible"});
    lab.agent.must("POST", &path, Some(&closed));
    let server = server(&mut lab, |config| {
        config.kill_grace = 2;
        config.lost_after = 8;
    });
    let bench = Bench { lab, server };
    for wanted in [State::Cancelled, State::Lost] {
        let id = bench
            .submit_until_it_says(Order::endless().tag(app(registry.host, "1")), "ready")
            .await;
        far.freeze();
        unreachable(&bench, &id).await;
        if wanted == State::Cancelled {
            let answer = bench.cancel(&id).await;
            assert_eq!(answer, CancelOutcome::Marked);
        }
        // What runs there still does; its end is written all the same.
        let view = bench
            .until(&id, "its end", |view| view.state().is_final())
            .await;
        assert_eq!(view.state(), wanted);
        if wanted == State::Lost {
            let message = view.record.end.unwrap().failure.unwrap().message;
            assert!(message.contains("does not answer"), "{message}");
        } else {
            assert_cancelled_by(&view, "tester");
        }
        far.thaw();
        // The machine is back, and is told that nobody needs the build any more.
        nothing_remains(&bench, &id).await;
        assert_eq!(bench.server.look(&id).await.unwrap().state(), wanted);
    }
    assert!(registry.is_untagged());
}

/// Nomad itself says that the task `build` runs.
async fn runs(bench: &Bench<NomadLab>, id: &BuildId) {
    let child = bench.lab.children(id).remove(0);
    let deadline = Instant::now() + PATIENCE;
    let is_running = |one: &serde_json::Value| one["TaskStates"]["build"]["State"] == "running";
    while !bench.lab.allocations(&child).iter().any(is_running) {
        assert!(Instant::now() < deadline, "it does not run");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn nothing_remains(bench: &Bench<NomadLab>, id: &BuildId) {
    let deadline = Instant::now() + PATIENCE;
    while !bench.lab.remains(id).is_empty() {
        assert!(Instant::now() < deadline, "{:#?}", bench.lab.remains(id));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn unreachable(bench: &Bench<NomadLab>, id: &BuildId) {
    let deadline = Instant::now() + PATIENCE;
    let child = bench.lab.children(id).remove(0);
    while bench.lab.allocations(&child)[0]["ClientStatus"] != "unknown" {
        assert!(Instant::now() < deadline, "its machine is still known");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The leader of three servers dies while a build runs; this program talks to another one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "three servers that vote need a machine for themselves: make test-all"]
async fn another_leader_is_elected() {
    let knobs = agent::Knobs {
        durable: true,
        memory_mb: Some(3 * 1024),
        ..agent::Knobs::default()
    };
    let mut servers = agent::Agent::start_servers(3, &knobs);
    let first = servers.remove(0);
    let lab = NomadLab::on(first, Knobs::default());
    let leader = |lab: &NomadLab| lab.agent.call("GET", "/v1/status/leader", None);
    let deadline = Instant::now() + PATIENCE;
    let old = loop {
        // Only another one than that which is asked may go.
        let (_, address) = leader(&lab).unwrap();
        let address = address.as_str().unwrap_or_default().to_owned();
        if let Some(index) = servers.iter().position(|one| one.rpc() == address) {
            break index;
        }
        assert!(Instant::now() < deadline, "{address}");
        let peers = lab
            .agent
            .must("GET", "/v1/operator/raft/configuration", None);
        let other = servers[0].rpc();
        let peer =
            (peers["Servers"].as_array().unwrap().iter()).find(|one| one["Address"] == other);
        let id = peer.unwrap()["ID"].as_str().unwrap();
        let path = format!("/v1/operator/raft/transfer-leadership?id={id}");
        lab.agent.must("PUT", &path, None);
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let server = lab.server();
    // After a change of leaders Nomad answers nothing for a while.
    server.list().await.unwrap();
    let bench = Bench { lab, server };
    let long = "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo line $i; usleep 20000; done";
    let id = bench.submit(Order::run(&["echo ready", long])).await;
    bench
        .until(&id, "its lines", |view| view.progress.lines > 20)
        .await;
    let address = servers[old].rpc();
    servers[old].kill();
    bench.ends_as(&id, State::Succeeded).await;
    let (_, new) = leader(&bench.lab).unwrap();
    assert!(new != "" && new != address.as_str(), "{new}");
    let lines = bench.log(&id).await;
    let numbers: Vec<u64> = lines.iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, (1..=lines.len() as u64).collect::<Vec<_>>());
    let next = bench.submit(Order::quick()).await;
    bench.ends_as(&next, State::Succeeded).await;
}

/// The server that accepted it went before it was placed, and wrote nothing of that; the next one does not say that it waits.
#[tokio::test(flavor = "multi_thread")]
async fn it_was_placed_while_there_was_no_server() {
    let Bench { lab, server } = bench(1, agent::Knobs::default());
    let order = Order::endless().submission(server.staging());
    let id = order.record.id.clone();
    server.submit(order).await.unwrap();
    drop(server);
    let deadline = Instant::now() + PATIENCE;
    let runs = || {
        let child = lab.children(&id).first().cloned()?;
        let allocation = lab.allocations(&child).first().cloned()?;
        Some(allocation["TaskStates"]["build"]["State"] == "running")
    };
    while runs() != Some(true) {
        assert!(Instant::now() < deadline, "it is not placed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let is_stream = |first: &str| first.contains("/v1/event/stream");
    let proxy = Proxy::before(lab.agent.host(), is_stream, Act::Hold).await;
    let server = lab.server_at(format!("http://{}", proxy.host));
    proxy.holds().await;
    let mut look = server.look(&id);
    // All but what it is not told yet is known long before.
    let early = tokio::time::timeout(Duration::from_millis(500), &mut look).await;
    let early = early.map(|view| view.unwrap().state());
    assert!(early.is_err(), "it said {early:?}");
    proxy.release();
    assert_eq!(look.await.unwrap().state(), State::Running);
    let bench = Bench { lab, server };
    bench.cancel(&id).await;
    bench.ends_as(&id, State::Cancelled).await;
}

/// The log is read from the registry, by a server that has never seen it before.
#[tokio::test(flavor = "multi_thread")]
async fn its_allocation_is_collected() {
    let bench = bench(1, agent::Knobs::default());
    let id = bench.submit(Order::run(&["echo archived"])).await;
    bench.ends_as(&id, State::Succeeded).await;
    let before = bench.log(&id).await;
    collected(&bench, &[&id]).await;
    let other = bench.lab.server();
    let read = other.read_log(&id, query(Start::After(0), 10_000)).await;
    assert_eq!(read.unwrap().into_lines(), before);
    let view = other.look(&id).await.unwrap();
    assert_eq!((view.state(), view.log_missing), (State::Succeeded, None));
}

/// Without a repository the log is gone with its allocation, and that is said.
#[tokio::test(flavor = "multi_thread")]
async fn its_allocation_is_collected_and_nothing_was_archived() {
    let Bench { mut lab, .. } = bench(1, agent::Knobs::default());
    lab.forget_repository();
    let server = lab.server();
    let bench = Bench { lab, server };
    // What is more than a dispatch carries needs a repository.
    let large = Order::quick().submission(bench.server.staging());
    let error = bench.server.submit(large).await.unwrap_err().to_string();
    assert!(error.contains("nomad.repository"), "{error}");
    let id = bench.submit(Order::tiny()).await;
    bench.ends_as(&id, State::Succeeded).await;
    // One knows the allocation from before, one is told of it by events of its life.
    let older = bench.lab.server();
    older.list().await.unwrap();
    collected(&bench, &[&id]).await;
    let younger = bench.lab.server();
    let order = Order::tiny().submission(younger.staging());
    let next = order.record.id.clone();
    younger.submit(order).await.unwrap();
    bench
        .until_at(&younger, &next, "its end", |view| view.record.end.is_some())
        .await;
    for server in [&older, &younger] {
        let missing = server.look(&id).await.unwrap().log_missing;
        let missing = missing.expect("nothing is missing");
        assert!(missing.contains("nomad.repository"), "{missing}");
    }
}

/// A node collects what an allocation wrote long before Nomad forgets the allocation.
#[tokio::test(flavor = "multi_thread")]
async fn its_node_has_collected_what_it_wrote() {
    let Bench { mut lab, .. } = bench(1, agent::Knobs::default());
    lab.forget_repository();
    let server = lab.server();
    let bench = Bench { lab, server };
    let id = bench.submit(Order::tiny()).await;
    bench.ends_as(&id, State::Succeeded).await;
    let before = bench.log(&id).await;
    assert!(!before.is_empty());
    let child = bench.lab.children(&id).remove(0);
    let allocation = bench.lab.allocations(&child)[0]["ID"].clone();
    let allocation = allocation.as_str().unwrap();
    let at_its_node = |what: String| {
        let path = format!("/v1/client/{what}");
        bench.lab.agent.call("GET", &path, None)
    };
    let deadline = Instant::now() + PATIENCE;
    while at_its_node(format!("fs/ls/{allocation}")).is_none_or(|(status, _)| status != 404) {
        assert!(Instant::now() < deadline, "it is still there");
        // Only what nobody works on is collected.
        at_its_node(format!("allocation/{allocation}/gc"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let other = bench.lab.server();
    let read = other.read_log(&id, query(Start::After(0), 10_000)).await;
    assert!(read.unwrap().rows.is_empty());
    let missing = other.look(&id).await.unwrap().log_missing;
    let missing = missing.expect("nothing is missing");
    assert!(missing.contains("nomad.repository"), "{missing}");
    // Who has read it has it still.
    assert_eq!(bench.log(&id).await, before);
    let view = bench.server.look(&id).await.unwrap();
    assert_eq!(view.log_missing, None);
}

/// Ends the archiving, then removes jobs and allocations as Nomad does after hours.
async fn collected(bench: &Bench<NomadLab>, ids: &[&BuildId]) {
    let deadline = Instant::now() + PATIENCE;
    for id in ids {
        nothing_waits(bench, id).await;
        let child = bench.lab.children(id).remove(0);
        while !bench.lab.allocations(&child).iter().all(|one| {
            let tasks = one["TaskStates"].as_object().unwrap();
            tasks.values().all(|task| task["State"] == "dead")
        }) {
            assert!(Instant::now() < deadline, "it is still archived");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    while ids.iter().any(|id| !bench.lab.children(id).is_empty()) {
        assert!(Instant::now() < deadline, "Nomad does not collect them");
        bench.lab.agent.must("PUT", "/v1/system/gc", None);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Access is controlled: the policies of `nomad/policies` are enough for everything.
#[tokio::test(flavor = "multi_thread")]
async fn with_no_more_rights_than_needed() {
    let registry = Registry::open();
    let lab = NomadLab::with_access_control(Knobs {
        insecure: vec![registry.host.to_string()],
        ..Knobs::default()
    });
    let server = lab.server();
    let bench = Bench { lab, server };
    bench.is_ready().await;
    let published = bench
        .submit(Order::quick().tag(app(registry.host, "1")))
        .await;
    bench.ends_as(&published, State::Succeeded).await;
    assert!(registry.tagged("1").is_some());
    let killed = bench.submit_until_it_says(Order::endless(), "ready").await;
    bench.cancel(&killed).await;
    bench.ends_as(&killed, State::Cancelled).await;
    let view = bench.server.look(&killed).await.unwrap();
    assert_cancelled_by(&view, "tester");
    // One that waits is stopped, too; and the reason why it waits is known.
    bench
        .lab
        .register(&[("profile", "huge"), ("memory", "9000")]);
    let waits = bench.submit(Order::quick().profile("huge")).await;
    bench
        .until(&waits, "why it waits", |view| {
            view.queue
                .as_ref()
                .is_some_and(|one| one.reason.contains("9000 MB of memory"))
        })
        .await;
    bench.cancel(&waits).await;
    bench.ends_as(&waits, State::Cancelled).await;
    // Each log is archived, also those of allocations that have failed.
    collected(&bench, &[&published, &killed]).await;
    let other = bench.lab.server();
    other.list().await.unwrap();
    for id in [&published, &killed] {
        let view = bench.until_at(&other, id, "its log", |_| true).await;
        assert_eq!(view.log_missing, None);
        let read = other.read_log(id, query(Start::After(0), 10_000)).await;
        assert!(!read.unwrap().rows.is_empty());
    }

    // Nobody else may write a record, the task that starts foreign code least of all.
    let path = format!("nomad-build/b/{published}");
    let forged = Items::from([("record".to_owned(), "forged".to_owned())]);
    for (policy, reads) in [("build", true), ("nothing", false)] {
        let client = client(&bench.lab, &bench.lab.token_of(policy));
        let read = client.variable(&path).await;
        assert_eq!(read.is_ok(), reads, "{policy}: {read:?}");
        let index = read
            .ok()
            .flatten()
            .map_or(0, |variable| variable.modify_index);
        let written = client.write_variable(&path, &forged, index).await;
        assert!(written.unwrap_err().is_denied(), "{policy}");
        let dispatch = Dispatch {
            parent: "nomad-build-default",
            ..Dispatch::default()
        };
        let dispatched = client.dispatch(&dispatch).await;
        assert!(dispatched.unwrap_err().is_denied(), "{policy}");
    }
    // A server without a right says which.
    let token = bench.lab.token_of("nothing");
    let error = client(&bench.lab, &token)
        .job("nomad-build-default")
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("read the job nomad-build-default"),
        "{error}"
    );
}

fn client(lab: &NomadLab, token: &str) -> Client {
    let options = Options::from_env(|name| match name {
        "NOMAD_ADDR" => Some(lab.agent.address()),
        "NOMAD_TOKEN" => Some(token.to_owned()),
        "NOMAD_NAMESPACE" => lab.config.nomad.namespace.clone(),
        _ => None,
    });
    Client::new(options.unwrap()).unwrap()
}

/// Whether there is a build cannot be told by what an answer costs.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_build_costs_what_none_costs() {
    let bench = bench(2, agent::Knobs::default());
    let id = bench.submit(Order::quick().by("ann")).await;
    bench.ends_as(&id, State::Succeeded).await;
    let unknown = BuildId::from_random([7; 16]);
    let cost = async |id: &BuildId, who: Option<&str>| {
        let requests = || bench.server.vitals().requests.iter().map(|one| one.1).sum();
        let before: u64 = requests();
        let owner = bench.server.owner(id, who).await.ok();
        (requests() - before, owner)
    };
    // What goes on in the background costs something, too: the least is looked at.
    let mut least = [u64::MAX; 4];
    for _ in 0..10 {
        let costs = [
            cost(&id, Some("ann")).await,
            cost(&id, None).await,
            cost(&id, Some("bob")).await,
            cost(&unknown, Some("bob")).await,
        ];
        let owners: Vec<_> = costs.iter().map(|cost| cost.1.as_deref()).collect();
        assert_eq!(owners, [Some("ann"), Some("ann"), Some("ann"), None]);
        for (least, cost) in least.iter_mut().zip(costs) {
            *least = cost.0.min(*least);
        }
    }
    assert_eq!(least, [0, 0, 1, 1]);
}
