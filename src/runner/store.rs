//! What lies in a store of images and layers: the files are those of containers/storage (images.go
//! `Image`, layers.go `Layer`).

use std::io;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::workdir::read_untrusted;

/// The list of images, below a store.
pub const INDEX: &str = "overlay-images/images.json";
/// Bytes of a list at most.
pub(super) const MAX_LIST: u64 = 64 << 20;
/// Hexadecimal digits of the id of an image or a layer.
pub(super) const ID_DIGITS: usize = 64;

/// An image in a store, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StoredImage {
    /// Its id: the digest of its configuration, without `sha256:`.
    pub id: String,
    /// References that stand for it.
    #[serde(default)]
    pub names: Option<Vec<String>>,
    /// Its uppermost layer.
    #[serde(default)]
    pub layer: String,
    /// The same layer with other owners.
    #[serde(default)]
    pub mapped_layers: Option<Vec<String>>,
}

impl StoredImage {
    /// Whether it is known by this reference or id.
    pub fn is(&self, name: &str) -> bool {
        self.id == name || self.names.iter().flatten().any(|one| one == name)
    }
}

/// A layer in a store, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StoredLayer {
    /// Its id.
    pub id: String,
    /// What it lies on.
    #[serde(default)]
    pub parent: Option<String>,
}

/// What a list has; nothing when it is not there or damaged, which Buildah will tell in its own words.
///
/// # Errors
/// When it cannot be read.
pub fn list<T: DeserializeOwned>(file: &Path) -> io::Result<Vec<T>> {
    match read_untrusted(file, MAX_LIST) {
        Ok(text) => Ok(serde_json::from_slice::<Option<Vec<T>>>(&text)
            .ok()
            .flatten()
            .unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The images in a store; none when it cannot be read.
pub fn images_in(store: &Path) -> Vec<StoredImage> {
    list(&store.join(INDEX)).unwrap_or_default()
}

/// The image that a reference stands for in a store.
pub fn image_named(store: &Path, name: &str) -> Option<StoredImage> {
    images_in(store)
        .into_iter()
        .find(|image| image.names.iter().flatten().any(|one| one == name))
}

/// Whether this is the id of an image or a layer.
pub fn is_id(name: &str) -> bool {
    name.len() == ID_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
