//! The four tools and their schemas, from the types that the service uses.

use std::sync::Arc;

use rmcp::model::{Tool, ToolAnnotations};
use serde_json::{Map, Value};

use crate::build::request::{BuildRequest, KillRequest, LogsRequest, MAX_WAIT, StatusRequest};
use crate::build::status::{BuildStatus, KillAnswer, LogsAnswer, StatusAnswer};
use crate::schema::{self, Synonyms};

use super::{guide, icon};

/// Names other tools use for our arguments.
pub const SYNONYMS: Synonyms<'static> = &[
    ("dockerfile", "containerfile"),
    ("file", "containerfile"),
    ("image", "tags"),
    ("tag", "tags"),
    ("repo", "source.git"),
    ("repository", "source.git"),
    ("url", "source.git"),
    ("git", "source.git"),
    ("path", "source.path"),
    ("context", "source.path"),
    ("dir", "source.path"),
    ("directory", "source.path"),
    ("files", "source.files"),
    ("branch", "source.ref"),
    ("ref", "source.ref"),
    ("args", "build_args"),
    ("contexts", "build_contexts"),
    ("additional_contexts", "build_contexts"),
    ("test", "tests"),
    ("stage", "target"),
    ("id", "build_id"),
    ("build", "build_id"),
    ("follow", "wait"),
    ("timeout_seconds", "timeout"),
    ("tail", "lines"),
    ("pattern", "grep"),
    ("content", "text"),
    ("cmd", "command"),
];

/// One tool: what is published, and what drives the decoder.
#[derive(Debug, Clone)]
pub struct Definition {
    /// What clients see.
    pub tool: Tool,
    /// The input schema with the decoder's marks.
    pub decoder: Map<String, Value>,
}

/// The tools in their fixed order; `max_wait` in seconds is the operator's.
pub fn definitions(max_wait: u32) -> Vec<Definition> {
    vec![
        define(
            "build",
            "Build an image",
            guide::BUILD,
            schema::tool_schema::<BuildRequest>(),
            schema::output_schema::<BuildStatus>(),
            max_wait,
        )
        .annotated(false, true, false, true),
        define(
            "status",
            "How builds stand",
            guide::STATUS,
            schema::tool_schema::<StatusRequest>(),
            schema::output_schema::<StatusAnswer>(),
            max_wait,
        )
        .annotated(true, false, true, false),
        define(
            "logs",
            "Read a build's log",
            guide::LOGS,
            schema::tool_schema::<LogsRequest>(),
            schema::output_schema::<LogsAnswer>(),
            max_wait,
        )
        .annotated(true, false, true, false),
        define(
            "kill",
            "End a build",
            guide::KILL,
            schema::tool_schema::<KillRequest>(),
            schema::output_schema::<KillAnswer>(),
            max_wait,
        )
        .annotated(false, true, true, false),
    ]
}

fn define(
    name: &'static str,
    title: &str,
    description: &'static str,
    mut input: Map<String, Value>,
    output: Map<String, Value>,
    max_wait: u32,
) -> Definition {
    if max_wait != MAX_WAIT
        && let Some(wait) = input
            .get_mut("properties")
            .and_then(|all| all.get_mut("wait"))
            .and_then(Value::as_object_mut)
    {
        wait.insert("maximum".into(), max_wait.into());
        if let Some(Value::String(text)) = wait.get_mut("description") {
            *text = text.replace("at most 50", &format!("at most {max_wait}"));
        }
    }
    let mut tool =
        Tool::new(name, description, Arc::new(schema::published(&input))).with_title(title);
    tool.icons = Some(vec![icon::of_tool(name)]);
    tool.output_schema = Some(Arc::new(output));
    Definition {
        tool,
        decoder: input,
    }
}

impl Definition {
    fn annotated(
        mut self,
        read_only: bool,
        destructive: bool,
        idempotent: bool,
        open_world: bool,
    ) -> Self {
        self.tool.annotations = Some(
            ToolAnnotations::with_title(self.tool.title.clone().unwrap_or_default())
                .read_only(read_only)
                .destructive(destructive)
                .idempotent(idempotent)
                .open_world(open_world),
        );
        self
    }
}
