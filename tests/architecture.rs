//! Dependencies point down one chain only (`src/lib.rs` shows it), and the domain is pure.
//!
//! The sources are read as tokens: comments, strings and macros' literal text do not count, `use`
//! trees, plain paths, `super` chains and the modules of `#[cfg(test)]` do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From top to bottom; a module may use those below it, none of those above.
///
/// `lib.rs` draws some of them side by side. This is the one total order that the sources have:
/// git asks context about links, diagnosis reads lines of the log, config and log speak of builds.
const LEVELS: &str = "main app cli assembly client http mcp service backend nomad runner registry git context \
    consul config journal diagnosis log containerfile build schema telemetry wire";

/// Modules that do no I/O and know nothing of the systems around them.
const PURE: &str = "build containerfile diagnosis schema";
/// What they must not use. Addresses (`std::net::Ipv4Addr`, …) are values, no I/O.
const IO: &str = "std::fs std::net std::process tokio reqwest rustix nix rmcp axum";
const VALUES: &[&str] = &["Ipv4Addr", "Ipv6Addr", "IpAddr"];
/// What they must not speak of. It is diagnosis' own subject what Buildah prints.
const FOREIGN: &[&str] = &["rmcp", "axum", "nomad", "buildah"];

#[test]
fn every_module_has_its_level() {
    let mut found: BTreeSet<String> = roots()
        .iter()
        .flat_map(|root| fs::read_dir(root).unwrap())
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert!(found.remove("lib"));
    let levels = LEVELS.split(' ').map(str::to_owned).collect();
    assert_eq!(found, levels);
}

