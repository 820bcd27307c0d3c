//! Jobs, their allocations and evaluations; nodes and the agent.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::json;

use super::client::Call;
use super::retry::Repeat;
use super::types::{AgentSelf, Allocation, Dispatched, Evaluation, Job, JobStub, Node};
use super::{Client, Indexed, NomadError};

/// Most bytes of a dispatch's payload (`structs.DispatchPayloadSizeLimit`).
pub const MAX_PAYLOAD: usize = 16 * 1024;

/// A job to be dispatched.
#[derive(Debug, Clone, Default)]
pub struct Dispatch<'a> {
    /// The parameterized job.
    pub parent: &'a str,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: &'a [u8],
    /// Meta of the child.
    pub meta: &'a [(&'a str, &'a str)],
    /// The same token gives the same child, until that is collected.
    pub token: &'a str,
    /// The child is `PARENT/dispatch-PREFIX-…`.
    pub prefix: &'a str,
    /// Instead of the parent's, from 1 to what the cluster allows (100).
    pub priority: Option<u16>,
}

impl Client {
    /// Dispatches a parameterized job; repeating it is safe for its token.
    ///
    /// # Errors
    /// When there is no such job, or the right is missing.
    pub async fn dispatch(&self, dispatch: &Dispatch<'_>) -> Result<Dispatched, NomadError> {
        let what = format!("dispatch the job {}", dispatch.parent);
        let meta: serde_json::Map<String, serde_json::Value> = dispatch
            .meta
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).into()))
            .collect();
        let mut body = json!({
            "Payload": STANDARD.encode(dispatch.payload),
            "Meta": meta,
            "IdPrefixTemplate": dispatch.prefix,
        });
        if let (Some(priority), Some(body)) = (dispatch.priority, body.as_object_mut()) {
            body.insert("Priority".into(), priority.into());
        }
        let call = Call {
            method: Method::POST,
            query: &[("idempotency_token", dispatch.token)],
            body: Some(body.to_string().into_bytes()),
            ..Call::get(&what, ["job", dispatch.parent, "dispatch"])
        };
        let answer: Dispatched = self.json(&call).await?.value;
        if answer.job_id.is_empty() {
            return Err(NomadError::protocol(&what, "it names no job"));
        }
        Ok(answer)
    }

    /// A job.
    ///
    /// # Errors
    /// [`NomadError::NotFound`] when there is none.
    pub async fn job(&self, id: &str) -> Result<Job, NomadError> {
        let what = format!("read the job {id}");
        let answer = self.json(&Call::get(&what, ["job", id])).await?;
        Ok(answer.value)
    }

    /// Jobs whose ids begin so.
    ///
    /// # Errors
    /// When the right is missing.
    pub async fn jobs(&self, prefix: &str) -> Result<Indexed<Vec<JobStub>>, NomadError> {
        let call = Call {
            query: &[("prefix", prefix)],
            ..Call::get("list jobs", ["jobs"])
        };
        self.list(&call).await
    }

    /// Allocations of a job.
    ///
    /// # Errors
    /// When the right is missing.
    pub async fn job_allocations(&self, job: &str) -> Result<Vec<Allocation>, NomadError> {
        let what = format!("list the allocations of {job}");
        let call = Call {
            query: &[("all", "true")],
            ..Call::get(&what, ["job", job, "allocations"])
        };
        Ok(self.list(&call).await?.value)
    }

    /// All allocations of the namespace.
    ///
    /// # Errors
    /// When the right is missing.
    pub async fn allocations(&self) -> Result<Indexed<Vec<Allocation>>, NomadError> {
        let call = Call {
            query: &[("task_states", "true")],
            ..Call::get("list allocations", ["allocations"])
        };
        self.list(&call).await
    }

    /// All allocations that this token may see, with what they have of their nodes.
    ///
    /// # Errors
    /// When the right is missing.
    pub async fn allocated(&self) -> Result<Vec<Allocation>, NomadError> {
        let call = Call {
            query: &[("resources", "true"), ("task_states", "false")],
            ..Call::get("list allocations", ["allocations"])
        };
        Ok(self.in_namespace("*").list(&call).await?.value)
    }

    /// One allocation.
    ///
    /// # Errors
    /// [`NomadError::NotFound`] when there is none.
    pub async fn allocation(&self, id: &str) -> Result<Allocation, NomadError> {
        let what = format!("read the allocation {id}");
        let answer = self.json(&Call::get(&what, ["allocation", id])).await?;
        Ok(answer.value)
    }

    /// Evaluations of a job, newest first.
    ///
    /// # Errors
    /// When the right is missing.
    pub async fn job_evaluations(&self, job: &str) -> Result<Vec<Evaluation>, NomadError> {
        let what = format!("list the evaluations of {job}");
        let call = Call::get(&what, ["job", job, "evaluations"]);
        Ok(self.list(&call).await?.value)
    }

    /// The evaluations of the namespace that wait for capacity.
    ///
    /// # Errors
    /// When the right is missing.
    pub async fn blocked_evaluations(&self) -> Result<Indexed<Vec<Evaluation>>, NomadError> {
        let call = Call {
            query: &[("status", "blocked")],
            ..Call::get("list evaluations", ["evaluations"])
        };
        self.list(&call).await
    }

    /// Stops a job. A job that is not there is no error.
    ///
    /// # Errors
    /// When the right is missing (before Nomad 1.11.2 it is `submit-job`).
    pub async fn deregister(&self, job: &str) -> Result<(), NomadError> {
        let what = format!("stop the job {job}");
        let call = Call {
            method: Method::DELETE,
            query: &[("purge", "false")],
            ..Call::get(&what, ["job", job])
        };
        self.send(&call).await.map(drop)
    }

    /// Sends a signal to a task; `false`: it does not run (`Task not running`).
    ///
    /// # Errors
    /// When the right is missing, or the client does not answer.
    pub async fn signal(
        &self,
        allocation: &str,
        task: &str,
        signal: &str,
    ) -> Result<bool, NomadError> {
        let what = format!("signal the task {task} of {allocation}");
        let call = Call {
            method: Method::POST,
            body: Some(
                json!({"Task": task, "Signal": signal})
                    .to_string()
                    .into_bytes(),
            ),
            // Whoever signals does so again until it works.
            repeat: Repeat::Never,
            ..Call::get(&what, ["client", "allocation", allocation, "signal"])
        };
        match self.send(&call).await {
            Ok(_) => Ok(true),
            Err(NomadError::Server { text, .. }) if is_not_running(&text) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All nodes with what they have.
    ///
    /// # Errors
    /// When the right `node:read` is missing.
    pub async fn nodes(&self) -> Result<Vec<Node>, NomadError> {
        let call = Call {
            query: &[("resources", "true")],
            ..Call::get("list nodes", ["nodes"])
        };
        Ok(self.list(&call).await?.value)
    }

    /// A node with its attributes.
    ///
    /// # Errors
    /// When there is none, or the right `node:read` is missing.
    pub async fn node(&self, id: &str) -> Result<Node, NomadError> {
        let what = format!("read the node {id}");
        Ok(self.json(&Call::get(&what, ["node", id])).await?.value)
    }

    /// The address of the leader; an error when there is none.
    ///
    /// # Errors
    /// When Nomad does not answer, or has no leader.
    pub async fn leader(&self) -> Result<String, NomadError> {
        let call = Call::get("ask for the leader", ["status", "leader"]);
        Ok(self.json(&call).await?.value)
    }

    /// The agent that is asked.
    ///
    /// # Errors
    /// When the right `agent:read` is missing.
    pub async fn agent(&self) -> Result<AgentSelf, NomadError> {
        let call = Call::get("ask the agent about itself", ["agent", "self"]);
        Ok(self.json(&call).await?.value)
    }

    /// A list; Nomad has `null` for an empty one.
    pub(super) async fn list<T: serde::de::DeserializeOwned>(
        &self,
        call: &Call<'_>,
    ) -> Result<Indexed<Vec<T>>, NomadError> {
        let answer: Indexed<Option<Vec<T>>> = self.json(call).await?;
        Ok(Indexed {
            index: answer.index,
            value: answer.value.unwrap_or_default(),
        })
    }

    /// A list that waits for a change after `index`, for `wait` at most.
    pub(super) async fn blocking_list<T: serde::de::DeserializeOwned>(
        &self,
        what: &str,
        path: &[&str],
        query: &[(&str, &str)],
        index: u64,
        wait: Duration,
    ) -> Result<Indexed<Vec<T>>, NomadError> {
        let wait = wait.min(super::client::MAX_BLOCK);
        let (index, seconds) = (index.to_string(), format!("{}ms", wait.as_millis()));
        let mut query = query.to_vec();
        query.extend([("index", index.as_str()), ("wait", seconds.as_str())]);
        let call = Call {
            query: &query,
            // Nomad adds up to a sixteenth of jitter.
            block: wait + wait / 8,
            ..Call::get(what, path.iter().copied())
        };
        self.list(&call).await
    }
}

/// `client/allocrunner/taskrunner/errors.go`: `ErrTaskNotRunning`.
fn is_not_running(text: &str) -> bool {
    text.to_ascii_lowercase().contains("task not running")
}
