#!/usr/bin/env python3
"""Brings up a Nomad on this machine and builds examples/hello on it, as a coding agent would.

Needs the release build and `scripts/setup.sh test`; `make demo-nomad` sees to both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from demo import REPOSITORY, DemoError, build_and_publish, check_published, find_binary, remove_tree, say
from local_nomad import LocalNomad
from local_registry import LocalRegistry
from mcp_stdio import McpError, McpProcess


def main() -> int:
    binary = find_binary()
    directory = Path(tempfile.mkdtemp(prefix="nomad-build-demo-"))
    directory.chmod(0o711)
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
            job_file = REPOSITORY / "nomad/build-raw-exec.nomad.hcl"
            nomad.set_up(job_file, program=str(binary), config="\n".join(tasks), memory="512", disk="2048")
            config = directory / "config.toml"
            config.write_text("\n".join([f"state_dir = {json.dumps(str(directory / 'state'))}", *tasks[1:]]))
            environment = os.environ | nomad.environment() | {"NOMAD_BUILD_CONFIG": str(config)}
            log = directory / "server.log"
            say(f"starting {binary.name} serve --backend nomad and speaking MCP to it over stdio")
            try:
                command = [str(binary), "serve", "--backend", "nomad"]
                with McpProcess(command, environment, stderr=log) as server:
                    digest = build_and_publish(server, registry, base)
            except (DemoError, McpError):
                print(log.read_text(errors="replace")[-4000:], nomad.log(), file=sys.stderr)
                raise
            tag = f"{registry.host}/demo/hello:1"
            check_published(registry, tag, digest)
            print(f"\nPublished: {tag} @ {digest}")
            return 0
    except (DemoError, McpError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        remove_tree(directory)


if __name__ == "__main__":
    sys.exit(main())
