//! Repositories and patches that are too big, in each way that there is.

use super::*;

const MIB: u64 = 1 << 20;

/// Fetches with at most 1 MiB in 500 entries.
async fn fetch_small(author: &Author, reference: &str, manner: Manner) -> (GitError, Client) {
    let server = Server::start(author.root.path(), manner);
    let mut client = Client::new();
    client.limits = Limits {
        bytes: MIB,
        entries: 500,
    };
    let url = format!("{}/repo.git", server.url);
    let error = client.fetch(&url, Some(reference)).await.unwrap_err();
    assert_eq!(error.kind, GitErrorKind::TooBig, "{error}");
    (error, client)
}

fn written(client: &Client) -> usize {
    fs::read_dir(client.tree()).unwrap().count()
}

/// Bytes that cannot be packed.
fn noise(bytes: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..bytes).map(|_| random.u8(..)).collect()
}

#[tokio::test]
async fn a_tree_is_counted_before_it_is_written() {
    let author = Author::new();
    let zeros = author.blob(&"\0".repeat(MIB as usize / 2 + 1));
    let one = author.blob("1");
    let bytes = "the source has more than 1 MiB (limits.context_mb)";
    let entries = "the source has more than 500 files and directories (limits.context_entries)";
    let paths = "the source has paths of more than 4096 bytes or 128 directories";
    for (tree, expected) in [
        // The same contents twice: one object, two files.
        (author.tower(&zeros, 1, 2), bytes),
        // Ten thousand million files.
        (author.tower(&one, 10, 10), entries),
        (author.tower(&one, 200, 1), paths),
    ] {
        author.commit_tree(&[("40000", "sub", &tree)]);
        let (error, client) = fetch_small(&author, "main", Manner::default()).await;
        assert_eq!(error.message, expected);
        assert_eq!(written(&client), 0);
    }
    // As much as is allowed.
    let half = author.blob(&"\0".repeat(MIB as usize / 2));
    author.commit_tree(&[("40000", "sub", &author.tower(&half, 1, 2))]);
    let server = Server::start(author.root.path(), Manner::default());
    let mut client = Client::new();
    client.limits = Limits {
        bytes: MIB,
        entries: 3,
    };
    let url = format!("{}/repo.git", server.url);
    client.fetch(&url, None).await.unwrap();
}

#[tokio::test]
async fn a_pack_ends_where_a_source_could_not_be_bigger() {
    let author = Author::new();
    fs::write(author.tree().join("x"), noise(8 * MIB)).unwrap();
    author.commit();
    let (error, client) = fetch_small(&author, "main", Manner::default()).await;
    assert_eq!(
        error.message,
        "the repository has more than 1 MiB (limits.context_mb)"
    );
    let packs = client.root.path().join("git/objects/pack");
    let sizes = fs::read_dir(packs).unwrap().flatten();
    let sum: u64 = sizes.map(|file| file.metadata().unwrap().len()).sum();
    assert!(sum < 3 * MIB, "{sum} bytes were written");
}

#[tokio::test]
async fn refs_are_files_too() {
    let author = Author::new();
    let first = author.write("x", "1").commit();
    let tip = author.write("x", "2").commit();
    let refs: String = (0..700)
        .map(|n| format!("create refs/heads/b{n} {tip}\n"))
        .collect();
    author.git_with(&["update-ref", "--stdin"], refs.as_bytes());
    let old = Manner {
        old: true,
        ..Manner::default()
    };
    let (error, client) = fetch_small(&author, &first, old).await;
    assert_eq!(
        error.message,
        "the repository has more than 500 files and directories (limits.context_entries)"
    );
    assert_eq!(written(&client), 0);
}

#[tokio::test]
async fn files_that_grow_as_they_are_written_count_as_they_are() {
    let author = Author::new();
    author
        .write(".gitattributes", "* ident")
        .write("x", &"$Id$\n".repeat(100_000));
    author.commit();
    let (error, _) = fetch_small(&author, "main", Manner::default()).await;
    assert_eq!(
        error.message,
        "the source has more than 1 MiB (limits.context_mb)"
    );
}

