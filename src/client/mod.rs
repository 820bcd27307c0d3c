//! A server elsewhere, as its clients see it: uploads, and the tools over MCP.

pub mod discovery;
mod steady;

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::CONTENT_TYPE;
use rmcp::model::{CallToolRequestParams, CallToolResult, ContentBlock};
use rmcp::service::{ClientInitializeError, RunningService};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{IntoTransport, StreamableHttpClientTransport};
use rmcp::{RoleClient, ServiceExt as _};
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use crate::build::request::MAX_WAIT;
use crate::context::{Extent, Limits, snapshot_dir};
use crate::schema::error_code::ErrorCode;

pub use steady::{Away, Steady};

/// How long it may take to be connected.
const CONNECTING: Duration = Duration::from_secs(10);
/// How long nothing may come of the answer of a tool; the longest waits for [`MAX_WAIT`].
const SILENT: Duration = Duration::from_secs(MAX_WAIT as u64 + 30);
/// How long an upload may take, and all that the server does with it; and a download.
const TRANSFERRING: Duration = Duration::from_secs(3 * 60 * 60);
/// Of what a server said that is no MCP, at most so many bytes are repeated.
const REPEATED: usize = 2000;

/// A server and the token for it.
pub struct Remote {
    url: Url,
    token: Option<String>,
    http: reqwest::Client,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("url", &self.url.as_str())
            .finish_non_exhaustive()
    }
}

/// What a tool answered.
#[derive(Debug)]
pub struct Answer {
    /// For people.
    pub text: String,
    /// For machines; none where the call was refused.
    pub value: Option<Value>,
    /// Why it was refused, for machines.
    pub refusal: Option<Value>,
}

impl Answer {
    /// Whether the same call may be answered another time; after how many seconds, if that is told.
    fn another_time(&self) -> Option<Option<u64>> {
        let refusal = self.refusal.as_ref()?;
        let code = refusal["code"].as_str()?;
        let passes = [ErrorCode::LimitReached, ErrorCode::BackendUnavailable];
        (passes.iter().any(|one| one.as_str() == code))
            .then(|| refusal["retry_after_seconds"].as_u64())
    }
}

#[derive(Deserialize)]
struct Uploaded {
    context: String,
}

