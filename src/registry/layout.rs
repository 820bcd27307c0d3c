//! An OCI image layout on disk with exactly one image in it, as `buildah push IMAGE oci:DIR:name`
//! writes it.
//!
//! The directory may be written by somebody less trusted, so nothing in it is followed or believed:
//! every file is opened below a directory handle without following links, must be a regular file,
//! and must have the size and digest that named it. Bytes that change afterwards can't be published
//! either: the registry hashes what it gets, and each upload names the digest.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use serde::Deserialize;

use super::manifest::{DOCKER_MANIFEST, MAX_MANIFEST, Manifest, OCI_MANIFEST};
use crate::build::digest::{Digest, Hashing};

/// Most layers an image may have.
pub const MAX_LAYERS: usize = 1000;

/// What the file `oci-layout` says.
pub(super) const LAYOUT_FILE: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// Media type of `index.json`.
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Why a directory isn't a layout that can be published. `file` is a path within it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    #[error("can't read {file} of the image layout: {source}")]
    Io {
        file: String,
        source: std::io::Error,
    },
    #[error("{file} of the image layout isn't a regular file")]
    NotAFile { file: String },
    #[error("{file} of the image layout has more than {limit} bytes")]
    TooLarge { file: String, limit: u64 },
    #[error(
        "{file} of the image layout isn't the JSON it should be (line {line}, column {column})"
    )]
    Json {
        file: String,
        line: usize,
        column: usize,
    },
    #[error("image layout version isn't 1.0.0")]
    Version,
    #[error("the image layout names {0} manifests; it must name exactly one")]
    ManifestCount(usize),
    #[error("the image layout's manifest isn't of a known image manifest type")]
    MediaType,
    #[error("the image has {0} layers; at most {MAX_LAYERS} are allowed")]
    Layers(usize),
    #[error("{digest} has {found} bytes in the image layout, but {expected} were declared")]
    Size {
        digest: Digest,
        expected: u64,
        found: u64,
    },
    #[error("the image layout's file {expected} has the digest {found}")]
    Digest { expected: Digest, found: Digest },
    #[error("the image has more than {limit} bytes")]
    ImageTooLarge { limit: u64 },
}

/// A verified image layout.
#[derive(Debug)]
pub struct Layout {
    blobs_dir: OwnedFd,
    manifest: Manifest,
    config: Digest,
    blobs: Vec<Blob>,
    total: u64,
}

/// A blob of the image, of `size` bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Blob {
    pub digest: Digest,
    pub size: u64,
}

#[derive(Deserialize)]
struct LayoutFile {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "mediaType")]
    media_type: String,
    #[serde(flatten)]
    blob: Blob,
}

#[derive(Deserialize)]
struct ManifestJson {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    config: Blob,
    layers: Vec<Blob>,
}

impl Layout {
    /// Opens the layout in `dir` and verifies every byte of the image, at most `max_bytes`.
    ///
    /// Blocks for as long as hashing takes; in async code call it by `spawn_blocking`.
    pub fn open(dir: &Path, max_bytes: u64) -> Result<Self, LayoutError> {
        let root = open_dir(rustix::fs::CWD, dir, ".")?;
        let marker: LayoutFile = read_json(&root, "oci-layout")?;
        if marker.version != "1.0.0" {
            return Err(LayoutError::Version);
        }
        let index: Index = read_json(&root, "index.json")?;
        let [entry] = index.manifests.as_slice() else {
            return Err(LayoutError::ManifestCount(index.manifests.len()));
        };
        let media_type = [OCI_MANIFEST, DOCKER_MANIFEST]
            .into_iter()
            .find(|known| *known == entry.media_type)
            .ok_or(LayoutError::MediaType)?;

        let blobs = open_dir(&root, "blobs", "blobs")?;
        let blobs_dir = open_dir(&blobs, "sha256", "blobs/sha256")?;
        let named = &entry.blob;
        let name = blob_file(&named.digest);
        let bytes = read_small(&blobs_dir, named.digest.hex(), &name)?;
        check_size(named, bytes.len() as u64)?;
        let manifest = Manifest::new(bytes, media_type);
        check_digest(named, manifest.digest().clone())?;

        let json: ManifestJson = parse(manifest.bytes(), &name)?;
        if json.media_type.is_some_and(|own| own != media_type) {
            return Err(LayoutError::MediaType);
        }
        if json.layers.len() > MAX_LAYERS {
            return Err(LayoutError::Layers(json.layers.len()));
        }
        let config = json.config.digest.clone();
        let mut blobs: Vec<Blob> = Vec::with_capacity(json.layers.len() + 1);
        for blob in json.layers.into_iter().chain([json.config]) {
            // The same layer may stand several times; a second size for it fails below.
            if !blobs.contains(&blob) {
                blobs.push(blob);
            }
        }
        let sizes = blobs.iter().chain([named]).map(|blob| blob.size);
        let total = sizes.fold(0, u64::saturating_add);
        if total > max_bytes {
            return Err(LayoutError::ImageTooLarge { limit: max_bytes });
        }
        let layout = Self {
            blobs_dir,
            manifest,
            config,
            blobs,
            total,
        };
        layout.blobs.iter().try_for_each(|b| layout.verify(b))?;
        Ok(layout)
    }

