//! Reports of test frameworks in the XML of JUnit: which cases failed, and where.
//!
//! There is no standard; this reads what pytest, Maven Surefire, Gradle, jest-junit, gotestsum, cargo-nextest, ctest and
//! GoogleTest have in common: `testcase` elements with `name` and `classname`, perhaps `file` and `line`, and within them
//! `failure`, `error` or `skipped`. The file is foreign: it explains a verdict and makes none.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use crate::build::clean;
use crate::build::status::{CaseStatus, ReportStatus};

use super::locations::locations;
use super::tree::Tree;

/// Failing cases that are told.
const MOST: usize = 10;
/// Bytes of a failure's text that are looked at.
const TEXT: usize = 16 * 1024;
/// Characters of a name, and of a message.
const NAME: usize = 200;
const MESSAGE: usize = 300;

/// What the file says; `tree` tells which files are the source's, `mask` takes secrets out of what is told. Time and
/// memory grow with the file's size only.
pub fn report(xml: &str, tree: &Tree, mask: &dyn Fn(&str) -> String) -> ReportStatus {
    let mut reading = Reading {
        tree,
        mask,
        report: ReportStatus::default(),
        case: None,
        depth: 0,
        seen: false,
    };
    let mut reader = Reader::from_str(xml);
    let problem = loop {
        match reader.read_event() {
            Ok(Event::Eof) if reading.depth > 0 => break Some("it ends in the middle"),
            Ok(Event::Eof) if !reading.seen => break Some("it has no testsuite"),
            Ok(Event::Eof) => break None,
            Ok(event) => reading.take(&event),
            Err(_) => break Some("it is no well-formed XML"),
        }
    };
    reading.report.problem = problem.map(str::to_owned);
    reading.report
}

struct Reading<'t> {
    tree: &'t Tree,
    mask: &'t dyn Fn(&str) -> String,
    report: ReportStatus,
    case: Option<Case>,
    depth: usize,
    /// Whether it is a report at all.
    seen: bool,
}

/// A case that is being read.
#[derive(Default)]
struct Case {
    class: String,
    name: String,
    file: Option<String>,
    line: Option<u32>,
    skipped: bool,
    /// Its first failure: the message and the text.
    failure: Option<(Option<String>, String)>,
    /// Whether text that comes is the failure's.
    in_failure: bool,
}

