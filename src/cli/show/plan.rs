//! What would be built.

use crate::build::clean;
use crate::build::status::{BuildStatus, PlanStatus};

/// What a build that was only validated would do, and what nobody has looked at.
pub fn plan(status: &BuildStatus) -> String {
    let mut out = vec![status.summary.clone()];
    out.extend(status.plan.iter().flat_map(words));
    out.extend(status.notes.iter().map(|note| format!("note: {note}")));
    let lines = out.iter().map(|line| clean::line(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn words(plan: &PlanStatus) -> Vec<String> {
    let mut out = plan.words();
    for (what, list) in [
        ("test", &plan.tests),
        ("tag", &plan.tags),
        ("output", &plan.outputs),
        ("not checked:", &plan.not_checked),
    ] {
        out.extend(list.iter().map(|one| format!("{what} {one}")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::status::PlanStage;

    #[test]
    fn it_says_what_would_be_done_and_what_was_not_looked_at() {
        let stage = PlanStage {
            name: "0".into(),
            base: "h/base:1\u{1b}[2J".into(),
            steps: 3,
            line: 2,
        };
        let status = BuildStatus {
            summary: "valid: 1 stages".into(),
            plan: Some(PlanStatus {
                stages: vec![stage],
                tests: vec!["unit".into()],
                not_checked: vec!["whether the tags may be pushed".into()],
                ..PlanStatus::default()
            }),
            ..BuildStatus::default()
        };
        assert_eq!(
            plan(&status),
            "valid: 1 stages\nstage 0 from h/base:1 (line 2, 3 steps)\ntest unit\nnot checked: whether the tags may be pushed"
        );
    }
}
