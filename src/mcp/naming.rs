//! What the tools are called in a host where bare names collide: the operator's prefix stands before each.
//!
//! Our own words that name a call (`next`) name it so, too. Bare names are taken as well.

use rmcp::model::{CallToolResult, ContentBlock, Tool};
use serde_json::Value;

/// The tools, by their bare names.
pub const TOOLS: [&str; 4] = ["build", "status", "logs", "kill"];

/// The prefix; empty: none.
#[derive(Debug, Clone, Default)]
pub struct Naming(String);

impl Naming {
    /// With what stands before each name.
    pub fn new(prefix: &str) -> Self {
        Self(prefix.to_owned())
    }

    /// The bare name of a tool that is called.
    pub fn bare<'a>(&self, name: &'a str) -> &'a str {
        let bare = name.strip_prefix(&self.0);
        // A prefix may be the beginning of a name.
        bare.filter(|bare| TOOLS.contains(bare)).unwrap_or(name)
    }

    /// All names, in a sentence.
    pub fn names(&self) -> String {
        TOOLS.map(|tool| format!("{}{tool}", self.0)).join(", ")
    }

    /// A tool as it is listed.
    pub fn tool(&self, tool: &Tool) -> Tool {
        let mut tool = tool.clone();
        if !self.0.is_empty() {
            tool.name = format!("{}{}", self.0, tool.name).into();
            tool.description = tool.description.map(|text| self.explained(&text).into());
        }
        tool
    }

    /// Words that speak of tools by their bare names, with what they are called.
    pub fn explained(&self, text: &str) -> String {
        match self.0.as_str() {
            "" => text.to_owned(),
            _ => format!(
                "{text}\nOn this server the tools are called {}.",
                self.names()
            ),
        }
    }

    /// Names the calls that an answer proposes. Foreign words in it are quoted, and stay as they are.
    pub fn name_calls(&self, result: &mut CallToolResult) {
        if self.0.is_empty() {
            return;
        }
        for block in &mut result.content {
            if let ContentBlock::Text(block) = block {
                let lines: Vec<String> = block.text.lines().map(|line| self.line(line)).collect();
                block.text = lines.join("\n");
            }
        }
        if let Some(content) = &mut result.structured_content {
            self.name_next(content);
            let builds = content.get_mut("builds").and_then(Value::as_array_mut);
            builds
                .into_iter()
                .flatten()
                .for_each(|build| self.name_next(build));
        }
    }

    fn line(&self, line: &str) -> String {
        match line.strip_prefix("next: ") {
            Some(call) => format!("next: {}", self.call(call)),
            None => line.to_owned(),
        }
    }

    fn name_next(&self, answer: &mut Value) {
        if let Some(Value::String(next)) = answer.get_mut("next") {
            *next = self.call(next);
        }
    }

    fn call(&self, text: &str) -> String {
        let word = text.split(' ').next().unwrap_or_default();
        match TOOLS.contains(&word) {
            true => format!("{}{text}", self.0),
            false => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer() -> CallToolResult {
        let text = "b7k2m-9xqdt failed\n> next: build {}\nnext: logs {\"build_id\": \"b7k2m-9xqdt\"}\nnote: logs";
        let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
        result.structured_content = Some(json!({
            "next": "build with the same arguments",
            "builds": [{"next": "logs {}", "failure": {"excerpt": "next: logs"}}, {}],
        }));
        result
    }

    #[test]
    fn calls_are_named_and_foreign_words_are_not_touched() {
        let mut result = answer();
        Naming::new("nb_").name_calls(&mut result);
        let ContentBlock::Text(block) = &result.content[0] else {
            panic!("no text");
        };
        assert_eq!(
            block.text,
            "b7k2m-9xqdt failed\n> next: build {}\nnext: nb_logs {\"build_id\": \"b7k2m-9xqdt\"}\nnote: logs"
        );
        assert_eq!(
            result.structured_content,
            Some(json!({
                "next": "nb_build with the same arguments",
                "builds": [{"next": "nb_logs {}", "failure": {"excerpt": "next: logs"}}, {}],
            }))
        );
    }

    #[test]
    fn without_a_prefix_nothing_changes() {
        let mut result = answer();
        Naming::default().name_calls(&mut result);
        assert_eq!(result, answer());
        for prefix in ["b", "build", "log"] {
            let naming = Naming::new(prefix);
            assert_eq!(naming.bare("build"), "build");
            assert_eq!(naming.bare(&format!("{prefix}build")), "build");
        }
        assert_eq!(Naming::default().bare("build"), "build");
        assert_eq!(Naming::default().explained("x"), "x");
        assert_eq!(
            (
                Naming::new("nb_").bare("nb_build"),
                Naming::new("nb_").bare("build")
            ),
            ("build", "build")
        );
        assert_eq!(
            Naming::new("nb_").names(),
            "nb_build, nb_status, nb_logs, nb_kill"
        );
    }
}
