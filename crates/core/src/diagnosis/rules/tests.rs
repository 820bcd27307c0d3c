use super::*;
use crate::build::clean;

fn samples(rule: &Rule) -> Vec<String> {
    rule.sample.iter().chain(&rule.samples).cloned().collect()
}

/// The lines of a sample, as the log has them.
fn cleaned(sample: &str) -> Vec<String> {
    let lines = sample.lines().filter(|line| !line.is_empty());
    lines.map(clean::line).collect()
}

/// The rule that has any of the lines of a sample, the first line first.
fn taken(rules: &Rules, sample: &str, rule: &Rule) -> Option<String> {
    let lines = cleaned(sample);
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let told = lines.iter().enumerate().find_map(|(index, line)| {
        let (quoted, said) = of_step(line, None);
        let asked = Asked {
            line: &said,
            next: lines.get(index + 1..).unwrap_or_default(),
            step: rule.sample_step.as_deref().unwrap_or(quoted),
        };
        rules.of(asked, |asked| {
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

/// The lines of all samples of what can be the reason of a command's failure.
pub(in crate::diagnosis) fn deciding() -> Vec<String> {
    let rules = Rules::compile(COMMANDS, LOOKED_AT).unwrap();
    let deciding = rules
        .known
        .iter()
        .filter(|known| matches!(known.rule.weight, Weight::Cause | Weight::General));
    deciding
        .flat_map(|known| {
            let pattern = one(&known.rule.pattern).unwrap();
            let lines = samples(&known.rule)
                .into_iter()
                .flat_map(|sample| cleaned(&sample));
            lines
                .filter(|line| pattern.is_match(line.as_bytes()))
                .collect::<Vec<String>>()
        })
        .collect()
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
        let asked = Asked {
            line,
            next: &[],
            step: "RUN x",
        };
        let told = rules.of(asked, |_| true);
        assert!(
            told.is_none(),
            "{line}: {:?}",
            told.map(|known| &known.rule.pattern)
        );
    }
}

#[test]
fn the_words_of_an_instruction_are_no_words_of_buildah() {
    for (text, instruction, kind) in [
        (
            "Error: building at STEP \"RUN useradd unknown user\": committing: copying layers: no space left on device",
            "RUN",
            Some(Kind::DiskFull),
        ),
        (
            "Error: building at STEP \"RUN make\": mounting container: creating overlay mount to /c/s/overlay/x/merged: no such file or directory",
            "RUN",
            None,
        ),
        (
            "Error: creating build container: mounting new container: creating overlay mount to /c/merged: permission denied: x",
            "FROM",
            None,
        ),
    ] {
        let told = for_buildah(text, Some(instruction));
        assert_eq!(told.map(|known| known.rule.kind), kind, "{text}");
    }
    let instruction = "RUN echo \"x\": no space left on device";
    let text = format!("Error: building at STEP \"{instruction}\": committing: manifest unknown");
    let told = for_buildah(&text, Some(instruction));
    assert_eq!(told.map(|known| known.rule.kind), Some(Kind::ImageNotFound));
}

#[test]
fn both_ends_of_a_long_line_are_looked_at() {
    let artifacts = "org.springframework.boot:spring-boot-starter-web:jar:3.2.1, ".repeat(60);
    let line = format!(
        "[ERROR] Failed to execute goal on project app: The following artifacts could not be resolved: {artifacts}: Could not transfer artifact x from/to central (https://repo.maven.apache.org/maven2): Connect timed out -> [Help 1]"
    );
    let told = for_command(&line, &[], 1, "RUN mvn package");
    assert_eq!(
        told.map(|known| known.rule.kind),
        Some(Kind::DownloadTimedOut)
    );
}
