//! Sessions of Streamable HTTP belong to who began them: with another token, there is no such session.
//!
//! Only with `http.sessions`, and only for clients of the protocol's versions before 2026-07-28, which
//! has none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use rmcp::transport::streamable_http_server::session::SessionManager as _;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use tokio::time::Instant;

use crate::service::Principal;

/// Sessions of one principal at the same time: a client that never ends its own does not fill the memory.
const MOST: usize = 256;
/// How long a session may be without a message, longer than any call takes.
const QUIET: Duration = Duration::from_secs(2 * 3600);
const HEADER: &str = "mcp-session-id";

/// Who began which session.
#[derive(Debug, Clone)]
pub struct Sessions {
    manager: Arc<LocalSessionManager>,
    owned: Arc<Mutex<HashMap<String, Owned>>>,
}

#[derive(Debug)]
struct Owned {
    principal: Principal,
    used: Instant,
}

impl Default for Sessions {
    fn default() -> Self {
        let mut manager = LocalSessionManager::default();
        // Pings over its streams do not count as messages.
        manager.session_config.keep_alive = Some(QUIET);
        Self {
            manager: Arc::new(manager),
            owned: Arc::default(),
        }
    }
}

impl Sessions {
    /// What rmcp keeps of them.
    pub fn manager(&self) -> Arc<LocalSessionManager> {
        Arc::clone(&self.manager)
    }

    /// How many there are.
    pub async fn count(&self) -> usize {
        self.manager.sessions.read().await.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Owned>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a session is used; `false`: it is not this principal's.
    fn uses(&self, id: &str, principal: &Principal) -> bool {
        let mut owned = self.lock();
        let own = (owned.get_mut(id)).filter(|owned| owned.principal == *principal);
        if let Some(own) = own {
            own.used = Instant::now();
            return true;
        }
        false
    }

    async fn begun(&self, id: &str, principal: &Principal) {
        let alive = self.manager.sessions.read().await;
        let surplus = {
            let mut owned = self.lock();
            owned.retain(|id, _| alive.contains_key(id.as_str()));
            let own = owned.iter().filter(|(_, one)| one.principal == *principal);
            let surplus = (own.clone().count() >= MOST)
                .then(|| {
                    own.min_by_key(|(_, one)| one.used)
                        .map(|(id, _)| id.clone())
                })
                .flatten();
            if let Some(surplus) = &surplus {
                owned.remove(surplus);
            }
            let begun = Owned {
                principal: principal.clone(),
                used: Instant::now(),
            };
            owned.insert(id.to_owned(), begun);
            surplus
        };
        drop(alive);
        if let Some(surplus) = surplus
            && let Err(error) = self.manager.close_session(&surplus.into()).await
        {
            tracing::debug!(%error, "a session that made room could not be told");
        }
    }
}

fn id_of(headers: &HeaderMap) -> Option<String> {
    Some(headers.get(HEADER)?.to_str().ok()?.to_owned())
}

/// Lets a request pass whose session, if it names one, is its sender's.
pub async fn check_owner(
    State(sessions): State<Sessions>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(principal) = request.extensions().get::<Principal>().cloned() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let named = request.headers().contains_key(HEADER);
    let id = id_of(request.headers());
    let own = id
        .as_deref()
        .is_some_and(|id| sessions.uses(id, &principal));
    if named && !own {
        // Clients of the newest version have none, whatever they send; others begin another, as after
        // the end of one.
        if !request.headers().contains_key("mcp-method") {
            return (StatusCode::NOT_FOUND, "Not Found: Session not found").into_response();
        }
        request.headers_mut().remove(HEADER);
    }
    let ends = request.method() == Method::DELETE;
    let response = next.run(request).await;
    match (id.filter(|_| own), id_of(response.headers())) {
        (None, Some(begun)) => sessions.begun(&begun, &principal).await,
        (Some(id), _) if ends && response.status().is_success() => {
            sessions.lock().remove(&id);
        }
        _ => {}
    }
    response
}
