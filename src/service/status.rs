//! `status`: one build, or the caller's builds.

use crate::backend::View;
use crate::build::error_code::ErrorCode;
use crate::build::request::{StatusRequest, Until};
use crate::build::status::{Counts, StatusAnswer};
use crate::runner::reporter::now_ms;
use crate::schema::ArgFault;

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
        let view = self.find(principal, text).await?;
        let view = self
            .wait(
                &view.record.id,
                request.until.unwrap_or_default(),
                request.wait.unwrap_or(DEFAULT_WAIT),
                waiting,
            )
            .await?;
        let typical = self.typical_seconds(principal, &view.record).await;
        Ok(StatusAnswer {
            builds: vec![present::full(&view, now_ms(), typical)],
            ..StatusAnswer::default()
        })
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
        let offset = match request.cursor.as_deref() {
            None => 0,
            Some(cursor) => cursor
                .strip_prefix("after-")
                .and_then(|number| number.parse::<usize>().ok())
                .ok_or_else(|| {
                    ToolError::one(
                        ArgFault::new(
                            ErrorCode::InvalidArgument,
                            "cursor",
                            "it is not a cursor of a list",
                        )
                        .expecting("next_cursor of the list before")
                        .got(cursor),
                    )
                })?,
        };
        self.wait_for_any(principal, request, waiting).await?;
        let views = self.own(principal).await?;
        let mut counts = Counts::default();
        for view in &views {
            counts.add(view.state());
        }
        let wanted: Vec<&View> = views.iter().filter(|view| wanted(request, view)).collect();
        let limit = request.limit.unwrap_or(DEFAULT_LIMIT) as usize;
        let now = now_ms();
        let unfiltered = request.name.is_none() && request.state.is_empty();
        Ok(StatusAnswer {
            builds: wanted
                .iter()
                .skip(offset)
                .take(limit)
                .map(|view| present::row(view, now))
                .collect(),
            next_cursor: (wanted.len() > offset + limit)
                .then(|| format!("after-{}", offset + limit)),
            counts: Some(counts),
            offers: unfiltered.then(|| self.offers()),
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
        let seconds = request.wait.unwrap_or(0);
        if seconds == 0 {
            return Ok(());
        }
        let unfinished: Vec<_> = self
            .own(principal)
            .await?
            .into_iter()
            .filter(|view| !view.state().is_final() && wanted(request, view))
            .map(|view| view.record.id)
            .collect();
        if unfinished.is_empty() {
            return Ok(());
        }
        let tell = std::sync::Mutex::new(&mut *waiting.tell);
        let gone = waiting.gone.child_token();
        let waits = unfinished.iter().map(|id| {
            let (gone, tell) = (gone.clone(), &tell);
            Box::pin(async move {
                let mut pass = |view: &View| {
                    if let Ok(mut tell) = tell.lock() {
                        tell(view);
                    }
                };
                self.wait(
                    id,
                    Until::Finished,
                    seconds,
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