#[tokio::test]
async fn memory_has_an_end() {
    let author = Author::new();
    let tree = author.git(&["write-tree"]);
    let who = "a <a@example.com> 1 +0000";
    let head = format!("tree {tree}\nauthor {who}\ncommitter {who}\n\n");
    // Packed, it has some kilobytes.
    let commit = [head.into_bytes(), vec![b'x'; 24 << 20]].concat();
    let commit = author.git_with(&["hash-object", "-w", "-t", "commit", "--stdin"], &commit);
    author.git(&["update-ref", "refs/heads/main", &commit]);
    let server = Server::start(author.root.path(), Manner::default());
    let mut client = Client::new();
    client.git.memory = 16 << 20;
    let url = format!("{}/repo.git", server.url);
    let error = client.fetch(&url, None).await.unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (
            GitErrorKind::TooBig,
            "git needs more than 16 MiB of memory for the source"
        )
    );
    client = Client::new();
    client.git.memory = 128 << 20;
    client.fetch(&url, None).await.unwrap();
}

#[tokio::test]
async fn patches_unpack_to_what_is_allowed() {
    let author = Author::new();
    author.write("x", &"\0".repeat(600_000)).commit();
    let server = Server::start(author.root.path(), Manner::default());
    let url = format!("{}/repo.git", server.url);
    let copy = |n: usize| {
        format!("diff --git a/x b/y{n}\nsimilarity index 100%\ncopy from x\ncopy to y{n}\n")
    };
    author.write("z", &"\0".repeat(8 << 20));
    author.git(&["add", "--all"]);
    let literal = author.git(&["diff", "--binary", "--cached"]);
    assert!(literal.len() < 100_000, "{}", literal.len());
    for (patch, fits) in [
        (literal, false),
        ((0..50).map(copy).collect(), false),
        (copy(0), true),
    ] {
        let mut client = Client::new();
        client.limits.bytes = 2 * MIB;
        client.fetch(&url, None).await.unwrap();
        match client.patch(patch.as_bytes()).await {
            Ok(_) => assert!(fits),
            Err(PatchError::Git(error)) => {
                assert!(!fits);
                assert_eq!(error.kind, GitErrorKind::TooBig, "{error}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn neither_a_trickle_nor_a_flood_outlasts_the_deadline() {
    let trickle = Manner {
        trickle: true,
        ..Manner::default()
    };
    let server = Server::start(std::path::Path::new("/nonexistent"), trickle);
    let mut client = Client::new();
    client.deadline = Instant::now() + Duration::from_millis(500);
    let started = Instant::now();
    let url = format!("{}/repo.git", server.url);
    let error = client.fetch(&url, None).await.unwrap_err();
    assert_eq!(error.kind, GitErrorKind::TimedOut, "{error}");
    assert_eq!(server.requests().len(), 1);
    assert!(started.elapsed() < Duration::from_secs(10));

    let dir = tempfile::tempdir().unwrap();
    let babbler = dir.path().join("git");
    fs::write(&babbler, "#!/bin/sh\nexec yes >&2\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&babbler, mode).unwrap();
    let mut client = Client::new();
    client.git.program = babbler;
    client.deadline = Instant::now() + Duration::from_millis(500);
    let started = Instant::now();
    let error = client.fetch(&url, None).await.unwrap_err();
    assert_eq!(error.kind, GitErrorKind::TimedOut, "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn what_grows_is_stopped_while_it_grows() {
    let dir = tempfile::tempdir().unwrap();
    let (filler, fills) = (
        dir.path().join("git"),
        "for n in $(seq 2000); do : >$GIT_DIR/$n; done",
    );
    let script = format!("#!/bin/sh\nmkdir -p $GIT_DIR\n{fills}\necho full >&2\nexec sleep 1000\n");
    fs::write(&filler, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&filler, mode).unwrap();
    let mut client = Client::new();
    client.git.program = filler;
    let error = client
        .fetch("http://127.0.0.1:1/x", None)
        .await
        .unwrap_err();
    assert_eq!(error.kind, GitErrorKind::TooBig, "{error}");
}
