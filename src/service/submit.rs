//! `build`: a request becomes an accepted build, or one that is there already.

use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::backend::{Claim, Submission, Submitted};
use crate::build::plan::PlanSource;
use crate::build::record::{CancelMark, RECORD_VERSION};
use crate::build::request::Until;
use crate::build::scope::Scopes;
use crate::build::status::{BuildStatus, PlanStage, PlanStatus, SourceStatus};
use crate::build::validate::{Base, Valid, validate};
use crate::build::{BuildId, BuildRequest, Plan, Record};
use crate::containerfile::{Containerfile, FaultKind};
use crate::runner::reporter::now_ms;
use crate::runner::source::missing_secret;
use crate::schema::ArgFault;
use crate::schema::error_code::ErrorCode;

use super::snapshot::Tree;
use super::uploads::Unpacked;
use super::wait::Waiting;
use super::{Principal, Service, ToolError, random};

/// How long a retry token is remembered, in milliseconds.
const KEY_LASTS: i64 = 24 * 60 * 60 * 1000;
/// How long an identical request counts as the same, in milliseconds.
const SAME_LASTS: i64 = 120 * 1000;
/// Arguments that say how to ask, not what to build.
const ASKING: &[&str] = &["key", "like", "wait", "validate_only", "cancel_previous"];

/// Sources that this server can read.
struct Here {
    tree: Tree,
    /// The upload that they are.
    upload: Option<Unpacked>,
}

impl Service {
    /// Accepts a build, or finds the same one; then waits as long as the request says.
    ///
    /// # Errors
    /// Every fault of the request.
    pub async fn build(
        &self,
        principal: &Principal,
        arguments: Value,
        waiting: &mut Waiting<'_>,
    ) -> Result<BuildStatus, ToolError> {
        self.refuse_unconfigured()?;
        let arguments = self.with_like(principal, arguments).await?;
        let request: BuildRequest =
            serde_json::from_value(arguments.clone()).map_err(ToolError::internal)?;
        let valid = validate(&request, &self.rules(principal)).map_err(ToolError::all)?;
        // The time of the snapshot counts.
        let deadline = self.deadline(request.wait.unwrap_or(0));
        if request.validate_only == Some(true) {
            return self.validate_only(principal, &valid).await;
        }
        let (id, reused) = self.accept(principal, &request, arguments, valid).await?;
        self.cancel_previous(principal, &request, &id).await?;
        let view = self.backend.look(&id).await?;
        let view = self.wait(view, Until::Finished, deadline, waiting).await?;
        let mut status = self.told(principal, &view).await;
        status.reused = reused.then_some(true);
        Ok(status)
    }

    /// The faults of a request that can be found without a look at disk or network.
    pub fn check(&self, principal: &Principal, arguments: Value) -> Vec<ArgFault> {
        if arguments.get("like").is_some() {
            return Vec::new();
        }
        serde_json::from_value::<BuildRequest>(arguments)
            .ok()
            .and_then(|request| validate(&request, &self.rules(principal)).err())
            .unwrap_or_default()
    }

    /// The arguments of an earlier build, overridden by those given.
    async fn with_like(&self, principal: &Principal, arguments: Value) -> Result<Value, ToolError> {
        let Value::Object(given) = arguments else {
            return Err(ToolError::internal("the arguments are no object"));
        };
        let Some(like) = given.get("like").and_then(Value::as_str) else {
            return Ok(Value::Object(given));
        };
        let view = self.find(principal, like).await.map_err(|error| {
            let text = error
                .faults()
                .first()
                .and_then(|fault| fault.suggestion.clone());
            ToolError::not_found("like", "there is no such build", like).suggesting(text)
        })?;
        let mut merged = match self.backend.request(&view.record.id).await? {
            Value::Object(earlier) => earlier,
            _ => Map::new(),
        };
        for (name, value) in given {
            merged.insert(name, value);
        }
        Ok(Value::Object(merged))
    }

