//! How Buildah is led to the mirror that a backend may have for registries.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde_json::Value;

use crate::build::reference::{Reference, Repository};

use super::phases::Job;

/// Where a mirror has a repository, as a reference names it. A port may not stand in a path.
pub fn mirrored(mirror: &str, repository: &Repository) -> String {
    let host = hex::encode(repository.host());
    format!("{mirror}/{host}/{}", repository.name())
}

/// The system's settings for registries (containers-registries.conf(5)).
const SYSTEM_FILE: &str = "/etc/containers/registries.conf";
/// Further ones (containers-registries.conf.d(5)).
const SYSTEM_DIR: &str = "/etc/containers/registries.conf.d";
/// What images must be signed by.
const POLICY: &str = "/etc/containers/policy.json";
/// Characters of a repository's name, with its host, at most (distribution/reference, NameTotalLengthMax).
const MAX_NAME: usize = 255;
/// Name of the mirror's location in the credentials directory.
pub const MIRROR: &str = "mirror";

/// Settings by which Buildah asks the mirror of the backend first, where there is one; they hold until this is
/// dropped.
pub struct Mirrored(PathBuf);

impl Mirrored {
    /// Leads Buildah there for an image that is named by its digest. What the operator has set for a registry
    /// holds: then there is no mirror.
    ///
    /// # Errors
    /// When the settings cannot be written.
    pub fn lay_out(job: &Job<'_>, name: &str) -> io::Result<Option<Self>> {
        let Some(file) = job.work.credential(MIRROR) else {
            return Ok(None);
        };
        let location = fs::read_to_string(file)?;
        let Some(reference) = (Reference::parse(name).ok()).filter(|one| one.digest().is_some())
        else {
            return Ok(None);
        };
        let repository = reference.repository();
        let (place, host) = (mirrored(&location, repository), repository.host());
        let further = fs::read_dir(SYSTEM_DIR).into_iter().flatten().flatten();
        let is_set = further
            .map(|entry| entry.path())
            .filter(|file| {
                file.extension()
                    .is_some_and(|extension| extension == "conf")
            })
            .chain([SYSTEM_FILE.into()])
            .any(|file| fs::read_to_string(file).is_ok_and(|text| speaks_of(&text, host)));
        let needs_none = fs::read_to_string(POLICY).is_ok_and(|policy| takes_unsigned(&policy));
        if is_set || !needs_none || place.len() > MAX_NAME {
            return Ok(None);
        }
        // Those of the user are read beside the system's (image/v5/pkg/sysregistriesv2).
        let home = job.work.outside().join("home");
        let dir = home.join(".config/containers/registries.conf.d");
        fs::create_dir_all(&dir)?;
        let quoted = |text: String| Value::from(text).to_string();
        let own = quoted(repository.to_string());
        let text = format!(
            "[[registry]]\nprefix = {own}\nlocation = {own}\ninsecure = {}\n\
             [[registry.mirror]]\nlocation = {}\ninsecure = true\n",
            job.settings.is_insecure(host),
            quoted(place),
        );
        let file = dir.join("mirror.conf");
        fs::write(&file, text)?;
        Ok(Some(Self(file)))
    }
}

impl Drop for Mirrored {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(%error, "the settings of the mirror remain");
        }
    }
}

/// Whether images need no signatures: those are not looked for in a mirror (containers-policy.json(5)).
fn takes_unsigned(policy: &str) -> bool {
    fn all_accept(value: &Value) -> bool {
        match value {
            Value::Object(map) => (map.iter()).all(|(key, one)| {
                (key != "type" || one == "insecureAcceptAnything") && all_accept(one)
            }),
            Value::Array(list) => list.iter().all(all_accept),
            _ => true,
        }
    }
    serde_json::from_str(policy).is_ok_and(|policy| all_accept(&policy))
}

/// Whether settings for registries have something for one; where they cannot be read, they might.
fn speaks_of(settings: &str, host: &str) -> bool {
    let Ok(settings) = settings.parse::<toml::Table>() else {
        return true;
    };
    // Version 1 of the format.
    if settings.contains_key("registries") {
        return true;
    }
    // Buildah takes a host for all its ports (sysregistriesv2, refMatchingPrefix).
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let tables = settings.get("registry").and_then(toml::Value::as_array);
    (tables.into_iter().flatten())
        .flat_map(|table| ["prefix", "location"].map(|key| table.get(key)))
        .filter_map(|place| place?.as_str())
        .any(|place| place.contains(host) || place.starts_with('*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_has_set_for_a_registry_is_known() {
        let settings = "unqualified-search-registries = [\"a.example\"]\n\
            [aliases]\n\"debian\" = \"b.example/debian\"\n\
            [[registry]]\nlocation = \"c.example/team\"\n[[registry]]\nprefix = \"d.example\"\nlocation = \"e.example\"\n";
        let known = |host: &str| speaks_of(settings, host);
        assert_eq!(
            [
                "a.example",
                "b.example",
                "c.example",
                "d.example",
                "e.example"
            ]
            .map(known),
            [false, false, true, true, true]
        );
        assert!(speaks_of(
            "[[registry]]\nprefix = \"*.example\"\n",
            "x.example"
        ));
        assert!(speaks_of("[[registry", "x.example"));
    }

    #[test]
    fn where_images_must_be_signed_there_is_no_mirror() {
        let policy = |kind: &str| {
            format!(
                r#"{{"default": [{{"type": "insecureAcceptAnything"}}], "transports": {{"docker": {{"a.example": [{{"type": "{kind}"}}]}}}}}}"#
            )
        };
        assert!(takes_unsigned(&policy("insecureAcceptAnything")));
        assert!(!takes_unsigned(&policy("signedBy")));
        assert!(!takes_unsigned("{"));
    }

    #[test]
    fn a_registry_with_a_port_has_a_place_in_a_mirror() {
        let repository = Repository::parse("registry.example:5000/team/app").unwrap();
        let place = mirrored("127.0.0.1:80/abc", &repository);
        assert_eq!(
            place,
            format!(
                "127.0.0.1:80/abc/{}/team/app",
                hex::encode("registry.example:5000")
            )
        );
    }
}
