//! Places in the user's own files that compilers, interpreters and test frameworks name.

mod forms;

use std::ops::Range;

use regex::Captures;

use crate::build::{Location, clean};

use super::aside::asides;
use super::groups;
use super::tree::{Tree, normal};
use forms::{
    CHANGES, COMPLAINS, DOCTEST, ENTERING, FINDINGS, FORMS, FRAMES, Frame, HARMLESS, HEADING,
    HEADS, LOOSE, NAMED, PACKAGE, RAN_IN, ROWS, TABLE,
};

/// Places that a failure names at most.
pub const MOST_LOCATIONS: usize = 10;
/// Characters of a line that are looked at.
const LOOKED_AT: usize = 1000;
/// Directories that are remembered.
const DEEP: usize = 20;

/// The places in order, each once, of the lines from `begins` on; `command` is the instruction that printed them. Where
/// something is only remarked counts for `linters`, where they tell nothing else.
pub fn locations(
    lines: &[&str],
    begins: usize,
    tree: &Tree,
    command: &str,
    linters: bool,
) -> Vec<Location> {
    let foreign = match installs_the_source(command) {
        true => Vec::new(),
        false => builds_of_packages(lines),
    };
    let asides = asides(lines);
    let packages = packages(lines);
    let mut reader = Reader {
        directories: directories(command, lines, &tree.layout.workdir),
        tree,
        found: Vec::new(),
        harmless: Vec::new(),
        heads: Vec::new(),
        call: None,
        frames: Vec::new(),
        is_pytest: false,
        heading: None,
        table: None,
        headline: None,
        package: None,
        is_doctest: false,
        next: 0,
    };
    for (at, line) in lines.iter().enumerate() {
        let end = line.floor_char_boundary(LOOKED_AT);
        let line = line.get(..end).unwrap_or(line);
        if at < begins {
            reader.enter(line);
            continue;
        }
        let mut others = foreign.iter().chain(&asides);
        if others.any(|lines| lines.contains(&at)) {
            continue;
        }
        let package = packages.iter().find(|(lines, _)| lines.contains(&at));
        // What does not compile is told from where go ran.
        let package = package.filter(|_| line.starts_with(' '));
        reader.package = package.map(|(_, package)| *package);
        reader.take(line);
        // Guesses give way to files that are known.
        if reader.found.iter().filter(|(known, _)| *known).count() >= MOST_LOCATIONS
            || reader.found.len() > 10 * MOST_LOCATIONS
        {
            break;
        }
    }
    reader.finish(linters)
}

