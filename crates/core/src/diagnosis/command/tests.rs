use super::*;
use crate::build::Phase;
use crate::build::request::Stream;
use proptest::prelude::*;

pub(crate) fn lines(texts: &[&str]) -> Vec<(u64, Line)> {
    (1..)
        .zip(texts)
        .map(|(n, text)| {
            let line = Line {
                phase: Phase::Build,
                step: None,
                test: None,
                stream: Stream::Output,
                text: (*text).to_owned(),
            };
            (n, line)
        })
        .collect()
}

fn told(status: i32, text: &str, printed: &[&str]) -> (Kind, Fault, Option<usize>) {
    let reading = read(&Command {
        lines: &lines(printed),
        status,
        text,
    });
    (reading.kind, reading.fault, reading.at.map(|(_, at)| at))
}

#[test]
fn the_first_cause_of_the_last_to_speak_counts() {
    let make = [
        "curl: (6) Could not resolve host: no.invalid",
        "gcc -c a.c",
        "a.c:1:2: error: 'x' undeclared",
        "b.c:1:2: error: 'y' undeclared",
        "make: *** [Makefile:2: a.o] Error 1",
        "make: *** Waiting for unfinished jobs....",
    ];
    assert_eq!(
        told(2, "RUN make", &make),
        (Kind::CompileError, Fault::Code, Some(2))
    );
    let apt = [
        "  Temporary failure resolving 'deb.debian.org'",
        "E: Unable to locate package curl",
    ];
    assert_eq!(
        told(100, "RUN apt", &apt),
        (Kind::NameNotResolved, Fault::Unknown, Some(0))
    );
}

#[test]
fn the_environment_is_not_blamed_on_the_code() {
    for (printed, kind) in [
        (
            vec!["E       requests.exceptions.ConnectionError: [Errno 111] Connection refused"],
            Kind::TestFailed,
        ),
        (
            vec!["panic: dial tcp 127.0.0.1:1: connect: connection refused"],
            Kind::HostUnreachable,
        ),
        (vec!["write error: No space left on device"], Kind::DiskFull),
    ] {
        let (told, fault, _) = told(1, "RUN x", &printed);
        assert_eq!((told, fault), (kind, Fault::Unknown), "{printed:?}");
    }
    for (text, status, kind) in [
        ("RUN curl -sf http://h/x", 6, Kind::NameNotResolved),
        ("RUN wget -q http://h/x", 4, Kind::HostUnreachable),
        ("RUN ./curler", 6, Kind::CommandFailed),
    ] {
        assert_eq!(told(status, text, &[]).0, kind, "{text}");
    }
}

#[test]
fn the_status_decides_where_it_is_beyond_doubt() {
    let noise = ["a.c:1:2: error: x"];
    assert_eq!(
        told(127, "RUN x", &noise),
        (Kind::CommandNotFound, Fault::Code, None)
    );
    assert_eq!(told(137, "RUN x", &noise).0, Kind::OutOfMemory);
    assert_eq!(
        told(139, "RUN x", &[]),
        (Kind::CommandCrashed, Fault::Unknown, None)
    );
    assert_eq!(told(124, "RUN timeout 1 x", &[]).0, Kind::CommandTimedOut);
    assert_eq!(told(124, "RUN x", &[]).0, Kind::CommandFailed);
    let format = ["/bin/sh: 1: ./x: Exec format error"];
    assert_eq!(
        told(126, "RUN ./x", &format),
        (Kind::WrongArchitecture, Fault::Code, Some(0))
    );
}

