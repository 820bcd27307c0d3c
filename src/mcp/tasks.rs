//! Builds as tasks (SEP-2663, the extension `io.modelcontextprotocol/tasks`), for clients that know tasks.
//!
//! A task is a build: its id is the build's, its state is asked of the backend each time, so that it outlives
//! connections and servers. Its result is what `build` answers at the end; `tasks/cancel` is `kill`.

use rmcp::model::{
    CallToolResult, CreateTaskResult, DetailedTask, GetTaskResult, JsonObject, Task, TaskPayload,
    TaskStatus,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::Value;

use crate::backend::View;
use crate::build::State;
use crate::build::request::KillRequest;
use crate::build::status::BuildStatus;
use crate::runner::reporter::now_ms;
use crate::service::{Waiting, present};

use super::server::{Asked, internal};

/// Milliseconds after which it is worth asking again.
const POLL: u64 = 2_000;
/// Milliseconds for which a task can be asked for: as long as a build's key holds.
const KEPT: u64 = 24 * 3600 * 1000;

/// Whether a caller takes a task for an answer. Tasks of earlier versions are others, so that the extension alone
/// does not say it.
pub fn are_known(context: &RequestContext<RoleServer>) -> bool {
    let version = context.protocol_version();
    let client = context.client_capabilities();
    version.is_some_and(|version| !version.has_initialize())
        && client.is_some_and(|client| client.supports_tasks())
}

/// The task in place of an answer of `build`, while the build goes on.
pub fn instead_of(answer: &CallToolResult) -> Option<CreateTaskResult> {
    let content = answer.structured_content.clone()?;
    let status: BuildStatus = serde_json::from_value(content).ok()?;
    status
        .is_unfinished()
        .then(|| CreateTaskResult::new(task(&status)))
}

fn status_of(status: &BuildStatus) -> TaskStatus {
    match status.state() {
        Some(state) if !state.is_final() => TaskStatus::Working,
        Some(State::Cancelled) => TaskStatus::Cancelled,
        // A build that failed is a call that was answered.
        _ => TaskStatus::Completed,
    }
}

fn task(status: &BuildStatus) -> Task {
    let times = status.times.clone().unwrap_or_default();
    let now = || present::rfc3339(now_ms());
    let created = times.submitted.unwrap_or_else(now);
    let updated = times.finished.unwrap_or_else(now);
    Task::new(&status.build_id, status_of(status), created, updated)
        .with_status_message(format!("build {}: {}", status.build_id, status.summary))
        .with_ttl_ms(KEPT)
        .with_poll_interval_ms(POLL)
}

impl Asked<'_> {
    /// How a task stands, with its result at the end.
    pub(super) async fn task(&self, id: &str) -> Result<GetTaskResult, ErrorData> {
        let status = self.current(id).await?;
        let payload = match status_of(&status) {
            TaskStatus::Working => TaskPayload::Working,
            TaskStatus::Cancelled => TaskPayload::Cancelled,
            _ => TaskPayload::Completed {
                result: self.result(&status)?,
            },
        };
        Ok(GetTaskResult::new(DetailedTask::new(
            task(&status),
            payload,
        )))
    }

    /// Asks for the end of a task; it ends in its own time.
    pub(super) async fn cancel_task(
        &self,
        id: &str,
        context: &RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let request = KillRequest {
            build_id: id.to_owned(),
            reason: Some("the task was cancelled".into()),
            wait: Some(0),
        };
        let mut tell = |_: &View| {};
        let mut waiting = Waiting {
            gone: self.patience(context.ct.clone()),
            tell: &mut tell,
        };
        let killed = self.service().kill(&self.principal, &request, &mut waiting);
        let killed = killed.await.map(drop);
        killed.map_err(|error| ErrorData::invalid_params(error.to_string(), None))
    }

    fn result(&self, status: &BuildStatus) -> Result<JsonObject, ErrorData> {
        let answer = self.late(status).map_err(internal)?;
        match serde_json::to_value(answer).map_err(internal)? {
            Value::Object(result) => Ok(result),
            _ => Err(internal("a result that is no object")),
        }
    }
}
