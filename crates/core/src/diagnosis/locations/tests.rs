use std::collections::BTreeSet;

use super::*;
use crate::containerfile::{Copied, Layout};
use proptest::prelude::*;

fn places(lines: &[&str], tree: &Tree, command: &str) -> Vec<(String, Option<u32>, Option<u32>)> {
    locations(lines, 0, tree, command, false)
        .into_iter()
        .map(|place| (place.file, place.line, place.column))
        .collect()
}

fn at(file: &str, line: u32, column: impl Into<Option<u32>>) -> (String, Option<u32>, Option<u32>) {
    (file.to_owned(), Some(line), column.into())
}

fn app(files: &[&str]) -> Tree {
    Tree {
        files: files
            .iter()
            .map(|file| (*file).to_owned())
            .collect::<BTreeSet<_>>(),
        context: String::new(),
        layout: Layout {
            workdir: "/app".to_owned(),
            copied: vec![Copied {
                named: None,
                source: ".".to_owned(),
                target: "/app".to_owned(),
            }],
        },
    }
}

#[test]
fn every_form_is_read_and_system_files_are_not() {
    let lines = [
        "/usr/include/stdio.h:1:2: error: not ours",
        "src/main.c:1:25: error: 'x' undeclared",
        "./main.go:7:2: undefined: x",
        "src/a.ts(3,9): error TS2304: Cannot find name 'y'.",
        "error[E0425]: cannot find value `z`",
        "  --> src/lib.rs:4:5",
        "  File \"app/run.py\", line 12, in <module>",
        "Main.java:3: error: ';' expected",
        "src/main.c:1:25: error: 'x' undeclared",
    ];
    assert_eq!(
        places(&lines, &Tree::default(), ""),
        [
            at("src/main.c", 1, 25),
            at("main.go", 7, 2),
            at("src/a.ts", 3, 9),
            at("src/lib.rs", 4, 5),
            at("app/run.py", 12, None),
            at("Main.java", 3, None),
        ]
    );
    let all = locations(&lines, 0, &Tree::default(), "", false);
    assert_eq!(
        all[3].message.as_deref(),
        Some("error[E0425]: cannot find value `z`")
    );
}

#[test]
fn only_files_of_the_source_are_named_and_the_first_cause_comes_first() {
    let tree = app(&[
        "run.py",
        "lib/deep.py",
        "src/a.test.js",
        "src/a.js",
        "pkg/x_test.go",
        "src/com/e/App.java",
        "sub/b.c",
    ]);
    let python = [
        "Traceback (most recent call last):",
        "  File \"/app/run.py\", line 3, in <module>",
        "    deep.go()",
        "  File \"/app/lib/deep.py\", line 7, in go",
        "    raise ValueError('x')",
        "  File \"/usr/lib/python3/json.py\", line 9, in loads",
        "ValueError: x",
    ];
    assert_eq!(
        places(&python, &tree, ""),
        [at("lib/deep.py", 7, None), at("run.py", 3, None)]
    );
    let found = locations(&python, 0, &tree, "", false);
    assert_eq!(found[0].message.as_deref(), Some("ValueError: x"));
    let node = [
        "/app/src/a.js:2",
        "TypeError: x is not a function",
        "    at f (/app/src/a.js:2:5)",
        "    at Object.<anonymous> (src/a.test.js:4:9)",
        "    at node:internal/main/run:23:47",
        "    at x (/app/node_modules/y/i.js:1:1)",
    ];
    assert_eq!(
        places(&node, &tree, ""),
        [at("src/a.js", 2, None), at("src/a.test.js", 4, 9)]
    );
    let go = [
        "--- FAIL: TestX (0.00s)",
        "    x_test.go:8: got 1",
        "FAIL    example.com/m/pkg    0.002s",
    ];
    assert_eq!(places(&go, &tree, ""), [at("pkg/x_test.go", 8, None)]);
    let java = [
        "Exception in thread \"main\" java.lang.X: y",
        "    at com.e.App.main(App.java:5)",
        "    at java.base/java.x.Y.z(Y.java:9)",
    ];
    assert_eq!(
        places(&java, &tree, ""),
        [at("src/com/e/App.java", 5, None)]
    );
    let make = [
        "make[1]: Entering directory '/app/sub'",
        "b.c:4:1: error: expected ';'",
    ];
    assert_eq!(places(&make, &tree, ""), [at("sub/b.c", 4, 1)]);
    assert_eq!(
        places(&make[1..], &tree, "RUN cd sub && make"),
        [at("sub/b.c", 4, 1)]
    );
    let eslint = [
        "/app/src/a.js",
        "  3:9  error  'y' is not defined  no-undef",
    ];
    assert_eq!(places(&eslint, &tree, ""), [at("src/a.js", 3, 9)]);
}

