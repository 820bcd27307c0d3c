"""A server under test: its state directory, its configuration, connections to it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from known_sandboxes import KnownSandboxes
from local_nomad import LocalNomad
from local_registry import LocalRegistry, write_auth_file
from machine import remove_tree
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp_stdio import McpError, McpProcess

REPOSITORY = Path(__file__).resolve().parents[2]


TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))


def binary() -> Path:
    """The program under test: NOMAD_BUILD_BIN, or the release build."""
    return Path(os.environ.get("NOMAD_BUILD_BIN", TARGET / "release/nomad-build")).absolute()


@dataclass
class Settings:
    """What a test wants of its server."""

    buildah: Path
    insecure: list[LocalRegistry] = field(default_factory=list)
    """Registries that speak plain HTTP; their logins go into auth_file."""
    proxies: list[str] = field(default_factory=list)
    """HOST:PORT of proxies before registries, which speak plain HTTP, too."""
    slots: int | None = None
    cache_mb: int | None = None
    """Size of the cache of each user that builds run as, in MiB."""
    paths: list[str] = field(default_factory=list)
    """Directories that sources may be taken of; empty: all."""
    wrong_password: bool = False
    allow_http: bool = True
    allow: list[str] = field(default_factory=list)
    """Beginnings of tags that may be pushed to; empty: all."""
    secrets: dict[str, str] = field(default_factory=dict)
    """Secrets of RUN --mount=type=secret by their names."""
    git_passwords: dict[str, str] = field(default_factory=dict)
    """Passwords for git, by the beginnings of URLs."""
    isolation: str = "auto"
    """How RUN is isolated: auto, rootless or chroot."""
    limits: dict[str, float] = field(default_factory=dict)
    """Limits of a build, as in the configuration."""
    profiles: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Profiles by their names."""
    user: str | None = None
    """Whom the server runs as; None: whoever runs the tests."""
    accounts: str = field(default_factory=lambda: os.environ.get("TEST_ACCOUNTS", "nomad-build"))
    """Beginning of the names of the accounts that builds run as when the server is root."""
    deny: list[str] = field(default_factory=list)
    """Networks that foreign code must not reach, besides the usual ones."""
    nomad: LocalNomad | None = None
    """The cluster to build on, which LocalNomad.set_up has prepared; None: this machine."""
    repository: str | None = None
    """Where inputs and logs of a cluster go."""
    http: dict[str, Any] = field(default_factory=dict)
    """Keys of `http` in the configuration."""
    principals: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What principals may, by name."""
    issuers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Issuers of tokens (`http.issuers`), by name."""
    within: list[str] = field(default_factory=list)
    """Command line that ends with the server's: a place of its own to run in."""
    first: bool = False
    """Whether no server has run here before: each account's first build tries the sandbox."""


_known = KnownSandboxes()


