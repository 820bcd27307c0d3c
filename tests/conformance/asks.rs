//! Tools that ask the client while they are called, as sessions let them.

use rmcp::RoleServer;
use rmcp::model::*;
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use crate::tools::text;

/// Words of a model.
pub async fn sample(context: &RequestContext<RoleServer>, prompt: &str) -> CallToolResult {
    let messages = vec![SamplingMessage::user_text(prompt)];
    let request = CreateMessageRequestParams::new(messages, 100);
    match context.peer.create_message(request).await {
        Ok(answer) => {
            let said = answer.message.content.first().and_then(|one| one.as_text());
            let said = said.map_or("(nothing)", |said| said.text.as_str());
            text(format!("LLM response: {said}"))
        }
        Err(error) => failed(error),
    }
}

/// A form that the user fills in.
pub async fn elicit(
    context: &RequestContext<RoleServer>,
    message: &str,
    form: Value,
) -> CallToolResult {
    let request = ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: message.into(),
        requested_schema: serde_json::from_value(form).unwrap(),
    };
    match context.peer.create_elicitation(request).await {
        Ok(answer) => {
            let action = json!(answer.action);
            let (action, content) = (action.as_str().unwrap_or_default(), json!(answer.content));
            text(format!("User response: action={action}, content={content}"))
        }
        Err(error) => failed(error),
    }
}

fn failed(error: impl std::fmt::Display) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(format!("cannot ask: {error}"))])
}

/// Two texts.
pub fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "username": {"type": "string", "description": "User's response"},
            "email": {"type": "string", "description": "User's email address"},
        },
        "required": ["username", "email"],
    })
}

/// A field of each type, with a default (SEP-1034).
pub fn defaults() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "default": "John Doe"},
            "age": {"type": "integer", "default": 30},
            "score": {"type": "number", "default": 95.5},
            "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
            "verified": {"type": "boolean", "default": true},
        },
    })
}

/// A choice of each kind (SEP-1330).
pub fn choices() -> Value {
    let plain = ["option1", "option2", "option3"];
    let titled = json!([
        {"const": "value1", "title": "First Option"},
        {"const": "value2", "title": "Second Option"},
        {"const": "value3", "title": "Third Option"},
    ]);
    json!({
        "type": "object",
        "properties": {
            "untitledSingle": {"type": "string", "enum": plain},
            "titledSingle": {"type": "string", "oneOf": titled},
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"],
            },
            "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
            "titledMulti": {"type": "array", "items": {"anyOf": titled}},
        },
    })
}
