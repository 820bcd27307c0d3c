//! What hosts may show beside this server's name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmcp::model::Icon;

/// What a path is drawn on, in a colour that is seen on light and on dark.
const BEGIN: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="#2a8f6f" stroke-width="2" stroke-linejoin="round"><path d=""##;
const END: &str = r#""/></svg>"#;

const BOX: &str = "M12 2l9 5v10l-9 5-9-5V7zM3 7l9 5 9-5M12 12v10";
const CLOCK: &str = "M12 3a9 9 0 1 1 0 18 9 9 0 1 1 0-18M12 7v5l4 2";
const LINES: &str = "M4 6h16M4 12h16M4 18h10";
const STOP: &str = "M8 2h8l6 6v8l-6 6H8l-6-6V8zM9 9l6 6M15 9l-6 6";

/// The server's, whole: nothing is fetched for it.
pub fn icon() -> Icon {
    drawn(BOX)
}

/// That of a tool, by its bare name.
pub fn of_tool(name: &str) -> Icon {
    drawn(match name {
        "status" => CLOCK,
        "logs" => LINES,
        "kill" => STOP,
        _ => BOX,
    })
}

fn drawn(path: &str) -> Icon {
    let kind = "image/svg+xml";
    let svg = format!("{BEGIN}{path}{END}");
    Icon::new(format!("data:{kind};base64,{}", STANDARD.encode(svg)))
        .with_mime_type(kind)
        .with_sizes(vec!["any".into()])
}
