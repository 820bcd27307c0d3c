//! Progress notifications while a call waits.

use rmcp::RoleServer;
use rmcp::model::ProgressNotificationParam;
use rmcp::service::RequestContext;
use tokio::sync::mpsc;

use crate::backend::View;

/// Progress notifications of one call, where its caller wants them.
pub struct Progress {
    send: Option<mpsc::UnboundedSender<String>>,
}

impl Progress {
    /// For the call of this context.
    pub fn new(context: &RequestContext<RoleServer>) -> Self {
        let Some(token) = context.meta.get_progress_token() else {
            return Self { send: None };
        };
        let (send, mut messages) = mpsc::unbounded_channel::<String>();
        let peer = context.peer.clone();
        tokio::spawn(async move {
            let mut count = 0.0;
            while let Some(message) = messages.recv().await {
                count += 1.0;
                let note =
                    ProgressNotificationParam::new(token.clone(), count).with_message(message);
                if peer.notify_progress(note).await.is_err() {
                    break;
                }
            }
        });
        Self { send: Some(send) }
    }

    /// Says how the build stands.
    pub fn tell(&mut self, view: &View) {
        if let Some(send) = &self.send {
            let status =
                crate::service::present::full(view, crate::runner::reporter::now_ms(), None);
            // A caller that is gone hears nothing; its build goes on.
            let _ = send.send(status.summary);
        }
    }
}
