//! MCP: tools, resources and a prompt over the service.
//!
//! Converts and renders only; what the tools do is in `crate::service`.

mod entrance;
pub mod fence;
pub mod guide;
pub mod progress;
pub mod render;
pub mod resources;
pub mod server;
pub mod stdio;
pub mod tools;

pub use entrance::Entrance;
pub use server::{Asker, Meter, Server};
