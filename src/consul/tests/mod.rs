//! Against answers that a real Consul gives seldom; `tests/e2e/test_consul.py` has the real one.

use std::time::Duration;

use serde_json::json;
use wiremock::matchers::{header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::config::{Config, Consul, Live};

use super::{Client, ConsulError, Token, Watch};

fn client(server: &MockServer, token: Token) -> Client {
    let consul = Consul {
        address: server.uri(),
        datacenter: Some("dc9".into()),
        ..Consul::default()
    };
    Client::new(&consul, token).unwrap()
}

fn live() -> Live {
    let base: Config = toml::from_str("[consul]\nprefix = \"a/b\"\n").unwrap();
    Live::from(base)
}

fn keys(index: &str, memory: &str) -> ResponseTemplate {
    let entry = json!({"Key": "a/b/limits/memory_mb", "Value": memory, "Flags": 0});
    ResponseTemplate::new(200)
        .insert_header("X-Consul-Index", index)
        .set_body_json(json!([{"Key": "a/b/", "Value": null}, entry]))
}

async fn answers(server: &MockServer, index: &str, answer: ResponseTemplate) {
    Mock::given(method("GET"))
        .and(path("/v1/kv/a/b/"))
        .and(query_param("index", index))
        .and(query_param("recurse", "true"))
        .and(query_param("dc", "dc9"))
        .respond_with(answer)
        .up_to_n_times(1)
        .mount(server)
        .await;
}

#[tokio::test]
async fn an_older_index_begins_anew() {
    let server = MockServer::start().await;
    answers(&server, "0", keys("500", "NTEy")).await;
    answers(&server, "500", keys("20", "MTAyNA==")).await;
    answers(&server, "0", keys("20", "MTAyNA==")).await;
    answers(&server, "20", keys("21", "MjA0OA==")).await;
    let live = live();
    let mut watch = Watch::new(client(&server, Token::None), "a/b/".into(), live.clone());
    for (index, memory) in [(500, 512), (20, 1024), (20, 1024), (21, 2048)] {
        watch.turn().await;
        assert_eq!(live.now().limits.memory_mb, Some(memory));
        assert_eq!(live.standing().unwrap().index, index);
    }
}

#[tokio::test]
async fn after_an_error_it_asks_anew_and_later_each_time() {
    let server = MockServer::start().await;
    answers(&server, "0", keys("7", "NTEy")).await;
    answers(
        &server,
        "7",
        ResponseTemplate::new(500).set_body_string("No cluster leader"),
    )
    .await;
    answers(&server, "0", keys("0", "NTEy")).await;
    let live = live();
    let mut watch = Watch::new(client(&server, Token::None), "a/b/".into(), live.clone());
    watch.turn().await;
    let first = watch.turn().await;
    let why = live.standing().unwrap().unread.unwrap();
    assert!(
        why.contains("No cluster leader") && why.contains("a/b/"),
        "{why}"
    );
    assert_eq!(live.now().limits.memory_mb, Some(512));
    watch.turn().await;
    assert_eq!(live.standing().unwrap().unread, None);
    assert_eq!(live.standing().unwrap().index, 1, "an index is at least 1");
    // Nothing answers any more.
    let mut last = first;
    for _ in 0..8 {
        last = watch.turn().await;
    }
    assert!(
        first <= Duration::from_millis(500) && last > Duration::from_secs(7),
        "{first:?} {last:?}"
    );
}

#[tokio::test]
async fn what_is_no_answer_is_an_error_that_says_so() {
    let server = MockServer::start().await;
    let client = client(&server, Token::None);
    let ask = || client.keys("a/b/", 0, Duration::from_secs(1));
    for (answer, wanted) in [
        (keys("x", "NTEy"), "no X-Consul-Index"),
        (keys("7", "geheim!"), "other keys"),
        (
            ResponseTemplate::new(200)
                .insert_header("X-Consul-Index", "7")
                .set_body_string("\"geheim\""),
            "no list of keys",
        ),
        (
            keys("7", "NTEy").insert_header("X-Consul-Results-Filtered-By-ACLs", "true"),
            "key_prefix read",
        ),
        (
            ResponseTemplate::new(403).set_body_string("ACL not found"),
            "refuses to read the keys below a/b/: ACL not found",
        ),
        (
            ResponseTemplate::new(302).insert_header("Location", "/x"),
            "(302)",
        ),
        (
            ResponseTemplate::new(200).set_body_bytes(vec![b'x'; super::client::MAX_ANSWER + 1]),
            "larger than 8388608 bytes",
        ),
    ] {
        answers(&server, "0", answer).await;
        let error = ask().await.unwrap_err().to_string();
        assert!(
            error.contains(wanted) && !error.contains("geheim"),
            "{error}"
        );
    }
    let nothing = ResponseTemplate::new(404).insert_header("X-Consul-Index", "3");
    let denies = (nothing.clone()).insert_header("X-Consul-Default-ACL-Policy", "deny");
    answers(&server, "0", denies).await;
    let error = ask().await.unwrap_err().to_string();
    assert!(error.contains("there is no token"), "{error}");
    answers(&server, "0", nothing).await;
    let empty = ask().await.unwrap();
    assert_eq!((empty.index, empty.pairs.len()), (3, 0));
}

#[tokio::test]
async fn the_token_is_read_anew_and_told_to_nobody() {
    let server = MockServer::start().await;
    for token in ["geheim-1", "geheim-2"] {
        Mock::given(header("X-Consul-Token", token))
            .respond_with(keys("1", "NTEy"))
            .expect(1)
            .mount(&server)
            .await;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let token = super::token(Some(file.path().into()), |_| Some("geheim-0".into()));
    let client = client(&server, token);
    let ask = || client.keys("a/b/", 0, Duration::from_secs(1));
    for token in ["geheim-1\n", "geheim-2"] {
        std::fs::write(file.path(), token).unwrap();
        ask().await.unwrap();
    }
    for (token, wanted) in [("", "is empty"), ("geheim\u{7f}\n3", "characters")] {
        std::fs::write(file.path(), token).unwrap();
        let error = ask().await.unwrap_err();
        assert!(matches!(error, ConsulError::Setup(_)), "{error}");
        let error = error.to_string();
        assert!(
            error.contains(wanted) && !error.contains("geheim"),
            "{error}"
        );
    }
    let fixed = super::token(None, |name| {
        (name == "CONSUL_HTTP_TOKEN").then(|| "geheim".into())
    });
    assert!(matches!(fixed, Token::Fixed(_)));
    assert!(!format!("{fixed:?} {client:?}").contains("geheim"));
    assert!(matches!(
        super::token(None, |_| Some(" ".into())),
        Token::None
    ));
}
