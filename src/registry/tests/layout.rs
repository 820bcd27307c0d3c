use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use super::fixture::{Image, NO_LIMIT};
use crate::registry::manifest::OCI_MANIFEST;
use crate::registry::{Digest, Layout, LayoutError as E, MAX_LAYERS, MAX_MANIFEST};

fn fault(image: &Image) -> E {
    Layout::open(image.path(), NO_LIMIT).unwrap_err()
}

#[test]
fn a_sound_layout_opens() {
    let image = Image::new(b"hello");
    let layout = image.open();
    assert_eq!(layout.manifest_digest(), &image.manifest);
    assert_eq!(layout.config_digest(), &image.config);
    assert_eq!(layout.media_type(), OCI_MANIFEST);
    let blobs: Vec<_> = layout.blobs().iter().map(|blob| &blob.digest).collect();
    assert_eq!(blobs, [&image.layer, &image.config]);
    let size = |digest| image.blob_path(digest).metadata().unwrap().len();
    let total = size(&image.manifest) + size(&image.config) + size(&image.layer);
    assert_eq!(layout.total_size(), total);
    assert!(Layout::open(image.path(), total).is_ok());
    let short = Layout::open(image.path(), total - 1).unwrap_err();
    assert!(matches!(short, E::ImageTooLarge { .. }));
}

#[test]
fn a_layer_that_stands_twice_counts_once() {
    let mut image = Image::new(b"hello");
    let once = image.open().blobs().len();
    let mut manifest = image.manifest_json();
    let layer = manifest["layers"][0].clone();
    manifest["layers"].as_array_mut().unwrap().push(layer);
    image.set_manifest(&manifest);
    assert_eq!(image.open().blobs().len(), once);
}

#[test]
fn links_and_special_files_are_refused() {
    let image = Image::new(b"hello");
    for path in [
        image.blob_path(&image.layer),
        image.blob_path(&image.manifest),
        image.path().join("index.json"),
        image.path().join("blobs/sha256"),
        image.path().join("blobs"),
    ] {
        // The very same content, elsewhere.
        let moved = image.path().join("moved");
        std::fs::rename(&path, &moved).unwrap();
        symlink(&moved, &path).unwrap();
        assert!(
            matches!(fault(&image), E::NotAFile { .. } | E::Io { .. }),
            "{path:?}"
        );
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&moved, &path).unwrap();
        image.open();
    }
    let layer = image.blob_path(&image.layer);
    std::fs::remove_file(&layer).unwrap();
    std::fs::create_dir(&layer).unwrap();
    assert!(matches!(fault(&image), E::NotAFile { .. }));
    std::fs::remove_dir(&layer).unwrap();
    // Opening a FIFO must not wait for a writer.
    let made = std::process::Command::new("mkfifo").arg(&layer).status();
    assert!(made.unwrap().success());
    assert!(matches!(fault(&image), E::NotAFile { .. }));
    std::fs::remove_file(&layer).unwrap();
    assert!(matches!(fault(&image), E::Io { .. }));
}

#[test]
fn a_link_to_the_layout_is_refused() {
    let image = Image::new(b"hello");
    let link = image.path().join("link");
    symlink(image.path(), &link).unwrap();
    assert!(matches!(Layout::open(&link, NO_LIMIT), Err(E::Io { .. })));
    assert!(matches!(
        Layout::open(Path::new("/nowhere"), NO_LIMIT),
        Err(E::Io { .. })
    ));
}

#[test]
fn content_must_be_what_its_name_says() {
    let image = Image::new(b"hello");
    for digest in [&image.layer, &image.config, &image.manifest] {
        let path = image.blob_path(digest);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bad).unwrap();
        match fault(&image) {
            E::Digest { expected, found } => {
                assert_eq!(expected, *digest);
                assert_eq!(found, Digest::of(&bad));
            }
            other => panic!("{other}"),
        }
        bad.push(0);
        std::fs::write(&path, &bad).unwrap();
        assert!(matches!(fault(&image), E::Size { .. }));
        std::fs::write(&path, &good).unwrap();
    }
    image.open();
}

#[test]
fn a_file_changed_after_opening_is_noticed() {
    let image = Image::new(b"hello");
    let layout = image.open();
    let path = image.blob_path(&image.layer);
    std::fs::write(&path, b"other").unwrap();
    let layer = &layout.blobs()[0];
    assert!(matches!(
        layout.open_blob(layer),
        Err(E::Size { found: 5, .. })
    ));
    std::fs::remove_file(&path).unwrap();
    symlink("/etc/passwd", &path).unwrap();
    assert!(matches!(layout.open_blob(layer), Err(E::NotAFile { .. })));
}

#[test]
fn exactly_one_manifest_of_a_known_type() {
    let image = Image::new(b"hello");
    let read = || std::fs::read(image.path().join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&read()).unwrap();
    let entry = &index["manifests"][0];
    for (count, entries) in [(0, json!([])), (2, json!([entry, entry]))] {
        image.set_index(&json!({"manifests": entries}));
        assert!(matches!(fault(&image), E::ManifestCount(n) if n == count));
    }
    let mut nested = entry.clone();
    nested["mediaType"] = json!("application/vnd.oci.image.index.v1+json");
    image.set_index(&json!({"manifests": [nested]}));
    assert!(matches!(fault(&image), E::MediaType));

    let mut hostile = entry.clone();
    hostile["digest"] = json!("sha256:../../../../etc/passwd");
    image.set_index(&json!({"manifests": [hostile]}));
    assert!(matches!(fault(&image), E::Json { .. }));

    let mut image = Image::new(b"hello");
    let mut manifest = image.manifest_json();
    manifest["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
    image.set_manifest(&manifest);
    assert!(matches!(fault(&image), E::MediaType));
}

#[test]
fn sizes_are_bounded() {
    let mut image = Image::new(b"hello");
    let mut manifest = image.manifest_json();
    manifest["annotations"] = json!({"x": "x".repeat(MAX_MANIFEST as usize)});
    image.set_manifest(&manifest);
    assert!(matches!(
        fault(&image),
        E::TooLarge {
            limit: MAX_MANIFEST,
            ..
        }
    ));

    let mut image = Image::new(b"hello");
    let mut manifest = image.manifest_json();
    let layer = manifest["layers"][0].clone();
    manifest["layers"] = json!(vec![layer; MAX_LAYERS + 1]);
    image.set_manifest(&manifest);
    assert!(matches!(fault(&image), E::Layers(n) if n == MAX_LAYERS + 1));

    // A sparse file of an exabyte is refused before it is read.
    let mut image = Image::new(b"hello");
    let mut manifest = image.manifest_json();
    manifest["layers"][0]["size"] = json!(u64::MAX);
    image.set_manifest(&manifest);
    let error = Layout::open(image.path(), 1 << 30).unwrap_err();
    assert!(matches!(error, E::ImageTooLarge { .. }));

    let index = std::fs::File::create(image.path().join("index.json")).unwrap();
    index.set_len(1 << 40).unwrap();
    assert!(matches!(fault(&image), E::TooLarge { .. }));
}

#[test]
fn the_marker_file_is_checked() {
    let image = Image::new(b"hello");
    let marker = image.path().join("oci-layout");
    std::fs::write(&marker, r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(matches!(fault(&image), E::Version));
    std::fs::remove_file(&marker).unwrap();
    assert!(matches!(fault(&image), E::Io { file, .. } if file == "oci-layout"));
}