    async fn accept(
        &self,
        principal: &Principal,
        request: &BuildRequest,
        arguments: Value,
        valid: Valid,
    ) -> Result<(BuildId, bool), ToolError> {
        let id = BuildId::from_random(random()?);
        self.refuse_flood(principal).await?;
        let mut kept = what_is_built(arguments);
        let staged = match &valid.base {
            Base::Git { .. } => None,
            _ => {
                let here = self.bring_here(principal, &valid).await?;
                // A ticket names it only for a while.
                if let (Some(upload), Some(named)) =
                    (&here.upload, kept.pointer_mut("/source/context"))
                {
                    *named = upload.digest.as_str().into();
                }
                let (staging, name) = (self.backend.staging().to_owned(), id.to_string());
                let stage = move |tree: &Tree| tree.stage(&staging, &name);
                Some(self.work_on(here, stage).await?)
            }
        };
        let (snapshot, digest) = staged.unzip();
        let request_digest = digest_of(&[&kept.to_string(), digest.as_deref().unwrap_or("")]);
        let now = now_ms();
        let (source, shown) = sources(request, &valid, digest.as_deref());
        let scopes = scopes(principal, request, &valid);
        let mut plan = valid.into_plan(id.clone(), source, now / 1000);
        plan.scopes = scopes;
        if matches!(plan.source, PlanSource::Snapshot { .. }) {
            plan.shown_below = plan.snapshot_below().map(str::to_owned);
            plan.subdir = plan.subdir.filter(|_| plan.shown_below.is_none());
        }
        let submission = Submission {
            record: record(
                &id,
                principal,
                request,
                &plan,
                request_digest.clone(),
                shown,
                now,
            ),
            claims: claims(principal, request, &request_digest),
            snapshot,
            request: kept,
            plan,
            config: Some(Arc::clone(&self.config)),
        };
        match self.backend.submit(submission).await? {
            Submitted::Accepted => Ok((id, false)),
            Submitted::Held(other) => {
                let view = self.backend.look(&other).await?;
                if view.record.request_digest != request_digest {
                    return Err(ToolError::one(
                        ArgFault::new(ErrorCode::KeyReused, "key", format!("it belongs to the build {other}, whose request or source was different"))
                            .expecting("a new key for a new request; the same key only to repeat a call"),
                    ));
                }
                Ok((other, true))
            }
        }
    }

    /// The sources of a request that names no repository.
    async fn bring_here(&self, principal: &Principal, valid: &Valid) -> Result<Here, ToolError> {
        let upload = match &valid.base {
            Base::Context(name) => Some(self.unpacked(principal, name).await?),
            _ => None,
        };
        let root = upload.as_ref().map(Unpacked::root);
        Ok(Here {
            tree: Tree::of(valid, &self.config, root.as_deref())?,
            upload,
        })
    }

