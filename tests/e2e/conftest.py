"""Fixtures: registries with a base image, both Buildahs, servers and sessions.

A missing program is a failure, never a skip.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
import pytest
from helpers import call
from jsonschema import Draft202012Validator
from local_registry import LocalRegistry, Login, write_auth_file
from mcp import ClientSession
from server import REPOSITORY, Server, Settings, binary

NEWEST_BUILDAH = "buildah-1.43.2/buildah"

# The two generations of the SDK have different names for the same things.
if version("mcp").startswith("1."):
    collect_ignore = ["test_newest_era.py"]
    if os.geteuid() != 0:
        # An ordinary user cannot make accounts, networks or containers for the tests.
        collect_ignore += ["test_accounts.py", "test_docker.py", "test_egress.py"]
else:
    collect_ignore = [file.name for file in Path(__file__).parent.glob("test_*.py") if file.name != "test_newest_era.py"]


# Three thirds that take about as long, by how names of files begin. Those of the machine start clusters, daemons and networks, or
# look at what builds leave anywhere, beside which only what builds may run. All other files are the last third. Each has accounts
# of its own (`make test` makes them): what one build of a test has left in its account's cache, the next one finds there.
_THIRDS = {
    "machine": (
        "test_borders", "test_check_vault", "test_consul", "test_death", "test_docker", "test_egress", "test_kill_storm",
        "test_machine", "test_nomad", "test_rights", "test_secrets_in_memory", "test_vault",
    ),
    "attacks": (
        "test_attacks", "test_base_images", "test_build", "test_clients", "test_examples", "test_failures", "test_named_contexts",
        "test_sandbox",
    ),
}  # fmt: skip

# What takes longest: of these files `make test` runs a few tests alone with the newest Buildah, `make test-all` all.
_WITH_ONE_BUILDAH = ("test_base_images", "test_cache", "test_limits", "test_since")
_WITH_BOTH = ("test_a_base_image_that_moves_is_followed", "test_damaged_layers_of_a_ref", "test_whoever_is_killed")
# Of these it runs the distribution's Buildah with this value alone, and the newest with the other one.
_EACH_ONCE = {
    "test_builds_at_the_same_time_share_no_id": ("isolation", "rootless"),
    "test_what_a_step_mounts_decides_whether_its_layer_is_taken": ("mount", "type=bind,"),
}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Says what `pytest -n 3 --dist loadgroup` runs side by side, and what `make test` leaves out."""
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        newest = parameters.get("buildah") == "1.43.2"
        if newest and item.path.name.startswith(_WITH_ONE_BUILDAH) and not item.name.startswith(_WITH_BOTH):
            item.add_marker(pytest.mark.matrix)
        parameter, of_distribution = _EACH_ONCE.get(item.name.partition("[")[0], ("", ""))
        if parameter and newest == (parameters[parameter] == of_distribution):
            item.add_marker(pytest.mark.matrix)
        third = next((third for third, names in _THIRDS.items() if item.path.name.startswith(names)), "others")
        item.add_marker(pytest.mark.xdist_group(third))


def _check_each_schema_once() -> None:
    """The SDK checks the whole output schema of a tool with each call: 0.15 s, a third of all that `make test` computed."""
    check, checked = Draft202012Validator.check_schema, set[str]()

    def check_once(schema: Any, *args: Any, **kwargs: Any) -> None:
        if (text := json.dumps(schema, sort_keys=True)) not in checked:
            check(schema, *args, **kwargs)
            checked.add(text)

    Draft202012Validator.check_schema = check_once


