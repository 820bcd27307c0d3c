//! Places in the user's own files that compilers, interpreters and test frameworks name.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::build::{Location, clean};

use super::aside::asides;
use super::tree::{Tree, normal};

/// Places that a failure names at most.
pub const MOST_LOCATIONS: usize = 10;
/// Characters of a line that are looked at.
const LOOKED_AT: usize = 1000;
/// Directories that are remembered.
const DEEP: usize = 20;

/// One form in which a place is printed: groups `file`, `line`, and perhaps `col` and `msg`.
const FORMS: &[&str] = &[
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
    r"^(?P<file>[^\s:()]+\.py):(?P<line>\d+): (?P<msg>[A-Za-z_.]+(?:Error|Exception|Failed|Exit)\b.*|in .+|Failed)$",
    r"^(?:file )?(?P<file>/\S+\.py)(?::|, line )(?P<line>\d+)$",
    // Playwright
    r"^ +\d+\) (?:\[[^\]]+\] › )?(?P<file>[^\s:()]+\.[cm]?[jt]sx?):(?P<line>\d+):(?P<col>\d+) › (?P<msg>.+?)[ ─]*$",
    // bats, Next.js, Elixir
    r"^\s*# \(in test file (?P<file>[^\s,]+), line (?P<line>\d+)\)",
    r"^(?P<file>\./[^\s:()]+\.[cm]?[jt]sx?):(?P<line>\d+):(?P<col>\d+)$",
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
    // Python
    r#"^\s*File "(?P<file>[^"<>]+)", line (?P<line>\d+)"#,
];

/// Forms of whatever else names a place: they count where the file is known to be the user's.
const ANYWHERE: &[&str] = &[
    r#"(?P<file>[\w@.+/-]*[\w+-]\.\w{1,8}|[\w@.+/-]*\b(?:Makefile|dune))["'`]?(?::line |:\[|:|\[|,? line | on line |: line | line: )(?P<line>\d+)(?:[:,] ?(?P<col>\d+))?\b"#,
    // Not the number of its tests.
    r"(?P<file>[\w@.+/-]*[\w+-]\.\w{1,8}) ?\((?P<line>\d+)(?:[:,] ?(?P<col>\d+))?[):,]",
    r"(?P<file>[\w@.+/-]*[\w+-]\.\w{1,8}) (?P<line>\d+):(?P<col>\d+)\b",
];

/// Index of the form of Python's frames, the last of which is the first cause.
const PYTHON: usize = FORMS.len() - 1;

static REGEXES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    FORMS
        .iter()
        .filter_map(|form| Regex::new(form).ok())
        .collect()
});
static LOOSE: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    ANYWHERE
        .iter()
        .filter_map(|form| Regex::new(form).ok())
        .collect()
});
/// What only remarks something, heads what is told behind it, or sums it up.
static HARMLESS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"(?i)\b(?:warn|warning)\b|\b(?:note|info|hint):| (?:›|=>) |^g?make(?:\[\d+\])?: \*\*\* |\blevel"?[=:] ?"?(?:info|debug|trace)|^\W*(?:[\dT:.,Z+-]+ +)*\[?(?-i:INFO|DEBUG|TRACE|NOTICE|[IWD]\d{4})\b"#,
    )
    .ok()
});
/// The directory that pnpm puts before the lines of a package's script.
static NAMED: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^(?P<directory>[\w@.-]+(?:/[\w@.-]+)+) [\w:-]+: ").ok());
static ENTERING: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^g?make(?:\[\d+\])?: (?P<way>Entering|Leaving) directory '(?P<directory>[^']+)'$")
        .ok()
});
/// A file on a line of its own, as eslint heads its findings; and one of these.
static HEADING: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^(?P<file>[^\s:()]+\.\w{1,6})$").ok());
static FINDINGS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        r"^\s*(?P<line>\d+):(?P<col>\d+)\s+(?:[Ee]rror:?|✖)\s+(?P<msg>.+)$",
        r"^\s*(?P<line>\d+):(?P<col>\d+)\s+(?P<harmless>[Ww]arning:?)\s+(?P<msg>.+)$",
        r"^\s+Line (?P<line>\d+):(?P<col>\d+):\s+(?P<msg>.+)$",
        r"^(?P<msg>Module not found: .+)$",
    ]
    .iter()
    .filter_map(|form| Regex::new(form).ok())
    .collect()
});
static CHANGES: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\b(?:cd|-C) +([^\s;&|)]+)").ok());

