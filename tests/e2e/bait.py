"""A host that is worth attacking: files, credentials, processes and services that nobody may reach."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from attacks import Attack
from git_http import GIT_ENV, GitHttp, git
from helpers import sleep_marker
from local_registry import LocalRegistry
from machine import remove_tree
from server import ORDINARY_USER

USER = ORDINARY_USER if os.geteuid() == 0 else None
"""Whom controls run as, and servers that are not root; None: whoever runs the tests."""
METADATA = "169.254.169.254"
KEY = "nomad-build-canary"
_NOT_SOURCE = ("attack.toml", "make.sh", "control.sh", "patch")


def as_user(command: list[str], user: str | None = USER) -> list[str]:
    """The command, run as this user."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command] if user else command


def push_variant(source: str, target: str, changes: dict[str, Any]) -> None:
    """Pushes an image in Docker's format that differs in its configuration; OCI's knows no ONBUILD."""
    with tempfile.TemporaryDirectory(prefix="nomad-build-image-") as name:
        directory = Path(name)
        _copy_image(f"docker://{source}", f"dir:{directory}", "--format=v2s2")
        manifest = json.loads((directory / "manifest.json").read_text())
        old = directory / manifest["config"]["digest"].removeprefix("sha256:")
        config = json.loads(old.read_text())
        config["config"] |= changes
        new = json.dumps(config).encode()
        digest = hashlib.sha256(new).hexdigest()
        (directory / digest).write_bytes(new)
        manifest["config"] |= {"digest": f"sha256:{digest}", "size": len(new)}
        (directory / "manifest.json").write_text(json.dumps(manifest))
        _copy_image(f"dir:{directory}", f"docker://{target}")


def _copy_image(source: str, target: str, *options: str) -> None:
    fixed = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]
    subprocess.run([*fixed, *options, source, target], check=True)


def own_address(target: str) -> str | None:
    """This host's address on the way to the target; None without such a way."""
    with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target, 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def own_addresses() -> set[str]:
    """All addresses of this host, without their networks."""
    shown = subprocess.run(["ip", "--json", "address"], check=True, capture_output=True, text=True).stdout
    return {address["local"] for link in json.loads(shown) for address in link["addr_info"]}


def _disk() -> list[str]:
    """Major and minor number of the first disk."""
    return Path("/proc/partitions").read_text().splitlines()[2].split()[:2]


def _gateway() -> str:
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        _, destination, gateway, *_ = line.split()
        if destination == "00000000":
            return socket.inet_ntoa(bytes.fromhex(gateway)[::-1])
    return "192.0.2.1"


class _Handler(BaseHTTPRequestHandler):
    server: _Service

    def do_GET(self) -> None:
        before, redirect, after = self.path.partition("/redirect/")
        for part in before.partition("?")[0].split("/"):
            self.server.calls[part].append(str(self.headers))
        if redirect:
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/{after}")
        elif "/private/" in before and "Authorization" not in self.headers:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="bait"')
        else:
            self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the tests' output is for failures."""


