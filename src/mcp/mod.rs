//! MCP: tools, resources and a prompt over the service.
//!
//! Converts and renders only; what the tools do is in `crate::service`.

mod completion;
mod entrance;
pub mod fence;
pub mod guide;
mod icon;
pub mod naming;
mod progress;
pub mod prompts;
pub mod render;
pub mod resources;
pub mod server;
pub mod stdio;
mod tasks;
pub mod tools;

pub use entrance::Entrance;
pub use server::{Asker, Meter, Server};
