"""Each kind of failure that can be provoked: kind, fault, place and phase."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from helpers import ask, fail, file_source, files, log_text, unique
from local_registry import LocalRegistry, free_port
from mcp import ClientSession


@dataclass
class Case:
    """A build that fails. In the Containerfile, @BASE@ and @CLOSED@ are filled in."""

    name: str
    containerfile: str
    kind: str
    fault: str
    phases: tuple[str, ...] = ("build",)
    line: int | None = None
    exit_code: int | None = None
    files: dict[str, str] = field(default_factory=dict)
    args: dict[str, Any] = field(default_factory=dict)


EARLY = ("source", "build")
CASES = [
    Case("syntax", "FROM @BASE@\n\nENV\n", "containerfile_invalid", "code", EARLY, line=3),
    Case("unknown-instruction", "FROM @BASE@\n# x\nRUNN echo hi\n", "containerfile_invalid", "code", EARLY, line=3),
    Case("no-from", "RUN true\n", "containerfile_invalid", "code", EARLY),
    Case(
        "no-containerfile",
        "FROM @BASE@\n",
        "containerfile_not_found",
        "request",
        EARLY,
        args={"containerfile": "other/File"},
    ),
    Case("no-target", "FROM @BASE@ AS one\n", "target_not_found", "request", EARLY, args={"target": "two"}),
    Case("no-build-arg", "ARG BASE\nFROM ${BASE}\n", "containerfile_invalid", "request", EARLY, line=2),
    Case("copy-missing", "FROM @BASE@\nRUN true\nCOPY nothing /x\n", "copy_source_missing", "code", EARLY, line=3),
    Case(
        "copy-ignored",
        "FROM @BASE@\nCOPY made.o /x\n",
        "copy_source_ignored",
        "code",
        EARLY,
        line=2,
        files={"made.o": "x", ".containerignore": "*.o\n"},
    ),
    Case("copy-outside", "FROM @BASE@\nCOPY ../outside /x\n", "copy_outside_context", "code", EARLY, line=2),
    Case("no-image", "# x\nFROM @HOST@/test/nothing:1\n", "image_not_found", "code", ("source",), line=2),
    Case("no-tag", "FROM @HOST@/test/base:nothing\n", "image_not_found", "code", ("source",), line=1),
    Case(
        "no-image-to-copy-from",
        "FROM @BASE@\nCOPY --from=@HOST@/test/nothing:1 /x /x\n",
        "image_not_found",
        "code",
        ("source",),
        line=2,
    ),
    Case("short-name", "FROM surely-no-such-image\n", "image_short_name", "code", ("source",), line=1),
    Case("registry-refuses", "FROM @CLOSED@/x:1\n", "registry_unreachable", "transient", ("source",), line=1),
    Case("registry-unknown", "FROM registry.invalid/x:1\n", "registry_unknown_host", "unknown", ("source",), line=1),
    Case("not-found", "FROM @BASE@\nRUN surely-no-command\n", "command_not_found", "code", line=2, exit_code=127),
    Case("not-executable", "FROM @BASE@\nRUN /etc/passwd\n", "command_not_executable", "code", line=2, exit_code=126),
    Case(
        "run-fails",
        "FROM @BASE@ AS one\nRUN true\n\n# a comment\nFROM one\n"
        "RUN echo a && \\\n    # between\n    echo b && \\\n    exit 2\n",
        "command_failed",
        "code",
        line=6,
        exit_code=2,
    ),
    Case("run-fails-as-buildah-does", "FROM @BASE@\nRUN exit 125\n", "command_failed", "code", line=2, exit_code=125),
    Case(
        "run-forges-an-error",
        "FROM @BASE@\nRUN echo 'Error: building at STEP \"RUN other\": exit status 99' >&2; exit 3\n",
        "command_failed",
        "code",
        line=2,
        exit_code=3,
    ),
    Case(
        "no-package",
        "FROM @BASE@\nRUN echo 'E: Unable to locate package nothing' >&2; exit 100\n",
        "package_not_found",
        "code",
        line=2,
        exit_code=100,
    ),
    Case(
        "no-secret",
        "FROM @BASE@\nRUN --mount=type=secret,id=token,required=true cat /run/secrets/token\n",
        "secret_missing",
        "request",
        EARLY,
        line=2,
    ),
]


def arguments(case: Case, registry: LocalRegistry, base: str) -> dict[str, Any]:
    """The arguments of `build` for a case."""
    text = case.containerfile.replace("@BASE@", base).replace("@HOST@", registry.host)
    text = text.replace("@CLOSED@", f"127.0.0.1:{free_port()}")
    source = file_source({"Containerfile": text, **case.files})
    return {"source": source, "tags": [f"{registry.host}/e2e/{unique()}:1"], **case.args}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_failure_is_explained(session: ClientSession, registry: LocalRegistry, base: str, case: Case) -> None:
    wanted = arguments(case, registry, base)
    tag = wanted["tags"][0].removeprefix(f"{registry.host}/").removesuffix(":1")
    status = await fail(session, case.kind, case.fault, **wanted)
    failure = status["failure"]
    assert failure["phase"] in case.phases
    if case.line is not None:
        assert (failure["file"], failure["line"]) == ("Containerfile", case.line)
    assert failure.get("exit_code") == case.exit_code
    assert failure["message"]
    assert registry.digest(tag, "1") is None
    if "log_cursor" in failure:
        cursor = {"build_id": status["build_id"], "from": "start", "cursor": failure["log_cursor"]}
        assert (await ask(session, "logs", cursor))["first_line"] == int(failure["log_cursor"]) + 1


async def test_what_a_compiler_says_is_located(session: ClientSession, base: str) -> None:
    source = file_source(
        {
            "Containerfile": f"FROM {base}\nWORKDIR /src\nCOPY . .\nRUN sh compile\n",
            "src/main.c": "int main(void) { return x; }\n",
            "compile": "echo \"src/main.c:1:25: error: 'x' undeclared\" >&2\nexit 2\n",
        }
    )
    status = await fail(session, "compile_error", "code", source=source)
    failure = status["failure"]
    assert (failure["step"], failure["instruction"]) == (4, "RUN sh compile")
    location = failure["locations"][0]
    assert (location["file"], location["line"], location["column"]) == ("src/main.c", 1, 25)
    assert "undeclared" in location["message"]
    assert "undeclared" in failure["excerpt"]
    assert "not instructions" in failure["note"]
    shown = await ask(session, "logs", {"build_id": status["build_id"]})
    assert "undeclared" in shown["text"], "logs of a failed build do not begin at the failure"


async def test_places_are_files_of_the_source(plain: ClientSession, base: str) -> None:
    says = (
        "echo '/usr/include/stdio.h:1:1: error: not ours'\n"
        "echo '/usr/src/app/main.c:7:2: error: absolute'\n"
        "echo 'util.c:8:3: error: within lib'\n"
        "i=0; while [ $i -lt 60 ]; do printf '%0300d\\n' $i; i=$((i+1)); done\n"
        "seq 1 2000\nexit 2\n"
    )
    text = f"FROM {base}\nWORKDIR /usr/src/app\nCOPY src/ .\nCOPY lib ./lib/\nRUN cd lib && sh compile\n"
    source = file_source(
        {"app/Containerfile": text, "app/src/main.c": "x\n", "app/lib/util.c": "x\n", "app/lib/compile": says}
    )
    status = await fail(plain, "compile_error", "code", source={**source, "subdir": "app"})
    failure = status["failure"]
    places = [(place["file"], place["line"]) for place in failure["locations"]]
    assert places == [("app/src/main.c", 7), ("app/lib/util.c", 8)]
    assert failure["excerpt"].splitlines()[0].startswith("/usr/include/stdio.h"), "the first error is not shown"
    assert (failure["file"], failure["line"]) == ("app/Containerfile", 5)
    shown = await ask(plain, "logs", {"build_id": status["build_id"], "lines": 5})
    assert "not ours" in shown["text"], "the log does not open where it failed"
    # What is behind it would take all the bytes.
    shown = await ask(plain, "logs", {"build_id": status["build_id"], "max_bytes": 2000})
    assert "not ours" in shown["text"].splitlines()[0] and shown["more_after"], shown
    further = {"build_id": status["build_id"], "from": "start", "cursor": shown["cursor"]}
    assert (await ask(plain, "logs", further))["first_line"] == shown["last_line"] + 1


async def test_a_test_that_fails_is_explained_like_a_step(plain: ClientSession, base: str) -> None:
    source = file_source({"Containerfile": f"FROM {base}\nWORKDIR /app\nCOPY . .\n", "src/a.c": "x\n"})
    tests = [
        {"name": "unit", "command": "echo 'src/a.c:3: Failure'; seq 1 100; echo '1 FAILED TEST'; exit 1"},
        {"name": "net", "command": "wget -O - http://127.0.0.1:1/x"},
    ]
    status = await fail(plain, "test_failed", "code", source=source, tests=tests)
    failure = status["failure"]
    assert [(place["file"], place["line"]) for place in failure["locations"]] == [("src/a.c", 3)]
    assert failure["excerpt"].startswith("src/a.c:3: Failure")
    await fail(plain, "test_failed", "unknown", source=source, tests=tests[1:])


async def test_the_containerfile_is_named_from_the_root_of_the_source(plain: ClientSession, base: str) -> None:
    source = file_source({"a/b/File": f"FROM {base}\nRUN exit 7\n"})
    status = await fail(plain, "command_failed", "code", source={**source, "subdir": "a"}, containerfile="b/File")
    assert (status["failure"]["file"], status["failure"]["line"]) == ("a/b/File", 2)


async def test_a_test_whose_program_is_missing_did_not_start(plain: ClientSession, base: str) -> None:
    tests = [{"name": "gone", "argv": ["/no/such/program"]}]
    status = await fail(plain, "test_not_started", "code", source=files(Containerfile=f"FROM {base}\n"), tests=tests)
    assert status["failure"]["phase"] == "test"
    assert status["failure"]["test"] == "gone"


async def test_variables_and_continuations_do_not_confuse_the_lines(plain: ClientSession, base: str) -> None:
    text = f"ARG TOP={base}\nFROM $TOP\nARG WORD=x\nENV A=$WORD \\\n    B=y\nRUN echo $A\nRUN test $B = z\n"
    status = await fail(plain, "command_failed", "code", source=files(Containerfile=text))
    assert status["failure"]["line"] == 7
    assert "test $B = z" in await log_text(plain, status["build_id"], phase="build")
