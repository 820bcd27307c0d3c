//! `nomad-build build`: a directory of this machine, built by a server elsewhere.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};

use crate::build::request::MAX_WAIT;
use crate::client::{Answer, Away, Remote, Steady, discovery};

/// Exit status of a build that did not succeed.
const FAILED: u8 = 1;
/// Exit status when the server does not answer any more; the build goes on.
const AWAY: u8 = 3;
/// Exit status when this program was told to end; the build ends, too.
const INTERRUPTED: u8 = 130;

/// Build a directory on a server, test the image and push it.
///
/// What the ignore file names stays here, everything else is uploaded, committed or not. Ctrl-C ends the build
/// gracefully; a second one leaves it to the server. Exit status: 0 succeeded, 1 did not, 2 the call was wrong,
/// 3 the server does not answer any more and the build goes on.
#[derive(Debug, Args)]
pub struct Build {
    /// The directory.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// The server, such as https://build.example.com, or the name of its service in Consul, as in
    /// consul://nomad-build.
    #[arg(long, env = "NOMAD_BUILD_SERVER", value_name = "URL")]
    pub server: String,
    /// File of the token for it; the token itself may stand in NOMAD_BUILD_TOKEN.
    #[arg(long, env = "NOMAD_BUILD_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Path of the Containerfile below the directory.
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    pub containerfile: Option<String>,
    /// Push to this reference when the tests have passed; may be given several times.
    #[arg(short, long = "tag", value_name = "HOST/REPOSITORY:TAG")]
    pub tags: Vec<String>,
    /// Test the image by this command; may be given several times.
    #[arg(long = "test", value_name = "COMMAND")]
    pub tests: Vec<String>,
    /// A build argument; may be given several times.
    #[arg(long = "build-arg", value_name = "NAME=VALUE")]
    pub build_args: Vec<String>,
    /// A secret that the server offers; may be given several times.
    #[arg(long = "secret", value_name = "NAME")]
    pub secrets: Vec<String>,
    /// The stage to build.
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// A name for the build.
    #[arg(long)]
    pub name: Option<String>,
    /// A profile that the server offers.
    #[arg(long)]
    pub profile: Option<String>,
    /// Seconds for which the build may run.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u32>,
    /// Seconds for which the server may be away while the build goes on.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub patience: u32,
    /// Print the last status as JSON.
    #[arg(long)]
    pub json: bool,
}

impl Build {
    /// Uploads, builds, and waits for the end.
    ///
    /// # Errors
    /// When the server cannot be reached, or refuses.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.block_on(self.build())
    }

    fn token(&self) -> anyhow::Result<Option<String>> {
        match &self.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file);
                text.map(Some)
                    .with_context(|| format!("{} cannot be read", file.display()))
            }
            None => Ok(std::env::var("NOMAD_BUILD_TOKEN").ok()),
        }
    }

    async fn build(&self) -> anyhow::Result<ExitCode> {
        let server = discovery::locate(&self.server, |name| std::env::var(name).ok()).await?;
        let remote = Remote::new(&server, self.token()?)?;
        let upload = remote.upload(&self.dir, self.containerfile.as_deref());
        let context = upload.await?;
        tracing::debug!(%context, "uploaded");
        let tools = remote.connect().await?;
        let begun = tools.call("build", self.arguments(&context)).await?;
        let Some(status) = &begun.value else {
            anyhow::bail!("{}", begun.text);
        };
        let id = status["build_id"].as_str().unwrap_or_default().to_owned();
        eprintln!("{id}");
        let patience = Duration::from_secs(self.patience.into());
        let mut server = Steady::new(&remote, tools, patience);
        let ended = tokio::select! {
            ended = wait(&mut server, &id) => match ended {
                Ok(ended) => return self.tell(&ended),
                Err(away) => Err(away),
            },
            told = tokio::signal::ctrl_c() => {
                told?;
                end(&mut server, &id).await
            }
        };
        Ok(ExitCode::from(match ended {
            Ok(()) => INTERRUPTED,
            Err(away) => {
                eprintln!("{away}\nthe build {id} goes on");
                AWAY
            }
        }))
    }

    fn arguments(&self, context: &str) -> Map<String, Value> {
        let numbered = self.tests.iter().enumerate();
        let tests = numbered
            .map(|(n, command)| json!({"name": format!("test-{}", n + 1), "command": command}));
        let mut arguments = object(json!({
            "source": {"context": context},
            "containerfile": self.containerfile,
            "target": self.target,
            "build_args": self.build_args,
            "tags": self.tags,
            "tests": tests.collect::<Vec<_>>(),
            "secrets": self.secrets,
            "name": self.name,
            "profile": self.profile,
            "timeout": self.timeout,
        }));
        arguments.retain(|_, value| !value.is_null());
        arguments
    }

    fn tell(&self, ended: &Answer) -> anyhow::Result<ExitCode> {
        let status = ended
            .value
            .as_ref()
            .and_then(|value| value["builds"].get(0));
        let status = status.with_context(|| ended.text.clone())?;
        let mut out = std::io::stdout();
        if self.json {
            writeln!(out, "{status}")?;
        } else {
            writeln!(out, "{}", ended.text)?;
        }
        match status["state"].as_str() {
            Some("succeeded") => Ok(ExitCode::SUCCESS),
            _ => Ok(ExitCode::from(FAILED)),
        }
    }
}

/// The answer that says how the build has ended, or that there is none.
async fn wait(server: &mut Steady<'_>, id: &str) -> Result<Answer, Away> {
    let arguments = object(json!({"build_id": id, "wait": MAX_WAIT, "until": "finished"}));
    loop {
        let answer = server.call("status", &arguments).await?;
        let value = answer.value.as_ref();
        let state = value.and_then(|value| value["builds"].get(0)?["state"].as_str());
        if !matches!(state, Some("queued" | "running")) {
            return Ok(answer);
        }
    }
}

/// Ends the build, or leaves it when that is asked for, too.
async fn end(server: &mut Steady<'_>, id: &str) -> Result<(), Away> {
    eprintln!("ending the build {id}; Ctrl-C again leaves it to the server");
    let arguments = object(json!({"build_id": id, "wait": MAX_WAIT}));
    tokio::select! {
        killed = server.call("kill", &arguments) => eprintln!("{}", killed?.text),
        _ = tokio::signal::ctrl_c() => eprintln!("the build {id} goes on"),
    }
    Ok(())
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