#[test]
fn dependencies_point_down() {
    let mut wrong = Vec::new();
    for (path, source) in sources() {
        upwards(&path, &source, &mut wrong);
    }
    wrong.sort();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_domain_is_pure() {
    let mut wrong = Vec::new();
    for (path, source) in sources() {
        if PURE.split(' ').any(|pure| pure == level_of(&path)) && !is_test_file(&path) {
            impure(&path, &source, &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_scan_sees_what_it_must() {
    let found = |path: &str, source: &str| {
        let mut wrong = Vec::new();
        upwards(Path::new(path), source, &mut wrong);
        let what = |text: &String| text.rsplit(": ").next().unwrap().to_owned();
        wrong.iter().map(what).collect::<Vec<_>>()
    };
    let up = |what: &str| vec![format!("log uses {what}")];
    assert_eq!(found("log/a.rs", "use crate::runner::X;"), up("runner"));
    assert_eq!(found("log.rs", "fn f() { crate::cli::go() }"), up("cli"));
    assert_eq!(found("log/a.rs", "use crate::{build::X, mcp};"), up("mcp"));
    assert_eq!(found("log/a.rs", "use nomad_build::git::G;"), up("git"));
    let core = "use nomad_build_core::diagnosis::D;";
    assert_eq!(found("log/a.rs", core), up("diagnosis"));
    assert_eq!(found("log/a.rs", "use crate::{self as c, app};"), up("app"));
    assert_eq!(found("log/a.rs", "use super::super::git::G;"), up("git"));
    assert_eq!(found("log/mod.rs", "use super::{build, git};"), up("git"));
    let nested = "#[cfg(test)] mod t { use super::super::super::git; }";
    assert_eq!(found("log/a.rs", nested), up("git"));
    let quiet = "// use crate::app;\n/* crate::app /* crate::cli */ */ const A: &str = \
        r#\"\"crate::app\"#; const B: char = '\"'; use crate::build::B; fn f<'a>(_: &'a str) {}\n\
        mod t { use super::super::super::build; use super::super::git; } // \"";
    assert_eq!(found("log/a.rs", quiet), Vec::<String>::new());

    let impurities = |source: &str| {
        let mut wrong = Vec::new();
        impure(Path::new("build/a.rs"), source, &mut wrong);
        wrong.len()
    };
    assert_eq!(impurities("use std::fs;"), 1);
    assert_eq!(impurities("use std::{fmt, net::TcpStream};"), 1);
    assert_eq!(impurities("use std::net::{Ipv4Addr, Ipv6Addr};"), 0);
    assert_eq!(impurities("fn f() { ::tokio::spawn(x) }"), 1);
    assert_eq!(impurities("struct BuildahThing;"), 1);
    assert_eq!(impurities("/// Buildah\nfn f() { g(\"std::fs\") }"), 0);
    assert_eq!(impurities("#[cfg(test)] mod tests { use std::fs; }"), 0);
}

/// A word, or a single character that is none; and the line it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

/// Notes every use of a module that is not below the file's own.
fn upwards(path: &Path, source: &str, wrong: &mut Vec<String>) {
    let own = level_of(path);
    let rank = |name: &str| LEVELS.split(' ').position(|level| level == name);
    for (line, names) in uses(&tokens(source)) {
        if let Some(name) = absolute(path, &names)
            && let Some(target) = rank(&name)
            && rank(&own).is_some_and(|rank| target < rank)
        {
            wrong.push(format!("{}:{line}: {own} uses {name}", path.display()));
        }
    }
}

/// The top module that a path names, if it names one.
fn absolute(path: &Path, names: &Names) -> Option<String> {
    match names.path[0].as_str() {
        "crate" | "nomad_build" | "nomad_build_core" => names.path.get(1).cloned(),
        "super" => {
            let up = names
                .path
                .iter()
                .take_while(|name| *name == "super")
                .count();
            (up == depth(path) + names.inner).then(|| names.path.get(up).cloned())?
        }
        _ => None,
    }
}

fn impure(path: &Path, source: &str, wrong: &mut Vec<String>) {
    let own = level_of(path);
    let tokens = without_tests(tokens(source));
    let mut note = |line: usize, what: &str| {
        wrong.push(format!("{}:{line}: {own} uses {what}", path.display()));
    };
    for (line, names) in uses(&tokens) {
        let path = names.path.join("::");
        let below = |io: &str| path == io || path.starts_with(&format!("{io}::"));
        let is_value = names
            .path
            .iter()
            .any(|name| VALUES.contains(&name.as_str()));
        if IO.split(' ').any(below) && !is_value {
            note(line, &path);
        }
    }
    for token in &tokens {
        let word = token.text.to_ascii_lowercase();
        let subject = |name: &str| own == "diagnosis" && name == "buildah";
        if let Some(name) = FOREIGN
            .iter()
            .find(|name| word.contains(**name) && !subject(name))
        {
            note(token.line, &format!("{} (a word of {name})", token.text));
        }
    }
}

/// The `src` of each crate; what the one below has, the one above has under the same name.
fn roots() -> [PathBuf; 2] {
    ["src", "crates/core/src"].map(|src| Path::new(env!("CARGO_MANIFEST_DIR")).join(src))
}

/// Every source, by its path below `src`.
fn sources() -> Vec<(PathBuf, String)> {
    let roots = roots();
    let (mut found, mut dirs) = (Vec::new(), roots.to_vec());
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = roots.iter().find_map(|root| path.strip_prefix(root).ok());
                let below = below.unwrap().to_owned();
                found.push((below, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 100, "only {} sources", found.len());
    found
}

/// Top module of a file.
fn level_of(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// How many `super` lead from a file's module to the root.
fn depth(path: &Path) -> usize {
    let is_mod = path.file_name().is_some_and(|name| name == "mod.rs");
    path.iter().count() - usize::from(is_mod)
}

fn is_test_file(path: &Path) -> bool {
    path.iter()
        .any(|part| part == "tests" || part == "tests.rs")
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// No comments, no literals.
fn tokens(source: &str) -> Vec<Token> {
    let text: Vec<char> = source.chars().collect();
    let at = |i: usize| text.get(i).copied().unwrap_or('\0');
    let (mut out, mut i, mut line): (Vec<Token>, usize, usize) = (Vec::new(), 0, 1);
    while i < text.len() {
        let from = i;
        match (at(i), at(i + 1)) {
            ('/', '/') => i += text[i..].iter().take_while(|&&c| c != '\n').count(),
            ('/', '*') => i = block_comment_end(&text, i),
            ('"', _) => i = string_end(&text, i, None),
            ('r', '"' | '#') | ('b', 'r') if raw_string(&text, i).is_some() => {
                let (quote, hashes) = raw_string(&text, i).unwrap();
                i = string_end(&text, quote, Some(hashes));
            }
            // 'x', '\n' or '\u{1}'; else a lifetime or a label.
            ('\'', '\\') => {
                i += 3;
                while at(i - 1) != '\'' || (at(i - 2) == '\\' && at(i - 3) != '\\') {
                    i += 1;
                }
            }
            ('\'', _) if at(i + 2) == '\'' => i += 3,
            (c, _) if is_word(c) => {
                while is_word(at(i)) {
                    i += 1;
                }
                let text: String = text[from..i].iter().collect();
                out.push(Token { text, line });
            }
            (c, _) => {
                if !c.is_whitespace() {
                    out.push(Token {
                        text: c.into(),
                        line,
                    });
                }
                i += 1;
            }
        }
        line += text[from..i.min(text.len())]
            .iter()
            .filter(|&&c| c == '\n')
            .count();
    }
    out
}

fn block_comment_end(text: &[char], from: usize) -> usize {
    let (mut i, mut deep) = (from + 2, 1);
    while deep > 0 && i < text.len() {
        match text.get(i..i + 2) {
            Some(['/', '*']) => (i, deep) = (i + 2, deep + 1),
            Some(['*', '/']) => (i, deep) = (i + 2, deep - 1),
            _ => i += 1,
        }
    }
    i
}

/// Where the quote of a raw string is, and how many `#` stand before it.
fn raw_string(text: &[char], from: usize) -> Option<(usize, usize)> {
    let r = if text[from] == 'b' { from + 1 } else { from };
    let hashes = text.get(r + 1..)?.iter().take_while(|&&c| c == '#').count();
    (text.get(r + 1 + hashes) == Some(&'"')).then_some((r + 1 + hashes, hashes))
}

fn string_end(text: &[char], quote: usize, raw: Option<usize>) -> usize {
    let mut i = quote + 1;
    while i < text.len() {
        match (text[i], raw) {
            ('\\', None) => i += 2,
            ('"', None) => return i + 1,
            ('"', Some(hashes)) => {
                let end = text.get(i + 1..i + 1 + hashes);
                if end.is_some_and(|end| end.iter().all(|&c| c == '#')) {
                    return i + 1 + hashes;
                }
                i += 1;
            }
            _ => i += 1,
        }
    }
    i
}

/// Leaves out what stands behind `#[cfg(test)]`: one item.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut out, mut i) = (Vec::new(), 0);
    while i < tokens.len() {
        let here = tokens.get(i..i + mark.len());
        if !here.is_some_and(|here| {
            here.iter()
                .zip(mark)
                .all(|(token, word)| token.text == word)
        }) {
            out.push(tokens[i].clone());
            i += 1;
            continue;
        }
        let mut deep = 0;
        while let Some(token) = tokens.get(i) {
            i += 1;
            match token.text.as_str() {
                "{" => deep += 1,
                "}" => deep -= 1,
                _ => {}
            }
            if deep == 0 && matches!(token.text.as_str(), "}" | ";") {
                break;
            }
        }
    }
    out
}

/// A path as it stands, and in how many modules of its file.
#[derive(Debug)]
struct Names {
    path: Vec<String>,
    inner: usize,
}

/// Every path of two names or more, with the trees of `use` unfolded.
fn uses(tokens: &[Token]) -> Vec<(usize, Names)> {
    let mut out = Vec::new();
    // For each open brace: whether it belongs to a module.
    let mut braces: Vec<bool> = Vec::new();
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text.as_str());
    let mut i = 0;
    while i < tokens.len() {
        match text(i) {
            "{" => braces.push(i >= 2 && text(i - 2) == "mod"),
            "}" => drop(braces.pop()),
            word if word.starts_with(is_word) && text(i + 1) == ":" && text(i + 2) == ":" => {
                let inner = braces.iter().filter(|is_module| **is_module).count();
                let line = tokens[i].line;
                let mut paths = Vec::new();
                i = tree(tokens, i, &mut Vec::new(), &mut paths);
                out.extend(paths.into_iter().map(|path| (line, Names { path, inner })));
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    out
}

/// Reads one path or tree from `i` on; returns where it ends.
fn tree(
    tokens: &[Token],
    mut i: usize,
    before: &mut Vec<String>,
    out: &mut Vec<Vec<String>>,
) -> usize {
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text.as_str());
    let held = before.len();
    loop {
        if text(i) == "{" {
            i += 1;
            while !matches!(text(i), "}" | "") {
                let from = i;
                i = tree(tokens, i, before, out);
                // `as name`, commas and whatever else stands between.
                while !matches!(text(i), "," | "}" | "") {
                    i += 1;
                }
                i += usize::from(text(i) == "," || i == from);
            }
            i += 1;
            break;
        }
        before.push(text(i).to_owned());
        i += 1;
        if text(i) != ":" || text(i + 1) != ":" {
            out.push(before.clone());
            break;
        }
        i += 2;
        // `Vec::<X>::new`: what stands in the brackets is looked at on its own.
        if !text(i).starts_with(is_word) && text(i) != "{" {
            out.push(before.clone());
            break;
        }
    }
    before.truncate(held);
    i
}
