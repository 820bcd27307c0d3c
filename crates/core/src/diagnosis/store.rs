//! Whether Buildah failed because of what lies in one of its stores.

use crate::build::{Failure, Kind};

use super::buildah::{BuildahEnd, OWN_ERROR};

/// What containers/storage says of layers and images that are missing or not what they were (seen of
/// Buildah 1.28 and 1.43 after damage done by hand).
const SIGNS: &[&str] = &[
    "layer not known",
    "file integrity checksum failed",
    "Digest did not match",
    "unexpected end of",
    "failed to shutdown storage",
];

/// The part of Buildah that copies what a build asks for: what it lacks is not the store's fault.
const COPIER: &str = ": copier: ";

/// How many lines are looked at, from the error on: a warning may follow it.
const LAST: usize = 6;

/// What Buildah says of an image that is not in a store.
const UNKNOWN: &str = "image not known";

/// Whether the failure seems to come of damage to one of `stores` (paths), in which there are the images
/// `bases`. That a store is merely full is none, nor is a command that failed, whatever it printed.
pub fn points_at_store(
    end: &BuildahEnd<'_>,
    failure: &Failure,
    stores: &[String],
    bases: &[&str],
) -> bool {
    if end.status != OWN_ERROR || failure.exit_code.is_some() || failure.kind == Kind::DiskFull {
        return false;
    }
    // Buildah tells its own error when all commands have ended: what comes before may be theirs.
    let own = end
        .lines
        .iter()
        .rposition(|(_, line)| line.text.starts_with("Error: "))
        .unwrap_or(end.lines.len().saturating_sub(1));
    end.lines.iter().skip(own).take(LAST).any(|(_, line)| {
        SIGNS.iter().any(|sign| line.text.contains(sign))
            || (line.text.contains(UNKNOWN) && bases.iter().any(|base| line.text.contains(base)))
            || (line.text.starts_with("Error: ")
                && !line.text.contains(COPIER)
                && stores.iter().any(|store| line.text.contains(store)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::command::tests::lines;
    use crate::diagnosis::{Tree, buildah_failure};

    fn damaged(status: i32, text: &[&str]) -> bool {
        let lines = lines(text);
        let end = BuildahEnd {
            status,
            lines: &lines,
            place: None,
            tree: &Tree::default(),
        };
        points_at_store(
            &end,
            &buildah_failure(&end),
            &["/c/s".to_owned()],
            &["h/base:1"],
        )
    }

    #[test]
    fn damage_is_told_from_what_commands_do() {
        assert!(damaged(
            125,
            &[
                "Error: creating read-write layer with ID \"b7\": Stat /c/s/overlay/26/diff: no such file or directory"
            ]
        ));
        assert!(damaged(
            125,
            &["Error: getting top layer info: layer not known"]
        ));
        assert!(damaged(
            125,
            &["time=\"…\" level=warning msg=\"failed to shutdown storage: \\\"loading"]
        ));
        assert!(!damaged(
            1,
            &["Error: getting top layer info: layer not known"]
        ));
        assert!(!damaged(
            125,
            &[
                "layer not known",
                "Error: building at STEP \"RUN x\": while running runtime: exit status 125"
            ]
        ));
        assert!(!damaged(
            125,
            &["Error: writing /c/s/overlay/1: no space left on device"]
        ));
        assert!(!damaged(
            125,
            &[
                "Error: getting top layer info: layer not known",
                "Error: building at STEP \"COPY x /x\": no such file",
            ]
        ));
        assert!(damaged(
            125,
            &["Error: creating build container: h/base:1: image not known"]
        ));
        assert!(!damaged(
            125,
            &["Error: building at STEP \"COPY --from=h/x:1 a b\": h/x:1: image not known"]
        ));
        for of_the_sources in [
            "Error: building at STEP \"COPY a b\": copier: stat: \"/a\": no such file or directory",
            "Error: building at STEP \"COPY --from=a b c\": checking on sources under \"/c/s/overlay/7b/merged\": copier: stat: \"/b\": no such file or directory",
            "Error: building at STEP \"ADD a b\": storing \"/src/a\": error during bulk transfer for copier.request{Request:\"PUT\", preservedRoot:\"/c/s/overlay/45/merged\"}: copier: put: error creating \"/leak\": link /x /leak: no such file or directory",
        ] {
            assert!(!damaged(125, &[of_the_sources]), "{of_the_sources}");
        }
    }
}
