"""What `make dist` makes: each installed where nothing else of this machine is, and used."""

from __future__ import annotations

import json
import platform
import shutil
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
from systemd_machine import SystemdMachine, systemd_machine

pytestmark = pytest.mark.dist
DIST = REPOSITORY / "dist"
# What the package finds on a machine: what it depends on, and what Debian has anyway.
PACKAGES = "systemd-sysv,dbus,procps,buildah,runc,uidmap,catatonit,git,passt,iproute2,ca-certificates,netavark"
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


@pytest.fixture(scope="module")
def machine(debian: Path, registry: LocalRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdMachine]:
    """Where the package is installed and its service runs."""
    directory = tmp_path_factory.mktemp("machine") / "root"
    with systemd_machine(debian, directory) as machine:
        shutil.copy(made("nomad-build_*.deb"), directory / "root/nomad-build.deb")
        machine.run("dpkg --install /root/nomad-build.deb")
        (directory / "etc/nomad-build/nomad-build.toml").write_text(config_of(registry))
        machine.run("systemctl enable --now nomad-build")
        machine.run("timeout 30 sh -c 'until test -s /var/lib/nomad-build/token; do sleep 0.1; done'")
        yield machine
        machine.run("""
            dpkg --purge nomad-build
            test ! -e /usr/bin/nomad-build && test ! -e /etc/nomad-build
            if systemctl is-active nomad-build || pgrep nomad-build; then exit 1; fi
        """)
    shutil.rmtree(directory)


CLIENT = "export NOMAD_BUILD_SERVER=http://127.0.0.1:8080 NOMAD_BUILD_TOKEN=$(cat /var/lib/nomad-build/token); mkdir -p /root/project; cd /root/project"


def test_the_package_serves_and_builds_as_a_user_of_its_own(machine: SystemdMachine, base: str) -> None:
    user, first, count = machine.run("grep ^nomad-build: /etc/subuid").strip().split(":")
    assert int(count) >= 65536 and int(first) >= 100000
    machine.run("systemd-analyze verify --man=no nomad-build.service")
    shown = machine.run("systemctl show --property=User,NRestarts,ActiveState nomad-build").split()
    assert sorted(shown) == ["ActiveState=active", "NRestarts=0", "User=nomad-build"]
    told = machine.run(f"""{CLIENT}
        printf 'FROM {base}\nRUN echo packaged >/word\n' >Containerfile
        nomad-build build . --test 'grep packaged /word' --extract /word=/root/word
        cat /root/word
    """)
    assert told.endswith("packaged\n") and "1/1 passed" in told, told
    checked = machine.run("runuser -u nomad-build -- nomad-build check --config /etc/nomad-build/nomad-build.toml --set state_dir=/var/lib/nomad-build")
    assert all(line.startswith(("ok ", "unenforced ")) for line in checked.splitlines()), checked
    machine.run("source /usr/share/bash-completion/completions/nomad-build; test -s /usr/share/man/man1/nomad-build.1.gz")


def test_a_build_outlives_the_service_and_is_killed_by_the_next(machine: SystemdMachine, base: str) -> None:
    """What `KillMode=process` of the unit is for: an upgrade stops and starts the service."""
    build_id = machine.run(f"""{CLIENT}
        printf 'FROM {base}\nRUN echo begins; sleep 600\n' >Containerfile
        nomad-build build . --detach
    """).strip()
    machine.run(f"""{CLIENT}
        timeout 60 sh -c "until nomad-build logs {build_id} | grep -q 'begins$'; do sleep 0.1; done"
        systemctl stop nomad-build
        if systemctl is-active nomad-build; then exit 1; fi
        pgrep --full "[r]unner job .*{build_id}"
        systemctl start nomad-build
        timeout 30 sh -c "until nomad-build status {build_id} --json; do sleep 0.1; done" | grep -q '"state": *"running"'
        nomad-build kill {build_id} --reason 'it was shown'
    """)
    ended = machine.run(f"{CLIENT}; nomad-build status --watch {build_id} --json || test $? = 1")
    assert json.loads(ended)["state"] == "cancelled", ended
    machine.run("timeout 30 sh -c 'while pgrep --full \"[r]unner job\"; do sleep 0.1; done'")


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
