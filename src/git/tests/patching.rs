//! Patches as `git diff --binary` makes them, and as nobody should.

use super::*;

const MADE_UP: &str = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-";

/// A checkout of `x` (five lines), `y.bin`, `é ü` and a link `l`.
async fn checkout() -> (Author, Client) {
    let author = Author::new();
    author
        .write("x", "1\n2\n3\n4\n5\n")
        .write("y.bin", "\0\u{1}old")
        .write("é ü", "u\n")
        .write("sub/z", "z\n");
    std::os::unix::fs::symlink("sub", author.tree().join("l")).unwrap();
    author.commit();
    let server = Server::start(author.root.path(), Manner::default());
    let mut client = Client::new();
    let url = format!("{}/repo.git", server.url);
    client.fetch(&url, None).await.unwrap();
    (author, client)
}

fn diff(author: &Author) -> Vec<u8> {
    author.git(&["add", "--all"]);
    let text = author.git(&["diff", "--binary", "--cached", "-M", "HEAD"]);
    // Trimmed, as texts are on their way through an agent.
    text.into_bytes()
}

#[tokio::test]
async fn a_real_patch() {
    let (author, mut client) = checkout().await;
    author
        .write("x", "1\n2\nthree\n4\n5\n6\n")
        .write("y.bin", "\0\u{1}new")
        .write("new/ä", "n\n");
    fs::remove_file(author.tree().join("sub/z")).unwrap();
    fs::rename(author.tree().join("é ü"), author.tree().join("ö")).unwrap();
    let stats = client.patch(&diff(&author)).await.unwrap();
    assert_eq!((stats.files, stats.added, stats.removed), (5, 3, 2));
    assert_eq!(client.read("x"), "1\n2\nthree\n4\n5\n6\n");
    assert_eq!(client.read("y.bin"), "\0\u{1}new");
    assert_eq!(
        (client.read("new/ä"), client.read("ö")),
        ("n\n".into(), "u\n".into())
    );
    assert!(!client.tree().join("sub/z").exists());
}

#[tokio::test]
async fn a_plain_patch_counts_its_files() {
    let (_, mut client) = checkout().await;
    let plain = "--- a/x\n+++ b/x\n@@ -1,4 +1,4 @@\n-1\n+one\n 2\n 3\n 4\n--- a/sub/z\n+++ b/sub/z\n@@ -1 +1,2 @@\n z\n+y";
    let stats = client.patch(plain.as_bytes()).await.unwrap();
    assert_eq!((stats.files, stats.added, stats.removed), (2, 2, 1));
    assert_eq!(client.read("sub/z"), "z\ny\n");
}

#[tokio::test]
async fn every_file_that_does_not_fit_is_named() {
    let (author, mut client) = checkout().await;
    author.write("x", "1\n2\nX\n4\n5\n").write("fresh", "f\n");
    fs::write(author.tree().join("sub/z"), "Z\n").unwrap();
    author.write("y.bin", "\0other");
    let patch = diff(&author);
    fs::write(client.tree().join("x"), "a\nb\nc\nd\ne\n").unwrap();
    fs::write(client.tree().join("fresh"), "here already").unwrap();
    fs::write(client.tree().join("y.bin"), "\0\u{2}third").unwrap();
    fs::remove_file(client.tree().join("sub/z")).unwrap();
    let error = client.patch(&patch).await.unwrap_err();
    assert_eq!(error.code(), "patch_does_not_apply", "{error}");
    let PatchError::DoesNotApply(failures) = error else {
        panic!("{error}");
    };
    let found: Vec<_> = failures
        .iter()
        .map(|failure| (failure.file.as_str(), failure.line, failure.reason.as_str()))
        .collect();
    assert_eq!(
        found[0],
        ("fresh", None, "already exists in working directory")
    );
    assert_eq!(found[1], ("sub/z", None, "No such file or directory"));
    assert_eq!(found[2], ("x", Some(1), "does not match the file"));
    assert_eq!((found[3].0, found.len()), ("y.bin", 4), "{found:?}");
    assert_eq!(client.read("x"), "a\nb\nc\nd\ne\n", "all or nothing");
}

