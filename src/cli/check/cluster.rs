//! What a cluster tells of itself. Changes nothing: a right is tried on what is not there, or, for
//! the records, on a variable of its own.

use std::io;

use crate::cli::block_on;
use crate::config::Config;
use crate::nomad::{
    Client, Dispatch, Items, Job, Node, NomadError, Options, Position, Stream, TaskState, Topic,
    Written,
};

/// A job that nobody has.
const NOBODYS: &str = "nomad-build-check-of-rights";
/// A variable that only this check writes, and removes again.
const OWN: &str = "nomad-build/check";

/// The task of a build on which rights to builds are tried.
const TASK: &str = "build";

/// See the module.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Where Nomad is.
    pub address: String,
    /// Its leader, or why it does not answer.
    pub leader: Result<String, String>,
    /// Namespace of the builds.
    pub namespace: String,
    /// Whether the token has them.
    pub rights: Rights,
    /// The same of rights to builds, which are tried on one that has ended; `None`: there is none.
    pub of_builds: Option<Rights>,
    /// The job of each profile.
    pub jobs: Vec<(String, Result<Job, String>)>,
    /// The nodes with their attributes.
    pub nodes: Result<Vec<Node>, String>,
}

/// Rights by their capabilities: whether the token has them.
pub type Rights = Vec<(&'static str, Result<(), String>)>;

/// Asks the cluster.
///
/// # Errors
/// When the configuration cannot be used.
pub fn gather(config: &Config) -> io::Result<Facts> {
    let options = Options::from_env(|name| std::env::var(name).ok()).map_err(io::Error::other)?;
    let options = options.in_namespace(config.nomad.namespace.as_deref());
    let client = Client::new(options).map_err(io::Error::other)?;
    block_on(ask(&client, config))
}

async fn ask(client: &Client, config: &Config) -> Facts {
    let leader = client.leader().await.map_err(|error| error.to_string());
    let mut facts = Facts {
        address: client.address().to_owned(),
        namespace: client.namespace().to_owned(),
        rights: Rights::new(),
        of_builds: None,
        jobs: Vec::new(),
        nodes: Err("Nomad does not answer".into()),
        leader,
    };
    if facts.leader.is_err() {
        return facts;
    }
    facts.rights = rights(client).await;
    facts.of_builds = rights_to_builds(client, &config.nomad.job).await;
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

async fn rights(client: &Client) -> Rights {
    let nobodys = Dispatch {
        parent: NOBODYS,
        ..Dispatch::default()
    };
    let read_job = right(client.job(NOBODYS).await);
    // Nomad takes half a minute to refuse it.
    let stream = match &read_job {
        Ok(()) => right(client.events(&[Topic::Job], 0).await),
        Err(error) => Err(error.clone()),
    };
    vec![
        ("list-jobs", right(client.jobs(NOBODYS).await)),
        ("read-job", read_job),
        ("dispatch-job", right(client.dispatch(&nobodys).await)),
        ("deregister-job", right(client.deregister(NOBODYS).await)),
        ("the event stream (read-job)", stream),
        ("variables \"nomad-build/*\"", right(records(client).await)),
    ]
}

/// Nomad looks for the allocation before it looks at rights. A task that is over takes no signal.
async fn rights_to_builds(client: &Client, job: &str) -> Option<Rights> {
    let allocations = client.allocations().await.ok()?.value;
    let over = |state: Option<&TaskState>| state.is_some_and(TaskState::is_dead);
    let ended = allocations.into_iter().filter(|one| {
        one.job_id.starts_with(job)
            && one.client_status.is_terminal()
            && over(one.task_states.get(TASK))
    });
    let id = ended.max_by_key(|one| one.modify_index)?.id;
    let start = Position {
        offset: 0,
        follow: false,
    };
    let logs = client.logs(&id, TASK, Stream::Stdout, start).await;
    let signal = client.signal(&id, TASK, "SIGTERM").await;
    Some(vec![
        ("read-logs", right(logs)),
        ("alloc-lifecycle", right(signal)),
    ])
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
