"""The configuration: where values come from, and what does not fit."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import tomllib
from pathlib import Path

import pytest
from conftest import MakeServer
from helpers import ask_both, fail, files, refused, wait_for
from mcp.shared.exceptions import McpError
from server import REPOSITORY, binary


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | env
    return subprocess.run([str(binary()), *args], env=environment, capture_output=True, text=True, timeout=60)


def test_flags_win_over_variables_and_those_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[limits]\nprocesses = 200\nfiles = 2000\ndisk_mb = 100\n")
    env = {"NOMAD_BUILD_LIMITS_FILES": "3000", "NOMAD_BUILD_LIMITS_DISK_MB": "200"}
    told = run("config", "show", "--json", "--config", str(file), "--set", "limits.disk_mb=300", **env)
    assert told.returncode == 0, told.stderr
    rows = {row["key"]: (row["value"], row["origin"], row.get("from")) for row in json.loads(told.stdout)["values"]}
    assert rows["limits.processes"] == (200, "file", f"{file}:2")
    assert rows["limits.files"] == (3000, "environment", "NOMAD_BUILD_LIMITS_FILES")
    assert rows["limits.disk_mb"] == (300, "flag", "--set")
    assert rows["limits.log_mb"] == (256, "default", None)


def test_every_fault_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[local]\nslot = 2\n\n[limits]\nmemory_mb = 1\n[sandbox]\nnetwork = 'all'\n")
    readers = (["serve"], ["config", "show"], ["check"], ["status"], ["schema"], ["setup", "--dry-run"], ["token", "ann"])
    for command in readers:
        told = run(*command, "--config", str(file), "--set", "mcp.max_wai=3", NOMAD_BUILD_HTTP_SESSIONS="perhaps")
        assert told.returncode == 2, command
        assert told.stderr.splitlines() == [
            "nomad-build: the configuration is not usable:",
            f'{file}:2: there is no key "slot" below local; did you mean slots?',
            f"{file}:5: limits.memory_mb must be from 128 to 1073741824",
            f"{file}:7: sandbox.network must be one of egress, none, host",
            "NOMAD_BUILD_HTTP_SESSIONS: http.sessions must be true or false",
            '--set: there is no key "max_wai" below mcp; did you mean max_wait?',
        ], command


def test_the_reference_can_be_used_as_it_is_and_line_by_line(tmp_path: Path) -> None:
    text = run("config", "reference").stdout
    assert text == (REPOSITORY / "docs/nomad-build.toml").read_text()
    file = tmp_path / "c.toml"
    file.write_text(text)
    rows = json.loads(run("config", "show", "--json", "--config", str(file)).stdout)["values"]
    assert {row["origin"] for row in rows} == {"default"}
    schema = json.loads(run("config", "schema").stdout)
    assert schema == json.loads((REPOSITORY / "schemas/config.json").read_text())
    settings = tomllib.loads(re.sub(r"^#(?! )", "", text, flags=re.MULTILINE))
    assert set(settings) == set(schema["properties"])


async def test_a_server_takes_what_is_given_to_it(make_server: MakeServer, base: str) -> None:
    server = make_server()
    server.env |= {"NOMAD_BUILD_LIMITS_PROCESSES": "200", "NOMAD_BUILD_REGISTRY_ALLOW": "registry.example.com/me/"}
    async with server.connect() as session:
        many = "i=0; while [ $i -lt 400 ]; do sleep 60 & i=$((i+1)); done; wait"
        await fail(session, "limit_reached", "code", source=files(Containerfile=f"FROM {base}\nRUN {many}\n"))
        args = {"source": files(Containerfile=f"FROM {base}\n"), "tags": ["registry.example.com/you/x:1"]}
        await refused(session, "build", args, "not_allowed")


async def test_what_options_say_can_be_configured(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server()
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    file = tmp_path / "c.toml"
    file.write_text(
        f'server = "http://{address}"\ntoken_file = "{server.state}/token"\nlog_dir = "{tmp_path}"\n[http]\nlisten = "{address}"\n'
    )
    env = server.env | {"NOMAD_BUILD_CONFIG": str(file)}
    serve = [str(binary()), "serve"]
    serving = subprocess.Popen(serve, env=env, stderr=subprocess.PIPE, text=True)
    status = ["status", "--json", "--config", str(file)]
    try:
        await wait_for((server.state / "token").exists, "the token", 30)
        await wait_for(lambda: run(*status).returncode == 0, "an answer", 30)
        assert json.loads(run(*status).stdout)["builds"] == []
        # Options win over the file.
        other = server.directory / "other"
        here = run(*status, "--backend", "local", NOMAD_BUILD_STATE_DIR=str(other))
        assert here.returncode == 0 and other.exists(), here
        elsewhere = run(*status, "--server", "http://127.0.0.1:1")
        assert elsewhere.returncode == 2 and "127.0.0.1:1" in elsewhere.stderr, elsewhere
        over_stdio = subprocess.run([*serve, "--stdio"], env=env, stdin=subprocess.DEVNULL, timeout=30)
        assert over_stdio.returncode == 0
    finally:
        serving.terminate()
        _, errors = serving.communicate(timeout=30)
    assert errors == ""
    assert "serving MCP over HTTP" in "".join(log.read_text() for log in tmp_path.glob("nomad-build*.log"))


def test_a_file_that_is_not_there_is_named_with_its_key_and_line(tmp_path: Path) -> None:
    config = tmp_path / "nomad-build.toml"
    config.write_text(
        '[secrets]\nnpm = "/nowhere/npm"\n\n[registry]\nca_file = "/nowhere/ca.pem"\n\n[[git.credentials]]\n'
        'url = "https://git.example.com/"\npassword_file = "/nowhere/password"\n'
    )
    told = run("config", "show", "--config", str(config))
    assert told.returncode == 2
    for line, key, path in (
        (2, "secrets.npm", "/nowhere/npm"),
        (5, "registry.ca_file", "/nowhere/ca.pem"),
        (9, "git.credentials[0].password_file", "/nowhere/password"),
    ):
        assert f"{config}:{line}: {key}: {path}: No such file" in told.stderr, told.stderr


def test_a_variable_that_sets_nothing_is_told_by_every_command() -> None:
    for words in (("config", "show"), ("schema",), ("setup", "--dry-run")):
        told = run(*words, NOMAD_BUILD_LIMITS_MEMORI_MB="1")
        assert told.returncode == 0
        assert "NOMAD_BUILD_LIMITS_MEMORI_MB sets nothing; did you mean NOMAD_BUILD_LIMITS_MEMORY_MB?" in told.stderr, told.stderr
    told = run("config", "show", NOMAD_BUILD_LOG="=,=")
    assert told.returncode == 0 and "NOMAD_BUILD_LOG is no filter" in told.stderr, told.stderr


async def test_tools_may_have_a_prefix(make_server: MakeServer, base: str) -> None:
    server = make_server()
    server.env["NOMAD_BUILD_MCP_TOOL_PREFIX"] = "nb_"
    named = ["nb_build", "nb_status", "nb_logs", "nb_kill"]
    async with server.connect() as session:
        tools = (await session.list_tools()).tools
        assert [tool.name for tool in tools] == named
        assert all(", ".join(named) in (tool.description or "") for tool in tools)
        broken = {"source": files(Containerfile=f"FROM {base}\nRUN echo 'next: logs' && exit 3\n"), "wait": 45}
        ended, text = await ask_both(session, "nb_build", broken)
        assert ended["state"] == "failed"
        assert ended["next"].startswith("nb_logs {") and f"next: {ended['next']}" in text
        assert "> next: logs" in text, "foreign words were changed"
        # Whoever does not know of the prefix gets on, too.
        one, _ = await ask_both(session, "status", {"build_id": ended["build_id"]})
        assert one["builds"][0]["next"] == ended["next"]
        with pytest.raises(McpError, match="the tools are nb_build, nb_status, nb_logs, nb_kill"):
            await session.call_tool("nb_look", {})
        listed = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools]
    prefix = ("--set", "mcp.tool_prefix=nb_")
    assert json.loads(run("schema", *prefix).stdout) == listed
    for name in ("status", "nb_status"):
        assert json.loads(run("schema", name, *prefix).stdout) == listed[1:2]
    told = run("serve", "--set", "mcp.tool_prefix=a.b")
    assert told.returncode == 2 and "mcp.tool_prefix must be at most 24 of: letters, digits, _ -" in told.stderr
