//! What Nomad says, as far as it is read here: `api/{jobs,allocations,evaluations,nodes,tasks}.go`.
//!
//! Every field may be missing or `null`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// A list, map or text that may be `null`.
fn or_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// Answer to a dispatch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Dispatched {
    /// Id of the child job.
    #[serde(rename = "DispatchedJobID")]
    pub job_id: String,
    /// Its first evaluation; empty when the token was known already.
    #[serde(rename = "EvalID")]
    pub eval_id: String,
}

/// A job as lists have it (`api.JobListStub`).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JobStub {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "ParentID", deserialize_with = "or_default")]
    pub parent_id: String,
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    /// Somebody stopped it.
    pub stop: bool,
    pub create_index: u64,
    pub modify_index: u64,
    /// Nanoseconds since 1970.
    pub submit_time: i64,
}

/// A job (`api.Job`).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Job {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "ParentID", deserialize_with = "or_default")]
    pub parent_id: String,
    #[serde(rename = "Type", deserialize_with = "or_default")]
    pub kind: String,
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    /// From 1 to what the cluster allows (100; `job_max_priority`).
    pub priority: u16,
    /// Somebody stopped it.
    pub stop: bool,
    pub dispatched: bool,
    #[serde(deserialize_with = "or_default")]
    pub datacenters: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub node_pool: String,
    #[serde(deserialize_with = "or_default")]
    pub constraints: Vec<Constraint>,
    #[serde(deserialize_with = "or_default")]
    pub meta: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub task_groups: Vec<TaskGroup>,
    /// It is a template for dispatched jobs.
    pub parameterized_job: Option<Parameterized>,
    pub create_index: u64,
    pub modify_index: u64,
    /// Nanoseconds since 1970.
    pub submit_time: i64,
}

/// What a dispatch may carry (`api.ParameterizedJobConfig`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Parameterized {
    /// `optional`, `required` or `forbidden`.
    #[serde(deserialize_with = "or_default")]
    pub payload: String,
    #[serde(deserialize_with = "or_default")]
    pub meta_required: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub meta_optional: Vec<String>,
}

/// A constraint of a job, group or task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Constraint {
    #[serde(rename = "LTarget", deserialize_with = "or_default")]
    pub left: String,
    #[serde(rename = "Operand", deserialize_with = "or_default")]
    pub operand: String,
    #[serde(rename = "RTarget", deserialize_with = "or_default")]
    pub right: String,
}

/// A group of tasks.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskGroup {
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub tasks: Vec<Task>,
    #[serde(deserialize_with = "or_default")]
    pub constraints: Vec<Constraint>,
    pub ephemeral_disk: Option<EphemeralDisk>,
    pub restart_policy: Option<Policy>,
    pub reschedule_policy: Option<Policy>,
}

/// How often Nomad itself begins anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Policy {
    pub attempts: u32,
    pub unlimited: bool,
}

/// Disk of an allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EphemeralDisk {
    #[serde(rename = "SizeMB")]
    pub size_mb: u64,
}

/// A task of a job.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Task {
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub driver: String,
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    #[serde(deserialize_with = "or_default")]
    pub kill_signal: String,
    /// Nanoseconds.
    pub kill_timeout: Option<u64>,
    #[serde(deserialize_with = "or_default")]
    pub constraints: Vec<Constraint>,
    pub resources: Option<Resources>,
    pub lifecycle: Option<Lifecycle>,
    pub dispatch_payload: Option<DispatchPayload>,
    pub log_config: Option<LogConfig>,
    /// It takes secrets from Vault.
    pub vault: Option<serde_json::Value>,
}

/// When a task runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Lifecycle {
    #[serde(deserialize_with = "or_default")]
    pub hook: String,
    pub sidecar: bool,
}

/// Where a task finds the payload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DispatchPayload {
    #[serde(deserialize_with = "or_default")]
    pub file: String,
}

/// How much of a task's output a client keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    #[serde(rename = "MaxFiles")]
    pub max_files: u64,
    #[serde(rename = "MaxFileSizeMB")]
    pub max_file_size_mb: u64,
}

