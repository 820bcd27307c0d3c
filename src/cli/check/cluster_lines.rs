//! What was found out about a cluster as lines for people. Does no I/O.

use crate::config::Config;
use crate::nomad::{Job, Node, Task};

use super::cluster::Facts;
use super::lines::{Line, State, lack, line, untried};

/// The oldest Nomad that is known to work: templates may be rendered `once`.
const OLDEST: (u32, u32, u32) = (1, 10, 2);
const README: &str = "see nomad/README.md";
/// The tasks of a build's job, and when each runs.
const TASKS: &[(&str, &str)] = &[
    ("build", "prestart"),
    ("publish", ""),
    ("archive", "poststop"),
];

/// A line an item.
pub fn lines(facts: &Facts, config: &Config) -> Vec<Line> {
    let mut lines = vec![line("nomad", leader(facts))];
    if facts.leader.is_err() {
        return lines;
    }
    for (capability, held) in facts.rights.iter().chain(facts.of_builds.iter().flatten()) {
        let state = match held {
            Ok(()) => Ok(format!("held in the namespace {}", facts.namespace)),
            Err(error) => lack(
                error,
                "nomad acl policy apply nomad-build-server nomad/policies/server.policy.hcl",
            ),
        };
        lines.push(line(capability, state));
    }
    if facts.of_builds.is_none() {
        let state = untried("no build that has ended is to be seen");
        lines.push(line("read-logs, alloc-lifecycle", state));
    }
    match &facts.nodes {
        Ok(nodes) => lines.push(line("version", version(nodes))),
        Err(error) => lines.push(line(
            "nodes",
            lack(error, "give the token node:read; builds run without it"),
        )),
    }
    let nodes = facts.nodes.as_deref().unwrap_or_default();
    for (profile, job) in &facts.jobs {
        let item = format!("profile {profile}");
        let name = config.nomad.job_of(profile);
        match job {
            Err(error) => {
                let register = format!(
                    "nomad job run -var namespace={} -var profile={profile} nomad/build-raw-exec.nomad.hcl ({README})",
                    facts.namespace
                );
                lines.push(line(
                    &item,
                    lack(format!("no job {name}: {error}"), register),
                ));
            }
            Ok(job) => lines.extend(job_lines(&item, job, nodes, facts.nodes.is_ok())),
        }
    }
    lines.push(line("repository", repository(config)));
    lines
}

fn leader(facts: &Facts) -> State {
    match &facts.leader {
        Ok(leader) => Ok(format!("{}, its leader is {leader}", facts.address)),
        Err(error) => lack(
            error,
            "set NOMAD_ADDR, NOMAD_TOKEN and NOMAD_CACERT as for `nomad status`",
        ),
    }
}

fn repository(config: &Config) -> State {
    match &config.nomad.repository {
        Some(repository) => Ok(repository.clone()),
        None => lack(
            "none: sources of more than 16 KiB cannot be handed over, and logs are lost with their allocations",
            "set nomad.repository, here and in the configuration of the jobs",
        ),
    }
}

fn parse(version: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = version.split(['.', '-', '+']).map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some((next()?, next()?, next()?))
}

fn version(nodes: &[Node]) -> State {
    let old: Vec<String> = nodes
        .iter()
        .filter(|node| parse(&node.version).is_none_or(|version| version < OLDEST))
        .map(|node| format!("{} {}", node.name, node.version))
        .collect();
    if old.is_empty() {
        let mut versions: Vec<&str> = nodes.iter().map(|node| node.version.as_str()).collect();
        versions.sort_unstable();
        versions.dedup();
        return Ok(format!("{} on {} nodes", versions.join(", "), nodes.len()));
    }
    lack(old.join(", "), "upgrade to Nomad 1.10.2 or newer")
}

fn job_lines(item: &str, job: &Job, nodes: &[Node], known: bool) -> Vec<Line> {
    let mut lines = vec![line(item, shape(job))];
    if !known {
        return lines;
    }
    let fits: Vec<&Node> = nodes.iter().filter(|node| takes(node, job)).collect();
    if fits.is_empty() {
        let wrong = format!(
            "no node of the pool {} in {} takes jobs",
            job.node_pool,
            job.datacenters.join(", ")
        );
        lines.push(line(item, lack(wrong, "look at nomad node status")));
        return lines;
    }
    let tasks: Vec<&Task> = job
        .task_groups
        .iter()
        .flat_map(|group| &group.tasks)
        .collect();
    lines.push(line(item, drivers(&tasks, &fits)));
    lines.push(line(item, room(job, &tasks, &fits)));
    for (what, attribute, wanted) in [(
        "Vault",
        "vault.version",
        tasks.iter().any(|task| task.vault.is_some()),
    )] {
        if wanted {
            lines.push(line(item, wired(what, attribute, &fits)));
        }
    }
    lines
}

