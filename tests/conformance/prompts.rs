//! The prompts `test_…`.

use rmcp::ErrorData;
use rmcp::model::*;

use crate::inputs::{answered, ask, field, question};
use crate::resources;

/// Asks for an input in the middle of it.
const ASKS: &str = "test_input_required_result_prompt";

/// Each of them.
pub fn all() -> Vec<Prompt> {
    let argument = |name: &str, required| PromptArgument::new(name).with_required(required);
    let arguments = vec![argument("arg1", true), argument("arg2", false)];
    [
        ("test_simple_prompt", "A simple prompt", None),
        (
            "test_prompt_with_arguments",
            "A prompt that takes arguments",
            Some(arguments),
        ),
        (
            "test_prompt_with_embedded_resource",
            "A prompt with an embedded resource",
            None,
        ),
        ("test_prompt_with_image", "A prompt with an image", None),
        (ASKS, "A prompt that needs an input (SEP-2322)", None),
    ]
    .into_iter()
    .map(|(name, description, arguments)| Prompt::new(name, Some(description), arguments))
    .collect()
}

/// One of them.
pub fn get(request: GetPromptRequestParams) -> Result<GetPromptResponse, ErrorData> {
    let text = |text: String| PromptMessage::new_text(Role::User, text);
    let messages = match request.name.as_str() {
        "test_simple_prompt" => vec![text("This is a simple test prompt.".into())],
        "test_prompt_with_arguments" => {
            let arguments = request.arguments.unwrap_or_default();
            let argument = |name| {
                arguments
                    .get(name)
                    .and_then(|value| value.as_str())
                    .unwrap_or("")
            };
            let (first, second) = (argument("arg1"), argument("arg2"));
            vec![text(format!(
                "Prompt with arguments: arg1='{first}', arg2='{second}'"
            ))]
        }
        "test_prompt_with_embedded_resource" => {
            let uri = request
                .arguments
                .as_ref()
                .and_then(|all| all.get("resourceUri"));
            let uri = uri
                .and_then(|uri| uri.as_str())
                .unwrap_or("test://static-text");
            let resource = resources::text(uri, "text/plain", "Resource content for the prompt");
            vec![
                PromptMessage::new(Role::User, ContentBlock::resource(resource)),
                text("Please process the resource above.".into()),
            ]
        }
        "test_prompt_with_image" => {
            let image = ContentBlock::image(resources::IMAGE, "image/png");
            vec![
                PromptMessage::new(Role::User, image),
                text("Please look at the image above.".into()),
            ]
        }
        ASKS => match answered(request.input_responses.as_ref(), "user_context") {
            Some(answer) => {
                let context = field(answer, "context").unwrap_or("(no context)");
                vec![text(format!("Prompt with elicited context: {context}"))]
            }
            None => {
                let question = question("What context should the prompt use?", "context", "string");
                return Ok(ask([("user_context", question)], None).into());
            }
        },
        name => {
            return Err(ErrorData::invalid_params(
                format!("Unknown prompt: {name}"),
                None,
            ));
        }
    };
    Ok(GetPromptResult::new(messages).into())
}
