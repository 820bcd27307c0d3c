//! Marks: `x-` keywords that tell the decoder what a schema cannot say. Set with
//! `#[schemars(extend("x-clamp" = true))]`, never published.

use serde_json::{Map, Value};

use super::node::{Kind, Node};
use super::rules::Violation;

/// `true` on a list of strings: entries are `KEY=VALUE`, and a map `{KEY: scalar}` is taken, too.
pub const KEY_VALUE: &str = "x-key-value";
/// `true` on a list of objects that have `path` and `text`: a map `{path: text}` is taken, too.
pub const PATH_MAP: &str = "x-path-map";
/// The name of a sibling list, on a string: a list given here is moved to that sibling.
pub const ARGV: &str = "x-argv";
/// `true` on an integer: a value above `maximum` is cut to it and reported.
pub const CLAMP: &str = "x-clamp";
/// `true` on anything: values here and below are never echoed.
pub const PRIVATE: &str = "x-private";

/// Marks that are unknown, or stand where they have no effect. A misspelt `x-private` would leak,
/// so test for it.
pub fn check_marks(schema: &Map<String, Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    walk(Node(schema), None, "", &mut found);
    found
}

fn walk(node: Node<'_>, parent: Option<Node<'_>>, pointer: &str, found: &mut Vec<Violation>) {
    for (name, value) in node.0.iter().filter(|(name, _)| name.starts_with("x-")) {
        if !fits(name, value, node, parent) {
            found.push(Violation::new(
                pointer,
                format!("mark {name} is unknown or has no effect here"),
            ));
        }
    }
    for (step, below) in node.subschemas() {
        walk(below, Some(node), &format!("{pointer}{step}"), found);
    }
}

fn fits(name: &str, value: &Value, node: Node<'_>, parent: Option<Node<'_>>) -> bool {
    let on = value == &Value::Bool(true);
    let item = node.items();
    match name {
        KEY_VALUE => on && item.and_then(Node::kind) == Some(Kind::String),
        PATH_MAP => {
            on && item.is_some_and(|i| ["path", "text"].iter().all(|p| i.property(p).is_some()))
        }
        ARGV => {
            let sibling = value
                .as_str()
                .and_then(|name| parent?.property(name)?.kind());
            node.kind() == Some(Kind::String) && sibling == Some(Kind::Array)
        }
        CLAMP => on && node.kind() == Some(Kind::Integer) && node.0.contains_key("maximum"),
        PRIVATE => on,
        _ => false,
    }
}
