"""The probe of a host attacks the sandbox: outside of a sandbox its attacks succeed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from machine import remove_tree
from server import binary

SYSTEM = ["/usr", "/lib", "/lib32", "/lib64", "/libx32"]


@pytest.fixture
def place() -> Path:
    """A directory of the user that builds run as; gone afterwards."""
    directory = Path(f"/tmp/nomad-build-probe-{os.getpid()}")
    directory.mkdir()
    yield directory
    remove_tree(directory)


def unprotected(place: Path, run: str) -> str:
    """What Buildah prints that runs the attack with nothing around it."""
    context = place / "context"
    for name in ("root", "evil"):
        (context / name).mkdir(parents=True)
    shutil.copy(binary(), context / "program")
    (place / "canary").mkdir()
    (place / "canary/file").write_text("a word-of-the-host")
    (context / "evil/link").symlink_to(place / "canary")
    volumes = [f"--volume={context / 'program'}:/nomad-build:ro"]
    for name in map(Path, SYSTEM):
        if name.is_symlink():
            (context / "root" / name.name).symlink_to(name.readlink())
        elif name.is_dir():
            volumes.append(f"--volume={name}:{name}:ro")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        words = ["/nomad-build", "runner", "attack", "--canary", f"{place}/canary/file", "--word", "word-of-the-host"]
        words += ["--mounted", "/m", "--socket", "no-such-socket", "--listener", f"127.0.0.1:{port}"]
        attack = "[" + ", ".join(f'"{word}"' for word in words) + "]"
        text = f"FROM scratch AS evil\nCOPY evil/ /\nFROM scratch\nCOPY root/ /\nRUN {run} {attack}\n"
        (context / "Containerfile").write_text(text)
        command = ["buildah", "--storage-driver=vfs", f"--root={place}/s", f"--runroot={place}/r", "build"]
        command += ["--isolation=chroot", "--network=host", "--layers=false", *volumes, str(context)]
        env = {"PATH": os.environ["PATH"], "HOME": str(place)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_attacks_of_the_probe_succeed_without_a_sandbox(place: Path) -> None:
    said = unprotected(place, "")
    assert "nomad-build-probe: reached network by TCP" in said, said
    assert "nomad-build-probe: reached a host file by" in said, said
    assert "nomad-build-probe: done" in said, said


def test_the_mount_bug_of_old_versions_is_found(place: Path) -> None:
    said = unprotected(place, "--mount=type=bind,from=evil,source=/link,target=/m")
    version = subprocess.run(["buildah", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    fixed = tuple(map(int, version.split(".")[:2])) >= (1, 39)
    assert ("reached a host file by a mount of RUN" in said) != fixed, said
