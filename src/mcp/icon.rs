//! What hosts may show beside this server's name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmcp::model::Icon;

/// A box, in a colour that is seen on light and on dark.
const SVG: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="#2a8f6f" stroke-width="2" stroke-linejoin="round"><path d="M12 2l9 5v10l-9 5-9-5V7zM3 7l9 5 9-5M12 12v10"/></svg>"##;

/// The icon, whole: nothing is fetched for it.
pub fn icon() -> Icon {
    let kind = "image/svg+xml";
    Icon::new(format!("data:{kind};base64,{}", STANDARD.encode(SVG)))
        .with_mime_type(kind)
        .with_sizes(vec!["any".into()])
}
