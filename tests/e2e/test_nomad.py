"""Builds as jobs of a real Nomad, with access control: the same tools, the same answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import distribution_buildah
from helpers import ask, ask_both, fail, files, log_text, refused, submit, succeed, unique, wait_for
from local_nomad import NAMESPACE, LocalNomad
from local_registry import LocalRegistry
from mcp import ClientSession
from mcp_http import McpHttp
from server import REPOSITORY, Server, Settings, binary, serve
from test_failures import CASES, Case, arguments

RAW_EXEC = REPOSITORY / "nomad/build-raw-exec.nomad.hcl"


@pytest.fixture(scope="module")
def nomad(registry: LocalRegistry, auth_registry: LocalRegistry) -> Iterator[LocalNomad]:
    """A cluster of one node, set up as operators are told to; its jobs push to `registry`."""
    with LocalNomad(memory_mb=4096) as nomad:
        tasks = [
            f"state_dir = {json.dumps(str(nomad.directory / 'client'))}",
            f"registry.insecure = {json.dumps([registry.host, auth_registry.host])}",
            "git.allow_http = true",
            f"nomad.repository = {json.dumps(f'{registry.host}/nomad-build')}",
        ]
        user = "root" if os.geteuid() == 0 else os.environ["USER"]
        variables = {"program": str(binary()), "config": "\n".join(tasks), "user": user, "disk": "1024"}
        nomad.set_up(RAW_EXEC, **variables)
        nomad.set_up(RAW_EXEC, "large", **variables, memory="100000")
        yield nomad


@pytest.fixture(scope="module")
def cluster(nomad: LocalNomad, registry: LocalRegistry, auth_registry: LocalRegistry) -> Iterator[Server]:
    server = Server(
        Settings(
            distribution_buildah(),
            [registry, auth_registry],
            nomad=nomad,
            repository=f"{registry.host}/nomad-build",
            profiles={"large": {"description": "much memory"}, "gpu": {}},
        )
    )
    yield server
    server.remove()


@pytest.fixture
async def session(cluster: Server) -> AsyncIterator[ClientSession]:
    async with cluster.connect() as session:
        yield session


async def test_an_agent_builds_tests_and_publishes(
    session: ClientSession, registry: LocalRegistry, base: str, nomad: LocalNomad
) -> None:
    tag = f"{registry.host}/nomad/{unique()}:1"
    wanted = {
        "source": {"path": str(REPOSITORY / "examples/hello")},
        "build_args": [f"BASE={base}", "VERSION=1"],
        "tests": [{"name": "greets", "command": "hello agent | grep -x 'Hello, agent!'"}],
        "tags": [tag],
    }
    status = await succeed(session, **wanted)
    assert status["tests"][0]["status"] == "passed"
    name, version = tag.removeprefix(f"{registry.host}/").split(":")
    assert registry.digest(name, version) == status["image"]["digest"]
    assert status["image"]["tags"] == [{"tag": tag, "digest": status["image"]["digest"], "state": "confirmed"}]
    assert {"source", "build", "test", "publish"} <= set(status["times"]["phase_seconds"])
    # The log at once, as a whole, through all phases.
    logs = await ask(session, "logs", {"build_id": status["build_id"], "from": "start", "lines": 1000})
    assert logs["complete"] and not logs["more_after"]
    phases = [line.split()[1] for line in logs["text"].splitlines()]
    assert [phase for index, phase in enumerate(phases) if index == 0 or phases[index - 1] != phase] == [
        "source", "build", "test", "publish",
    ]  # fmt: skip
    numbers = [int(line.split()[0]) for line in logs["text"].splitlines()]
    assert numbers == list(range(1, logs["total_lines"] + 1))
    # What is found in Nomad by the build's id alone.
    jobs = nomad.request("GET", f"/v1/jobs?namespace={NAMESPACE}&prefix=nomad-build-default/dispatch-{status['build_id']}")
    assert len(jobs) == 1


async def placed(session: ClientSession, status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The outputs of a build by their names, once they are here: they come behind its end."""

    async def here() -> list[dict[str, Any]] | None:
        told = await ask(session, "status", {"build_id": status["build_id"]})
        outputs = told["builds"][0]["outputs"]
        return outputs if all("path" in output for output in outputs) else None

    return {output["name"]: output for output in await wait_for(here, "the outputs")}


