//! `status`: one build, or the caller's builds.

use std::cmp::Reverse;
use std::fmt;

use crate::backend::View;
use crate::build::BuildId;
use crate::build::request::{StatusRequest, Until};
use crate::build::status::{BuildStatus, Counts, StatusAnswer};
use crate::runner::reporter::now_ms;
use crate::schema::ArgFault;
use crate::schema::error_code::ErrorCode;

use super::wait::Waiting;
use super::{Principal, Service, ToolError, present};

/// Default of `wait` for one unfinished build, in seconds.
const DEFAULT_WAIT: u32 = 45;
/// Default of `limit`.
const DEFAULT_LIMIT: u32 = 10;

impl Service {
    /// One build, waited for; or a list.
    ///
    /// # Errors
    /// When there is no such build, or an argument does not fit.
    pub async fn status(
        &self,
        principal: &Principal,
        request: &StatusRequest,
        waiting: &mut Waiting<'_>,
    ) -> Result<StatusAnswer, ToolError> {
        let Some(text) = &request.build_id else {
            return self.list(principal, request, waiting).await;
        };
        let deadline = self.deadline(request.wait.unwrap_or(DEFAULT_WAIT));
        let view = self.find(principal, text).await?;
        let until = request.until.unwrap_or_default();
        let view = self.wait(view, until, deadline, waiting).await?;
        let status = self.told(principal, &view).await;
        Ok(StatusAnswer {
            builds: vec![owned(status, &view, principal)],
            ..StatusAnswer::default()
        })
    }

    /// Everything about one build, and how it stands to others.
    pub(super) async fn told(&self, principal: &Principal, view: &View) -> BuildStatus {
        let typical = self.typical_seconds(principal, &view.record).await;
        let mut status = BuildStatus {
            since_success: self.since_success(view).await,
            ..present::full(view, now_ms(), typical)
        };
        self.place_outputs(view, &mut status).await;
        status
    }

    async fn list(
        &self,
        principal: &Principal,
        request: &StatusRequest,
        waiting: &mut Waiting<'_>,
    ) -> Result<StatusAnswer, ToolError> {
        if request.until.is_some() {
            return Err(ToolError::one(
                ArgFault::new(ErrorCode::InvalidArgument, "until", "it goes with build_id")
                    .expecting("build_id"),
            ));
        }
        let after = request.cursor.as_deref().map(Position::parse).transpose()?;
        self.wait_for_any(principal, request, waiting).await?;
        let mut views = self.visible(principal).await?;
        views.sort_by_cached_key(Position::of);
        let mut counts = Counts::default();
        for view in &views {
            counts.add(view.state());
        }
        let rest: Vec<&View> = views
            .iter()
            .filter(|view| wanted(request, view))
            .filter(|view| {
                after
                    .as_ref()
                    .is_none_or(|after| Position::of(view) > *after)
            })
            .collect();
        let limit = request.limit.unwrap_or(DEFAULT_LIMIT) as usize;
        let now = now_ms();
        let unfiltered = request.name.is_none() && request.state.is_empty();
        let page: Vec<&View> = rest.iter().take(limit).copied().collect();
        let last = page.last().filter(|_| rest.len() > limit);
        Ok(StatusAnswer {
            builds: (page.iter())
                .map(|view| owned(present::row(view, now), view, principal))
                .collect(),
            next_cursor: last.map(|view| Position::of(view).to_string()),
            counts: Some(counts),
            offers: unfiltered.then(|| self.offers(principal)),
            notes: Vec::new(),
        })
    }

    /// Waits until any of the wanted builds that are unfinished now has ended.
    async fn wait_for_any(
        &self,
        principal: &Principal,
        request: &StatusRequest,
        waiting: &mut Waiting<'_>,
    ) -> Result<(), ToolError> {
        if request.wait.unwrap_or(0) == 0 {
            return Ok(());
        }
        let deadline = self.deadline(request.wait.unwrap_or(0));
        let unfinished: Vec<_> = self
            .visible(principal)
            .await?
            .into_iter()
            .filter(|view| !view.state().is_final() && wanted(request, view))
            .collect();
        if unfinished.is_empty() {
            return Ok(());
        }
        let tell = std::sync::Mutex::new(&mut *waiting.tell);
        let gone = waiting.gone.clone();
        let waits = unfinished.into_iter().map(|view| {
            let (gone, tell) = (gone.clone(), &tell);
            Box::pin(async move {
                let mut pass = |view: &View| {
                    if let Ok(mut tell) = tell.lock() {
                        tell(view);
                    }
                };
                self.wait(
                    view,
                    Until::Finished,
                    deadline,
                    &mut Waiting {
                        gone,
                        tell: &mut pass,
                    },
                )
                .await
            })
        });
        let (first, _, _) = futures_util::future::select_all(waits).await;
        first.map(|_| ())
    }
}

/// Says whose a build is that is another's.
fn owned(status: BuildStatus, view: &View, principal: &Principal) -> BuildStatus {
    let owner = &view.record.principal;
    BuildStatus {
        principal: (*owner != principal.0).then(|| owner.clone()),
        ..status
    }
}

/// Where a build stands in a list: unfinished first, then the newest first. It stays there when
/// others come or go, so that pages neither repeat nor skip.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    ended: bool,
    age: Reverse<i64>,
    id: BuildId,
}

impl Position {
    fn of(view: &View) -> Self {
        Self {
            ended: view.state().is_final(),
            age: Reverse(view.record.submitted),
            id: view.record.id.clone(),
        }
    }

    fn parse(text: &str) -> Result<Self, ToolError> {
        let mut parts = text.splitn(3, '.');
        let position = (|| {
            Some(Self {
                ended: match parts.next()? {
                    "unfinished" => false,
                    "ended" => true,
                    _ => return None,
                },
                age: Reverse(parts.next()?.parse().ok()?),
                id: parts.next()?.parse().ok()?,
            })
        })();
        position.ok_or_else(|| {
            ToolError::one(
                ArgFault::new(
                    ErrorCode::InvalidArgument,
                    "cursor",
                    "it is not a cursor of a list",
                )
                .expecting("next_cursor of the list before")
                .got(text),
            )
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.ended { "ended" } else { "unfinished" };
        write!(f, "{state}.{}.{}", self.age.0, self.id)
    }
}

fn wanted(request: &StatusRequest, view: &View) -> bool {
    request
        .name
        .as_ref()
        .is_none_or(|name| view.record.name.as_ref() == Some(name))
        && (request.state.is_empty()
            || request
                .state
                .iter()
                .any(|filter| filter.accepts(view.state())))
}
