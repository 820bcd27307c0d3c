"""The command line on this machine: build, status, logs and kill as people and scripts use them."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import MakeServer
from git_http import GitHttp, commit, git
from helpers import sleep_marker, unique, wait_for
from holding_proxy import HoldingProxy
from local_registry import LocalRegistry, free_port
from processes import running
from server import Server, binary


@dataclass
class Cli:
    """The program on the state of a server of its own."""

    server: Server
    project: Path
    base: str

    def command(self, *words: str) -> list[str]:
        *before, _ = self.server.command
        return [*before, *words]

    def run(self, *words: str, timeout: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), env=self.server.env | env, cwd=self.project, capture_output=True, text=True, timeout=timeout
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words), env=self.server.env, cwd=self.project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def json(self, *words: str) -> dict:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done
        return json.loads(done.stdout)

    def write(self, text: str) -> None:
        (self.project / "Containerfile").write_text(f"FROM {self.base}\n{text}")


@pytest.fixture
def cli(make_server: MakeServer, base: str, tmp_path: Path) -> Cli:
    project = tmp_path / "project"
    project.mkdir()
    # Builds of root read it as another user.
    for path in (*project.parents, project):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    return Cli(make_server(), project, base)


def id_of(text: str) -> str:
    found = re.search(r"\b[2-9a-z]{5}-[2-9a-z]{5}\b", text)
    assert found, text
    return found[0]


def test_a_directory_is_built_tested_and_pushed(cli: Cli, registry: LocalRegistry) -> None:
    name = unique("cli")
    tag = f"{registry.host}/cli/{name}:1"
    cli.write(f"COPY data /\nARG WHAT\nRUN echo $WHAT {name}\n")
    (cli.project / "data").write_text("x")
    done = cli.run("build", "-t", tag, "--test", "grep x /data", "--build-arg", "WHAT=given", "--label", "a=b", "--name", name)
    assert done.returncode == 0, done
    digest = registry.digest(f"cli/{name}", "1")
    assert f"pushed {tag} @ {digest}" in done.stdout and "test test-1 passed" in done.stdout
    build = id_of(done.stderr)
    told = cli.json("status", build)
    assert (told["build_id"], told["state"], told["name"], told["image"]["digest"]) == (build, "succeeded", name, digest)
    # By the beginning of its id, for people.
    shown = cli.run("status", build[:6])
    assert shown.returncode == 0 and tag in shown.stdout
    listed = cli.run("status", "--name", name)
    assert build in listed.stdout and "succeeded" in listed.stdout and listed.stdout.startswith("BUILD ")
    assert [row["build_id"] for row in cli.json("status", "--name", name)["builds"]] == [build]
    log = cli.run("logs", build)
    assert f"given {name}" in log.stdout and log.returncode == 0
    only = cli.run("logs", build, "--grep", f"^GIVEN {name}", "-i").stdout
    assert only.strip().endswith(f"| given {name}") and len(only.splitlines()) == 1
    assert cli.json("logs", build, "--from", "end", "-n", "1")["last_line"] > 1


def test_named_contexts_are_given_by_name(cli: Cli) -> None:
    for name, text in {"app/Containerfile": "FROM start\nCOPY --from=shared word /\n", "libs/shared/word": "x"}.items():
        path = cli.project / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    named = ("--build-context", "shared=libs/shared", "--build-context", f"start=docker-image://{cli.base}")
    done = cli.run("build", "--subdir", "app", *named, "--test", "grep x /word")
    assert done.returncode == 0, done
    done = cli.run("build", "--subdir", "app", "--build-context", "shared=libs/other")
    assert done.returncode == 2 and "--build-context[0]: it is not there" in done.stderr, done


def test_a_failure_is_shown_as_compilers_show_theirs(cli: Cli) -> None:
    cli.write(f"RUN true && \\\n    echo {unique()}; exit 5\n")
    done = cli.run("build")
    assert done.returncode == 1, done
    assert "error[command_failed]: the command ended with status 5" in done.stdout
    assert "--> Containerfile:2:1" in done.stdout and "2 | RUN true && \\" in done.stdout and "^^^^" in done.stdout
    assert "exit status 5, the code is at fault" in done.stdout and "\x1b" not in done.stdout
    build = id_of(done.stderr)
    again = cli.run("status", build)
    assert again.returncode == 1 and "error[command_failed]" in again.stdout
    assert json.loads(cli.run("status", build, "--json").stdout)["failure"]["exit_code"] == 5


def test_what_is_refused_says_why(cli: Cli) -> None:
    cli.write("")
    done = cli.run("build", "--profile", "larg")
    assert done.returncode == 2 and "error[invalid_argument] profile" in done.stderr, done
    done = cli.run("build", "nowhere")
    assert done.returncode == 2 and "nowhere is no directory" in done.stderr, done
    done = cli.run("status", "zzzzz-zzzzz")
    assert done.returncode == 2 and done.stderr, done
    done = cli.run("build", "--ref", "main")
    assert done.returncode == 2 and "--ref and --patch go with the URL" in done.stderr, done
    (cli.project / "empty").mkdir()
    for words in (("empty",), ("--subdir", "empty"), ("--file", "Other")):
        done = cli.run("build", *words)
        assert done.returncode == 2 and " has no " in done.stderr and "--file names another" in done.stderr, done
    done = cli.run("build", "file:///tmp")
    assert done.returncode == 2 and "by its path alone, not as a URL: /tmp" in done.stderr, done
    for words, problem in (
        (("-o", "nowhere/image.tar"), "there is no directory nowhere"),
        (("-o", "."), "is a directory, and image is to become a file"),
        (("--extract", "/etc/passwd=empty"), "is a directory, and /etc/passwd is to become a file"),
    ):
        done = cli.run("build", *words)
        assert done.returncode == 2 and problem in done.stderr, done
    done = cli.run("build", "--validate-only")
    assert done.returncode == 0 and done.stdout.startswith("valid: 1 stages"), done
    assert "not checked: whether COPY and ADD find their sources" in done.stdout and "data, not" not in done.stdout, done
    done = cli.run("build", "--test", "true", "--test-stage", "builder")
    assert done.returncode == 1 and "error[target_not_found]: test test-1: there is no stage" in done.stdout, done
    assert "help: Name a stage of the Containerfile with --test-stage." in done.stdout, done


def test_a_directory_of_the_image_comes_as_an_archive_of_its_name(cli: Cli) -> None:
    cli.write("RUN mkdir /app && echo x > /app/file\n")
    done = cli.run("build", "--extract", "/app")
    assert done.returncode == 0 and "/app is in app.tar" in done.stderr, done
    assert (cli.project / "app.tar").is_file() and not (cli.project / "app").exists()
    done = cli.run("build", "--extract", "/app")
    assert done.returncode == 1 and "app.tar is here already" in done.stderr, done


def test_a_file_that_was_meant_is_named(cli: Cli) -> None:
    (cli.project / "tests").mkdir()
    (cli.project / "tests/case").write_text("x")
    cli.write("COPY test /test\n")
    done = cli.run("build")
    assert done.returncode == 1 and '"/test": no such file or directory; the source has "tests"' in done.stdout, done
    build = id_of(done.stderr)
    assert f"the log around it: nomad-build logs {build} --from failure" in done.stdout, done
    none = cli.run("logs", build, "--grep", "nothing of the kind")
    assert none.returncode == 0 and none.stderr.strip() == "no line matches nothing of the kind", none


def test_a_repository_is_built(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    git(tmp_path / "work", "init", "--quiet", "--initial-branch=main")
    commit(tmp_path / "work", "one", {"sub/Containerfile": f"FROM {cli.base}\nRUN echo {unique()}\n"})
    (tmp_path / "served").mkdir()
    git(tmp_path, "clone", "--quiet", "--bare", str(tmp_path / "work"), str(tmp_path / "served/app.git"))
    (tmp_path / "work/sub/Containerfile").write_text(f"FROM {cli.base}\nRUN echo patched > /word\n")
    (tmp_path / "patch").write_text(git(tmp_path / "work", "diff", "--binary"))
    patched = ("--patch", str(tmp_path / "patch"), "--test", "grep -x patched /word")
    with GitHttp(tmp_path / "served") as served:
        for words in ((), patched):
            done = cli.run("build", f"{served.url}/app.git", "--ref", "main", "--subdir", "sub", *words, "--json")
            assert done.returncode == 0, done
            told = json.loads(done.stdout)
            assert told["source"]["ref"] == "main" and told["source"]["commit"], told


def test_what_a_test_may_take_is_said(cli: Cli) -> None:
    cli.write("")
    late = cli.run("build", "--fail-fast", "--test-timeout", "1", "--test", "sleep 60", "--test", "true")
    assert late.returncode == 1 and "did not end within 1 s" in late.stdout and "test test-2 did not run" in late.stdout, late
    silent = cli.run("build", "--test", "grep -x nothing /etc/passwd")
    assert silent.returncode == 1 and "test test-1 ended with status 1, without output" in silent.stdout, silent


async def test_a_build_is_left_followed_and_killed(cli: Cli) -> None:
    marker, word = sleep_marker(), unique("word")
    cli.write(f"RUN echo {word}; sleep {marker}\n")
    done = cli.run("build", "--detach")
    build = done.stdout.strip()
    assert done.returncode == 0 and build == id_of(build)
    await wait_for(lambda: running("sleep", marker), "the step", 120)
    listed = cli.run("status", "--state", "unfinished")
    assert build in listed.stdout and "running build" in listed.stdout
    follower = cli.start("logs", build, "--follow")
    watcher = cli.start("status", build, "--watch", "--json")
    killed = cli.run("kill", build, "--reason", "enough", "--wait", "40")
    assert killed.returncode == 0 and "cancelled" in killed.stdout.lower(), killed
    out, _ = follower.communicate(timeout=60)
    assert follower.returncode == 0 and f"| {word}" in out
    told = json.loads(watcher.communicate(timeout=60)[0])
    assert watcher.returncode == 1 and told["state"] == "cancelled" and told["cancel"]["reason"] == "enough"
    assert cli.run("kill", build).returncode == 0
    shown = cli.run("status", build)
    assert shown.returncode == 1 and "\nreason: enough\n" in shown.stdout, shown
    assert "profiles to build with (--profile): default" in cli.run("status").stdout


async def begun(cli: Cli, *words: str) -> tuple[subprocess.Popen[str], str, str]:
    """A build that sleeps; the process that waits for it, what is slept for, and its id."""
    marker = sleep_marker()
    cli.write(f"RUN sleep {marker}\n")
    process = cli.start("build", *words)
    assert process.stderr
    build = id_of(process.stderr.readline())
    await wait_for(lambda: running("sleep", marker), "the step", 120)
    return process, marker, build


async def test_ctrl_c_ends_the_build(cli: Cli) -> None:
    process, marker, build = await begun(cli)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and f"ending the build {build}" in errors
    assert not running("sleep", marker)
    told = json.loads(cli.run("status", build, "--json").stdout)
    assert told["state"] == "cancelled" and told["cancel"]["reason"] == "Ctrl-C"


async def test_a_second_ctrl_c_leaves_it_and_says_how_to_come_back(cli: Cli) -> None:
    # What ignores the first signal keeps the build busy until its grace is over.
    marker = sleep_marker()
    cli.write(f"RUN trap '' TERM INT; sleep {marker}\n")
    process = cli.start("build")
    assert process.stderr
    build = id_of(process.stderr.readline())
    await wait_for(lambda: running("sleep", marker), "the step", 120)
    process.send_signal(signal.SIGINT)
    assert "Ctrl-C again does not wait" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 4 and f"the build {build} was asked to end" in errors, (process.returncode, errors)
    again = re.search(r"come back with nomad-build (status --watch \S+)", errors)
    assert again, errors
    back = cli.run(*again[1].split(), "--json")
    assert back.returncode == 1 and json.loads(back.stdout)["state"] == "cancelled", back


async def test_ctrl_c_that_comes_too_late_tells_what_was_published(make_server: MakeServer, registry: LocalRegistry, base: str, tmp_path: Path) -> None:
    with HoldingProxy(registry.host) as proxy:
        cli = Cli(make_server(proxies=[proxy.host]), tmp_path, base)
        cli.write(f"RUN echo {unique()}\n")
        tmp_path.chmod(0o711)
        name = unique()
        hold = proxy.hold("PUT", f"/{name}/manifests/1$", answer=True)
        process = cli.start("build", "--json", "--tag", f"{proxy.host}/{name}:1")
        await wait_for(hold.reached.is_set, "the push of the tag", 120)
        process.send_signal(signal.SIGINT)
        assert process.stderr and "ending the build" in process.stderr.readline()
        hold.release()
        out, _ = process.communicate(timeout=60)
    # The first tag was being written: the build finished, and says so.
    told = json.loads(out)
    assert (process.returncode, told["state"]) == (0, "succeeded") and told["image"]["tags"], (process.returncode, out)

def test_on_a_terminal_it_is_drawn_and_coloured(cli: Cli) -> None:
    cli.write(f"RUN echo {unique()}; for i in 1 2 3 4; do echo line $i; sleep 1; done; exit 3\n")
    shown = on_a_terminal(cli, "build")
    assert "build 1/1 RUN echo" in shown or "build 2/2 RUN echo" in shown, shown
    assert "line 2" in shown and "\x1b[" in shown and "error" in shown
    plain = on_a_terminal(cli, "build", NO_COLOR="1")
    last = plain[plain.rindex("error[command_failed]") :]
    assert "\x1b[1m" not in last and "\x1b[3" not in last, last


def on_a_terminal(cli: Cli, *words: str, **env: str) -> str:
    """What a terminal is sent."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        cli.command(*words), env=cli.server.env | {"TERM": "xterm-256color"} | env, cwd=cli.project, stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    seen: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(ours, 65536):
                seen.append(data)
        except OSError:
            # The other end is closed.
            pass

    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.monotonic() + 120
    assert process.wait(deadline - time.monotonic()) == 1
    reader.join(10)
    os.close(ours)
    return b"".join(seen).decode(errors="replace")