    /// Does something with sources that blocks, and then removes what was unpacked for it.
    async fn work_on<T: Send + 'static>(
        &self,
        here: Here,
        work: impl FnOnce(&Tree) -> Result<T, ToolError> + Send + 'static,
    ) -> Result<T, ToolError> {
        let Here { tree, upload } = here;
        match upload {
            Some(upload) => {
                let work = move || {
                    let done = work(&tree);
                    upload.remove();
                    done
                };
                self.at_the_disk(work).await?
            }
            None => tokio::task::spawn_blocking(move || work(&tree))
                .await
                .map_err(ToolError::internal)?,
        }
    }

    async fn cancel_previous(
        &self,
        principal: &Principal,
        request: &BuildRequest,
        id: &BuildId,
    ) -> Result<(), ToolError> {
        if request.cancel_previous != Some(true) {
            return Ok(());
        }
        let own = self.backend.look(id).await?.record;
        for view in self.own(principal).await? {
            let record = &view.record;
            let older = (record.submitted, &record.id) < (own.submitted, &own.id);
            if record.name == request.name && older && !view.state().is_final() {
                let mark = CancelMark {
                    by: principal.0.clone(),
                    reason: Some(format!("replaced by {id}")),
                    at: now_ms(),
                };
                self.backend.cancel(&record.id, mark).await?;
            }
        }
        Ok(())
    }

    /// Everything that can be said without building.
    async fn validate_only(
        &self,
        principal: &Principal,
        valid: &Valid,
    ) -> Result<BuildStatus, ToolError> {
        let plan = valid.plan();
        let mut status = PlanStatus {
            tests: plan.tests.iter().map(|test| test.name.clone()).collect(),
            tags: plan.tags.clone(),
            outputs: plan.every_output().collect(),
            not_checked: vec![
                "whether the base images exist and may be fetched".into(),
                "whether COPY and ADD find their sources".into(),
                "whether the tags may be pushed".into(),
            ],
            ..PlanStatus::default()
        };
        if !status.outputs.is_empty() {
            let whether = "whether the image and the tests have what is to be handed over";
            status.not_checked.push(whether.into());
        }
        match &valid.base {
            Base::Git { .. } => status.not_checked.insert(
                0,
                "the repository, its ref, the patch and the Containerfile in it".into(),
            ),
            _ => {
                let here = self.bring_here(principal, valid).await?;
                let wanted = plan.containerfile.clone();
                let read = move |tree: &Tree| containerfile_of(tree, wanted.as_deref());
                let (path, text) = self.work_on(here, read).await?;
                look_into(&text, &path, plan, &mut status)?;
            }
        }
        Ok(BuildStatus {
            build_id: "none".into(),
            state: "valid".into(),
            summary: format!(
                "valid: {} stages, {} base images, {} tests, {} tags; nothing was built",
                status.stages.len(),
                status.bases.len(),
                status.tests.len(),
                status.tags.len()
            ),
            plan: Some(status),
            offers: Some(self.offers(principal)),
            next: Some("build with the same arguments, without validate_only".into()),
            ..BuildStatus::default()
        })
    }
}

/// The Containerfile of a tree that can become a context: its path and its text. Blocks.
fn containerfile_of(tree: &Tree, wanted: Option<&str>) -> Result<(String, String), ToolError> {
    let fault =
        |problem: String| ArgFault::new(ErrorCode::InvalidArgument, "containerfile", problem);
    let snapshot = tree.write(std::io::sink())?;
    let path = tree.containerfile(&snapshot).ok_or_else(|| {
        ToolError::one(
            fault("the source has no such file".into())
                .expecting("the path of the Containerfile below the source")
                .got(wanted.unwrap_or("Containerfile or Dockerfile")),
        )
    })?;
    let text = tree
        .read(&path)
        .map_err(|error| ToolError::one(fault(format!("it cannot be read: {}", error.kind()))))?;
    Ok((path, text))
}

fn look_into(
    text: &str,
    path: &str,
    plan: &Plan,
    status: &mut PlanStatus,
) -> Result<(), ToolError> {
    let faults = |faults: Vec<crate::containerfile::Fault>| {
        ToolError::all(
            faults
                .iter()
                .map(|fault| {
                    let (argument, expected) = match fault.kind {
                        FaultKind::MissingBuildArg => ("build_args", "NAME=VALUE of that ARG"),
                        _ => ("containerfile", "a Containerfile that Buildah can read"),
                    };
                    let problem = format!("line {}: {}", fault.line, fault.message);
                    ArgFault::new(ErrorCode::InvalidArgument, argument, problem).expecting(expected)
                })
                .collect(),
        )
    };
    let parsed = Containerfile::parse_for(
        text,
        plan.target.as_deref(),
        &plan.build_args,
        &plan.build_contexts,
    )
    .map_err(faults)?;
    let stages = parsed
        .plan(plan.target.as_deref(), &plan.build_args)
        .map_err(|unknown| {
            ToolError::one(ArgFault::new(
                ErrorCode::InvalidArgument,
                "target",
                unknown.to_string(),
            ))
        })?;
    for stage in stages {
        status.stages.push(PlanStage {
            name: stage
                .name
                .clone()
                .unwrap_or_else(|| stage.index.to_string()),
            base: stage.base.clone(),
            steps: u32::try_from(stage.steps.len()).unwrap_or(u32::MAX),
            line: stage.line,
        });
    }
    for test in &plan.tests {
        if let Some(stage) = &test.stage {
            parsed
                .plan(Some(stage), &plan.build_args)
                .map_err(|unknown| {
                    ToolError::one(ArgFault::new(
                        ErrorCode::InvalidArgument,
                        format!("tests: {}", test.name),
                        unknown.to_string(),
                    ))
                })?;
        }
    }
    let images = parsed
        .images(&plan.build_args, plan.target.as_deref())
        .map_err(faults)?;
    status.bases = images.into_iter().map(|image| image.reference).collect();
    if let Some(secret) = missing_secret(&parsed, plan) {
        let problem = format!(
            "{path} line {} requires the secret {}",
            secret.line, secret.id
        );
        return Err(ToolError::one(
            ArgFault::new(ErrorCode::InvalidArgument, "secrets", problem)
                .expecting("its name in secrets"),
        ));
    }
    Ok(())
}

