//! The tools, and those that answer by themselves.

use std::time::Duration;

use rmcp::model::*;
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::server::Fixture;
use crate::{asks, inputs, resources, tasks};

/// A WAV without a sound.
const AUDIO: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=";

/// Between signs of life.
const PAUSE: Duration = Duration::from_millis(50);

/// Those that take nothing, of the ones below.
const SIMPLE: [(&str, &str); 16] = [
    ("test_simple_text", "Returns a text"),
    ("test_image_content", "Returns an image"),
    ("test_audio_content", "Returns a sound"),
    ("test_embedded_resource", "Returns a resource"),
    (
        "test_multiple_content_types",
        "Returns content of several types",
    ),
    ("test_tool_with_logging", "Logs while it works"),
    ("test_error_handling", "Always fails"),
    ("test_tool_with_progress", "Tells of its progress"),
    (
        "test_elicitation_sep1034_defaults",
        "Asks with defaults (SEP-1034)",
    ),
    (
        "test_elicitation_sep1330_enums",
        "Asks for choices (SEP-1330)",
    ),
    ("test_reconnection", "Takes a moment"),
    (
        "test_trigger_tool_change",
        "Says that the tools have changed",
    ),
    (
        "test_trigger_prompt_change",
        "Says that the prompts have changed",
    ),
    ("test_missing_capability", "Needs a client that can sample"),
    ("test_streaming_elicitation", "Needs an answer of the user"),
    ("test_logging_tool", "Logs if the request asks for it"),
];

/// Each tool.
pub fn all() -> Vec<Tool> {
    let object = |takes: Value| json!({"type": "object", "properties": takes});
    let needs = |name: &str, schema: Value| json!({"type": "object", "properties": {name: schema}, "required": [name]});
    let words = json!({"type": "string"});
    let header = json!({"type": "string", "x-mcp-header": "Value"});
    let plain = SIMPLE.map(|(name, description)| tool(name, description, object(json!({}))));
    let inputs =
        inputs::all().map(|(name, description)| tool(name, description, object(json!({}))));
    let tasks =
        tasks::all().map(|(name, description, takes)| tool(name, description, object(takes)));
    let others = [
        tool(
            "test_sampling",
            "Asks a model",
            needs("prompt", words.clone()),
        ),
        tool("test_elicitation", "Asks the user", needs("message", words)),
        tool(
            "test_custom_header",
            "Takes a header (SEP-2243)",
            needs("value", header),
        ),
        tool(
            "json_schema_2020_12_tool",
            "Has a schema of 2020-12",
            schema_of_2020(),
        ),
    ];
    plain
        .into_iter()
        .chain(others)
        .chain(inputs)
        .chain(tasks)
        .collect()
}

fn tool(name: impl Into<String>, description: &'static str, schema: Value) -> Tool {
    let schema: JsonObject = serde_json::from_value(schema).unwrap();
    Tool::new(name.into(), description, schema)
}

fn schema_of_2020() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "address",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            },
        },
        "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
        "allOf": [{"anyOf": [{"required": ["name"]}, {"required": ["address"]}]}],
        "if": {"required": ["address"]},
        "then": {"properties": {"address": {"required": ["street"]}}},
        "else": {"required": ["name"]},
        "additionalProperties": false,
    })
}

