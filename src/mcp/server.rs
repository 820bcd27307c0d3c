//! The MCP server: both protocol eras, on any transport.
//!
//! A cheap clone around one shared service: HTTP makes one per session or request. A call that is
//! cancelled, or whose client is gone, ends the waiting; it never ends a build.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::request::Parts;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams,
    CompleteRequestParams, CompleteResult, ContentBlock, CustomRequest, CustomResult, ErrorCode,
    Extensions, GetPromptRequestParams, GetPromptResponse, GetPromptResult, GetTaskParams,
    GetTaskResult, Implementation, ListPromptsResult, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, MetaObject, PaginatedRequestParams, PromptMessage,
    ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Role, ServerCapabilities,
    ServerConfig, Tool, UpdateTaskParams,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, info_span};

use crate::backend::View;
use crate::build::request::{KillRequest, LogsRequest, StatusRequest};
use crate::build::status::{BuildStatus, StatusAnswer};
use crate::schema::{ArgFault, Faults, decode, error_code};
use crate::service::{Patience, Principal, Service, ToolError, Waiting};
use crate::telemetry;

use super::entrance::Entrance;
use super::naming::Naming;
use super::progress::Progress;
use super::tools::{Definition, SYNONYMS, definitions};
use super::{fence, guide, icon, prompts, render, resources, tasks};

/// Milliseconds for which clients may keep lists that never change within a version.
const LIST_TTL: u64 = 3_600_000;

/// Hears of each call of a tool.
pub trait Meter: Send + Sync {
    /// A call has been answered. `outcome` is `ok`, or the code of the error.
    fn called(&self, tool: &str, outcome: &str, took: Duration);

    /// So many bytes of a log were given to a client.
    fn gave_log(&self, bytes: usize);

    /// An upload of so many bytes was taken.
    fn took_upload(&self, bytes: u64);
}

/// Who asks over a connection.
#[derive(Debug, Clone)]
pub enum Asker {
    /// Always the same one.
    Is(Principal),
    /// Whoever the transport has found out for a request: a [`Principal`] in the extensions of its HTTP
    /// request. A request without one is refused.
    OfTheRequest,
}

/// One connection's view of the server.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
    asker: Asker,
    /// Builds that this connection asked for.
    mine: Arc<Mutex<HashSet<String>>>,
}

struct Shared {
    service: Arc<Service>,
    definitions: Vec<Definition>,
    naming: Naming,
    /// Fires when the server ends: then nobody waits any longer.
    ending: CancellationToken,
    meter: Option<Arc<dyn Meter>>,
}

/// A request, and who makes it.
pub(super) struct Asked<'a> {
    server: &'a Server,
    /// Under the configuration of the moment when it asked.
    service: Service,
    pub(super) principal: Principal,
    entrance: Option<Entrance>,
}

impl Server {
    /// A server for one connection. `ending` fires when it ends, `meter` hears of each call.
    pub fn new(
        service: Arc<Service>,
        asker: Asker,
        ending: CancellationToken,
        meter: Option<Arc<dyn Meter>>,
    ) -> Self {
        let shared = Shared {
            definitions: definitions(service.max_wait()),
            naming: Naming::new(service.tool_prefix()),
            service,
            ending,
            meter,
        };
        Self {
            shared: Arc::new(shared),
            asker,
            mine: Arc::default(),
        }
    }

    /// The same for another connection.
    pub fn for_another(&self) -> Self {
        Self {
            mine: Arc::default(),
            ..self.clone()
        }
    }

