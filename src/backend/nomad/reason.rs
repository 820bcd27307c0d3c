//! Why a build waits or was not started, in words that a person understands.
//!
//! Pure. From the metrics of an evaluation: `nomad/structs/structs.go`, `AllocMetric`.

use crate::build::clean;
use crate::nomad::{AllocMetric, Allocation, Evaluation, Node, Resources, TaskState};

/// What the groups of a job need together, and what nodes have free of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Of the largest task, in MiB.
    pub memory_mb: u64,
    /// Of the largest task, in MHz.
    pub cpu: u64,
    /// In MiB.
    pub disk_mb: u64,
    /// What is free on each node that takes jobs.
    pub nodes: Vec<Free>,
    /// What every node, also one that takes no jobs now, could give when it is empty.
    pub empty: Vec<Free>,
}

/// What is free on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Free {
    pub memory_mb: u64,
    pub cpu: u64,
    pub disk_mb: u64,
}

fn metrics(evaluation: &Evaluation) -> impl Iterator<Item = &AllocMetric> {
    evaluation.failed.values()
}

/// A stable word and a sentence.
pub fn why(evaluation: Option<&Evaluation>, capacity: Option<&Capacity>) -> (&'static str, String) {
    let Some(metric) = evaluation.and_then(|one| metrics(one).next()) else {
        return ("not_placed", "the cluster has not placed it yet".into());
    };
    let place = place(metric);
    if let Some(never) = evaluation.and_then(|one| never(one, capacity)) {
        return ("unplaceable", never);
    }
    if let Some(quota) = metric.quota_exhausted.first() {
        let quota = clean::short(quota, 80);
        return (
            "quota",
            format!("the quota of its namespace is used up ({quota})"),
        );
    }
    let mut short: Vec<_> = metric.dimension_exhausted.iter().collect();
    short.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    match short.first() {
        Some((dimension, _)) => {
            let (what, detail) = lacking(dimension, capacity);
            (
                "no_capacity",
                format!("no node in {place} has {what} free{detail}"),
            )
        }
        None => (
            "no_capacity",
            format!(
                "no node in {place} can take it now ({} were tried)",
                metric.nodes_evaluated
            ),
        ),
    }
}

fn lacking(dimension: &str, capacity: Option<&Capacity>) -> (String, String) {
    let amounts = |need: u64, unit: &str, what: &str, free: fn(&Free) -> u64| {
        let largest = capacity.and_then(|capacity| capacity.nodes.iter().map(free).max());
        let detail = largest.map_or_else(String::new, |free| format!("; the largest has {free}"));
        if need > 0 {
            (format!("{need} {unit} of {what}"), detail)
        } else {
            (format!("enough {what}"), detail)
        }
    };
    let need = |part: fn(&Capacity) -> u64| capacity.map_or(0, part);
    match dimension {
        "memory" => amounts(need(|c| c.memory_mb), "MB", "memory", |f| f.memory_mb),
        "cpu" => amounts(need(|c| c.cpu), "MHz", "CPU", |f| f.cpu),
        "disk" => amounts(need(|c| c.disk_mb), "MB", "disk", |f| f.disk_mb),
        other => (clean::short(other, 80), String::new()),
    }
}

/// Where it was tried.
fn place(metric: &AllocMetric) -> String {
    let names: Vec<&str> = metric.nodes_available.keys().map(String::as_str).collect();
    let names = if names.is_empty() {
        "the cluster".to_owned()
    } else {
        names.join(", ")
    };
    clean::short(&names, 80)
}