#[test]
fn what_is_not_of_a_known_source_is_not_named() {
    let tree = app(&["src/main.c", "CMakeLists.txt"]);
    let lines = [
        "inflate.c:10:5: error: unknown type name 'x'",
        "build/gen.c:3:1: error: expected ';'",
    ];
    assert_eq!(
        places(
            &lines,
            &tree,
            "RUN curl -L http://h/zlib.tgz | tar xz; make"
        ),
        []
    );
    let own = [lines[0], "src/main.c:3:1: error: expected ';'"];
    assert_eq!(places(&own, &tree, "RUN make"), [at("src/main.c", 3, 1)]);
}

#[test]
fn a_place_that_stands_apart_from_what_is_said_is_read() {
    let files = [
        "CMakeLists.txt",
        "test/greet.bats",
        "src/app/page.tsx",
        "lib/shop/cart.ex",
    ];
    let tree = app(&files);
    let cmake = [
        "CMake Error at /usr/share/cmake-3.25/Modules/FindPackageHandleStandardArgs.cmake:230 (message):",
        "  Could NOT find OpenSSL",
        "Call Stack (most recent call first):",
        "  /usr/share/cmake-3.25/Modules/FindOpenSSL.cmake:670 (find_package_handle_standard_args)",
        "  CMakeLists.txt:6 (find_package)",
    ];
    assert_eq!(places(&cmake, &tree, ""), [at("CMakeLists.txt", 6, None)]);
    let bats = [
        "not ok 2 refuses",
        "# (in test file test/greet.bats, line 10)",
    ];
    assert_eq!(places(&bats, &tree, ""), [at("test/greet.bats", 10, None)]);
    let next = ["./src/app/page.tsx:7:17", "Type error: x"];
    assert_eq!(places(&next, &tree, ""), [at("src/app/page.tsx", 7, 17)]);
    let elixir = ["     └─ lib/shop/cart.ex:5:21: Shop.Cart.total/1"];
    assert_eq!(places(&elixir, &tree, ""), [at("lib/shop/cart.ex", 5, 21)]);
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(lines in proptest::collection::vec(".{0,200}", 0..50), command in ".{0,80}") {
        let texts: Vec<&str> = lines.iter().map(String::as_str).collect();
        let found = locations(&texts, 0, &app(&["a"]), &command, false);
        prop_assert!(found.len() <= MOST_LOCATIONS);
    }
}

#[test]
fn a_file_of_the_user_s_is_found_in_whatever_form_and_no_other() {
    let tree = app(&["src/main.c", "test/foo_test.rb", "Makefile"]);
    for (line, column) in [
        ("    src/main.c:4:10:", Some(10)),
        ("ERROR in ./src/main.c 4:10", Some(10)),
        (
            "[vite:vue] src/main.c (4:10): Element is missing end tag.",
            Some(10),
        ),
        ("    #0 0x560e673e91ca in main /app/src/main.c:4", None),
        ("==12==    at 0x109167: main (main.c:4)", None),
        (
            "The error appears to be in '/app/src/main.c': line 4, column 10, but may",
            None,
        ),
        ("Build file '/app/src/main.c' line: 4", None),
        ("In src/main.c line 4:", None),
        (
            "   at Program.Main(String[] args) in /app/src/main.c:line 4",
            None,
        ),
        (
            "nginx: [emerg] unknown directive in /app/src/main.c:4",
            None,
        ),
    ] {
        let found = places(&[line], &tree, "");
        assert_eq!(found, [at("src/main.c", 4, column)], "{line}");
    }
    let rspec = ["     # ./test/foo_test.rb:7:in `block'"];
    assert_eq!(places(&rspec, &tree, ""), [at("test/foo_test.rb", 7, None)]);
    for line in [
        "==12==    at 0x109167: main (other.c:4)",
        "listening on server.js:3000",
        "src/main.c:4:10: warning: unused variable",
        "src/main.c:4:10: note: declared here",
        "  1) src/main.c:4:10 › login",
        "{\"level\":\"info\",\"caller\":\"src/main.c:4\",\"msg\":\"ok\"}",
        "2026-11-29T09:10:11Z INFO src/main.c:4 starting",
        "make: *** [Makefile:2: all] Error 1",
    ] {
        assert_eq!(places(&[line], &tree, ""), [], "{line}");
    }
    let eslint = [
        "/app/src/main.c",
        "  3:1  warning  Unexpected console statement",
    ];
    assert_eq!(places(&eslint, &tree, ""), []);
    let remarked = locations(&eslint, 0, &tree, "", true);
    assert_eq!(remarked.first().and_then(|place| place.line), Some(3));
}

