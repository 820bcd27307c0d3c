//! What a cluster tells of itself. Changes nothing: a right is tried on what is not there, or, for
//! the records, on a variable of its own.

use std::io;

use crate::config::Config;
use crate::nomad::{Client, Dispatch, Items, Job, Node, NomadError, Options, Topic, Written};

/// A job that nobody has.
const NOBODYS: &str = "nomad-build-check-of-rights";
/// A variable that only this check writes, and removes again.
const OWN: &str = "nomad-build/check";

/// See the module.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Where Nomad is.
    pub address: String,
    /// Its leader, or why it does not answer.
    pub leader: Result<String, String>,
    /// Namespace of the builds.
    pub namespace: String,
    /// Rights by their capabilities: whether the token has them.
    pub rights: Vec<(&'static str, Result<(), String>)>,
    /// The job of each profile.
    pub jobs: Vec<(String, Result<Job, String>)>,
    /// The nodes with their attributes.
    pub nodes: Result<Vec<Node>, String>,
}

/// Asks the cluster.
///
/// # Errors
/// When the configuration cannot be used.
pub fn gather(config: &Config) -> io::Result<Facts> {
    let options = Options::from_env(|name| std::env::var(name).ok()).map_err(io::Error::other)?;
    let options = options.in_namespace(config.nomad.namespace.as_deref());
    let client = Client::new(options).map_err(io::Error::other)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(ask(&client, config)))
}

async fn ask(client: &Client, config: &Config) -> Facts {
    let leader = client.leader().await.map_err(|error| error.to_string());
    let mut facts = Facts {
        address: client.address().to_owned(),
        namespace: client.namespace().to_owned(),
        rights: Vec::new(),
        jobs: Vec::new(),
        nodes: Err("Nomad does not answer".into()),
        leader,
    };
    if facts.leader.is_err() {
        return facts;
    }
    facts.rights = rights(client).await;
    for profile in config.profiles() {
        let name = config.nomad.job_of(&profile.name);
        let job = client.job(&name).await;
        facts
            .jobs
            .push((profile.name, job.map_err(|error| error.to_string())));
    }
    facts.nodes = nodes(client).await.map_err(|error| error.to_string());
    facts
}

/// Only a refusal of rights counts here; what is not there cannot be found.
fn right<T>(result: Result<T, NomadError>) -> Result<(), String> {
    match result {
        Err(error) if error.is_denied() => Err(error.to_string()),
        _ => Ok(()),
    }
}

async fn rights(client: &Client) -> Vec<(&'static str, Result<(), String>)> {
    let nobodys = Dispatch {
        parent: NOBODYS,
        ..Dispatch::default()
    };
    vec![
        ("list-jobs", right(client.jobs(NOBODYS).await)),
        ("read-job", right(client.job(NOBODYS).await)),
        ("dispatch-job", right(client.dispatch(&nobodys).await)),
        ("deregister-job", right(client.deregister(NOBODYS).await)),
        (
            "the event stream (read-job)",
            right(client.events(&[Topic::Job], 0).await),
        ),
        ("variables \"nomad-build/*\"", right(records(client).await)),
    ]
}

/// Writes, lists, reads and removes.
async fn records(client: &Client) -> Result<(), NomadError> {
    let items = Items::from([("checked".to_owned(), "yes".to_owned())]);
    let there = client.variable(OWN).await?;
    let index = there.map_or(0, |variable| variable.modify_index);
    let written = client.write_variable(OWN, &items, index).await?;
    client.variables(OWN, 0, std::time::Duration::ZERO).await?;
    if let Written::Done(index) = written {
        client.delete_variable(OWN, index).await?;
    }
    Ok(())
}

async fn nodes(client: &Client) -> Result<Vec<Node>, NomadError> {
    let mut nodes = client.nodes().await?;
    for node in &mut nodes {
        node.attributes = client.node(&node.id).await?.attributes;
    }
    Ok(nodes)
}
