//! Who is told which secret.

use serde_json::json;
use wiremock::matchers::{
    any, body_string_contains, header, header_exists, method, path, query_param,
};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::fixture::{Image, auth_for, client, repository};
use crate::registry::{Auth, Client, Digest, Reference, RegistryError as E};

const BASIC: &str = "Basic dTpodW50ZXIy";
const TAG: &str = "/v2/app/manifests/1";

fn answer(status: u16) -> ResponseTemplate {
    ResponseTemplate::new(status)
}

fn found() -> ResponseTemplate {
    answer(200).insert_header("Docker-Content-Digest", Digest::of(b"x").to_string())
}

fn challenge(realm: &str) -> ResponseTemplate {
    let bearer =
        format!(r#"Bearer realm="{realm}",service="reg \"x\"",scope="repository:other:*""#);
    answer(401)
        .append_header("WWW-Authenticate", "Basic realm=\"x\"")
        .append_header("WWW-Authenticate", bearer)
}

/// A registry that knows `token`, and else sends to its own token server.
async fn registry(token: &str) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(path(TAG))
        .and(header("Authorization", format!("Bearer {token}")))
        .respond_with(found())
        .mount(&server)
        .await;
    Mock::given(any())
        .respond_with(challenge(&format!("{}/token?a=b", server.uri())))
        .with_priority(9)
        .mount(&server)
        .await;
    server
}

async fn grants(server: &MockServer, answer: serde_json::Value) {
    Mock::given(method("GET"))
        .and(path("/token"))
        .and(header("Authorization", BASIC))
        .and(query_param("a", "b"))
        .and(query_param("service", "reg \"x\""))
        .and(query_param("scope", "repository:app:pull"))
        .respond_with(ResponseTemplate::new(200).set_body_json(answer))
        .with_priority(1)
        .mount(server)
        .await;
}

async fn token_requests(server: &MockServer) -> usize {
    let all = server.received_requests().await.unwrap();
    all.iter().filter(|r| r.url.path() == "/token").count()
}

fn tag(server: &MockServer) -> Reference {
    Reference::parse(&format!("{}/app:1", server.address())).unwrap()
}

async fn resolve(client: &Client, server: &MockServer, auth: &Auth) -> Result<Digest, E> {
    let found = client.resolve(&tag(server), auth).await?;
    Ok(found.expect("it's there"))
}

#[tokio::test]
async fn a_token_is_fetched_once_for_a_scope_and_a_credential() {
    let server = registry("t1").await;
    grants(&server, json!({"token": "t1", "expires_in": 300})).await;
    let client = client(&[server.address()]);
    let auth = auth_for(server.address(), "u", "hunter2");
    for _ in 0..3 {
        assert_eq!(
            resolve(&client, &server, &auth).await.unwrap(),
            Digest::of(b"x")
        );
    }
    assert_eq!(token_requests(&server).await, 1);
    let stranger = resolve(&client, &server, &Auth::anonymous()).await;
    assert!(matches!(
        stranger,
        Err(E::Unauthorized { given: false, .. })
    ));
}

#[tokio::test]
async fn a_token_about_to_end_is_renewed_before_it_is_used() {
    let server = registry("t1").await;
    grants(&server, json!({"access_token": "t1", "expires_in": 5})).await;
    let client = client(&[server.address()]);
    let auth = auth_for(server.address(), "u", "hunter2");
    for _ in 0..3 {
        resolve(&client, &server, &auth).await.unwrap();
    }
    assert_eq!(token_requests(&server).await, 3);
    let all = server.received_requests().await.unwrap();
    let refused = all
        .iter()
        .filter(|r| r.url.path() == TAG && !r.headers.contains_key("authorization"));
    assert_eq!(refused.count(), 1, "only the first had no token");
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let server = registry("t2").await;
    Mock::given(method("POST"))
        .and(path("/token"))
        .and(body_string_contains("grant_type=refresh_token"))
        .and(body_string_contains("refresh_token=re%26fresh"))
        .and(body_string_contains("scope=repository%3Aapp%3Apull"))
        .respond_with(answer(200).set_body_json(json!({"access_token": "t2"})))
        .with_priority(1)
        .mount(&server)
        .await;
    let file = json!({"auths": {server.address().to_string(): {"identitytoken": "re&fresh"}}});
    let auth = Auth::from_slice(file.to_string().as_bytes()).unwrap();
    resolve(&client(&[server.address()]), &server, &auth)
        .await
        .unwrap();
}

#[tokio::test]
async fn token_servers_that_fail_are_not_a_missing_image() {
    type Expected = fn(&E) -> bool;
    let cases: [(_, Expected); 6] = [
        (answer(401), |e| {
            matches!(e, E::Unauthorized { given: true, .. })
        }),
        (answer(403), |e| matches!(e, E::Denied { .. })),
        (answer(404), |e| matches!(e, E::Protocol { .. })),
        (answer(500), |e| matches!(e, E::Server { .. })),
        (answer(200).set_body_string("{}"), |e| {
            matches!(e, E::Protocol { .. })
        }),
        (answer(200).set_body_json(json!({"token": "a\nb"})), |e| {
            matches!(e, E::Protocol { .. })
        }),
    ];
    for (at, (token, expected)) in cases.into_iter().enumerate() {
        let server = registry("t1").await;
        let mock = Mock::given(path("/token")).respond_with(token);
        mock.with_priority(1).mount(&server).await;
        let auth = auth_for(server.address(), "u", "hunter2");
        let error = resolve(&client(&[server.address()]), &server, &auth)
            .await
            .unwrap_err();
        assert!(expected(&error), "{at}: {error}");
    }
}

