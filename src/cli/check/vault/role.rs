//! Roles of the auth method, and who can take them. Does no I/O.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A role, as Vault and OpenBao tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Role {
    /// `jwt`, or `oidc` for people.
    pub role_type: String,
    /// Audiences, one of which an identity must have.
    #[serde(deserialize_with = "words")]
    pub bound_audiences: Vec<String>,
    /// The subject that an identity must have, if any.
    pub bound_subject: String,
    /// What an identity must claim: name → one of these values.
    #[serde(deserialize_with = "claims")]
    pub bound_claims: BTreeMap<String, Vec<String>>,
    /// Whether `*` in them stands for anything: `glob`.
    pub bound_claims_type: String,
    /// Policies of its tokens.
    #[serde(deserialize_with = "words")]
    pub token_policies: Vec<String>,
    /// Whether they do without the policy `default`.
    pub token_no_default_policy: bool,
}

fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A value is one or a list, and need not be text.
fn claims<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Vec<String>>, D::Error> {
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let claims: BTreeMap<String, Value> = Option::deserialize(deserializer)?.unwrap_or_default();
    let list = |(name, value)| match value {
        Value::Array(values) => (name, values.into_iter().map(text).collect()),
        value => (name, vec![text(value)]),
    };
    Ok(claims.into_iter().map(list).collect())
}

/// A task of Nomad, as its identity claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// `nomad_namespace`.
    pub namespace: String,
    /// `nomad_job_id`: of a dispatched job its parent's.
    pub job: String,
    /// `nomad_task`.
    pub name: String,
}

/// What a role wants one claim to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// Anything.
    No,
    /// One of these.
    To(Vec<String>),
    /// Like one of these, whose `*` stand for anything.
    Like(Vec<String>),
}

/// Who can take a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Takers {
    /// Namespaces.
    pub namespace: Bound,
    /// Jobs.
    pub job: Bound,
    /// Tasks.
    pub task: Bound,
}

impl Role {
    /// See [`Takers`].
    pub fn takers(&self) -> Takers {
        let of = |claim: &str, part: usize| self.bound(claim, part);
        Takers {
            namespace: of("nomad_namespace", 1),
            job: of("nomad_job_id", 2),
            task: of("nomad_task", 4),
        }
    }

    /// The policies of its tokens, with `default` where they have that.
    pub fn policies(&self) -> Vec<&str> {
        let mut policies: Vec<&str> = self.token_policies.iter().map(String::as_str).collect();
        if !self.token_no_default_policy && !policies.contains(&"default") {
            policies.push("default");
        }
        policies
    }

    fn bound(&self, claim: &str, part: usize) -> Bound {
        let claims = &self.bound_claims;
        // A name that begins with a slash is a JSON pointer.
        let values = claims
            .get(claim)
            .or_else(|| claims.get(&format!("/{claim}")));
        let values = values.filter(|values| !values.is_empty());
        match values {
            Some(values)
                if self.bound_claims_type == "glob"
                    && values.iter().any(|value| is_glob(value)) =>
            {
                Bound::Like(values.clone())
            }
            Some(values) => Bound::To(values.clone()),
            // REGION:NAMESPACE:JOB:GROUP:TASK:IDENTITY
            None => match self.bound_subject.split(':').nth(part) {
                Some(value) => Bound::To(vec![value.into()]),
                None => Bound::No,
            },
        }
    }
}

fn is_glob(value: &str) -> bool {
    value.contains('*')
}

/// Whether `*`s in the pattern can be filled so that it is the text.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(text) = text.strip_prefix(begin) else {
        return false;
    };
    let starts = (0..=text.len()).filter_map(|at| text.get(at..));
    starts.into_iter().any(|text| is_like(rest, text))
}

impl Bound {
    /// Whether a claim of this value is enough.
    pub fn admits(&self, value: &str) -> bool {
        match self {
            Self::No => true,
            Self::To(values) => values.iter().any(|one| one == value),
            Self::Like(patterns) => patterns.iter().any(|pattern| is_like(pattern, value)),
        }
    }

    /// Why a claim of another value than this one is enough, too, if so.
    pub fn too_wide(&self, claim: &str, value: &str) -> Option<String> {
        match self {
            Self::No => Some(format!("{claim} is not bound")),
            Self::Like(patterns) => Some(format!(
                "{claim} is bound by the pattern `{}`",
                patterns.join("`, `")
            )),
            Self::To(values) => {
                let others: Vec<&str> = values
                    .iter()
                    .map(String::as_str)
                    .filter(|one| *one != value)
                    .collect();
                (!others.is_empty()).then(|| format!("{claim} is bound to {}", others.join(", ")))
            }
        }
    }

    fn is_no(&self) -> bool {
        *self == Self::No
    }

    fn phrase(&self, one: &str, any: &str) -> String {
        match self {
            Self::No => any.to_owned(),
            Self::To(values) => format!("{one} {}", values.join(" or ")),
            Self::Like(patterns) => format!("any {one} like {}", patterns.join(" or ")),
        }
    }
}

impl Takers {
    /// Whether this task can take it.
    pub fn admit(&self, task: &Task) -> bool {
        self.namespace.admits(&task.namespace)
            && self.job.admits(&task.job)
            && self.task.admits(&task.name)
    }