/// The places in order, each once; `command` is the instruction that printed them. Where something is only remarked
/// counts for `linters`, where they tell nothing else.
pub fn locations<'a>(
    lines: impl IntoIterator<Item = &'a str>,
    tree: &Tree,
    command: &str,
    linters: bool,
) -> Vec<Location> {
    let lines: Vec<&str> = lines.into_iter().collect();
    let foreign = match installs_the_source(command) {
        true => Vec::new(),
        false => builds_of_packages(&lines),
    };
    let asides = asides(&lines);
    let mut reader = Reader {
        directories: directories(command, &tree.layout.workdir),
        tree,
        found: Vec::new(),
        harmless: Vec::new(),
        call: None,
        frames: Vec::new(),
        heading: None,
        headline: None,
        next: 0,
    };
    let own = lines.iter().enumerate().filter(|(at, _)| {
        let mut others = foreign.iter().chain(&asides);
        !others.any(|lines| lines.contains(at))
    });
    for (_, line) in own {
        let end = line.floor_char_boundary(LOOKED_AT);
        reader.take(line.get(..end).unwrap_or(line));
        // Guesses give way to files that are known.
        if reader.found.iter().filter(|(known, _)| *known).count() >= MOST_LOCATIONS
            || reader.found.len() > 10 * MOST_LOCATIONS
        {
            break;
        }
    }
    reader.finish(linters)
}

/// What pip, uv and poetry quote of the builds of packages, whose files lie in directories of their own.
fn builds_of_packages(lines: &[&str]) -> Vec<Range<usize>> {
    let (mut found, mut begin) = (Vec::new(), 0);
    for (at, line) in lines.iter().enumerate() {
        let said = line.trim_start();
        if said.ends_with("lines of output]")
            || said.starts_with("× Failed to build `")
            || said == "ChefBuildError"
        {
            begin = at;
        } else if said == "[end of output]"
            || said.starts_with("hint: This usually indicates a problem with the package")
            || said.starts_with("Note: This error originates from the build backend")
        {
            // It may have begun before the first line that is here.
            found.push(begin..at);
            begin = at;
        }
    }
    found
}

/// Whether a command has pip build what is in a directory: then it is the user's own.
fn installs_the_source(command: &str) -> bool {
    let is_directory =
        |word: &str| word.starts_with(['.', '/']) || matches!(word, "-e" | "--editable");
    command.split_whitespace().any(is_directory)
}

/// Where a command line goes before it runs something.
fn directories(command: &str, workdir: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for change in CHANGES
        .iter()
        .flat_map(|regex| regex.captures_iter(command))
        .take(DEEP)
    {
        let Some(to) = change.get(1) else { continue };
        let to = to.as_str().trim_matches(['"', '\'']);
        let from = found.last().map_or(workdir, String::as_str);
        let to = if to.starts_with('/') {
            to.to_owned()
        } else {
            format!("{from}/{to}")
        };
        found.extend(normal(&to));
    }
    found
}

struct Reader<'a, 't> {
    tree: &'t Tree,
    directories: Vec<String>,
    /// Whether the file is one of the source, and the place.
    found: Vec<(bool, Location)>,
    /// Where something is only remarked.
    harmless: Vec<Location>,
    /// The last call of the user's: what was raised is somebody else's, where nothing else is found.
    call: Option<Location>,
    /// Frames of Python, whose message comes behind them.
    frames: Vec<(bool, Location)>,
    heading: Option<&'a str>,
    headline: Option<&'a str>,
    /// Where the next place belongs.
    next: usize,
}

