//! The build arguments and variables in force at a place of the file.

use super::expand::{self, ExpandError, Expanded, Fuel};
use super::{Containerfile, Keyword, Step};
use std::collections::{HashMap, HashSet};

type Values = HashMap<String, String>;

/// What `FROM` and the stages see: `ARG`s before the first `FROM`, build arguments, and the
/// platform arguments every Buildah knows.
pub(super) struct Globals<'a> {
    /// Values of the `ARG`s before the first `FROM`.
    heading: Values,
    given: HashMap<&'a str, &'a str>,
    /// Names declared by any `ARG` of the file.
    declared: HashSet<&'a str>,
    builtin: Values,
    /// `ARG`s before the first `FROM` that cannot be expanded, with their lines.
    pub errors: Vec<(u32, ExpandError)>,
}

impl<'a> Globals<'a> {
    pub fn new(
        file: &'a Containerfile,
        build_args: &'a [(String, String)],
        fuel: &mut Fuel,
    ) -> Self {
        let given: HashMap<&str, &str> = build_args
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let in_stages = file.stages.iter().flat_map(|stage| &stage.steps);
        let in_stages = in_stages
            .filter(|step| step.keyword == Keyword::Arg)
            .flat_map(|step| &step.args)
            .map(|arg| arg.split_once('=').map_or(arg.as_str(), |(name, _)| name));
        let mut globals = Self {
            declared: file
                .args
                .iter()
                .map(|arg| arg.name.as_str())
                .chain(in_stages)
                .collect(),
            builtin: builtin(given.get("TARGETPLATFORM").copied()),
            heading: Values::new(),
            given,
            errors: Vec::new(),
        };
        for arg in &file.args {
            if let Err(error) = globals.declare(arg, fuel) {
                globals.errors.push((arg.line, error));
            }
        }
        globals
    }

    fn declare(&mut self, arg: &super::GlobalArg, fuel: &mut Fuel) -> Result<(), ExpandError> {
        let value = match (&arg.default, self.given.get(arg.name.as_str())) {
            (_, Some(given)) => {
                fuel.burn(given.len())?;
                (*given).to_owned()
            }
            (Some(default), None) => self.expand_heading(default, fuel)?,
            (None, None) => return Ok(()),
        };
        self.heading.insert(arg.name.clone(), value);
        Ok(())
    }

    fn expand_heading(&self, word: &str, fuel: &mut Fuel) -> Result<String, ExpandError> {
        let lookup = |name: &str| self.builtin.get(name).or_else(|| self.heading.get(name));
        let lookup = |name: &str| lookup(name).map(String::as_str);
        expand::expand(word, &lookup, fuel).map(|expanded| expanded.text)
    }

    /// Expands a word of a `FROM`.
    pub fn expand(&self, word: &str, fuel: &mut Fuel) -> Result<Expanded, ExpandError> {
        expand::expand(word, &|name| self.get(name), fuel)
    }

    fn get(&self, name: &str) -> Option<&str> {
        let given = self
            .given
            .get(name)
            .filter(|_| self.declared.contains(name));
        given
            .copied()
            .or_else(|| self.builtin.get(name).map(String::as_str))
            .or_else(|| self.heading.get(name).map(String::as_str))
    }

    /// Whether an `ARG` before the first `FROM` declares the name.
    pub fn declares(&self, file: &Containerfile, name: &str) -> bool {
        self.builtin.contains_key(name) || file.args.iter().any(|arg| arg.name == name)
    }
}

/// The platform arguments: those of this machine, or of the platform asked for.
fn builtin(target: Option<&str>) -> Values {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    };
    let host = format!("linux/{arch}");
    let mut values = Values::new();
    for (prefix, platform) in [
        ("BUILD", host.as_str()),
        ("TARGET", target.unwrap_or(&host)),
    ] {
        let mut parts = platform.splitn(3, '/');
        values.insert(format!("{prefix}PLATFORM"), platform.to_owned());
        for name in ["OS", "ARCH", "VARIANT"] {
            let part = parts.next().unwrap_or_default();
            values.insert(format!("{prefix}{name}"), part.to_owned());
        }
    }
    values
}

/// What the steps of a stage see. The base image's variables are not known here.
#[derive(Clone, Default)]
pub(super) struct Local {
    args: Values,
    env: Values,
}

impl Local {
    /// What a stage built from the stage of this scope starts with. Buildah 1.43 passes `ARG`s on.
    pub fn inherit(&self, fuel: &mut Fuel) -> Result<Self, ExpandError> {
        let sizes = self.args.iter().chain(&self.env);
        fuel.burn(
            sizes
                .map(|(name, value)| name.len() + value.len() + 1)
                .sum(),
        )?;
        Ok(self.clone())
    }

    /// Takes in an `ARG` or `ENV`. What cannot be expanded may depend on the base image: it is
    /// left without a value.
    pub fn apply(&mut self, step: &Step, globals: &Globals<'_>, fuel: &mut Fuel) {
        match step.keyword {
            Keyword::Arg => {
                for word in &step.args {
                    if let Ok(word) = self.expand(word, fuel) {
                        self.declare(&word.text, globals, fuel);
                    }
                }
            }
            Keyword::Env => {
                let mut new = Vec::with_capacity(step.args.len() / 2);
                for pair in step.args.chunks_exact(2) {
                    let [name, value] = pair else { continue };
                    let name = self.expand(name, fuel);
                    if let (Ok(name), Ok(value)) = (name, self.expand(value, fuel)) {
                        new.push((name.text, value.text));
                    }
                }
                self.env.extend(new);
            }
            _ => {}
        }
    }

    fn declare(&mut self, word: &str, globals: &Globals<'_>, fuel: &mut Fuel) {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, Some(default)),
            None => (word, None),
        };
        let value = globals
            .given
            .get(name)
            .copied()
            .or_else(|| globals.builtin.get(name).map(String::as_str))
            .or(default)
            .or_else(|| globals.heading.get(name).map(String::as_str));
        if let Some(value) = value.filter(|value| fuel.burn(value.len()).is_ok()) {
            self.args.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Expands with variables and arguments.
    pub fn expand(&self, word: &str, fuel: &mut Fuel) -> Result<Expanded, ExpandError> {
        let lookup = |name: &str| self.env.get(name).or_else(|| self.args.get(name));
        expand::expand(word, &|name| lookup(name).map(String::as_str), fuel)
    }

    /// Expands with arguments only, as Buildah does for `COPY --from`.
    pub fn expand_args(&self, word: &str, fuel: &mut Fuel) -> Result<Expanded, ExpandError> {
        expand::expand(word, &|name| self.args.get(name).map(String::as_str), fuel)
    }
}
