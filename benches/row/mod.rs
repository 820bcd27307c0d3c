//! Rows of the table that `make bench` ends with (`benches/run.sh` collects them).

use std::fmt::Display;

/// What a ratio should be.
pub enum Goal {
    AtMost(f64),
    #[allow(dead_code, reason = "not every benchmark has such a goal")]
    AtLeast(f64),
    #[allow(dead_code, reason = "not every figure has one")]
    None,
}

/// Prints what was measured, beside what it was measured, the first as a multiple of the second, and whether that
/// is the goal. Beside an absolute goal the ratio is the part of it that is taken.
pub fn row(what: &str, measured: impl Display, beside: impl Display, ratio: f64, goal: Goal) {
    let (goal, met) = match goal {
        Goal::AtMost(most) => (format!("at most {most}"), ratio <= most),
        Goal::AtLeast(least) => (format!("at least {least}"), ratio >= least),
        Goal::None => (String::new(), true),
    };
    let missed = if met { "" } else { "missed" };
    println!("| {what} | {measured} | {beside} | {ratio:.2} | {goal} | {missed} |");
}