/// The arguments that say what is built, as they are kept for `like` and compared for `key`.
fn what_is_built(arguments: Value) -> Value {
    match arguments {
        Value::Object(mut map) => {
            map.retain(|name, _| !ASKING.contains(&name.as_str()));
            map.sort_keys();
            Value::Object(map)
        }
        other => other,
    }
}

fn digest_of(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(hash.finalize())
}

fn claims(principal: &Principal, request: &BuildRequest, request_digest: &str) -> Vec<Claim> {
    let same = Claim {
        name: digest_of(&["same", &principal.0, request_digest]),
        lasts: SAME_LASTS,
        unfinished_only: true,
    };
    match &request.key {
        Some(key) => vec![
            Claim {
                name: digest_of(&["key", &principal.0, key]),
                lasts: KEY_LASTS,
                unfinished_only: false,
            },
            same,
        ],
        None => vec![same],
    }
}

fn sources(
    request: &BuildRequest,
    valid: &Valid,
    digest: Option<&str>,
) -> (PlanSource, SourceStatus) {
    let asked = request.source.clone().unwrap_or_default();
    let shown = SourceStatus {
        git: asked.git.filter(|_| matches!(valid.base, Base::Git { .. })),
        git_ref: asked.git_ref,
        commit: None,
        path: asked.path,
        subdir: asked.subdir,
        digest: digest.map(str::to_owned),
    };
    let source = match &valid.base {
        Base::Git {
            url,
            git_ref,
            patch,
        } => PlanSource::Git {
            url: url.clone(),
            git_ref: git_ref.clone(),
            patch: patch.clone(),
            files: valid.files.clone(),
        },
        base => PlanSource::Snapshot {
            digest: digest.unwrap_or_default().to_owned(),
            origin: match base {
                Base::Path(_) => "path",
                Base::Context(_) => "context",
                _ => "files",
            }
            .into(),
        },
    };
    (source, shown)
}

/// What the build may reuse of earlier ones.
fn scopes(principal: &Principal, request: &BuildRequest, valid: &Valid) -> Scopes {
    match &valid.base {
        Base::Git {
            url,
            git_ref,
            patch,
        } => {
            let committed = patch.is_none() && valid.files.is_empty();
            Scopes::of_git(&principal.0, url, git_ref.as_deref(), committed)
        }
        Base::Path(path) => Scopes::of_path(&principal.0, path),
        Base::Context(_) | Base::Files => Scopes::of_files(&principal.0, request.name.as_deref()),
    }
}

fn record(
    id: &BuildId,
    principal: &Principal,
    request: &BuildRequest,
    plan: &Plan,
    request_digest: String,
    source: SourceStatus,
    now: i64,
) -> Record {
    Record {
        v: RECORD_VERSION,
        id: id.clone(),
        principal: principal.0.clone(),
        name: request.name.clone(),
        profile: plan.profile.clone(),
        request_digest,
        source,
        tags: plan.tags.clone(),
        tests: plan.tests.iter().map(|test| test.name.clone()).collect(),
        timeout: plan.timeout,
        queue_timeout: plan.queue_timeout,
        submitted: now,
        starts: 0,
        began: None,
        cancel: None,
        commit: None,
        end: None,
    }
}