/// Whether a node is where the job may run.
fn takes(node: &Node, job: &Job) -> bool {
    let there = |wanted: &String| {
        wanted == &node.datacenter
            || wanted
                .strip_suffix('*')
                .is_some_and(|begin| node.datacenter.starts_with(begin))
    };
    node.status == "ready"
        && node.scheduling_eligibility == "eligible"
        && job.datacenters.iter().any(there)
        && (job.node_pool == "all" || job.node_pool == node.node_pool)
}

/// Whether it is what the backend takes it for.
fn shape(job: &Job) -> State {
    let mut wrong = Vec::new();
    match &job.parameterized_job {
        Some(parameterized) if parameterized.payload != "forbidden" => {}
        _ => wrong.push("it is not parameterized with a payload".to_owned()),
    }
    let group = job.task_groups.first();
    for (name, hook) in TASKS {
        let task = group.and_then(|group| group.tasks.iter().find(|task| task.name == *name));
        let Some(task) = task else {
            wrong.push(format!("it has no task {name}"));
            continue;
        };
        let has = task
            .lifecycle
            .as_ref()
            .map_or("", |lifecycle| lifecycle.hook.as_str());
        if has != *hook {
            wrong.push(format!(
                "its task {name} has the hook {has:?} instead of {hook:?}"
            ));
        }
        if task.kill_signal != "SIGTERM" {
            wrong.push(format!("its task {name} has no kill_signal = \"SIGTERM\""));
        }
        if task.dispatch_payload.is_none() {
            wrong.push(format!("its task {name} gets no payload"));
        }
    }
    if let Some(group) = group {
        let again = |policy: &Option<crate::nomad::Policy>| {
            policy
                .as_ref()
                .is_some_and(|policy| policy.attempts > 0 || policy.unlimited)
        };
        if again(&group.restart_policy) || again(&group.reschedule_policy) {
            wrong.push("a build that failed would run again (restart, reschedule)".into());
        }
    }
    if wrong.is_empty() {
        return Ok(format!("the job {}", job.id));
    }
    lack(
        wrong.join("; "),
        format!("register the job file of this version, {README}"),
    )
}

