//! A place in the arguments together with the schema node that governs it.

use crate::schema::error_code::ErrorCode;
use std::fmt;

use serde_json::Value;

use super::echo;
use super::fault::ArgFault;
use super::mark;
use super::node::Node;

/// One node of the schema at one place in the arguments.
pub(super) struct Spot<'a, 's> {
    pub(super) path: Path<'a>,
    pub(super) node: Node<'s>,
    pub(super) private: bool,
}

impl<'s> Spot<'_, 's> {
    pub(super) fn key<'b>(&'b self, name: &'b str, node: Node<'s>) -> Spot<'b, 's> {
        self.below(Path::Key(&self.path, name), node)
    }

    pub(super) fn index(&self, index: usize, node: Node<'s>) -> Spot<'_, 's> {
        self.below(Path::Index(&self.path, index), node)
    }

    fn below<'b>(&'b self, path: Path<'b>, node: Node<'s>) -> Spot<'b, 's> {
        Spot {
            path,
            node,
            private: self.private || node.flag(mark::PRIVATE),
        }
    }

    pub(super) fn fault(
        &self,
        problem: String,
        got: String,
        suggestion: Option<String>,
    ) -> ArgFault {
        ArgFault {
            code: ErrorCode::InvalidArgument,
            path: self.path.to_string(),
            problem,
            suggestion,
            expected: self.node.expected(),
            got,
            example: self.node.example(),
        }
    }

    pub(super) fn got(&self, value: &Value) -> String {
        if self.private || self.node.hides() {
            echo::describe(value)
        } else {
            echo::excerpt(value)
        }
    }
}

/// A place in the arguments; rendered only when something is wrong there.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    fn write(&self, out: &mut String) {
        match self {
            Self::Root => {}
            Self::Key(above, name) => {
                above.write(out);
                let step = echo::step(name);
                let step = if out.is_empty() {
                    step.trim_start_matches('.')
                } else {
                    &step
                };
                out.push_str(step);
            }
            Self::Index(above, index) => {
                above.write(out);
                out.push_str(&format!("[{index}]"));
            }
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.write(&mut out);
        f.write_str(if out.is_empty() { "arguments" } else { &out })
    }
}
