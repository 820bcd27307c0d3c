"""What stands in examples/ works as it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from conftest import MakeServer
from helpers import ask, fail, succeed
from local_registry import LocalRegistry, free_port
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from server import REPOSITORY, Server, binary, serve
from test_clients import installed

EXAMPLES = REPOSITORY / "examples"
CHECKS = {
    "c": "make check",
    "python": "python3 -m unittest",
    "go": "go vet ./... && go test ./...",
    "rust": "cargo test --release --locked",
}
"""The test of each example, as its README has it."""
RUNS = {
    "c": (["/count", "one two three"], "3"),
    "python": (["python3", "-m", "greet", "Ann", "Bob"], "Hello, Ann and Bob!"),
    "go": (["/oracle", "Is it ready?"], "yes|no|ask again"),
    "rust": (["/roman", "1994"], "MCMXCIV"),
}
"""What the final image does."""
TOOLS = ["build", "status", "logs", "kill"]


@pytest.fixture(scope="module")
def bases(registry: LocalRegistry) -> Iterator[Any]:
    """Base images of the examples' own making, each made when it is first needed."""
    made: dict[str, str] = {}

    def base(language: str) -> str:
        if language not in made:
            image = f"{registry.host}/examples/{language}:1"
            subprocess.run([EXAMPLES / "base.sh", language, image, "--insecure"], check=True)
            made[language] = image
        return made[language]

    yield base


def copied(language: str, tmp_path: Path, *variants: str) -> Path:
    """An example in a directory of its own, broken by patches."""
    directory = tmp_path / language
    shutil.copytree(EXAMPLES / language, directory)
    for variant in variants:
        patch = EXAMPLES / "variants" / f"{variant}.patch"
        subprocess.run(["patch", "-d", directory, "-p1", "-i", patch], check=True)
    return directory


def arguments(language: str, base: str, directory: Path | None = None) -> dict[str, Any]:
    test = {"name": "check", "command": CHECKS[language]}
    return {
        "source": {"path": str(directory or EXAMPLES / language)},
        "build_args": [f"BASE={base}"],
        "tests": [test if language == "python" else test | {"stage": "builder"}],
    }


@pytest.mark.parametrize("language", CHECKS)
async def test_an_example_builds_and_does_what_it_says(plain: ClientSession, bases: Any, language: str) -> None:
    argv, printed = RUNS[language]
    wanted = arguments(language, bases(language))
    wanted["tests"].append({"name": "runs", "argv": argv})
    status = await succeed(plain, **wanted)
    assert [test["status"] for test in status["tests"]] == ["passed", "passed"]
    log = await ask(plain, "logs", {"build_id": status["build_id"], "test": "runs", "from": "start"})
    assert re.search(printed, log["text"]), log["text"]


async def test_variants_fail_as_they_are_meant_to(plain: ClientSession, bases: Any, tmp_path: Path) -> None:
    broken = arguments("c", bases("c"), copied("c", tmp_path, "c-compile-error"))
    failure = (await fail(plain, "compile_error", "code", **broken))["failure"]
    (place,) = failure["locations"]
    assert (place["file"], place["line"]) == ("src/words.c", 14) and "did you mean" in place["message"]

    broken = arguments("python", bases("python"), copied("python", tmp_path, "python-failing-test"))
    failure = (await fail(plain, "test_failed", "code", **broken))["failure"]
    assert failure["test"] == "check" and "Hello, Ann, Bob, Eve!" in failure["excerpt"]

    broken = arguments("go", bases("go"), copied("go", tmp_path, "go-missing-source"))
    failure = (await fail(plain, "copy_source_missing", "code", **broken))["failure"]
    assert (failure["file"], failure["line"]) == ("Containerfile", 8)


@pytest.mark.parametrize("sdk", ["py-mcp-1", "py-mcp-2"])
def test_an_agent_reads_the_failure_and_mends_the_source(
    plain_server: Server, bases: Any, tmp_path: Path, sdk: str
) -> None:
    directory = copied("c", tmp_path, "c-compile-error")
    command = [installed(f"{sdk}/bin/python"), EXAMPLES / "agent.py", directory, f"BASE={bases('c')}"]
    command += ["--test", CHECKS["c"], "--stage", "builder"]
    env = plain_server.env | {"NOMAD_BUILD_BIN": str(binary())}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "code/compile_error" in lines[0] and "succeeded" in lines[2]
    assert lines[1] == "mended: src/words.c:14: spaces → space"
    assert (directory / "src/words.c").read_text() == (EXAMPLES / "c/src/words.c").read_text()


