//! Why a build failed: records, plan and exit status become a [`Failure`]. Pure.
//!
//! ```text
//! Buildah's end ─┬─ its own error ──▶ rules ─────────────▶ kind, fault ─┬─▶ Failure
//!                └─ a command's ────▶ command ─▶ rules ──▶ excerpt ─────┤
//!                                       └──────▶ locations ─▶ tree ─────┘
//! ```
//! Foreign output can say anything. So the verdict rests on Buildah's exit status and on the last
//! `Error:` line, which comes after every process of the build has ended; output only explains.

mod aside;
mod buildah;
mod command;
mod excerpt;
mod groups;
mod invalid;
mod junit;
mod last_words;
mod locations;
mod recent;
mod rules;
mod steps;
mod store;
mod tree;

pub use buildah::{BuildahEnd, buildah_failure, explain_test, pull_failure};
pub use command::Command;
pub use excerpt::tail;
pub use invalid::invalid_containerfile;
pub use junit::report;
pub use last_words::LastWords;
pub use locations::MOST_LOCATIONS;
pub use recent::Recent;
pub use steps::{Place, Steps};
pub use store::points_at_store;
pub use tree::Tree;
