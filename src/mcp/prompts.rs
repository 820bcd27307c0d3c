//! Prompts: what people can have an agent do by a word.

use std::collections::BTreeMap;

use rmcp::model::{JsonObject, Prompt, PromptArgument};
use serde_json::{Value, json};

use crate::build::status::BuildStatus;

use super::{fence, icon, render};

/// Name of the prompt that begins with a failed build.
pub const FIX: &str = "fix-failed-build";
/// Name of the prompt that begins with a source.
pub const BUILD: &str = "build-image";

/// All prompts, always in this order.
pub fn all() -> Vec<Prompt> {
    vec![
        prompt(
            BUILD,
            "Build an image",
            "Build a container image, test it, push it, and mend what fails",
            &[
                (
                    "source",
                    "Absolute path of a directory, or URL of a git repository",
                    true,
                ),
                ("tag", "Full host/repository:tag to push to", false),
                ("profile", "Class of machine or limits", false),
                (
                    "secrets",
                    "Names of secrets for RUN, with commas between them",
                    false,
                ),
            ],
        ),
        prompt(
            FIX,
            "Fix a failed build",
            "Mend what made a build fail, and build again",
            &[("build_id", "Id of the failed build", true)],
        ),
    ]
}

fn prompt(name: &str, title: &str, does: &str, arguments: &[(&str, &str, bool)]) -> Prompt {
    let arguments = arguments.iter().map(|(name, what, required)| {
        PromptArgument::new(*name)
            .with_description(*what)
            .with_required(*required)
    });
    Prompt::new(name, Some(does), Some(arguments.collect()))
        .with_title(title)
        .with_icons(vec![icon::icon()])
}

/// The arguments of a prompt by their names, without those that are empty.
pub fn given(arguments: Option<&JsonObject>) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    (arguments.into_iter().flatten())
        .map(|(name, value)| (name.clone(), text(value)))
        .filter(|(_, text)| !text.is_empty())
        .collect()
}

/// What the prompt says that begins with a source.
pub fn build(given: &BTreeMap<String, String>) -> String {
    let get = |name: &str| given.get(name).map(String::as_str);
    let source = get("source").unwrap_or_default();
    let is_git = source.contains("://") || source.starts_with("git@");
    let mut call = json!({"source": {if is_git { "git" } else { "path" }: source}, "wait": 45});
    if let Some(call) = call.as_object_mut() {
        call.extend(get("tag").map(|tag| ("tags".to_owned(), json!([tag]))));
        call.extend(get("profile").map(|profile| ("profile".to_owned(), profile.into())));
        let names = |list: &str| {
            let names: Vec<&str> = list.split(',').map(str::trim).collect();
            ("secrets".to_owned(), json!(names))
        };
        call.extend(get("secrets").map(names));
    }
    format!(
        "Build a container image with build {call}, and wait for its end with status. Give it tests that show that the image works, if you can tell what would. If it fails, find the cause, mend it and build again; if its fault is operator, do not change the code but tell the user. At the end say the image's digest, and what was pushed."
    )
}

/// What the prompt says of a failed build.
pub fn fix(status: &BuildStatus) -> String {
    format!(
        "A container build has failed. Find the cause, mend it in the sources, and build again with build {{\"like\": \"{}\"}}. If its fault is request, change the arguments instead; if it is operator, do not change the code but tell the user.\n\n{}",
        status.build_id,
        render::build(status, &fence::nonce())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(arguments: Value) -> String {
        build(&given(arguments.as_object()))
    }

    #[test]
    fn what_is_given_becomes_arguments_of_the_tool() {
        let text = said(json!({"source": "/home/me/app", "tag": "", "secrets": "npm, gpg"}));
        let call = r#"build {"source":{"path":"/home/me/app"},"wait":45,"secrets":["npm","gpg"]}"#;
        assert!(text.contains(call), "{text}");
        let text = said(
            json!({"source": "git@host:a\"b.git", "tag": "r.example/a:1", "profile": "large"}),
        );
        let call = r#"{"source":{"git":"git@host:a\"b.git"},"wait":45,"tags":["r.example/a:1"],"profile":"large"}"#;
        assert!(text.contains(call), "{text}");
    }
}