fn drivers(tasks: &[&Task], nodes: &[&Node]) -> State {
    let mut names: Vec<&str> = tasks.iter().map(|task| task.driver.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in &names {
        let healthy = |node: &&&Node| node.drivers.get(*name).is_some_and(|driver| driver.healthy);
        if nodes.iter().filter(healthy).count() == 0 {
            let said = nodes.iter().find_map(|node| {
                let driver = node.drivers.get(*name)?;
                Some(driver.health_description.as_str())
            });
            return lack(
                format!(
                    "the driver {name} is healthy on no node ({})",
                    said.unwrap_or("not there")
                ),
                format!("enable it on the clients, {README}"),
            );
        }
    }
    Ok(format!(
        "driver {} on {} nodes",
        names.join(", "),
        nodes.len()
    ))
}

fn room(job: &Job, tasks: &[&Task], nodes: &[&Node]) -> State {
    let resources = tasks.iter().filter_map(|task| task.resources.as_ref());
    let memory = resources
        .clone()
        .map(|one| one.memory_mb)
        .max()
        .unwrap_or(0);
    let cpu = resources.map(|one| one.cpu).max().unwrap_or(0);
    let group = job.task_groups.first();
    let disk = group.and_then(|group| group.ephemeral_disk.as_ref());
    let disk = disk.map_or(0, |disk| disk.size_mb);
    let fits = nodes.iter().filter(|node| {
        node.node_resources.as_ref().is_some_and(|has| {
            has.memory.memory_mb >= memory && has.cpu.cpu_shares >= cpu && has.disk.disk_mb >= disk
        })
    });
    let needs = format!("{memory} MB of memory, {cpu} MHz, {disk} MB of disk");
    match fits.count() {
        0 => lack(
            format!("no node has {needs}"),
            "give the job less (-var memory=…), or add a larger client",
        ),
        count => Ok(format!("{needs}: fits on {count} nodes")),
    }
}

fn wired(what: &str, attribute: &str, nodes: &[&Node]) -> State {
    let count = nodes
        .iter()
        .filter(|node| node.attributes.contains_key(attribute))
        .count();
    if count == 0 {
        return lack(
            format!("its tasks want {what}, and no node knows one"),
            format!("configure {what} on the clients"),
        );
    }
    Ok(format!("{what} on {count} nodes"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job() -> Value {
        let task = |name: &str, hook: Value| {
            json!({"Name": name, "Driver": "raw_exec", "KillSignal": "SIGTERM", "Lifecycle": hook,
                "DispatchPayload": {"File": "payload"}, "Resources": {"CPU": 100, "MemoryMB": 512}})
        };
        json!({"ID": "nomad-build-default", "Datacenters": ["*"], "NodePool": "default",
            "ParameterizedJob": {"Payload": "required"},
            "TaskGroups": [{"Name": "build", "EphemeralDisk": {"SizeMB": 300},
                "RestartPolicy": {"Attempts": 0}, "ReschedulePolicy": {"Attempts": 0},
                "Tasks": [task("build", json!({"Hook": "prestart"})), task("publish", Value::Null),
                    task("archive", json!({"Hook": "poststop"}))]}]})
    }

    fn facts(job: Value, node: Value) -> Facts {
        Facts {
            address: "http://n:4646".into(),
            leader: Ok("n:4647".into()),
            namespace: "builds".into(),
            rights: vec![("read-job", Ok(()))],
            of_builds: None,
            jobs: vec![("default".into(), Ok(serde_json::from_value(job).unwrap()))],
            nodes: Ok(vec![serde_json::from_value(node).unwrap()]),
        }
    }

    fn node() -> Value {
        json!({"Name": "n", "Datacenter": "dc1", "NodePool": "default", "Status": "ready",
            "SchedulingEligibility": "eligible", "Version": "1.11.3",
            "Drivers": {"raw_exec": {"Healthy": true}},
            "NodeResources": {"Cpu": {"CpuShares": 1000}, "Memory": {"MemoryMB": 1024}, "Disk": {"DiskMB": 1000}}})
    }

    fn missing(facts: &Facts) -> Vec<String> {
        let mut config = Config::default();
        config.nomad.repository = Some("r.example/x".into());
        let lines = lines(facts, &config);
        let missing = lines.iter().filter(|line| line.is_fault());
        missing.map(ToString::to_string).collect()
    }

    #[test]
    fn a_cluster_in_order_lacks_nothing() {
        assert_eq!(missing(&facts(job(), node())), Vec::<String>::new());
    }

    #[test]
    fn rights_that_no_build_lets_one_try_are_untried() {
        let lines = lines(&facts(job(), node()), &Config::default());
        let told: Vec<String> = lines.iter().map(ToString::to_string).collect();
        let untried = "untried  read-logs, alloc-lifecycle: no build that has ended is to be seen";
        assert!(told.contains(&untried.to_owned()), "{told:#?}");
    }

    type Change = fn(&mut Value, &mut Value);

    #[test]
    fn each_fault_is_named_with_what_mends_it() {
        let cases: [(&str, Change); 10] = [
            ("is not parameterized", |job, _| {
                job["ParameterizedJob"] = Value::Null
            }),
            ("no task archive", |job, _| {
                job["TaskGroups"][0]["Tasks"].as_array_mut().unwrap().pop();
            }),
            ("kill_signal", |job, _| {
                job["TaskGroups"][0]["Tasks"][1]["KillSignal"] = Value::Null
            }),
            ("would run again", |job, _| {
                job["TaskGroups"][0]["RestartPolicy"]["Attempts"] = 3.into()
            }),
            ("raw_exec is healthy on no node", |_, node| {
                node["Drivers"] = json!({})
            }),
            ("no node has 512 MB", |_, node| {
                node["NodeResources"]["Memory"]["MemoryMB"] = 256.into()
            }),
            ("upgrade to Nomad 1.10.2", |_, node| {
                node["Version"] = "1.9.7".into()
            }),
            ("upgrade to Nomad 1.10.2", |_, node| {
                node["Version"] = "1.10.1".into()
            }),
            ("takes jobs", |_, node| {
                node["SchedulingEligibility"] = "ineligible".into()
            }),
            ("want Vault", |job, _| {
                job["TaskGroups"][0]["Tasks"][1]["Vault"] = json!({"Role": "x"})
            }),
        ];
        for (text, change) in cases {
            let (mut job, mut node) = (job(), node());
            change(&mut job, &mut node);
            let missing = missing(&facts(job, node));
            assert_eq!(missing.len(), 1, "{text}: {missing:#?}");
            assert!(missing[0].contains(text), "{missing:#?}");
        }
    }

    #[test]
    fn without_an_answer_nothing_else_is_said() {
        let facts = Facts {
            leader: Err("nobody listens".into()),
            ..facts(job(), node())
        };
        let missing = missing(&facts);
        assert_eq!(missing.len(), 1);
        assert!(missing[0].contains("NOMAD_ADDR"), "{missing:#?}");
    }
}
