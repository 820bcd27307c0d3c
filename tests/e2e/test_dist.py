"""What `make dist` makes: each installed where nothing else of this machine is, and used."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import distribution_buildah
from docker_daemon import DockerDaemon, docker_directory
from helpers import unique
from local_registry import LocalRegistry
from server import REPOSITORY, Server, Settings

pytestmark = pytest.mark.dist
DIST = REPOSITORY / "dist"
# What a package on a machine finds there; systemd for systemd-analyze alone.
PACKAGES = "systemd,buildah,runc,uidmap,catatonit,git,passt,iproute2,ca-certificates,netavark"
# This container stands for a machine, so newuidmap may do in it what it does there.
MACHINE = [
    "--init", "--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--security-opt=seccomp=unconfined",
    "--security-opt=systempaths=unconfined", "--device=/dev/net/tun", "--network=host", "--volume=/var/lib/nomad-build",
]  # fmt: skip
# The options of nomad/README.md for a container that is not privileged.
CONTAINER = ["--security-opt=seccomp=unconfined", "--security-opt=systempaths=unconfined", "--device=/dev/net/tun", "--network=host"]


def made(pattern: str) -> Path:
    """The newest file of dist/ with such a name."""
    found = sorted(DIST.glob(pattern), key=lambda path: path.stat().st_mtime)
    assert found, f"dist/{pattern} is missing: make dist"
    return found[-1]


def run(command: list[str | Path], **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


@pytest.fixture(scope="module")
def docker() -> Iterator[DockerDaemon]:
    with ExitStack() as stack:
        yield DockerDaemon(docker_directory(stack), stack)


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Debian in a tar archive, with this machine's package sources."""
    tar = tmp_path_factory.mktemp("debian") / "debian.tar"
    run(["mmdebstrap", "--quiet", "--variant=apt", f"--include={PACKAGES}", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
         "--customize-hook=copy-in /etc/apt/sources.list.d /etc/apt/apt.conf.d /etc/apt", "bookworm", tar])  # fmt: skip
    return tar


def config_of(registry: LocalRegistry) -> str:
    return f"[registry]\ninsecure = {json.dumps([registry.host])}\n"


def test_the_program_needs_no_library(registry: LocalRegistry, base: str, tmp_path: Path) -> None:
    program = made(f"nomad-build-*-{platform.machine()}-linux")
    assert run(["ldd", program]).stdout.strip() == "statically linked"
    server = Server(Settings(distribution_buildah(), [registry]))
    try:
        (tmp_path / "Containerfile").write_text(f"FROM {base}\nRUN echo {unique()} >/word\n")
        tag = f"{registry.host}/dist/{unique()}:1"
        tmp_path.chmod(0o755)
        done = run([program, "build", tmp_path, "--test", "cat /word", "-t", tag, "--json"], env=server.env)
        assert json.loads(done.stdout)["image"]["published"]
    finally:
        server.remove()


def test_the_package_serves_and_builds_as_a_user_of_its_own(
    docker: DockerDaemon, debian: Path, registry: LocalRegistry, base: str, tmp_path: Path
) -> None:
    package = made("nomad-build_*.deb")
    run([*docker.client, "import", debian, "debian-machine:1"])
    volume = f"--volume={package}:/tmp/nomad-build.deb:ro"
    run([*docker.client, "run", "--detach", "--name=machine", *MACHINE, volume, "debian-machine:1", "sleep", "infinity"])
    inside = [*docker.client, "exec", "machine"]
    try:
        run([*inside, "dpkg", "--install", "/tmp/nomad-build.deb"])
        user, first, count = run([*inside, "grep", "^nomad-build:", "/etc/subuid"]).stdout.strip().split(":")
        assert int(count) >= 65536 and int(first) >= 100000
        run([*inside, "systemd-analyze", "verify", "--man=no", "nomad-build.service"])
        run([*inside, "sh", "-c", f"printf '%s' '{config_of(registry)}' >/etc/nomad-build/nomad-build.toml"])
        # The machine of the tests has no systemd: its unit's command, user, environment and state directory.
        unit = run([*inside, "cat", "/usr/lib/systemd/system/nomad-build.service"]).stdout
        lines = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
        assert lines["User"] == "nomad-build" and lines["EnvironmentFile"] == "-/etc/default/nomad-build"
        serve = f". /etc/default/nomad-build; export {lines['Environment']}; exec {lines['ExecStart']} >/var/lib/nomad-build/log 2>&1"
        as_user = ["setpriv", "--reuid=nomad-build", "--regid=nomad-build", "--init-groups", "--reset-env"]
        run([*docker.client, "exec", "--detach", "machine", *as_user, "sh", "-c", serve])
        script = f"""
            for _ in $(seq 100); do test -s /var/lib/nomad-build/token && break; sleep 0.1; done
            export NOMAD_BUILD_TOKEN=$(cat /var/lib/nomad-build/token)
            mkdir -p /tmp/project && cd /tmp/project
            printf 'FROM {base}\\nRUN echo packaged >/word\\n' >Containerfile
            nomad-build build . --server http://127.0.0.1:8080 --test 'grep packaged /word' --extract /word=/tmp/word
            cat /tmp/word
        """
        done = run([*inside, "bash", "-euc", script])
        assert done.stdout.endswith("packaged\n"), done
        assert "1/1 passed" in done.stdout
        run([*inside, "sh", "-c", "bash -c 'source /usr/share/bash-completion/completions/nomad-build'; test -s /usr/share/man/man1/nomad-build.1.gz"])
        run([*inside, "sh", "-c", "pkill -u nomad-build || true; dpkg --purge nomad-build; test ! -e /usr/bin/nomad-build; test ! -e /etc/nomad-build"])
    finally:
        subprocess.run([*docker.client, "rm", "--force", "--volumes", "machine"], capture_output=True)


def test_the_image_that_the_program_built_itself_builds(
    docker: DockerDaemon, registry: LocalRegistry, base: str, tmp_path: Path
) -> None:
    archive = made("nomad-build-*-image.tar")
    # Docker before 25 does not load OCI archives.
    run(["skopeo", "copy", "--quiet", f"oci-archive:{archive}", f"docker-archive:{tmp_path}/image.tar:nomad-build-dist:1"])
    run([*docker.client, "load", "--input", tmp_path / "image.tar"])
    project = tmp_path / "project"
    project.mkdir()
    (project / "Containerfile").write_text(f"FROM {base}\nRUN echo contained >/word\n")
    (tmp_path / "config.toml").write_text(config_of(registry))
    volumes = [f"--volume={tmp_path}:{tmp_path}:ro", "--volume=/var/lib/nomad-build", f"--env=NOMAD_BUILD_CONFIG={tmp_path}/config.toml"]
    tmp_path.chmod(0o755)
    command = ["nomad-build", "build", str(project), "--test", "grep contained /word"]
    done = run([*docker.client, "run", "--rm", *CONTAINER, *volumes, "nomad-build-dist:1", *command])
    assert "1/1 passed" in done.stdout
