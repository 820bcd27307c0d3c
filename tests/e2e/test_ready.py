"""/readyz and nomad_build_dependency_up: what builds need, and which of it is missing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import distribution_buildah
from local_nomad import NAMESPACE, LocalNomad
from local_registry import LocalRegistry, Login, free_port
from server import REPOSITORY, Server, Settings, binary, serve

NOT_READY = "not ready; the server's log says why\n"
JOBS = "jobs: the job of a profile is not registered with Nomad\n"
NOMAD = "nomad: Nomad does not answer, has no leader, or refuses this server\n"
RAW_EXEC = REPOSITORY / "nomad/build-raw-exec.nomad.hcl"
CHECK_SECONDS = 5
"""How long the checks of nomad/*.hcl wait for an answer."""


def get(address: str, path: str) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{address}/{path}", timeout=CHECK_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def becomes(address: str, status: int, text: str, seconds: float = 40) -> None:
    """Waits for an answer of /readyz; each comes in time."""
    deadline = time.monotonic() + seconds
    while (answer := get(address, "readyz")) != (status, text):
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)


def dependencies(address: str, wanted: dict[str, int]) -> str:
    """Waits until the metrics tell this of what builds need; the metrics."""
    deadline = time.monotonic() + 20
    while True:
        status, text = get(address, "metrics")
        assert status == 200, text
        told = re.findall(r'^nomad_build_dependency_up\{dependency="(\w+)"\} (\d)$', text, re.MULTILINE)
        if {name: int(value) for name, value in told} == wanted:
            return text
        assert time.monotonic() < deadline, told
        time.sleep(0.2)


@pytest.fixture
def buildah(tmp_path: Path) -> Path:
    path = tmp_path / "buildah"
    path.symlink_to(distribution_buildah())
    return path


def test_what_is_missing_on_this_machine(buildah: Path) -> None:
    server = Server(Settings(buildah))
    needs = {"state_directory": 1, "buildah": 1, "users": 1}
    try:
        with serve(server) as address:
            assert get(address, "readyz") == (200, "ready\n")
            assert "nomad_build_clients{" in dependencies(address, needs)

            buildah.unlink()
            becomes(address, 503, NOT_READY + "buildah: Buildah is not where the configuration says\n")
            dependencies(address, needs | {"buildah": 0})
            assert str(buildah) in (server.directory / "http.log").read_text()
            buildah.symlink_to(distribution_buildah())
            becomes(address, 200, "ready\n")

            staging = server.state / "staging"
            shutil.rmtree(staging)
            staging.write_text("in the way")
            unusable = "state_directory: the state directory cannot be used\n"
            becomes(address, 503, NOT_READY + unusable)
            dependencies(address, needs | {"state_directory": 0})
            buildah.unlink()
            becomes(address, 503, NOT_READY + unusable + "buildah: Buildah is not where the configuration says\n")
            assert get(address, "healthz") == (200, "ok\n")
            staging.unlink()
            buildah.symlink_to(distribution_buildah())
            becomes(address, 200, "ready\n")
            dependencies(address, needs)
    finally:
        server.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="builds of others run as them")
def test_the_accounts_of_builds_are_missing(buildah: Path, tmp_path: Path) -> None:
    accounts = Path("/etc/passwd").read_text()
    passwd = tmp_path / "passwd"
    passwd.write_text(accounts)
    # A user database of the server's own.
    own = ["unshare", "--mount", "--propagation=private", "sh", "-c", f'mount --bind {passwd} /etc/passwd && exec "$@"', "sh"]
    settings = Settings(buildah, within=own)
    server = Server(settings)
    try:
        with serve(server) as address:
            assert get(address, "readyz") == (200, "ready\n")
            others = [line for line in accounts.splitlines(True) if not line.startswith(f"{settings.accounts}-0:")]
            passwd.write_text("".join(others))
            fault = "users: the accounts that builds run as are not there, or not apart from others\n"
            becomes(address, 503, NOT_READY + fault)
            dependencies(address, {"state_directory": 1, "buildah": 1, "users": 0})
            passwd.write_text(accounts)
            becomes(address, 200, "ready\n")
    finally:
        server.remove()


@pytest.fixture(scope="module")
def nomad() -> Iterator[LocalNomad]:
    with LocalNomad(memory_mb=4096) as nomad:
        yield nomad


def register(nomad: LocalNomad, profile: str) -> None:
    config = f"state_dir = {json.dumps(str(nomad.directory / 'client'))}"
    user = "root" if os.geteuid() == 0 else os.environ["USER"]
    nomad.set_up(RAW_EXEC, profile, program=str(binary()), config=config, user=user, disk="1024")


def test_what_is_missing_on_a_cluster(nomad: LocalNomad) -> None:
    needs = {"nomad": 1, "jobs": 1, "repository": 1}
    register(nomad, "default")
    with contextlib.ExitStack() as stack:
        registry = LocalRegistry(Login("builder", "pass word"))
        working = stack.enter_context(contextlib.ExitStack())
        working.enter_context(registry)
        repository = f"{registry.host}/nomad-build"
        server = Server(
            Settings(distribution_buildah(), [registry], nomad=nomad, repository=repository, profiles={"gpu": {}})
        )
        stack.callback(server.remove)
        address = stack.enter_context(serve(server))
        # Builds of the profile that has its job are accepted.
        becomes(address, 200, "ready\n" + JOBS)
        dependencies(address, needs | {"jobs": 0})
        register(nomad, "gpu")
        becomes(address, 200, "ready\n")
        dependencies(address, needs)

        nomad.run("job", "stop", "-namespace", NAMESPACE, "-purge", "-yes", "nomad-build-default")
        becomes(address, 200, "ready\n" + JOBS)
        # One that is stopped takes nothing, either.
        nomad.run("job", "stop", "-namespace", NAMESPACE, "-yes", "nomad-build-gpu")
        becomes(address, 503, NOT_READY + JOBS)
        dependencies(address, needs | {"jobs": 0})
        log = (server.directory / "http.log").read_text()
        assert "nomad-build-default, nomad-build-gpu" in log
        for profile in ("default", "gpu"):
            register(nomad, profile)
        becomes(address, 200, "ready\n")

        # Without a leader's answer nothing is known of jobs; the metrics tell so all the same.
        with nomad.stopped():
            becomes(address, 503, NOT_READY + NOMAD)
            told = dependencies(address, {"nomad": 0})
            assert "nomad_build_clients{" in told and "nomad_build_builds" not in told
        becomes(address, 200, "ready\n")

        # Builds from git need no repository.
        working.close()
        becomes(address, 200, "ready\nrepository: the repository of contexts and logs cannot be read\n")
        dependencies(address, needs | {"repository": 0})


def test_a_cluster_that_is_not_there(nomad: LocalNomad) -> None:
    server = Server(Settings(distribution_buildah(), nomad=nomad))
    register(nomad, "default")
    try:
        with serve(server, NOMAD_ADDR=f"http://127.0.0.1:{free_port()}") as address:
            assert get(address, "readyz") == (503, NOT_READY + NOMAD)
            dependencies(address, {"nomad": 0})
            assert get(address, "healthz") == (200, "ok\n")
        # No right to anything.
        nobody = nomad.request("POST", "/v1/acl/token", {"Name": "x", "Type": "client", "Policies": ["nothing"]})
        with serve(server, name="refused", NOMAD_TOKEN=nobody["SecretID"]) as address:
            assert get(address, "readyz") == (503, NOT_READY + NOMAD)
        assert nobody["SecretID"] not in (server.directory / "refused.log").read_text()
    finally:
        server.remove()
