//! Keys below a prefix.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::config::overlay::Pair;

use super::{Client, ConsulError};

/// The keys below a prefix, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Keys {
    /// Consul's index of that moment, at least 1.
    pub index: u64,
    /// The keys without the prefix.
    pub pairs: Vec<Pair>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    key: String,
    /// Base64; null: empty.
    value: Option<String>,
}

impl Client {
    /// The keys below a prefix, which ends with a slash; once something has changed since `index` (0: at once), or
    /// after `block`. <https://developer.hashicorp.com/consul/api-docs/features/blocking>
    ///
    /// # Errors
    /// Also when the token may not read all of them: a part would look like the whole.
    pub async fn keys(
        &self,
        prefix: &str,
        index: u64,
        block: Duration,
    ) -> Result<Keys, ConsulError> {
        let what = format!("read the keys below {prefix}");
        let path: Vec<&str> = std::iter::once("kv").chain(prefix.split('/')).collect();
        let (since, wait) = (index.to_string(), format!("{}s", block.as_secs()));
        let query = [
            ("recurse", "true"),
            ("index", since.as_str()),
            ("wait", wait.as_str()),
        ];
        let answer = self.get(&what, &path, &query, block).await?;
        if answer.is_filtered {
            return Err(ConsulError::Denied {
                what,
                text: "the token has not the right key_prefix read for all of them".into(),
            });
        }
        if answer.is_of_nobody && answer.is_nothing {
            return Err(ConsulError::no_token(what));
        }
        let Some(index) = answer.index else {
            return Err(ConsulError::protocol(&what, "it has no X-Consul-Index"));
        };
        let entries: Vec<Entry> = match answer.is_nothing {
            true => Vec::new(),
            // Their words could repeat a value.
            false => serde_json::from_slice(&answer.body)
                .map_err(|_| ConsulError::protocol(&what, "it is no list of keys"))?,
        };
        let pair = |entry: Entry| {
            let value = STANDARD.decode(entry.value.unwrap_or_default());
            Some(Pair {
                key: entry.key.strip_prefix(prefix)?.to_owned(),
                value: value.ok()?,
            })
        };
        let pairs = entries.into_iter().map(pair).collect::<Option<Vec<_>>>();
        Ok(Keys {
            index: index.max(1),
            pairs: pairs.ok_or_else(|| ConsulError::protocol(&what, "it has other keys"))?,
        })
    }
}
