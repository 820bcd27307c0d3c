"""The server in a container of Docker that is not privileged and whose user is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import pytest
from docker_daemon import DockerDaemon, docker_directory
from helpers import fail, files, log_text, succeed, unique
from local_registry import LocalRegistry
from machine import ORDINARY_USER
from server import REPOSITORY, Server, Settings, binary

NEEDED = ["--security-opt=seccomp=unconfined", "--security-opt=systempaths=unconfined", "--device=/dev/net/tun"]
# The same without what a scheduler cannot ask for: the profile of nomad/, and a second /proc that nothing masks.
NARROW = [
    f"--security-opt=seccomp={REPOSITORY}/nomad/seccomp.json",
    "--mount=type=volume,target=/run/proc,volume-driver=local,volume-opt=type=proc,volume-opt=device=proc,\"volume-opt=o=hidepid=2,subset=pid\"",
    "--device=/dev/net/tun",
]
MAPPERS = {"newuidmap": "cap_setuid=ep", "newgidmap": "cap_setgid=ep"}
IMAGE = "nomad-build-e2e:1"


class Docker(DockerDaemon):
    """A daemon of its own, and an image without programs: those are the host's."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        super().__init__(directory, stack)
        self.programs = directory / "bin"
        subprocess.run([*self.client, "import", "-", IMAGE], input=_root(), check=True, capture_output=True)
        self.programs.mkdir()
        shutil.copy(binary(), self.programs / "nomad-build")
        for name, capability in MAPPERS.items():
            # With setuid they would need the capability to administrate the system, too.
            shutil.copyfile(f"/usr/bin/{name}", self.programs / name)
            (self.programs / name).chmod(0o755)
            subprocess.run(["setcap", capability, str(self.programs / name)], check=True)

    def run(self, directory: Path, options: list[str]) -> list[str]:
        """The beginning of a command line that runs in a container; the directory is there."""
        volumes = [f"--volume={path}:{path}:ro" for path in ("/usr", "/etc/containers", "/etc/ssl")]
        volumes += [f"--volume={self.programs}:/usr/local/bin:ro", f"--volume={directory}:{directory}"]
        variables = [f"--env=NOMAD_BUILD_{name}" for name in ("STATE_DIR", "CONFIG", "BUILDAH")]
        return [*self.client, "run", "--interactive", "--rm", "--network=host", f"--user={ORDINARY_USER}", *volumes, *variables, *options, IMAGE]


def _root() -> bytes:
    user = pwd.getpwnam(ORDINARY_USER)
    users = f"root:x:0:0::/:/bin/sh\n{user.pw_name}:x:{user.pw_uid}:{user.pw_gid}::/home:/bin/sh\n"
    groups = f"root:x:0:\n{user.pw_name}:x:{user.pw_gid}:\n"
    ids = f"{user.pw_name}:100000:65536\n"
    texts = {"etc/passwd": users, "etc/group": groups, "etc/subuid": ids, "etc/subgid": ids}
    image = BytesIO()
    with tarfile.open(fileobj=image, mode="w") as tar:
        for name in ("usr", "home", "tmp", "proc", "dev", "etc", "var", "var/tmp", "run", "sys"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if "tmp" in name else 0o755
            tar.addfile(entry)
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
            if os.path.islink(f"/{name}"):
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(f"/{name}")
                tar.addfile(entry)
        for name, text in texts.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o644
            tar.addfile(entry, BytesIO(text.encode()))
    return image.getvalue()


class Contained(Server):
    """A server in a container."""

    def __init__(self, settings: Settings, docker: Docker, options: list[str]) -> None:
        super().__init__(settings)
        self._run = docker.run(self.directory, options)

    @property
    def command(self) -> list[str]:
        return [*self._run, "nomad-build", "serve"]


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    with ExitStack() as stack:
        yield Docker(docker_directory(stack), stack)


MakeContained = Callable[[list[str]], Contained]


@pytest.fixture
def contained(docker: Docker, buildah: Path, registry: LocalRegistry) -> Iterator[MakeContained]:
    made: list[Contained] = []

    def make(options: list[str]) -> Contained:
        made.append(Contained(Settings(buildah, [registry], user=ORDINARY_USER, secrets={"token": "s3cr3t"}), docker, options))
        return made[-1]

    yield make
    for server in made:
        server.remove()


@pytest.mark.parametrize("options", [NEEDED, NARROW], ids=["unconfined", "narrow"])
async def test_it_builds_tests_and_publishes(contained: MakeContained, registry: LocalRegistry, base: str, options: list[str]) -> None:
    tag = f"{registry.host}/docker/{unique()}:1"
    async with contained(options).connect() as session:
        secret = "RUN --mount=type=secret,id=token,required=true grep -x s3cr3t /run/secrets/token"
        text = f"FROM {base}\n{secret}\nRUN echo it > /works && chown 1000 /works\n"
        tests = [{"command": "grep it /works"}]
        status = await succeed(session, source=files(Containerfile=text), secrets=["token"], tests=tests, tags=[tag])
        log = await log_text(session, status["build_id"])
    assert status["image"]["tags"], status
    assert "isolation: --isolation" in log, log


@pytest.mark.parametrize("options", [NEEDED, NARROW], ids=["unconfined", "narrow"])
@pytest.mark.parametrize("missing", range(len(NEEDED)))
async def test_what_the_container_lacks_is_told(contained: MakeContained, base: str, options: list[str], missing: int) -> None:
    async with contained(options[:missing] + options[missing + 1 :]).connect() as session:
        source = files(Containerfile=f"FROM {base}\nRUN true\n")
        failure = (await fail(session, "sandbox_unavailable", "operator", source=source))["failure"]
    told = [option for option in NEEDED if option.lstrip("-").replace("=", " ") in failure["hint"].replace("=", " ")]
    assert told == [NEEDED[missing]], failure
