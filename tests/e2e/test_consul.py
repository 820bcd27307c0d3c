"""Configuration from Consul's keys, and finding a server by Consul; against a real one with access control."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import distribution_buildah
from helpers import unique
from local_consul import LocalConsul, program
from local_registry import LocalRegistry, free_port
from mcp_http import McpHttp
from server import REPOSITORY, Server, Settings, binary, serve
from test_ready import get

PREFIX = "nomad-build"
READY = "ready\n"
CONSUL = "consul: Consul does not answer, or refuses this server; what was known of the configuration holds\n"
NOT_READY = "not ready; the server's log says why\n"
CONFIGURATION = "configuration: what Consul has is no valid configuration; the last valid one holds, if there was one\n"


@pytest.fixture(scope="module")
def consul() -> Iterator[LocalConsul]:
    with LocalConsul() as consul:
        yield consul


@pytest.fixture
def empty(consul: LocalConsul) -> LocalConsul:
    """A Consul without any key of this program."""
    consul.request("DELETE", f"/v1/kv/{PREFIX}/?recurse=true")
    return consul


class Configured:
    """A server that takes its configuration from Consul, too."""

    def __init__(self, consul: LocalConsul, **settings: Any) -> None:
        self.consul = consul
        self.server = Server(Settings(distribution_buildah(), **settings))
        self.token_file = self.server.directory / "consul-token"
        self.write_token(consul.server_token())
        with Path(self.server.env["NOMAD_BUILD_CONFIG"]).open("a") as file:
            file.write(f'[consul]\nprefix = "{PREFIX}"\ntoken_file = "{self.token_file}"\n')
        self.server.env |= {"CONSUL_HTTP_ADDR": consul.address}

    def write_token(self, token: str) -> None:
        self.token = token
        self.token_file.write_text(token)

    @contextlib.contextmanager
    def serving(self) -> Iterator[Serving]:
        with serve(self.server, "--no-auth") as address:
            session = McpHttp(f"{address}/mcp", "none is asked for")
            session.initialize()
            yield Serving(self, address, session)

    @property
    def log(self) -> str:
        return (self.server.directory / "http.log").read_text()


class Serving:
    """Such a server while it runs."""

    def __init__(self, configured: Configured, address: str, session: McpHttp) -> None:
        self.configured = configured
        self.address = address
        self.session = session

    def offers(self) -> dict[str, Any]:
        answer = self.session.call("status", {"limit": 1})
        return answer["structuredContent"]["offers"]

    def profiles(self) -> dict[str, str]:
        return {one["name"]: json.dumps(one) for one in self.offers()["profile_details"]}

    def build(self, **arguments: Any) -> str:
        """The error of a build that is only looked at; empty: it is in order."""
        source = {"files": [{"path": "Containerfile", "text": "FROM scratch\n"}]}
        answer = self.session.call("build", {"source": source, "validate_only": True} | arguments)
        return str(answer["content"][0]["text"]) if answer.get("isError") else ""

    def run(self) -> str:
        """The id of a build that has succeeded."""
        text = f"FROM scratch\nCOPY Containerfile /{unique()}\n"
        arguments = {"source": {"files": [{"path": "Containerfile", "text": text}]}, "wait": 45}
        build = self.session.call("build", arguments)["structuredContent"]
        assert build["state"] == "succeeded", build
        return str(build["build_id"])

    def kept(self) -> set[str]:
        """The builds that are there."""
        return {one["build_id"] for one in self.session.call("status", {})["structuredContent"]["builds"]}

    def ready(self) -> str:
        status, text = get(self.address, "readyz")
        assert (status == 200) == text.startswith(READY), (status, text)
        return text

    def metric(self, name: str) -> float | None:
        found = re.search(rf"^{re.escape(name)} (\S+)$", get(self.address, "metrics")[1], re.MULTILINE)
        return float(found[1]) if found else None


def eventually(condition: Callable[[], Any], what: str, seconds: float = 40) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


@pytest.fixture
def configured(empty: LocalConsul) -> Iterator[Configured]:
    configured = Configured(empty, limits={"memory_mb": 300}, profiles={"filed": {"network": "none"}})
    yield configured
    configured.server.remove()


def test_limits_profiles_lists_and_principals_change_while_it_runs(configured: Configured) -> None:
    consul = configured.consul
    consul.put(f"{PREFIX}/limits/processes", "999")
    with configured.serving() as serving:
        # What is there at the start holds from the first request on.
        assert "999 processes" in serving.profiles()["default"] and "memory 300 MiB" in serving.profiles()["default"]
        assert serving.ready() == READY
        assert serving.metric("nomad_build_config_valid") == 1
        first = serving.metric("nomad_build_config_index")
        assert first and serving.metric('nomad_build_dependency_up{dependency="consul"}') == 1

        consul.put(f"{PREFIX}/limits/memory_mb", "2048")
        eventually(lambda: "memory 2048 MiB" in serving.profiles()["default"], "the limit of memory")
        eventually(lambda: (serving.metric("nomad_build_config_index") or 0) > first, "a newer index")
        consul.put(f"{PREFIX}/profiles/small", '{"memory_mb": 512, "description": "from afar"}')
        eventually(lambda: "memory 512 MiB" in serving.profiles().get("small", ""), "a new profile")
        assert "from afar" in serving.profiles()["small"]
        assert serving.build(profile="small") == ""

        tag = ["registry.example.com/x/y:1"]
        assert serving.build(tags=tag) == ""
        consul.put(f"{PREFIX}/registry/allow", '["other.example.com/"]')
        eventually(lambda: "error[not_allowed]" in serving.build(tags=tag), "a refusal of the tag")
        assert serving.offers()["registries"] == ["other.example.com/"]
        consul.put(f"{PREFIX}/git/allow", '["https://git.example.com/"]')
        git = {"git": "https://elsewhere.example.com/x"}
        eventually(lambda: "error[not_allowed]" in serving.build(source=git), "a refusal of the repository")

        # The principal of this session, by the beginning of its name.
        consul.put(f"{PREFIX}/principals/local:*/profiles", '["small"]')
        eventually(lambda: serving.offers()["profiles"] == ["small"], "the profiles of a principal")
        assert "small" in serving.build(profile="filed")
        consul.put(f"{PREFIX}/principals/local:*/calls_per_second", "1")
        eventually(lambda: "too many calls" in serving.build(), "a refusal of too many calls")
        # What is taken away is as in the file again.
        consul.request("DELETE", f"/v1/kv/{PREFIX}/?recurse=true")
        eventually(lambda: serving.metric("nomad_build_config_index") != first and serving.build(tags=tag) == "", "the file's own")
        assert list(serving.profiles()) == ["default", "filed"]
        assert "memory 300 MiB" in serving.profiles()["default"]
    assert configured.token not in configured.log


def test_the_keys_of_the_document_are_taken_as_they_are_written(configured: Configured) -> None:
    section = (REPOSITORY / "docs/configuration.md").read_text().split("## Consul", 1)[1]
    block = re.search(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert block and block[1].count("consul kv put") == 4
    consul = configured.consul
    env = os.environ | {"PATH": f"{program().parent}:{os.environ['PATH']}", "CONSUL_HTTP_ADDR": consul.address, "CONSUL_HTTP_TOKEN": consul.token}
    subprocess.run(["bash", "-euc", block[1]], env=env, check=True, capture_output=True)
    shown = subprocess.run([str(binary()), "config", "show", "--json"], env=configured.server.env, check=True, capture_output=True, text=True)
    rows = {row["key"]: row["value"] for row in json.loads(shown.stdout)["values"] if row["origin"] == "consul"}
    assert rows == {
        "limits.memory_mb": 2048,
        "registry.allow": ["registry.example.com/"],
        "profiles.small.memory_mb": 512,
        "profiles.small.description": "for scripts",
        'principals."token:ann".builds': 10,
    }


def test_retention_changes_while_it_runs(configured: Configured) -> None:
    consul = configured.consul
    with configured.serving() as serving:
        first = [serving.run() for _ in range(3)]
        assert serving.kept() == set(first)
        index = serving.metric("nomad_build_config_index")
        consul.put(f"{PREFIX}/local/keep_builds", "2")
        eventually(lambda: serving.metric("nomad_build_config_index") != index, "how many are kept")
        # It is swept when a build is accepted: that one is not among those that have ended.
        fourth = serving.run()
        eventually(lambda: serving.kept() == {first[1], first[2], fourth}, "the end of the oldest")
        index = serving.metric("nomad_build_config_index")
        consul.put(f"{PREFIX}/local/keep_days", "0")
        eventually(lambda: serving.metric("nomad_build_config_index") != index, "how long they are kept")
        fifth = serving.run()
        eventually(lambda: serving.kept() == {fifth}, "the end of all that were there")


def test_what_is_invalid_is_refused_as_a_whole_until_it_is_mended(configured: Configured) -> None:
    consul = configured.consul
    consul.put(f"{PREFIX}/limits/memory_mb", "1024")
    with configured.serving() as serving:
        assert "memory 1024 MiB" in serving.profiles()["default"]
        good = serving.metric("nomad_build_config_index")
        for key, value, said in [
            ("limits/processes", "3", "limits.processes must be from 128"),
            ("limits/processes", "geheim-7", "limits/processes: expected u64"),
            ("limits/processes", "x" * (512 << 10), "limits/processes: 524288 bytes; a value has at most 65536"),
            ("limits/processes", os.urandom(512 << 10), "limits/processes: 524288 bytes"),
            ("sandbox/network", "host", "sandbox/network: may not be set from Consul"),
        ]:
            # Both at once: the one that is sound does not hold, either.
            consul.put(f"{PREFIX}/{key}", value)
            consul.put(f"{PREFIX}/limits/memory_mb", "2048")
            eventually(lambda: serving.ready() == READY + CONFIGURATION, "a refusal")
            eventually(lambda said=said: said in configured.log, said)
            # What the metrics say is kept for a moment.
            eventually(lambda: serving.metric("nomad_build_config_valid") == 0, "a refusal in the metrics")
            assert serving.metric("nomad_build_config_index") == good
            assert "memory 1024 MiB" in serving.profiles()["default"]
            consul.put(f"{PREFIX}/limits/memory_mb", "1024")
            consul.delete(f"{PREFIX}/{key}")
            eventually(lambda: serving.ready() == READY, "a valid one")
            eventually(lambda: serving.metric("nomad_build_config_valid") == 1, "a valid one in the metrics")
            good = serving.metric("nomad_build_config_index")
        consul.put(f"{PREFIX}/limits/memory_mb", "4096")
        eventually(lambda: "memory 4096 MiB" in serving.profiles()["default"], "what comes after")
    assert "geheim-7" not in configured.log and "x" * 1000 not in configured.log


def test_consul_goes_and_comes_back_with_an_older_index(configured: Configured) -> None:
    consul = configured.consul
    for n in range(60):
        consul.put(f"{PREFIX}/limits/memory_mb", str(1000 + n))
    with configured.serving() as serving:
        assert "memory 1059 MiB" in serving.profiles()["default"]
        before = serving.metric("nomad_build_config_index")
        consul.kill()
        eventually(lambda: serving.ready() == READY + CONSUL, "Consul is missed")
        eventually(lambda: serving.metric('nomad_build_dependency_up{dependency="consul"}') == 0, "the metric")
        assert serving.metric("nomad_build_config_valid") == 1
        assert "memory 1059 MiB" in serving.profiles()["default"]
        assert serving.build() == ""
        assert "cannot be reached" in configured.log

        consul.restart()
        # It knows nothing of the old token.
        eventually(lambda: "refuses to read the keys" in configured.log, "the token is unknown")
        assert "memory 1059 MiB" in serving.profiles()["default"]
        consul.put(f"{PREFIX}/limits/memory_mb", "777")
        configured.write_token(consul.server_token())
        eventually(lambda: "memory 777 MiB" in serving.profiles()["default"], "what the new one says")
        after = serving.metric("nomad_build_config_index")
        assert after and before and after < before
        eventually(lambda: serving.ready() == READY, "Consul is there")
        consul.put(f"{PREFIX}/limits/memory_mb", "778")
        eventually(lambda: "memory 778 MiB" in serving.profiles()["default"], "a later change")


def test_a_right_that_is_taken_away(configured: Configured) -> None:
    consul = configured.consul
    consul.put(f"{PREFIX}/limits/memory_mb", "1024")
    with configured.serving() as serving:
        consul.apply("nomad-build-server", "")
        # A blocking query that was allowed when it began still answers; the next one is refused.
        consul.put(f"{PREFIX}/limits/memory_mb", "1025")
        eventually(lambda: serving.ready() == READY + CONSUL, "the right is missed", seconds=90)
        assert "the token has not the right key_prefix read" in configured.log
        known = serving.profiles()["default"]
        assert "memory 1024 MiB" in known or "memory 1025 MiB" in known
        consul.put(f"{PREFIX}/limits/memory_mb", "2048")
        assert serving.profiles()["default"] == known
        consul.server_token()
        eventually(lambda: "memory 2048 MiB" in serving.profiles()["default"], "the right is there again")
        # The token is read anew each time.
        configured.write_token("3c1e7d68-0000-0000-0000-000000000000")
        consul.put(f"{PREFIX}/limits/memory_mb", "4096")
        eventually(lambda: "ACL not found" in configured.log, "an unknown token")
        configured.token_file.unlink()
        eventually(lambda: "the token file" in configured.log, "no token")
        configured.write_token(consul.server_token())
        eventually(lambda: "memory 4096 MiB" in serving.profiles()["default"], "another token")
    assert "3c1e7d68" not in configured.log


def test_it_starts_without_a_token(configured: Configured) -> None:
    config = Path(configured.server.env["NOMAD_BUILD_CONFIG"])
    config.write_text(re.sub("token_file = .*", "", config.read_text()))
    configured.consul.put(f"{PREFIX}/limits/memory_mb", "1024")
    with configured.serving() as serving:
        # Consul answers as if there were no keys.
        assert serving.ready() == NOT_READY + CONSUL
        assert "there is no token" in configured.log
        # The file alone may allow more than both together do.
        assert "error[backend_unavailable]" in serving.build()
        assert "memory 300 MiB" in serving.profiles()["default"]
    configured.server.env["CONSUL_HTTP_TOKEN"] = configured.token
    with configured.serving() as serving:
        assert serving.ready() == READY
        assert "memory 1024 MiB" in serving.profiles()["default"]
    assert configured.token not in configured.log


def test_it_starts_without_consul(configured: Configured) -> None:
    configured.server.env["CONSUL_HTTP_ADDR"] = f"http://127.0.0.1:{free_port()}"
    with configured.serving() as serving:
        assert serving.ready() == NOT_READY + CONSUL
        assert serving.metric("nomad_build_config_index") == 0
        assert "error[backend_unavailable]" in serving.build()
        assert "memory 300 MiB" in serving.profiles()["default"]
        assert "cannot be reached" in configured.log
    # One that takes connections and says nothing keeps nobody for long.
    configured.server.env["CONSUL_HTTP_ADDR"] = configured.consul.address
    with configured.consul.stopped():
        begun = time.monotonic()
        with configured.serving() as serving:
            assert time.monotonic() - begun < 15
            assert serving.ready() == NOT_READY + CONSUL
            assert "memory 300 MiB" in serving.profiles()["default"]


def show(configured: Configured, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [str(binary()), "config", "show", *options]
    environment = configured.server.env | env
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_each_value_is_shown_with_its_origin(configured: Configured) -> None:
    consul = configured.consul
    file = Path(configured.server.env["NOMAD_BUILD_CONFIG"])
    credentials = configured.server.directory / "git-password"
    credentials.touch(mode=0o600)
    credentials.write_text("geheim-in-a-file")
    text = file.read_text()
    secret = f'credentials = [{{url = "https://git.example.com/", username = "bot", password_file = "{credentials}"}}]'
    text = text.replace("[git]", f'[git]\nallow = ["https://ann:geheim@git.example.com/"]\n{secret}')
    file.write_text(text)
    consul.put(f"{PREFIX}/limits/memory_mb", "2048")
    consul.put(f"{PREFIX}/principals/token:ann/builds", "7")
    shown = show(configured)
    assert shown.returncode == 0, shown.stderr
    lines = [re.sub(" +", " ", line) for line in shown.stdout.splitlines()]
    state = configured.server.state
    written = text.splitlines()
    profile = written.index("[profiles.filed]") + 1
    network = next(n for n, line in enumerate(written, 1) if n > profile and line.startswith("network"))
    allow = next(n for n, line in enumerate(written, 1) if "ann:geheim" in line)
    for line in (
        f'state_dir = "{state}" # environment NOMAD_BUILD_STATE_DIR',
        f"limits.memory_mb = 2048 # consul {PREFIX}/limits/memory_mb",
        f'principals."token:ann".builds = 7 # consul {PREFIX}/principals/token:ann/builds',
        f'profiles.filed.network = "none" # file {file}:{network}',
        "limits.processes = 4096 # default",
        "limits.cpus = (not set) # default",
        f'consul.address = "{consul.address}" # environment CONSUL_HTTP_ADDR',
        f'git.allow = ["https://***@git.example.com/"] # file {file}:{allow}',
    ):
        assert line in lines, shown.stdout
    told = json.loads(show(configured, "--json").stdout)
    assert {row["origin"] for row in told["values"]} == {"default", "file", "environment", "consul"}
    assert told["consul"]["state"] == "holds" and told["consul"]["index"] > 0
    values = {row["key"]: row for row in told["values"]}
    wanted = {"key": "limits.memory_mb", "value": 2048, "origin": "consul", "from": f"{PREFIX}/limits/memory_mb"}
    assert values["limits.memory_mb"] == wanted
    assert values["limits.cpus"] == {"key": "limits.cpus", "value": None, "origin": "default"}
    everything = shown.stdout + shown.stderr + json.dumps(told)
    assert "geheim" not in everything and configured.token not in everything

    consul.put(f"{PREFIX}/buildah", "/bin/sh")
    refused = show(configured)
    assert refused.returncode == 1
    assert "buildah: may not be set from Consul" in refused.stderr
    assert "limits.memory_mb = 300" in refused.stdout
    assert json.loads(show(configured, "--json").stdout)["consul"]["state"] == "refused"
    consul.delete(f"{PREFIX}/buildah")

    nobody = {"CONSUL_HTTP_ADDR": f"127.0.0.1:{free_port()}"}
    unread = show(configured, **nobody)
    assert unread.returncode == 1 and "cannot be reached" in unread.stderr
    configured.token_file.write_text("3c1e7d68-0000-0000-0000-000000000000")
    unread = show(configured, "--json")
    assert unread.returncode == 1 and "ACL not found" in unread.stdout and "3c1e7d68" not in unread.stdout
    off = show(configured, NOMAD_BUILD_CONFIG="")
    assert off.returncode == 0 and off.stderr == "", off.stderr


@contextlib.contextmanager
def registered(consul: LocalConsul, name: str, address: str, **more: Any) -> Iterator[None]:
    """A service with a check, as the job of a server registers it."""
    host, port = address.removeprefix("http://").split(":")
    check = {"HTTP": f"{address}/readyz", "Interval": "100ms", "Timeout": "3s", "Name": "ready"}
    service = {"Name": name, "ID": name, "Address": host, "Port": int(port), "Tags": ["mcp", "metrics"], "Check": check}
    consul.request("PUT", "/v1/agent/service/register", service | more)
    try:
        yield
    finally:
        consul.request("PUT", f"/v1/agent/service/deregister/{name}")
        instances = f"/v1/health/service/{more.get('Name', name)}"

        def is_gone() -> bool:
            return name not in [one["Service"]["ID"] for one in consul.request("GET", instances)]

        eventually(is_gone, f"{name} is not registered any more")


def build_on(consul: LocalConsul, server: str, directory: Path, token: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`nomad-build build --server …` of a directory that is no context: it fails on the server, if it gets there."""
    command = [str(binary()), "build", "--server", server, str(directory)]
    environment = os.environ | {"CONSUL_HTTP_ADDR": consul.address, "CONSUL_HTTP_TOKEN": token, "NOMAD_BUILD_TOKEN": "x"} | env
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


