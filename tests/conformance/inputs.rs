//! Tools that need an input in the middle of a call (SEP-2322): instead of a result they answer what they
//! need, and are called once more with it.

use std::sync::Arc;

use rmcp::ErrorData;
use rmcp::model::*;
use serde_json::{Map, Value, json};

use crate::server::internal;
use crate::tools::text;

/// Of tests; a server that is none keeps its own to itself.
const KEY: &[u8] = b"the key of a fixture that nobody has to keep secret";

/// What they are called without `test_input_required_result_`, and what for.
const TOOLS: [(&str, &str); 8] = [
    ("elicitation", "Needs an answer of the user"),
    ("sampling", "Needs words of a model"),
    ("list_roots", "Needs the roots of the client"),
    ("request_state", "Needs its own state back"),
    ("multiple_inputs", "Needs three inputs at once"),
    ("multi_round", "Needs one input after the other"),
    ("tampered_state", "Refuses a state that was changed"),
    ("capabilities", "Asks only for what the client can give"),
];

/// These tools and what they seal their state with.
#[derive(Clone)]
pub struct Inputs(Arc<RequestStateCodec>);

impl Default for Inputs {
    fn default() -> Self {
        Self(Arc::new(RequestStateCodec::new(KEY)))
    }
}

/// Names and descriptions.
pub fn all() -> impl Iterator<Item = (String, &'static str)> {
    let name = |short| format!("test_input_required_result_{short}");
    (TOOLS.into_iter()).map(move |(short, description)| (name(short), description))
}

impl Inputs {
    /// Answers a call. `meta`: what the request says of its client.
    pub fn call(
        &self,
        request: &CallToolRequestParams,
        meta: &RequestMetaObject,
    ) -> Result<CallToolResponse, ErrorData> {
        let answer = |key| answered(request.input_responses.as_ref(), key);
        let name = || question("What is your name?", "name", "string");
        let short = request
            .name
            .trim_start_matches("test_input_required_result_");
        let asked = match short {
            "elicitation" => match answer("user_name") {
                Some(answer) => {
                    let name = field(answer, "name").unwrap_or("friend");
                    return Ok(text(format!("Hello, {name}!")).into());
                }
                None => ask([("user_name", name())], None),
            },
            "sampling" => match answer("capital_question") {
                Some(answer) => {
                    let said = Value::Object(answer.clone());
                    let said = said.pointer("/content/text").and_then(Value::as_str);
                    let said = said.unwrap_or("(nothing)");
                    return Ok(text(format!("Sampling response: {said}")).into());
                }
                None => {
                    let sample = sample("What is the capital of France?");
                    ask([("capital_question", sample)], None)
                }
            },
            "list_roots" => match answer("client_roots") {
                Some(answer) => {
                    let roots = answer.get("roots").cloned().unwrap_or_default();
                    return Ok(text(format!("Client roots: {roots}")).into());
                }
                None => ask([("client_roots", roots())], None),
            },
            "request_state" | "tampered_state" => match self.state(request)? {
                Some(_) => return Ok(text("Confirmed: state-ok").into()),
                None => {
                    let confirm = question("Please confirm", "ok", "boolean");
                    ask([("confirm", confirm)], Some(self.seal("confirm")?))
                }
            },
            "multiple_inputs" => {
                let state = self.state(request)?;
                let keys = ["user_name", "greeting", "client_roots"];
                if state.is_some() && keys.into_iter().all(|key| answer(key).is_some()) {
                    return Ok(text("All inputs received").into());
                }
                let requests = [name(), sample("Generate a greeting"), roots()];
                ask(keys.into_iter().zip(requests), Some(self.seal("gather")?))
            }
            "multi_round" => match self.state(request)?.as_deref() {
                None => ask([("step1", name())], Some(self.seal("first")?)),
                Some("first") => {
                    let color = question("What is your favorite color?", "color", "string");
                    ask([("step2", color)], Some(self.seal("second")?))
                }
                Some(_) => return Ok(text("Multi-round flow complete").into()),
            },
            "capabilities" => {
                let can = meta.client_capabilities().unwrap_or_default();
                let requests = [
                    ("user_name", can.elicitation.map(|_| name())),
                    (
                        "greeting",
                        can.sampling.map(|_| sample("Generate a greeting")),
                    ),
                    ("client_roots", can.roots.map(|_| roots())),
                ];
                let mut requests = (requests.into_iter())
                    .filter_map(|(key, request)| Some((key, request?)))
                    .peekable();
                if request.input_responses.is_some() || requests.peek().is_none() {
                    return Ok(text("Capability-aware flow complete").into());
                }
                ask(requests, None)
            }
            _ => {
                return Err(ErrorData::invalid_params(
                    format!("Unknown tool: {}", request.name),
                    None,
                ));
            }
        };
        Ok(asked.into())
    }

    fn seal(&self, state: &str) -> Result<String, ErrorData> {
        self.0.seal_json(&state).map_err(internal)
    }

    /// The state as it was sealed, if the client sends one back.
    fn state(&self, request: &CallToolRequestParams) -> Result<Option<String>, ErrorData> {
        let sealed = request.request_state.as_deref();
        let opened = sealed.map(|sealed| self.0.open_json(sealed)).transpose();
        opened.map_err(|_| ErrorData::invalid_params("requestState was changed", None))
    }
}

/// An answer that says what is needed.
pub fn ask<'a>(
    requests: impl IntoIterator<Item = (&'a str, InputRequest)>,
    state: Option<String>,
) -> InputRequiredResult {
    let requests = requests
        .into_iter()
        .map(|(key, request)| (key.to_owned(), request));
    InputRequiredResult::new(Some(requests.collect()), state)
}

/// What a client sends for a key; what is no object counts as not sent.
pub fn answered<'a>(
    responses: Option<&'a InputResponses>,
    key: &str,
) -> Option<&'a Map<String, Value>> {
    responses?.get(key)?.as_object()
}

/// A text in the form that a user has filled in.
pub fn field<'a>(answer: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    answer.get("content")?.get(name)?.as_str()
}

/// A form of one field.
pub fn question(message: &str, field: &str, kind: &str) -> InputRequest {
    let form =
        json!({"type": "object", "properties": {field: {"type": kind}}, "required": [field]});
    InputRequest::Elicitation(ElicitRequest::new(
        ElicitRequestParams::FormElicitationParams {
            meta: None,
            message: message.into(),
            requested_schema: serde_json::from_value(form).unwrap(),
        },
    ))
}

fn sample(prompt: &str) -> InputRequest {
    let messages = vec![SamplingMessage::user_text(prompt)];
    InputRequest::CreateMessage(CreateMessageRequest::new(CreateMessageRequestParams::new(
        messages, 100,
    )))
}

fn roots() -> InputRequest {
    InputRequest::ListRoots(ListRootsRequest::default())
}