/// What a task asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// MHz.
    #[serde(rename = "CPU")]
    pub cpu: u64,
    #[serde(rename = "Cores")]
    pub cores: Option<u64>,
    #[serde(rename = "MemoryMB")]
    pub memory_mb: u64,
    #[serde(rename = "MemoryMaxMB")]
    pub memory_max_mb: Option<u64>,
}

/// Where an allocation stands, as its client tells it (`api.AllocClientStatus…`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AllocStatus {
    #[default]
    Pending,
    Running,
    Complete,
    Failed,
    /// Its node is gone.
    Lost,
    /// Its node does not answer, and may come back.
    #[serde(other)]
    Unknown,
}

impl AllocStatus {
    /// Whether the client will not run it any further.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Complete | Self::Failed | Self::Lost)
    }
}

/// An allocation, as lists and events have it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Allocation {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "JobID", deserialize_with = "or_default")]
    pub job_id: String,
    #[serde(rename = "NodeID", deserialize_with = "or_default")]
    pub node_id: String,
    #[serde(deserialize_with = "or_default")]
    pub node_name: String,
    pub client_status: AllocStatus,
    #[serde(deserialize_with = "or_default")]
    pub client_description: String,
    /// `run`, `stop` or `evict`.
    #[serde(deserialize_with = "or_default")]
    pub desired_status: String,
    #[serde(deserialize_with = "or_default")]
    pub desired_description: String,
    pub desired_transition: Option<DesiredTransition>,
    #[serde(deserialize_with = "or_default")]
    pub preempted_by_allocation: String,
    #[serde(deserialize_with = "or_default")]
    pub task_states: BTreeMap<String, TaskState>,
    /// Only where a list was asked for it.
    pub allocated_resources: Option<Allocated>,
    pub create_index: u64,
    pub modify_index: u64,
}

/// What an allocation has of its node (`api.AllocatedResources`).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Allocated {
    #[serde(deserialize_with = "or_default")]
    pub tasks: BTreeMap<String, AllocatedTask>,
    #[serde(deserialize_with = "or_default")]
    pub task_lifecycles: BTreeMap<String, Option<Lifecycle>>,
    #[serde(deserialize_with = "or_default")]
    pub shared: Disk,
}

/// What a task has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AllocatedTask {
    #[serde(deserialize_with = "or_default")]
    pub cpu: Cpu,
    #[serde(deserialize_with = "or_default")]
    pub memory: Memory,
}

impl Allocated {
    /// Memory in MiB and CPU in MHz. A task that ends before others begin takes nothing beside them
    /// (`structs.AllocatedResources.Comparable`).
    pub fn at_once(&self) -> (u64, u64) {
        let (mut together, mut most) = ((0, 0), (0, 0));
        for (name, task) in &self.tasks {
            let part = (task.memory.memory_mb, task.cpu.cpu_shares);
            let lifecycle = self.task_lifecycles.get(name).and_then(Option::as_ref);
            if lifecycle.is_some_and(|lifecycle| !lifecycle.sidecar) {
                most = (part.0.max(most.0), part.1.max(most.1));
            } else {
                together = (together.0 + part.0, together.1 + part.1);
            }
        }
        (together.0.max(most.0), together.1.max(most.1))
    }
}

/// What servers have decided about an allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DesiredTransition {
    /// Its node is drained.
    pub migrate: Option<bool>,
}

/// State of a task.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskState {
    /// `pending`, `running` or `dead`.
    #[serde(deserialize_with = "or_default")]
    pub state: String,
    pub failed: bool,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// RFC 3339.
    pub finished_at: Option<String>,
    /// The last ten.
    #[serde(deserialize_with = "or_default")]
    pub events: Vec<TaskEvent>,
}

/// Something that happened to a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskEvent {
    #[serde(rename = "Type", deserialize_with = "or_default")]
    pub kind: String,
    /// Nanoseconds since 1970.
    pub time: i64,
    #[serde(deserialize_with = "or_default")]
    pub display_message: String,
    #[serde(deserialize_with = "or_default")]
    pub details: BTreeMap<String, String>,
}

impl TaskState {
    /// Whether it has begun.
    pub fn has_started(&self) -> bool {
        self.started_at.is_some()
    }

    /// Whether it has ended, or will never begin.
    pub fn is_dead(&self) -> bool {
        self.state == "dead"
    }