class Server:
    """Every connection is a server process of its own on the same state."""

    def __init__(self, settings: Settings) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="nomad-build-e2e-"))
        # Builds run as another user when the tests run as root: it must be able to pass.
        self.directory.chmod(0o711)
        self.state = self.directory / "state"
        self.user = settings.user
        self._within = settings.within
        started_before = not settings.first and not settings.within and os.geteuid() == 0 and self.user is None
        self._kind = (str(settings.buildah), settings.isolation, settings.accounts) if started_before else None
        self.env = os.environ | {
            "NOMAD_BUILD_STATE_DIR": str(self.state),
            "NOMAD_BUILD_CONFIG": str(self._write_config(settings)),
            "NOMAD_BUILD_BUILDAH": str(settings.buildah),
        }
        self._arguments = ["serve"]
        if settings.nomad:
            self._arguments += ["--backend", "nomad"]
            self.env |= settings.nomad.environment()
        if self.user:
            for path in (self.directory, *self.directory.iterdir()):
                shutil.chown(path, self.user, self.user)

    @property
    def command(self) -> list[str]:
        """The command line of the server."""
        command = [str(binary()), *self._arguments]
        if os.geteuid() == 0 and self.user:
            command = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", *command]
        elif os.geteuid() == 0:
            # As where root has logged in: with a group that builds must not have.
            command = ["setpriv", "--groups=0", *command]
        return [*self._within, *command]

    @property
    def parameters(self) -> StdioServerParameters:
        """How an SDK starts it."""
        program, *arguments = self.command
        return StdioServerParameters(command=program, args=arguments, env=self.env)

    @property
    def token(self) -> str:
        """What the first start over HTTP has made."""
        return (self.state / "token").read_text().strip()

    def prepare(self) -> None:
        """Makes of it one that has been started before on this machine."""
        if self._kind:
            _known.give(self.state, self._kind)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[ClientSession]:
        """A connection of the Python SDK."""
        self.prepare()
        with (self.directory / "server.log").open("a") as log:
            async with stdio_client(self.parameters, errlog=log) as (read, write):
                async with ClientSession(read, write) as session:
                    await session.initialize()
                    yield session

    def raw(self) -> McpProcess:
        """A connection that shows every byte; not initialised."""
        self.prepare()
        return McpProcess(self.command, self.env, stderr=self.directory / "server.log")

    def remove(self) -> None:
        """Ends what still runs and removes the state."""
        # After a failed test the server may not answer: its state goes all the same.
        with contextlib.suppress(McpError, OSError, KeyError), self.raw() as server:
            server.initialize()
            answer = server.call("status", {"state": ["unfinished"], "limit": 50, "wait": 0})
            for build in answer["structuredContent"]["builds"]:
                server.call("kill", {"build_id": build["build_id"], "reason": "the tests end"})
        _known.forget(self.state)
        remove_tree(self.directory)

    def _private(self, name: str, text: str) -> Path:
        file = self.directory / name
        file.touch(mode=0o600)
        file.write_text(text)
        return file

    def _write_config(self, settings: Settings) -> Path:
        hosts = [registry.host for registry in settings.insecure] + settings.proxies
        # JSON's strings, lists and booleans are TOML's.
        lines = ["[registry]", f"insecure = {json.dumps(hosts)}", f"allow = {json.dumps(settings.allow)}"]
        logins = {registry.host: registry.login for registry in settings.insecure if registry.login}
        if logins:
            if settings.wrong_password:
                logins = {host: replace(login, password="wrong") for host, login in logins.items()}
            auth_file = write_auth_file(self.directory / "auth.json", logins)
            auth_file.chmod(0o600)
            lines.append(f"auth_file = {json.dumps(str(auth_file))}")
        lines += ["[git]", f"allow_http = {json.dumps(settings.allow_http)}"]
        for number, (url, password) in enumerate(settings.git_passwords.items()):
            file = self._private(f"git-{number}", password)
            lines += ["[[git.credentials]]", f"url = {json.dumps(url)}", f"password_file = {json.dumps(str(file))}"]
        lines += ["[sandbox]", f"isolation = {json.dumps(settings.isolation)}", f"user = {json.dumps(settings.accounts)}"]
        lines.append(f"deny = {json.dumps(settings.deny)}")
        local = {"slots": settings.slots, "cache_mb": settings.cache_mb, "paths": settings.paths}
        lines += ["[local]", *(f"{key} = {json.dumps(value)}" for key, value in local.items() if value)]
        issuers = {f"http.issuers.{name}": one for name, one in settings.issuers.items()}
        rights = {f"principals.{json.dumps(name)}": one for name, one in settings.principals.items()}
        sections = {"http": settings.http} | issuers | rights | {"limits": settings.limits} | {f"profiles.{name}": one for name, one in settings.profiles.items()}
        for section, values in sections.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        if settings.repository:
            lines += ["[nomad]", f"repository = {json.dumps(settings.repository)}"]
        if settings.secrets:
            lines.append("[secrets]")
        for name, value in settings.secrets.items():
            secret = self._private(f"secret-{name}", value)
            lines.append(f"{json.dumps(name)} = {json.dumps(str(secret))}")
        config = self.directory / "config.toml"
        config.write_text("\n".join(lines) + "\n")
        return config


@contextmanager
def serve(server: Server, *options: str, at: str = "127.0.0.1:0", name: str = "http", **env: str) -> Iterator[str]:
    """Runs `serve --http` on a free port or a socket; its address. Its log is NAME.log in the server's directory."""
    server.prepare()
    command = [*server.command, "--http", at, *options]
    with listening(command, server.directory / f"{name}.log", server.env | env) as address:
        yield address


@contextmanager
def listening(command: list[str], log: Path, env: dict[str, str]) -> Iterator[str]:
    """Runs a program that says in its log where it listens; its address."""
    with log.open("w") as errors:
        process = subprocess.Popen(command, env=env, stderr=errors)
    try:
        deadline = time.monotonic() + 30
        while not (found := re.search(r"address=(\S+) tls=(\S+)", log.read_text())):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield f"https://{found[1]}" if found[2] == "true" else f"http://{found[1]}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
