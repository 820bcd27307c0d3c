//! Where instances of a service are.

use std::time::Duration;

use serde::Deserialize;

use super::{Client, ConsulError};

/// An instance of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Address: of the service, else of its node.
    pub address: String,
    /// Port.
    pub port: u16,
    /// Tags that it was registered with.
    pub tags: Vec<String>,
    /// Whether all of its checks pass.
    pub is_passing: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
    #[serde(default)]
    checks: Vec<Check>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(default)]
    address: String,
    port: u16,
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    status: String,
}

impl Client {
    /// The instances of a service, with a tag where one is given, whether or not their checks pass.
    ///
    /// # Errors
    /// Also when the token may not see all of them.
    pub async fn instances(
        &self,
        name: &str,
        tag: Option<&str>,
    ) -> Result<Vec<Instance>, ConsulError> {
        let what = format!("find the service {name}");
        let query: Vec<_> = tag.map(|tag| ("tag", tag)).into_iter().collect();
        let path = ["health", "service", name];
        let answer = self.get(&what, &path, &query, Duration::ZERO).await?;
        let entries: Vec<Entry> = serde_json::from_slice(&answer.body)
            .map_err(|error| ConsulError::protocol(&what, error))?;
        if entries.is_empty() && answer.is_filtered {
            return Err(ConsulError::Denied {
                what,
                text: "the token has not the rights service read and node read".into(),
            });
        }
        if entries.is_empty() && answer.is_of_nobody {
            return Err(ConsulError::no_token(what));
        }
        Ok(entries.into_iter().map(Instance::from).collect())
    }
}

impl From<Entry> for Instance {
    fn from(entry: Entry) -> Self {
        let Entry {
            node,
            service,
            checks,
        } = entry;
        Self {
            address: match service.address.is_empty() {
                true => node.address,
                false => service.address,
            },
            port: service.port,
            tags: service.tags.unwrap_or_default(),
            is_passing: checks.iter().all(|check| check.status == "passing"),
        }
    }
}
