//! What has changed since the last success of the same source.

use std::borrow::Cow;

use crate::backend::View;
use crate::build::State;
use crate::build::inputs::{Inputs, Made, SinceSuccess, is_same_source, since_success};

use super::present::{rfc3339, source};
use super::{Principal, Service};

impl Service {
    /// What is otherwise in a build that did not succeed than in the last before it that did.
    pub async fn since_success(&self, view: &View) -> Option<SinceSuccess> {
        let end = view.record.end.as_ref()?;
        if matches!(view.state(), State::Succeeded | State::Cancelled) {
            return None;
        }
        let id = &view.record.id;
        if let Some(known) = self.since.known(id) {
            return known;
        }
        // Whoever asks, an operator too, the builds that count are those of who asked for it.
        let owner = Principal(view.record.principal.clone());
        let own = self.own(&owner).await.ok()?;
        let here = made(view);
        // What ended before its Containerfile was read has a source alone.
        let inputs = |before: &Made<'_>| match &end.inputs {
            Some(inputs) => Cow::Borrowed(inputs),
            None => Cow::Owned(before.inputs.unread()),
        };
        let last = (own.iter())
            .filter(|other| other.record.submitted < view.record.submitted)
            .filter(|other| other.state() == State::Succeeded && is_same(other, view))
            .filter_map(|other| Some((other, made(other)?)))
            .filter(|(_, before)| is_same_source(before, &now(view, &inputs(before))))
            .max_by_key(|(other, _)| other.record.submitted);
        let since = last.map(|(last, before)| SinceSuccess {
            finished: last.record.end.as_ref().map(|end| rfc3339(end.at)),
            ..since_success(
                last.record.id.as_str(),
                &before,
                &now(view, &inputs(&before)),
            )
        });
        let tells = |since: &SinceSuccess| since.commit.is_some() || since.context.is_some();
        self.since
            .keep(id, since.filter(|since| here.is_some() || tells(since)))
    }
}

fn made(view: &View) -> Option<Made<'_>> {
    Some(now(view, view.record.end.as_ref()?.inputs.as_ref()?))
}

fn now<'a>(view: &View, inputs: &'a Inputs) -> Made<'a> {
    let found = view.record.end.as_ref().and_then(|end| end.source.as_ref());
    Made {
        source: source(&view.record.source, found),
        inputs,
    }
}

/// Whether both are builds of one thing: without a place to be known by, they have one name.
fn is_same(one: &View, other: &View) -> bool {
    let asked = &one.record.source;
    let (name, other) = (&one.record.name, &other.record.name);
    asked.git.is_some() || asked.path.is_some() || (name.is_some() && name == other)
}
