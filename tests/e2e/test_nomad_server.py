"""The server as a job of Nomad, over HTTP: with its workload identity, and nothing else that is secret."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx
import pytest
from demo_nomad import example, server_user
from helpers import ask, ask_both, files, log_text, refused, submit, succeed, unique, wait_final, wait_for
from local_nomad import NAMESPACE, LocalNomad
from local_registry import LocalRegistry
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp_http import McpHttp
from mcp_stdio import McpError
from server import REPOSITORY, binary

NAME = "nomad-build"


@dataclass
class Served:
    """A server that runs as a job."""

    nomad: LocalNomad
    address: str
    tokens: dict[str, str]
    """Token of each caller."""
    job_file: Path
    variables: dict[str, str]
    """What the job file was run with, besides its name and the namespace of builds."""

    @asynccontextmanager
    async def connect(self, name: str = "ann") -> AsyncIterator[ClientSession]:
        headers = {"Authorization": f"Bearer {self.tokens[name]}"}
        async with (
            httpx.AsyncClient(headers=headers, timeout=60, trust_env=False) as client,
            streamable_http_client(f"{self.address}/mcp", http_client=client) as (read, write, _),
        ):
            async with ClientSession(read, write) as session:
                await session.initialize()
                yield session

    def get(self, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
        request = urllib.request.Request(self.address + path, headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as answer:
                return answer.status, answer.read().decode(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), dict(error.headers)

    def process(self) -> int:
        """The server's process."""
        found = []
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                if words[:2] == [str(binary()).encode(), b"serve"] and self.nomad.directory.name.encode() in (
                    process / "environ"
                ).read_bytes():
                    found.append(int(process.name))
        assert len(found) == 1, found
        return found[0]


def make_token(name: str) -> tuple[str, str]:
    """A token, and its line in a file of tokens."""
    made = subprocess.run([binary(), "token", name, "--print"], check=True, capture_output=True, text=True)
    return made.stdout.strip(), made.stderr


@pytest.fixture(scope="module")
def served(registry: LocalRegistry) -> Iterator[Served]:
    with LocalNomad(memory_mb=4096) as nomad:
        shared = [
            f"registry.insecure = {json.dumps([registry.host])}",
            f"nomad.repository = {json.dumps(f'{registry.host}/nomad-build')}",
        ]
        tasks = [f"state_dir = {json.dumps(str(nomad.directory / 'client'))}", *shared]
        user = "root" if os.geteuid() == 0 else os.environ["USER"]
        raw_exec = REPOSITORY / "nomad/build-raw-exec.nomad.hcl"
        nomad.set_up(raw_exec, program=str(binary()), config="\n".join(tasks), user=user, disk="1024")
        made = {name: make_token(name) for name in ("ann", "bob")}
        lines = "".join(line for _, line in made.values())
        job_file = REPOSITORY / "nomad/server-raw-exec.nomad.hcl"
        issuer = ["[http.issuers.nomad]", f'jwks = "{nomad.address}/.well-known/jwks.json"', 'audiences = ["nomad-build"]']
        variables = {"program": str(binary()), "config": "\n".join([*shared, *issuer]), "user": server_user()}
        address = nomad.set_up_server(job_file, NAME, lines, **variables)
        yield Served(nomad, address, {name: token for name, (token, _) in made.items()}, job_file, variables)


async def test_a_build_ends_published(served: Served, registry: LocalRegistry, base: str) -> None:
    tag = f"{registry.host}/nomad-server/{unique()}:1"
    async with served.connect() as session:
        status = await succeed(
            session,
            source=example("hello"),
            build_args=[f"BASE={base}", "VERSION=1"],
            tests=[{"name": "greets", "command": "hello agent | grep -x 'Hello, agent!'"}],
            tags=[tag],
        )
        name, version = tag.removeprefix(f"{registry.host}/").split(":")
        assert registry.digest(name, version) == status["image"]["digest"]
        assert "test greets | Hello, agent!" in await log_text(session, status["build_id"])
    # All three are jobs: the server, the build, its test.
    jobs = served.nomad.request("GET", f"/v1/jobs?namespace={NAMESPACE}&prefix={NAME}-default/dispatch-{status['build_id']}")
    assert len(jobs) == 1
    # A workload identity, which Nomad renews, and no token that was made for it.
    environ = Path(f"/proc/{served.process()}/environ").read_bytes().split(b"\0")
    assert not [entry for entry in environ if entry.startswith((b"NOMAD_TOKEN=", b"NOMAD_ADDR="))]
    tokens = served.nomad.request("GET", "/v1/acl/tokens")
    assert [token["Name"] for token in tokens] == ["Bootstrap Token"]


async def test_a_caller_sees_its_own_builds_alone(served: Served) -> None:
    async with served.connect("ann") as ann, served.connect("bob") as bob:
        build = await succeed(ann, source=files(Containerfile="FROM scratch\nCOPY Containerfile /\n"))
        assert (await ask(bob, "status", {}))["builds"] == []
        for tool in ("status", "logs", "kill"):
            await refused(bob, tool, {"build_id": build["build_id"]}, "not_found")
        text = await refused(ann, "build", {"source": {"path": "/etc"}}, "path_not_reachable")
        assert "source.path" in text


async def test_nobody_unknown_gets_in(served: Served) -> None:
    for authorization in ({}, {"Authorization": "Bearer nbt_wrong"}, {"Authorization": "Basic eDp5"}):
        code, text, headers = served.get("/mcp", **authorization)
        assert code == 401 and "nomad-build token" in text, text
        assert headers["www-authenticate"].startswith("Bearer ")
    known = {"Authorization": f"Bearer {served.tokens['ann']}"}
    assert served.get("/mcp", Host="evil.example.com", **known)[0] == 403
    assert served.get("/mcp", Origin="https://evil.example.com", **known)[0] == 403


