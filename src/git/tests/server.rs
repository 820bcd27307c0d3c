//! Bare repositories behind git's own CGI program, on loopback, over plain HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a server behaves.
#[derive(Clone, Default)]
pub struct Manner {
    /// `user:token` that it wants.
    pub login: Option<String>,
    /// Speaks the oldest protocol, which hands out advertised commits only.
    pub old: bool,
    /// Sends everybody to this URL.
    pub redirect: Option<String>,
    /// Answers with this status.
    pub status: Option<u16>,
    /// Takes requests and says nothing.
    pub silent: bool,
    /// Sends a byte now and then, for ever.
    pub trickle: bool,
    /// After so many requests it knows nothing of git and hands out files.
    pub dumb_after: Option<usize>,
}

pub struct Server {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(root: &Path, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (root, log) = (root.to_owned(), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, manner, log) = (root.clone(), manner.clone(), log.clone());
                std::thread::spawn(move || serve(stream, &root, &manner, &log));
            }
        });
        Self { url, requests }
    }

    /// The request lines so far, each with its authorization.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    root: &Path,
    manner: &Manner,
    log: &Mutex<Vec<String>>,
) -> Option<()> {
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut request = String::new();
    reader.read_line(&mut request).ok()?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let header = |name: &str| {
        let found = headers.iter().find(|(have, _)| have == name);
        found.map_or(String::new(), |(_, value)| value.clone())
    };
    let authorization = header("authorization");
    let line = format!("{} [{authorization}]", request.trim_end());
    let before = {
        let mut log = log.lock().unwrap();
        log.push(line);
        log.len() - 1
    };
    if manner.silent {
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest);
        return None;
    }
    if manner.trickle {
        return trickle(&mut stream);
    }
    let path = request.split([' ', '?']).nth(1).unwrap_or_default();
    if manner.dumb_after.is_some_and(|after| before >= after) {
        let content = std::fs::read(root.join(path.trim_start_matches('/')));
        let (status, content) = match content {
            Ok(content) => ("200 OK", content),
            Err(_) => ("404 Not Found", Vec::new()),
        };
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n");
        return stream.write_all(&[head.as_bytes(), &content].concat()).ok();
    }
    let mut answer = |status: &str| {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()
    };
    if let Some(target) = &manner.redirect {
        return answer(&format!("302 Found\r\nLocation: {target}"));
    }
    if let Some(status) = manner.status {
        return answer(&format!("{status} Status"));
    }
    if let Some(login) = &manner.login {
        use base64::Engine;
        let encoded = base64::engine::general_purpose::STANDARD.encode(login);
        if authorization != format!("Basic {encoded}") {
            return answer("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"");
        }
    }
    let body = read_body(
        &mut reader,
        &header("content-length"),
        &header("transfer-encoding"),
    )?;
    let response = cgi(root, manner.old, &request, &header, &body)?;
    stream.write_all(&response).ok()
}

/// The beginning of a list of refs that goes on as long as anyone listens.
fn trickle(stream: &mut TcpStream) -> Option<()> {
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\
                Content-Type: application/x-git-upload-pack-advertisement\r\n\r\n\
                001e# service=git-upload-pack\n0000fff0";
    stream.write_all(head.as_bytes()).ok()?;
    loop {
        stream.write_all(b"0").ok()?;
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn read_body(reader: &mut impl BufRead, length: &str, encoding: &str) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    if encoding != "chunked" {
        let length: u64 = length.parse().unwrap_or(0);
        reader.take(length).read_to_end(&mut body).ok()?;
        return Some(body);
    }
    loop {
        let mut size = String::new();
        reader.read_line(&mut size).ok()?;
        let size = u64::from_str_radix(size.trim(), 16).ok()?;
        reader.take(size).read_to_end(&mut body).ok()?;
        reader.read_line(&mut String::new()).ok()?;
        if size == 0 {
            return Some(body);
        }
    }
}

fn cgi(
    root: &Path,
    old: bool,
    request: &str,
    header: &dyn Fn(&str) -> String,
    body: &[u8],
) -> Option<Vec<u8>> {
    let mut words = request.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"));
    if !old {
        command.env("GIT_PROTOCOL", header("git-protocol"));
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take()?;
    let body = body.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&body));
    let output = child.wait_with_output().ok()?.stdout;
    let _ = feeder.join();
    let end = output.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let status = head
        .lines()
        .find_map(|line| line.strip_prefix("Status: "))
        .unwrap_or("200 OK");
    let start = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{head}\r\n\r\n");
    Some([start.as_bytes(), &output[end + 4..]].concat())
}

/// A repository that a test fills, as its author would.
pub struct Author {
    pub root: tempfile::TempDir,
}

impl Author {
    /// An empty `repo.git` with a tree beside it.
    pub fn new() -> Self {
        let author = Self {
            root: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(author.tree()).unwrap();
        author.git(&["init", "-q", "--template=", "-b", "main"]);
        author
    }

    pub fn tree(&self) -> PathBuf {
        self.root.path().join("tree")
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        self.git_with(arguments, b"")
    }

    pub fn git_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut command = Command::new("git");
        command
            .args(["-c", "core.fsync=none"])
            .args(arguments)
            .current_dir(self.tree())
            .env("GIT_DIR", self.root.path().join("repo.git"))
            .env("GIT_WORK_TREE", self.tree())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "a");
            command.env(format!("GIT_{who}_EMAIL"), "a@example.com");
        }
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.tree().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// Commits all of the tree and returns the commit.
    pub fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "change"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// A tree that git itself would not make.
    pub fn tree_of(&self, entries: &[(&str, &str, &str)]) -> String {
        let mut tree = Vec::new();
        for (mode, name, id) in entries {
            tree.extend(format!("{mode} {name}\0").as_bytes());
            for pair in id.as_bytes().chunks(2) {
                let hex = std::str::from_utf8(pair).unwrap();
                tree.push(u8::from_str_radix(hex, 16).unwrap());
            }
        }
        let object = ["hash-object", "-w", "-t", "tree", "--literally", "--stdin"];
        self.git_with(&object, &tree)
    }

    /// Commits such a tree.
    pub fn commit_tree(&self, entries: &[(&str, &str, &str)]) {
        let tree = self.tree_of(entries);
        let commit = self.git(&["commit-tree", "-m", "evil", &tree]);
        self.git(&["update-ref", "refs/heads/main", &commit]);
    }

    /// A tree of trees: `entries` of each level are the level below, the last ones are `inner`.
    pub fn tower(&self, inner: &str, levels: usize, entries: usize) -> String {
        (0..levels).fold(inner.to_owned(), |below, _| {
            let kind = self.git(&["cat-file", "-t", &below]);
            let mode = if kind == "tree" { "040000" } else { "100644" };
            let line = |n: usize| format!("{mode} {kind} {below}\td{n}\n");
            let lines: String = (0..entries).map(line).collect();
            self.git_with(&["mktree"], lines.as_bytes())
        })
    }

    pub fn blob(&self, text: &str) -> String {
        self.git_with(&["hash-object", "-w", "--stdin"], text.as_bytes())
    }
}