#[test]
fn pnpm_names_the_directory_of_what_it_runs() {
    let tree = app(&["packages/web/src/app.ts", "src/app.ts"]);
    let line =
        "packages/web build: src/app.ts(4,7): error TS2322: Type 'string' is not assignable.";
    assert_eq!(
        places(&[line], &tree, ""),
        [at("packages/web/src/app.ts", 4, 7)]
    );
}

#[test]
fn files_of_packages_that_pip_builds_are_not_the_user_s() {
    let tree = app(&["setup.py"]);
    let lines = [
        "      ╰─> [18 lines of output]",
        "          Traceback (most recent call last):",
        "            File \"setup.py\", line 9, in <module>",
        "          ModuleNotFoundError: No module named 'distutils'",
        "          [end of output]",
    ];
    assert_eq!(
        places(&lines, &tree, "RUN pip install -r requirements.txt"),
        []
    );
    // Where the excerpt begins within it, too.
    assert_eq!(places(&lines[2..], &tree, "RUN pip install aiohttp"), []);
    assert_eq!(
        places(&lines, &tree, "RUN pip install ."),
        [at("setup.py", 9, None)]
    );
}

#[test]
fn the_directory_of_one_line_is_not_the_next_one_s() {
    let tree = app(&[
        "packages/api/tests/test_a.py",
        "packages/api/src/app.ts",
        "src/app.ts",
    ]);
    let lines = [
        "packages/api test: tests/test_a.py:5: ",
        "src/app.ts(4,7): error TS2322: Type 'string' is not assignable.",
    ];
    assert_eq!(places(&lines, &tree, ""), [at("src/app.ts", 4, 7)]);
}

#[test]
fn a_call_of_pytest_counts_where_what_it_led_to_is_not_the_user_s() {
    let tree = app(&["tests/conftest.py", "app/db.py"]);
    let lines = [
        "tests/conftest.py:14: ",
        "/usr/local/lib/python3.12/site-packages/psycopg2/__init__.py:122: in connect",
        "E   sqlalchemy.exc.OperationalError: could not translate host name",
    ];
    assert_eq!(
        places(&lines, &tree, ""),
        [at("tests/conftest.py", 14, None)]
    );
    let own = ["tests/conftest.py:14: ", "app/db.py:3: KeyError"];
    assert_eq!(places(&own, &tree, ""), [at("app/db.py", 3, None)]);
}

#[test]
fn the_number_of_tests_is_no_line() {
    let tree = app(&["src/sum.test.ts", "tests/login.spec.ts", "src/main.c"]);
    let vitest = [
        " ❯ src/sum.test.ts (31 tests | 1 failed) 48ms",
        " ❯ src/sum.test.ts:7:15",
    ];
    assert_eq!(places(&vitest, &tree, ""), [at("src/sum.test.ts", 7, 15)]);
    let playwright = ["  1) [chromium] › tests/login.spec.ts:12:1 › signs in ────────"];
    assert_eq!(
        places(&playwright, &tree, ""),
        [at("tests/login.spec.ts", 12, 1)]
    );
    let others = ["check src/main.c(12): wrong", "check src/main.c (14,3) too"];
    assert_eq!(
        places(&others, &tree, ""),
        [at("src/main.c", 12, None), at("src/main.c", 14, 3)]
    );
}

#[test]
fn the_innermost_call_of_pytest_comes_first() {
    let tree = app(&["tests/test_api.py", "app/orders.py", "app/mailer.py"]);
    let short = [
        "____ ERROR collecting tests/test_api.py ____",
        "tests/test_api.py:6: in <module>",
        "    from app.orders import Order",
        "app/orders.py:9: in <module>",
        "    from app.mailer import send",
        "app/mailer.py:4: in <module>",
        "    from app.orders import Order",
        "E   ImportError: cannot import name 'Order'",
        "=== short test summary info ===",
    ];
    let first = at("app/mailer.py", 4, None);
    assert_eq!(places(&short, &tree, "").first(), Some(&first));
    let found = locations(&short, 0, &tree, "", false);
    assert_eq!(
        found.first().and_then(|place| place.message.as_deref()),
        Some("ImportError: cannot import name 'Order'")
    );
    let long = [
        "____ test_best ____",
        "app/orders.py:97: in best",
        "    return max(self.candidates())",
        "_ _ _ _ _ _ _ _ _",
        ">       return len(path) / total",
        "E       ZeroDivisionError: float division by zero",
        "",
        "app/mailer.py:142: ZeroDivisionError",
    ];
    assert_eq!(
        places(&long, &tree, ""),
        [
            at("app/mailer.py", 142, None),
            at("app/orders.py", 97, None)
        ]
    );
}

