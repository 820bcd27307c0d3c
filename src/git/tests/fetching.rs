//! Branches, tags, commits, credentials, and each way to fail.

use super::*;

/// Two commits on `main`, the tag `v1` on the first, a branch `side`.
fn history() -> (Author, String, String) {
    let author = Author::new();
    let first = author.write("a", "1").commit();
    author.git(&["tag", "-a", "-m", "one", "v1"]);
    let second = author.write("a", "2").write("sub/b", "x").commit();
    author.git(&["branch", "side"]);
    (author, first, second)
}

#[tokio::test]
async fn branches_tags_and_commits() {
    let (author, first, second) = history();
    author.git(&["update-ref", "refs/pull/1/head", &first]);
    let server = Server::start(author.root.path(), Manner::default());
    let url = format!("{}/repo.git", server.url);
    for (reference, commit, ref_kind) in [
        (None, &second, RefKind::DefaultBranch),
        (Some("side"), &second, RefKind::Branch),
        (Some("refs/heads/main"), &second, RefKind::Branch),
        (Some("v1"), &first, RefKind::Tag),
        (Some("refs/pull/1/head"), &first, RefKind::Other),
        (Some(first.as_str()), &first, RefKind::Commit),
    ] {
        let mut client = Client::new();
        let fetched = client.fetch(&url, reference).await.unwrap();
        let commit = commit.clone();
        assert_eq!(fetched, Fetched { commit, ref_kind }, "{reference:?}");
        let expected = if fetched.commit == first { "1" } else { "2" };
        assert_eq!(client.read("a"), expected);
        assert!(!client.tree().join(".git").exists());
        let shallow = client.root.path().join("git/shallow");
        assert!(fetched.commit == first || shallow.exists());
    }
}

#[tokio::test]
async fn an_old_server_costs_the_history() {
    let (author, first, _) = history();
    author.git(&["tag", "-d", "v1"]);
    let old = Manner {
        old: true,
        ..Manner::default()
    };
    let server = Server::start(author.root.path(), old);
    let url = format!("{}/repo.git", server.url);
    let mut client = Client::new();
    let fetched = client.fetch(&url, Some(&first)).await.unwrap();
    assert_eq!((fetched.commit, client.read("a")), (first, "1".to_owned()));
    let told = |line: &String| line.contains("fetching all branches and tags");
    assert!(client.lines.iter().any(told));
    let missing = "0123456789".repeat(4);
    assert_eq!(
        refused(&server, Some(&missing)).await,
        GitErrorKind::RefNotFound
    );
}

#[tokio::test]
async fn names_that_are_not_there() {
    let (author, first, _) = history();
    author.git(&["tag", "blob", &author.blob("x")]);
    let server = Server::start(author.root.path(), Manner::default());
    let missing = "0123456789".repeat(4);
    for name in ["nope", "blob", &first[..8], missing.as_str()] {
        let kind = refused(&server, Some(name)).await;
        assert_eq!(kind, GitErrorKind::RefNotFound, "{name}");
    }
    let url = format!("{}/repo.git", server.url);
    let error = Client::new().fetch(&url, Some(&first[..8])).await;
    assert!(error.unwrap_err().message.contains("full id"));
    let url = format!("{}/other.git", server.url);
    let error = Client::new().fetch(&url, None).await.unwrap_err();
    assert_eq!(error.kind, GitErrorKind::RepositoryNotFound, "{error}");
}

#[tokio::test]
async fn credentials_go_to_their_prefix_only() {
    let (author, ..) = history();
    let manner = Manner {
        login: Some("user:hunter2".to_owned()),
        ..Manner::default()
    };
    let server = Server::start(author.root.path(), manner);
    let url = format!("{}/repo.git", server.url);
    let credentials = |path: &str, token: &str| {
        let prefix = GitUrl::parse(&format!("{}/{path}", server.url), true).unwrap();
        Credentials::basic(prefix, "user", token).unwrap()
    };
    let fetch = async |credentials: Vec<Credentials>| {
        let mut client = Client::new();
        let spec = FetchSpec {
            credentials,
            ..client.spec(&url, None)
        };
        let result = client.run(&spec).await;
        let repository = client.root.path().join("git/config");
        let config = fs::read_to_string(repository).unwrap();
        assert!(!config.contains("Authorization"));
        (result, client.lines)
    };
    let (result, _) = fetch(vec![
        credentials("other", "wrong"),
        credentials("repo.git", "hunter2"),
    ])
    .await;
    result.unwrap();
    let sent = server.requests().len();
    for wrong in [
        vec![],
        vec![credentials("other", "hunter2")],
        vec![credentials("repo.git", "wrong-token")],
    ] {
        let with_token = wrong
            .iter()
            .any(|one| format!("{one:?}").contains("repo.git"));
        let (result, lines) = fetch(wrong).await;
        let error = result.unwrap_err();
        assert_eq!(error.code(), "git_auth_failed", "{error}");
        assert!(!format!("{error:?}{lines:?}").contains("wrong-token"));
        let later = server.requests().split_off(sent);
        let has_token = later.iter().any(|request| request.contains("Basic"));
        assert_eq!(has_token, with_token, "{later:?}");
    }
}