/// Why no node can ever take it, if that is so: none is there, each is excluded by what it is, or
/// none would be large enough even when nothing else ran there.
pub fn never(evaluation: &Evaluation, capacity: Option<&Capacity>) -> Option<String> {
    let metric = metrics(evaluation).next()?;
    let place = place(metric);
    let there: u64 = metric.nodes_available.values().sum();
    if there == 0 {
        return Some(format!(
            "there is no node in {place} (node pool {})",
            clean::short(&metric.node_pool, 60)
        ));
    }
    if let Some(capacity) = capacity
        && let Some(text) = too_large(capacity)
    {
        return Some(format!("no node in {place} has {text}"));
    }
    if metric.nodes_evaluated == 0 || metric.nodes_filtered < metric.nodes_evaluated {
        return None;
    }
    let mut filters: Vec<_> = (metric.constraint_filtered.iter())
        .chain(&metric.class_filtered)
        .collect();
    filters.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let names: Vec<String> = filters
        .iter()
        .take(3)
        .map(|(name, count)| format!("{} ({count})", in_words(name)))
        .collect();
    Some(format!(
        "none of the {} nodes in {place} fits: {}",
        metric.nodes_evaluated,
        names.join("; ")
    ))
}

/// What not even an empty node has.
fn too_large(capacity: &Capacity) -> Option<String> {
    let largest = |has: fn(&Free) -> u64| capacity.empty.iter().map(has).max();
    let parts = [
        (
            capacity.memory_mb,
            "MB of memory",
            largest(|free| free.memory_mb),
        ),
        (capacity.cpu, "MHz of CPU", largest(|free| free.cpu)),
        (capacity.disk_mb, "MB of disk", largest(|free| free.disk_mb)),
    ];
    parts.into_iter().find_map(|(need, what, largest)| {
        let largest = largest?;
        (need > largest).then(|| format!("{need} {what}; the largest has {largest}"))
    })
}

/// What Nomad calls a constraint, for people.
fn in_words(name: &str) -> String {
    let said = match name {
        "missing drivers" => "its driver is missing or unhealthy".to_owned(),
        "missing host volumes" => "a host volume is missing".to_owned(),
        "missing network" => "its network is missing".to_owned(),
        other => other.to_owned(),
    };
    clean::short(&said, 120)
}

/// What nodes have free, for a task that needs `resources` and a group that needs `disk_mb`.
pub fn capacity(
    resources: &[&Resources],
    disk_mb: u64,
    nodes: &[Node],
    used: impl Fn(&str) -> Free,
) -> Capacity {
    let most = |part: fn(&Resources) -> u64| resources.iter().map(|one| part(one)).max();
    let takes_jobs =
        |node: &Node| node.status == "ready" && node.scheduling_eligibility == "eligible";
    let left = |counts: &dyn Fn(&Node) -> bool, used: &dyn Fn(&str) -> Free| -> Vec<Free> {
        let nodes = nodes.iter().filter(|node| counts(node)).filter_map(|node| {
            let has = node.node_resources.as_ref()?;
            let kept = node.reserved_resources.clone().unwrap_or_default();
            let used = used(&node.id);
            let left = |has: u64, kept: u64, used: u64| has.saturating_sub(kept + used);
            Some(Free {
                memory_mb: left(has.memory.memory_mb, kept.memory.memory_mb, used.memory_mb),
                cpu: left(has.cpu.cpu_shares, kept.cpu.cpu_shares, used.cpu),
                disk_mb: left(has.disk.disk_mb, kept.disk.disk_mb, used.disk_mb),
            })
        });
        nodes.collect()
    };
    Capacity {
        memory_mb: most(|one| one.memory_mb).unwrap_or(0),
        cpu: most(|one| one.cpu).unwrap_or(0),
        disk_mb,
        nodes: left(&takes_jobs, &used),
        empty: left(&|_| true, &|_| Free::default()),
    }
}

/// Why a task did not begin, from its last words.
pub fn not_started(task: &TaskState) -> String {
    const TELLING: &[&str] = &[
        "Setup Failure",
        "Driver Failure",
        "Failed Validation",
        "Failed Artifact Download",
        "Template",
        "Vault",
    ];
    let telling = task
        .events
        .iter()
        .rev()
        .find(|event| TELLING.iter().any(|kind| event.kind.contains(kind)))
        .or(task.events.last());
    let said = telling.map_or("it says nothing", |event| event.display_message.as_str());
    format!(
        "the task could not be started on its node: {}",
        clean::short(&on_one_line(said), 400)
    )
}

