//! The cursor of a log: through all phases, and after the end.

use nomad_build::backend::Backend;
use nomad_build::build::{BuildId, Phase, State};
use nomad_build::log::{Line, Start};

use crate::lab::{Bench, Knobs, Lab, query};
use crate::order::Order;
use crate::registry::{Registry, app};

cases!(
    pages_meet_across_phases_and_after_the_end,
    all_phases_share_one_limit
);

/// Three at a time, as many as there are now.
async fn onwards<L: Lab>(bench: &Bench<L>, id: &BuildId, read: &mut Vec<(u64, Line)>) {
    loop {
        let cursor = read.last().map_or(0, |(n, _)| *n);
        let page = bench.server.read_log(id, query(Start::After(cursor), 3));
        let page = page.await.unwrap();
        assert!(page.rows.len() <= 3 && page.total >= cursor);
        let more = page.more;
        read.extend(page.into_lines());
        if !more {
            return;
        }
    }
}

async fn pages_meet_across_phases_and_after_the_end<L: Lab>() {
    let registry = Registry::open();
    let bench = Bench::<L>::with_registries(&[registry.host.to_string()]);
    let count = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo $i; usleep 5000; done";
    let order = Order::run(&[count, "echo ä; printf 'no newline'"])
        .test("unit", count)
        .tag(app(registry.host, "1"));
    let id = bench.submit(order).await;

    // A reader that follows while it runs, beginning in the middle of nothing.
    let mut followed = Vec::new();
    let mut changes = bench.server.watch(&id);
    let deadline = tokio::time::Instant::now() + crate::lab::PATIENCE;
    while bench.server.look(&id).await.unwrap().record.end.is_none() {
        assert!(tokio::time::Instant::now() < deadline);
        onwards(&bench, &id, &mut followed).await;
        changes.next(deadline).await;
    }
    onwards(&bench, &id, &mut followed).await;
    let end = bench.ends_as(&id, State::Succeeded).await;

    let all = bench.log(&id).await;
    let numbers: Vec<u64> = all.iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, (1..=end.log_lines).collect::<Vec<_>>());
    let mut phases: Vec<Phase> = all.iter().map(|(_, line)| line.phase).collect();
    assert!(phases.is_sorted());
    phases.dedup();
    assert_eq!(
        phases,
        [Phase::Source, Phase::Build, Phase::Test, Phase::Publish]
    );
    // What Buildah prints next stands on the same line.
    let unfinished = |line: &Line| line.text.starts_with("no newline");
    assert_eq!(all.iter().filter(|(_, line)| unfinished(line)).count(), 1);
    assert_eq!(followed, all, "lines changed after the end");

    let mut forwards = Vec::new();
    onwards(&bench, &id, &mut forwards).await;
    assert_eq!(forwards, all);

    let mut backwards: Vec<(u64, Line)> = Vec::new();
    loop {
        let cursor = backwards.first().map(|(n, _)| *n);
        let page = bench.server.read_log(&id, query(Start::Before(cursor), 3));
        let page = page.await.unwrap();
        assert!(page.rows.len() <= 3);
        let more = page.more;
        backwards.splice(0..0, page.into_lines());
        if !more {
            break;
        }
    }
    assert_eq!(backwards, all);

    // Another server reads the same; behind the last line is nothing.
    let other = bench.lab.server();
    let page = other.read_log(&id, query(Start::After(0), 1_000_000)).await;
    assert_eq!(page.unwrap().into_lines(), all);
    let behind = other.read_log(&id, query(Start::After(end.log_lines), 3));
    let behind = behind.await.unwrap();
    assert_eq!((behind.rows.len(), behind.more), (0, false));
    assert_eq!(behind.total, end.log_lines);
}

/// They run as different tasks on a cluster.
async fn all_phases_share_one_limit<L: Lab>() {
    let registry = Registry::open();
    let bench = Bench::<L>::new(Knobs {
        insecure: vec![registry.host.to_string()],
        log_mb: Some(1),
        ..Knobs::default()
    });
    let flood = "i=0; while [ $i -lt 9000 ]; do i=$((i+1)); printf '%0200d\\n' $i; done";
    let order = Order::run(&[flood])
        .test("unit", flood)
        .tag(app(registry.host, "1"));
    let id = bench.submit(order).await;
    let end = bench.ends_as(&id, State::Succeeded).await;
    assert!(end.log_lines > 18_000, "{}", end.log_lines);

    let all = bench.log(&id).await;
    let kept: usize = all.iter().map(|(_, line)| line.text.len()).sum();
    assert!((400_000..1 << 20).contains(&kept), "{kept} bytes");
    assert!(all.is_sorted_by(|(a, _), (b, _)| a < b));
    for phase in [Phase::Build, Phase::Test] {
        let numbered = all.iter().filter(|(_, line)| line.phase == phase);
        let printed: Vec<u32> = numbered
            .filter_map(|(_, line)| line.text.parse().ok())
            .collect();
        assert_eq!((printed.first(), printed.last()), (Some(&1), Some(&9000)));
        assert!(printed.len() < 9000, "all of {phase:?} is there");
    }
    let last = all.last().map(|(n, line)| (*n, line.phase));
    assert_eq!(last, Some((end.log_lines, Phase::Publish)));
    // What is told of what is left out is whole.
    let page = bench
        .server
        .read_log(&id, query(Start::After(0), 1_000_000));
    let page = page.await.unwrap();
    let left_out: u64 = page
        .gaps(Start::After(0))
        .map(|(first, last)| last - first + 1)
        .sum();
    assert_eq!(left_out, end.log_lines - all.len() as u64);
}
