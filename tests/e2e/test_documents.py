"""What the documents tell people and agents to type does what it says."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from conftest import MakeServer
from helpers import ask, wait_final
from local_registry import LocalRegistry
from mcp_http import McpHttp
from server import REPOSITORY, Server, binary, serve

README = (REPOSITORY / "README.md").read_text()
HTTP = (REPOSITORY / "docs/http.md").read_text()
CONFIGURATION = (REPOSITORY / "docs/configuration.md").read_text()
TAG = "registry.example.com/me/api:1"
DIRECTORY = "/home/me/api"
ID = "b7k2m-9xqdt"


def project(directory: Path, base: str) -> Path:
    """A directory whose image has what the README's test calls."""
    directory.mkdir()
    (directory / "Containerfile").write_text(f"FROM {base}\nCOPY make /usr/local/bin/make\nCOPY make /usr/local/bin/api\nRUN echo error: none\n")
    make = directory / "make"
    make.write_text('#!/bin/sh\ntest "$1" = check\n')
    make.chmod(0o755)
    # Builds run as another user when the tests run as root.
    directory.chmod(0o755)
    return directory


def staged(directory: Path, base: str) -> Path:
    """The same where the image itself has only what it is for: its tests run in the stage `builder`."""
    project(directory, base)
    whole = (directory / "Containerfile").read_text().replace(f"FROM {base}", f"FROM {base} AS builder")
    (directory / "Containerfile").write_text(f"{whole}FROM {base}\nCOPY --from=builder /usr/local/bin/api /usr/local/bin/api\n")
    return directory


def shell(server: Server, line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = server.env | {"PATH": f"{binary().parent}:{server.env['PATH']}"}
    return subprocess.run(["bash", "-c", line], cwd=cwd, env=env, capture_output=True, text=True, timeout=240)


def test_the_commands_of_the_readme_work_one_after_the_other(
    make_server: MakeServer, registry: LocalRegistry, base: str, tmp_path: Path
) -> None:
    server = make_server()
    directory = project(tmp_path / "api", base)
    tmp_path.chmod(0o711)
    section = README.split("## On the command line", 1)[1]
    block = re.search(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert block
    lines = block[1].splitlines()
    assert [line.split()[1] for line in lines] == ["build", "build", "status", "status", "logs", "kill"]
    build_id = ""
    for line in lines:
        line = line.replace(TAG, f"{registry.host}/me/api:1").replace(ID, build_id)
        done = shell(server, line, directory)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        build_id = build_id or re.findall(r"\b[2-9a-z]{5}-[2-9a-z]{5}\b", done.stdout + done.stderr)[0]
        assert build_id in done.stdout + done.stderr or " logs " in line or " -o " in line, done.stdout
        if " logs " in line:
            assert "error: none" in done.stdout
    assert registry.digest("me/api", "1")
    assert (directory / "api.tar").stat().st_size > 0
    assert (directory / "api").read_text() == (directory / "make").read_text()


async def test_the_first_call_of_the_readme_builds_tests_and_publishes(
    make_server: MakeServer, registry: LocalRegistry, base: str, tmp_path: Path
) -> None:
    directory = staged(tmp_path / "api", base)
    found = re.search(r"[Tt]he call that an agent makes is\n\n```json\n(.*?)\n```", README, re.DOTALL)
    assert found
    text = found[1].replace(DIRECTORY, str(directory)).replace(TAG, f"{registry.host}/first/api:1")
    async with make_server().connect() as session:
        begun = await ask(session, "build", json.loads(text))
        built = await wait_final(session, begun["build_id"])
        assert built["state"] == "succeeded" and built["image"]["published"], built
    assert registry.digest("first/api", "1") == built["image"]["digest"]


def test_the_commands_for_a_server_elsewhere_build_there(
    make_server: MakeServer, registry: LocalRegistry, base: str, tmp_path: Path
) -> None:
    server = make_server()
    directory = project(tmp_path / "api", base)
    section = HTTP.split("## Directories from elsewhere", 1)[1]
    blocks = re.findall(r"^```sh\n(.*?)\n```$", section, re.DOTALL | re.MULTILINE)[:2]
    with serve(server) as address:
        token = (server.state / "token").read_text().strip()
        upload, build = (block.replace("https://build.example.com", address).replace("$TOKEN", token).replace("…", token) for block in blocks)
        sent = shell(server, upload, directory)
        assert sent.returncode == 0, sent
        digest = re.findall(r"sha256:[0-9a-f]{64}", sent.stdout)[0]
        session = McpHttp(f"{address}/mcp", token)
        built = session.call("build", {"source": {"context": digest}, "wait": 45})["structuredContent"]
        assert built["state"] == "succeeded", built
        done = shell(server, build.replace(TAG, f"{registry.host}/elsewhere/api:1"), directory)
        assert done.returncode == 0, done
    assert registry.digest("elsewhere/api", "1")


def test_other_commands_of_the_documents_answer(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server()
    for line in (
        "nomad-build check",
        "nomad-build check --json",
        "nomad-build config show",
        "nomad-build config reference",
        "nomad-build config schema",
        "nomad-build schema --format openai build",
        "nomad-build completions bash",
        "nomad-build man man",
    ):
        documents = README + CONFIGURATION
        assert line.rsplit(" ", 1)[0] in documents or line.split(" --")[0] in documents, line
        done = shell(server, line, tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