def typed(document: Path, section: str) -> list[str]:
    """The lines that a section of a document has people type."""
    text = document.read_text().split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def test_what_the_readme_says_can_be_typed_as_it_stands(make_server: MakeServer, tmp_path: Path) -> None:
    port = free_port()
    first = typed(REPOSITORY / "README.md", "A first image")
    own = [first.pop(), first.pop()][::-1]
    first[1] = first[1].replace("registry.sh ", f"registry.sh {port} ", 1)
    mended = typed(EXAMPLES / "README.md", "A failure that is read and mended")
    # The tests have it.
    mended = [line for line in mended if "pip install 'mcp>=2'" not in line]
    assert (len(first), len(own), len(mended)) == (4, 2, 2)
    clone = tmp_path / "clone"
    for name in ("examples", "scripts"):
        shutil.copytree(REPOSITORY / name, clone / name)
    for containerfile in clone.glob("examples/*/Containerfile"):
        containerfile.write_text(containerfile.read_text().replace(":5000", f":{port}"))
    stop = f"{clone}/examples/registry.sh stop {port}"
    inspect = "skopeo inspect --tls-verify=false docker://localhost:5000/me"
    lines = [*first, f"{inspect}/c:1", "pushd .", *own, "popd", f"{inspect}/api:1", *mended]
    lines = [line.replace(":5000", f":{port}").replace("/tmp/", f"{tmp_path}/") for line in lines]
    script = "\n".join([f"trap '{stop}' EXIT", *lines])
    tmp_path.chmod(0o711)
    server = make_server()
    path = f"{installed('py-mcp-2/bin')}:{binary().parent}:{server.env['PATH']}"
    env = server.env | {"PATH": path, "XDG_CACHE_HOME": str(tmp_path)}
    env.pop("NOMAD_BUILD_REGISTRY_INSECURE", None)
    done = subprocess.run(["bash", "-euc", script], cwd=clone, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test test-1 passed" in done.stdout and "mended: src/words.c:14: spaces → space" in done.stdout, done.stdout
    again = subprocess.run(stop.split(), cwd=REPOSITORY, env=env, capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (1, f"no registry of this script runs on port {port}\n")


def test_the_readme_has_the_test_of_each_example() -> None:
    lines = typed(REPOSITORY / "README.md", "A first image") + typed(EXAMPLES / "README.md", "Without any outside registry")
    tests = {}
    for line in lines:
        if found := re.match(r"nomad-build build examples/(\w+) --test '(.*?)'", line):
            tests[found[1]] = found[2]
            assert f"\nARG BASE=localhost:5000/base/{found[1]}:1\n" in "\n" + (EXAMPLES / found[1] / "Containerfile").read_text()
    assert tests == CHECKS


def test_the_registry_of_the_examples_says_what_is_in_its_way(tmp_path: Path) -> None:
    def start(*words: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
        return subprocess.run([EXAMPLES / "registry.sh", *words], env=env, capture_output=True, text=True, timeout=60)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = start(str(port))
    assert refused.returncode == 1 and refused.stderr.startswith(f"port {port} is in use"), refused
    for words in (["x"], ["5000", "5001"], ["stop", "5000", "5001"]):
        assert start(*words).stderr == "usage: examples/registry.sh [PORT] | stop [PORT]\n"


def read(path: Path) -> dict[str, Any]:
    parse = {".json": json.loads, ".toml": tomllib.loads, ".yaml": yaml.safe_load}[path.suffix]
    return parse(path.read_text())


CLIENTS = sorted(path for path in (EXAMPLES / "clients").iterdir() if path.suffix != ".md")
SECTIONS = ("mcpServers", "servers", "mcp_servers", "extensions", "mcp", "context_servers")


def entries(path: Path) -> dict[str, dict[str, Any]]:
    """The servers of a client's file, each as {command, env} or {url, headers}."""
    whole = read(path)
    (section,) = (whole[name] for name in SECTIONS if name in whole)
    found = {}
    for name, entry in section.items():
        command = entry.get("command", entry.get("cmd"))
        if command is not None:
            line = command if isinstance(command, list) else [command, *entry.get("args", [])]
            env = next((entry[key] for key in ("env", "envs", "environment") if key in entry), {})
            found[name] = {"command": line, "env": env}
        else:
            headers = dict(entry.get("headers", {}))
            if variable := entry.get("bearer_token_env_var"):
                headers["Authorization"] = f"Bearer ${variable}"
            url = next(entry[key] for key in ("url", "httpUrl", "uri") if key in entry)
            found[name] = {"url": url, "headers": headers}
    return found


def test_every_client_of_the_list_has_an_entry() -> None:
    names = {path.stem for path in CLIENTS}
    assert names == {"claude-code", "claude-desktop", "vscode", "cursor", "codex", "gemini-cli", "goose", "opencode", "zed"}
    readme = (EXAMPLES / "clients/README.md").read_text()
    assert all(f"({path.name})" in readme for path in CLIENTS)


@pytest.mark.parametrize("path", CLIENTS, ids=lambda path: path.stem)
async def test_the_server_accepts_the_entry_of_a_client(plain_server: Server, path: Path) -> None:
    servers = entries(path)
    here = servers.pop("nomad-build")
    program, *args = here["command"]
    assert program == "nomad-build"
    environment = plain_server.env | here["env"]
    parameters = StdioServerParameters(command=str(binary()), args=args, env=environment)
    async with stdio_client(parameters) as (read_stream, write), ClientSession(read_stream, write) as session:
        await session.initialize()
        assert [tool.name for tool in (await session.list_tools()).tools] == TOOLS

    for name, entry in servers.items():
        assert name == "nomad-build-team"
        with serve(plain_server, name=f"clients-{path.stem}") as address:
            url = entry["url"].replace("https://build.example.com", address)
            assert url != entry["url"]
            # However the client writes that the token comes from elsewhere.
            token = re.compile(r"(?<=^Bearer )(\S*NOMAD_BUILD_TOKEN\S*|\$\{input:[\w-]+\}|YOUR_TOKEN)$")
            headers = {key: token.sub(plain_server.token, value) for key, value in entry["headers"].items()}
            assert headers["Authorization"] == f"Bearer {plain_server.token}"
            async with (
                httpx.AsyncClient(headers=headers, trust_env=False, timeout=60) as client,
                streamable_http_client(url, http_client=client) as (read_stream, write, _),
                ClientSession(read_stream, write) as session,
            ):
                await session.initialize()
                assert [tool.name for tool in (await session.list_tools()).tools] == TOOLS
