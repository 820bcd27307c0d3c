//! The composition root: configuration → backend → service → transport, and the shutdown.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rmcp::ServiceExt;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::assembly::{follow_consul, local_principal, open, server_for_user};
use crate::backend::Backend;
use crate::cli::serve::Serve;
use crate::cli::{Cli, Command};
use crate::config::{BackendKind, Config, Listen, Live, warn_of_strays};
use crate::http;
use crate::http::access::Authentication;
use crate::http::issuers::Issuer;
use crate::http::listen::Listener;
use crate::http::tls::Certificates;
use crate::http::tokens::{self, Tokens};
use crate::mcp::stdio;
use crate::service::Service;
use crate::telemetry::{self, Hearer};

/// How long the last answers may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Does what the command line says.
///
/// # Errors
/// What kept the program from doing its work.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        // It says where its log goes.
        Command::Serve(_) => {}
        Command::Runner(_) => begin_log(to_stderr(), None),
        // People want to hear only what is wrong, and not twice: what libraries complain of, the commands tell.
        _ => begin_log_of("off,nomad_build=warn", to_stderr(), None),
    }
    match cli.command {
        Command::Serve(options) => serve(options),
        Command::Build(build) => of_tools(build.run()),
        Command::Status(status) => of_tools(status.run()),
        Command::Logs(logs) => of_tools(logs.run()),
        Command::Kill(kill) => of_tools(kill.run()),
        Command::Schema(schema) => schema.run(),
        Command::Token(token) => token.run().map(|()| ExitCode::SUCCESS),
        Command::Check(check) => check.run(),
        Command::Config(config) => config.run(),
        Command::Setup(setup) => setup.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
        Command::Runner(runner) => runner.run(),
    }
}

/// Runs a command that calls tools, perhaps of a server in this process.
fn of_tools(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    let done = runtime.block_on(work);
    // Nothing that goes on in this process is a build.
    runtime.shutdown_background();
    done
}

/// What a server runs on, and a command that has one in its own process.
fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // What blocks is the disk: many at once are not faster, and each takes memory that it does not give back.
        .max_blocking_threads(16)
        .enable_all()
        .build()
}

/// Nothing but protocol or records may go to stdout.
fn to_stderr() -> impl Layer<Registry> + Send + Sync {
    fmt::layer().with_writer(io::stderr).with_ansi(false)
}

fn begin_log(lines: impl Layer<Registry> + Send + Sync, traces: Option<Hearer>) {
    begin_log_of("info,rmcp=warn", lines, traces);
}

/// Begins the log of this program, with what `wanted` says unless the environment says otherwise.
fn begin_log_of(wanted: &str, lines: impl Layer<Registry> + Send + Sync, traces: Option<Hearer>) {
    let told = std::env::var("NOMAD_BUILD_LOG").ok();
    let told = told.filter(|told| !told.is_empty());
    let parsed = told.as_deref().map(EnvFilter::try_new);
    let is_wrong = matches!(parsed, Some(Err(_)));
    let filter = parsed.and_then(Result::ok);
    let filter = filter.unwrap_or_else(|| EnvFilter::new(wanted));
    let hearers: Vec<Hearer> = std::iter::once(lines.with_filter(filter).boxed())
        .chain(traces)
        .collect();
    let _ = tracing_subscriber::registry().with(hearers).try_init();
    if is_wrong {
        tracing::warn!(
            "NOMAD_BUILD_LOG is no filter, such as debug or info,nomad_build=debug: {wanted} is used"
        );
    }
}

