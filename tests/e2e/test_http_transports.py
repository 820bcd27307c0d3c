"""What a server over HTTP speaks: TLS that is renewed, HTTP/2, a socket, sessions, streams that are resumed, tokens of others."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import distribution_buildah
from local_registry import LocalRegistry
from machine import ORDINARY_USER
from mcp_http import McpHttp
from mcp_stdio import McpError
from server import Server, Settings, binary, serve

@pytest.fixture
def settings(registry: LocalRegistry) -> Iterator[Server]:
    with server_with(registry) as server:
        yield server


EMPTY = {"files": [{"path": "Containerfile", "text": "FROM scratch\nCOPY Containerfile /\n"}]}
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


@contextlib.contextmanager
def server_with(*registries: LocalRegistry, issuers: dict[str, Any] | None = None, **http: Any) -> Iterator[Server]:
    server = Server(Settings(distribution_buildah(), list(registries), http=http, issuers=issuers or {}))
    try:
        yield server
    finally:
        server.remove()


def openssl(*arguments: str, text: str | None = None) -> bytes:
    return subprocess.run(["openssl", *arguments], input=text.encode() if text else None, check=True, capture_output=True).stdout


def certify(directory: Path, name: str) -> Path:
    """A certificate for this machine of an authority of its own, in DIRECTORY/cert.pem and key.pem; the authority's file."""
    authority = directory / f"{name}.pem"
    key = directory / f"{name}.key"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(authority))  # fmt: skip
    request = openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                      "-subj", "/CN=localhost", "-keyout", str(directory / "key.new"))  # fmt: skip
    extensions = directory / "extensions"
    extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    made = subprocess.run(
        ["openssl", "x509", "-req", "-CA", str(authority), "-CAkey", str(key), "-days", "2", "-extfile", str(extensions)],
        input=request, check=True, capture_output=True,
    ).stdout  # fmt: skip
    # As those do it that renew: each file at once, one after the other.
    (directory / "cert.new").write_bytes(made)
    (directory / "key.new").rename(directory / "key.pem")
    (directory / "cert.new").rename(directory / "cert.pem")
    return authority


def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["curl", "-sS", "--noproxy", "*", "--max-time", "20", *arguments], capture_output=True, text=True)