/// What of the environment has the form of something else: status, instruction, output, and what it is.
const OF_THE_ENVIRONMENT: &[(i32, &str, &str, Kind)] = &[
    (
        1,
        "RUN go build ./...",
        "main.go:4:2: github.com/a/b@v1.0.0: Get \"https://goproxy.example.com/github.com/a/b/@v/v1.0.0.zip\": dial tcp 192.0.2.1:443: i/o timeout",
        Kind::DownloadTimedOut,
    ),
    (
        2,
        "RUN make",
        "main.c:5:1: fatal error: error writing to /tmp/ccbXg8oE.s: No space left on device\ncompilation terminated.\nmake: *** [Makefile:2: main.o] Error 1",
        Kind::DiskFull,
    ),
    (
        2,
        "RUN make",
        "/usr/bin/ld: final link failed: Cannot allocate memory\ncollect2: error: ld returned 1 exit status\nmake: *** [Makefile:2: main] Error 1",
        Kind::OutOfMemory,
    ),
    (
        101,
        "RUN cargo build",
        "error: linking with `cc` failed: exit status: 1\n  |\n  = note: \"cc\" \"-m64\"\n  = note: /usr/bin/ld: final link failed: No space left on device\n          collect2: error: ld returned 1 exit status\n\nerror: could not compile `x` (bin \"x\") due to 1 previous error",
        Kind::DiskFull,
    ),
    (
        101,
        "RUN cargo build",
        "error: could not compile `x` (lib)\n\nCaused by:\n  process didn't exit successfully: `rustc --crate-name x` (signal: 11, SIGSEGV: invalid memory reference)",
        Kind::CommandCrashed,
    ),
    (
        1,
        "RUN npm run build",
        "FetchError: request to https://fonts.googleapis.com/css2?family=Inter failed, reason: getaddrinfo EAI_AGAIN fonts.googleapis.com\n    at ClientRequest.<anonymous> (/app/node_modules/next/dist/compiled/node-fetch/index.js:1:65756)\nFailed to compile.\n\nsrc/app/layout.tsx\n`next/font` error:\nFailed to fetch `Inter` from Google Fonts.",
        Kind::NameNotResolved,
    ),
    (
        1,
        "RUN cmake .",
        "fatal: unable to access 'https://github.com/google/googletest.git/': Could not resolve host: github.com\nHad to git clone more than once:\n          3 times.\nCMake Error at googletest-subbuild/googletest-populate-prefix/tmp/googletest-populate-gitclone.cmake:50 (message):\n  Failed to clone repository: 'https://github.com/google/googletest.git'\n\nCMake Error at /usr/share/cmake/Modules/FetchContent.cmake:1087 (message):\n  Build step for googletest failed: 2\n-- Configuring incomplete, errors occurred!",
        Kind::NameNotResolved,
    ),
    (
        2,
        "RUN gem install rails",
        "ERROR:  Could not find a valid gem 'rails' (>= 0), here is why:\n          Unable to download data from https://rubygems.org/ - timed out (https://rubygems.org/specs.4.8.gz)",
        Kind::DownloadTimedOut,
    ),
    (
        17,
        "RUN bundle install",
        "Retrying fetcher due to error (2/4): Bundler::HTTPError Could not fetch specs from https://rubygems.org/ due to underlying error <SocketError: Failed to open TCP connection to rubygems.org:443 (getaddrinfo: Temporary failure in name resolution)>\nCould not fetch specs from https://rubygems.org/",
        Kind::NameNotResolved,
    ),
    (
        100,
        "RUN apt-get install -y x",
        "dpkg: error processing archive /var/cache/apt/archives/x.deb (--unpack):\n cannot copy extracted data for './usr/bin/x' to '/usr/bin/x.dpkg-new': failed to write (No space left on device)\nE: Sub-process /usr/bin/dpkg returned an error code (1)",
        Kind::DiskFull,
    ),
    (
        100,
        "RUN apt-get update",
        "Err:1 http://h/debian bookworm Release\n  403  Forbidden [IP: 192.0.2.1 80]\nE: The repository 'http://h/debian bookworm Release' does not have a Release file.",
        Kind::PackageIndexFailed,
    ),
    (
        100,
        "RUN apt-get update && apt-get install -y x",
        "E: Failed to fetch http://deb.debian.org/debian/pool/x.deb  404  Not Found [IP: 192.0.2.1 80]",
        Kind::PackageIndexFailed,
    ),
    (
        1,
        "RUN apk add git",
        "WARNING: updating and opening https://mirror.example.com/v3.20/main: Permission denied\nERROR: unable to select packages:\n  git (no such package):\n    required by: world[git]",
        Kind::PackageIndexFailed,
    ),
    (
        1,
        "RUN pip install -qq flask",
        "ERROR: Could not find a version that satisfies the requirement flask (from versions: none)\nERROR: No matching distribution found for flask",
        Kind::PackageNotFound,
    ),
    (
        1,
        "RUN mvn test",
        "[ERROR] The forked VM terminated without properly saying goodbye. VM crash or System.exit called?\n[ERROR] Process Exit Code: 137",
        Kind::CommandCrashed,
    ),
    (
        137,
        "RUN timeout -s KILL 10 npm test",
        "all is well",
        Kind::CommandTimedOut,
    ),
    (137, "RUN ./x; exit 137", "all is well", Kind::CommandFailed),
    (137, "RUN ./x", "all is well", Kind::OutOfMemory),
];