#[test]
fn a_name_in_two_directories_is_where_the_program_ran() {
    let tree = app(&["firmware/uart.c", "host/uart.c"]);
    let error = ["uart.c:54:13: error: 'x' undeclared"];
    let firmware = [at("firmware/uart.c", 54, 13)];
    assert_eq!(places(&error, &tree, "RUN make all"), []);
    for command in [
        "RUN make -C firmware all",
        "RUN cd firmware && make",
        "RUN cargo build --manifest-path firmware/Cargo.toml",
        "RUN npm --prefix firmware test",
    ] {
        assert_eq!(places(&error, &tree, command), firmware, "{command}");
    }
    let lines = [
        "make[1]: Entering directory '/app/host'",
        "make[1]: Entering directory '/app/firmware'",
        "make[1]: Leaving directory '/app/host'",
        error[0],
    ];
    let found = locations(&lines, 3, &tree, "RUN make", false);
    assert_eq!(
        found.first().map(|place| place.file.as_str()),
        Some("firmware/uart.c")
    );
    let npm = [error[0], "npm error path /app/firmware"];
    assert_eq!(places(&npm, &tree, "RUN npm test -ws"), firmware);
    let tree = app(&[
        "internal/orders/handler_test.go",
        "internal/users/handler_test.go",
    ]);
    let go = [
        "ok  \texample.com/shop/internal/users\t0.010s",
        "--- FAIL: TestCreate (0.00s)",
        "    handler_test.go:40: opening the store",
        "    handler_test.go:41: status = 500, want 201",
        "FAIL\texample.com/shop/internal/orders\t0.019s",
    ];
    assert_eq!(
        places(&go, &tree, ""),
        [at("internal/orders/handler_test.go", 41, None)]
    );
}

#[test]
fn what_only_heads_counts_where_nothing_else_is_found() {
    let tree = app(&[
        "include/proto.h",
        "include/frame.h",
        "src/main.c",
        "src/lib.rs",
    ]);
    let gcc = [
        "In file included from include/proto.h:5,",
        "                 from src/main.c:2:",
        "include/frame.h:22:3: error: unknown type name 'u8'",
    ];
    assert_eq!(places(&gcc, &tree, ""), [at("include/frame.h", 22, 3)]);
    let of_the_system = [gcc[0], gcc[1], "/usr/include/x.h:3:1: error: #error no"];
    assert_eq!(
        places(&of_the_system, &tree, ""),
        [at("include/proto.h", 5, None), at("src/main.c", 2, None)]
    );
    let doctest = [
        "---- src/lib.rs - join (line 41) stdout ----",
        "Test executable failed (exit status: 101).",
        "thread 'main' panicked at src/lib.rs:5:1:",
    ];
    assert_eq!(places(&doctest, &tree, ""), [at("src/lib.rs", 41, None)]);
}

#[test]
fn the_exceptions_of_a_group_come_before_the_group() {
    let tree = app(&["crawler/run.py", "crawler/fetch.py"]);
    let lines = [
        "Traceback (most recent call last):",
        "  File \"/app/crawler/run.py\", line 12, in <module>",
        "ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)",
        "  +-+---------------- 1 ----------------",
        "Traceback (most recent call last):",
        "  File \"/app/crawler/fetch.py\", line 31, in fetch",
        "ValueError: unsupported scheme: 'gopher'",
    ];
    assert_eq!(
        places(&lines, &tree, ""),
        [
            at("crawler/fetch.py", 31, None),
            at("crawler/run.py", 12, None)
        ]
    );
}

#[test]
fn what_looks_like_a_group_or_a_table_changes_nothing() {
    let tree = app(&["a.py", "b.py", "setup.py", "src/Kernel.php"]);
    let banner = ["a.py:5: ValueError: x", "+-----+", "b.py:7: KeyError: y"];
    let both = [at("a.py", 5, None), at("b.py", 7, None)];
    assert_eq!(places(&banner, &tree, ""), both);
    let counted = ["setup.py", "  12  34 571 a.py"];
    assert_eq!(places(&counted, &tree, ""), []);
    let table = [
        "  Line   src/Kernel.php                ",
        " ------ ------------------------------",
        "  27     Call to an undefined method",
    ];
    assert_eq!(places(&table, &tree, ""), [at("src/Kernel.php", 27, None)]);
    let quoted = app(&["firmware/uart.c", "host/uart.c"]);
    assert_eq!(
        places(
            &["uart.c:5:1: error: x"],
            &quoted,
            "RUN bash -c \"cd firmware && make\""
        ),
        [at("firmware/uart.c", 5, 1)]
    );
}

#[test]
fn what_does_not_compile_is_told_from_where_go_ran() {
    let tree = app(&["util_test.go", "internal/a/util_test.go"]);
    let lines = [
        "# example.com/shop [example.com/shop.test]",
        "./util_test.go:9:2: undefined: x",
        "ok  \texample.com/shop/internal/a\t0.010s",
    ];
    assert_eq!(places(&lines, &tree, ""), [at("util_test.go", 9, 2)]);
}