/// What go test printed of each package that failed.
fn packages<'a>(lines: &[&'a str]) -> Vec<(Range<usize>, &'a str)> {
    let (mut found, mut begin) = (Vec::new(), 0);
    let Some(regex) = PACKAGE.as_ref() else {
        return found;
    };
    for (at, line) in lines.iter().enumerate() {
        // Most lines have none.
        if !line.starts_with(['F', 'o', '?']) {
            continue;
        }
        if let Some(package) = regex.captures(line).and_then(|ended| ended.name("package")) {
            found.push((begin..at, package.as_str()));
            begin = at + 1;
        }
    }
    found
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

/// Where a command line goes before it runs something, and where something says to have run.
fn directories(command: &str, lines: &[&str], workdir: &str) -> Vec<String> {
    let ran_in = RAN_IN.as_ref().into_iter().flat_map(|regex| {
        let found = lines.iter().filter_map(|line| regex.captures(line));
        found.filter_map(|ran| Some(ran.name("npm").or(ran.name("turbo"))?.as_str().to_owned()))
    });
    let mut found: Vec<String> = ran_in.take(DEEP).collect();
    let mut from = workdir.to_owned();
    for change in CHANGES
        .iter()
        .flat_map(|regex| regex.captures_iter(command))
        .take(DEEP)
    {
        let Some(to) = change.name("to").or(change.name("of")) else {
            continue;
        };
        let to = to.as_str().trim_matches(['"', '\'']);
        let to = if to.starts_with('/') {
            to.to_owned()
        } else {
            format!("{from}/{to}")
        };
        if let Some(to) = normal(&to) {
            from.clone_from(&to);
            found.push(to);
        }
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
    /// What only heads or announces what failed.
    heads: Vec<Location>,
    /// The last call of the user's: what was raised is somebody else's, where nothing else is found.
    call: Option<Location>,
    /// Frames of Python, whose message comes behind them.
    frames: Vec<(bool, Location)>,
    is_pytest: bool,
    /// The file that findings are of, or a table.
    heading: Option<&'a str>,
    table: Option<&'a str>,
    headline: Option<&'a str>,
    /// The package whose tests Go runs.
    package: Option<&'a str>,
    is_doctest: bool,
    /// Where the next place belongs.
    next: usize,
}

impl<'a> Reader<'a, '_> {
    fn take(&mut self, line: &'a str) {
        if self.enter(line) || self.announces(line) {
            return;
        }
        if line.starts_with("error") {
            self.headline = Some(line);
        }
        if line.starts_with("Caused by: ") {
            // Of the JVM: what was thrown first is told last.
            self.next = 0;
        }
        if groups::announces_next(line) {
            // An exception that another holds: it was raised before that.
            self.close(None);
            self.next = 0;
        }
        if let Some(heading) = HEADING.as_ref().and_then(|regex| regex.captures(line)) {
            self.heading = heading.name("file").map(|file| file.as_str());
            return;
        }
        if let Some(file) = self.heading
            && let Some(place) = FINDINGS.iter().find_map(|form| form.captures(line))
        {
            match (self.place_in(file, &place), place.name("harmless")) {
                (Some((true, location)), Some(_)) => self.remark(location),
                (Some(place), None) => self.add(place),
                _ => {}
            }
            return;
        }
        if let Some(table) = TABLE.as_ref().and_then(|regex| regex.captures(line)) {
            self.table = table.name("file").map(|file| file.as_str());
            return;
        }
        if let Some(file) = self.table
            && let Some(row) = ROWS.as_ref().and_then(|regex| regex.captures(line))
        {
            if let Some(place) = self.place_in(file, &row) {
                self.add(place);
            }
            return;
        }
        let place = FORMS
            .iter()
            .find_map(|form| Some((None, form.captures(line)?)));
        let mut frames = FRAMES.iter();
        let place = place.or_else(|| {
            frames.find_map(|(frame, form)| Some((Some(*frame), form.captures(line)?)))
        });
        let Some((frame, place)) = place else {
            if !self.anywhere(line) && !self.frames.is_empty() {
                self.go_on(line);
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
        let is_log = file.ends_with(".go")
            && line.starts_with(' ')
            && message.is_some_and(|message| {
                !COMPLAINS
                    .as_ref()
                    .is_some_and(|regex| regex.is_match(message))
            });
        match self.place(file, text("line"), text("col"), message) {
            Some(place) if frame.is_some() => {
                self.is_pytest = frame != Some(Frame::Python);
                self.frames.push(place);
                if frame == Some(Frame::Raised) {
                    self.close(None);
                }
            }
            Some((_, log)) if is_log => self.note(log),
            Some(_) if self.is_doctest && line.contains("panicked at ") => {}
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

    /// What stands behind frames: of Python they end with what was raised; pytest says that before it tells where.
    fn go_on(&mut self, line: &str) {
        let raised = line
            .strip_prefix("E   ")
            .filter(|raised| !raised.starts_with(' '));
        match (self.is_pytest, raised) {
            (true, Some(raised)) => {
                if let Some((_, frame)) = self.frames.last_mut() {
                    frame
                        .message
                        .get_or_insert_with(|| clean::short(raised, 300));
                }
            }
            (true, None)
                if ["___", "===", "---"]
                    .iter()
                    .any(|head| line.starts_with(head)) =>
            {
                self.close(None);
            }
            (false, _) if !line.is_empty() && !line.starts_with([' ', '\t']) => {
                self.close(Some(line));
            }
            _ => {}
        }
    }

    /// Follows make into directories and out of them.
    fn enter(&mut self, line: &str) -> bool {
        // Most lines are of others.
        if !line.contains("ing directory '") {
            return false;
        }
        let Some(entering) = ENTERING.as_ref().and_then(|regex| regex.captures(line)) else {
            return false;
        };
        let directory = entering.name("directory").map_or("", |to| to.as_str());
        let is_in = entering
            .name("way")
            .is_some_and(|way| way.as_str() == "Entering");
        if is_in && self.directories.len() < 3 * DEEP {
            self.directories.push(directory.to_owned());
        } else if !is_in && let Some(at) = self.directories.iter().rposition(|one| one == directory)
        {
            // Several run side by side.
            self.directories.remove(at);
        }
        true
    }

    /// Takes what only heads what failed.
    fn announces(&mut self, line: &'a str) -> bool {
        if line.starts_with("---- ") {
            let doctest = DOCTEST.as_ref().and_then(|regex| regex.captures(line));
            self.is_doctest = doctest.is_some();
            if let Some(doctest) = doctest {
                if let Some(place) = self.place_of(&doctest) {
                    self.add(place);
                }
                return true;
            }
        }
        let Some(head) = HEADS.iter().find_map(|form| form.captures(line)) else {
            return false;
        };
        if let Some((_, location)) = self.place_of(&head) {
            self.note(location);
        }
        true
    }

    fn note(&mut self, location: Location) {
        if self.heads.len() < MOST_LOCATIONS {
            self.heads.push(location);
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

    /// What the groups of a form name.
    fn place_of(&self, named: &Captures<'_>) -> Option<(bool, Location)> {
        self.place_in(named.name("file")?.as_str(), named)
    }

    /// The same, of a file that stands elsewhere.
    fn place_in(&self, file: &str, named: &Captures<'_>) -> Option<(bool, Location)> {
        let text = |name: &str| named.name(name).map(|group| group.as_str());
        self.place(file, text("line"), text("col"), text("msg"))
    }

    /// Whether the file is known to be one of the source, and the place.
    fn place(
        &self,
        printed: &str,
        line: Option<&str>,
        column: Option<&str>,
        message: Option<&str>,
    ) -> Option<(bool, Location)> {
        let known = match self.package.filter(|_| printed.ends_with(".go")) {
            Some(package) => self.tree.file(printed, &self.within(package)),
            None => self.tree.file(printed, &self.directories),
        };
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

    /// The directories, with those that a package of Go may lie in: the longest end of its path comes first.
    fn within(&self, package: &str) -> Vec<String> {
        let from = self.directories.last().unwrap_or(&self.tree.layout.workdir);
        let ends = package
            .rmatch_indices('/')
            .filter_map(|(at, _)| package.get(at..));
        let ends = ends.take(DEEP).map(|end| format!("{from}{end}"));
        self.directories.iter().cloned().chain(ends).collect()
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
            frame.message = message.take().or(frame.message);
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
        if self.found.is_empty() {
            self.found
                .extend(self.heads.into_iter().map(|head| (true, head)));
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