async def test_operators_see_how_it_is(served: Served) -> None:
    async with served.connect() as session:
        await succeed(session, source=files(Containerfile="FROM scratch\nCOPY Containerfile /\n"))
    assert served.get("/healthz")[:2] == (200, "ok\n")
    assert served.get("/readyz")[:2] == (200, "ready\n")
    code, text, _ = served.get("/metrics")
    assert code == 200
    lines = text.splitlines()
    assert any(line.startswith('nomad_build_builds{profile="default",state="succeeded"} ') for line in lines), text
    assert any(line.startswith('nomad_build_tool_call_seconds_count{outcome="ok",tool="build"} ') for line in lines), text


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "told"])
async def test_builds_go_on_without_the_server(served: Served, base: str, sign: signal.Signals) -> None:
    key = unique("k")
    # Not a step that is cached.
    text = f"FROM {base}\nRUN echo begun; sleep 8; echo ended {key}\n"
    async with served.connect() as session:
        build = await submit(session, source=files(Containerfile=text), key=key)

        async def begun() -> bool:
            return "| begun" in await log_text(session, build)

        await wait_for(begun, "its first words")
    old = served.process()
    os.kill(old, sign)

    async def another() -> bool:
        with contextlib.suppress(AssertionError):
            return served.process() != old
        return False

    await wait_for(another, "the server that Nomad starts instead")
    served.address = served.nomad.service(NAME)
    async with served.connect() as session:
        again = await ask(session, "build", {"source": files(Containerfile=text), "key": key})
        assert (again["build_id"], again.get("reused")) == (build, True)
        status = await wait_final(session, build)
        assert status["state"] == "succeeded", status
        log = await log_text(session, build)
        assert "| begun" in log and "| ended" in log
        answer, said = await ask_both(session, "kill", {"build_id": build})
        assert answer["kill_result"] == "already_finished", said


async def test_who_waits_when_the_server_ends_is_answered(served: Served, base: str) -> None:
    async with served.connect() as session:
        build = await submit(session, source=files(Containerfile=f"FROM {base}\nRUN sleep 600\n"))
        status = await ask(session, "status", {"build_id": build, "until": "started", "wait": 40})
        assert status["builds"][0]["state"] == "running"
        async def end() -> None:
            await anyio.sleep(1)
            os.kill(served.process(), signal.SIGTERM)

        async with anyio.create_task_group() as group:
            group.start_soon(end)
            with anyio.fail_after(10):
                answer = await ask(session, "status", {"build_id": build, "wait": 40})
        assert answer["builds"][0]["state"] == "running"
    served.address = served.nomad.service(NAME)
    async with served.connect() as session:
        answer = await ask(session, "kill", {"build_id": build})
        assert answer["kill_result"] == "cancelled"


async def test_builds_do_not_notice_an_upgrade(served: Served, base: str) -> None:
    nonce = unique("n")
    async with served.connect() as session:
        build = await submit(session, source=files(Containerfile=f"FROM {base}\nRUN echo begun; sleep 30; echo ended {nonce}\n"))
    old = served.process()
    variables = served.variables | {"config": served.variables["config"] + f"\n# {nonce}"}
    # Ends when the deployment has: with the one before still there, the next one passes its checks and takes its place.
    served.nomad.run("job", "run", str(served.job_file), name=NAME, builds_namespace=NAMESPACE, **variables)
    latest = served.nomad.request("GET", f"/v1/job/{NAME}/deployment?namespace=default")
    assert (latest["Status"], latest["TaskGroups"]["server"]["Promoted"]) == ("successful", True), latest

    async def alone() -> bool:
        with contextlib.suppress(AssertionError):
            return served.process() != old
        return False

    await wait_for(alone, "the end of the server before")
    served.address = served.nomad.service(NAME)
    async with served.connect() as session:
        status = await wait_final(session, build)
        assert status["state"] == "succeeded", status
        log = await log_text(session, build)
        assert "| begun" in log and "| ended" in log


CALLER = """
job "caller" {
  type = "batch"
  group "caller" {
    task "caller" {
      driver = "raw_exec"
      identity {
        file = true
      }
      identity {
        name = "nomad-build"
        aud  = ["nomad-build"]
        file = true
        ttl  = "1h"
      }
      config {
        command = "/bin/sleep"
        args    = ["600"]
      }
      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
"""


async def test_jobs_call_with_their_workload_identities(served: Served, tmp_path: Path) -> None:
    job = tmp_path / "caller.nomad.hcl"
    job.write_text(CALLER)
    served.nomad.run("job", "run", "-detach", str(job))

    def identities() -> dict[str, str]:
        files = served.nomad.data.glob("**/caller/secrets/*")
        return {file.name: file.read_text() for file in files if file.name in ("nomad_token", "nomad_nomad-build.jwt")}

    async def both() -> bool:
        return len(identities()) == 2

    await wait_for(both, "the identities of a task")
    session = McpHttp(f"{served.address}/mcp", identities()["nomad_nomad-build.jwt"])
    built = session.call("build", {"source": files(Containerfile="FROM scratch\nCOPY Containerfile /\n"), "wait": 45})
    build = built["structuredContent"]
    assert build["state"] == "succeeded", build
    records = served.nomad.request("GET", f"/v1/var/nomad-build%2Fb%2F{build['build_id']}?namespace={NAMESPACE}")
    assert "nomad:global:default:caller:caller:caller" in json.dumps(records), records
    # The one with which tasks ask Nomad itself is for nobody else.
    with pytest.raises(McpError, match="does not say when it expires"):
        McpHttp(f"{served.address}/mcp", identities()["nomad_token"]).request("tools/list")
    served.nomad.run("job", "stop", "-purge", "caller")