/// What of the code has words of the environment.
const OF_THE_CODE: &[(i32, &str, &str, Kind)] = &[
    (
        1,
        "RUN pip install foo==9",
        "WARNING: Retrying (Retry(total=4, connect=None)) after connection broken by 'ReadTimeoutError(\"HTTPSConnectionPool(host='pypi.org', port=443): Read timed out.\")': /simple/foo/\nERROR: Could not find a version that satisfies the requirement foo==9 (from versions: 1.0, 2.0)\nERROR: No matching distribution found for foo==9",
        Kind::PackageNotFound,
    ),
    (
        101,
        "RUN cargo build",
        "warning: spurious network error (3 tries remaining): [28] Timeout was reached\nerror: failed to select a version for `foo`.\n    ... required by package `x v0.1.0 (/src)`",
        Kind::PackageConflict,
    ),
    (
        101,
        "RUN cargo clippy -- -D warnings",
        "warning: spurious network error (3 tries remaining): [28] Timeout was reached\nerror: unneeded `return` statement\n --> src/main.rs:2:9\n  |\n  = note: `-D clippy::needless-return` implied by `-D warnings`",
        Kind::LintFailed,
    ),
    (
        1,
        "RUN javac A.java",
        "A.java:3: error: unreported exception UnknownHostException; must be caught or declared to be thrown\n        throw new UnknownHostException(\"x\");\n        ^\n1 error",
        Kind::CompileError,
    ),
    (
        2,
        "RUN make",
        "a.c:3:5: error: 'x' undeclared\n    3 |   puts(\"Connection refused\"), x;\n      |                              ^",
        Kind::CompileError,
    ),
    (
        1,
        "RUN pytest; r=$?; curl -s https://codecov.io/bash | bash; exit $r",
        "E       assert 1 == 2\n\ntest_a.py:4: AssertionError\ncurl: (6) Could not resolve host: codecov.io",
        Kind::TestFailed,
    ),
    (
        1,
        "RUN ./t.sh",
        "unit: FAILED\nexpected 1 got 2",
        Kind::CommandFailed,
    ),
    (
        1,
        "RUN ./x",
        "cannot allocate memory pool 'x' twice: bad config",
        Kind::CommandFailed,
    ),
    (
        1,
        "RUN ./x",
        "Error: building at STEP \"COPY a /\": no space left on device\nSTEP 9/9: no space left on device",
        Kind::CommandFailed,
    ),
    (
        1,
        "RUN go test ./...",
        "# example.com/x\n./a.go:3:2: undefined: y\nFAIL    example.com/x [build failed]\nFAIL",
        Kind::CompileError,
    ),
    (
        1,
        "RUN golangci-lint run",
        "a.go:3:5: Error return value of `f` is not checked (errcheck)",
        Kind::LintFailed,
    ),
    (
        1,
        "RUN sbt compile",
        "[error] /src/src/main/scala/App.scala:3:5: not found: value x\n[error]   x\n[error] one error found",
        Kind::CompileError,
    ),
    (
        1,
        "RUN ./gradlew build",
        "* What went wrong:\nExecution failed for task ':compileJava'.\n> Could not resolve all files for configuration ':compileClasspath'.\n   > Could not find com.example:nothing:1.0.",
        Kind::PackageNotFound,
    ),
    (
        1,
        "RUN uv pip install nothing-here",
        "  × No solution found when resolving dependencies:\n  ╰─▶ Because nothing-here was not found in the package registry and you require nothing-here, we can conclude that your requirements are unsatisfiable.",
        Kind::PackageNotFound,
    ),
];