impl Remote {
    /// A server by its URL, with or without `/mcp` at its end.
    ///
    /// # Errors
    /// When it is no URL of a server.
    pub fn new(server: &str, token: Option<String>) -> anyhow::Result<Self> {
        // Not repeated: it may hold a password that should not stand there.
        const WRONG: &str = "the address of the server is none: such as https://build.example.com, without user and password";
        let mut url = Url::parse(server).context(WRONG)?;
        let bare = url.username().is_empty() && url.password().is_none();
        ensure!(
            matches!(url.scheme(), "http" | "https") && url.has_host() && bare,
            WRONG
        );
        let path = url.path().trim_end_matches('/');
        let path = path.strip_suffix("/mcp").unwrap_or(path).to_owned();
        url.set_path(&path);
        Ok(Self {
            url,
            token: token.map(|token| token.trim().to_owned()),
            http: reqwest::Client::builder()
                .connect_timeout(CONNECTING)
                .build()?,
        })
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url.as_str().trim_end_matches('/'))
    }

    /// Uploads what `extent` names of a directory, without what the ignore file of its context names; returns what `source.context` takes.
    ///
    /// # Errors
    /// What is wrong with the directory, or what the server says.
    pub async fn upload(
        &self,
        dir: &Path,
        extent: Extent,
        containerfile: Option<&str>,
    ) -> anyhow::Result<String> {
        let (dir, containerfile) = (dir.to_owned(), containerfile.map(str::to_owned));
        let pack = move || pack(&dir, &extent, containerfile.as_deref());
        let file = tokio::task::spawn_blocking(pack).await??;
        let length = file.metadata()?.len();
        let stream = tokio_util::io::ReaderStream::new(tokio::fs::File::from_std(file));
        let request = self
            .http
            .put(self.at("/v1/contexts"))
            .header(CONTENT_TYPE, "application/gzip")
            .header(reqwest::header::CONTENT_LENGTH, length)
            .body(reqwest::Body::wrap_stream(stream));
        let response = self.send(request, "take the upload").await?;
        let text = response.text().await?;
        let uploaded: Uploaded = serde_json::from_str(&text)
            .context("what the server says is no answer of nomad-build")?;
        Ok(uploaded.context)
    }

    /// Sends a request that may take long; what the server says when it does not do this is the error.
    async fn send(
        &self,
        mut request: reqwest::RequestBuilder,
        what: &str,
    ) -> anyhow::Result<reqwest::Response> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let unreachable = || format!("the server {} cannot be reached", self.url);
        let sent = request.timeout(TRANSFERRING).send().await;
        let response = sent.with_context(unreachable)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await?;
        let said: String = text.chars().take(REPEATED).collect();
        bail!("the server does not {what} ({status}): {}", said.trim())
    }

    /// Fetches an output of a build.
    ///
    /// # Errors
    /// What the server says, or when it does not come to its end.
    pub async fn download(
        &self,
        id: &str,
        name: &str,
        to: &mut impl io::Write,
    ) -> anyhow::Result<()> {
        let at = self.at(&format!("/v1/builds/{id}/outputs/{name}"));
        let mut response = self.send(self.http.get(at), "give the output").await?;
        while let Some(bytes) = response.chunk().await? {
            to.write_all(&bytes)?;
        }
        Ok(())
    }

    /// Begins to talk MCP.
    ///
    /// # Errors
    /// When the server cannot be reached, or lets nobody in with this token.
    pub async fn connect(&self) -> anyhow::Result<Tools> {
        let mut config = StreamableHttpClientTransportConfig::with_uri(self.at("/mcp"));
        if let Some(token) = &self.token {
            config = config.auth_header(token);
        }
        // It would count the time of an upload, too.
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECTING)
            .read_timeout(SILENT)
            .build()?;
        let transport = StreamableHttpClientTransport::with_client(http, config);
        Tools::over(transport).await.map_err(|error| {
            // rmcp tells it only in these words (streamable_http_client.rs, `AuthRequired`).
            let is_refused = format!("{error:#}").contains("Auth required");
            match (is_refused, &self.token) {
                (true, Some(_)) => anyhow::anyhow!(
                    "the server {} lets nobody in with this token (401): its operator makes one with nomad-build token NAME",
                    self.url
                ),
                (true, None) => anyhow::anyhow!(
                    "the server {} wants a token (401), and none was given: NOMAD_BUILD_TOKEN, or --token-file FILE; its operator makes one with nomad-build token NAME",
                    self.url
                ),
                (false, _) => error.context(format!("no MCP with the server {}", self.url)),
            }
        })
    }
}

/// Packs a directory into a file without a name. Blocks.
fn pack(dir: &Path, extent: &Extent, containerfile: Option<&str>) -> anyhow::Result<File> {
    /// The server knows how much it takes.
    const ANY: Limits = Limits {
        bytes: u64::MAX,
        entries: u64::MAX,
    };
    let file = tempfile::tempfile()?;
    let mut packed = GzEncoder::new(BufWriter::new(file), Compression::fast());
    snapshot_dir(dir, extent, containerfile, &[], ANY, &mut packed)?;
    let mut out = packed.finish()?;
    out.flush()?;
    let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

/// The tools of a server.
#[derive(Debug)]
pub struct Tools {
    running: RunningService<RoleClient, ()>,
}

impl Tools {
    /// Begins to talk MCP over a transport.
    ///
    /// # Errors
    /// When nobody answers there.
    pub async fn over<T, E, A>(transport: T) -> anyhow::Result<Self>
    where
        T: IntoTransport<RoleClient, E, A>,
        E: std::error::Error + Send + Sync + 'static,
    {
        let running = ().serve(transport).await.map_err(|error| match error {
            // The name of the transport's type tells nobody anything.
            ClientInitializeError::TransportError { error, .. } => {
                anyhow::Error::from_boxed(error.error)
            }
            other => other.into(),
        })?;
        Ok(Self { running })
    }

    /// Calls a tool.
    ///
    /// # Errors
    /// When no answer comes. What the server refuses is an answer.
    pub async fn call(
        &self,
        tool: &'static str,
        arguments: Map<String, Value>,
    ) -> anyhow::Result<Answer> {
        let request = CallToolRequestParams::new(tool).with_arguments(arguments);
        let result: CallToolResult = self.running.call_tool(request).await?;
        let text = result.content.iter().filter_map(ContentBlock::as_text);
        let text: Vec<&str> = text.map(|block| block.text.as_str()).collect();
        let meta = result.meta.as_ref();
        Ok(Answer {
            text: text.join("\n"),
            value: result.structured_content,
            refusal: meta.and_then(|meta| meta.get("nomad-build/error").cloned()),
        })
    }
}
