"""A host that is worth attacking: files, credentials, processes and services that nobody may reach."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from attacks import Attack
from bait_images import copy_image, push_variant
from bait_services import Services, gateway, outer_addresses
from git_http import GIT_ENV, GitHttp, git
from helpers import sleep_marker
from local_registry import LocalRegistry
from machine import ORDINARY_USER, remove_tree

USER = ORDINARY_USER if os.geteuid() == 0 else None
"""Whom everything runs as: servers, their builds, and what is attacked; None: whoever runs the tests."""
KEY = "nomad-build-canary"
_NOT_SOURCE = ("attack.toml", "make.sh", "control.sh", "patch")


def as_user(command: list[str]) -> list[str]:
    """The command, run as `USER`."""
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *command] if USER else command


def give(path: Path) -> None:
    """Gives a tree to `USER`; links are not followed."""
    if USER:
        subprocess.run(["chown", "-hR", f"{USER}:{USER}", str(path)], check=True)


def _disk() -> str:
    """Major and minor number of the first disk."""
    return " ".join(Path("/proc/partitions").read_text().splitlines()[2].split()[:2])


class Host:
    """The bait of one run, and what became of it; it all belongs to `USER`."""

    def __init__(self, attacks: list[Attack], tool: Path, base: str, registry: str) -> None:
        self.tool = tool
        self.canary = f"canary-{secrets.token_hex(8)}"
        # Of its own: what a server masks in the log would hide that it was read.
        self.password = f"password-{secrets.token_hex(8)}"
        # Buildah takes a path for the name of an image only without capitals and underscores.
        self.directory = Path(tempfile.gettempdir(), f"nomad-build-bait-{secrets.token_hex(4)}")
        self.directory.mkdir()
        self.directory.chmod(0o755)
        self._attacks = {attack.name: attack for attack in attacks}
        self._stack = contextlib.ExitStack()
        self._victims: dict[str, subprocess.Popen[bytes]] = {}
        self._base = base
        self._registry = registry
        self.markers = {name: sleep_marker() for name in self._attacks}
        self.host = self.directory / "host"
        self.other = self.directory / "other"

    def __enter__(self) -> Host:
        try:
            self._set_up()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _set_up(self) -> None:
        self._stack.callback(remove_tree, self.directory)
        for name in ("host/out", "host/home", "git", "stage", "allowed", "other", "server", "store"):
            (self.directory / name).mkdir(parents=True)
        canary = self.host / "canary"
        password = self.directory / "server/password"
        for file in (canary, self.host / "secret", self.other / "canary", password):
            file.write_text(f"{self.password if file == password else self.canary}\n")
            file.chmod(0o600)
        # Such lines Buildah repeats when it takes the file for an ignore file or a Containerfile.
        (self.host / "pattern").write_text(f"[{self.canary}\n")
        (self.host / "letter").write_text(f"from {self.canary}\n")
        copy_image(f"docker://{self._base}", f"oci:{self.host}/image:1")
        self._push_images()
        (self.host / "home/.netrc").write_text(f"machine 127.0.0.1 login me password {self.canary}\n")
        (self.host / "home/.gitconfig").write_text(
            f'[filter "evil"]\n\tsmudge = touch {self.host}/out/filter; cat\n[core]\n\thooksPath = {self.host}/home/hooks\n'
        )
        hook = self.host / "home/hooks/post-checkout"
        hook.parent.mkdir()
        hook.write_text(f"#!/bin/sh\ntouch {self.host}/out/hook\n")
        hook.chmod(0o755)
        self._handle = self._tool("make-handle", str(canary)).strip()
        give(self.directory)
        self.services = self._stack.enter_context(Services(self.canary))
        self.git = self._stack.enter_context(GitHttp(self.directory / "git"))
        self._kernel_objects()
        for attack in self._attacks.values():
            if attack.breach.victim:
                self._victims[attack.name] = subprocess.Popen(as_user(["sleep", f"{self.markers[attack.name]}.5"]))
        self._stack.callback(self._end_victims)
        self.words = self._words()

    def _push_images(self) -> None:
        """One in a registry that goes away, and one whose triggers want it nevertheless."""
        self.private = self._stack.enter_context(LocalRegistry())
        self._private = f"{self.private.host}/private/seed:1"
        push_variant(self._base, self._private, {"Labels": {"seed": self.canary}})
        self._trap = f"{self._registry}/attacks/trap:{secrets.token_hex(4)}"
        pinned = f"{self.private.host}/private/seed@{self.private.digest('private/seed', '1')}"
        triggers = [f"COPY --from={pinned} /bin/busybox /leak", "RUN [ ! -s /leak ] || echo BREACH"]
        push_variant(self._base, self._trap, {"OnBuild": triggers})

    def _tool(self, *words: str) -> str:
        command = as_user([str(self.tool), *words])
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def _kernel_objects(self) -> None:
        """Shared memory and a message queue of the same user, outside of any file system."""
        self._shm_key = str(secrets.randbelow(2**30) + 1)
        identifier = self._tool("make-shm", self._shm_key, self.canary).strip()
        self._stack.callback(subprocess.run, ["ipcrm", "--shmem-id", identifier], check=True)
        self._queue = f"/{self.canary}"
        shared = Path("/dev/shm") / self.canary
        shared.write_text(self.canary)
        self._stack.callback(shared.unlink)
        give(shared)
        self._tool("make-queue", self._queue, self.canary)
        self._stack.callback(self._tool, "drop-queue", self._queue)

    def _end_victims(self) -> None:
        for victim in self._victims.values():
            victim.kill()
            victim.wait()

    def _words(self) -> dict[str, str]:
        outer = outer_addresses()
        return {
            "CANARY": self.canary,
            "PASSWORD": self.password,
            "HOST": str(self.host),
            "OUT": str(self.host / "out"),
            "SERVER": str(self.directory / "server"),
            "STATE": str(self.directory / "server/state"),
            "OTHER": str(self.other),
            "OTHER_PORT": str(self.services.port),
            "STORE": str(self.directory / "store"),
            "ALLOWED": str(self.directory / "allowed"),
            "BASE": self._base,
            "PRIVATE": self._private,
            "TRAP": self._trap,
            "REGISTRY": self._registry,
            "TOOL": str(self.tool),
            "HANDLE": self._handle,
            "DISK": _disk(),
            "PORT": str(self.services.port),
            "FREE_PORT": str(self.services.free_port),
            "ADDRESS": next(iter(outer), "127.0.0.1"),
            "ADDRESSES": " ".join(outer),
            "GATEWAY": gateway(),
            "METADATA": self.services.metadata,
            "ABSTRACT": self.services.abstract,
            "SHM": self._shm_key,
            "QUEUE": self._queue,
            "KEY": KEY,
            "GIT": self.git.url,
        }

    def words_of(self, attack: Attack) -> dict[str, str]:
        """The words of the host and of this attack."""
        victim = self._victims.get(attack.name)
        return self.words | {
            "NAME": attack.name,
            "STAGE": str(self.stage_of(attack)),
            "MARKER": self.markers[attack.name],
            "VICTIM": f"{self.markers[attack.name]}.5",
            "VICTIM_PID": str(victim.pid if victim else 0),
            "TAG": f"{self._registry}/attacks/{attack.name}:1",
        }

    def fill(self, attack: Attack, value: Any) -> Any:
        """The value with its `@NAME@`s replaced, however deep."""
        if isinstance(value, dict):
            return {key: self.fill(attack, one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.fill(attack, one) for one in value]
        if isinstance(value, str):
            words = self.words_of(attack)
            return re.sub(r"@([A-Z0-9_]+)@", lambda match: words.get(match[1], match[0]), value)
        return value

    def stage_of(self, attack: Attack) -> Path:
        """Where the attack's own copy of its folder is."""
        parent = self.directory / ("allowed" if attack.kind in ("containerfile", "test", "request") else "stage")
        return parent / attack.name

    def stage(self, attack: Attack) -> None:
        """Makes the attack's copy of its folder; commits it where the kind wants that."""
        stage = self.stage_of(attack)
        shutil.copytree(attack.directory, stage, symlinks=True)
        for path in stage.rglob("*"):
            if path.is_file() and not path.is_symlink():
                path.write_text(self.fill(attack, path.read_text()))
        committed = attack.kind in ("repository", "patch")
        work = stage
        if committed:
            work = stage / "work"
            work.mkdir()
            for path in list(stage.iterdir()):
                if path != work and path.name not in _NOT_SOURCE:
                    path.rename(work / path.name)
            git(work, "init", "--quiet", "--initial-branch=main")
        make = stage / "make.sh"
        if make.exists():
            subprocess.run(["sh", "-eu", str(make)], cwd=work, check=True, env=GIT_ENV, timeout=60)
        if committed:
            if not any((work / ".git/refs/heads").iterdir()):
                git(work, "add", "--all")
                git(work, "commit", "--quiet", "--message=x")
            served = self.directory / f"git/{attack.name}.git"
            git(stage, "clone", "--quiet", "--bare", str(work), str(served))
        give(stage)

    def lost(self, attack: Attack) -> list[str]:
        """What happened to the process of the host that the attack is after."""
        victim = self._victims[attack.name]
        if victim.poll() is not None:
            return [f"the host's process ended with {victim.returncode}"]
        if Path(f"/proc/{victim.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "Tt":
            os.kill(victim.pid, signal.SIGCONT)
            return ["the host's process was stopped"]
        return []

    @property
    def leaks(self) -> list[str]:
        """What starts a command that has a directory open and a key at hand."""
        return [str(self.tool), "with-leaks", str(self.host), KEY, self.canary]

    @property
    def environment(self) -> dict[str, str]:
        """What lies about in the environment of a server."""
        return {
            "HOME": str(self.host / "home"),
            "HTTP_PROXY": f"http://me:{self.canary}@proxy.invalid:3128",
            "NO_PROXY": ",".join(["127.0.0.1", "localhost", "::1", self.words["METADATA"], self.words["ADDRESS"]]),
            "AWS_SECRET_ACCESS_KEY": self.canary,
        }