    /// Whether this task can take it and nobody else.
    pub fn admit_only(&self, task: &Task) -> bool {
        self.admit(task) && self.too_wide(task).is_empty()
    }

    /// Why others than this task can take it; nothing where they cannot.
    pub fn too_wide(&self, task: &Task) -> Vec<String> {
        [
            self.namespace.too_wide("nomad_namespace", &task.namespace),
            self.job.too_wide("nomad_job_id", &task.job),
            self.task.too_wide("nomad_task", &task.name),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Whether jobs can take it that it does not name.
    pub fn are_any_jobs(&self) -> bool {
        matches!(self.job, Bound::No | Bound::Like(_))
    }

    /// In words: "task publish of any job of the namespace builds".
    pub fn phrase(&self) -> String {
        let namespace = match &self.namespace {
            Bound::No => "any namespace".to_owned(),
            bound => {
                let phrase = bound.phrase("namespace", "");
                if matches!(bound, Bound::To(_)) {
                    format!("the {phrase}")
                } else {
                    phrase
                }
            }
        };
        let job = self.job.phrase("job", "any job");
        if self.task.is_no() && self.job.is_no() {
            return format!("{job} of {namespace}");
        }
        format!(
            "{} of {job} of {namespace}",
            self.task.phrase("task", "any task")
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(value: Value) -> Role {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_role_is_read_as_vault_tells_it() {
        assert_eq!(
            role(json!({"bound_claims": null, "bound_audiences": null})),
            Role::default()
        );
        let read = role(json!({
            "bound_claims": {"nomad_job_id": ["a", "b"], "nomad_task": "t", "n": 1}, "more": {},
            "token_policies": ["p"], "token_no_default_policy": true,
        }));
        assert_eq!(read.bound_claims.get("n").unwrap(), &["1"]);
        assert_eq!(read.takers().job, Bound::To(vec!["a".into(), "b".into()]));
        assert_eq!(read.policies(), ["p"]);
        assert_eq!(Role::default().policies(), ["default"]);
    }

    #[test]
    fn takers_are_told_in_words() {
        let claims = |names: &[&str], values: Value| {
            let all = values.as_object().unwrap().clone();
            let some = all
                .into_iter()
                .filter(|(name, _)| names.contains(&name.as_str()));
            json!({"bound_claims": some.collect::<serde_json::Map<_, _>>()})
        };
        let all = json!({"nomad_namespace": "builds", "nomad_job_id": "nb-default", "nomad_task": "publish"});
        for (names, phrase) in [
            (
                &["nomad_namespace", "nomad_job_id", "nomad_task"][..],
                "task publish of job nb-default of the namespace builds",
            ),
            (&["nomad_namespace"], "any job of the namespace builds"),
            (
                &["nomad_namespace", "nomad_task"],
                "task publish of any job of the namespace builds",
            ),
            (
                &["nomad_namespace", "nomad_job_id"],
                "any task of job nb-default of the namespace builds",
            ),
            (
                &["nomad_job_id", "nomad_task"],
                "task publish of job nb-default of any namespace",
            ),
            (&[], "any job of any namespace"),
        ] {
            assert_eq!(role(claims(names, all.clone())).takers().phrase(), phrase);
        }
        let glob = role(json!({"bound_claims_type": "glob", "bound_claims":
            {"nomad_namespace": "b*", "nomad_job_id": ["nb-*", "x"], "nomad_task": "publish"}}));
        assert_eq!(
            glob.takers().phrase(),
            "task publish of any job like nb-* or x of any namespace like b*"
        );
    }

    #[test]
    fn who_is_admitted() {
        let task = Task {
            namespace: "builds".into(),
            job: "nb-default".into(),
            name: "publish".into(),
        };
        let takers = |value| role(value).takers();
        let exact = json!({"nomad_namespace": "builds", "/nomad_job_id": "nb-default", "nomad_task": "publish"});
        assert!(
            takers(json!({"bound_claims": exact, "bound_claims_type": "glob"})).admit_only(&task)
        );
        let subject =
            json!({"bound_subject": "global:builds:nb-default:build:publish:vault_default"});
        assert!(takers(subject).admit_only(&task));
        assert!(takers(json!({})).admit(&task));
        assert_eq!(takers(json!({})).too_wide(&task).len(), 3);
        let star = json!({"nomad_job_id": "nb-*"});
        assert!(
            !takers(json!({"bound_claims": star})).admit(&task),
            "no pattern"
        );
        assert!(takers(json!({"bound_claims": star, "bound_claims_type": "glob"})).admit(&task));
        let other = json!({"nomad_job_id": ["nb-other", "nb-default"]});
        let other = takers(json!({"bound_claims": other}));
        assert!(other.admit(&task) && !other.admit_only(&task));
        assert!(
            other
                .too_wide(&task)
                .contains(&"nomad_job_id is bound to nb-other".into())
        );
    }

    #[test]
    fn stars_are_filled() {
        for (pattern, text, like) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abd", false),
            ("*b*", "abc", true),
            ("ä*", "äß", true),
        ] {
            assert_eq!(is_like(pattern, text), like, "{pattern} {text}");
        }
    }
}
