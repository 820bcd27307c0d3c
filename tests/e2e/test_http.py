"""A server over HTTP on this machine: who gets in, and what is told to whom."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from conftest import distribution_buildah
from helpers import unique
from local_registry import LocalRegistry
from mcp_http import McpHttp
from mcp_stdio import McpError
from server import REPOSITORY, Server, Settings, binary, serve


@pytest.fixture
def settings(registry: LocalRegistry) -> Iterator[Server]:
    server = Server(Settings(distribution_buildah(), [registry]))
    yield server
    server.remove()


def tool(session: McpHttp, name: str, /, **arguments: object) -> dict:
    result = session.call(name, arguments)
    assert not result.get("isError"), result
    return result["structuredContent"]


def test_the_first_start_makes_a_token(settings: Server) -> None:
    with serve(settings) as address:
        secret = settings.state / "token"
        assert secret.stat().st_mode & 0o777 == (settings.state / "tokens").stat().st_mode & 0o777 == 0o600
        assert str(secret) in (settings.directory / "http.log").read_text()
        token = secret.read_text().strip()
        session = McpHttp(f"{address}/mcp", token)
        assert session.initialize()["serverInfo"]["name"] == "nomad-build"
        names = [tool["name"] for tool in session.request("tools/list")["tools"]]
        assert names == ["build", "status", "logs", "kill"]
        made = tool(session, "build", source={"files": [{"path": "Containerfile", "text": "FROM scratch\nCOPY Containerfile /\n"}]}, wait=45)
        assert made["state"] == "succeeded", made
        # Others are let in without a restart, and out.
        command = [str(binary()), "token", "ann"]
        ann = subprocess.run(command, env=settings.env, check=True, capture_output=True, text=True).stdout.strip()
        hers = McpHttp(f"{address}/mcp", ann)
        hers.initialize()
        seen = tool(hers, "status")
        assert seen["builds"] == []
        # Directories of the server are not for those who are elsewhere.
        assert seen["offers"]["sources"] == ["git", "context", "files"]
        tokens = settings.state / "tokens"
        tokens.write_text("".join(line for line in tokens.read_text().splitlines(True) if not line.startswith("ann ")))
        with pytest.raises(McpError, match="401"):
            hers.request("tools/list")
    log = (settings.directory / "http.log").read_text()
    assert token not in log and ann not in log
    with serve(settings) as address:
        assert secret.read_text().strip() == token
        session = McpHttp(f"{address}/mcp", token)
        session.initialize()
        assert [build["build_id"] for build in tool(session, "status")["builds"]] == [made["build_id"]]


def test_without_tokens_only_on_loopback(settings: Server) -> None:
    with serve(settings, "--no-auth") as address:
        session = McpHttp(f"{address}/mcp", "any")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for path in ("healthz", "readyz", "metrics"):
            assert opener.open(f"{address}/{path}", timeout=10).status == 200, path
        session.initialize()
        assert tool(session, "status")["builds"] == []
        assert not (settings.state / "tokens").exists()
    command = [*settings.command, "--http", "0.0.0.0:0", "--no-auth"]
    done = subprocess.run(command, env=settings.env, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "--no-auth is for loopback only" in done.stderr, done.stderr


def test_bad_requests_are_answered(settings: Server) -> None:
    with serve(settings, "--no-auth") as address:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def post(body: bytes, **headers: str) -> int:
            usual = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
            try:
                request = urllib.request.Request(f"{address}/mcp", body, usual | headers)
                return opener.open(request, timeout=30).status
            except urllib.error.HTTPError as error:
                return error.code

        hello = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
        assert post(hello) == 200
        assert post(b"{") in (400, 415)
        assert post(hello, **{"Content-Type": "text/plain"}) == 415
        assert post(hello, Accept="text/html") == 406
        assert post(hello, Host="evil.example.com") == 403
        assert post(hello, Origin="http://evil.example.com") == 403
        assert post(b" " * (5 << 20)) == 413
        assert post(hello) == 200


def test_a_log_as_plain_text(settings: Server, base: str) -> None:
    with serve(settings, "--no-auth") as address:
        session = McpHttp(f"{address}/mcp", "any")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def get(path: str) -> tuple[int, str]:
            try:
                with opener.open(f"{address}/v1/builds/{path}", timeout=60) as answer:
                    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
                    assert answer.headers["X-Content-Type-Options"] == "nosniff"
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()

        # More than one reading gives; and with words for a browser.
        text = f"FROM {base}\nRUN seq 1 20000; echo '<script>alert(1)</script>'; sleep 2; echo the end of {unique()}\n"
        source = {"files": [{"path": "Containerfile", "text": text}]}
        build = tool(session, "build", source=source)["build_id"]
        status, log = get(f"{build}/log?follow=true")
        assert status == 200
        ended = tool(session, "status", build_id=build, wait=0)["builds"][0]
        assert ended["state"] == "succeeded", "it ends when the build does"
        lines = log.splitlines()
        numbers = [int(line.split()[0]) for line in lines]
        assert numbers == list(range(1, len(lines) + 1))
        assert sum(line.rsplit("| ", 1)[-1].isdigit() for line in lines) >= 20000
        assert "| <script>alert(1)</script>" in log and "| the end of" in log
        assert get(f"{build}/log") == (200, log)
        for missing in ("22222-22222/log", "..%2f..%2fetc/log", "%00/log"):
            assert get(missing)[0] == 404, missing
        assert get(f"{build}/log?folow=true")[0] == 400


def test_everybody_is_told_of_the_same_tools(settings: Server) -> None:
    """Over both transports, by the command line, and in schemas/."""
    with serve(settings, "--no-auth") as address, settings.raw() as raw:
        session = McpHttp(f"{address}/mcp", "any")
        session.initialize()
        over_http = session.request("tools/list")["tools"]
        raw.initialize()
        assert raw.request("tools/list")["tools"] == over_http
    printed = subprocess.run([str(binary()), "schema"], check=True, capture_output=True, text=True).stdout
    assert json.loads(printed) == over_http
    committed = [json.loads((REPOSITORY / f"schemas/{tool['name']}.json").read_text()) for tool in over_http]
    assert committed == over_http
