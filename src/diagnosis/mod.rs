//! Why a build failed: records, plan and exit status become a [`Failure`]. Pure.
//!
//! Foreign output can say anything. So the verdict rests on Buildah's exit status and on the last
//! `Error:` line, which comes after every process of the build has ended; output only explains.

mod buildah;
mod excerpt;
mod locations;
mod rules;
mod store;

pub use buildah::{BuildahEnd, Place, buildah_failure, named_step, pull_failure};
pub use excerpt::{excerpt, quote};
pub use locations::locations;
pub use store::points_at_store;