impl<'a> Reader<'a, '_> {
    fn take(&mut self, line: &'a str) {
        if let Some(entering) = ENTERING.as_ref().and_then(|regex| regex.captures(line)) {
            match entering.name("way").map(|way| way.as_str()) {
                Some("Entering") if self.directories.len() < DEEP => {
                    self.directories
                        .extend(entering.name("directory").map(|to| to.as_str().to_owned()));
                }
                _ => drop(self.directories.pop()),
            }
            return;
        }
        if line.starts_with("error") {
            self.headline = Some(line);
        }
        if line.starts_with("Caused by: ") {
            // Of the JVM: what was thrown first is told last.
            self.next = 0;
        }
        if let Some(heading) = HEADING.as_ref().and_then(|regex| regex.captures(line)) {
            self.heading = heading.name("file").map(|file| file.as_str());
            return;
        }
        if let Some(file) = self.heading
            && let Some(place) = FINDINGS.iter().find_map(|form| form.captures(line))
        {
            let text = |name: &str| place.name(name).map(|group| group.as_str());
            let found = self.place(file, text("line"), text("col"), text("msg"));
            match (found, text("harmless")) {
                (Some((true, location)), Some(_)) => self.remark(location),
                (Some(place), None) => self.add(place),
                _ => {}
            }
            return;
        }
        let place = REGEXES
            .iter()
            .enumerate()
            .find_map(|(form, regex)| Some((form, regex.captures(line)?)));
        let Some((form, place)) = place else {
            if !self.anywhere(line)
                && !self.frames.is_empty()
                && !line.starts_with([' ', '\t'])
                && !line.is_empty()
            {
                self.close(Some(line));
            }
            return;
        };
        let text = |name: &str| place.name(name).map(|group| group.as_str());
        let headline = self
            .headline
            .filter(|_| text("msg").is_none() && line.contains("-->"));
        let message = text("msg")
            .filter(|message| !message.is_empty())
            .or(headline);
        let java = match (text("class"), text("test")) {
            (Some(class), _) => text("file").map(|file| in_package(class, file)),
            (None, Some(test)) => Some(format!("{test}.java")),
            (None, None) => None,
        };
        let Some(file) = java.as_deref().or_else(|| text("file")) else {
            return;
        };
        match self.place(file, text("line"), text("col"), message) {
            Some(frame) if form == PYTHON => self.frames.push(frame),
            Some(place) => self.add(place),
            None => drop(self.anywhere(line)),
        }
    }

    /// Looks for a file of the user's anywhere in a line.
    fn anywhere(&mut self, line: &str) -> bool {
        let named = NAMED.as_ref().and_then(|regex| regex.captures(line));
        let directory = named.and_then(|named| {
            let directory = named.name("directory")?.as_str();
            normal(&format!("{}/{directory}", self.tree.layout.workdir))
        });
        let depth = self.directories.len();
        self.directories.extend(directory);
        let mut places = LOOSE.iter().flat_map(|form| form.captures_iter(line));
        let found = places.find_map(|place| {
            let text = |name: &str| place.name(name).map(|group| group.as_str());
            let file = text("file")?;
            let rest = line.get(place.get(0)?.end()..)?;
            let behind = rest.trim_start_matches(|c: char| " :)]}'\",-–".contains(c));
            let message = Some(behind).filter(|text| text.contains(char::is_alphabetic));
            // A call on the way, of pytest.
            let is_call = file.ends_with(".py") && rest.trim_end() == ":";
            let (is_known, location) = self.place(file, text("line"), text("col"), message)?;
            is_known.then_some((location, is_call))
        });
        self.directories.truncate(depth);
        match found {
            Some((call, true)) => {
                self.call = Some(call);
                false
            }
            Some((location, _)) => {
                match HARMLESS.as_ref().is_some_and(|regex| regex.is_match(line)) {
                    true => self.remark(location),
                    false => self.add((true, location)),
                }
                true
            }
            None => false,
        }
    }

    fn add(&mut self, (is_known, location): (bool, Location)) {
        self.close(None);
        self.keep(is_known, location);
    }

    fn remark(&mut self, location: Location) {
        if self.harmless.len() < MOST_LOCATIONS {
            self.harmless.push(location);
        }
    }

    /// Whether the file is known to be one of the source, and the place.
    fn place(
        &self,
        printed: &str,
        line: Option<&str>,
        column: Option<&str>,
        message: Option<&str>,
    ) -> Option<(bool, Location)> {
        let known = self.tree.file(printed, &self.directories);
        let is_known = known.is_some();
        let file = known.or_else(|| self.tree.guess(printed))?;
        let number = |text: Option<&str>| {
            text.and_then(|digits| digits.parse::<u32>().ok())
                .filter(|n| *n > 0)
        };
        let location = Location {
            file: clean::short(&file, 300),
            line: number(line),
            column: number(column),
            message: message.map(|message| clean::short(message.trim(), 300)),
        };
        Some((is_known, location))
    }

    fn keep(&mut self, is_known: bool, location: Location) {
        let same =
            |(_, old): &(bool, Location)| old.file == location.file && old.line == location.line;
        match self.found.iter_mut().find(|old| same(old)) {
            Some((_, old)) => {
                if old.message.is_none() {
                    old.message = location.message;
                }
            }
            None => {
                let at = self.next.min(self.found.len());
                self.found.insert(at, (is_known, location));
                self.next = at + 1;
            }
        }
    }

    /// Frames end with what was raised.
    fn close(&mut self, message: Option<&str>) {
        let mut message = message.map(|message| clean::short(message, 300));
        for (is_known, mut frame) in std::mem::take(&mut self.frames).into_iter().rev() {
            frame.message = message.take();
            self.keep(is_known, frame);
        }
    }

    fn finish(mut self, linters: bool) -> Vec<Location> {
        self.close(None);
        if self.found.is_empty() && linters {
            return self.harmless;
        }
        if self.found.is_empty() {
            self.found.extend(self.call.map(|call| (true, call)));
        }
        let any = self.found.iter().any(|(known, _)| *known);
        let own = self.found.into_iter().filter(|(known, _)| *known || !any);
        own.map(|(_, location)| location)
            .take(MOST_LOCATIONS)
            .collect()
    }
}

/// The path of a Java source, below where its packages begin.
fn in_package(class: &str, file: &str) -> String {
    let class = class.split('$').next().unwrap_or(class);
    match class.rsplit_once('.') {
        Some((package, _)) => format!("{}/{file}", package.replace('.', "/")),
        None => file.to_owned(),
    }
}

#[cfg(test)]
mod tests;
