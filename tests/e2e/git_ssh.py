"""A git server over SSH on loopback, with a key of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from git_http import GIT_ENV, git
from local_registry import free_port

START_SECONDS = 20.0


class GitSsh:
    """A server that runs while the `with` block does."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="nomad-build-git-"))
        self.key = self.directory / "key"
        self.known_hosts = self.directory / "known_hosts"
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What URLs of its repositories begin with."""
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self._port}{self.directory}"

    def repository(self, name: str) -> Path:
        """A new repository, to commit to."""
        path = self.directory / name
        path.mkdir()
        git(path, "init", "--quiet", "--initial-branch=main")
        return path

    def __enter__(self) -> GitSsh:
        host = self.directory / "host"
        for path in (self.key, host):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
            subprocess.run(command, check=True, env=GIT_ENV)
        (self.directory / "authorized").write_text((self.directory / "key.pub").read_text())
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        for _ in range(5):
            if self._start(free_port()):
                return self
        raise RuntimeError((self.directory / "log").read_text(errors="replace"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self, port: int) -> bool:
        self._port = port
        host = self.directory / "host"
        config = self.directory / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {host}\nAuthorizedKeysFile {self.directory}/authorized\n"
            "PasswordAuthentication no\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\n"
        )
        public = (self.directory / "host.pub").read_text().split()
        self.known_hosts.write_text(f"[127.0.0.1]:{port} {public[0]} {public[1]}\n")
        with (self.directory / "log").open("wb") as log:
            command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(config)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            if "Server listening" in (self.directory / "log").read_text(errors="replace"):
                return True
            time.sleep(0.02)
        return False
