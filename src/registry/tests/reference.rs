use proptest::prelude::*;

use crate::registry::{PushReference, Reference, ReferenceError as E};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn fault(text: &str) -> E {
    PushReference::parse(text).expect_err(text)
}

#[test]
fn whole_references_are_taken_as_written() {
    for text in [
        "localhost/x:1",
        "localhost:5000/team/app:v1.2_3-rc",
        "[::1]:5000/x:y",
        "[2001:db8::1]/x:y",
        "10.0.0.7:5000/x:y",
        "registry.example.com/a/b__c/d---e/f.g_h:_X",
    ] {
        assert_eq!(PushReference::parse(text).unwrap().to_string(), text);
        let pinned = format!("{text}@{DIGEST}");
        assert_eq!(Reference::parse(&pinned).unwrap().to_string(), pinned);
    }
    let reference = Reference::parse(&format!("[::1]:5000/a/x:y@{DIGEST}")).unwrap();
    assert_eq!(reference.repository().host(), "[::1]:5000");
    assert_eq!(reference.repository().name(), "a/x");
    assert_eq!(reference.tag(), Some("y"));
    assert_eq!(reference.digest().unwrap().to_string(), DIGEST);
    assert_eq!(Reference::parse("h:1/x").unwrap().tag(), None);
}

#[test]
fn each_fault_has_its_own_error() {
    assert_eq!(fault(""), E::Empty);
    for text in ["ubuntu", "ubuntu:22.04", "library/ubuntu:1", "user:pw@host"] {
        assert_eq!(fault(text), E::NoHost, "{text}");
    }
    assert_eq!(fault("https://reg.example/x:1"), E::Scheme);
    assert_eq!(fault("user:pw@reg.example/x:1"), E::Credentials);
    assert_eq!(fault("reg.example/x y:1"), E::Characters);
    assert_eq!(fault("reg.exämple/x:1"), E::Characters);
    for text in ["reg.example/", "reg.example/:1"] {
        assert_eq!(fault(text), E::NoRepository, "{text}");
    }
    for port in ["", "0", "65536", "080", "+80", "x", "1:2"] {
        assert_eq!(fault(&format!("h:{port}/x:1")), E::BadPort, "{port}");
    }
    for host in [
        "a..b",
        "-a.b",
        "a-.b",
        ".a",
        "a_b.c",
        "[::1",
        "[::1]x",
        "[x.y]",
        "[fe80::1%25e]",
        "1.2.3",
        "a.0x7f",
        "256.1.1.1",
    ] {
        assert_eq!(fault(&format!("{host}/x:1")), E::BadHost, "{host}");
    }
    for name in [
        "x//y", "/x", "x/", "-x", "x-", "x..y", "x___y", "x._y", "x$y",
    ] {
        assert_eq!(fault(&format!("h.x/{name}:1")), E::BadRepository, "{name}");
    }
    for tag in ["", ".x", "-x", "a b", "a/b", "a:b", "ä", &"x".repeat(129)] {
        assert_eq!(fault(&format!("h.x/y:{tag}")), E::BadTag, "{tag}");
    }
    assert_eq!(fault(&format!("h.x/{}:1", "x".repeat(252))), E::TooLong);
    assert_eq!(fault(&format!("h.x/y:1@{DIGEST}")), E::DigestInPush);
    for digest in [
        "",
        "sha256:",
        "md5:00",
        &DIGEST.to_uppercase(),
        &DIGEST[..70],
    ] {
        let fault = fault(&format!("h.x/y:1@{digest}"));
        assert!(matches!(fault, E::BadDigest(_)), "{digest}");
    }
}

#[test]
fn errors_say_what_would_be_right() {
    let said = |text| fault(text).to_string();
    assert!(said("Reg.Example:5000/x:1").ends_with("did you mean reg.example:5000?"));
    assert!(said("[0:0::1]:5000/x:1").ends_with("did you mean [::1]:5000?"));
    assert_eq!(
        said("reg.example/Team/App:1"),
        "repository must be lower case; did you mean reg.example/team/app?"
    );
    assert_eq!(said("h.x/y"), "a tag is missing; write h.x/y:tag");
    assert!(said("ubuntu:22.04").starts_with("no registry host; write it in full"));
    assert!(!said("user:hunter2@h.x/y:1").contains("hunter2"));
    assert!(!said("user:hunter2/3@h.x/y:1").contains("hunter2"));
}

proptest! {
    #[test]
    fn any_text_is_refused_or_given_back(text in "\\PC{0,80}|[a-z0-9.:/@\\[\\]_A-Z-]{0,60}") {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert_eq!(reference.to_string(), text);
        }
    }
}