class _Service(ThreadingHTTPServer):
    """On every address of the host; `calls` has the headers of every call by each part of its path.

    Below /redirect/ it leads to another name of the host, below /private/ it asks for credentials.
    """

    daemon_threads = True
    address_family = socket.AF_INET6

    def __init__(self) -> None:
        self.calls: dict[str, list[str]] = defaultdict(list)
        super().__init__(("::", 0), _Handler)

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class Host:
    """The bait of one run, and what became of it.

    It belongs to `owner`, the user that builds run as; without one everybody may read and write it, so that no
    difference of users is what protects it.
    """

    def __init__(self, attacks: list[Attack], tool: Path, base: str, registry: str, owner: str | None) -> None:
        self.tool = tool
        self.canary = f"canary-{secrets.token_hex(8)}"
        # Of its own: what a server masks in the log would hide that it was read.
        self.password = f"password-{secrets.token_hex(8)}"
        # Buildah takes a path for the name of an image only without capitals and underscores.
        self.directory = Path(tempfile.gettempdir(), f"nomad-build-bait-{secrets.token_hex(4)}")
        self.directory.mkdir()
        self.directory.chmod(0o755)
        self._owner = owner
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
            file.chmod(0o600 if self._owner else 0o644)
        # Such lines Buildah repeats when it takes the file for an ignore file or a Containerfile.
        (self.host / "pattern").write_text(f"[{self.canary}\n")
        (self.host / "letter").write_text(f"from {self.canary}\n")
        _copy_image(f"docker://{self._base}", f"oci:{self.host}/image:1")
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
        if not self._owner:
            (self.host / "out").chmod(0o777)
        self.give(self.directory)
        self.service = _Service()
        self._serve(self.service)
        self._abstract = f"nomad-build-{self.canary}"
        self._listen_abstract()
        self.git = self._stack.enter_context(GitHttp(self.directory / "git"))
        self._kernel_objects()
        self._add_metadata_address()
        self._chatter()
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
        command = as_user([str(self.tool), *words], self._owner)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def _serve(self, service: ThreadingHTTPServer) -> None:
        threading.Thread(target=service.serve_forever, args=(0.05,), daemon=True).start()
        self._stack.callback(service.server_close)
        self._stack.callback(service.shutdown)

    def _listen_abstract(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"\0{self._abstract}")
        listener.listen()

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    match = re.match(r"GET /(\S+)", connection.recv(256).decode(errors="replace"))
                    if match:
                        self.service.calls[match[1]].append("")
                        connection.sendall(b"x")

        threading.Thread(target=accept, daemon=True).start()
        # Closing alone does not wake the thread that waits in accept.
        self._stack.callback(listener.close)
        self._stack.callback(listener.shutdown, socket.SHUT_RDWR)

    def _kernel_objects(self) -> None:
        """Shared memory and a message queue of the same user, outside of any file system."""
        self._shm_key = str(secrets.randbelow(2**30) + 1)
        identifier = self._tool("make-shm", self._shm_key, self.canary).strip()
        self._stack.callback(subprocess.run, ["ipcrm", "--shmem-id", identifier], check=True)
        self._queue = f"/{self.canary}"
        shared = Path("/dev/shm") / self.canary
        shared.write_text(self.canary)
        self._stack.callback(shared.unlink)
        self.give(shared)
        self._tool("make-queue", self._queue, self.canary)
        self._stack.callback(self._tool, "drop-queue", self._queue)

    def _add_metadata_address(self) -> None:
        """What clouds serve their credentials at; only root can have it here."""
        command = ["ip", "address", "{}", f"{METADATA}/32", "dev", "lo"]
        if os.geteuid() == 0 and not own_addresses() & {METADATA}:
            subprocess.run([word.format("add") for word in command], check=True)
            self._stack.callback(subprocess.run, [word.format("delete") for word in command], check=True)

    def _chatter(self) -> None:
        """Says the canary on the loopback interface all the time, and calls a port that nobody listens on."""
        ended = threading.Event()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._free_port = int(free.getsockname()[1])

        def talk() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as speaker:
                while not ended.wait(0.05):
                    with contextlib.suppress(OSError):
                        speaker.sendto(self.canary.encode(), ("127.0.0.1", 9))
                    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._free_port), 0.05):
                        pass

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(ended.set)

    def _end_victims(self) -> None:
        for victim in self._victims.values():
            victim.kill()
            victim.wait()

    def _words(self) -> dict[str, str]:
        port = self.service.server_port
        major, minor = _disk()
        return {
            "CANARY": self.canary,
            "PASSWORD": self.password,
            "HOST": str(self.host),
            "OUT": str(self.host / "out"),
            "SERVER": str(self.directory / "server"),
            "STATE": str(self.directory / "server/state"),
            "OTHER": str(self.other),
            "OTHER_PORT": str(port),
            "STORE": str(self.directory / "store"),
            "ALLOWED": str(self.directory / "allowed"),
            "BASE": self._base,
            "PRIVATE": self._private,
            "TRAP": self._trap,
            "REGISTRY": self._registry,
            "TOOL": str(self.tool),
            "HANDLE": self._handle,
            "DISK": f"{major} {minor}",
            "PORT": str(port),
            "FREE_PORT": str(self._free_port),
            "ADDRESS": own_address("192.0.2.1") or "127.0.0.1",
            "ADDRESS6": own_address("2001:db8::1") or "::1",
            "GATEWAY": _gateway(),
            "METADATA": METADATA,
            "ABSTRACT": self._abstract,
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
        self.give(stage)

    def lost(self, attack: Attack) -> list[str]:
        """What happened to the process of the host that the attack is after."""
        victim = self._victims[attack.name]
        if victim.poll() is not None:
            return [f"the host's process ended with {victim.returncode}"]
        if Path(f"/proc/{victim.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "Tt":
            os.kill(victim.pid, signal.SIGCONT)
            return ["the host's process was stopped"]
        return []

    def give(self, path: Path) -> None:
        """Gives a tree to the owner; links are not followed."""
        if self._owner:
            subprocess.run(["chown", "-hR", f"{self._owner}:{self._owner}", str(path)], check=True)

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
            "NO_PROXY": ",".join(["127.0.0.1", "localhost", "::1", METADATA, self.words["ADDRESS"]]),
            "AWS_SECRET_ACCESS_KEY": self.canary,
        }
