#!/usr/bin/env python3
"""Brings up a Nomad on this machine, runs the server on it as a job, and builds examples/hello through it.

Needs the release build and `scripts/setup.sh test`; `make demo-nomad` sees to both.
"""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from typing import Any

from demo import REPOSITORY, DemoError, build_and_publish, check_published, find_binary, say
from local_nomad import LocalNomad
from local_registry import LocalRegistry
from mcp_http import McpHttp
from mcp_stdio import McpError


def main() -> int:
    binary = find_binary()
    try:
        with LocalRegistry(delete=True) as registry, LocalNomad() as nomad:
            base = f"{registry.host}/demo/base:1"
            say(f"registry on {registry.host}; making and pushing a base image from busybox")
            subprocess.run([REPOSITORY / "scripts/base-image.sh", base, "--insecure"], check=True)
            say(f"Nomad on {nomad.address}, with access control; registering nomad/build-raw-exec.nomad.hcl")
            repository = f"{registry.host}/nomad-build"
            tasks = [
                f"state_dir = {json.dumps(str(nomad.directory / 'client'))}",
                f"registry.insecure = {json.dumps([registry.host])}",
                f"nomad.repository = {json.dumps(repository)}",
            ]
            raw_exec = REPOSITORY / "nomad/build-raw-exec.nomad.hcl"
            user = getpass.getuser()
            nomad.set_up(raw_exec, program=str(binary), user=user, config="\n".join(tasks), memory="512", disk="2048")
            say("running the server as a job, too: nomad/server-raw-exec.nomad.hcl")
            made = subprocess.run(
                [binary, "token", "agent", "--print"], check=True, capture_output=True, text=True
            )
            job_file = REPOSITORY / "nomad/server-raw-exec.nomad.hcl"
            address = nomad.set_up_server(
                job_file, "nomad-build", made.stderr, program=str(binary), user=server_user(), config="\n".join(tasks[1:])
            )
            say(f"the server answers at {address}/mcp; speaking MCP to it")
            try:
                server = McpHttp(f"{address}/mcp", made.stdout.strip())
                digest = build_and_publish(server, registry, base, example("hello"))
            except (DemoError, McpError):
                print(nomad.run("alloc", "logs", "-namespace", "default", "-job", "-stderr", "nomad-build"), nomad.log(), file=sys.stderr)
                raise
            tag = f"{registry.host}/demo/hello:1"
            check_published(registry, tag, digest)
            print(f"\nPublished: {tag} @ {digest}")
            return 0
    except (DemoError, McpError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def server_user() -> str:
    """Whom the server runs as: an account without rights, which scripts/setup.sh test makes for root."""
    return "nomad-build-test" if os.geteuid() == 0 else os.environ["USER"]


def example(name: str) -> dict[str, Any]:
    """An example as a source of files: a server elsewhere does not see the directories of its callers."""
    directory = REPOSITORY / "examples" / name
    files = [
        {"path": path.name, "text": path.read_text(), "executable": os.access(path, os.X_OK)}
        for path in sorted(directory.iterdir())
    ]
    return {"files": files}


if __name__ == "__main__":
    sys.exit(main())