def test_tls_with_both_versions_of_http_and_a_renewed_certificate(tmp_path: Path) -> None:
    first = certify(tmp_path, "first")
    files = {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    with server_with(**{"tls.certificate": files["certificate"], "tls.key": files["key"]}) as server, serve(server) as address:
        assert address.startswith("https://")

        def get(authority: Path, *options: str) -> subprocess.CompletedProcess[str]:
            return curl("--cacert", str(authority), "-w", " %{http_version}", *options, f"{address}/healthz")

        assert get(first).stdout == "ok\n 2"
        assert get(first, "--http1.1").stdout == "ok\n 1.1"
        assert get(first, "--tls-max", "1.1").returncode != 0
        # A call over HTTP/2, where the name of the server is no header.
        ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"})
        headers = [word for name, value in HEADERS.items() for word in ("-H", f"{name}: {value}")]
        asked = curl("--cacert", str(first), *headers, "-H", f"Authorization: Bearer {server.token}", "-d", ping, f"{address}/mcp")
        assert json.loads(asked.stdout)["result"] == {}, asked.stdout
        evil = curl("--cacert", str(first), "-H", "Host: evil.example.com", "-w", "%{http_code}", f"{address}/mcp")
        assert evil.stdout.endswith("403")
        second = certify(tmp_path, "second")
        assert get(second).stdout == "ok\n 2"
        assert get(first).returncode == 60
        # What cannot be used is not: the one before goes on.
        (tmp_path / "cert.pem").write_text("nothing")
        assert get(second).stdout == "ok\n 2"
        assert "the renewed certificate cannot be used" in (server.directory / "http.log").read_text()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


def test_a_socket_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "mcp.sock"
    with server_with() as server, serve(server, at=f"unix:{path}"):
        assert path.stat().st_mode & 0o777 == 0o600
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
        build = call | {"params": {"name": "build", "arguments": {"source": EMPTY, "wait": 45}}}
        connection = UnixConnection(str(path))
        connection.request("POST", "/mcp", json.dumps(build), HEADERS)
        answer = connection.getresponse()
        built = json.loads(answer.read())["result"]["structuredContent"]
        assert built["state"] == "succeeded", built
        assert not (server.state / "tokens").exists()
        # Over stdio the same user sees it.
        with server.raw() as raw:
            raw.initialize()
            listed = raw.call("status", {})["structuredContent"]["builds"]
            assert [one["build_id"] for one in listed] == [built["build_id"]]
        if os.geteuid() == 0:
            tmp_path.chmod(0o755)
            for parent in tmp_path.parents[:2]:
                parent.chmod(0o755)
            other = subprocess.run(
                ["setpriv", f"--reuid={ORDINARY_USER}", f"--regid={ORDINARY_USER}", "--clear-groups",
                 "curl", "-sS", "--unix-socket", str(path), "http://localhost/healthz"],
                capture_output=True, text=True,
            )  # fmt: skip
            assert other.returncode == 7, other
    assert not path.exists()


@dataclass
class Events:
    """Events of a stream, one after the other."""

    answer: http.client.HTTPResponse

    def next(self) -> dict[str, str]:
        """The next one; an empty one at the end."""
        event: dict[str, str] = {}
        while line := self.answer.readline():
            text = line.decode().rstrip("\n")
            if not text and event:
                return event
            name, _, value = text.partition(":")
            if name:
                event[name] = value.strip()
        return event


@dataclass
class Session:
    """A session, by the bytes."""

    address: str
    token: str
    id: str = ""

    def open(self, method: str, body: Any = None, **more: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=60)
        headers = HEADERS | {"Authorization": f"Bearer {self.token}"} | {name.replace("_", "-"): value for name, value in more.items()}
        if self.id:
            headers |= {"Mcp-Session-Id": self.id, "MCP-Protocol-Version": "2025-11-25"}
        connection.request(method, "/mcp", None if body is None else json.dumps(body), headers)
        return connection, connection.getresponse()

    def begin(self) -> None:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        connection, answer = self.open("POST", {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        assert answer.status == 200
        self.id = answer.headers["Mcp-Session-Id"]
        answer.read()
        connection.close()
        connection, answer = self.open("POST", {"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert answer.status == 202
        connection.close()

    def call(self, tool: str, **arguments: Any) -> tuple[http.client.HTTPConnection, Events]:
        params = {"name": tool, "arguments": arguments}
        connection, answer = self.open("POST", {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params})
        assert answer.status == 200
        return connection, Events(answer)

    def status(self, method: str = "POST") -> int:
        body = {"jsonrpc": "2.0", "id": 1, "method": "ping"} if method == "POST" else None
        connection, answer = self.open(method, body)
        connection.close()
        return answer.status


def result(events: Events) -> dict[str, Any]:
    """The answer to a call."""
    while event := events.next():
        message = json.loads(event.get("data") or "{}")
        if message.get("id") == 7:
            return message["result"]["structuredContent"]
    raise AssertionError("the stream ended without the answer")


def make_token(server: Server, name: str) -> str:
    made = subprocess.run([str(binary()), "token", name], env=server.env, check=True, capture_output=True, text=True)
    return made.stdout.strip()


def test_sessions_are_their_owners_and_their_streams_are_resumed(base: str, settings: Server) -> None:
    with serve(settings, NOMAD_BUILD_HTTP_SESSIONS="true") as address:
        ann = Session(address, settings.token)
        ann.begin()
        bob = Session(address, make_token(settings, "bob"))
        bob.begin()
        assert (ann.status(), bob.status()) == (200, 200)
        # Another's session is none, as one that never was.
        stolen, forged = Session(address, bob.token, ann.id), Session(address, bob.token, "11111111-2222-3333-4444-555555555555")
        for method in ("POST", "GET", "DELETE"):
            assert stolen.status(method) == forged.status(method) == 404, method
        assert ann.status() == 200
        # A build that the connection does not live to see: the answer is there for whoever comes back.
        text = f"FROM {base}\nRUN sleep 3; echo {time.time_ns()}\n"
        connection, events = ann.call("build", source={"files": [{"path": "Containerfile", "text": text}]}, wait=45)
        first = events.next()
        assert first["id"], first
        connection.close()
        connection, answer = ann.open("GET", Last_Event_ID=first["id"])
        assert answer.status == 200
        build = result(Events(answer))
        assert build["state"] == "succeeded", build
        connection.close()
        # It is marked as this connection's own, and not as another's.
        connection, events = ann.call("status")
        assert result(events)["builds"][0]["mine"]
        connection.close()
        # Bob cannot have what ann was answered.
        connection, answer = stolen.open("GET", Last_Event_ID=first["id"])
        assert answer.status == 404
        connection.close()
        assert ann.status("DELETE") in (200, 202, 204)
        assert ann.status() == 404


@pytest.mark.parametrize("sessions", ["true", "false"])
def test_who_waits_when_the_server_ends_is_answered(settings: Server, base: str, sessions: str) -> None:
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(serve(settings, NOMAD_BUILD_HTTP_SESSIONS=sessions))
        client = Session(address, settings.token)
        if sessions == "true":
            client.begin()
        text = f"FROM {base}\nRUN sleep 600\n"
        source = {"files": [{"path": "Containerfile", "text": text}]}
        params = {"name": "build", "arguments": {"source": source, "wait": 45}}
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params})
        waiting = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
        headers = HEADERS | {"Authorization": f"Bearer {settings.token}"}
        if client.id:
            headers |= {"Mcp-Session-Id": client.id}
        waiting.request("POST", "/mcp", body, headers)
        deadline = time.monotonic() + 30
        while not any((settings.state / "b").iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        log = settings.directory / "http.log"
        pid = next(int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and str(log) in _open_files(p))
        os.kill(pid, signal.SIGTERM)
        answer = waiting.getresponse().read().decode()
        assert '"state":"queued"' in answer or '"state":"running"' in answer, answer
    with serve(settings) as address:
        session = McpHttp(f"{address}/mcp", settings.token)
        [build] = session.call("status", {})["structuredContent"]["builds"]
        killed = session.call("kill", {"build_id": build["build_id"], "wait": 30})
        assert killed["structuredContent"]["kill_result"] == "cancelled"


def _open_files(process: Path) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        if b"--http" in (process / "cmdline").read_bytes():
            for file in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    found.append(os.readlink(file))
    return found


def b64(data: bytes | str) -> str:
    return base64.urlsafe_b64encode(data.encode() if isinstance(data, str) else data).rstrip(b"=").decode()


@dataclass
class Signer:
    """An issuer of tokens with an RSA key."""

    directory: Path
    kid: str = "one"

    def __post_init__(self) -> None:
        self.key = self.directory / f"{self.kid}.key"
        openssl("genrsa", "-out", str(self.key), "2048")
        modulus = openssl("rsa", "-in", str(self.key), "-noout", "-modulus").decode().strip().removeprefix("Modulus=")
        self.modulus = bytes.fromhex(modulus)
        self.jwk = {"kty": "RSA", "kid": self.kid, "use": "sig", "alg": "RS256", "n": b64(self.modulus), "e": "AQAB"}

    def token(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        head = {"alg": "RS256", "typ": "JWT", "kid": self.kid} | (header or {})
        body = {"sub": "ci", "aud": "nomad-build", "iss": "https://id.example.com", "exp": int(time.time()) + 300} | claims
        signed = f"{b64(json.dumps(head))}.{b64(json.dumps(body))}"
        if head["alg"] == "none":
            return f"{signed}."
        if head["alg"] == "HS256":
            # The public key as if it were a shared secret.
            return f"{signed}.{b64(hmac.new(self.modulus, signed.encode(), hashlib.sha256).digest())}"
        done = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", str(self.key)], input=signed.encode(), check=True, capture_output=True
        )
        return f"{signed}.{b64(done.stdout)}"


def test_tokens_of_an_issuer(tmp_path: Path) -> None:
    signer, next_one = Signer(tmp_path), Signer(tmp_path, "two")
    keys = tmp_path / "jwks.json"
    keys.write_text(json.dumps({"keys": [signer.jwk]}))
    issuer = {"jwks": str(keys), "audiences": ["nomad-build"], "issuer": "https://id.example.com"}
    with server_with(issuers={"ci": issuer}, url="https://build.example.com") as server, serve(server) as address:

        def refused(token: str) -> str:
            with pytest.raises(McpError, match="401") as caught:
                McpHttp(f"{address}/mcp", token).request("tools/list")
            return str(caught.value)

        session = McpHttp(f"{address}/mcp", signer.token())
        built = session.call("build", {"source": EMPTY, "wait": 45})["structuredContent"]
        assert built["state"] == "succeeded"
        # Another token of the same subject is the same principal; one of another is not.
        again = McpHttp(f"{address}/mcp", signer.token(jti="x"))
        assert len(again.call("status", {})["structuredContent"]["builds"]) == 1
        other = McpHttp(f"{address}/mcp", signer.token(sub="cd"))
        assert other.call("status", {})["structuredContent"]["builds"] == []
        # Nor is the one of a static token with the same name.
        static = McpHttp(f"{address}/mcp", make_token(server, "ci"))
        assert static.call("status", {})["structuredContent"]["builds"] == []
        assert "has expired" in refused(signer.token(exp=int(time.time()) - 120))
        assert "another audience" in refused(signer.token(aud="vault"))
        assert "another issuer" in refused(signer.token(iss="https://evil.example.com"))
        # Without a signature, with one by a public key, with one by a key that the token itself brings.
        for token in (
            signer.token({"alg": "none"}),
            signer.token({"alg": "HS256"}),
            next_one.token({"kid": "one", "jwk": next_one.jwk}),
            signer.token()[:-8] + "AAAAAAAA",
        ):
            assert "not known" in refused(token)
        # Keys are rotated without a restart.
        assert "not known" in refused(next_one.token())
        keys.write_text(json.dumps({"keys": [signer.jwk, next_one.jwk]}))
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(McpError):
                McpHttp(f"{address}/mcp", next_one.token()).request("tools/list")
                break
            assert time.monotonic() < deadline
            time.sleep(0.2)
        # Where tokens come from, is told to whoever has none.
        metadata = curl(f"{address}/.well-known/oauth-protected-resource/mcp").stdout
        assert json.loads(metadata)["authorization_servers"] == ["https://id.example.com"]
        assert json.loads(metadata)["resource"] == "https://build.example.com/mcp"
        challenge = curl("-i", "-X", "POST", f"{address}/mcp").stdout
        assert 'resource_metadata="https://build.example.com/.well-known/oauth-protected-resource/mcp"' in challenge
        assert "error=" not in challenge
        wrong = curl("-i", "-X", "POST", "-H", f"Authorization: Bearer {signer.token(exp=1)}", f"{address}/mcp").stdout
        assert 'error="invalid_token", error_description="the token has expired"' in wrong
