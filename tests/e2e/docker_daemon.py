"""A Docker of the tests' own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path


def docker_directory(stack: ExitStack) -> Path:
    """A directory for a daemon, which others can pass through; removed when the stack is closed."""
    # A path for a socket has at most 107 bytes (unix(7)).
    directory = Path(tempfile.mkdtemp(prefix="nomad-build-docker-"))
    directory.chmod(0o711)
    stack.callback(shutil.rmtree, directory)
    return directory


class DockerDaemon:
    """A daemon without networks of its own: containers have the host's, or none."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.endpoint = f"unix://{directory}/docker.sock"
        self.client = ["docker", f"--host={self.endpoint}"]
        places = [f"--{name}={directory}/{name}" for name in ("data-root", "exec-root", "pidfile")]
        log = stack.enter_context((directory / "log").open("w"))
        command = ["dockerd", f"--host={self.endpoint}", *places, "--bridge=none", "--iptables=false"]
        daemon = subprocess.Popen(command, stderr=log)
        # It leaves this mount behind.
        stack.callback(subprocess.run, ["umount", directory / "exec-root/netns/default"], check=False)
        stack.callback(daemon.wait)
        stack.callback(daemon.terminate)
        deadline = time.monotonic() + 60
        while subprocess.run([*self.client, "info"], capture_output=True).returncode:
            assert daemon.poll() is None and time.monotonic() < deadline, (directory / "log").read_text()[-2000:]
            time.sleep(0.1)