    fn asked(&self, extensions: &Extensions) -> Result<Asked<'_>, ErrorData> {
        let parts = extensions.get::<Parts>();
        let principal = match &self.asker {
            Asker::Is(principal) => Some(principal.clone()),
            Asker::OfTheRequest => {
                parts.and_then(|parts| parts.extensions.get::<Principal>().cloned())
            }
        };
        let principal =
            principal.ok_or_else(|| ErrorData::invalid_request("nobody knows who asks", None))?;
        Ok(Asked {
            server: self,
            service: self.shared.service.now(),
            principal,
            entrance: parts.and_then(|parts| parts.extensions.get::<Entrance>().cloned()),
        })
    }

    /// The same of a request that costs something: it may be one too many.
    fn counted(&self, extensions: &Extensions) -> Result<Asked<'_>, ErrorData> {
        let asked = self.asked(extensions)?;
        asked.count().map_err(refused)?;
        Ok(asked)
    }

    fn is_mine(&self, id: &str) -> bool {
        self.mine
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(id)
    }

    fn add_mine(&self, id: &str) {
        self.mine
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.to_owned());
    }
}

impl Asked<'_> {
    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    /// Counts a request that costs something; not of the local user.
    pub(super) fn count(&self) -> Result<(), ToolError> {
        match self.server.asker {
            Asker::Is(_) => Ok(()),
            Asker::OfTheRequest => self.service().count_call(&self.principal),
        }
    }

    /// How long a caller waits, at the longest.
    pub(super) fn patience(&self, caller: CancellationToken) -> Patience {
        Patience {
            caller,
            server: self.server.shared.ending.clone(),
        }
    }

    async fn call(
        &self,
        definition: &Definition,
        raw: Value,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ToolError> {
        let name = definition.tool.name.as_ref();
        // Only the arguments of `build` are looked at again.
        let again = (name == "build").then(|| raw.clone());
        let decoded = match decode(&definition.decoder, raw, SYNONYMS) {
            Ok(decoded) => decoded,
            Err(faults) => {
                let more = self.beyond_schema(&definition.decoder, again.as_ref(), &faults);
                return Err(ToolError::from(faults).and(more));
            }
        };
        let notes: Vec<String> = decoded.notes.iter().map(ToString::to_string).collect();
        let mut progress = Progress::new(context);
        let mut tell = |view: &View| progress.tell(view);
        let mut waiting = Waiting {
            gone: self.patience(context.ct.clone()),
            tell: &mut tell,
        };
        let links = resources::are_linked(context);
        // Boxed: a call that waits takes the memory of its own tool alone.
        match name {
            "build" => Box::pin(self.build(decoded.value, notes, links, &mut waiting)).await,
            "status" => Box::pin(self.status(decoded.value, notes, links, &mut waiting)).await,
            "logs" => Box::pin(self.logs(decoded.value, notes, &mut waiting)).await,
            _ => Box::pin(self.kill(decoded.value, notes, &mut waiting)).await,
        }
    }

    /// What is wrong with the arguments that the decoder found in order: every fault at once.
    fn beyond_schema(
        &self,
        decoder: &Map<String, Value>,
        raw: Option<&Value>,
        faults: &Faults,
    ) -> Vec<ArgFault> {
        let Some(given) = raw.and_then(Value::as_object) else {
            return Vec::new();
        };
        let head = |path: &str| path.split(['.', '[']).next().unwrap_or_default().to_owned();
        let bad: HashSet<String> = faults
            .listed
            .iter()
            .map(|fault| head(&fault.path))
            .collect();
        let sound: Map<String, Value> = given
            .iter()
            .filter(|(name, _)| !bad.contains(*name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let Ok(decoded) = decode(decoder, Value::Object(sound), SYNONYMS) else {
            return Vec::new();
        };
        let mut more = self.service().check(&self.principal, decoded.value);
        more.retain(|fault| !bad.contains(&head(&fault.path)));
        more
    }

    async fn build(
        &self,
        arguments: Value,
        notes: Vec<String>,
        links: bool,
        waiting: &mut Waiting<'_>,
    ) -> Result<CallToolResult, ToolError> {
        let path = arguments.pointer("/source/path").and_then(Value::as_str);
        let path = path.map(str::to_owned);
        let building = self.service().build(&self.principal, arguments, waiting);
        let mut status = match (building.await, path) {
            (Err(error), Some(path)) => return Err(self.with_remedy(error, &path).await),
            (status, _) => status?,
        };
        status.notes = notes;
        if status.state != "valid" {
            self.server.add_mine(&status.build_id);
        }
        built(&status, links)
    }

    /// What `build` would have answered, had it waited. Who knows tasks knows links to resources, too.
    pub(super) fn late(&self, status: &BuildStatus) -> Result<CallToolResult, ToolError> {
        let mut result = built(status, true)?;
        self.server.shared.naming.name_calls(&mut result);
        Ok(result)
    }

    /// A directory that this server cannot read can be uploaded.
    async fn with_remedy(&self, mut error: ToolError, path: &str) -> ToolError {
        let unreachable = |fault: &ArgFault| fault.code == error_code::ErrorCode::PathNotReachable;
        if !(self.service().takes_uploads() && error.faults().iter().any(unreachable)) {
            return error;
        }
        if let Some(entrance) = &self.entrance {
            match self.service().open_ticket(&self.principal).await {
                Ok(ticket) => error.remedy = Some(entrance.remedy(path, &ticket)),
                Err(error) => tracing::warn!(%error, "no ticket can be made"),
            }
        }
        error
    }

    async fn status(
        &self,
        arguments: Value,
        notes: Vec<String>,
        links: bool,
        waiting: &mut Waiting<'_>,
    ) -> Result<CallToolResult, ToolError> {
        let request: StatusRequest = typed(arguments)?;
        let mut answer = self
            .service()
            .status(&self.principal, &request, waiting)
            .await?;
        answer.notes = notes;
        self.mark_mine(&mut answer);
        let text = render::status(&answer, &request, &fence::nonce());
        let mut result = success(&answer, text)?;
        if links {
            let links = answer.builds.iter().flat_map(resources::links);
            result.content.extend(links);
        }
        Ok(result)
    }

    fn mark_mine(&self, answer: &mut StatusAnswer) {
        for build in &mut answer.builds {
            build.mine = self.server.is_mine(&build.build_id).then_some(true);
        }
    }

    async fn logs(
        &self,
        arguments: Value,
        notes: Vec<String>,
        waiting: &mut Waiting<'_>,
    ) -> Result<CallToolResult, ToolError> {
        let request: LogsRequest = typed(arguments)?;
        let id = self
            .service()
            .find(&self.principal, &request.build_id)
            .await?
            .record
            .id;
        let mut answer = self
            .service()
            .logs(&self.principal, &request, waiting)
            .await?;
        answer.notes.extend(notes);
        if let Some(meter) = &self.server.shared.meter {
            meter.gave_log(answer.text.len());
        }
        let text = render::logs(&answer, id.as_str(), &fence::nonce());
        success(&answer, text)
    }

    async fn kill(
        &self,
        arguments: Value,
        notes: Vec<String>,
        waiting: &mut Waiting<'_>,
    ) -> Result<CallToolResult, ToolError> {
        let request: KillRequest = typed(arguments)?;
        let mut answer = self
            .service()
            .kill(&self.principal, &request, waiting)
            .await?;
        answer.notes = notes;
        let text = render::kill(&answer);
        success(&answer, text)
    }
}

/// A span for a call, within that of the request which brought it.
fn span(extensions: &Extensions) -> Span {
    let parts = extensions.get::<Parts>();
    match parts.and_then(|parts| parts.extensions.get::<Span>()) {
        Some(request) => info_span!(parent: request, "call"),
        None => info_span!("call"),
    }
}

/// What a collector is told of a call.
fn describe(span: &Span, tool: &str, outcome: &'static str, result: Option<&CallToolResult>) {
    telemetry::name(span, format!("tools/call {tool}"));
    telemetry::note(span, "mcp.method.name", "tools/call");
    telemetry::note(span, "gen_ai.tool.name", tool.to_owned());
    telemetry::note(span, "nomad_build.outcome", outcome);
    let content = result.and_then(|result| result.structured_content.as_ref());
    if let Some(build) = content.and_then(|content| content.get("build_id")?.as_str()) {
        telemetry::note(span, "nomad_build.build_id", build.to_owned());
    }
    if outcome == error_code::ErrorCode::Internal.as_str() {
        telemetry::fail(span);
    }
}

fn typed<T: serde::de::DeserializeOwned>(arguments: Value) -> Result<T, ToolError> {
    serde_json::from_value(arguments).map_err(ToolError::internal)
}

fn refused(error: ToolError) -> ErrorData {
    ErrorData::invalid_request(error.to_string(), None)
}

pub(super) fn internal(error: impl std::fmt::Display) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

/// What `build` answers.
fn built(status: &BuildStatus, links: bool) -> Result<CallToolResult, ToolError> {
    let text = render::build(status, &fence::nonce());
    let mut result = success(status, text)?;
    if links {
        result.content.extend(resources::links(status));
    }
    Ok(result)
}

fn success(answer: &impl Serialize, text: String) -> Result<CallToolResult, ToolError> {
    let value = serde_json::to_value(answer).map_err(ToolError::internal)?;
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(value);
    Ok(result)
}

/// What the caller can mend: text and a machine's copy in `_meta`, no structured content, because
/// clients would validate that against the output schema.
fn refusal(error: &ToolError) -> CallToolResult {
    let mut meta = MetaObject::default();
    let mut machine = json!({"code": error.code().as_str(), "faults": error.faults()});
    if let (Some(seconds), Some(map)) = (error.retry_after, machine.as_object_mut()) {
        map.insert("retry_after_seconds".into(), seconds.into());
    }
    if let (Some(remedy), Some(map)) = (&error.remedy, machine.as_object_mut()) {
        let remedy = json!({"command": remedy.command, "context": remedy.context, "expires_in_seconds": remedy.seconds});
        map.insert("upload".into(), remedy);
    }
    meta.insert("nomad-build/error".into(), machine);
    CallToolResult::error(vec![ContentBlock::text(error.to_string())]).with_meta(Some(meta))
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_prompts()
            .enable_completions()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(
                Implementation::new("nomad-build", env!("CARGO_PKG_VERSION"))
                    .with_title("nomad-build: container builds")
                    .with_icons(vec![icon::icon()]),
            )
            .with_instructions(self.shared.naming.explained(guide::INSTRUCTIONS))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools: Vec<Tool> = self
            .shared
            .definitions
            .iter()
            .map(|definition| self.shared.naming.tool(&definition.tool))
            .collect();
        Ok(ListToolsResult {
            ttl_ms: Some(LIST_TTL),
            cache_scope: Some(CacheScope::Public),
            ..ListToolsResult::with_all_items(tools)
        })
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let raw = request.arguments.map_or(Value::Null, Value::Object);
        let result = self.answer(&request.name, raw, &context).await?;
        let is_build = self.shared.naming.bare(&request.name) == "build";
        let task = (is_build && tasks::are_known(&context))
            .then(|| tasks::instead_of(&result))
            .flatten();
        Ok(task.map_or_else(|| result.into(), CallToolResponse::Task))
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        let asked = self.counted(&context.extensions)?;
        asked.task(&request.task_id).await
    }

    /// Builds ask nothing: there is nothing that an answer could be for.
    async fn update_task(
        &self,
        request: UpdateTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let asked = self.counted(&context.extensions)?;
        asked.task(&request.task_id).await.map(drop)
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let asked = self.counted(&context.extensions)?;
        asked.cancel_task(&request.task_id, &context).await
    }

    /// A `tools/call` whose arguments are no object is none for rmcp; some hosts send a JSON text.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        if request.method != "tools/call" {
            return Err(ErrorData::new(
                ErrorCode::METHOD_NOT_FOUND,
                "there is no such method",
                None,
            ));
        }
        let params = request.params.unwrap_or_default();
        let name = params
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let raw = params.get("arguments").cloned().unwrap_or_default();
        let result = self.answer(name, raw, &context).await?;
        serde_json::to_value(result)
            .map(CustomResult::new)
            .map_err(internal)
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let asked = self.asked(&context.extensions)?;
        let views = asked
            .service()
            .own(&asked.principal)
            .await
            .map_err(internal)?;
        let resources = resources::rows(&views);
        Ok(ListResourcesResult {
            ttl_ms: Some(0),
            cache_scope: Some(CacheScope::Private),
            ..ListResourcesResult::with_all_items(resources)
        })
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let templates = resources::templates();
        Ok(ListResourceTemplatesResult {
            ttl_ms: Some(LIST_TTL),
            cache_scope: Some(CacheScope::Public),
            ..ListResourceTemplatesResult::with_all_items(templates)
        })
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let asked = self.counted(&context.extensions)?;
        let contents = asked.resource(&request.uri).await?;
        let mut result = ReadResourceResult::new(vec![contents]);
        result.ttl_ms = Some(0);
        result.cache_scope = Some(CacheScope::Private);
        Ok(result.into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let asked = self.counted(&context.extensions)?;
        asked.complete(&request).await.map(CompleteResult::new)
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult {
            ttl_ms: Some(LIST_TTL),
            cache_scope: Some(CacheScope::Public),
            ..ListPromptsResult::with_all_items(prompts::all())
        })
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let given = prompts::given(request.arguments.as_ref());
        let needs = |name: &str| {
            let missing = || ErrorData::invalid_params(format!("{name} is missing"), None);
            given.get(name).cloned().ok_or_else(missing)
        };
        let asked = self.counted(&context.extensions)?;
        let text = match request.name.as_str() {
            prompts::BUILD => needs("source").map(|_| prompts::build(&given))?,
            prompts::FIX => prompts::fix(&asked.current(&needs("build_id")?).await?),
            _ => {
                let text = format!(
                    "there is no such prompt; there are {} and {}",
                    prompts::BUILD,
                    prompts::FIX
                );
                return Err(ErrorData::invalid_params(text, None));
            }
        };
        let text = self.shared.naming.explained(&text);
        Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]).into())
    }
}

