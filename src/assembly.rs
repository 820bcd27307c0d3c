//! Puts the parts together: configuration → backend → service, and a client of them in this process.

use std::sync::Arc;

use rmcp::ServiceExt as _;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::backend::local::LocalBackend;
use crate::backend::nomad::NomadBackend;
use crate::client::Tools;
use crate::config::{BackendKind, Config, Live};
use crate::consul::{self, Watch};
use crate::mcp::{Asker, Server};
use crate::nomad;
use crate::service::{Principal, Service};

/// Bytes between the two ends of a connection within this process.
const BUFFER: usize = 256 * 1024;

/// The configuration with what Consul has over it, where it is to be asked, now and from now on.
///
/// # Errors
/// When there can be no client of Consul.
pub async fn follow_consul(config: Config) -> anyhow::Result<Live> {
    let (section, live) = (config.consul.clone(), Live::from(config));
    if let Some(prefix) = section.keys_below() {
        let token = consul::token(section.token_file.clone(), |name| std::env::var(name).ok());
        let client = consul::Client::new(&section, token)?;
        Watch::new(client, prefix, live.clone()).begin().await;
    }
    Ok(live)
}

/// Opens a backend, which looks after its builds from now on.
///
/// # Errors
/// When it cannot be used.
pub fn open(kind: BackendKind, live: &Live) -> anyhow::Result<Arc<dyn Backend>> {
    match kind {
        BackendKind::Local => {
            let backend = Arc::new(LocalBackend::open(live.clone())?);
            let caretaker = Arc::clone(&backend);
            tokio::spawn(async move { caretaker.look_after().await });
            Ok(backend)
        }
        BackendKind::Nomad => {
            let options = nomad::Options::from_env(|name| std::env::var(name).ok())?;
            Ok(Arc::new(NomadBackend::open(live.clone(), options)?))
        }
    }
}

/// A server for the user of this process.
///
/// # Errors
/// When the name of the user cannot be found out.
pub fn server_for_user(backend: Arc<dyn Backend>, live: Live) -> anyhow::Result<Server> {
    let service = Arc::new(Service::new(backend, live, true));
    let asker = Asker::Is(local_principal()?);
    Ok(Server::new(service, asker, CancellationToken::new(), None))
}

/// The local user.
///
/// # Errors
/// When its name cannot be found out.
pub fn local_principal() -> anyhow::Result<Principal> {
    let uid = nix::unistd::Uid::effective().as_raw();
    Ok(Principal::of_user(uid)?)
}

/// The tools of a server in this process, as a client elsewhere would see them.
///
/// # Errors
/// When the backend cannot be used.
pub async fn tools_here(kind: BackendKind, config: Config) -> anyhow::Result<Tools> {
    let live = follow_consul(config).await?;
    let server = server_for_user(open(kind, &live)?, live)?;
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    tokio::spawn(async move {
        match server.serve(theirs).await {
            Ok(running) => _ = running.waiting().await,
            Err(error) => tracing::error!(%error, "no connection within this process"),
        }
    });
    Tools::over(ours).await
}