#[test]
fn each_is_blamed_on_its_own() {
    let cases = OF_THE_ENVIRONMENT.iter().map(|case| (case, Fault::Unknown));
    let code = OF_THE_CODE.iter().map(|case| (case, Fault::Code));
    let mut wrong = Vec::new();
    for ((status, text, printed, kind), fault) in cases.chain(code) {
        let printed: Vec<&str> = printed.lines().collect();
        let (told, blamed, _) = told(*status, text, &printed);
        if (told, blamed) != (*kind, fault) {
            wrong.push(format!("{text}: {told:?}, {blamed:?}: {printed:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn what_is_not_sure_has_no_hint_to_do_it() {
    let hint = |status, text, printed: &[&str]| {
        let lines = lines(printed);
        let command = Command {
            lines: &lines,
            status,
            text,
        };
        read(&command).hint
    };
    let gone = ["E: Failed to fetch http://h/pool/x.deb  404  Not Found [IP: 192.0.2.1 80]"];
    let update = "RUN apt-get update && apt-get install -y x";
    assert!(!hint(100, update, &gone).is_some_and(|hint| hint.contains("apt-get update")));
    assert!(
        hint(100, "RUN apt-get install -y x", &gone)
            .is_some_and(|hint| hint.contains("apt-get update"))
    );
    assert!(!hint(137, "RUN ./x", &[]).is_some_and(|hint| hint.contains("profile")));
}

proptest! {
    #[test]
    fn nothing_printed_makes_it_panic_or_slow(
        printed in proptest::collection::vec(".{0,200}", 0..60),
        status in 1..256i32,
    ) {
        let printed: Vec<&str> = printed.iter().map(String::as_str).collect();
        let begun = std::time::Instant::now();
        let (_, fault, at) = told(status, "RUN x", &printed);
        prop_assert!(matches!(fault, Fault::Code | Fault::Unknown));
        prop_assert!(at.is_none_or(|at| at < printed.len()));
        prop_assert!(begun.elapsed().as_secs() < 20);
    }
}

fn at(status: i32, text: &str, printed: &[&str]) -> Option<(usize, usize)> {
    let lines = &lines(printed);
    read(&Command {
        lines,
        status,
        text,
    })
    .at
}

#[test]
fn what_runs_several_programs_names_each_before_its_lines() {
    for (printed, kind) in [
        (
            "    [javac] /src/App.java:3: error: ';' expected",
            Kind::CompileError,
        ),
        (
            "@acme/web:test:  FAIL  src/a.test.ts > adds",
            Kind::TestFailed,
        ),
        (
            "services/api install: npm error code E404",
            Kind::PackageNotFound,
        ),
        (
            "[warn] main.c:3:5: error: 'x' undeclared",
            Kind::CommandFailed,
        ),
    ] {
        let said = told(1, "RUN x", &[printed, "BUILD FAILED"]);
        assert_eq!(said.0, kind, "{printed}");
    }
}

#[test]
fn what_a_line_sums_up_stands_before_it() {
    let java = [
        "Option 'UseNope' is none.",
        "Error: Could not create the Java Virtual Machine.",
    ];
    assert_eq!(at(1, "RUN java -jar x.jar", &java), Some((0, 1)));
    let many: Vec<String> = (0..30).map(|n| format!("line {n}")).collect();
    let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
    many.push("Error: it did not work");
    assert_eq!(at(1, "RUN x", &many), Some((22, 30)));
}

#[test]
fn an_exception_is_shown_with_the_failure_of_the_network_that_it_wraps() {
    let node = [
        "starting",
        "TypeError: fetch failed",
        "    at async /src/index.js:3:13 {",
        "  [cause]: Error: getaddrinfo ENOTFOUND api.example.com",
        "    code: 'ENOTFOUND'",
    ];
    assert_eq!(
        told(1, "RUN node index.js", &node),
        (Kind::NameNotResolved, Fault::Unknown, Some(3))
    );
    assert_eq!(at(1, "RUN node index.js", &node), Some((1, 3)));
}

#[test]
fn what_was_tried_elsewhere_is_no_reason() {
    let dnf = [
        "[MIRROR] repomd.xml: Curl error (28): Timeout was reached for http://a.example.com/repodata/repomd.xml [Connection timed out after 30001 milliseconds]",
        "No match for argument: htopp",
        "Error: Unable to find a match: htopp",
    ];
    assert_eq!(
        told(1, "RUN dnf install -y htopp", &dnf),
        (Kind::PackageNotFound, Fault::Code, Some(1))
    );
    let denied = [
        "WARNING: 401 Error, Credentials not correct for https://pkgs.example.com/simple/internal-lib/",
        "ERROR: Could not find a version that satisfies the requirement internal-lib (from versions: none)",
    ];
    assert_eq!(
        told(1, "RUN pip install internal-lib", &denied),
        (Kind::DownloadDenied, Fault::Unknown, Some(0))
    );
}

#[test]
fn what_a_test_is_called_and_expects_is_not_what_it_met() {
    let python = [
        "_________ test_connection_refused _________",
        "    err = ConnectionRefusedError(111, \"Connection refused\")",
        ">       assert name(err) == \"Connection refused\"",
        "E       AssertionError: assert 'REFUSED' == None",
    ];
    assert_eq!(told(1, "RUN pytest", &python).1, Fault::Code);
    let met = [
        "_________ test_ping _________",
        ">       assert client.ping() == \"pong\"",
        "E       AssertionError: assert 'Connection refused' == 'pong'",
    ];
    assert_eq!(told(1, "RUN pytest", &met).1, Fault::Unknown);
    let jest = [
        "  ● maps ECONNREFUSED",
        "    Expected: \"connection refused\"",
        "    Received: \"refused\"",
        "    > 5 |   expect(msg('ECONNREFUSED')).toBe('connection refused');",
    ];
    assert_eq!(told(1, "RUN jest", &jest).1, Fault::Code);
}

#[test]
fn what_is_gone_on_after_is_no_cause() {
    let ignored = [
        "Exception ignored in: <function Conn.__del__ at 0x7f0>",
        "Traceback (most recent call last):",
        "  File \"/app/conn.py\", line 30, in __del__",
        "AttributeError: 'Conn' object has no attribute 'sock'",
        "deploy: unknown region \"mars\"",
    ];
    assert_eq!(told(1, "RUN ./deploy", &ignored).0, Kind::CommandFailed);
    let traced = [
        "+ log 'retry on error: connection refused'",
        "+ cp conf/prod.env .env",
        "cp: cannot stat 'conf/prod.env': No such file or directory",
    ];
    assert_eq!(
        told(1, "RUN set -x; ./build.sh", &traced),
        (Kind::FileNotFound, Fault::Code, Some(2))
    );
}

#[test]
fn a_long_traceback_begins_where_it_does_and_its_end_is_shown() {
    let mut texts = vec!["starting", "Traceback (most recent call last):"];
    texts.extend(["  File \"/app/config/settings.py\", line 31, in <module>"; 40]);
    texts.push("KeyError: 'SECRET_KEY'");
    let lines = &lines(&texts);
    let reading = read(&Command {
        lines,
        status: 1,
        text: "RUN python manage.py collectstatic",
    });
    assert_eq!((reading.begins, reading.at), (1, Some((27, 42))));
}

#[test]
fn what_a_log_tells_by_the_way_is_no_cause() {
    let lines = [
        "2026-11-29T09:10:11Z INFO fetched sprite: HTTP 404 Not Found, using the default",
        "2026-11-29 09:10:12,100 WARNING statsd: Connection refused, metrics disabled",
        "Exception in thread \"main\" java.lang.IllegalStateException: bad state",
    ];
    assert_eq!(
        told(1, "RUN java -jar migrate.jar", &lines).0,
        Kind::UncaughtException
    );
    let alone = told(1, "RUN ./seed", &lines[1..2]);
    assert_eq!(alone.1, Fault::Unknown);
}

#[test]
fn a_long_test_of_pytest_begins_at_its_name() {
    let mut texts = vec!["=== FAILURES ===", "________ test_pay ________", ""];
    texts.extend(["    step = next(steps)"; 30]);
    texts.extend(["tests/test_pay.py:41: ", "_ _ _ _ _ _ _ _"]);
    texts.extend(["    def send(self, request):"; 20]);
    texts.push(">       response.raise_for_status()");
    texts.push("E       requests.exceptions.HTTPError: 404 Client Error");
    let lines = &lines(&texts);
    let reading = read(&Command {
        lines,
        status: 1,
        text: "RUN pytest",
    });
    assert_eq!((reading.kind, reading.begins), (Kind::TestFailed, 1));
    assert_eq!(reading.at, Some((texts.len() - 2, texts.len() - 1)));
}

#[test]
fn what_a_test_met_is_its_failure_whoever_said_it() {
    let lines = [
        "________ test_full ________",
        "E       OSError: [Errno 28] No space left on device",
        "=== 1 failed in 0.10s ===",
    ];
    let told = told(1, "RUN pytest", &lines);
    assert_eq!((told.0, told.1), (Kind::TestFailed, Fault::Unknown));
}

#[test]
fn what_was_wanted_and_a_device_that_is_full_are_not_met() {
    let lines = [
        "--- FAIL: TestSetuid (0.00s)",
        "    id_test.go:9: Setuid(0) = <nil>, want operation not permitted",
        "    sink_test.go:14: Flush() = write /dev/full: no space left on device, want *sink.Error",
        "FAIL",
    ];
    assert_eq!(told(1, "RUN go test ./...", &lines).1, Fault::Code);
    let met = [
        "--- FAIL: TestWrite (0.00s)",
        "    id_test.go:9: Write() = write /tmp/x: no space left on device, want <nil>",
    ];
    assert_eq!(told(1, "RUN go test ./...", &met).1, Fault::Unknown);
}

#[test]
fn what_sums_up_counts_before_general_words() {
    let lines = [
        "  error: subprocess-exited-with-error",
        "  × python setup.py egg_info did not run successfully.",
        "  ╰─> [20 lines of output]",
        "      fatal: not a git repository (or any of the parent directories): .git",
        "      OSError: CUDA_HOME environment variable is not set.",
        "      [end of output]",
    ];
    assert_eq!(
        told(1, "RUN pip install flash-attn", &lines).0,
        Kind::PackageInstallFailed
    );
}

#[test]
fn what_npm_says_is_read_behind_its_name() {
    let lines = [
        "npm error code 128",
        "npm error git@github.com: Permission denied (publickey).",
        "npm error fatal: Could not read from remote repository.",
    ];
    assert_eq!(told(128, "RUN npm ci", &lines).0, Kind::GitAuthFailed);
}

#[test]
fn what_the_report_of_a_test_quotes_is_no_cause_of_its_own() {
    let mocha = [
        "  2 failing",
        "  1) accounts refuses a second one:",
        "",
        "      AssertionError: expected 409 to equal 201",
        "      at Context.<anonymous> (test/accounts.test.js:31:20)",
        "",
        "  2) mail is rendered:",
        "     Error: ENOENT: no such file or directory, open 'templates/welcome.mjml'",
        "      at Object.openSync (node:fs:573:18)",
    ];
    assert_eq!(
        told(2, "RUN npm test", &mocha),
        (Kind::TestFailed, Fault::Code, Some(1))
    );
    let behind = [&mocha[..6], &["copying", "    Error: ENOENT: no such file"]].concat();
    assert_eq!(told(2, "RUN npm test", &behind).0, Kind::FileNotFound);
}

#[test]
fn a_traceback_that_has_ended_heads_nothing_else() {
    let texts = [
        "Traceback (most recent call last):",
        "  File \"/app/images.py\", line 40, in fetch",
        "OSError: image is gone",
        "12 categories, 2 products",
        "CommandError: price is negative",
    ];
    assert!(is_open(&texts, 0, 2));
    assert!(!is_open(&texts, 0, 4));
    assert!(is_open(&texts, 3, 4), "no traceback");
}

#[test]
fn an_old_line_is_not_the_reason_where_the_last_says_more() {
    let mut texts = vec!["cat: /etc/build-host: No such file or directory"];
    texts.extend(["progress"; 60]);
    texts.push("build.sh: error: theme.json: unknown colour");
    let told = told(1, "RUN ./build.sh", &texts);
    assert_eq!((told.0, told.2), (Kind::CommandFailed, Some(61)));
}

#[test]
fn what_compilers_say_through_npm_is_of_a_package() {
    let lines = [
        "npm error gyp ERR! build error",
        "npm error ../src/x.cc:1:10: fatal error: cairo.h: No such file or directory",
        "npm error code 1",
    ];
    assert_eq!(told(1, "RUN npm ci", &lines).0, Kind::PackageInstallFailed);
}
