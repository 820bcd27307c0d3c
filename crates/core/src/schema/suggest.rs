//! "Did you mean": the nearest of the names that exist.

/// Pairs (what callers write, the path of the argument they mean). A path with a dot counts from
/// the root, one without is a sibling of the misspelt name. Pairs whose target the schema at hand
/// lacks are skipped, so one table serves all tools.
pub type Synonyms<'a> = &'a [(&'a str, &'a str)];

/// Longer words (in bytes) are no misspelling; also bounds the quadratic distance.
const MAX_WORD: usize = 64;

/// The candidate that a human would call a misspelling of `wanted`: equal but for case and
/// separators, else at most one edit for every three characters. The first wins among equals.
pub fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = word(wanted)?;
    let near = candidates.into_iter().filter_map(|candidate| {
        let folded = word(candidate)?;
        let allowed = wanted.chars().count().max(folded.chars().count()) / 3;
        let distance = strsim::osa_distance(&wanted, &folded);
        (distance <= allowed).then_some((distance, candidate))
    });
    near.min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The candidate equal to `wanted` but for case and separators.
pub(super) fn same<'a>(
    wanted: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let wanted = word(wanted)?;
    candidates
        .into_iter()
        .find(|c| word(c).as_ref() == Some(&wanted))
}

/// The targets that `table` gives for `wanted`, in its order.
pub(super) fn synonyms<'a>(wanted: &str, table: Synonyms<'a>) -> impl Iterator<Item = &'a str> {
    let wanted = word(wanted);
    table
        .iter()
        .filter(move |(from, _)| wanted.is_some() && word(from) == wanted)
        .map(|(_, to)| *to)
}

/// Lower case without separators; none for what is empty or too long to be a name.
fn word(name: &str) -> Option<String> {
    if name.len() > MAX_WORD {
        return None;
    }
    let kept = name.chars().filter(|c| !matches!(c, '_' | '-' | ' ' | '.'));
    let folded: String = kept.flat_map(char::to_lowercase).collect();
    (!folded.is_empty()).then_some(folded)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    const NAMES: [&str; 8] = [
        "containerfile",
        "build_args",
        "tags",
        "tests",
        "timeout",
        "no_cache",
        "wait",
        "key",
    ];

    #[test]
    fn nearest_takes_misspellings_only() {
        for (wanted, expected) in [
            ("buildArgs", Some("build_args")),
            ("BUILD-ARGS", Some("build_args")),
            ("nocache", Some("no_cache")),
            ("tag", Some("tags")),
            ("tsets", Some("tests")),
            ("timout", Some("timeout")),
            ("contianerfile", Some("containerfile")),
            ("wiat", Some("wait")),
            ("dockerfile", None),
            ("memory", None),
            ("k", None),
            ("", None),
            ("___", None),
        ] {
            assert_eq!(nearest(wanted, NAMES), expected, "{wanted}");
        }
    }

    #[test]
    fn exact_beats_near_and_first_beats_later() {
        assert_eq!(nearest("tests", ["tasts", "tests"]), Some("tests"));
        assert_eq!(nearest("tasts", ["tosts", "tests"]), Some("tosts"));
    }

    #[test]
    fn a_huge_word_is_no_misspelling() {
        assert_eq!(nearest(&"t".repeat(10_000_000), NAMES), None);
    }
}