async def test_outputs_come_through_the_registry(
    session: ClientSession, cluster: Server, registry: LocalRegistry, nomad: LocalNomad, base: str, tmp_path: Path
) -> None:
    word = unique()
    source = files(Containerfile=f"FROM {base}\nRUN printf {word} >/word && chmod 755 /word\n")
    test = {"name": "leaves", "command": "printf left >/left; exit 3", "outputs": ["/left"]}
    status = await succeed(session, source=source, outputs=["/word", "image"])
    outputs = await placed(session, status)
    assert Path(outputs["word"]["path"]).read_text() == word and outputs["word"]["executable"]
    assert tarfile.is_tarfile(outputs["image.tar"]["path"])
    # A failed build, of whose tasks Nomad takes no word any more, hands over as well.
    failed = await fail(session, "test_failed", "code", source=source, tests=[test], outputs=["/word"])
    outputs = await placed(session, failed)
    assert Path(outputs["left"]["path"]).read_text() == "left" and Path(outputs["word"]["path"]).read_text() == word
    # Another server has never seen it.
    command = [*cluster.command[:-3], "status", status["build_id"], "--backend", "nomad", "--json"]
    told = json.loads(subprocess.run(command, env=cluster.env, check=True, capture_output=True, text=True).stdout)
    assert {output["digest"] for output in told["outputs"]} == {one["digest"] for one in status["outputs"]}
    command = [*cluster.command[:-3], "build", str(tmp_path), "--backend", "nomad", "--extract", "/word"]
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nRUN printf {word} >/word\n")
    subprocess.run(command, env=cluster.env, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert (tmp_path / "word").read_text() == word


VARYING = {"build_id", "times", "elapsed_seconds", "resources", "next", "summary", "idle_seconds"}
"""What is another for each build."""
VARYING_WORDS = {
    r"items matching glob [^:]*: ": "items matching glob: ",
    r"filtered out using [^\"]*": "filtered out",
    r"[^\" ]*/work/src": "SRC",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ": "NOW",
}
"""In Buildah's own words: where the sources were (a long path is cut short), and when."""


def comparable(status: dict[str, Any]) -> Any:
    """A status without what is another for each build."""
    text = json.dumps({name: value for name, value in status.items() if name not in VARYING}, ensure_ascii=False)
    for pattern, instead in VARYING_WORDS.items():
        text = re.sub(pattern, instead, text)
    return json.loads(text.replace(status["build_id"], "ID"))


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        # How many lines stand before the failure depends on what was in the cache.
        kept = {name: inner for name, inner in value.items() if name not in ("seconds", "log_cursor")}
        return {name: without_seconds(inner) for name, inner in kept.items()}
    if isinstance(value, list):
        return [without_seconds(inner) for inner in value]
    return value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_failure_is_the_same_as_on_one_machine(
    case: Case, session: ClientSession, plain: ClientSession, registry: LocalRegistry, base: str
) -> None:
    wanted = arguments(case, registry, base)
    there = await fail(session, case.kind, case.fault, **wanted)
    here = await fail(plain, case.kind, case.fault, **wanted)
    both = [without_seconds(comparable(one)) for one in (there, here)]
    for name in both[0].keys() | both[1].keys():
        assert both[0].get(name) == both[1].get(name), name
    assert ("log_cursor" in there["failure"]) == ("log_cursor" in here["failure"])


async def test_kill(session: ClientSession, base: str) -> None:
    source = files(Containerfile=f"FROM {base}\nRUN echo begun; sleep 600\n")
    build = await submit(session, source=source)

    async def begun() -> bool:
        return "| begun" in await log_text(session, build)

    await wait_for(begun, "its first words")
    answer, text = await ask_both(session, "kill", {"build_id": build, "reason": "enough"})
    assert answer["kill_result"] == "cancelled", text
    status = (await ask(session, "status", {"build_id": build}))["builds"][0]
    assert (status["state"], status["cancel"]["reason"]) == ("cancelled", "enough")
    assert await begun()
    again = await ask(session, "kill", {"build_id": build})
    assert again["kill_result"] == "already_finished"


async def test_a_build_that_waits_says_why_and_can_be_killed(session: ClientSession) -> None:
    build = await submit(session, source=files(Containerfile="FROM scratch\n"), profile="large")

    async def reason() -> str | None:
        status = (await ask(session, "status", {"build_id": build, "wait": 0}))["builds"][0]
        return status["queue"]["reason"] if status["queue"]["code"] == "unplaceable" else None

    said = await wait_for(reason, "the reason why it waits")
    assert said.startswith("no node in dc1 has 100000 MB of memory; the largest has 4")
    answer = await ask(session, "kill", {"build_id": build})
    assert answer["kill_result"] == "cancelled"


async def test_offers_and_a_profile_without_a_job(session: ClientSession) -> None:
    offers = (await ask(session, "status", {}))["offers"]
    assert offers["profiles"] == ["default", "gpu", "large"]
    wanted = {"source": files(Containerfile="FROM scratch\n"), "profile": "gpu"}
    text = await refused(session, "build", wanted, "backend_unavailable")
    assert "nomad-build-gpu" in text and "nomad/README.md" in text


async def test_another_server_sees_the_same(cluster: Server, session: ClientSession) -> None:
    name = unique("n")
    source = files(Containerfile="FROM scratch\nCOPY Containerfile /\n")
    build = await succeed(session, source=source, name=name)
    async with cluster.connect() as other:
        seen = (await ask(other, "status", {"name": name}))["builds"]
        assert [row["build_id"] for row in seen] == [build["build_id"]]
        assert await log_text(other, build["build_id"]) == await log_text(session, build["build_id"])
        again = await ask(other, "build", {"like": build["build_id"], "name": unique("n"), "wait": 40})
        assert again["state"] == "succeeded"


def check(server: Server, **environment: str) -> tuple[int, str]:
    """`nomad-build check --backend nomad`: its status and what it says."""
    command = [str(binary()), "check", "--backend", "nomad"]
    done = subprocess.run(command, env=server.env | environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_check_names_what_is_wrong_on_the_cluster(cluster: Server, nomad: LocalNomad) -> None:
    status, said = check(cluster)
    lines = said.splitlines()
    missing = [line for line in lines if line.startswith("missing")]
    assert status == 1
    assert len(missing) == 2, said
    assert missing[0].startswith("missing  profile gpu: no job nomad-build-gpu") and "nomad job run" in missing[0]
    assert missing[1].startswith("missing  profile large: no node has 100000 MB of memory")
    assert any(line.startswith("ok       profile default: 1024 MB of memory") for line in lines), said

    nobody = nomad.request("POST", "/v1/acl/token", {"Name": "x", "Type": "client", "Policies": ["nothing"]})
    status, said = check(cluster, NOMAD_TOKEN=nobody["SecretID"])
    assert status == 1
    for right in ("dispatch-job", "read-job", "variables"):
        assert any(line.startswith("missing") and right in line for line in said.splitlines()), said
    assert nobody["SecretID"] not in said

    status, said = check(cluster, NOMAD_ADDR="http://127.0.0.1:1")
    assert status == 1
    assert said.startswith("missing  nomad: ") and "NOMAD_ADDR" in said


def test_uploads_are_there_for_every_server(nomad: LocalNomad, registry: LocalRegistry, base: str, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nCOPY . /src\nRUN cat /src/greeting; echo {unique()}\n")
    (tmp_path / "greeting").write_text("hello")
    # Too large for a payload.
    (tmp_path / "data").write_bytes(os.urandom(1 << 20))
    repository = f"{registry.host}/nomad-build"
    servers = [Server(Settings(distribution_buildah(), [registry], nomad=nomad, repository=repository)) for _ in range(2)]
    with serve(servers[0], "--no-auth") as one, serve(servers[1], "--no-auth") as other:
        first, second = McpHttp(f"{one}/mcp", "any"), McpHttp(f"{other}/mcp", "any")
        refusal = first.call("build", {"source": {"path": str(tmp_path)}})
        upload = refusal["_meta"]["nomad-build/error"]["upload"]
        # The ticket of one server is good at another, and so is what came by it.
        line = upload["command"].replace(one, other)
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)
        context = json.loads(done.stdout)["context"]
        notes = nomad.request("GET", f"/v1/vars?namespace={NAMESPACE}&prefix=nomad-build/u/")
        assert len(notes) == 1
        for session, name in ((first, upload["context"]), (second, context)):
            built = session.call("build", {"source": {"context": name}, "wait": 50})["structuredContent"]
            if built["state"] in ("queued", "running"):
                arguments = {"build_id": built["build_id"], "wait": 50}
                built = session.call("status", arguments)["structuredContent"]["builds"][0]
            assert built["state"] == "succeeded", built
        again = subprocess.run(["sh", "-c", upload["command"]], capture_output=True, text=True, timeout=60)
        assert "the ticket was used" in again.stdout
        # When its time is over, whichever server comes across it removes it from the registry.
        path = f"/v1/var/{notes[0]['Path']}?namespace={NAMESPACE}"
        variable = nomad.request("GET", path)
        uploads = json.loads(variable["Items"]["uploads"])
        place = uploads["contexts"][0]["place"]
        assert registry.digest("nomad-build", place)
        uploads["contexts"][0]["expires"] = 1
        nomad.request("PUT", path, variable | {"Items": {"uploads": json.dumps(uploads)}})
        second.call("build", {"source": {"path": "/nowhere"}})
        assert registry.digest("nomad-build", place) is None
    for server in servers:
        assert os.listdir(server.state / "uploads") == [], "nothing stays on the server"
        server.remove()


def test_without_a_repository_no_uploads_are_taken(nomad: LocalNomad) -> None:
    server = Server(Settings(distribution_buildah(), nomad=nomad))
    with serve(server, "--no-auth") as address:
        session = McpHttp(f"{address}/mcp", "any")
        refusal = session.call("build", {"source": {"path": "/nowhere"}})
        assert "upload" not in refusal["_meta"]["nomad-build/error"]
        assert "source.context" not in refusal["content"][0]["text"], refusal
        offers = session.call("status", {})["structuredContent"]["offers"]
        assert offers["sources"] == ["git", "files"]
        refusal = session.call("build", {"source": {"git": "https://git.example/x"}, "outputs": ["image"]})
        assert "error[not_allowed] outputs: this server has no place for outputs" in refusal["content"][0]["text"]
    server.remove()
