//! The contract of `Backend`: what every place where builds run must keep.
//!
//! Each case is generic over a [`lab::Lab`], a place for builds that a test can disturb; `cases!`
//! makes a test of it for each lab there is. All is real: Buildah, the runner, a registry.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

/// Makes a test of each case, for each lab; of those behind `local`, for the local one alone.
macro_rules! cases {
    ($($name:ident),+ $(,)? $(; local $($own:ident),+ $(,)?)?) => {
        mod local {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::$name::<crate::local::LocalLab>().await;
                }
            )+
            $($(
                #[tokio::test(flavor = "multi_thread")]
                async fn $own() {
                    super::$own::<crate::local::LocalLab>().await;
                }
            )+)?
        }
        mod nomad {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::$name::<crate::nomad::NomadLab>().await;
                }
            )+
        }
    };
}

#[path = "../support/nomad.rs"]
#[allow(dead_code, reason = "it serves other tests, too")]
mod agent;

mod accept;
mod border;
mod cancel;
mod claims;
mod cluster;
mod death;
mod fail;
mod known;
mod lab;
mod list;
mod local;
mod logs;
mod nomad;
mod once;
mod order;
mod processes;
mod proxy;
mod publish;
mod queue;
mod registry;
mod stall;
mod storm;
mod succeed;
mod timeout;
