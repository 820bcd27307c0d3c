use super::*;

fn samples(rule: &Rule) -> Vec<String> {
    rule.sample.iter().chain(&rule.samples).cloned().collect()
}

/// The rule that has any of the lines of a sample, the first line first.
fn taken(rules: &Rules, sample: &str, rule: &Rule) -> Option<String> {
    let lines: Vec<&str> = sample.lines().filter(|line| !line.is_empty()).collect();
    let told = lines.iter().enumerate().find_map(|(index, line)| {
        let next = lines.get(index + 1..).unwrap_or_default();
        rules.of(line, next, |asked| {
            (asked.status.is_empty()
                || rule
                    .status
                    .first()
                    .is_none_or(|status| asked.status.contains(status)))
                && (asked.only.is_empty() || asked.only.iter().any(|only| rule.only.contains(only)))
        })
    });
    told.map(|known| format!("{}: {}", known.family, known.rule.pattern))
}

fn check(files: &[(&'static str, &str)]) {
    let rules = Rules::compile(files, LOOKED_AT_OWN).unwrap();
    let mut wrong = Vec::new();
    for known in &rules.known {
        let rule = &known.rule;
        let own = format!("{}: {}", known.family, rule.pattern);
        let samples = samples(rule);
        if samples.is_empty() {
            wrong.push(format!("{own} has no sample"));
        }
        for sample in samples {
            let told = taken(&rules, &sample, rule);
            if told.as_ref() != Some(&own) {
                wrong.push(format!("{sample}\n  is for {own}\n  and goes to {told:?}"));
            }
        }
        if let Some(hint) = &rule.hint {
            assert!(hint.ends_with('.'), "{hint}");
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn each_rule_of_buildah_has_its_samples() {
    check(BUILDAH);
}

#[test]
fn each_rule_of_commands_has_its_samples() {
    check(COMMANDS);
}

#[test]
fn what_a_command_prints_can_be_made_up() {
    let rules = Rules::compile(COMMANDS, LOOKED_AT).unwrap();
    for known in &rules.known {
        assert!(
            matches!(known.rule.fault, None | Some(Fault::Code | Fault::Unknown)),
            "{}",
            known.rule.pattern
        );
    }
}

#[test]
fn ordinary_lines_have_no_rule() {
    let rules = Rules::compile(COMMANDS, LOOKED_AT).unwrap();
    for line in [
        "",
        "Reading package lists...",
        "Get:1 http://deb.debian.org/debian bookworm InRelease [151 kB]",
        "Collecting flask==2.0",
        "   Compiling serde v1.0.200",
        "go: downloading golang.org/x/text v0.3.0",
        "added 120 packages in 3s",
        "gcc -Wall -Werror -c error.c -o error.o",
        "0 errors, 3 warnings",
        "test tests::it ... ok",
        "[INFO] BUILD SUCCESS",
        "checking for strerror... yes",
        "-- Looking for pthread_create - not found",
        "fetch https://dl-cdn.alpinelinux.org/alpine/v3.21/main/x86_64/APKINDEX.tar.gz",
    ] {
        let told = rules.of(line, &[], |_| true);
        assert!(
            told.is_none(),
            "{line}: {:?}",
            told.map(|known| &known.rule.pattern)
        );
    }
}