def test_a_server_is_found_by_its_service(consul: LocalConsul, registry: LocalRegistry, base: str, tmp_path: Path) -> None:
    token = consul.client_token()
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nRUN echo found > /found\n")
    server = Server(Settings(distribution_buildah(), [registry]))
    try:
        with serve(server, "--no-auth") as address, registered(consul, "nomad-build", address):
            path = "/v1/health/service/nomad-build?passing"
            eventually(lambda: consul.request("GET", path), "a service whose checks pass")
            for service in ("consul://nomad-build", "consul://nomad-build?tag=mcp&scheme=http&dc=dc1"):
                built = build_on(consul, service, tmp_path, token)
                assert built.returncode == 0, built.stdout + built.stderr
                assert "succeeded" in built.stdout
            # What examples/prometheus/prometheus-consul.yml asks for and goes by.
            (found,) = consul.request("GET", "/v1/health/service/nomad-build?tag=metrics", token=token)
            assert f"http://{found['Service']['Address']}:{found['Service']['Port']}" == address
            assert found["Node"]["Node"] and found["Service"]["Tags"] == ["mcp", "metrics"]
            # Of two, the one that does not pass is never taken.
            with registered(consul, "nomad-build-2", f"http://127.0.0.1:{free_port()}", Name="nomad-build"):
                assert len(consul.request("GET", "/v1/health/service/nomad-build")) == 2
                for _ in range(4):
                    built = build_on(consul, "consul://nomad-build", tmp_path, token)
                    assert built.returncode == 0, built.stdout + built.stderr
    finally:
        server.remove()


