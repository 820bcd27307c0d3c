//! What the four tools do, apart from how they are spoken to: keys, waits, ownership, limits.
//!
//! Holds no state that it cannot read back from the backend.

pub mod error;
pub mod kill;
pub mod logs;
pub mod offers;
pub mod present;
pub mod snapshot;
pub mod status;
pub mod submit;
mod typical;
pub mod wait;

use std::sync::Arc;

use crate::backend::{Backend, BackendError, View};
use crate::build::BuildId;
use crate::build::validate::Rules;
use crate::config::Config;

pub use error::ToolError;
use typical::Typical;
pub use wait::{Patience, Waiting};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal(pub String);

/// What the tools do.
pub struct Service {
    backend: Arc<dyn Backend>,
    config: Config,
    rules: Rules,
    typical: Typical,
}

impl Service {
    /// A service over a backend. `paths`: whether who asks sees the directories of this machine.
    pub fn new(backend: Arc<dyn Backend>, config: Config, paths: bool) -> Self {
        let rules = Rules {
            profiles: (config.profiles().into_iter())
                .map(|profile| profile.name)
                .collect(),
            secrets: config.secrets.keys().cloned().collect(),
            tags: config.registry.allow.clone(),
            git: config.git.allow.clone(),
            git_allow_http: config.git.allow_http,
            paths,
            uploads: false,
        };
        Self {
            backend,
            config,
            rules,
            typical: Typical::default(),
        }
    }

    /// Longest wait of a tool, in seconds.
    pub fn max_wait(&self) -> u32 {
        self.config.mcp.max_wait
    }

    /// A build of this principal, by id, URI or unique beginning of its id.
    ///
    /// # Errors
    /// When there is none: unknown and foreign builds look the same.
    pub async fn find(&self, principal: &Principal, text: &str) -> Result<View, ToolError> {
        let text = text.trim();
        let name = text.strip_prefix("build://").unwrap_or(text);
        let name = name
            .strip_suffix("/log")
            .unwrap_or(name)
            .to_ascii_lowercase();
        if let Ok(id) = name.parse::<BuildId>() {
            return match self.backend.look(&id).await {
                Ok(view) if view.record.principal == principal.0 => Ok(view),
                Ok(_) | Err(BackendError::NotFound(_)) => {
                    Err(self.unknown(principal, text, &name).await)
                }
                Err(error) => Err(error.into()),
            };
        }
        if !BuildId::is_prefix(&name) {
            return Err(self.unknown(principal, text, &name).await);
        }
        let mut found = self.own(principal).await?;
        found.retain(|view| view.record.id.as_str().starts_with(&name));
        match (found.pop(), found.is_empty()) {
            (Some(view), true) => Ok(view),
            (Some(_), false) => {
                Err(
                    ToolError::not_found("build_id", "several builds begin so", text)
                        .expecting("more of the id"),
                )
            }
            (None, _) => Err(self.unknown(principal, text, &name).await),
        }
    }

    async fn unknown(&self, principal: &Principal, text: &str, name: &str) -> ToolError {
        let own = self.own(principal).await.unwrap_or_default();
        let near =
            crate::schema::suggest::nearest(name, own.iter().map(|view| view.record.id.as_str()))
                .map(str::to_owned);
        ToolError::not_found("build_id", "there is no such build", text)
            .expecting("the id of one of your builds; status without build_id lists them")
            .suggesting(near)
    }

    /// The builds of this principal, unfinished first, else newest first.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn own(&self, principal: &Principal) -> Result<Vec<View>, ToolError> {
        let mut views = self.backend.list().await?;
        views.retain(|view| view.record.principal == principal.0);
        views.sort_by_key(|view| view.state().is_final());
        Ok(views)
    }

    /// State and profile of every build, whoever asked for it.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn census(&self) -> Result<Vec<(&'static str, String)>, ToolError> {
        let views = self.backend.list().await?;
        Ok((views.into_iter())
            .map(|view| (view.state().as_str(), view.record.profile))
            .collect())
    }

    /// Whether builds can be accepted.
    ///
    /// # Errors
    /// Why not.
    pub async fn health(&self) -> Result<(), ToolError> {
        Ok(self.backend.health().await?)
    }
}
