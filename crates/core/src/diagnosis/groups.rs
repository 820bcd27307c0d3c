//! Exceptions of Python that hold others, each behind a bar: `  | ValueError: x`.

use crate::log::Line;

/// How such a traceback begins, behind spaces.
const HEAD: &str = "+ Exception Group ";

/// The texts of lines, without the bars of such tracebacks.
pub fn bare(lines: &[(u64, Line)]) -> Vec<&str> {
    let mut is_within = false;
    let texts = lines.iter().map(|(_, line)| line.text.as_str());
    texts
        .map(|text| {
            let said = text.trim_start();
            is_within = said.starts_with(HEAD) || (is_within && said.starts_with(['|', '+']));
            match said.strip_prefix(HEAD).or_else(|| said.strip_prefix("|")) {
                Some(rest) if is_within => rest.strip_prefix(' ').unwrap_or(rest),
                _ => text,
            }
        })
        .collect()
}

/// Whether the next of the others is announced: `+-+---------------- 1 ----------------`.
pub fn announces_next(line: &str) -> bool {
    let said = line.trim();
    let number = said.trim_matches(['+', '-', ' ']);
    said.starts_with("+-")
        && said.ends_with("---")
        && !number.is_empty()
        && number.bytes().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::super::command::tests::lines;
    use super::*;

    #[test]
    fn bars_are_removed_within_a_group_alone() {
        let group = [
            "  + Exception Group Traceback (most recent call last):",
            "  |   File \"/app/run.py\", line 12, in <module>",
            "  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)",
            "  +-+---------------- 1 ----------------",
            "    | Traceback (most recent call last):",
            "    |   File \"/app/fetch.py\", line 31, in fetch",
            "    | ValueError: unsupported scheme",
            "    +------------------------------------",
            "  | a table |",
        ];
        let lines = lines(&group);
        let texts = bare(&lines);
        assert_eq!(texts[0], "Traceback (most recent call last):");
        assert_eq!(texts[3], group[3]);
        assert_eq!(texts[5], "  File \"/app/fetch.py\", line 31, in fetch");
        assert_eq!(texts[6], "ValueError: unsupported scheme");
        assert_eq!(bare(&lines[8..]), [group[8]]);
        let announced: Vec<bool> = group.iter().map(|line| announces_next(line)).collect();
        assert_eq!(announced.iter().position(|is| *is), Some(3));
        assert!(!announced[7] && !announces_next("+-----+") && !announces_next("+- org:x:1"));
    }
}