#[tokio::test]
async fn redirects_and_sick_servers() {
    let (author, ..) = history();
    let honest = Server::start(author.root.path(), Manner::default());
    let redirect = Manner {
        redirect: Some(format!("{}/repo.git/info/refs", honest.url)),
        ..Manner::default()
    };
    let redirecting = Server::start(author.root.path(), redirect);
    let kind = refused(&redirecting, None).await;
    assert_eq!(kind, GitErrorKind::ProtocolRefused);
    assert!(honest.requests().is_empty(), "nobody follows");
    for (status, expected) in [
        (403, GitErrorKind::AuthFailed),
        (404, GitErrorKind::RepositoryNotFound),
        (503, GitErrorKind::Unreachable),
    ] {
        let manner = Manner {
            status: Some(status),
            ..Manner::default()
        };
        let server = Server::start(author.root.path(), manner);
        assert_eq!(refused(&server, None).await, expected, "{status}");
    }
}

#[tokio::test]
async fn servers_that_are_not_there() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let plain = Server::start(std::path::Path::new("/nonexistent"), Manner::default());
    let tls_to_plain = plain.url.replace("http:", "https:");
    for (url, expected) in [
        (format!("http://{address}/a"), GitErrorKind::Unreachable),
        (format!("ssh://git@{address}/a"), GitErrorKind::Unreachable),
        (
            "http://host.invalid/a".to_owned(),
            GitErrorKind::UnknownHost,
        ),
        (format!("{tls_to_plain}/a"), GitErrorKind::Tls),
    ] {
        let error = Client::new().fetch(&url, None).await.unwrap_err();
        assert_eq!(error.kind, expected, "{url}: {error}");
    }
    let mut client = Client::new();
    client.git.program = "no-such-git".into();
    let error = client
        .fetch("http://127.0.0.1:1/a", None)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "git_missing");
}

/// Processes whose arguments name this URL.
fn alive(url: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let arguments = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    arguments
        .filter(|text| String::from_utf8_lossy(text).contains(url))
        .count()
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_cancelled_fetch_ends_with_all_its_processes() {
    let manner = Manner {
        silent: true,
        ..Manner::default()
    };
    let server = Server::start(std::path::Path::new("/nonexistent"), manner);
    let url = format!("{}/repo.git", server.url);

    let mut client = Client::new();
    let cancel = client.cancel.clone();
    let fetching = {
        let url = url.clone();
        tokio::spawn(async move { client.fetch(&url, None).await })
    };
    until("git asks", || !server.requests().is_empty()).await;
    assert!(alive(&url) >= 2, "git and its helper");
    cancel.cancel();
    let error = fetching.await.unwrap().unwrap_err();
    assert_eq!(error.kind, GitErrorKind::Cancelled);
    until("all are gone", || alive(&url) == 0).await;

    let mut client = Client::new();
    client.deadline = Instant::now() + Duration::from_millis(500);
    let error = client.fetch(&url, None).await.unwrap_err();
    assert_eq!(error.kind, GitErrorKind::TimedOut);
    until("all are gone", || alive(&url) == 0).await;

    // A future that is dropped leaves nothing behind either.
    let asked = server.requests().len();
    let dropped = {
        let (url, mut client) = (url.clone(), Client::new());
        tokio::spawn(async move { client.fetch(&url, None).await })
    };
    until("git asks again", || server.requests().len() > asked).await;
    dropped.abort();
    until("all are gone", || alive(&url) == 0).await;
}

#[tokio::test]
async fn a_git_that_does_not_listen_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let stubborn = dir.path().join("git");
    let script =
        "#!/bin/sh\ntrap '' TERM\n(trap '' TERM; sleep 1000) &\necho begun >&2\nwait\nsleep 1000\n";
    fs::write(&stubborn, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&stubborn, mode).unwrap();
    let mut client = Client::new();
    client.git.program = stubborn.clone();
    client.deadline = Instant::now() + Duration::from_millis(300);
    let started = Instant::now();
    let error = client
        .fetch("http://127.0.0.1:1/a", None)
        .await
        .unwrap_err();
    assert_eq!(error.kind, GitErrorKind::TimedOut);
    assert!(started.elapsed() < Duration::from_secs(15));
    assert_eq!(client.lines, ["begun"]);
    let path = stubborn.to_string_lossy().into_owned();
    until("all are gone", || alive(&path) == 0).await;
}
