//! A typed view of one schema node that keeps the rules, and its description in words.

use serde_json::{Map, Number, Value};

use super::mark;

/// The one scalar `type` of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Kind {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Object => "objects",
            Self::Array => "lists",
            Self::String => "strings",
            Self::Integer => "integers",
            Self::Number => "numbers",
            Self::Boolean => "booleans",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'s>(pub(super) &'s Map<String, Value>);

impl<'s> Node<'s> {
    fn new(value: &'s Value) -> Option<Self> {
        value.as_object().map(Self)
    }

    pub(super) fn kind(self) -> Option<Kind> {
        Kind::parse(self.text("type")?)
    }

    pub(super) fn text(self, keyword: &str) -> Option<&'s str> {
        self.0.get(keyword)?.as_str()
    }

    pub(super) fn size(self, keyword: &str) -> Option<u64> {
        self.0.get(keyword)?.as_u64()
    }

    pub(super) fn bound(self, keyword: &str) -> Option<&'s Number> {
        match self.0.get(keyword)? {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(super) fn flag(self, mark: &str) -> bool {
        self.0.get(mark) == Some(&Value::Bool(true))
    }

    /// Unknown properties are refused.
    pub(super) fn closed(self) -> bool {
        self.0.get("additionalProperties") == Some(&Value::Bool(false))
    }

    pub(super) fn properties(self) -> impl Iterator<Item = (&'s str, Node<'s>)> {
        let all = self.0.get("properties").and_then(Value::as_object);
        all.into_iter()
            .flatten()
            .filter_map(|(name, node)| Some((name.as_str(), Node::new(node)?)))
    }

    pub(super) fn names(self) -> impl Iterator<Item = &'s str> {
        self.properties().map(|(name, _)| name)
    }

    pub(super) fn property(self, name: &str) -> Option<Node<'s>> {
        Node::new(self.0.get("properties")?.get(name)?)
    }

    pub(super) fn items(self) -> Option<Node<'s>> {
        Node::new(self.0.get("items")?)
    }

    /// The nodes directly below, each with its step as a piece of a JSON pointer.
    pub(super) fn subschemas(self) -> impl Iterator<Item = (String, Node<'s>)> {
        let properties = self
            .properties()
            .map(|(name, node)| (format!("/properties/{}", escape(name)), node));
        properties.chain(self.items().map(|node| ("/items".to_owned(), node)))
    }

    pub(super) fn requires(self, name: &str) -> bool {
        let required = self.0.get("required").and_then(Value::as_array);
        required.is_some_and(|names| names.iter().any(|n| n == name))
    }

    pub(super) fn allowed(self) -> Option<impl Iterator<Item = &'s str>> {
        let values = self.0.get("enum")?.as_array()?;
        Some(values.iter().filter_map(Value::as_str))
    }

    /// This node or one below it is private, so that no value of it may be echoed.
    pub(super) fn hides(self) -> bool {
        self.flag(mark::PRIVATE) || self.subschemas().any(|(_, below)| below.hides())
    }

    pub(super) fn example(self) -> Option<String> {
        let first = self.0.get("examples")?.as_array()?.first()?;
        Some(first.to_string())
    }

    /// What is accepted here, in words made from the schema only.
    pub(super) fn expected(self) -> String {
        let Some(kind) = self.kind() else {
            return "any value".to_owned();
        };
        match kind {
            Kind::Object => format!(
                "object with {}",
                self.names().collect::<Vec<_>>().join(", ")
            ),
            Kind::Array => self.expected_list(),
            Kind::String => self.expected_string(),
            Kind::Integer => format!("integer{}", self.range("minimum", "maximum", "")),
            Kind::Number => format!("number{}", self.range("minimum", "maximum", "")),
            Kind::Boolean => "true or false".to_owned(),
        }
    }

    fn expected_list(self) -> String {
        let item = self.items();
        let of = match item.and_then(Node::kind) {
            _ if self.flag(mark::KEY_VALUE) => "KEY=VALUE strings",
            Some(kind) => kind.plural(),
            None => "values",
        };
        let each = match item.filter(|i| i.allowed().is_some()) {
            Some(item) => format!(", each {}", item.expected_string()),
            None => String::new(),
        };
        format!(
            "list of {of}{}{each}",
            self.range("minItems", "maxItems", " items")
        )
    }

    fn expected_string(self) -> String {
        if let Some(allowed) = self.allowed() {
            return format!("one of {}", allowed.collect::<Vec<_>>().join(", "));
        }
        let matching = match self.text("pattern") {
            Some(pattern) => format!(", matching {pattern}"),
            None => String::new(),
        };
        format!(
            "string{}{matching}",
            self.range("minLength", "maxLength", " characters")
        )
    }

    fn range(self, low: &str, high: &str, unit: &str) -> String {
        match (self.bound(low), self.bound(high)) {
            (Some(low), Some(high)) => format!(", {low} to {high}{unit}"),
            (Some(low), None) => format!(", at least {low}{unit}"),
            (None, Some(high)) => format!(", at most {high}{unit}"),
            (None, None) => String::new(),
        }
    }
}

/// RFC 6901: one name as a piece of a JSON pointer.
pub(super) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
