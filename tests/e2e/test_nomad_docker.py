"""Builds as jobs of Nomad's docker driver, in the image of nomad/Containerfile."""

from __future__ import annotations

import json
import os
import random
import string
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import distribution_buildah
from docker_daemon import DockerDaemon, docker_directory
from helpers import (
    UNFINISHED, ask_both, fail, file_source, files, log_text, status_of, submit, succeed, unique, wait_final, wait_for,
)  # fmt: skip
from local_bao import LocalBao
from local_nomad import LocalNomad
from local_registry import LocalRegistry, write_auth_file
from mcp import ClientSession
from search import Search
from server import REPOSITORY, Server, Settings, binary
from test_failures import CASES, Case, arguments
from test_nomad import comparable, without_seconds
from test_nomad_server import NAME, Served, make_token

IMAGE_USER = 64100
SECRET = "s3cr3t-of-a-container-" + "x" * 20
SAME = ["copy-missing", "no-image", "run-fails", "no-secret"]
"""Failures whose answers are compared with those of this machine."""


@pytest.fixture(scope="module")
def image(registry: LocalRegistry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of nomad/Containerfile, on a Debian of this machine's sources, in the registry."""
    work = tmp_path_factory.mktemp("image")
    subprocess.run(["mmdebstrap", "--quiet", "--variant=apt", "bookworm", work / "debian.tar"], check=True)
    (work / "Containerfile").write_text("FROM scratch\nADD debian.tar /\n")
    buildah = ["buildah", "--root", str(work / "storage"), "--runroot", str(work / "run"), "--storage-driver", "overlay"]
    build = [*buildah, "build", "--quiet", "--isolation=chroot", "--network=host"]
    name = f"{registry.host}/nomad-build-image:1"
    subprocess.run([*build, "--tag=debian", work], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(
        [
            *build, f"--tag={name}", f"--file={REPOSITORY}/nomad/Containerfile", "--volume=/etc/apt:/etc/apt:ro",
            "--build-arg=BASE=localhost/debian", f"--build-arg=PROGRAM={binary().name}", binary().parent,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    subprocess.run([*buildah, "push", "--quiet", "--tls-verify=false", name, f"docker://{name}"], check=True)
    subprocess.run([*buildah, "rmi", "--all"], check=True, stdout=subprocess.DEVNULL)
    return name


@pytest.fixture(scope="module")
def docker() -> Iterator[DockerDaemon]:
    with ExitStack() as stack:
        yield DockerDaemon(docker_directory(stack), stack)


@pytest.fixture(scope="module")
def bao() -> Iterator[LocalBao]:
    with LocalBao() as bao:
        yield bao


@pytest.fixture(scope="module")
def nomad(
    docker: DockerDaemon, bao: LocalBao, image: str, registry: LocalRegistry, auth_registry: LocalRegistry
) -> Iterator[LocalNomad]:
    """A cluster of one node with Docker, set up as operators are told to: the profile `vault` has its secrets from there."""
    plugin = f"""
plugin "docker" {{
  config {{
    endpoint = {json.dumps(docker.endpoint)}
    volumes {{
      enabled = true
    }}
  }}
}}
"""
    with LocalNomad(memory_mb=4096, more=plugin + bao.agent()) as nomad:
        seccomp = str(REPOSITORY / "nomad/seccomp.json")
        # Credentials are the image's user's alone.
        own = nomad.directory / "etc"
        own.mkdir()
        assert auth_registry.login
        auth_file = write_auth_file(own / "auth.json", {auth_registry.host: auth_registry.login})
        auth_file.chmod(0o600)
        os.chown(auth_file, IMAGE_USER, IMAGE_USER)
        nomad.set_up(
            REPOSITORY / "nomad/build-docker.nomad.hcl",
            image=image, seccomp=seccomp, network_mode="host", disk="1024",
            config=config(registry, auth_registry, auth_file="/etc/nomad-build/auth.json"),
            volumes=json.dumps([f"{own}:/etc/nomad-build:ro"]),
        )  # fmt: skip
        bao.set_up(nomad.address, "vault")
        login = {"auth.json": auth_file.read_text()}
        for path, fields in {"vault/build": login | {"npm": SECRET}, "vault/publish": login, "vault/archive": login, "server": login}.items():
            bao.put(f"nomad-build/{path}", fields)
        nomad.set_up(
            REPOSITORY / "nomad/build-docker.nomad.hcl", "vault",
            image=image, seccomp=seccomp, network_mode="host", disk="1024", vault="true",
            build_secrets='["auth.json", "npm"]', config=config(auth_registry, registry),
        )  # fmt: skip
        yield nomad


def inspected(docker: DockerDaemon) -> list[dict[str, Any]]:
    """What Docker tells of the containers that run."""
    listed = subprocess.run([*docker.client, "ps", "--quiet"], check=True, capture_output=True, text=True)
    told = subprocess.run([*docker.client, "inspect", *listed.stdout.split()], check=True, capture_output=True, text=True)
    return list(json.loads(told.stdout))


def config(*registries: LocalRegistry, **registry: str) -> str:
    """Configuration of tasks and server; the first registry has their own repository."""
    lines = [
        f"registry.insecure = {json.dumps([one.host for one in registries])}",
        f"nomad.repository = {json.dumps(f'{registries[0].host}/nomad-build')}",
        *(f"registry.{name} = {json.dumps(value)}" for name, value in registry.items()),
    ]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def cluster(nomad: LocalNomad, registry: LocalRegistry, auth_registry: LocalRegistry) -> Iterator[Server]:
    repository = f"{registry.host}/nomad-build"
    server = Server(Settings(distribution_buildah(), [registry, auth_registry], nomad=nomad, repository=repository))
    yield server
    server.remove()


@pytest.fixture
async def session(cluster: Server) -> AsyncIterator[ClientSession]:
    async with cluster.connect() as session:
        yield session


async def test_an_agent_builds_tests_and_publishes(
    session: ClientSession, auth_registry: LocalRegistry, base: str
) -> None:
    tag = f"{auth_registry.host}/nomad-docker/{unique()}:1"
    wanted = {
        "source": {"path": str(REPOSITORY / "examples/hello")},
        "build_args": [f"BASE={base}", "VERSION=1"],
        "tests": [{"name": "greets", "command": "hello agent | grep -x 'Hello, agent!'"}],
        "tags": [tag],
    }
    status = await succeed(session, **wanted)
    name, version = tag.removeprefix(f"{auth_registry.host}/").split(":")
    assert auth_registry.digest(name, version) == status["image"]["digest"]
    # The stronger of the two: the container leaves room for it.
    assert "isolation: --isolation rootless --runtime runc" in await log_text(session, status["build_id"])


async def test_the_container_is_not_privileged(session: ClientSession, docker: DockerDaemon, base: str) -> None:
    text = f"FROM {base}\nRUN test ! -e /run/proc && for p in /proc/[0-9]*; do echo process $p; done; echo begun; sleep 600\n"
    build = await submit(session, source=files(Containerfile=text))

    async def begun() -> bool:
        return "| begun" in await log_text(session, build)

    await wait_for(begun, "its first words")
    seen = [line for line in (await log_text(session, build)).splitlines() if "process /proc/" in line]
    assert 0 < len(seen) < 5, seen
    listed = subprocess.run([*docker.client, "ps", "--quiet", "--filter=name=^build-"], check=True, capture_output=True, text=True)
    containers = listed.stdout.split()
    inspected = subprocess.run([*docker.client, "inspect", *containers], check=True, capture_output=True, text=True)
    (container,) = json.loads(inspected.stdout)
    host = container["HostConfig"]
    assert not host["Privileged"] and not host["CapAdd"] and container["Config"]["User"] == "build"
    assert not any("unconfined" in option for option in host["SecurityOpt"] if option.startswith("seccomp")), host["SecurityOpt"]
    answer, said = await ask_both(session, "kill", {"build_id": build, "reason": "enough"})
    assert answer["kill_result"] == "cancelled", said


@pytest.mark.parametrize("case", [case for case in CASES if case.name in SAME], ids=lambda case: case.name)
async def test_a_failure_is_the_same_as_on_one_machine(
    case: Case, session: ClientSession, plain: ClientSession, registry: LocalRegistry, base: str
) -> None:
    wanted = arguments(case, registry, base)
    there = await fail(session, case.kind, case.fault, **wanted)
    here = await fail(plain, case.kind, case.fault, **wanted)
    both = [without_seconds(comparable(one)) for one in (there, here)]
    for name in both[0].keys() | both[1].keys():
        assert both[0].get(name) == both[1].get(name), name


async def test_server_and_builds_in_containers_have_their_secrets_from_vault(
    nomad: LocalNomad, docker: DockerDaemon, image: str, auth_registry: LocalRegistry
) -> None:
    token, line = make_token("ann")
    job_file = REPOSITORY / "nomad/server-docker.nomad.hcl"
    profile = '[profiles.vault]\nsecrets = ["npm"]\n'
    # Its repository asks for the credential that it has from there.
    variables = {"image": image, "vault": "true", "config": f"{config(auth_registry)}\n{profile}"}
    served = Served(nomad, nomad.set_up_server(job_file, NAME, line, **variables), {"ann": token}, job_file, variables)
    assert served.get("/readyz")[1].startswith("ready\n")
    text = (
        f"FROM {auth_registry.host}/test/base:1\nCOPY large /\n"
        f"RUN --mount=type=secret,id=npm test $(wc -c < /run/secrets/npm) = {len(SECRET)} || exit 1; cat /run/secrets/npm; echo; echo begun; sleep 5\n"
    )
    tag = f"{auth_registry.host}/nomad-docker/{unique()}:1"
    # Too large for a dispatch: it takes the way over that repository.
    large = "".join(random.choices(string.ascii_letters, k=100_000))
    async with served.connect() as session:
        build = await submit(session, source=file_source({"Containerfile": text, "large": large}), profile="vault", secrets=["npm"], tags=[tag])

        async def begun() -> bool:
            status = await status_of(session, build)
            assert status["state"] in UNFINISHED, status
            return "| begun" in await log_text(session, build)

        await wait_for(begun, "its first words")
        seen = inspected(docker)
        status = await wait_final(session, build)
        log = await log_text(session, build)
    assert status["state"] == "succeeded", status
    name, version = tag.removeprefix(f"{auth_registry.host}/").split(":")
    assert auth_registry.digest(name, version) == status["image"]["digest"]
    assert SECRET not in log and "begun" in log
    # What Docker knows of the containers of server and build: their environments, commands and mounts.
    assert sorted(one["Name"].split("-")[0] for one in seen) == ["/build", "/server"], seen
    assert auth_registry.login
    search = Search({"npm": SECRET, "password": auth_registry.login.password, "login": auth_registry.login.basic})
    search.text("docker", json.dumps(seen))
    assert search.found == []
    for one in seen:
        names = {entry.split("=")[0] for entry in one["Config"]["Env"]}
        assert "NOMAD_SECRETS_DIR" in names and not names & {"NOMAD_TOKEN", "VAULT_TOKEN", "CONSUL_HTTP_TOKEN"}, names
