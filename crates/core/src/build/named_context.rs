//! Named build contexts: what stands for a name in `FROM`, `COPY --from` and `--mount=from`.

use super::clean;
use super::reference::Reference;

/// Characters of a name at most.
const LONGEST: usize = 256;
/// What an image begins with, where a context is one (`docker buildx build --build-context`).
const IMAGE: &str = "docker-image://";

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedContext<'a> {
    /// A directory below the root of the source.
    Directory(&'a str),
    /// The reference of an image.
    Image(&'a str),
}

impl<'a> NamedContext<'a> {
    /// Reads what stands behind `NAME=`.
    pub fn of(value: &'a str) -> Self {
        match value.strip_prefix(IMAGE) {
            Some(image) => Self::Image(image),
            None => Self::Directory(value),
        }
    }

    /// The context of that name.
    pub fn find(contexts: &'a [(String, String)], name: &str) -> Option<Self> {
        let (_, value) = contexts.iter().find(|(given, _)| given == name)?;
        Some(Self::of(value))
    }
}

/// What a plan has for `NAME=VALUE`: directories without needless parts.
///
/// # Errors
/// What is wrong with either, without the value.
pub fn check(name: &str, value: &str) -> Result<String, String> {
    if !is_name(name) {
        return Err(
            "the name is of letters, digits and . _ / : @ -, begins with a letter or digit, and is neither a number nor scratch"
                .into(),
        );
    }
    match NamedContext::of(value) {
        NamedContext::Image(image) => Reference::parse(image)
            .map(|_| value.to_owned())
            .map_err(|error| format!("no image stands behind {IMAGE}: {error}")),
        NamedContext::Directory("") => Err("nothing stands behind the name".into()),
        NamedContext::Directory(path) if path.contains("://") => {
            Err("a named context is a directory of the source or an image, nothing else".into())
        }
        NamedContext::Directory(path) if is_below(path) => Ok(plain(path)),
        NamedContext::Directory(_) => Err(
            "it leads out of the source, or has characters that a path here must not have".into(),
        ),
    }
}

/// Whether it can stand behind `FROM`, and means no stage by its number.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._/:@-".contains(&byte);
    name.len() <= LONGEST
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(fits)
        && !name.bytes().all(|byte| byte.is_ascii_digit())
        && name != "scratch"
}

/// Whether a path stays, by its text, below the directory that it starts from.
pub fn is_below(path: &str) -> bool {
    !path.starts_with(['/', '-'])
        && !path.split('/').any(|part| part == "..")
        && path.chars().all(clean::is_harmless)
}

/// A relative path without empty parts and dots; nothing for the directory that it starts from.
pub fn plain(path: &str) -> String {
    let parts = path.split('/');
    let parts: Vec<&str> = parts.filter(|part| !matches!(*part, "" | ".")).collect();
    parts.join("/")
}
