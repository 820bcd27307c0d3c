//! What a build has of the store of base images: those that it has proven its access to, and the
//! layers they consist of.
//!
//! Others lie there, too, which a reference that nobody has foreseen (ONBUILD of a base image) or a bug
//! of Buildah's mounts must not reach. Layers lie as in containers/storage, drivers/overlay/overlay.go.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::Value;

use super::store::{INDEX, StoredImage, StoredLayer, is_id, list};

/// A part of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Files and directories of it, below the store.
    pub paths: Vec<PathBuf>,
    /// Its list of images, in place of the store's.
    pub index: Vec<u8>,
}

/// The part of a store that images of these names or ids need.
///
/// # Errors
/// When the store cannot be read.
pub fn part(store: &Path, wanted: &HashSet<&str>) -> io::Result<Part> {
    let mut listed = Vec::new();
    let (mut ids, mut tops) = (HashSet::new(), Vec::new());
    for value in list::<Value>(&store.join(INDEX))? {
        let Ok(image) = StoredImage::deserialize(&value) else {
            continue;
        };
        if wanted.iter().any(|name| image.is(name)) {
            ids.insert(image.id);
            tops.push(image.layer);
            tops.extend(image.mapped_layers.into_iter().flatten());
            listed.push(value);
        }
    }
    let mut parents = HashMap::new();
    for file in ["layers.json", "volatile-layers.json"] {
        for layer in list::<StoredLayer>(&store.join("overlay-layers").join(file))? {
            parents.insert(layer.id, layer.parent);
        }
    }
    ids.extend(with_parents(tops, &parents));
    let mut paths = Vec::new();
    for dir in ["", "overlay", "overlay-images", "overlay-layers"] {
        for name in names_in(&store.join(dir))? {
            let path = Path::new(dir).join(&name);
            let is_walked = dir.is_empty() && name.starts_with("overlay");
            let id = name.split('.').next().unwrap_or_default();
            if !is_walked && path != Path::new(INDEX) && (!is_id(id) || ids.contains(id)) {
                paths.push(path);
            }
        }
    }
    Ok(Part {
        paths,
        index: serde_json::to_vec(&listed)?,
    })
}

/// Layers and everything they lie on.
fn with_parents(tops: Vec<String>, parents: &HashMap<String, Option<String>>) -> HashSet<String> {
    let mut all = HashSet::new();
    for top in tops {
        let mut next = Some(top);
        while let Some(layer) = next
            && !all.contains(&layer)
        {
            next = parents.get(&layer).cloned().flatten();
            all.insert(layer);
        }
    }
    all
}

fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::store::ID_DIGITS;

    fn id(digit: char) -> String {
        digit.to_string().repeat(ID_DIGITS)
    }

    #[test]
    fn images_of_others_and_their_layers_are_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: String| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let image = |digit, layer, name| serde_json::json!({"id": id(digit), "names": [name], "layer": id(layer), "metadata": "m"});
        let images = [image('a', '2', "mine"), image('b', '3', "theirs")];
        write(INDEX, serde_json::to_string(&images).unwrap());
        let layers = [('1', None), ('2', Some('1')), ('3', Some('1'))];
        let layers =
            layers.map(|(layer, on)| serde_json::json!({"id": id(layer), "parent": on.map(id)}));
        write(
            "overlay-layers/layers.json",
            serde_json::to_string(&layers).unwrap(),
        );
        for layer in ['1', '2', '3', '4'] {
            write(&format!("overlay/{}/diff/x", id(layer)), String::new());
            write(
                &format!("overlay-layers/{}.tar-split.gz", id(layer)),
                String::new(),
            );
        }
        for image in ['a', 'b'] {
            write(
                &format!("overlay-images/{}/manifest", id(image)),
                String::new(),
            );
        }
        write("overlay/l/X", String::new());
        write("storage.lock", String::new());

        let by_id = part(dir.path(), &HashSet::from([id('a').as_str()])).unwrap();
        let part = part(dir.path(), &HashSet::from(["mine"])).unwrap();
        assert_eq!(part, by_id);
        let paths: Vec<String> = (part.paths.iter())
            .map(|path| path.display().to_string())
            .collect();
        let (base, top) = (id('1'), id('2'));
        assert_eq!(
            paths,
            [
                "storage.lock".to_owned(),
                format!("overlay/{base}"),
                format!("overlay/{top}"),
                "overlay/l".to_owned(),
                format!("overlay-images/{}", id('a')),
                format!("overlay-layers/{base}.tar-split.gz"),
                format!("overlay-layers/{top}.tar-split.gz"),
                "overlay-layers/layers.json".to_owned(),
            ]
        );
        let index: Vec<Value> = serde_json::from_slice(&part.index).unwrap();
        assert_eq!(index, images.get(..1).unwrap());
    }

    #[test]
    fn a_store_that_is_not_there_has_no_part() {
        let none = part(Path::new("/nonexistent"), &HashSet::new()).unwrap();
        assert_eq!(
            (none.paths, none.index.as_slice()),
            (vec![], b"[]".as_slice())
        );
    }
}