    /// The manifest, to be published as it is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn manifest_digest(&self) -> &Digest {
        self.manifest.digest()
    }

    /// The config's digest, which is the image's id.
    pub fn config_digest(&self) -> &Digest {
        &self.config
    }

    /// The manifest's media type.
    pub fn media_type(&self) -> &str {
        self.manifest.media_type()
    }

    /// Bytes of manifest, config and layers as they are stored, each once.
    pub fn total_size(&self) -> u64 {
        self.total
    }

    /// The layers from the lowest up, then the config; each blob once.
    pub fn blobs(&self) -> &[Blob] {
        &self.blobs
    }

    /// Opens a blob anew; it still has the declared size.
    pub(super) fn open_blob(&self, blob: &Blob) -> Result<File, LayoutError> {
        let (file, size) = open_file(&self.blobs_dir, blob.digest.hex(), &blob_file(&blob.digest))?;
        check_size(blob, size)?;
        Ok(file)
    }

    /// Writes the image as an OCI archive: the layout in a tar archive, which tells `podman load`, `docker load` and
    /// skopeo that it is called `name` (OCI image layout, "index.json"; containers-transports(5), "oci-archive").
    ///
    /// # Errors
    /// When a blob has changed its size, or the archive cannot be written.
    pub fn archive(&self, name: &str, to: &mut impl std::io::Write) -> std::io::Result<()> {
        let manifest = &self.manifest;
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{
            "mediaType": manifest.media_type(),
            "digest": manifest.digest(),
            "size": manifest.bytes().len(),
            "annotations": {
                "org.opencontainers.image.ref.name": name,
                "io.containerd.image.name": name,
            },
        }]});
        let mut archive = tar::Builder::new(to);
        let mut add = |path: &str, bytes: &mut dyn std::io::Read, size: u64| {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_size(size);
            archive.append_data(&mut header, path, bytes)
        };
        let small = [
            ("oci-layout".to_owned(), LAYOUT_FILE.as_bytes().to_vec()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
            (blob_file(manifest.digest()), manifest.bytes().to_vec()),
        ];
        for (path, bytes) in small {
            add(&path, &mut bytes.as_slice(), bytes.len() as u64)?;
        }
        for blob in &self.blobs {
            let file = self.open_blob(blob).map_err(std::io::Error::other)?;
            add(
                &blob_file(&blob.digest),
                &mut file.take(blob.size),
                blob.size,
            )?;
        }
        archive.finish()
    }

    fn verify(&self, blob: &Blob) -> Result<(), LayoutError> {
        // `take`, so that a file which grows meanwhile doesn't make this endless.
        let mut file = self.open_blob(blob)?.take(blob.size);
        let mut hashing = Hashing::new(std::io::sink());
        std::io::copy(&mut file, &mut hashing)
            .map_err(|source| io(&blob_file(&blob.digest), source))?;
        check_digest(blob, hashing.finish().0)
    }
}

fn blob_file(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn io(file: &str, source: impl Into<std::io::Error>) -> LayoutError {
    LayoutError::Io {
        file: file.to_owned(),
        source: source.into(),
    }
}

fn check_size(blob: &Blob, found: u64) -> Result<(), LayoutError> {
    if found == blob.size {
        return Ok(());
    }
    Err(LayoutError::Size {
        digest: blob.digest.clone(),
        expected: blob.size,
        found,
    })
}

fn check_digest(blob: &Blob, found: Digest) -> Result<(), LayoutError> {
    if found == blob.digest {
        return Ok(());
    }
    Err(LayoutError::Digest {
        expected: blob.digest.clone(),
        found,
    })
}

fn open_dir(
    parent: impl AsFd,
    path: impl rustix::path::Arg,
    name: &str,
) -> Result<OwnedFd, LayoutError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, path, flags, Mode::empty()).map_err(|e| io(name, e))
}

/// Opens a regular file in `dir` and tells its size.
fn open_file(dir: &OwnedFd, path: &str, name: &str) -> Result<(File, u64), LayoutError> {
    // NONBLOCK, so that opening a FIFO doesn't wait for a writer; it means nothing for a file.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat(dir, path, flags, Mode::empty()).map_err(|e| match e {
        rustix::io::Errno::LOOP => LayoutError::NotAFile {
            file: name.to_owned(),
        },
        e => io(name, e),
    })?;
    let stat = fstat(&fd).map_err(|e| io(name, e))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(LayoutError::NotAFile {
            file: name.to_owned(),
        });
    }
    Ok((fd.into(), u64::try_from(stat.st_size).unwrap_or(0)))
}

/// A whole file of at most `MAX_MANIFEST` bytes.
fn read_small(dir: &OwnedFd, path: &str, name: &str) -> Result<Vec<u8>, LayoutError> {
    let (file, _) = open_file(dir, path, name)?;
    let mut bytes = Vec::new();
    let read = file.take(MAX_MANIFEST + 1).read_to_end(&mut bytes);
    if read.map_err(|e| io(name, e))? as u64 > MAX_MANIFEST {
        return Err(LayoutError::TooLarge {
            file: name.to_owned(),
            limit: MAX_MANIFEST,
        });
    }
    Ok(bytes)
}

fn read_json<T: for<'de> Deserialize<'de>>(dir: &OwnedFd, path: &str) -> Result<T, LayoutError> {
    parse(&read_small(dir, path, path)?, path)
}

fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8], name: &str) -> Result<T, LayoutError> {
    serde_json::from_slice(bytes).map_err(|e| LayoutError::Json {
        file: name.to_owned(),
        line: e.line(),
        column: e.column(),
    })
}
