//! The forms in which programs print places: one table a purpose.

use std::sync::LazyLock;

use regex::Regex;

fn compiled(forms: &[&str]) -> Vec<Regex> {
    forms
        .iter()
        .filter_map(|form| Regex::new(form).ok())
        .collect()
}

/// Forms in which a place is printed: groups `file`, `line`, and perhaps `col` and `msg`.
const PLACES: &[&str] = &[
    // gcc, clang, javac, swiftc, GoogleTest, mypy, flake8
    r"^(?:\[ERROR\] )?(?P<file>[^\s:()\[\]]+):(?P<line>\d+):(?:(?P<col>\d+):)? (?:fatal )?(?:[Ee]rror|Failure|FAILED|syntax error|undefined reference to|multiple definition of|[A-Z]\d{3,4} )[:,]?(?: |$)?(?P<msg>.*)$",
    // go build, go vet; indented: go test
    r"^\s*(?P<file>[^\s:()]+\.go):(?P<line>\d+):(?:(?P<col>\d+):)? (?P<msg>.*)$",
    // goroutines
    r"^\s+(?P<file>/[^\s:()]+\.go):(?P<line>\d+)(?: \+0x[0-9a-f]+)?$",
    // tsc, csc
    r"^(?P<file>[^\s:()]+)\((?P<line>\d+),(?P<col>\d+)\): error (?P<msg>.+)$",
    r"^(?:Error: )?(?P<file>[^\s:()]+\.[cm]?tsx?):(?P<line>\d+):(?P<col>\d+) - error (?P<msg>.+)$",
    // rustc
    r"^\s*--> (?P<file>[^\s:()]+):(?P<line>\d+):(?P<col>\d+)$",
    // panics of Rust, new and old
    r"panicked at (?P<file>[^\s:'()]+\.rs):(?P<line>\d+):(?P<col>\d+):?$",
    r"panicked at '(?P<msg>.*)', (?P<file>[^\s:()]+\.rs):(?P<line>\d+):(?P<col>\d+)$",
    // Maven, kotlinc
    r"^\[ERROR\] (?P<file>/[^\s:]+):\[(?P<line>\d+),(?P<col>\d+)\] (?P<msg>.+)$",
    r"^e: (?:file://)?(?P<file>[^\s:]+\.kts?):(?P<line>\d+):(?P<col>\d+):? (?P<msg>.+)$",
    // Java frames, and what surefire sums up
    r"^\s+at (?P<class>[\w.$]+)\.[\w$<>]+\((?P<file>\w+\.(?:java|kt|scala|groovy)):(?P<line>\d+)\)",
    r"^\[ERROR\]\s+(?P<test>\w+)\.\w+:(?P<line>\d+)(?:->\S+)? ?(?P<msg>.*)$",
    // node frames, bare locations of uncaught errors
    r"^\s+at (?:.+ \()?(?:file://|(?:webpack|webpack-internal|vite)://[^/\s]*/+(?:\./)?)?(?P<file>[^\s:()]+\.[cm]?[jt]sx?):(?P<line>\d+):(?P<col>\d+)\)?(?: \{)?$",
    r"^(?:file://)?(?P<file>/[^\s:()]+\.[cm]?[jt]sx?):(?P<line>\d+)$",
    r"^\s*❯ (?:.+ )?(?P<file>[^\s:()]+\.[cm]?[jt]sx?):(?P<line>\d+):(?P<col>\d+)$",
    // pytest
    r"^(?:file )?(?P<file>/\S+\.py)(?::|, line )(?P<line>\d+)$",
    // bats, Next.js, Elixir
    r"^\s*# \(in test file (?P<file>[^\s,]+), line (?P<line>\d+)\)",
    r"^(?P<file>\./[^\s:()]+\.[cm]?[jt]sx?):(?P<line>\d+):(?P<col>\d+)$",
    r"^(?P<file>/[^\s:()]+\.(?:svelte|vue|astro)):(?P<line>\d+):(?P<col>\d+)$",
    r"^\s*└─ (?P<file>[^\s:()]+):(?P<line>\d+):(?P<col>\d+)\b",
    // CMake with its calls, make, the shell, assert
    r"^\s+(?P<file>[^\s:()]*CMakeLists\.txt|[^\s:()]+\.cmake):(?P<line>\d+) \((?P<msg>\w+)\)$",
    r"^CMake Error at (?P<file>[^\s:]+):(?P<line>\d+)(?: \((?P<msg>[^)]*)\))?",
    r"^(?P<file>[^\s:]*(?:[Mm]akefile|\.mk)):(?P<line>\d+): \*\*\* (?P<msg>.+)$",
    r"^(?P<file>[^\s:()]+\.(?:sh|bash)): (?:line )?(?P<line>\d+): (?P<msg>.+)$",
    r"^\S+: (?P<file>[^\s:()]+):(?P<line>\d+): (?P<msg>.*Assertion .* failed\.?)$",
    // Ruby, PHP, Perl
    r"^(?:\s+from )?(?P<file>[^\s:()]+\.rb):(?P<line>\d+):in (?P<msg>.+)$",
    r"^(?P<msg>.+) in (?P<file>/\S+\.php)(?: on line |:)(?P<line>\d+)$",
    r"^(?P<msg>.+) at (?P<file>[^\s()]+\.(?:p[lm]|t)) line (?P<line>\d+)[.,]",
    // Files without a line: formatters, Vite
    r"^[Ww]ould reformat:? (?P<file>\S+)$",
    r"^ERROR: (?P<file>\S+) (?P<msg>Imports are .+)$",
    r"^\[warn\] (?P<file>[^\s:()]+\.\w+)$",
    r#"(?P<msg>(?:Could not resolve|failed to resolve import) "[^"]+") from "(?P<file>[^"]+)""#,
    r"^file: (?P<file>[^\s:()]+)$",
    // POMs
    r"^\[(?:FATAL|ERROR)\].* (?P<file>/\S+\.xml): (?P<msg>.*)@ line (?P<line>\d+), column (?P<col>\d+)",
    // pip
    r"\(from line (?P<line>\d+) of (?P<file>[^)\s]+)\)",
    // Babel
    r"^\w*Error: (?P<file>[^\s:()]+): (?P<msg>.+) \((?P<line>\d+):(?P<col>\d+)\)$",
];

