//! Repositories made to do harm to whoever fetches them.

use super::*;

async fn fetch_main(author: &Author) -> (Result<Fetched, GitError>, Client) {
    let server = Server::start(author.root.path(), Manner::default());
    let mut client = Client::new();
    let url = format!("{}/repo.git", server.url);
    let result = client.fetch(&url, Some("main")).await;
    (result, client)
}

/// A git with the settings that it comes with, at home in `directory`: it falls into every trap.
fn careless(directory: &std::path::Path, arguments: &[&str]) -> std::process::Output {
    std::process::Command::new("git")
        .args(arguments)
        .current_dir(directory)
        .env("HOME", directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap()
}

#[tokio::test]
async fn a_tree_cannot_bring_a_repository() {
    let author = Author::new();
    let file = author.blob("gitdir: /etc");
    let directory = author.tower(&author.blob("[core]\nfsmonitor = x"), 1, 1);
    for name in [
        ".git",
        ".GIT",
        "git~1",
        "GIT~1",
        ".git ",
        ".git.",
        ".git::$INDEX_ALLOCATION",
        ".git:x",
        ".g\u{200c}it",
    ] {
        for (mode, id) in [("120000", &file), ("100644", &file), ("40000", &directory)] {
            author.commit_tree(&[(mode, name, id)]);
            let (result, client) = fetch_main(&author).await;
            let error = result.expect_err(name);
            assert_eq!(error.kind, GitErrorKind::Failed, "{name}: {error}");
            assert_eq!(fs::read_dir(client.tree()).unwrap().count(), 0, "{name}");
        }
    }
    for name in ["..", ".", "a/b", "/x"] {
        author.commit_tree(&[("100644", name, &file)]);
        assert!(fetch_main(&author).await.0.is_err(), "{name}");
    }
    // Deeper down as well; and a name that only resembles is fine.
    let inner = author.tree_of(&[("100644", ".git", &file)]);
    author.commit_tree(&[("40000", "sub", &inner)]);
    assert!(fetch_main(&author).await.0.is_err());
    author.commit_tree(&[("100644", ".github", &file)]);
    fetch_main(&author).await.0.unwrap();
}

/// A repository laid out in the tree, that runs something for whoever finds it there.
#[tokio::test]
async fn a_bare_repository_in_the_tree_is_not_found() {
    let author = Author::new();
    let trap = author.root.path().join("sprung");
    let script = author.root.path().join("trap");
    fs::write(&script, format!("#!/bin/sh\ntouch {}\n", trap.display())).unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = format!(
        "[core]\nrepositoryformatversion = 0\nbare = false\nworktree = .\nfsmonitor = {0}\nhooksPath = {1}\n\
         [filter \"evil\"]\nsmudge = {0}\nclean = {0}\n",
        script.display(),
        author.root.path().display(),
    );
    for below in ["", "sub/"] {
        author
            .write(&format!("{below}HEAD"), "ref: refs/heads/main\n")
            .write(&format!("{below}config"), &config)
            .write(&format!("{below}objects/keep"), "")
            .write(&format!("{below}refs/keep"), "")
            .write(&format!("{below}x"), "1\n")
            .write(&format!("{below}.gitattributes"), "x filter=evil");
    }
    author.commit();
    let (result, mut client) = fetch_main(&author).await;
    result.unwrap();
    let patch = "--- a/sub/x\n+++ b/sub/x\n@@ -1 +1 @@\n-1\n+2\n";
    client.patch(patch.as_bytes()).await.unwrap();
    assert_eq!(client.read("sub/x"), "2\n");
    assert!(!trap.exists());
    // The trap works: it catches a git that looks for a repository.
    let status = careless(&client.tree().join("sub"), &["status"]);
    assert!(trap.exists(), "{status:?}");
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
    let told = "submodules are not fetched, they are empty directories: m";
    assert!(
        client.lines.iter().any(|line| line == told),
        "{:?}",
        client.lines
    );
}

#[tokio::test]
async fn only_harmless_attributes_hold() {
    let author = Author::new();
    let attributes = "[attr]utf working-tree-encoding=UTF-16\n*.a working-tree-encoding=UTF-16\n*.b utf\n\
                      *.c eol=crlf\n*.d export-subst export-ignore\n*.e filter=lfs diff=lfs merge=lfs -text\n";
    author.write(".gitattributes", attributes);
    let pointer = "version https://git-lfs.github.com/spec/v1\nsize 1\n";
    for (name, text) in [
        ("x.a", "ä"),
        ("x.b", "ä"),
        ("x.c", "1\n"),
        ("x.d", "$Format:%H$"),
        ("x.e", pointer),
    ] {
        let id = author.blob(text);
        author.git(&[
            "update-index",
            "--add",
            "--cacheinfo",
            &format!("100644,{id},{name}"),
        ]);
    }
    author.git(&["add", ".gitattributes"]);
    author.git(&["commit", "-q", "-m", "x"]);
    let (result, client) = fetch_main(&author).await;
    result.unwrap();
    let texts = ["a", "b", "c", "d", "e"].map(|end| client.read(&format!("x.{end}")));
    assert_eq!(texts, ["ä", "ä", "1\r\n", "$Format:%H$", pointer]);
}

#[tokio::test]
async fn a_dumb_server_leads_nowhere() {
    let author = Author::new();
    author.write("x", "1").commit();
    author.git(&["update-server-info"]);
    let elsewhere = Server::start(author.root.path(), Manner::default());
    let alternates = author
        .root
        .path()
        .join("repo.git/objects/info/http-alternates");
    fs::write(alternates, format!("{}/repo.git/objects\n", elsewhere.url)).unwrap();
    // What is not here is looked for there.
    let commit = author.git(&["rev-parse", "HEAD"]);
    let (directory, file) = commit.split_at(2);
    let objects = author.root.path().join("repo.git/objects");
    fs::remove_file(objects.join(directory).join(file)).unwrap();
    let missing = "0123456789".repeat(4);
    // One that is dumb from the start, and one that was not when it was asked for a commit.
    for (dumb_after, reference) in [(0, None), (1, Some(missing.as_str()))] {
        let manner = Manner {
            old: true,
            dumb_after: Some(dumb_after),
            ..Manner::default()
        };
        let server = Server::start(author.root.path(), manner);
        let url = format!("{}/repo.git", server.url);
        let error = Client::new().fetch(&url, reference).await.unwrap_err();
        assert!(error.message.contains("dumb http transport"), "{error}");
    }
    assert!(elsewhere.requests().is_empty());
    // A git that follows goes there.
    let manner = Manner {
        dumb_after: Some(0),
        ..Manner::default()
    };
    let server = Server::start(author.root.path(), manner);
    let url = format!("{}/repo.git", server.url);
    let other = tempfile::tempdir().unwrap();
    careless(other.path(), &["init", "-q"]);
    let follow = [
        "-c",
        "http.followRedirects=true",
        "fetch",
        "-q",
        &url,
        "HEAD",
    ];
    careless(other.path(), &follow);
    assert!(!elsewhere.requests().is_empty());
}

#[tokio::test]
async fn only_the_one_transport_is_spoken() {
    let author = Author::new();
    author.write("x", "1").commit();
    let repository = author.root.path().join("repo.git").display().to_string();
    let trap = author.root.path().join("sprung");
    let command = format!("ext::sh -c touch%S{}", trap.display()).replace("%S", "% ");
    let git = Git::default();
    let tree = author.tree();
    let place = Place {
        git_dir: &author.root.path().join("repo.git"),
        work_tree: &tree,
    };
    for url in [
        command.as_str(),
        &repository,
        &format!("file://{repository}"),
        "git://127.0.0.1:1/x",
    ] {
        let mut command =
            git.network_command(place, Transport::Https, None, ["ls-remote", "--", url]);
        let output = command.output().await.unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("not allowed"), "{url}: {told}");
    }
    assert!(!trap.exists());
    // The trap works where everything is allowed.
    careless(
        &tree,
        &["-c", "protocol.ext.allow=always", "ls-remote", &command],
    );
    assert!(trap.exists());
}

