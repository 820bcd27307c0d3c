use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;

/// Some characters percent-encoded, by the bits of `which`.
fn percent(text: &str, which: u64, upper: bool) -> String {
    let one = |(i, byte): (usize, u8)| match (which >> (i % 64)) & 1 {
        0 if !b"%+ ".contains(&byte) => char::from(byte).to_string(),
        _ if upper => format!("%{byte:02X}"),
        _ => format!("%{byte:02x}"),
    };
    text.bytes().enumerate().map(one).collect()
}

fn escaped(text: &str, which: u64) -> String {
    let one = |(i, c): (usize, char)| match (which >> (i % 64)) & 3 {
        1 => format!("\\u{:04x}", u32::from(c)),
        2 => format!("\\x{:02X}", u32::from(c)),
        _ if "\"\\".contains(c) => format!("\\{c}"),
        _ => c.to_string(),
    };
    text.chars().enumerate().map(one).collect()
}

/// Whether something is in what a redactor left; the masks are none of it.
fn remains(out: &str, secret: &str) -> bool {
    out.split("[secret]").any(|part| part.contains(secret))
}

proptest! {
    #[test]
    fn never_leaks(
        secret in "[!-~]{4,60}", before in "[a-z ]{0,7}", after in "[a-z ]{0,7}", which: u64, upper: bool) {
        let redactor = Redactor::new([secret.as_str()]);
        let mixed = format!("{before}{secret}{after}");
        let json = serde_json::to_string(&mixed).unwrap();
        let leaks = [
            mixed.clone(),
            percent(&mixed, which, upper),
            percent(&percent(&mixed, which, upper), which >> 7, upper),
            percent(&escaped(&mixed, which), which >> 3, upper),
            url::form_urlencoded::byte_serialize(mixed.as_bytes()).collect(),
            escaped(&mixed, which),
            json.clone(),
            serde_json::to_string(&json).unwrap(),
            hex::encode(&mixed),
            hex::encode_upper(&secret),
            format!("key={} ", STANDARD.encode(&mixed)),
            STANDARD_NO_PAD.encode(&mixed),
            URL_SAFE.encode(&mixed),
            URL_SAFE_NO_PAD.encode(&secret),
        ];
        for leak in leaks {
            let out = redactor.text(&leak);
            prop_assert!(out.contains("[secret]"), "{leak} -> {out}");
            prop_assert!(!remains(&out, &secret), "{leak} -> {out}");
        }
        for encoded in [STANDARD.encode(&mixed), hex::encode(&mixed)] {
            prop_assert_eq!(redactor.text(&encoded), "[secret]", "nothing of the word remains");
        }
    }

    #[test]
    fn terminal_sequences_within_a_secret_hide_nothing(secret in "[!-~]{6,40}", at in 1usize..5) {
        let redactor = Redactor::new([secret.as_str()]);
        let (one, two) = secret.split_at(at);
        for within in ["\u{1b}[31m", "\u{200b}", "\u{1b}]0;t\u{7}", "\u{7}"] {
            let out = redactor.line(&format!("{one}{within}{two}"));
            prop_assert_eq!(out, "[secret]");
        }
    }

    #[test]
    fn broken_lines_of_base64_and_hex_leak_nothing(
        secret in "[!-~]{60,300}", before in "[a-z]{0,5}", width in prop::sample::select(vec![64usize, 76])) {
        let redactor = Redactor::new([secret.as_str()]);
        let text = format!("{before}{secret}\n");
        for encoded in [STANDARD.encode(&text), hex::encode(&text)] {
            for line in encoded.as_bytes().chunks(width) {
                let line = std::str::from_utf8(line).unwrap();
                let out = redactor.text(line);
                prop_assert!(out == "[secret]" || line.len() < 16, "{line} -> {out}");
            }
        }
    }

    #[test]
    fn all_of_several_secrets_go(secrets in prop::collection::vec("[a-c]{4,7}", 1..6), text in "[a-c ]{0,60}") {
        let out = Redactor::new(secrets.iter().map(String::as_str)).text(&text);
        for secret in &secrets {
            prop_assert!(!remains(&out, secret), "{secret} is in {out}");
        }
        let any = secrets.iter().any(|secret| text.contains(secret.as_str()));
        prop_assert_eq!(any, out != text, "nothing else is masked");
    }

    #[test]
    fn arbitrary_bytes_never_panic(secrets: Vec<String>, bytes: Vec<u8>, escapes in "[%\\\\ux0-9a-f\"]{0,40}") {
        let redactor = Redactor::new(secrets.iter().map(String::as_str));
        let _ = redactor.apply(&bytes);
        let _ = redactor.line(&escapes);
        let _ = redactor.line(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn each_line_of_a_long_secret_is_one() {
    let redactor = Redactor::new(["-----BEGIN-----\n  abcdefgh\n"]);
    assert_eq!(redactor.text("x abcdefgh y"), "x [secret] y");
    assert_eq!(redactor.text("nothing"), "nothing");
    assert!(!format!("{redactor:?}").contains("abcdefgh"));
}

#[test]
fn values_within_a_secret_are_secrets() {
    let redactor = Redactor::new([
        "//registry.npmjs.org/:_authToken=npm_a1b2c3d4e5f6g7h8",
        "{\n  \"type\": \"account\",\n  \"private_key_id\": \"0123456789abcdef0123\",\n}",
    ]);
    assert_eq!(
        redactor.text("token npm_a1b2c3d4e5f6g7h8!"),
        "token [secret]!"
    );
    assert_eq!(redactor.text("id=0123456789abcdef0123"), "id=[secret]");
    let harmless = "https://registry.npmjs.org/ type: account";
    assert_eq!(redactor.text(harmless), harmless);
}

#[test]
fn what_is_escaped_and_no_secret_stays() {
    let redactor = Redactor::new(["p@ssw0rd"]);
    for text in [r"50% done, C:\new\table \u12 %zz %", r"%41%42 \x41 \", ""] {
        assert_eq!(redactor.text(text), text);
    }
    assert_eq!(redactor.text("u:p%40ssw0rd@h"), "u:[secret]@h");
}

#[test]
fn a_secret_that_is_no_text_is_found_encoded() {
    let secret: Vec<u8> = (0..200u8).map(|n| n.wrapping_mul(37) | 0x80).collect();
    let redactor = Redactor::new([&secret]);
    let encoded = STANDARD.encode(&secret);
    for text in [encoded.clone(), hex::encode(&secret)] {
        let lines: Vec<String> = (text.as_bytes().chunks(76))
            .map(|line| redactor.text(&String::from_utf8_lossy(line)))
            .collect();
        assert!(
            lines
                .iter()
                .all(|line| line == "[secret]" || line.len() < 20),
            "{lines:?}"
        );
    }
}
