//! Tools that become tasks (SEP-2663) where the client knows tasks.

use std::time::Duration;

use rmcp::model::*;
use rmcp::service::RequestContext;
use rmcp::task_manager::{TaskContext, TaskExit, TaskManager, TaskOptions};
use rmcp::{ErrorData, RoleServer};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::inputs::{answered, ask, field, question};
use crate::tools::text;

/// Names, whether they are for clients alone that know tasks, and what they do.
const TOOLS: [(&str, bool, &str); 7] = [
    ("greet", false, "Greets, and never becomes a task"),
    ("slow_compute", false, "Sleeps and answers"),
    ("failing_job", true, "Fails as a tool"),
    ("protocol_error_job", false, "Fails as a request"),
    ("confirm_delete", true, "Asks a question"),
    ("multi_input", true, "Asks two questions at once"),
    (
        "test_tool_with_task",
        true,
        "Asks a question before it becomes a task",
    ),
];

/// Whether it is one of these.
pub fn knows(name: &str) -> bool {
    TOOLS.iter().any(|tool| tool.0 == name)
}

/// Names, descriptions and what they take.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str, Value)> {
    TOOLS.into_iter().map(|(name, _, description)| {
        let takes = match name {
            "greet" => json!({"name": {"type": "string"}}),
            "slow_compute" => json!({"seconds": {"type": "number"}, "label": {"type": "string"}}),
            "confirm_delete" => json!({"filename": {"type": "string"}}),
            _ => json!({}),
        };
        (name, description, takes)
    })
}

/// Answers a call of one of these.
pub async fn call(
    tasks: &TaskManager,
    request: CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let name = request.name.as_ref();
    let needs = TOOLS.iter().any(|tool| tool.0 == name && tool.1);
    let client = context.client_capabilities();
    let known = client.is_some_and(|client| client.supports_tasks());
    if needs && !known {
        return Err(ErrorData::missing_required_client_capability(
            ClientCapabilities::builder().enable_tasks().build(),
        ));
    }
    let tasks_if_known = known.then_some(tasks);
    let arguments = request.arguments.unwrap_or_default();
    let argument = |name: &str, default: &str| {
        let given = arguments.get(name).and_then(Value::as_str);
        given.unwrap_or(default).to_owned()
    };
    match name {
        "greet" => Ok(text(format!("Hello, {}!", argument("name", "friend"))).into()),
        "slow_compute" => {
            let seconds = arguments.get("seconds").and_then(Value::as_f64);
            let (seconds, label) = (seconds.unwrap_or(1.0), argument("label", "compute"));
            let work = async move {
                sleep(Duration::from_secs_f64(seconds)).await;
                Ok(text(format!("slow_compute({label}) done after {seconds}s")))
            };
            work_on(tasks_if_known, work).await
        }
        "failing_job" => {
            let work = async {
                // Somebody looks at it while it works.
                sleep(Duration::from_secs(1)).await;
                let words = "failing_job: intentional tool execution error";
                Ok(CallToolResult::error(vec![ContentBlock::text(words)]))
            };
            work_on(tasks_if_known, work).await
        }
        "protocol_error_job" => {
            let work = async {
                sleep(Duration::from_millis(200)).await;
                let words = "protocol_error_job: intentional protocol-level failure";
                Err(ErrorData::internal_error(words, None))
            };
            work_on(tasks_if_known, work).await
        }
        "test_tool_with_task" => match answered(request.input_responses.as_ref(), "user_name") {
            None => {
                let name = question("What is your name?", "name", "string");
                Ok(ask([("user_name", name)], None).into())
            }
            Some(answer) => {
                let name = field(answer, "name").unwrap_or("friend").to_owned();
                let work = async move {
                    sleep(Duration::from_millis(200)).await;
                    Ok(text(format!("Hello, {name}! (async)")))
                };
                work_on(tasks_if_known, work).await
            }
        },
        "confirm_delete" => {
            let file = argument("filename", "file.txt");
            let confirm = question(&format!("Delete {file}?"), "confirm", "boolean");
            Ok(task(tasks, |context| async move {
                let answer = context.request_input("confirm", confirm).await?;
                let confirmed = &answer["content"]["confirm"];
                Ok(text(format!(
                    "confirm_delete({file}): confirmed = {confirmed}"
                )))
            }))
        }
        _ => Ok(task(tasks, |context| async move {
            let ask = |key: &'static str| {
                let question = question("Provide a value", "value", "string");
                context.request_input(key, question)
            };
            let (a, b) = tokio::try_join!(ask("input-a"), ask("input-b"))?;
            let (a, b) = (&a["content"]["value"], &b["content"]["value"]);
            Ok(text(format!("multi_input: a = {a}, b = {b}")))
        })),
    }
}

/// As a task where the client knows tasks, else at once.
async fn work_on(
    tasks: Option<&TaskManager>,
    work: impl Future<Output = Result<CallToolResult, ErrorData>> + Send + 'static,
) -> Result<CallToolResponse, ErrorData> {
    let Some(tasks) = tasks else {
        return work.await.map(Into::into);
    };
    Ok(task(tasks, |context| async move {
        tokio::select! {
            () = context.cancelled() => Err(TaskExit::Cancelled),
            done = work => done.map_err(TaskExit::Error),
        }
    }))
}

fn task<Work>(tasks: &TaskManager, work: impl FnOnce(TaskContext) -> Work) -> CallToolResponse
where
    Work: Future<Output = Result<CallToolResult, TaskExit>> + Send + 'static,
{
    let task = tasks.spawn(TaskOptions::default(), |context| Box::pin(work(context)));
    CreateTaskResult::new(task).into()
}
