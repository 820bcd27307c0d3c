//! What a build hands over besides its image: what may be asked for, what became of it, and what it is called.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The word that asks for the image itself.
pub const IMAGE: &str = "image";
/// Most outputs of one build.
pub const MAX_OUTPUTS: usize = 32;
/// Name of the image's archive.
pub const IMAGE_FILE: &str = "image.tar";

/// Why a path cannot be asked for; `None`: it can. It must be absolute, without `.` and `..`, at most 1024 bytes
/// of harmless characters, and name something below the root.
pub fn path_fault(path: &str) -> Option<&'static str> {
    let mut parts = path.split('/');
    match () {
        () if parts.next() != Some("") => Some("it is not absolute"),
        () if path.len() > 1024 => Some("it is longer than 1024 bytes"),
        () if !path.chars().all(super::clean::is_harmless) => {
            Some("it has characters that a path here must not have")
        }
        () if path.split('/').any(|part| matches!(part, "." | "..")) => {
            Some("it has . or .. in it")
        }
        () if path.bytes().all(|byte| byte == b'/') => Some("it is the root of the whole image"),
        () => None,
    }
}

/// What an output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputKind {
    /// One file, as it is.
    File,
    /// A directory, as a tar archive.
    Directory,
    /// The image, as an OCI archive.
    Image,
}

/// An output that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputStatus {
    /// What was asked for: a path, or image.
    pub from: String,
    /// The test that left it; absent: it is of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// Its name among the outputs of the build.
    pub name: String,
    /// file, directory (as a tar archive) or image (as an OCI archive); absent where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<OutputKind>,
    /// Size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Digest of its bytes, sha256:….
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// It is an executable file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<bool>,
    /// The file, where the caller can read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Its URI as a resource, once it can be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

impl OutputStatus {
    /// One of which nothing is there yet.
    pub fn of(from: &str, test: Option<&str>, name: String) -> Self {
        Self {
            from: from.to_owned(),
            test: test.map(str::to_owned),
            name,
            ..Self::default()
        }
    }

    /// Of which there is nothing, for this reason.
    pub fn lose(&mut self, why: &str) {
        self.digest = None;
        self.missing = Some(why.to_owned());
    }

    /// Whether there is something, or was when it was told.
    pub fn is_there(&self) -> bool {
        self.digest.is_some()
    }

    /// Whether both were asked for with the same words.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.from, &self.test) == (&other.from, &other.test)
    }

    /// Its media type (RFC 6838), as far as it is known from the kind.
    pub fn media_type(&self) -> &'static str {
        match self.kind {
            Some(OutputKind::Directory | OutputKind::Image) => "application/x-tar",
            Some(OutputKind::File) | None => "application/octet-stream",
        }
    }
}

/// A name that none of `taken` has: the last part of the path, of plain characters, with the name of the test or
/// a number where that is not enough.
pub fn file_name(from: &str, test: Option<&str>, kind: OutputKind, taken: &[&str]) -> String {
    let plain = |c: char| match c {
        c if c.is_ascii_alphanumeric() || "._-+".contains(c) => c,
        _ => '_',
    };
    let last = from.rsplit('/').find(|part| !part.is_empty());
    let base: String = match kind {
        OutputKind::Image => IMAGE_FILE.to_owned(),
        OutputKind::File | OutputKind::Directory => last
            .unwrap_or(IMAGE)
            .trim_start_matches('.')
            .chars()
            .map(plain)
            .take(100)
            .collect(),
    };
    let base = match (base.is_empty(), kind) {
        (true, _) => "output".to_owned(),
        (false, OutputKind::Directory) => format!("{base}.tar"),
        (false, _) => base,
    };
    let of_test = test.map(|test| format!("{test}-{base}"));
    let numbered = (2..).map(|number| format!("{number}-{base}"));
    std::iter::once(base.clone())
        .chain(of_test)
        .chain(numbered)
        .find(|name| !taken.contains(&name.as_str()) && !name.starts_with('.'))
        .unwrap_or(base)
}

/// Whether a text can be the name of an output.
pub fn is_file_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    !text.is_empty() && text.len() <= 255 && !text.starts_with('.') && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_may_be_asked_for() {
        for path in ["/app", "/usr/local/bin/app", "/out/", "/a b"] {
            assert_eq!(path_fault(path), None, "{path}");
        }
        for path in [
            "", "app", "/", "//", "/../etc", "/a/./b", "/a\nb", "image/x",
        ] {
            assert!(path_fault(path).is_some(), "{path}");
        }
        assert!(path_fault(&format!("/{}", "a".repeat(1024))).is_some());
    }

    #[test]
    fn names_are_short_and_each_is_there_once() {
        use OutputKind::{Directory, File, Image};
        assert_eq!(file_name("/out/app", None, File, &[]), "app");
        assert_eq!(file_name("/out/", None, Directory, &[]), "out.tar");
        assert_eq!(file_name("image", None, Image, &[]), "image.tar");
        assert_eq!(file_name("/o/.hidden", None, File, &[]), "hidden");
        assert_eq!(file_name("/...", None, File, &[]), "output");
        assert_eq!(
            file_name("/r.xml", Some("unit"), File, &["r.xml"]),
            "unit-r.xml"
        );
        assert_eq!(file_name("/b/app", None, File, &["app", "2-app"]), "3-app");
    }

    proptest! {
        #[test]
        fn every_name_can_be_asked_for(from in "/.{0,40}", taken in prop::collection::vec("[a-z.]{0,6}", 0..4)) {
            let taken: Vec<&str> = taken.iter().map(String::as_str).collect();
            for kind in [OutputKind::File, OutputKind::Directory, OutputKind::Image] {
                let name = file_name(&from, None, kind, &taken);
                prop_assert!(is_file_name(&name), "{name}");
                prop_assert!(!taken.contains(&name.as_str()));
            }
        }
    }
}
