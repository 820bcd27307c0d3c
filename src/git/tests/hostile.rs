//! Repositories made to do harm to whoever fetches them.

use super::*;

async fn fetch_main(author: &Author) -> (Result<Fetched, GitError>, Client) {
    let server = Server::start(author.root.path(), Manner::default());
    let mut client = Client::new();
    let url = format!("{}/repo.git", server.url);
    let result = client.fetch(&url, Some("main")).await;
    (result, client)
}

#[tokio::test]
async fn a_tree_cannot_bring_a_repository() {
    for name in [".git", ".GIT", "git~1", ".g\u{200c}it"] {
        let author = Author::new();
        let link = author.blob("/etc");
        author.commit_tree(&[("120000", name, &link)]);
        let (result, client) = fetch_main(&author).await;
        let error = result.unwrap_err();
        assert_eq!(error.kind, GitErrorKind::Failed, "{name}: {error}");
        assert_eq!(fs::read_dir(client.tree()).unwrap().count(), 0, "{name}");
    }
    let author = Author::new();
    author.commit_tree(&[("100644", "..", &author.blob("x"))]);
    assert!(fetch_main(&author).await.0.is_err());
}

#[tokio::test]
async fn nothing_of_the_repository_runs() {
    let author = Author::new();
    let trap = author.root.path().join("sprung");
    let touch = format!("touch {}", trap.display());
    author
        .write(
            ".gitattributes",
            "* filter=evil diff=evil\n*.bin filter=lfs",
        )
        .write(
            ".gitconfig",
            &format!("[filter \"evil\"]\nsmudge = {touch}"),
        )
        .write("hooks/post-checkout", &format!("#!/bin/sh\n{touch}"))
        .write("x", "text")
        .write("y.bin", "version https://git-lfs.github.com/spec/v1\n");
    author.commit();
    let (result, client) = fetch_main(&author).await;
    result.unwrap();
    assert_eq!(client.read("x"), "text");
    assert!(client.read("y.bin").contains("git-lfs"));
    assert!(!trap.exists());
    assert!(!client.root.path().join("git/hooks").exists());
}

#[tokio::test]
async fn links_out_of_the_tree_are_never_written_through() {
    // A link and a file behind it, in one tree: only a forged tree has both.
    let author = Author::new();
    let target = tempfile::tempdir().unwrap();
    let link = author.blob(&target.path().to_string_lossy());
    let inner = "100644 x\0".to_owned();
    let mut tree = inner.into_bytes();
    let id = author.blob("evil");
    for pair in id.as_bytes().chunks(2) {
        let hex = std::str::from_utf8(pair).unwrap();
        tree.push(u8::from_str_radix(hex, 16).unwrap());
    }
    let subtree = author.git_with(&["hash-object", "-w", "-t", "tree", "--stdin"], &tree);
    author.commit_tree(&[("120000", "a", &link), ("40000", "a", &subtree)]);
    let (result, _client) = fetch_main(&author).await;
    assert!(result.is_err());
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);

    // An honest link that leads out is kept; the control files of a context may not be one.
    let author = Author::new();
    author.write("keep", "");
    std::os::unix::fs::symlink("/etc/passwd", author.tree().join("Containerfile")).unwrap();
    author.commit();
    let (result, client) = fetch_main(&author).await;
    result.unwrap();
    assert!(client.tree().join("Containerfile").is_symlink());
    assert!(crate::context::control_files(&client.tree(), None).is_err());
}

#[tokio::test]
async fn submodules_are_not_fetched() {
    let author = Author::new();
    let id = author.write("x", "1").commit();
    let modules = "[submodule \"m\"]\npath = m\nurl = ext::sh -c 'touch /nonexistent/x'\n";
    let blob = author.blob(modules);
    author.commit_tree(&[("100644", ".gitmodules", &blob), ("160000", "m", &id)]);
    let (result, client) = fetch_main(&author).await;
    match result {
        Ok(_) => assert_eq!(fs::read_dir(client.tree().join("m")).unwrap().count(), 0),
        Err(error) => assert_eq!(error.kind, GitErrorKind::Failed),
    }
    let honest = modules.replace("ext::sh -c 'touch /nonexistent/x'", "https://example.com/m");
    let blob = author.blob(&honest);
    author.commit_tree(&[("100644", ".gitmodules", &blob), ("160000", "m", &id)]);
    let (result, client) = fetch_main(&author).await;
    result.unwrap();
    assert_eq!(fs::read_dir(client.tree().join("m")).unwrap().count(), 0);
}

#[tokio::test]
async fn the_configuration_of_the_machine_does_not_matter() {
    use std::os::unix::fs::PermissionsExt;
    let (author, home) = (Author::new(), tempfile::tempdir().unwrap());
    author
        .write("x", "1")
        .write(".gitattributes", "* filter=evil");
    author.commit();
    let at = |name: &str| home.path().join(name).display().to_string();
    let (trap, hook) = (at("sprung"), at("post-checkout"));
    let config = format!(
        "[core]\nhooksPath = {}\n[filter \"evil\"]\nsmudge = touch {trap}; cat\n",
        home.path().display()
    );
    fs::write(at(".gitconfig"), config).unwrap();
    fs::write(&hook, format!("#!/bin/sh\ntouch {trap}")).unwrap();
    fs::set_permissions(&hook, PermissionsExt::from_mode(0o755)).unwrap();
    let server = Server::start(author.root.path(), Manner::default());
    let mut client = Client::new();
    client.git.environment = vec![
        ("HOME".into(), home.path().into()),
        ("GIT_CONFIG_GLOBAL".into(), at(".gitconfig").into()),
        ("GIT_ALLOW_PROTOCOL".into(), "none".into()),
        ("GIT_DIR".into(), "/nonexistent".into()),
    ];
    let url = format!("{}/repo.git", server.url);
    client.fetch(&url, None).await.unwrap();
    assert_eq!(client.read("x"), "1");
    assert!(!home.path().join("sprung").exists());
}