/// Forms of what only heads, includes or announces what failed: they count where nothing else is found.
const ANNOUNCED: &[&str] = &[
    // gcc and clang; TAP of node; ExUnit; Playwright
    r"^(?:In file included|\s+)? *from (?P<file>[^\s:()]+):(?P<line>\d+)(?::(?P<col>\d+))?[,:]$",
    r"^\s+location: '(?P<file>[^\s:()]+):(?P<line>\d+):(?P<col>\d+)'$",
    r"^ {5}(?P<file>[^\s:()]+\.exs):(?P<line>\d+)$",
    r"^ +\d+\) (?:\[[^\]]+\] › )?(?P<file>[^\s:()]+\.[cm]?[jt]sx?):(?P<line>\d+):(?P<col>\d+) › (?P<msg>.+?)[ ─]*$",
];

/// Forms of whatever else names a place: they count where the file is known to be the user's.
const ANYWHERE: &[&str] = &[
    r#"(?P<file>[\w@.+/-]*[\w+-]\.\w{1,8}|[\w@.+/-]*\b(?:Makefile|dune))["'`]?(?::line |:\[|:|\[|,? line | on line |: line | line: )(?P<line>\d+)(?:[:,] ?(?P<col>\d+))?\b"#,
    // Not the number of its tests.
    r"(?P<file>[\w@.+/-]*[\w+-]\.\w{1,8}) ?\((?P<line>\d+)(?:[:,] ?(?P<col>\d+))?[):,]",
    r"(?P<file>[\w@.+/-]*[\w+-]\.\w{1,8}) (?P<line>\d+):(?P<col>\d+)\b",
];

/// What kind of frame it is: of Python; of pytest a call, what was raised, and a place in what it quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    Python,
    Call,
    Raised,
    Quoted,
}

/// Frames, the last of which is the first cause.
const TRACED: [(Frame, &str); 4] = [
    (
        Frame::Python,
        r#"^\s*File "(?P<file>[^"<>]+)", line (?P<line>\d+)"#,
    ),
    (
        Frame::Call,
        r"^(?P<file>[^\s:()]+\.py):(?P<line>\d+): in .+$",
    ),
    (
        Frame::Raised,
        r"^(?P<file>[^\s:()]+\.py):(?P<line>\d+): (?P<msg>[A-Za-z_.]+(?:Error|Exception|Failed|Exit)\b.*|Failed)$",
    ),
    (
        Frame::Quoted,
        r#"^E +File "(?P<file>[^"<>]+)", line (?P<line>\d+)"#,
    ),
];