#[tokio::test]
async fn a_token_without_the_right_is_a_denial_and_is_not_shown() {
    let server = MockServer::start().await;
    let lacking = answer(401)
        .insert_header(
            "WWW-Authenticate",
            r#"Bearer realm="https://t.x",error="insufficient_scope""#,
        )
        .set_body_string("not for secret-token or hunter2 or dTpodW50ZXIy");
    Mock::given(header_exists("Authorization"))
        .respond_with(lacking)
        .mount(&server)
        .await;
    grants(&server, json!({"token": "secret-token"})).await;
    let realm = challenge(&format!("{}/token?a=b", server.uri()));
    Mock::given(any())
        .respond_with(realm)
        .with_priority(9)
        .mount(&server)
        .await;
    let auth = auth_for(server.address(), "u", "hunter2");
    let client = client(&[server.address()]);
    let error = client.manifest(&tag(&server), &auth).await.unwrap_err();
    assert!(matches!(error, E::Denied { .. }), "{error}");
    assert!(
        error.to_string().ends_with("not for *** or *** or ***"),
        "{error}"
    );
}

#[tokio::test]
async fn no_secret_goes_to_a_token_server_in_plain_http() {
    let (server, foreign) = (MockServer::start().await, MockServer::start().await);
    let realm = challenge(&format!("{}/token", foreign.uri()));
    Mock::given(any()).respond_with(realm).mount(&server).await;
    let auth = auth_for(server.address(), "u", "hunter2");
    let error = resolve(&client(&[server.address()]), &server, &auth)
        .await
        .unwrap_err();
    assert!(matches!(error, E::Protocol { .. }), "{error}");
    assert!(foreign.received_requests().await.unwrap().is_empty());
}

/// A registry that takes `BASIC` only, and another host that takes anything.
async fn pair() -> (MockServer, MockServer) {
    let (home, foreign) = (MockServer::start().await, MockServer::start().await);
    let basic = answer(401).insert_header("WWW-Authenticate", "Basic realm=\"x\"");
    Mock::given(any())
        .respond_with(basic)
        .with_priority(9)
        .mount(&home)
        .await;
    Mock::given(any())
        .respond_with(found())
        .mount(&foreign)
        .await;
    (home, foreign)
}

async fn at_home(home: &MockServer, verb: &str, answer: ResponseTemplate) {
    Mock::given(method(verb))
        .and(header("Authorization", BASIC))
        .respond_with(answer)
        .mount(home)
        .await;
}

async fn assert_told_nothing(foreign: &MockServer) {
    let all = foreign.received_requests().await.unwrap();
    assert!(!all.is_empty());
    assert!(all.iter().all(|r| !r.headers.contains_key("authorization")));
}

#[tokio::test]
async fn redirects_carry_no_authorization_to_another_host() {
    let (home, foreign) = pair().await;
    let elsewhere = format!("{}/m", foreign.uri());
    at_home(
        &home,
        "HEAD",
        answer(307).insert_header("Location", elsewhere),
    )
    .await;
    let auth = auth_for(home.address(), "u", "hunter2");
    let both = client(&[home.address(), foreign.address()]);
    assert_eq!(
        resolve(&both, &home, &auth).await.unwrap(),
        Digest::of(b"x")
    );
    assert_told_nothing(&foreign).await;

    let only_home = client(&[home.address()]);
    let error = resolve(&only_home, &home, &auth).await.unwrap_err();
    assert!(matches!(error, E::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn redirects_end_and_writes_follow_none() {
    let server = MockServer::start().await;
    let round = answer(307).insert_header("Location", TAG);
    Mock::given(any()).respond_with(round).mount(&server).await;
    let (client, auth) = (client(&[server.address()]), Auth::anonymous());
    let error = resolve(&client, &server, &auth).await.unwrap_err();
    assert!(matches!(error, E::Rejected { status: 307, .. }), "{error}");
    assert_eq!(server.received_requests().await.unwrap().len(), 6);
    let repo = repository(server.address(), "app");
    let error = client.check_push_access(&repo, &auth).await.unwrap_err();
    assert!(matches!(error, E::Rejected { status: 307, .. }), "{error}");
    assert_eq!(server.received_requests().await.unwrap().len(), 7);
}

#[tokio::test]
async fn uploads_elsewhere_carry_no_authorization() {
    let (home, foreign) = pair().await;
    let elsewhere = format!("{}/u?signature=s", foreign.uri());
    at_home(&home, "HEAD", answer(404)).await;
    at_home(
        &home,
        "POST",
        answer(202).insert_header("Location", elsewhere),
    )
    .await;
    let image = Image::new(b"hello");
    let auth = auth_for(home.address(), "u", "hunter2");
    client(&[home.address(), foreign.address()])
        .upload_blobs(
            &image.open(),
            &repository(home.address(), "app"),
            &auth,
            &mut |_| {},
        )
        .await
        .unwrap();
    assert_told_nothing(&foreign).await;
}