def test_a_server_that_is_not_there_is_told_in_words_for_people() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    done = subprocess.run([binary(), "status", "--server", address], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and f"no MCP with the server {address}" in done.stderr, done
    assert "error sending request" in done.stderr and "::" not in done.stderr, done.stderr


def test_the_end_of_a_pipe_is_no_fault(cli: Cli) -> None:
    cli.write("RUN seq 20000\n")
    build = id_of(cli.run("build").stderr)
    command = " ".join(cli.command("logs", build)) + " | head -1"
    done = subprocess.run(["sh", "-c", command], env=cli.server.env, capture_output=True, text=True, timeout=60)
    assert done.stderr == "" and len(done.stdout.splitlines()) == 1
    lines = cli.run("logs", build).stdout.splitlines()
    assert lines[-1].endswith("20000") or any(line.endswith("| 20000") for line in lines)
    assert len(lines) >= 20000
    for words in ("completions bash", "man"):
        done = subprocess.run(["sh", "-c", f"{binary()} {words} | head -1"], capture_output=True, text=True, timeout=60)
        assert done.stderr == "" and len(done.stdout.splitlines()) == 1, done


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "elvish", "powershell"])
def test_shells_complete_command_lines(shell: str) -> None:
    done = subprocess.run([binary(), "completions", shell], capture_output=True, text=True, check=True)
    assert all(word in done.stdout for word in ("validate-only", "completions", "follow"))
    if shell == "bash":
        script = done.stdout + "\nCOMP_WORDS=(nomad-build log); COMP_CWORD=1\n$(complete -p nomad-build | sed 's/.*-F \\([^ ]*\\) .*/\\1/') nomad-build log nomad-build\necho ${COMPREPLY[@]}"
        said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        assert said.stdout.split() == ["logs"]


def test_there_are_manual_pages(tmp_path: Path) -> None:
    subprocess.run([binary(), "man", tmp_path / "man"], check=True)
    pages = {path.name for path in (tmp_path / "man").iterdir()}
    assert {"nomad-build.1", "nomad-build-build.1", "nomad-build-logs.1", "nomad-build-kill.1"} <= pages
    text = (tmp_path / "man/nomad-build-build.1").read_text()
    assert ".TH" in text and "Exit status: 0 succeeded" in text
    said = subprocess.run([binary(), "man"], check=True, capture_output=True, text=True)
    assert ".TH nomad\\-build" in said.stdout or ".TH nomad-build" in said.stdout
