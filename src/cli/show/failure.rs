//! A failure as compilers show theirs: the line, what is wrong with it, what to do.

use std::path::Path;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::build::{Failure, clean};

use super::options::as_options;

/// Lines of the log at most.
const EXCERPT: usize = 20;
/// Longest source line that is shown, in characters.
const WIDEST: usize = 200;

/// The failure in several lines. `sources`: where the sources are on this machine, if they are.
pub fn render(failure: &Failure, sources: Option<&Path>, colour: bool) -> String {
    let renderer = match colour {
        true => Renderer::styled(),
        false => Renderer::plain(),
    };
    let kind = failure.kind.as_str();
    let message = clean::line(&failure.message);
    let title = Level::ERROR.primary_title(message.as_str()).id(kind);
    let line = failure.line.and_then(|line| usize::try_from(line).ok());
    let text = line.and_then(|line| source_line(failure, line, sources));
    let label = label(failure);
    let hint = (failure.hint.as_deref()).map(|hint| as_options(&clean::line(hint)));
    let mut group = Group::with_title(title);
    if let (Some(file), Some(line), Some(text)) = (&failure.file, line, &text) {
        let begin = text.len() - text.trim_start().len();
        let mark = AnnotationKind::Primary
            .span(begin..text.len())
            .label(label.as_str());
        let snippet = Snippet::source(text.as_str())
            .line_start(line)
            .path(file.as_str());
        group = group.element(snippet.annotation(mark));
    } else if !label.is_empty() {
        group = group.element(Level::NOTE.message(label.as_str()));
    }
    if let Some(hint) = &hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    let mut out = renderer.render(&[group]);
    for place in &failure.locations {
        let mut at = format!("\n  at {}", clean::line(&place.file));
        for number in [place.line, place.column].into_iter().flatten() {
            at += &format!(":{number}");
        }
        let said = place.message.as_deref().map(clean::line);
        out += &at;
        out += &said.map(|said| format!(": {said}")).unwrap_or_default();
    }
    if let Some(excerpt) = &failure.excerpt {
        out += "\n  it printed:";
        for line in excerpt.lines().take(EXCERPT) {
            out += &format!("\n  | {}", clean::line(line));
        }
    }
    out
}

/// The line of the Containerfile: from the sources where they are here, else as the failure has it.
fn source_line(failure: &Failure, line: usize, sources: Option<&Path>) -> Option<String> {
    let from_file = || {
        let text = std::fs::read_to_string(sources?.join(failure.file.as_ref()?)).ok()?;
        text.lines().nth(line.checked_sub(1)?).map(str::to_owned)
    };
    let text = from_file().or_else(|| failure.instruction.clone())?;
    let text = clean::short(&text, WIDEST);
    (!text.trim().is_empty()).then_some(text)
}

fn label(failure: &Failure) -> String {
    let mut words = Vec::new();
    if let (Some(step), Some(stage)) = (failure.step, &failure.stage) {
        words.push(format!("step {step} of stage {}", clean::line(stage)));
    }
    if let Some(test) = &failure.test {
        words.push(format!("test {}", clean::line(test)));
    }
    if let Some(code) = failure.exit_code {
        words.push(format!("exit status {code}"));
    }
    words.push(match failure.fault {
        crate::build::Fault::Code => "the code is at fault".into(),
        crate::build::Fault::Request => "the call is at fault".into(),
        crate::build::Fault::Operator => "whoever runs this server can mend it".into(),
        crate::build::Fault::Transient => "it may work another time".into(),
        crate::build::Fault::Unknown => "nobody knows whose fault it is".into(),
    });
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::failure::Location;
    use crate::build::{Kind, Phase};

    fn failure() -> Failure {
        Failure {
            instruction: Some("RUN make all".into()),
            stage: Some("builder".into()),
            step: Some(3),
            exit_code: Some(2),
            locations: vec![Location {
                file: "src/main.c".into(),
                line: Some(4),
                column: Some(1),
                message: Some("unknown type name".into()),
            }],
            excerpt: Some("main.c:4:1: error\u{1b}[0m: unknown type name\nmake: *** 2".into()),
            ..Failure::new(
                Phase::Build,
                Kind::CommandFailed,
                "the command ended with status 2",
            )
            .at("Containerfile", 12)
            .with_hint("Correct it.")
        }
    }

    #[test]
    fn it_looks_like_a_compiler_s() {
        let want = "\
error[command_failed]: the command ended with status 2
  --> Containerfile:12:1
   |
12 | RUN make all
   | ^^^^^^^^^^^^ step 3 of stage builder, exit status 2, the code is at fault
   |
   = help: Correct it.
  at src/main.c:4:1: unknown type name
  it printed:
  | main.c:4:1: error: unknown type name
  | make: *** 2";
        assert_eq!(render(&failure(), None, false), want);
    }

    #[test]
    fn the_line_is_the_user_s_own_where_it_is_here() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("{}  RUN make \\\n all\n", "#\n".repeat(11));
        std::fs::write(dir.path().join("Containerfile"), text).unwrap();
        let shown = render(&failure(), Some(dir.path()), false);
        assert!(
            shown.contains("12 |   RUN make \\\n   |   ^^^^^^^^^^"),
            "{shown}"
        );
        let nowhere = Failure::new(None, Kind::QueueTimedOut, "no capacity");
        let shown = render(&nowhere, None, false);
        assert!(
            shown.starts_with("error[queue_timed_out]: no capacity"),
            "{shown}"
        );
    }
}
