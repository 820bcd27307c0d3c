//! Nomad Variables with check-and-set (<https://developer.hashicorp.com/nomad/api-docs/variables/variables>).

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::client::Call;
use super::retry::Repeat;
use super::{Client, Indexed, NomadError};

/// Most bytes of all names and values together (`structs.maxVariableSize`).
pub const MAX_VARIABLE: usize = 64 * 1024;

/// What a variable holds.
pub type Items = BTreeMap<String, String>;

/// A variable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Variable {
    /// Its path.
    pub path: String,
    /// Index of its last change; what the next write must name.
    pub modify_index: u64,
    /// What it holds.
    pub items: Items,
}

/// A variable as lists have it: without what it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VariableStub {
    /// Its path.
    pub path: String,
    /// Index of its last change.
    pub modify_index: u64,
    /// When that was, in nanoseconds since 1970.
    pub modify_time: i64,
}

/// Answer to a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It is written; the index of this change.
    Done(u64),
    /// Somebody else has written in between; what is there now, if it may be read.
    Conflict(Option<Variable>),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Write<'a> {
    path: &'a str,
    namespace: &'a str,
    items: &'a Items,
}

impl Client {
    /// A variable; `None`: there is none.
    ///
    /// # Errors
    /// When the right is missing.
    pub async fn variable(&self, path: &str) -> Result<Option<Variable>, NomadError> {
        let what = format!("read the variable {path}");
        match self.json(&Call::get(&what, at(path))).await {
            Ok(answer) => Ok(Some(answer.value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Variables whose paths begin so. With an `index` it waits for a change after it, for `wait`
    /// at most.
    ///
    /// # Errors
    /// When the right is missing.
    pub async fn variables(
        &self,
        prefix: &str,
        index: u64,
        wait: Duration,
    ) -> Result<Indexed<Vec<VariableStub>>, NomadError> {
        let query = [("prefix", prefix)];
        self.blocking_list("list variables", &["vars"], &query, index, wait)
            .await
    }

    /// Writes a variable if its last change is `index`; 0: if there is none.
    ///
    /// It is repeated only when it certainly had no effect. After any other fault it may have been
    /// written: read it.
    ///
    /// # Errors
    /// When the right is missing, or it is too large.
    pub async fn write_variable(
        &self,
        path: &str,
        items: &Items,
        index: u64,
    ) -> Result<Written, NomadError> {
        let what = format!("write the variable {path}");
        let namespace = self.namespace();
        let body = serde_json::to_vec(&Write {
            path,
            namespace,
            items,
        })
        .map_err(|error| NomadError::protocol(&what, error))?;
        self.check_and_set(&what, Method::PUT, path, Some(body), index)
            .await
    }

    /// Removes a variable if its last change is `index`.
    ///
    /// # Errors
    /// When the right is missing.
    pub async fn delete_variable(&self, path: &str, index: u64) -> Result<Written, NomadError> {
        let what = format!("remove the variable {path}");
        self.check_and_set(&what, Method::DELETE, path, None, index)
            .await
    }

    async fn check_and_set(
        &self,
        what: &str,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        index: u64,
    ) -> Result<Written, NomadError> {
        let index = index.to_string();
        let call = Call {
            method,
            query: &[("cas", index.as_str())],
            body,
            repeat: Repeat::IfUndone,
            ..Call::get(what, at(path))
        };
        let answer = self.send_or_conflict(&call).await?;
        if answer.status == StatusCode::CONFLICT {
            let there = serde_json::from_slice::<Variable>(&answer.body).ok();
            // Whoever may not read what is there gets a text, or an empty variable.
            return Ok(Written::Conflict(there.filter(|one| one.modify_index > 0)));
        }
        // A removed variable has no answer.
        if answer.body.is_empty() {
            return Ok(Written::Done(0));
        }
        let written: Variable = serde_json::from_slice(&answer.body)
            .map_err(|error| NomadError::protocol(what, error))?;
        Ok(Written::Done(written.modify_index))
    }
}

/// A path as the segments of a URL below `/v1/`.
fn at(path: &str) -> impl Iterator<Item = &str> {
    std::iter::once("var").chain(path.split('/'))
}
