//! Named build contexts: what stands for a name in `FROM`, `COPY --from` and `--mount=from`.

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