/// Where a task waits that is not started yet, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// Milliseconds since 1970.
    pub since: i64,
    /// What it waits for, if Nomad says.
    pub what: Option<String>,
}

/// Whether a task has got no further than its templates: then its secrets have not come. What follows, an
/// image that is fetched, has events of its own (`taskrunner/task_runner_hooks.go`).
pub fn waits_for_secrets(task: &TaskState) -> Option<Waits> {
    if task.has_started() || task.is_dead() {
        return None;
    }
    let last = task.events.last()?;
    let what = match last.kind.as_str() {
        "Template" => Some(clean::short(&on_one_line(&last.display_message), 300)),
        "Task Setup" => None,
        _ => return None,
    };
    Some(Waits {
        since: last.time / 1_000_000,
        what,
    })
}

/// Why a build fails whose task has waited too long.
pub fn no_secrets(waits: &Waits, seconds: u32) -> String {
    match &waits.what {
        Some(what) => format!("its task was not started within {seconds} s: {what}"),
        None => format!(
            "its task was not started within {seconds} s, and Nomad does not say why; where it takes secrets from Vault, look whether Vault answers, at the policy of the task's role, and at how long its tokens last"
        ),
    }
}

fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What Nomad says of an allocation that was stopped while it ran, if it was.
pub fn stopped(allocation: &Allocation) -> Option<String> {
    const TELLING: &[&str] = &[
        "Killing",
        "Restart Signaled",
        "Sibling Task Failed",
        "Leader Task Dead",
        "Disk Resources Exceeded",
    ];
    let decided = (allocation.desired_status == "stop").then_some(&allocation.desired_description);
    let events = allocation
        .task_states
        .values()
        .flat_map(|task| &task.events);
    let last = events
        .filter(|event| TELLING.contains(&event.kind.as_str()))
        .max_by_key(|event| event.time)
        .map(|event| &event.display_message);
    let words = [decided, last].into_iter().flatten();
    let words: Vec<&str> = words
        .map(String::as_str)
        .filter(|said| !said.is_empty())
        .collect();
    (!words.is_empty()).then(|| {
        let said = clean::short(&on_one_line(&words.join("; ")), 300);
        format!("Nomad stopped its tasks: {said}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_waits_for_secrets_until_something_else_begins() {
        let waits = |events: &[(&str, &str)]| {
            let events: Vec<_> = (events.iter())
                .map(|(kind, said)| serde_json::json!({"Type": kind, "Time": 7_000_000, "DisplayMessage": said}))
                .collect();
            let task = serde_json::json!({"State": "pending", "Events": events});
            waits_for_secrets(&serde_json::from_value(task).unwrap())
        };
        let setup = ("Task Setup", "Building Task Directory");
        let missing = ("Template", "Missing: vault.read(secret/data/x)");
        assert_eq!(waits(&[("Received", "")]), None);
        assert_eq!(waits(&[setup]).unwrap().what, None);
        let found = waits(&[setup, missing]).unwrap();
        assert_eq!(found.since, 7);
        let text = "its task was not started within 9 s: Missing: vault.read(secret/data/x)";
        assert_eq!(no_secrets(&found, 9), text);
        assert_eq!(
            waits(&[setup, missing, ("Driver", "Downloading image")]),
            None
        );
    }

    #[test]
    fn what_nomad_says_of_a_stopped_allocation_is_told() {
        let allocation = |value| serde_json::from_value::<Allocation>(value).unwrap();
        let killing = serde_json::json!({
            "DesiredStatus": "stop", "DesiredDescription": "alloc not needed as node is tainted",
            "TaskStates": {"build": {"Events": [
                {"Type": "Started", "Time": 1, "DisplayMessage": "Task started by client"},
                {"Type": "Killing", "Time": 2, "DisplayMessage": "Sent interrupt."},
                {"Type": "Terminated", "Time": 3, "DisplayMessage": "Exit Code: 3"},
            ]}},
        });
        assert_eq!(
            stopped(&allocation(killing)).unwrap(),
            "Nomad stopped its tasks: alloc not needed as node is tainted; Sent interrupt."
        );
        let own = serde_json::json!({
            "DesiredStatus": "run", "DesiredDescription": "x",
            "TaskStates": {"build": {"Events": [{"Type": "Terminated", "Time": 3}]}},
        });
        assert_eq!(stopped(&allocation(own)), None);
    }

    fn evaluation(metric: serde_json::Value) -> Evaluation {
        serde_json::from_value(serde_json::json!({"FailedTGAllocs": {"build": metric}})).unwrap()
    }

    fn blocked_by(dimension: &str) -> Evaluation {
        evaluation(serde_json::json!({
            "NodesEvaluated": 2, "NodesExhausted": 2, "NodesAvailable": {"dc1": 2},
            "DimensionExhausted": {dimension: 2}, "ConstraintFiltered": null,
        }))
    }

    #[test]
    fn what_is_lacking_is_named_with_what_there_is() {
        let node = |memory: u64, ready: bool| -> Node {
            serde_json::from_value(serde_json::json!({
                "ID": memory.to_string(), "Status": if ready { "ready" } else { "down" },
                "SchedulingEligibility": "eligible",
                "NodeResources": {"Cpu": {"CpuShares": 5000}, "Memory": {"MemoryMB": memory}, "Disk": {"DiskMB": 100}},
                "ReservedResources": {"Memory": {"MemoryMB": 96}},
            }))
            .unwrap()
        };
        let needs = Resources {
            memory_mb: 4096,
            cpu: 1000,
            ..Resources::default()
        };
        let nodes = [node(4192, true), node(2096, true), node(3000, false)];
        let used = |node: &str| Free {
            memory_mb: if node == "4192" { 1000 } else { 0 },
            ..Free::default()
        };
        let of = |needs: &Resources| capacity(&[needs], 80, &nodes, used);
        let roomy = of(&needs);
        let (code, text) = why(Some(&blocked_by("memory")), Some(&roomy));
        assert_eq!(code, "no_capacity");
        assert_eq!(
            text,
            "no node in dc1 has 4096 MB of memory free; the largest has 3096"
        );
        let (_, text) = why(Some(&blocked_by("disk")), Some(&roomy));
        assert_eq!(
            text,
            "no node in dc1 has 80 MB of disk free; the largest has 100"
        );
        let (_, text) = why(Some(&blocked_by("cpu")), None);
        assert_eq!(text, "no node in dc1 has enough CPU free");
        assert_eq!(why(None, None).0, "not_placed");
        assert_eq!(never(&blocked_by("memory"), None), None);
        let huge = Resources {
            memory_mb: 8192,
            ..needs
        };
        assert_eq!(
            why(Some(&blocked_by("memory")), Some(&of(&huge))),
            (
                "unplaceable",
                "no node in dc1 has 8192 MB of memory; the largest has 4096".into()
            )
        );
    }

    #[test]
    fn what_can_never_be_placed_is_known() {
        let filtered = evaluation(serde_json::json!({
            "NodesEvaluated": 3, "NodesFiltered": 3, "NodesAvailable": {"dc1": 3},
            "ConstraintFiltered": {"missing drivers": 2, "${attr.cpu.arch} = arm64": 1},
        }));
        let text = never(&filtered, None).unwrap();
        assert_eq!(
            text,
            "none of the 3 nodes in dc1 fits: its driver is missing or unhealthy (2); ${attr.cpu.arch} = arm64 (1)"
        );
        assert_eq!(why(Some(&filtered), None), ("unplaceable", text));
        let none = evaluation(serde_json::json!({"NodePool": "gpu", "NodesAvailable": {"dc1": 0}}));
        assert_eq!(
            never(&none, None).unwrap(),
            "there is no node in dc1 (node pool gpu)"
        );
    }
}
