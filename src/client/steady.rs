//! Calls that may be repeated, to a server that may be away for a while.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};

use super::{Answer, Remote, Tools};

/// How long to wait before the next try, where the server does not say it.
const PAUSE: Duration = Duration::from_secs(2);

/// The tools of a server, through restarts and broken connections.
#[derive(Debug)]
pub struct Steady {
    /// None: it is in this process.
    remote: Option<Remote>,
    tools: Option<Tools>,
    patience: Duration,
}

/// The server did not answer for too long.
#[derive(Debug, thiserror::Error)]
#[error("the server does not answer any more: {0}")]
pub struct Away(String);

impl Steady {
    /// Those of a server elsewhere, which may be away for so long once it has been there.
    pub fn elsewhere(remote: Remote, tools: Tools, patience: Duration) -> Self {
        Self {
            remote: Some(remote),
            tools: Some(tools),
            patience,
        }
    }

    /// Those of a server in this process.
    pub fn here(tools: Tools) -> Self {
        Self {
            remote: None,
            tools: Some(tools),
            patience: Duration::ZERO,
        }
    }

    /// The server elsewhere, if it is one.
    pub fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    /// Calls a tool, once more for as long as there is no answer, or one that passes.
    ///
    /// # Errors
    /// When that goes on for too long.
    pub async fn call(
        &mut self,
        tool: &'static str,
        arguments: &Map<String, Value>,
    ) -> Result<Answer, Away> {
        let mut away_since = None;
        loop {
            let asked = Instant::now();
            let (why, pause) = match self.once(tool, arguments).await {
                Ok(answer) => match answer.another_time() {
                    None => return Ok(answer),
                    Some(seconds) => (answer.text, seconds.map(Duration::from_secs)),
                },
                Err(error) => {
                    self.tools = None;
                    (format!("{error:#}"), None)
                }
            };
            let pause = pause.unwrap_or(PAUSE);
            let since: Instant = *away_since.get_or_insert(asked);
            if since.elapsed() + pause > self.patience {
                return Err(Away(why));
            }
            tracing::debug!(why, "the server is asked once more");
            sleep(pause).await;
        }
    }

    async fn once(
        &mut self,
        tool: &'static str,
        arguments: &Map<String, Value>,
    ) -> anyhow::Result<Answer> {
        let tools = match self.tools.take() {
            Some(tools) => tools,
            None => match &self.remote {
                Some(remote) => remote.connect().await?,
                None => anyhow::bail!("the connection within this process is broken"),
            },
        };
        let tools = self.tools.insert(tools);
        tools.call(tool, arguments.clone()).await
    }
}
