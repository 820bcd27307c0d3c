//! The resources `test://…`.

use rmcp::ErrorData;
use rmcp::model::{Resource, ResourceContents, ResourceTemplate};
use serde_json::json;

/// A red PNG of one pixel.
pub const IMAGE: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8/5+hHgAHggJ/PchI7wAAAABJRU5ErkJggg==";

const TEXT: &str = "test://static-text";
const BINARY: &str = "test://static-binary";

/// Those that have a name.
pub fn all() -> Vec<Resource> {
    vec![
        Resource::new(TEXT, "Static Text Resource")
            .with_description("A static text resource for testing")
            .with_mime_type("text/plain"),
        Resource::new(BINARY, "Static Binary Resource")
            .with_description("A static binary resource for testing")
            .with_mime_type("image/png"),
    ]
}

/// Those that have a parameter.
pub fn template() -> ResourceTemplate {
    ResourceTemplate::new("test://template/{id}/data", "Dynamic Resource")
        .with_description("A dynamic resource with parameter substitution")
        .with_mime_type("application/json")
}

/// One of them.
pub fn read(uri: &str) -> Result<ResourceContents, ErrorData> {
    let parameter =
        (uri.strip_prefix("test://template/")).and_then(|rest| rest.strip_suffix("/data"));
    match (uri, parameter) {
        (TEXT, _) => Ok(text(
            uri,
            "text/plain",
            "This is the content of the static text resource.",
        )),
        (BINARY, _) => Ok(ResourceContents::blob(IMAGE, uri).with_mime_type("image/png")),
        (_, Some(id)) => {
            let data =
                json!({"id": id, "templateTest": true, "data": format!("Data for ID: {id}")});
            Ok(text(uri, "application/json", &data.to_string()))
        }
        _ => Err(ErrorData::resource_not_found(
            format!("Resource not found: {uri}"),
            Some(json!({"uri": uri})),
        )),
    }
}

/// A text as the content of a resource.
pub fn text(uri: &str, kind: &str, text: &str) -> ResourceContents {
    ResourceContents::text(text, uri).with_mime_type(kind)
}
