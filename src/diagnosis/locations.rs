//! Places in the user's own files that compilers and interpreters name.

use std::sync::LazyLock;

use regex::Regex;

use crate::build::{Location, clean};

/// Places at most.
const MOST: usize = 10;

/// One form in which a place is printed: groups `file`, `line`, and perhaps `col` and `msg`.
const FORMS: &[&str] = &[
    // gcc, clang, javac, swiftc
    r"^(?P<file>[^\s:()]+):(?P<line>\d+):(?:(?P<col>\d+):)? (?:fatal )?error:? (?P<msg>.+)$",
    // go build, go vet
    r"^(?P<file>[^\s:()]+\.go):(?P<line>\d+):(?P<col>\d+): (?P<msg>.+)$",
    // tsc
    r"^(?P<file>[^\s:()]+)\((?P<line>\d+),(?P<col>\d+)\): error (?P<msg>.+)$",
    // rustc
    r"^\s*--> (?P<file>[^\s:()]+):(?P<line>\d+):(?P<col>\d+)$",
    // Python
    r#"^\s*File "(?P<file>[^"<>]+)", line (?P<line>\d+)"#,
];

/// Directories of systems and packages, not of users.
const FOREIGN: &[&str] = &["/usr/", "/lib/", "/opt/", "/root/.", "/nix/", "<"];

static REGEXES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    FORMS
        .iter()
        .filter_map(|form| Regex::new(form).ok())
        .collect()
});

/// The places in order, each once.
pub fn locations<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Location> {
    let mut found: Vec<Location> = Vec::new();
    let mut headline: Option<&str> = None;
    for line in lines {
        if line.starts_with("error") {
            headline = Some(line);
        }
        let Some(place) = REGEXES.iter().find_map(|regex| regex.captures(line)) else {
            continue;
        };
        let text = |name: &str| place.name(name).map(|group| group.as_str());
        let Some(file) = text("file").map(|file| file.trim_start_matches("./")) else {
            continue;
        };
        let number = |name: &str| text(name).and_then(|digits| digits.parse::<u32>().ok());
        if FOREIGN.iter().any(|prefix| file.starts_with(prefix)) {
            continue;
        }
        let location = Location {
            file: clean::short(file, 300),
            line: number("line"),
            column: number("col"),
            message: text("msg")
                .or(headline)
                .map(|message| clean::short(message, 300)),
        };
        if !found.contains(&location) {
            found.push(location);
        }
        if found.len() == MOST {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_system_files_are_not() {
        assert_eq!(REGEXES.len(), FORMS.len());
        let lines = [
            "/usr/include/stdio.h:1:2: error: not ours",
            "src/main.c:1:25: error: 'x' undeclared",
            "./main.go:7:2: undefined: x",
            "src/a.ts(3,9): error TS2304: Cannot find name 'y'.",
            "error[E0425]: cannot find value `z`",
            "  --> src/lib.rs:4:5",
            "  File \"app/run.py\", line 12, in <module>",
            "Main.java:3: error: ';' expected",
            "src/main.c:1:25: error: 'x' undeclared",
        ];
        let all = locations(lines);
        let places: Vec<_> = all
            .iter()
            .map(|l| (l.file.as_str(), l.line, l.column))
            .collect();
        assert_eq!(
            places,
            [
                ("src/main.c", Some(1), Some(25)),
                ("main.go", Some(7), Some(2)),
                ("src/a.ts", Some(3), Some(9)),
                ("src/lib.rs", Some(4), Some(5)),
                ("app/run.py", Some(12), None),
                ("Main.java", Some(3), None),
            ]
        );
        assert_eq!(
            all[3].message.as_deref(),
            Some("error[E0425]: cannot find value `z`")
        );
    }
}