def test_why_no_server_is_found(consul: LocalConsul, tmp_path: Path) -> None:
    def refused(server: str, *, token: str, **env: str) -> str:
        done = build_on(consul, server, tmp_path, token, **env)
        assert done.returncode not in (0, 101) and done.stdout == "", done.stdout
        assert not token or token not in done.stderr
        return done.stderr

    token = consul.client_token()
    assert "has no service \"nomad-build\"" in refused("consul://nomad-build", token=token)
    with registered(consul, "nomad-build", f"http://127.0.0.1:{free_port()}"):
        assert "none of the 1 instances of \"nomad-build\" passes its checks" in refused("consul://nomad-build", token=token)
        assert "has no service \"nomad-build\" with the tag \"x\"" in refused("consul://nomad-build?tag=x", token=token)
        # Without the right to read it, it looks as if there were none: but it is told that something was left out.
        consul.apply("nothing", "")
        nothing = consul.token_of("nothing")
        assert "rights service read and node read" in refused("consul://nomad-build", token=nothing)
        assert "there is no token" in refused("consul://nomad-build", token="")
        unknown = "3c1e7d68-0000-0000-0000-000000000000"
        assert "ACL not found" in refused("consul://nomad-build", token=unknown)
    away = f"127.0.0.1:{free_port()}"
    assert "cannot be reached" in refused("consul://nomad-build", token=token, CONSUL_HTTP_ADDR=away)
    assert "is no service" in refused("consul://nomad-build:8080", token=token)
    for server in ("consul://ann:geheim@nomad-build", "consul://nomad-build?token=geheim", "https://ann:geheim@127.0.0.1:1"):
        assert "geheim" not in refused(server, token=token)
    assert "it must be http://HOST:PORT" in refused("consul://nomad-build", token=token, CONSUL_HTTP_ADDR="ftp://x")


def test_the_rights_of_the_policies_are_the_least(consul: LocalConsul) -> None:
    consul.put(f"{PREFIX}/limits/memory_mb", "1024")
    consul.put("other/key", "secret")
    server, client = consul.server_token(), consul.client_token()
    assert consul.request("GET", f"/v1/kv/{PREFIX}/?recurse=true", token=server)
    for token, method, path in [
        (server, "PUT", f"/v1/kv/{PREFIX}/limits/memory_mb"),
        (server, "DELETE", f"/v1/kv/{PREFIX}/limits/memory_mb"),
        (server, "GET", "/v1/kv/other/key"),
        (server, "GET", "/v1/acl/tokens"),
        (server, "PUT", "/v1/agent/service/register"),
        (client, "GET", f"/v1/kv/{PREFIX}/limits/memory_mb"),
        (client, "PUT", "/v1/agent/service/register"),
    ]:
        body = {"Name": "nomad-build", "Port": 1} if path.endswith("register") else b"1" if method == "PUT" else None
        with pytest.raises(RuntimeError, match="403"):
            consul.request(method, path, body, token=token)
    assert consul.request("GET", "/v1/catalog/services", token=server) == {}