pub static FORMS: LazyLock<Vec<Regex>> = LazyLock::new(|| compiled(PLACES));
pub static HEADS: LazyLock<Vec<Regex>> = LazyLock::new(|| compiled(ANNOUNCED));
pub static LOOSE: LazyLock<Vec<Regex>> = LazyLock::new(|| compiled(ANYWHERE));
pub static FRAMES: LazyLock<Vec<(Frame, Regex)>> = LazyLock::new(|| {
    let forms = TRACED.iter();
    forms
        .filter_map(|(frame, form)| Some((*frame, Regex::new(form).ok()?)))
        .collect()
});
/// What only remarks something, heads what is told behind it, or sums it up.
pub static HARMLESS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"(?i)\b(?:warn|\w*warning)\b|^\s*(?:info|hint) •|\b(?:note|info|hint):| (?:›|=>) |^g?make(?:\[\d+\])?: \*\*\* |\blevel"?[=:] ?"?(?:info|debug|trace)|^\W*(?:[\dT:.,Z+-]+ +)*\[?(?-i:INFO|DEBUG|TRACE|NOTICE|[IWD]\d{4})\b"#,
    )
    .ok()
});
/// The directory that pnpm puts before the lines of a package's script.
pub static NAMED: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^(?P<directory>[\w@.-]+(?:/[\w@.-]+)+) [\w:-]+: ").ok());
pub static ENTERING: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^g?make(?:\[\d+\])?: (?P<way>Entering|Leaving) directory '(?P<directory>[^']+)'$")
        .ok()
});
/// A file on a line of its own, as eslint heads its findings; and one of these.
pub static HEADING: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^(?P<file>[^\s:()]+\.\w{1,6})$").ok());
pub static FINDINGS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    compiled(&[
        r"^\s*(?P<line>\d+):(?P<col>\d+)\s+(?:[Ee]rror:?|✖)\s+(?P<msg>.+)$",
        r"^\s*(?P<line>\d+):(?P<col>\d+)\s+(?P<harmless>[Ww]arning:?)\s+(?P<msg>.+)$",
        r"^\s+Line (?P<line>\d+):(?P<col>\d+):\s+(?P<msg>.+)$",
        r"^(?P<msg>Module not found: .+)$",
    ])
});
/// How PHPStan heads a table of a file, and its rows.
pub static TABLE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^ +Line +(?P<file>[^\s:()]+\.\w{1,6}) *$").ok());
pub static ROWS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^ {2,}(?P<line>\d+) {2,}(?P<msg>\S.*)$").ok());
/// Where a command line goes, or has a program go.
pub static CHANGES: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"(?:^|[\s;&|("'])(?:(?:cd|pushd|-C|--directory|--cwd|--prefix|--project-dir)(?: +|=)(?P<to>[^\s;&|)]+)|(?:--manifest-path|--file|-f)(?: +|=)(?P<of>[^\s;&|)]+)/(?:Cargo\.toml|pom\.xml|[Mm]akefile))"#).ok()
});
/// Where a program that runs others says that one of them ran, behind what that printed: npm, turbo.
pub static RAN_IN: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^npm (?:ERR!|error) (?:path|location) (?P<npm>/\S+)$|^\S+#\S+: command \((?P<turbo>/[^)]+)\)").ok()
});
/// How go test ends a package.
pub static PACKAGE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^(?:FAIL|ok|\?)\s+(?P<package>[\w.~/-]+)\s+(?:\(cached\)|[\d.]+s|\[.+\])").ok()
});
/// What a test of Go complains of; without such words a line of its log may be one of before it failed.
pub static COMPLAINS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)want|got\b|expect|!=|not equal|should|error|fail|\bnil\b|timed out|missing|diff|must|panic|invalid|wrong|mismatch").ok()
});
/// A test in documentation of Rust, whose place is that of the code, not that of the program made of it.
pub static DOCTEST: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^---- (?P<file>\S+\.rs) - .*\(line (?P<line>\d+)\) stdout ----$").ok()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_an_expression() {
        assert_eq!(FORMS.len(), PLACES.len());
        assert_eq!(HEADS.len(), ANNOUNCED.len());
        assert_eq!(LOOSE.len(), ANYWHERE.len());
        assert_eq!((FRAMES.len(), FINDINGS.len()), (TRACED.len(), 4));
        for form in [
            &HARMLESS, &NAMED, &ENTERING, &HEADING, &TABLE, &ROWS, &CHANGES, &RAN_IN, &PACKAGE,
            &COMPLAINS, &DOCTEST,
        ] {
            assert!(form.is_some());
        }
    }
}