_check_each_schema_once()
_ACCOUNTS = {"machine": "nomad-build", "attacks": "nomad-build-b", "others": "nomad-build-c"}
_thirds: set[str] = set()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Sees that the thirds stay apart: mixed, each takes longer, and disturbs what looks at the whole machine."""
    mark = item.get_closest_marker("xdist_group")
    if mark and int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
        os.environ["TEST_ACCOUNTS"] = _ACCOUNTS[mark.args[0]]
        _thirds.add(mark.args[0])
        if len(_thirds) > 1:
            pytest.exit("tests of two thirds came to one worker: `-n 3 --dist loadgroup` did not keep them apart", 3)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _binary_is_there() -> None:
    assert os.access(binary(), os.X_OK), f"{binary()} is missing: cargo build --release"


def push_base(registry: LocalRegistry, directory: Path) -> str:
    reference = f"{registry.host}/test/base:1"
    command = [str(REPOSITORY / "scripts/base-image.sh"), reference, "--insecure"]
    if registry.login:
        auth_file = write_auth_file(directory / "auth.json", {registry.host: registry.login})
        command += ["--authfile", str(auth_file)]
    subprocess.run(command, check=True)
    return reference


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    """A registry that asks for no credentials, with the image test/base:1."""
    with LocalRegistry(delete=True) as registry:
        push_base(registry, tmp_path_factory.mktemp("auth"))
        yield registry


@pytest.fixture(scope="session")
def auth_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    """A registry that asks for credentials, with the image test/base:1."""
    with LocalRegistry(Login("builder", "pass word")) as registry:
        push_base(registry, tmp_path_factory.mktemp("auth"))
        yield registry


@pytest.fixture(scope="session")
def base(registry: LocalRegistry) -> str:
    """Reference of the base image: busybox."""
    return f"{registry.host}/test/base:1"


def distribution_buildah() -> Path:
    found = shutil.which("buildah")
    assert found, "buildah is missing: scripts/setup.sh test"
    return Path(found)


def newest_buildah() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    shared = Path("/usr/local/lib/nomad-build/tools") / NEWEST_BUILDAH
    path = shared if os.geteuid() == 0 else cache / "nomad-build/tools" / NEWEST_BUILDAH
    assert os.access(path, os.X_OK), f"{path} is missing: scripts/setup.sh test"
    return path


@pytest.fixture(scope="session", params=["distribution", "1.43.2"])
def buildah(request: pytest.FixtureRequest) -> Path:
    """Each Buildah in turn: the distribution's, and the newest."""
    return newest_buildah() if request.param == "1.43.2" else distribution_buildah()


@pytest.fixture(scope="session")
def server(buildah: Path, registry: LocalRegistry, auth_registry: LocalRegistry) -> Iterator[Server]:
    """The server that most tests share, once with each Buildah."""
    server = Server(Settings(buildah, [registry, auth_registry]))
    yield server
    server.remove()


@pytest.fixture
async def session(server: Server) -> AsyncIterator[ClientSession]:
    """A connection to the shared server, once with each Buildah."""
    async with server.connect() as session:
        yield session
        await _end_builds(session)


@pytest.fixture(scope="session")
def plain_server(registry: LocalRegistry, auth_registry: LocalRegistry) -> Iterator[Server]:
    """A shared server for what does not depend on Buildah's version."""
    server = Server(Settings(distribution_buildah(), [registry, auth_registry]))
    yield server
    server.remove()


@pytest.fixture
async def plain(plain_server: Server) -> AsyncIterator[ClientSession]:
    """A connection to `plain_server`."""
    async with plain_server.connect() as session:
        yield session
        await _end_builds(session)


MakeServer = Callable[..., Server]


@pytest.fixture
def make_server(registry: LocalRegistry, auth_registry: LocalRegistry) -> Iterator[MakeServer]:
    """Makes servers with a state of their own; keywords are those of `Settings`."""
    made: list[Server] = []

    def make(**settings: Any) -> Server:
        wanted: dict[str, Any] = {"buildah": distribution_buildah(), "insecure": [registry, auth_registry]} | settings
        made.append(Server(Settings(**wanted)))
        return made[-1]

    yield make
    for server in made:
        server.remove()


async def _end_builds(session: ClientSession) -> None:
    """What a failed test left running must not slow down the next one."""
    with anyio.move_on_after(30), contextlib.suppress(AssertionError, TimeoutError):
        answer = await call(session, "status", {"state": ["unfinished"], "limit": 50, "wait": 0})
        for build in (answer.structuredContent or {}).get("builds", []):
            await call(session, "kill", {"build_id": build["build_id"], "reason": "the test has ended"})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """With what fails stands what builds had to say to the operator, and their last words."""
    report = yield
    if report.failed:
        logs: dict[Path, float] = {}
        for log in Path(tempfile.gettempdir()).glob("nomad-build-e2e-*/state/b/*/runner.log"):
            # Other tests remove theirs meanwhile.
            with contextlib.suppress(OSError):
                if (status := log.stat()).st_size:
                    logs[log] = status.st_mtime
        said = [f"{log}:\n{_end(log)}\n{_end(log.with_name('log.ndjson'))}" for log in sorted(logs, key=lambda log: logs[log])[-20:]]
        report.sections.append(("What runners said", "\n".join(said)))
    return report


def _end(log: Path) -> str:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 2000))
        return file.read(2000).decode(errors="replace")
    return ""
