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

/// Makes a test of each case, for each lab.
macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        mod local {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::$name::<crate::local::LocalLab>().await;
                }
            )+
        }
    };
}

mod accept;
mod border;
mod cancel;
mod claims;
mod death;
mod fail;
mod lab;
mod list;
mod local;
mod logs;
mod once;
mod order;
mod processes;
mod publish;
mod queue;
mod registry;
mod stall;
mod succeed;
mod timeout;
