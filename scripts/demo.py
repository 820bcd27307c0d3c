#!/usr/bin/env python3
"""Builds, tests and publishes examples/hello as a coding agent would, against a registry on this machine.

Needs the release build and scripts/setup.sh; `make demo` sees to both. Ends with the published digest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from local_registry import LocalRegistry
from mcp_http import McpHttp
from mcp_stdio import McpError, McpProcess

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD_SECONDS = 300.0


class DemoError(RuntimeError):
    """The demo did not do what it should."""


def main() -> int:
    binary = find_binary()
    directory = Path(tempfile.mkdtemp(prefix="nomad-build-demo-"))
    # Builds run as another user when this is root: it must be able to pass.
    directory.chmod(0o711)
    try:
        with LocalRegistry() as registry:
            base = f"{registry.host}/demo/base:1"
            say(f"registry on {registry.host}; making and pushing a base image from busybox")
            subprocess.run([REPOSITORY / "scripts/base-image.sh", base, "--insecure"], check=True)
            environment = os.environ | {
                "NOMAD_BUILD_STATE_DIR": str(directory / "state"),
                "NOMAD_BUILD_REGISTRY_INSECURE": registry.host,
            }
            log = directory / "server.log"
            say(f"starting {binary.name} serve and speaking MCP to it over stdio")
            try:
                with McpProcess([str(binary), "serve"], environment, stderr=log) as server:
                    source = {"path": str(REPOSITORY / "examples/hello")}
                    digest = build_and_publish(server, registry, base, source)
            except (DemoError, McpError):
                print(log.read_text(errors="replace")[-4000:], file=sys.stderr)
                raise
            tag = f"{registry.host}/demo/hello:1"
            check_published(registry, tag, digest)
            print(f"\nPublished: {tag} @ {digest}")
            print("That registry ends with this demo. README.md goes on with: Install it, and add it to an agent.")
            return 0
    except (DemoError, McpError, OSError, subprocess.CalledProcessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        remove_tree(directory)


def build_and_publish(
    server: McpProcess | McpHttp, registry: LocalRegistry, base: str, source: dict[str, Any]
) -> str:
    """Plays the agent; returns the digest that the server says it published."""
    hello = server.initialize()
    say(f"connected to {hello['serverInfo']['name']} {hello['serverInfo']['version']}")
    tools = server.request("tools/list")["tools"]
    say("tools: " + ", ".join(tool["name"] for tool in tools))

    arguments = {
        "source": source,
        "name": "hello",
        "build_args": [f"BASE={base}", "VERSION=1"],
        "tests": [{"name": "greets", "command": "hello agent | grep -x 'Hello, agent!'"}],
        "tags": [f"{registry.host}/demo/hello:1"],
    }
    status = call(server, "build", arguments)
    build_id = status["build_id"]
    deadline = time.monotonic() + BUILD_SECONDS
    while status["state"] in ("queued", "running"):
        if time.monotonic() > deadline:
            raise DemoError(f"build {build_id} has not ended after {BUILD_SECONDS:.0f} s")
        status = call(server, "status", {"build_id": build_id, "wait": 45})["builds"][0]
    call(server, "logs", {"build_id": build_id, "from": "end", "lines": 12})
    if status["state"] != "succeeded":
        raise DemoError(f"build {build_id} ended as {status['state']}")
    return status["image"]["digest"]


def call(server: McpProcess | McpHttp, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Calls a tool, shows what an agent sees of it, and returns the structured answer."""
    say(f"{tool} {arguments}")
    result = server.call(tool, arguments)
    text = "\n".join(block["text"] for block in result["content"] if block["type"] == "text")
    print("\n".join(f"    {line}" for line in text.splitlines()), flush=True)
    if result.get("isError"):
        raise DemoError(f"{tool} answered with an error")
    return result["structuredContent"]


def check_published(registry: LocalRegistry, tag: str, digest: str) -> None:
    """Asks the registry itself whether the tag is that image, and skopeo whether it can read it."""
    found = registry.digest("demo/hello", "1")
    if found != digest:
        raise DemoError(f"the registry has {found} behind {tag}, not {digest}")
    say("the registry has the same digest; reading the image with skopeo")
    command = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}} {{.Os}}/{{.Architecture}}"]
    seen = subprocess.run([*command, f"docker://{tag}"], check=True, capture_output=True, text=True).stdout
    if not seen.startswith(digest):
        raise DemoError(f"skopeo sees another image: {seen}")


def find_binary() -> Path:
    """The release build, or what NOMAD_BUILD_BIN names."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    return Path(os.environ.get("NOMAD_BUILD_BIN", target / "release/nomad-build")).absolute()


def remove_tree(directory: Path) -> None:
    """Removes a directory in which builds may have left files of subordinate users."""
    if os.geteuid() != 0:
        subprocess.run(["buildah", "unshare", "rm", "-rf", str(directory)], check=False)
    shutil.rmtree(directory, ignore_errors=True)


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