fn serve(options: Serve) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    let (export, traces) = telemetry::begin(runtime.handle())
        .context("traces cannot be exported as the variables OTEL_… say")?
        .unzip();
    // It says, too, where the log goes that hears of strays.
    let loaded = Config::load_from(&options.given, |name| std::env::var(name).ok());
    let loaded = loaded.map(|(config, _)| config);
    let dir = options.log_dir.as_ref();
    let dir = dir.or_else(|| loaded.as_ref().ok()?.log_dir.as_ref());
    let _writer = match dir {
        None => {
            begin_log(to_stderr(), traces);
            None
        }
        Some(dir) => {
            let files = tracing_appender::rolling::RollingFileAppender::builder()
                .rotation(tracing_appender::rolling::Rotation::DAILY)
                .filename_prefix("nomad-build")
                .filename_suffix("log")
                .max_log_files(14)
                .build(dir)
                .with_context(|| format!("the log directory {} cannot be used", dir.display()))?;
            let (writer, guard) = tracing_appender::non_blocking(files);
            begin_log(fmt::layer().json().with_writer(writer), traces);
            Some(guard)
        }
    };
    warn_of_strays();
    let config = loaded?;
    let kind = options.backend.unwrap_or(config.backend);
    let place = options.http.or_else(|| config.http.place());
    let place = place.filter(|_| !options.stdio);
    anyhow::ensure!(
        place.is_some() || !options.no_auth,
        "--no-auth is for HTTP: --http ADDRESS or http.listen says where"
    );
    let served = runtime.block_on(async {
        let live = follow_consul(config).await?;
        match place {
            None => serve_stdio(open(kind, &live)?, live).await,
            Some(place) => serve_http(kind, live, &place, options.no_auth).await,
        }
    });
    if let Some(export) = export {
        export.end(LAST_WORDS);
    }
    // A read of stdin cannot be taken back: it must not keep the process.
    runtime.shutdown_background();
    served.map(|()| ExitCode::SUCCESS)
}

async fn serve_stdio(backend: Arc<dyn Backend>, live: Live) -> anyhow::Result<()> {
    let server = server_for_user(backend, live)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        "serving MCP over stdio"
    );
    let (input, output, writer) = stdio::transport();
    let running = match server.serve((input, output)).await {
        Ok(running) => running,
        // A client that goes before it has said anything is no fault.
        Err(rmcp::service::ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let reason = running.waiting().await?;
    // The last answers are on their way.
    let _ = tokio::time::timeout(LAST_WORDS, writer).await;
    tracing::info!(?reason, "the client is gone; builds go on");
    Ok(())
}

async fn serve_http(
    kind: BackendKind,
    live: Live,
    at: &Listen,
    no_auth: bool,
) -> anyhow::Result<()> {
    // How it is reached does not change while it runs.
    let config = live.now();
    let authentication = authentication(&config, at, no_auth)?;
    let certificates = (config.http.tls.as_ref())
        .filter(|_| matches!(at, Listen::Tcp(_)))
        .map(|tls| Certificates::open(&tls.certificate, &tls.key))
        .transpose()?;
    let backend = open(kind, &live)?;
    let listener = Listener::bind(at, certificates)
        .await
        .with_context(|| format!("{at} cannot be listened at"))?;
    let ending = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let told = ending.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to end; builds go on");
        told.cancel();
    });
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        address = %listener.place()?,
        tls = config.http.tls.is_some(),
        "serving MCP over HTTP at /mcp"
    );
    let service = Arc::new(Service::new(backend, live, false));
    if service.takes_uploads() {
        let caretaker = Arc::clone(&service);
        tokio::spawn(async move { caretaker.look_after_uploads().await });
    }
    Ok(http::serve(listener, service, &config.http, authentication, ending).await?)
}

/// How callers are known who come to a place.
fn authentication(config: &Config, at: &Listen, no_auth: bool) -> anyhow::Result<Authentication> {
    let address = match at {
        // The kernel says who it is, and lets in nobody but the owner.
        Listen::Unix(_) => return Ok(Authentication::Users),
        Listen::Tcp(address) => address,
    };
    if no_auth {
        anyhow::ensure!(
            Authentication::may_be_off(address),
            "--no-auth is for loopback only, and {address} is not: without it, a token is asked for"
        );
        return Ok(Authentication::None(local_principal()?));
    }
    if config.http.tls.is_none() && !address.ip().is_loopback() {
        tracing::warn!(
            "no http.tls: whoever can listen on the network sees the tokens; use it, or a proxy that does"
        );
    }
    let issuers = config.http.issuers.iter();
    let issuers = issuers.map(|(name, issuer)| Issuer::new(name, issuer));
    Ok(Authentication::Tokens(
        tokens(config)?,
        issuers.collect::<anyhow::Result<_>>()?,
    ))
}

fn tokens(config: &Config) -> anyhow::Result<Tokens> {
    let file = config.tokens_file();
    let broken = || format!("the tokens in {} cannot be used", file.display());
    // A file that the configuration names is the operator's.
    if config.http.tokens.is_none() {
        std::fs::create_dir_all(&config.state_dir).with_context(broken)?;
        if let Some(secret) = tokens::first(&file).with_context(broken)? {
            tracing::info!(
                "{} has a token for this server: Authorization: Bearer $(cat {0})",
                secret.display()
            );
        }
    }
    Tokens::open(file.clone()).with_context(broken)
}