    /// The last event of this type.
    pub fn last(&self, kind: &str) -> Option<&TaskEvent> {
        self.events.iter().rev().find(|event| event.kind == kind)
    }

    /// The status it exited with, if it exited.
    pub fn exit_code(&self) -> Option<i32> {
        let details = &self.last("Terminated")?.details;
        details.get("exit_code")?.parse().ok()
    }

    /// Whether the kernel killed it for want of memory.
    pub fn is_out_of_memory(&self) -> bool {
        self.last("Terminated")
            .and_then(|event| event.details.get("oom_killed"))
            .is_some_and(|said| said == "true")
    }
}

/// An evaluation: Nomad's attempt to place a job.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Evaluation {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "JobID", deserialize_with = "or_default")]
    pub job_id: String,
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    #[serde(deserialize_with = "or_default")]
    pub status_description: String,
    #[serde(deserialize_with = "or_default")]
    pub triggered_by: String,
    /// The evaluation that waits for capacity.
    #[serde(deserialize_with = "or_default")]
    pub blocked_eval: String,
    /// What could not be placed, by group, and why.
    #[serde(rename = "FailedTGAllocs", deserialize_with = "or_default")]
    pub failed: BTreeMap<String, AllocMetric>,
    pub create_index: u64,
    pub modify_index: u64,
}

/// Why a group could not be placed (`api.AllocationMetric`).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AllocMetric {
    pub nodes_evaluated: u64,
    pub nodes_filtered: u64,
    pub nodes_exhausted: u64,
    /// Nodes by datacenter.
    #[serde(deserialize_with = "or_default")]
    pub nodes_available: BTreeMap<String, u64>,
    pub nodes_in_pool: u64,
    #[serde(deserialize_with = "or_default")]
    pub node_pool: String,
    /// Nodes by the constraint that excludes them.
    #[serde(deserialize_with = "or_default")]
    pub constraint_filtered: BTreeMap<String, u64>,
    /// Nodes by the class that excludes them.
    #[serde(deserialize_with = "or_default")]
    pub class_filtered: BTreeMap<String, u64>,
    /// Nodes by the resource that they lack.
    #[serde(deserialize_with = "or_default")]
    pub dimension_exhausted: BTreeMap<String, u64>,
    #[serde(deserialize_with = "or_default")]
    pub quota_exhausted: Vec<String>,
}

/// A node, as lists have it with `resources=true`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Node {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub datacenter: String,
    #[serde(deserialize_with = "or_default")]
    pub node_pool: String,
    #[serde(deserialize_with = "or_default")]
    pub version: String,
    /// `ready`, `down`, `disconnected` or `initializing`.
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    #[serde(deserialize_with = "or_default")]
    pub scheduling_eligibility: String,
    pub drain: bool,
    #[serde(deserialize_with = "or_default")]
    pub drivers: BTreeMap<String, Driver>,
    /// Only where a single node was asked for.
    #[serde(deserialize_with = "or_default")]
    pub attributes: BTreeMap<String, String>,
    pub node_resources: Option<NodeResources>,
    pub reserved_resources: Option<NodeResources>,
}

/// A driver on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Driver {
    pub detected: bool,
    pub healthy: bool,
    #[serde(deserialize_with = "or_default")]
    pub health_description: String,
}

/// What a node has, or keeps for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeResources {
    #[serde(deserialize_with = "or_default")]
    pub cpu: Cpu,
    #[serde(deserialize_with = "or_default")]
    pub memory: Memory,
    #[serde(deserialize_with = "or_default")]
    pub disk: Disk,
}

/// MHz.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Cpu {
    #[serde(alias = "CpuShares")]
    pub cpu_shares: u64,
}

/// MiB.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Memory {
    #[serde(rename = "MemoryMB")]
    pub memory_mb: u64,
}

/// MiB.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Disk {
    #[serde(rename = "DiskMB")]
    pub disk_mb: u64,
}

/// What an agent says of itself (`/v1/agent/self`, `/v1/agent/health` need less).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AgentSelf {
    pub config: serde_json::Value,
    pub stats: serde_json::Value,
}

impl AgentSelf {
    /// Version of the agent.
    pub fn version(&self) -> Option<&str> {
        self.config.pointer("/Version/Version")?.as_str()
    }
}
