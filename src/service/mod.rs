//! What the four tools do, apart from how they are spoken to: keys, waits, ownership, limits.
//!
//! Holds no state that it cannot read back from the backend. The configuration may change while it runs: a request
//! takes a [`Service::now`] at its beginning, and sees one configuration to its end.

pub mod error;
pub mod kill;
pub mod logs;
pub mod offers;
pub mod outputs;
pub mod present;
mod remembered;
mod rights;
mod since;
pub mod snapshot;
pub mod status;
pub mod submit;
mod typical;
pub mod uploads;
pub mod wait;

use std::sync::Arc;

use crate::backend::{Backend, BackendError, Dependency, Health, Standing, View, Vitals};
use crate::build::BuildId;
use crate::build::inputs::SinceSuccess;
use crate::config::{self, Config, Live};

pub use error::{Remedy, ToolError};
use remembered::Remembered;
use rights::Pace;
use uploads::Uploading;
pub use wait::{Patience, Waiting};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal(pub String);

impl Principal {
    /// A user of this machine, by number.
    ///
    /// # Errors
    /// When it cannot be found out whether it has a name: then it must not be taken for another.
    pub fn of_user(uid: u32) -> std::io::Result<Self> {
        let user = nix::unistd::User::from_uid(uid.into())?;
        let name = user.map_or_else(|| uid.to_string(), |user| user.name);
        Ok(Self(format!("local:{name}")))
    }
}

/// What the tools do, under one configuration. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    backend: Arc<dyn Backend>,
    live: Live,
    /// As it was when this was made.
    config: Arc<Config>,
    /// Whether who asks sees the directories of this machine.
    paths: bool,
    typical: Arc<Remembered<u64>>,
    since: Arc<Remembered<SinceSuccess>>,
    pace: Arc<Pace>,
    uploading: Arc<Uploading>,
}

impl Service {
    /// A service over a backend. `paths`: whether who asks sees the directories of this machine.
    pub fn new(backend: Arc<dyn Backend>, config: impl Into<Live>, paths: bool) -> Self {
        let live = config.into();
        Self {
            backend,
            config: live.now(),
            live,
            paths,
            typical: Arc::default(),
            since: Arc::default(),
            pace: Arc::default(),
            uploading: Arc::default(),
        }
    }

    /// The same under the configuration that holds now: for one request, from its beginning to its end.
    #[must_use]
    pub fn now(&self) -> Self {
        Self {
            config: self.live.now(),
            ..self.clone()
        }
    }

    /// How what lies over the configuration stands; `None` where nothing ever does.
    pub fn overlay(&self) -> Option<config::live::Standing> {
        self.live.standing()
    }

    /// Refuses what the configuration may not allow, as long as that is not known.
    fn refuse_unconfigured(&self) -> Result<(), ToolError> {
        if !self.overlay().is_some_and(|overlay| overlay.is_unknown()) {
            return Ok(());
        }
        let text = "the configuration in Consul was not read yet, or is not valid; nothing is built before it is known what is allowed";
        Err(BackendError::Unavailable(text.into()).into())
    }

    /// What stands before the names of the tools.
    pub fn tool_prefix(&self) -> &str {
        &self.config.mcp.tool_prefix
    }

    /// Longest wait of a tool, in seconds.
    pub fn max_wait(&self) -> u32 {
        self.config.mcp.max_wait
    }

    /// A build that this principal may see, by id, URI or unique beginning of its id.
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
            // Whose it is comes before everything else: nothing is done for who must not know of it.
            let expected = (!self.is_operator(principal)).then_some(principal.0.as_str());
            return match self.backend.owner(&id, expected).await {
                Ok(owner) if self.may_see(principal, &owner) => Ok(self.backend.look(&id).await?),
                Ok(_) | Err(BackendError::NotFound(_)) => {
                    Err(self.unknown(principal, text, &name).await)
                }
                Err(error) => Err(error.into()),
            };
        }
        if !BuildId::is_prefix(&name) {
            return Err(self.unknown(principal, text, &name).await);
        }
        let mut found = self.visible(principal).await?;
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
        self.listed(|owner| owner == principal.0).await
    }

    /// The builds that this principal may see: its own; an operator, all.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn visible(&self, principal: &Principal) -> Result<Vec<View>, ToolError> {
        let all = self.is_operator(principal);
        self.listed(|owner| all || owner == principal.0).await
    }

    /// Builds by who asked for them, unfinished first, else newest first.
    async fn listed(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<View>, ToolError> {
        let mut views = self.backend.list().await?;
        views.retain(|view| wanted(&view.record.principal));
        views.sort_by_key(|view| view.state().is_final());
        Ok(views)
    }

    fn may_see(&self, principal: &Principal, owner: &str) -> bool {
        owner == principal.0 || self.is_operator(principal)
    }

    /// Every build, whoever asked for it.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn census(&self) -> Result<Vec<View>, ToolError> {
        Ok(self.backend.list().await?)
    }

    /// How it goes between this server and where builds run.
    pub fn vitals(&self) -> Vitals {
        self.backend.vitals()
    }

    /// Whether builds can be accepted, and what is missing.
    pub async fn health(&self) -> Health {
        let health = self.backend.health().await;
        match self.overlay() {
            None => health,
            Some(overlay) => health.and(standings(overlay)),
        }
    }
}

/// For names that nobody else has or guesses.
fn random() -> Result<[u8; 16], ToolError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(ToolError::internal)?;
    Ok(random)
}

/// What was known of what lies over the configuration holds, and builds go on; before anything was, none do.
fn standings(overlay: config::live::Standing) -> [(Dependency, Standing); 2] {
    let missing = match overlay.is_unknown() {
        true => Standing::Down,
        false => Standing::Impaired,
    };
    let valid = match overlay.refused.is_empty() {
        true => Standing::Up,
        false => missing(overlay.refused.join("; ")),
    };
    [
        (
            Dependency::Consul,
            overlay.unread.map_or(Standing::Up, missing),
        ),
        (Dependency::Configuration, valid),
    ]
}
