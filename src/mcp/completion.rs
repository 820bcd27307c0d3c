//! `completion/complete`: ids of builds, and what the operator offers.

use rmcp::ErrorData;
use rmcp::model::{CompleteRequestParams, CompletionInfo};

use crate::build::State;
use crate::build::status::Offers;

use super::prompts::FIX;
use super::server::{Asked, internal};

impl Asked<'_> {
    /// What an argument of a prompt or of a resource's address can go on with.
    pub(super) async fn complete(
        &self,
        request: &CompleteRequestParams,
    ) -> Result<CompletionInfo, ErrorData> {
        let (begun, context) = (&request.argument.value, request.context.as_ref());
        let values = match request.argument.name.as_str() {
            "build_id" | "id" => {
                let failed = request.r#ref.as_prompt_name() == Some(FIX);
                beginning_with(begun, self.ids(failed).await?)
            }
            "profile" => {
                let offers = self.service().offers(&self.principal);
                beginning_with(begun, offers.profiles)
            }
            "secrets" => {
                let profile = context.and_then(|context| context.get_argument("profile"));
                let offers = self.service().offers(&self.principal);
                listed(begun, secrets(&offers, profile))
            }
            _ => Vec::new(),
        };
        bounded(values)
    }

    /// The caller's builds, the unfinished and the newest first.
    async fn ids(&self, failed: bool) -> Result<Vec<String>, ErrorData> {
        let views = self.service().own(&self.principal).await;
        let did_not_succeed = [State::Failed, State::TimedOut, State::Lost];
        let views = views.map_err(internal)?.into_iter();
        let wanted = views.filter(|view| !failed || did_not_succeed.contains(&view.state()));
        Ok(wanted.map(|view| view.record.id.to_string()).collect())
    }
}

fn secrets(offers: &Offers, profile: Option<&String>) -> Vec<String> {
    let named = |name: &String| offers.profile_details.iter().find(|one| one.name == *name);
    match profile.and_then(named) {
        Some(profile) => profile.secrets.clone(),
        None => offers.secrets.clone(),
    }
}

fn beginning_with(begun: &str, mut values: Vec<String>) -> Vec<String> {
    values.retain(|value| value.starts_with(begun));
    values
}

/// Names with commas between them: the last one goes on, with one that does not stand there yet.
fn listed(begun: &str, values: Vec<String>) -> Vec<String> {
    let (before, last) = match begun.rsplit_once(',') {
        Some((before, last)) => (format!("{before},"), last.trim_start()),
        None => (String::new(), begun),
    };
    let there: Vec<&str> = before.split(',').map(str::trim).collect();
    (beginning_with(last, values).into_iter())
        .filter(|value| !there.contains(&value.as_str()))
        .map(|value| format!("{before}{value}"))
        .collect()
}

fn bounded(mut values: Vec<String>) -> Result<CompletionInfo, ErrorData> {
    let total = u32::try_from(values.len()).unwrap_or(u32::MAX);
    values.truncate(CompletionInfo::MAX_VALUES);
    let more = (values.len() as u64) < u64::from(total);
    CompletionInfo::with_pagination(values, Some(total), more).map_err(internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_list_goes_on() {
        let all = || ["gpg", "npm", "npm-publish"].map(String::from).to_vec();
        assert_eq!(listed("", all()), ["gpg", "npm", "npm-publish"]);
        assert_eq!(listed("np", all()), ["npm", "npm-publish"]);
        assert_eq!(listed("npm, n", all()), ["npm,npm-publish"]);
        assert_eq!(listed("x,", all()).len(), 3);
    }

    #[test]
    fn at_most_a_hundred_are_told() {
        let info = bounded((0..150).map(|n| n.to_string()).collect()).unwrap();
        assert_eq!(
            (info.values.len(), info.total, info.has_more),
            (100, Some(150), Some(true))
        );
        let info = bounded(vec!["x".into()]).unwrap();
        assert_eq!((info.total, info.has_more), (Some(1), Some(false)));
    }
}
