//! Registries that fail, lie or say nothing.

use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use wiremock::matchers::{any, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::fixture::{Act, Image, auth_for, client, noise, repository, scripted};
use crate::registry::{
    Auth, Client, ClientOptions, Digest, MAX_MANIFEST, Manifest, PushReference, Reference,
    RegistryError as E, TlsFault, Unreachable,
};

const UPLOADS: &str = "/v2/app/blobs/uploads/";
const TAG: &str = "/v2/app/manifests/1";

fn answer(status: u16) -> ResponseTemplate {
    ResponseTemplate::new(status)
}

fn digest_answer(status: u16, digest: &Digest) -> ResponseTemplate {
    answer(status).insert_header("Docker-Content-Digest", digest.to_string())
}

fn manifest() -> Manifest {
    Manifest::new(b"{}".to_vec(), "application/vnd.oci.image.manifest.v1+json")
}

fn target(host: impl std::fmt::Display) -> PushReference {
    PushReference::parse(&format!("{host}/app:1")).unwrap()
}

async fn mount(server: &MockServer, verb: &str, at: &str, answer: ResponseTemplate) {
    let mock = Mock::given(method(verb)).and(path(at));
    mock.respond_with(answer).mount(server).await;
}

async fn requests(server: &MockServer) -> usize {
    server.received_requests().await.unwrap().len()
}

/// What a tag look-up makes of an answer, and after how many requests.
async fn look_up(answer: ResponseTemplate) -> (E, usize) {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(answer).mount(&server).await;
    let reference = target(server.address()).into();
    let auth = auth_for(server.address(), "u", "hunter2");
    let client = client(&[server.address()]);
    let error = client.manifest(&reference, &auth).await.unwrap_err();
    (error, requests(&server).await)
}

#[tokio::test]
async fn an_upload_outlives_server_errors_and_sends_the_blob_as_it_is() {
    let server = MockServer::start().await;
    let image = Image::new(&noise(1 << 20));
    let layout = image.open();
    for verb in ["HEAD", "POST", "PUT"] {
        let once = Mock::given(method(verb)).respond_with(answer(503));
        once.up_to_n_times(1).with_priority(1).mount(&server).await;
    }
    let there = format!("/v2/app/blobs/{}", image.config);
    mount(&server, "HEAD", &there, answer(200)).await;
    let location = answer(202).insert_header("Location", "/upload/7?state=x%2By");
    mount(&server, "POST", UPLOADS, location).await;
    mount(&server, "PUT", "/upload/7", answer(201)).await;

    let mut most = 0;
    let repo = repository(server.address(), "app");
    client(&[server.address()])
        .upload_blobs(&layout, &repo, &Auth::anonymous(), &mut |p| {
            most = most.max(p.bytes_done);
        })
        .await
        .unwrap();
    assert_eq!(most, layout.blobs().iter().map(|b| b.size).sum::<u64>());

    let all = server.received_requests().await.unwrap();
    let puts: Vec<_> = all.iter().filter(|r| r.method == "PUT").collect();
    assert_eq!(puts.len(), 2);
    for put in puts {
        assert_eq!(Digest::of(&put.body), image.layer);
        assert_eq!(put.headers["content-length"], put.body.len().to_string());
        let query: Vec<_> = put.url.query_pairs().into_owned().collect();
        let expected = [("state", "x+y"), ("digest", &image.layer.to_string())];
        assert_eq!(query, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}

#[tokio::test]
async fn there_are_four_attempts_and_only_for_transient_faults() {
    let (error, tries) = look_up(answer(500)).await;
    assert!(matches!(error, E::Server { status: 500, .. }));
    assert_eq!((tries, error.transient()), (4, true));
    for status in [501, 507] {
        let (error, tries) = look_up(answer(status)).await;
        assert!(matches!(error, E::Server { .. }));
        assert_eq!((tries, error.transient()), (1, false));
    }
    for status in [400, 401, 403, 404, 405, 413, 418] {
        let (error, tries) = look_up(answer(status)).await;
        assert_eq!((tries, error.transient()), (1, false), "{status}");
        match (status, error) {
            (401, E::Unauthorized { given: true, .. })
            | (403, E::Denied { .. })
            | (404, E::NotFound { .. }) => {}
            (_, E::Rejected { status: told, .. }) => assert_eq!(told, status),
            (_, other) => panic!("{status}: {other}"),
        }
    }
}

#[tokio::test]
async fn a_wait_that_is_asked_for_is_kept_if_it_is_short() {
    let (error, tries) = look_up(answer(429).insert_header("Retry-After", "31")).await;
    let asked = Some(Duration::from_secs(31));
    assert!(matches!(error, E::TooManyRequests { retry_after, .. } if retry_after == asked));
    assert_eq!((tries, error.transient()), (1, false));

    let date = answer(429).insert_header("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT");
    let (error, tries) = look_up(date).await;
    assert!(matches!(
        error,
        E::TooManyRequests {
            retry_after: None,
            ..
        }
    ));
    assert_eq!(tries, 4);

    let server = MockServer::start().await;
    let soon = answer(429).insert_header("Retry-After", "1");
    let once = Mock::given(any()).respond_with(soon);
    once.up_to_n_times(1).with_priority(1).mount(&server).await;
    let digest = Digest::of(b"x");
    mount(&server, "HEAD", TAG, digest_answer(200, &digest)).await;
    let began = Instant::now();
    let reference = target(server.address()).into();
    let client = client(&[server.address()]);
    let found = client
        .resolve(&reference, &Auth::anonymous())
        .await
        .unwrap();
    assert_eq!(found, Some(digest));
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn torn_connections_are_tried_again() {
    const CREATED: &str = "HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\nDocker-Content-Digest: \
         sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\r\n\r\n";
    let (host, count) = scripted(vec![Act::Hang, Act::Hang, Act::Answer(CREATED)]).await;
    let put = client(&[&host])
        .put_tag(&manifest(), &target(host), &Auth::anonymous())
        .await;
    assert_eq!(put.unwrap(), *manifest().digest());
    assert_eq!(count.load(Ordering::SeqCst), 3);

    let (host, count) = scripted(vec![Act::Hang; 5]).await;
    let put = client(&[&host])
        .put_tag(&manifest(), &target(host), &Auth::anonymous())
        .await;
    let error = put.unwrap_err();
    assert!(
        matches!(
            error,
            E::Unreachable {
                why: Unreachable::Reset,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(count.load(Ordering::SeqCst), 4);
    assert!(error.to_string().contains(&host.to_string()));
}

#[tokio::test]
async fn ways_of_not_being_reached_are_told_apart() {
    let why = |error| match error {
        E::Unreachable { why, .. } => why,
        other => panic!("{other}"),
    };
    let auth = Auth::anonymous();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let refused = client(&[&free]).resolve(&target(free).into(), &auth).await;
    assert_eq!(why(refused.unwrap_err()), Unreachable::Refused);

    let unknown = client(&[])
        .resolve(&target("no-such-host.invalid").into(), &auth)
        .await;
    assert_eq!(why(unknown.unwrap_err()), Unreachable::Dns);

    let server = MockServer::start().await;
    let plain = client(&[])
        .resolve(&target(server.address()).into(), &auth)
        .await;
    match plain.unwrap_err() {
        E::Tls { why, .. } => assert_eq!(why, TlsFault::PlainHttp),
        other => panic!("{other}"),
    }
}

fn impatient(host: impl std::fmt::Display) -> Client {
    Client::new(ClientOptions {
        insecure: vec![host.to_string()],
        read_timeout: Duration::from_millis(300),
        ..ClientOptions::default()
    })
    .unwrap()
}

#[tokio::test]
async fn silence_ends_in_a_timeout() {
    let auth = Auth::anonymous();
    let (host, _) = scripted(vec![Act::Stall]).await;
    let silent = impatient(host).resolve(&target(host).into(), &auth).await;
    let timeout = |error| {
        matches!(
            error,
            E::Unreachable {
                why: Unreachable::Timeout,
                ..
            }
        )
    };
    assert!(timeout(silent.unwrap_err()));

    // More than fits into socket buffers, so that sending comes to a halt.
    let image = Image::new(&noise(16 << 20));
    let absent = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let begun = "HTTP/1.1 202 Accepted\r\nLocation: /u\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n";
    let acts = vec![Act::Answer(absent), Act::Answer(begun), Act::Stall];
    let (host, count) = scripted(acts).await;
    let (layout, repo) = (image.open(), repository(host, "app"));
    let mut calls = 0;
    let client = impatient(host);
    let mut count_calls = |_| calls += 1;
    let upload = client.upload_blobs(&layout, &repo, &auth, &mut count_calls);
    let stalled = tokio::time::timeout(Duration::from_secs(20), upload).await;
    assert!(timeout(stalled.expect("it ends").unwrap_err()));
    assert_eq!(count.load(Ordering::SeqCst), 3);
    assert!(calls > 0);
}

#[tokio::test]
async fn a_slow_upload_that_moves_is_no_timeout() {
    let server = MockServer::start().await;
    let image = Image::new(b"hello");
    let location = answer(202).insert_header("Location", "/u");
    mount(&server, "POST", UPLOADS, location).await;
    // Each answer within the patience, all together beyond it.
    let slow = answer(201).set_delay(Duration::from_millis(200));
    mount(&server, "PUT", "/u", slow).await;
    let repo = repository(server.address(), "app");
    let sent = impatient(server.address())
        .upload_blobs(&image.open(), &repo, &Auth::anonymous(), &mut |_| {})
        .await;
    sent.unwrap();
}

#[tokio::test]
async fn a_digest_not_answered_is_found_out() {
    let server = MockServer::start().await;
    let body = answer(200).set_body_raw("{}", manifest().media_type());
    mount(&server, "PUT", TAG, answer(201)).await;
    mount(&server, "HEAD", TAG, answer(200)).await;
    mount(&server, "GET", TAG, body).await;
    let (client, auth) = (client(&[server.address()]), Auth::anonymous());
    let target = target(server.address());
    let found = client.resolve(&target.clone().into(), &auth).await.unwrap();
    assert_eq!(found.as_ref(), Some(manifest().digest()));
    let put = client.put_tag(&manifest(), &target, &auth).await.unwrap();
    assert_eq!(put, *manifest().digest());

    let other = Manifest::new(b"{ }".to_vec(), manifest().media_type());
    let put = client.put_tag(&other, &target, &auth).await.unwrap_err();
    assert!(matches!(put, E::DigestMismatch { found, .. } if found == *manifest().digest()));
}

#[tokio::test]
async fn a_wrong_digest_is_not_believed() {
    let server = MockServer::start().await;
    let wrong = Digest::of(b"wrong");
    Mock::given(any())
        .respond_with(digest_answer(200, &wrong).set_body_raw("{}", "x/y"))
        .mount(&server)
        .await;
    let (client, auth) = (client(&[server.address()]), Auth::anonymous());
    let target = target(server.address());
    let repo = target.repository();
    let mismatch = |error| matches!(error, E::DigestMismatch { .. });

    assert!(mismatch(
        client
            .put_tag(&manifest(), &target, &auth)
            .await
            .unwrap_err()
    ));
    let put = client
        .put_manifest_by_digest(&manifest(), repo, &auth)
        .await;
    assert!(mismatch(put.unwrap_err()));
    let by_tag = client.manifest(&target.clone().into(), &auth).await;
    assert!(mismatch(by_tag.unwrap_err()));
    let reference = Reference::by_digest(repo.clone(), manifest().digest().clone());
    assert!(mismatch(
        client.resolve(&reference, &auth).await.unwrap_err()
    ));
    // It answers for `wrong` as asked, but the body is another.
    let reference = Reference::by_digest(repo.clone(), wrong);
    assert!(mismatch(
        client.manifest(&reference, &auth).await.unwrap_err()
    ));
}

#[tokio::test]
async fn what_a_registry_says_is_cut_and_cleaned() {
    let message = format!(
        "a\u{1b}[31mb\nc\u{202e}d hunter2 hunter\u{200b}2 {}",
        "x".repeat(2000)
    );
    let errors = json!({"errors": [{"code": "MANIFEST\u{7}_INVALID", "message": message}]});
    let (error, _) = look_up(answer(400).set_body_json(&errors)).await;
    match error {
        E::Rejected { code, message, .. } => {
            assert_eq!(code, "MANIFEST_INVALID");
            assert!(message.starts_with("a[31mb cd *** *** xxx"), "{message}");
            assert_eq!(message.chars().count(), 500);
        }
        other => panic!("{other}"),
    }
    let (error, _) = look_up(answer(403).set_body_string("go away")).await;
    assert!(
        error.to_string().ends_with("denies this: go away"),
        "{error}"
    );
    let (error, _) = look_up(answer(400).set_body_bytes(vec![b'y'; 4 << 20])).await;
    assert!(error.to_string().len() < 700);
}

#[tokio::test]
async fn a_huge_manifest_is_not_taken() {
    let huge = vec![b' '; usize::try_from(MAX_MANIFEST).unwrap() + 1];
    let (error, _) = look_up(answer(200).set_body_bytes(huge)).await;
    assert!(matches!(error, E::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn an_upload_without_a_usable_location_is_against_the_rules() {
    for location in [
        None,
        Some("http://[bad"),
        Some("ftp://h.x/u"),
        Some("http://h.x/u"),
    ] {
        let server = MockServer::start().await;
        let mut begun = answer(202);
        if let Some(location) = location {
            begun = begun.insert_header("Location", location);
        }
        mount(&server, "POST", UPLOADS, begun).await;
        let repo = repository(server.address(), "app");
        let client = client(&[server.address()]);
        let error = client.check_push_access(&repo, &Auth::anonymous()).await;
        assert!(matches!(error, Err(E::Protocol { .. })), "{location:?}");
    }
}

#[tokio::test]
async fn access_is_given_even_if_the_upload_cannot_be_cancelled() {
    let server = MockServer::start().await;
    let location = answer(202).insert_header("Location", "/u");
    mount(&server, "POST", UPLOADS, location).await;
    mount(&server, "DELETE", "/u", answer(405)).await;
    let repo = repository(server.address(), "app");
    let client = client(&[server.address()]);
    client
        .check_push_access(&repo, &Auth::anonymous())
        .await
        .unwrap();
    assert_eq!(requests(&server).await, 2, "it was tried");
}

#[test]
fn a_ca_file_must_hold_certificates() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for ca_file in ["/nowhere/ca.pem".into(), file.path().to_owned()] {
        let client = Client::new(ClientOptions {
            ca_file: Some(ca_file),
            ..ClientOptions::default()
        });
        assert!(matches!(client, Err(E::Setup(_))));
    }
}