#[tokio::test]
async fn refs_of_the_server_are_no_options() {
    let author = Author::new();
    let first = author.write("x", "1").commit();
    let tip = author.write("x", "2").commit();
    for name in ["-x", "--upload-pack=touch", "--output=x"] {
        author.git(&["update-ref", &format!("refs/heads/{name}"), &tip]);
        author.git(&["update-ref", &format!("refs/tags/{name}"), &tip]);
    }
    // All names are fetched when the commit cannot be had by itself.
    let old = Manner {
        old: true,
        ..Manner::default()
    };
    let server = Server::start(author.root.path(), old);
    let mut client = Client::new();
    let url = format!("{}/repo.git", server.url);
    client.fetch(&url, Some(&first)).await.unwrap();
    assert_eq!(client.read("x"), "1");
}

#[tokio::test]
async fn a_patch_does_not_follow_a_link_out_of_the_tree() {
    let author = Author::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("x"), "1\n").unwrap();
    author.write("keep", "");
    std::os::unix::fs::symlink(outside.path(), author.tree().join("dir")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("x"), author.tree().join("file")).unwrap();
    author.commit();
    let (result, mut client) = fetch_main(&author).await;
    result.unwrap();
    let change = |path: &str| format!("--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-1\n+2\n");
    let create = "--- /dev/null\n+++ b/dir/new\n@@ -0,0 +1 @@\n+2\n";
    let remove = "--- a/dir/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-1\n";
    for patch in [&change("dir/x"), &change("file"), create, remove] {
        let error = client.patch(patch.as_bytes()).await.unwrap_err();
        assert_eq!(error.code(), "patch_does_not_apply", "{patch}: {error}");
    }
    let there: Vec<_> = fs::read_dir(outside.path()).unwrap().flatten().collect();
    assert_eq!(there.len(), 1);
    assert_eq!(fs::read_to_string(there[0].path()).unwrap(), "1\n");
}

#[tokio::test]
async fn no_helper_is_asked_for_credentials() {
    use std::os::unix::fs::PermissionsExt;
    let author = Author::new();
    author.write("x", "1").commit();
    let manner = Manner {
        login: Some("user:hunter2".to_owned()),
        ..Manner::default()
    };
    let server = Server::start(author.root.path(), manner);
    let home = tempfile::tempdir().unwrap();
    let helper = home.path().join("helper");
    fs::write(
        &helper,
        "#!/bin/sh\necho username=user\necho password=hunter2\n",
    )
    .unwrap();
    fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    let config = format!("[credential]\nhelper = {}\n", helper.display());
    fs::write(home.path().join(".gitconfig"), config).unwrap();
    let netrc = "machine 127.0.0.1 login user password hunter2\n";
    fs::write(home.path().join(".netrc"), netrc).unwrap();
    let url = format!("{}/repo.git", server.url);
    let mut client = Client::new();
    client.git.environment = vec![("HOME".into(), home.path().into())];
    let error = client.fetch(&url, None).await.unwrap_err();
    assert_eq!(error.kind, GitErrorKind::AuthFailed, "{error}");
    // A git that asks gets in.
    let listed = careless(home.path(), &["ls-remote", &url]);
    assert!(listed.status.success(), "{listed:?}");
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