impl Server {
    /// The answer to a call of a tool.
    async fn answer(
        &self,
        tool: &str,
        raw: Value,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let begun = Instant::now();
        let asked = self.asked(&context.extensions)?;
        let tool = self.shared.naming.bare(tool);
        let definition = (self.shared.definitions.iter()).find(|one| one.tool.name == tool);
        let definition = definition.ok_or_else(|| self.no_such_tool())?;
        let span = span(&context.extensions);
        let answer = match asked.count() {
            Ok(()) => {
                let call = asked.call(definition, raw, context);
                call.instrument(span.clone()).await
            }
            Err(error) => Err(error),
        };
        let _in = span.enter();
        let outcome = answer
            .as_ref()
            .map_or_else(|error| error.code().as_str(), |_| "ok");
        describe(&span, tool, outcome, answer.as_ref().ok());
        if let Some(meter) = &self.shared.meter {
            meter.called(tool, outcome, begun.elapsed());
        }
        tracing::debug!(%tool, outcome, milliseconds = begun.elapsed().as_millis(), "a call was answered");
        let mut result = answer.unwrap_or_else(|error| {
            tracing::info!(%tool, outcome, "a call was refused");
            refusal(&error)
        });
        self.shared.naming.name_calls(&mut result);
        Ok(result)
    }

    fn no_such_tool(&self) -> ErrorData {
        let names = self.shared.naming.names();
        let text = format!("there is no such tool; the tools are {names}");
        ErrorData::invalid_params(text, None)
    }
}
