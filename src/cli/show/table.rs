//! Builds in a table.

use crate::build::status::{BuildStatus, StatusAnswer};
use crate::build::{State, clean};

/// Longest summary, in characters.
const WIDEST: usize = 120;

/// A row for each build, and how many there are.
pub fn table(answer: &StatusAnswer) -> String {
    let mut rows = vec![["BUILD", "NAME", "STATE", "ELAPSED", "SUMMARY"].map(String::from)];
    rows.extend(answer.builds.iter().map(row));
    let widths: Vec<usize> = (0..4)
        .map(|column| {
            let texts = rows.iter().filter_map(|row| row.get(column));
            texts.map(|text| text.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut out: Vec<String> = (rows.iter())
        .map(|row| {
            let padded = row.iter().zip(&widths);
            let mut line: String = padded
                .map(|(text, width)| format!("{text:width$}  "))
                .collect();
            line.push_str(row.last().map_or("", String::as_str));
            line.trim_end().to_owned()
        })
        .collect();
    if answer.builds.is_empty() {
        out = vec!["no builds".into()];
    }
    if answer.next_cursor.is_some() {
        out.push("there are more: --limit shows them".into());
    }
    if let Some(offers) = &answer.offers {
        let listed = [
            ("profiles to build with (--profile)", &offers.profiles),
            ("secrets that are offered (--secret)", &offers.secrets),
        ];
        let some = listed.iter().filter(|(_, names)| !names.is_empty());
        out.extend(some.map(|(what, names)| format!("{what}: {}", names.join(", "))));
    }
    out.join("\n")
}

fn row(build: &BuildStatus) -> [String; 5] {
    let state = match build
        .phase
        .filter(|_| build.state() == Some(State::Running))
    {
        Some(phase) => format!("running {}", phase.as_str()),
        None => build.state.clone(),
    };
    let elapsed = build.elapsed_seconds.map(duration).unwrap_or_default();
    let name = build.name.clone().unwrap_or_default();
    let summary = clean::short(&build.summary, WIDEST);
    [build.build_id.clone(), name, state, elapsed, summary]
}

/// Seconds, as people say them.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        _ => format!("{}:{:02} h", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Phase;

    #[test]
    fn columns_stand_below_each_other() {
        let build = |id: &str, state: &str, phase, elapsed| BuildStatus {
            build_id: id.into(),
            state: state.into(),
            phase,
            elapsed_seconds: elapsed,
            summary: format!("Summary of {id}"),
            ..BuildStatus::default()
        };
        let answer = StatusAnswer {
            builds: vec![
                build("aaaaa-aaaaa", "running", Some(Phase::Build), Some(75)),
                build("bbbbb-bbbbb", "queued", None, None),
            ],
            next_cursor: Some("x".into()),
            ..StatusAnswer::default()
        };
        assert_eq!(
            table(&answer),
            "BUILD        NAME  STATE          ELAPSED   SUMMARY\n\
             aaaaa-aaaaa        running build  1:15 min  Summary of aaaaa-aaaaa\n\
             bbbbb-bbbbb        queued                   Summary of bbbbb-bbbbb\n\
             there are more: --limit shows them"
        );
        assert_eq!(table(&StatusAnswer::default()), "no builds");
        assert_eq!(duration(3700), "1:01 h");
    }
}