#[tokio::test]
async fn damaged_patches_name_their_line() {
    let (_, mut client) = checkout().await;
    for (patch, line) in [
        (format!("{MADE_UP}1\n"), Some(7)),
        (format!("{MADE_UP}1\nrubbish\n"), Some(6)),
    ] {
        match client.patch(patch.as_bytes()).await.unwrap_err() {
            PatchError::Corrupt { line: found, .. } => assert_eq!(found, line, "{patch}"),
            other => panic!("{patch}: {other:?}"),
        }
    }
    for empty in ["", "hello\n"] {
        let error = client.patch(empty.as_bytes()).await.unwrap_err();
        assert_eq!(error, PatchError::Empty);
    }
    let cut = "diff --git a/y.bin b/y.bin\nindex 1..2 100644\nGIT binary patch\nliteral 9\n!!!\n";
    let error = client.patch(cut.as_bytes()).await.unwrap_err();
    assert_eq!(error.code(), "patch_corrupt", "{error}");
    let no_data =
        "diff --git a/y.bin b/y.bin\nindex 1..2 100644\nBinary files a/y.bin and b/y.bin differ\n";
    let error = client.patch(no_data.as_bytes()).await.unwrap_err();
    assert_eq!(error.code(), "patch_does_not_apply", "{error}");
}

#[tokio::test]
async fn nothing_outside_of_the_tree_is_touched() {
    let (_, mut client) = checkout().await;
    let create = |path: &str| {
        format!(
            "diff --git {path} {path}\nnew file mode 100644\n--- /dev/null\n+++ {path}\n@@ -0,0 +1 @@\n+x\n"
        )
    };
    for path in [
        "b/../x",
        "b//nonexistent/x",
        "b/.git/hooks/x",
        "\"b/\\056\\056/x\"",
    ] {
        let error = client.patch(create(path).as_bytes()).await.unwrap_err();
        assert_eq!(error.code(), "patch_refused", "{path}: {error}");
    }
    let error = client.patch(create("b/l/x").as_bytes()).await.unwrap_err();
    assert!(
        error.to_string().contains("beyond a symbolic link"),
        "{error}"
    );
    assert!(!client.tree().join("sub/x").exists());
    assert!(!client.tree().join(".git").exists());
}

#[tokio::test]
async fn links_that_a_patch_makes_stay_inside() {
    let link = |path: &str, target: &str| {
        format!(
            "diff --git a/{path} b/{path}\nnew file mode 120000\n--- /dev/null\n+++ b/{path}\n\
             @@ -0,0 +1 @@\n+{target}\n\\ No newline at end of file\n"
        )
    };
    for (target, fine) in [("../x", true), ("../../x", false), ("/etc/passwd", false)] {
        let (_, mut client) = checkout().await;
        let result = client.patch(link("new/l", target).as_bytes()).await;
        match result {
            Ok(_) => assert!(fine, "{target}"),
            Err(error) => {
                assert!(!fine);
                assert_eq!(error.code(), "patch_refused", "{error}");
            }
        }
    }
    // A link is made and then written through, in one patch.
    let (_, mut client) = checkout().await;
    let outside = tempfile::tempdir().unwrap();
    let both = link("m", &outside.path().to_string_lossy())
        + "diff --git a/m/x b/m/x\nnew file mode 100644\n--- /dev/null\n+++ b/m/x\n@@ -0,0 +1 @@\n+x\n";
    assert!(client.patch(both.as_bytes()).await.is_err());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);

    // Moved by a rename, to where its target means something else, and as binary data.
    let (author, mut client) = checkout().await;
    author.write("d/e/keep", "");
    std::os::unix::fs::symlink("../../x", author.tree().join("d/e/l")).unwrap();
    author.commit();
    client.patch(&fs_diff(&author)).await.unwrap();
    fs::rename(author.tree().join("d/e/l"), author.tree().join("d/l")).unwrap();
    let error = client.patch(&diff(&author)).await.unwrap_err();
    assert_eq!(error.code(), "patch_refused", "{error}");
}

/// The last commit as a patch.
fn fs_diff(author: &Author) -> Vec<u8> {
    let text = author.git(&["diff", "--binary", "HEAD~1", "HEAD"]);
    text.into_bytes()
}