/// Answers a call.
pub async fn call(
    fixture: &Fixture,
    request: CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let arguments = request.arguments.unwrap_or_default();
    let argument = |name: &str| arguments.get(name).and_then(Value::as_str);
    let result = match request.name.as_ref() {
        "test_simple_text" => text("This is a simple text response for testing."),
        "test_image_content" => content([ContentBlock::image(resources::IMAGE, "image/png")]),
        "test_audio_content" => content([ContentBlock::audio(AUDIO, "audio/wav")]),
        "test_embedded_resource" => {
            let words = "This is an embedded resource content.";
            let resource = resources::text("test://embedded-resource", "text/plain", words);
            content([ContentBlock::resource(resource)])
        }
        "test_multiple_content_types" => {
            let (uri, data) = (
                "test://mixed-content-resource",
                r#"{"test":"data","value":123}"#,
            );
            content([
                ContentBlock::text("Multiple content types test:"),
                ContentBlock::image(resources::IMAGE, "image/png"),
                ContentBlock::resource(resources::text(uri, "application/json", data)),
            ])
        }
        "test_tool_with_logging" => {
            for words in ["started", "processing data", "completed"] {
                log(context, LoggingLevel::Info, &format!("Tool {words}")).await;
                sleep(PAUSE).await;
            }
            text("Logging test completed")
        }
        "test_logging_tool" => {
            if let Some(level) = context.meta.log_level() {
                log(context, level, "a level was asked for").await;
            }
            text("Logging tool completed")
        }
        "test_error_handling" => {
            let words = "This tool intentionally returns an error for testing";
            CallToolResult::error(vec![ContentBlock::text(words)])
        }
        "test_tool_with_progress" => {
            for progress in [0.0, 50.0, 100.0] {
                if let Some(token) = context.meta.get_progress_token() {
                    let progress =
                        ProgressNotificationParam::new(token, progress).with_total(100.0);
                    // Who has gone hears nothing.
                    let _ = context.peer.notify_progress(progress).await;
                }
                sleep(PAUSE).await;
            }
            text("Progress test completed")
        }
        "test_reconnection" => {
            sleep(PAUSE).await;
            text("Reconnection test completed")
        }
        "test_custom_header" => match argument("value") {
            Some(value) => text(value),
            None => return Err(ErrorData::invalid_params("value must be a string", None)),
        },
        "json_schema_2020_12_tool" => {
            text(format!("Hello, {}!", argument("name").unwrap_or("world")))
        }
        "test_sampling" => asks::sample(context, argument("prompt").unwrap_or("Hello")).await,
        "test_elicitation" => {
            let message = argument("message").unwrap_or("Who are you?");
            asks::elicit(context, message, asks::person()).await
        }
        "test_elicitation_sep1034_defaults" => {
            asks::elicit(context, "Each has a default", asks::defaults()).await
        }
        "test_elicitation_sep1330_enums" => asks::elicit(context, "Choose", asks::choices()).await,
        "test_trigger_tool_change" => {
            for subscription in fixture.subscriptions().await {
                let _ = subscription.notify_tool_list_changed().await;
            }
            text("Tool list change triggered")
        }
        "test_trigger_prompt_change" => {
            for subscription in fixture.subscriptions().await {
                let _ = subscription.notify_prompt_list_changed().await;
            }
            text("Prompt list change triggered")
        }
        "test_missing_capability" => {
            let client = context.meta.client_capabilities().unwrap_or_default();
            if client.sampling.is_none() {
                return Err(ErrorData::missing_required_client_capability(
                    ClientCapabilities::builder().enable_sampling().build(),
                ));
            }
            text("Required capability declared")
        }
        "test_streaming_elicitation" => {
            let question = inputs::question("Provide a value", "value", "string");
            return Ok(inputs::ask([("streaming_elicitation", question)], None).into());
        }
        name => {
            return Err(ErrorData::invalid_params(
                format!("Unknown tool: {name}"),
                None,
            ));
        }
    };
    Ok(result.into())
}

async fn log(context: &RequestContext<RoleServer>, level: LoggingLevel, words: &str) {
    let message =
        LoggingMessageNotificationParam::new(level, json!(words)).with_logger("conformance");
    // Who has gone hears nothing.
    let _ = context.peer.notify_logging_message(message).await;
}

/// A result that is a text.
pub fn text(text: impl Into<String>) -> CallToolResult {
    content([ContentBlock::text(text)])
}

fn content<const N: usize>(content: [ContentBlock; N]) -> CallToolResult {
    CallToolResult::success(content.into())
}