impl Reading<'_> {
    fn take(&mut self, event: &Event<'_>) {
        match event {
            Event::Start(start) => {
                self.depth += 1;
                self.open(start);
            }
            Event::Empty(start) => {
                self.open(start);
                self.close(start.local_name().as_ref());
            }
            Event::End(end) => {
                self.depth = self.depth.saturating_sub(1);
                self.close(end.local_name().as_ref());
            }
            Event::Text(text) => self.text(text),
            Event::CData(text) => self.text(text),
            Event::GeneralRef(reference) => {
                let named = quick_xml::escape::resolve_predefined_entity(reference);
                match (reference.resolve_char_ref(), named) {
                    (Ok(Some(c)), _) => self.text(c.encode_utf8(&mut [0; 4])),
                    (_, Some(text)) => self.text(text),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, start: &BytesStart<'_>) {
        match (start.local_name().as_ref(), &mut self.case) {
            ("testsuite" | "testsuites", _) => self.seen = true,
            ("testcase", case) => {
                *case = Some(Case {
                    class: attribute(start, "classname").unwrap_or_default(),
                    name: attribute(start, "name").unwrap_or_default(),
                    file: attribute(start, "file"),
                    line: attribute(start, "line").and_then(|line| line.parse().ok()),
                    ..Case::default()
                });
            }
            ("skipped" | "disabled", Some(case)) => case.skipped = true,
            ("failure" | "error", Some(case)) if case.failure.is_none() => {
                case.failure = Some((attribute(start, "message"), String::new()));
                case.in_failure = true;
            }
            _ => {}
        }
    }

    fn close(&mut self, name: &str) {
        match (name, &mut self.case) {
            ("failure" | "error", Some(case)) => case.in_failure = false,
            ("testcase", case) => {
                if let Some(case) = case.take() {
                    self.count(case);
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, more: &str) {
        if let Some(case) = self.case.as_mut().filter(|case| case.in_failure)
            && let Some((_, text)) = &mut case.failure
        {
            let left = TEXT.saturating_sub(text.len());
            text.push_str(
                more.get(..more.floor_char_boundary(left))
                    .unwrap_or_default(),
            );
        }
    }

    fn count(&mut self, case: Case) {
        let report = &mut self.report;
        report.cases += 1;
        report.skipped += u64::from(case.skipped && case.failure.is_none());
        if case.failure.is_some() {
            report.failed += 1;
            if report.failures.len() < MOST {
                report.failures.push(told(case, self.tree, self.mask));
            }
        }
    }
}

/// The text of a failure knows the line better than the case's attributes, which some frameworks count from 0.
fn told(case: Case, tree: &Tree, mask: &dyn Fn(&str) -> String) -> CaseStatus {
    let (message, text) = case.failure.unwrap_or_default();
    // Before anything is cut: the beginning of a secret is not found any more.
    let bounded = |text: &str| mask(text.get(..text.floor_char_boundary(TEXT)).unwrap_or(text));
    let (message, text) = (message.as_deref().map(bounded), mask(&text));
    let lines: Vec<&str> = text.lines().collect();
    let place = locations(&lines, 0, tree, "", false).into_iter().next();
    let file = case
        .file
        .as_deref()
        .and_then(|file| tree.file(file, &[]).or_else(|| tree.guess(file)));
    let (file, line) = match place {
        Some(place) => (Some(place.file), place.line),
        None => {
            let line = case.line.filter(|line| *line > 0 && file.is_some());
            (file.map(|file| clean::short(&file, MESSAGE)), line)
        }
    };
    let message = message.filter(|message| !message.trim().is_empty());
    let first = text.lines().find(|line| !line.trim().is_empty());
    let message = message.as_deref().or(first);
    let name = match case.class.is_empty() {
        true => case.name,
        false => format!("{}.{}", case.class, case.name),
    };
    let name = bounded(&name);
    CaseStatus {
        name: clean::short(&name, NAME),
        file,
        line,
        message: message.map(|text| clean::short(text.trim(), MESSAGE)),
    }
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Option<String> {
    let mut attributes = start.attributes();
    // Its own search for repetitions grows with the square of their number.
    attributes.with_checks(false);
    let found = attributes
        .flatten()
        .find(|attribute| attribute.key.as_ref() == name)?;
    let value = found.normalized_value(XmlVersion::Implicit1_0).ok()?;
    Some(value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree(files: &[&str]) -> Tree {
        Tree {
            files: files.iter().map(|file| (*file).to_owned()).collect(),
            ..Tree::default()
        }
    }

    fn report(xml: &str, tree: &Tree) -> ReportStatus {
        super::report(xml, tree, &str::to_owned)
    }

    fn place(case: &CaseStatus) -> (Option<&str>, Option<u32>) {
        (case.file.as_deref(), case.line)
    }

    #[test]
    fn what_pytest_writes() {
        let xml = r#"<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest"
            errors="0" failures="1" skipped="1" tests="3"><testcase classname="tests.test_sum" name="test_good" time="0.1" />
            <testcase classname="tests.test_sum" name="test_bad" time="0.001"><failure message="assert 3 == 4&#10; +  where 3 = add(1, 2)">def test_bad():
&gt;       assert add(1, 2) == 4
E       assert 3 == 4

tests/test_sum.py:8: AssertionError</failure></testcase>
            <testcase classname="tests.test_sum" name="test_later"><skipped type="pytest.skip" message="later">x</skipped></testcase>
            </testsuite></testsuites>"#;
        let report = report(xml, &tree(&["tests/test_sum.py"]));
        assert_eq!(
            (report.cases, report.failed, report.skipped, &report.problem),
            (3, 1, 1, &None)
        );
        let case = &report.failures[0];
        assert_eq!(case.name, "tests.test_sum.test_bad");
        assert_eq!(place(case), (Some("tests/test_sum.py"), Some(8)));
        assert!(
            case.message
                .as_deref()
                .unwrap()
                .starts_with("assert 3 == 4")
        );
    }

    #[test]
    fn places_of_attributes_and_messages_of_texts() {
        let xml = r#"<testsuite><testcase name="adds" classname="Sum" file="./src/sum.test.js" line="12">
            <error><![CDATA[
              Error: 1 < 2 && nothing
            ]]></error></testcase><testcase name="outside" file="/usr/lib/x.js" line="3"><failure/></testcase></testsuite>"#;
        let report = report(xml, &tree(&["src/sum.test.js"]));
        assert_eq!(
            place(&report.failures[0]),
            (Some("src/sum.test.js"), Some(12))
        );
        assert_eq!(
            report.failures[0].message.as_deref(),
            Some("Error: 1 < 2 && nothing")
        );
        assert_eq!(place(&report.failures[1]), (None, None));
        assert_eq!(report.failures[1].name, "outside");
    }

    #[test]
    fn what_is_no_report_is_said_and_what_was_read_counts() {
        let problem = |xml| report(xml, &Tree::default()).problem;
        assert_eq!(problem("").as_deref(), Some("it has no testsuite"));
        assert_eq!(
            problem("<html></html>").as_deref(),
            Some("it has no testsuite")
        );
        assert_eq!(
            problem("<testsuite><testcase name='a'/>").as_deref(),
            Some("it ends in the middle")
        );
        assert_eq!(
            problem("<testsuite></testcase>").as_deref(),
            Some("it is no well-formed XML")
        );
        let many = format!(
            "<testsuite>{}</testsuite>",
            "<testcase name='a'><failure/></testcase>".repeat(50)
        );
        let report = report(&many, &Tree::default());
        assert_eq!(
            (report.cases, report.failed, report.failures.len()),
            (50, 50, 10)
        );
    }

    #[test]
    fn entities_are_not_expanded() {
        let xml = r#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><testsuite><testcase name="&b;"><failure>&b;&amp;</failure></testcase></testsuite>"#;
        let report = report(xml, &Tree::default());
        assert_eq!(report.failures[0].message.as_deref(), Some("&"));
        assert_eq!(report.failures[0].name, "");
    }

    #[test]
    fn secrets_are_taken_out_before_anything_is_cut() {
        let secret = format!("top&secret-{}", "x".repeat(300));
        let escaped = secret.replace('&', "&amp;");
        let xml = format!(
            "<testsuite><testcase name=\"{escaped}\"><failure message=\"it is {escaped}\"/></testcase></testsuite>"
        );
        let told = super::report(&xml, &Tree::default(), &|text| text.replace(&secret, "***"));
        assert_eq!(told.failures[0].name, "***");
        assert_eq!(told.failures[0].message.as_deref(), Some("it is ***"));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(<testsuite>)?(<testcase name=\"[a-z&;]*\">|<failure message='x'>|</failure>|</testcase>|.){0,30}") {
            let report = report(&text, &Tree::default());
            prop_assert!(report.failed <= report.cases && report.failures.len() <= MOST);
        }
    }
}
