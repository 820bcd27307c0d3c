#!/usr/bin/env python3
"""Writes docs/tools.md: each tool with calls and the answers that a real server gave to them.

    scripts/record_tools.py [FILE]

Needs the release build (or NOMAD_BUILD_BIN) and scripts/setup.sh. Names of this machine are replaced by examples.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from demo import REPOSITORY, find_binary, remove_tree
from local_registry import LocalRegistry
from mcp_stdio import McpProcess

DOCUMENT = REPOSITORY / "docs/tools.md"
HEAD = """\
# The tools

Four tools, the same over stdio, HTTP and the command line. What stands here was answered by a real server
(`scripts/record_tools.py` writes this file); registry, paths and ids are examples. Every successful answer says the same twice: in
`structuredContent`, after the schemas in [`schemas/`](../schemas), and as text, which is what is shown here. Arguments that do not
fit are all named at once, each with what would be right. How the configuration limits all this: [nomad-build.toml](nomad-build.toml);
every kind of failure: [failures.md](failures.md).
"""
HOST = "registry.example.com"


class Recorder:
    """Calls tools and writes down what they answer."""

    def __init__(self, server: McpProcess, names: dict[str, str]) -> None:
        self.server = server
        self.names = names
        self.text = HEAD

    def say(self, text: str) -> None:
        self.text += f"\n{text}\n"

    def call(self, tool: str, arguments: dict[str, Any], structured: bool = False, show: bool = True) -> Any:
        result = self.server.call(tool, arguments)
        if show:
            answer = "\n".join(block["text"] for block in result["content"] if block["type"] == "text")
            if structured:
                answer = json.dumps(result["structuredContent"], indent=2, ensure_ascii=False)
            call = self.clean(json.dumps(arguments, ensure_ascii=False))
            self.say(f"```\n{tool} {call}\n```\n\n```{'json' if structured else 'text'}\n{self.clean(answer)}\n```")
        return result.get("structuredContent")

    def clean(self, text: str) -> str:
        for real, shown in self.names.items():
            text = text.replace(real, shown)
        return re.sub(r"(buildah [\d.]+), .*", r"\1, …", text)

    def until_ended(self, build_id: str) -> None:
        while True:
            answer = self.server.call("status", {"build_id": build_id, "wait": 45})["structuredContent"]
            if answer["builds"][0]["state"] not in ("queued", "running"):
                return


def record(recorder: Recorder, base: str, host: str, directory: Path) -> None:
    build: dict[str, Any] = {
        "source": {"path": str(directory)},
        "name": "hello",
        "build_args": [f"BASE={base}", "VERSION=1"],
        "tests": [{"name": "greets", "command": "echo 'Hello, agent!' > /tmp/want && hello agent | diff /tmp/want -"}],
        "tags": [f"{host}/me/hello:1"],
    }
    recorder.say("## `build`\n\nStarts a build, and with `wait` often answers with its end. `validate_only` looks without building:")
    recorder.call("build", build | {"validate_only": True})
    recorder.say("The build itself. Nothing is pushed before the tests passed; without `tags` nothing is pushed at all.")
    built = recorder.call("build", build | {"wait": 45})
    recorder.until_ended(built["build_id"])
    recorder.say("`like` takes the arguments of an earlier build; what is given besides, overrides. Here the source is another, and broken:")
    script = directory / "hello.sh"
    text = script.read_text()
    script.write_text('#!/bin/sh\necho "Hello, $1"\n')
    failed = recorder.call("build", {"like": built["build_id"], "wait": 45})
    recorder.until_ended(failed["build_id"])
    script.write_text(text)
    recorder.say("`outputs` hands over what the image has, and the image itself:")
    handed = recorder.call("build", {"like": built["build_id"], "tags": [], "outputs": ["/usr/local/bin/hello", "image"], "wait": 45})
    recorder.until_ended(handed["build_id"])
    recorder.say("An argument that does not fit is told with what would:")
    recorder.call("build", {"sorce": {"path": "hello"}, "tags": ["hello"]})
    recorder.say("## `status`\n\nOne build, waited for until it ends; `until` also `started` or `change`. The structured answer of the failed one:")
    recorder.call("status", {"build_id": failed["build_id"]}, structured=True)
    recorder.say("Without an id: the caller's builds, unfinished and newest first, and what this server offers.")
    recorder.call("status", {"limit": 2})
    recorder.say("## `logs`\n\nAround the failure of a build that failed, else the last lines; lines keep their numbers through all phases.")
    recorder.call("logs", {"build_id": failed["build_id"], "lines": 6})
    recorder.say("Searched, by phase:")
    recorder.call("logs", {"build_id": built["build_id"], "grep": "STEP", "phase": "build", "from": "start", "context_lines": 0})
    recorder.say("## `kill`\n\nEnds a build at a safe point, in any phase; harmless when it has ended.")
    slow = {"source": {"files": [{"path": "Containerfile", "text": f"FROM {base}\nRUN sleep 600\n"}]}, "name": "slow"}
    running = recorder.call("build", slow, show=False)
    recorder.server.call("status", {"build_id": running["build_id"], "until": "started", "wait": 45})
    recorder.call("kill", {"build_id": running["build_id"], "reason": "wrong branch"})
    recorder.until_ended(running["build_id"])
    recorder.call("kill", {"build_id": running["build_id"]})


def main() -> None:
    document = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCUMENT
    work = Path(tempfile.mkdtemp(prefix="nomad-build-record-"))
    work.chmod(0o711)
    try:
        with LocalRegistry() as registry:
            base = f"{registry.host}/me/base:1"
            subprocess.run([REPOSITORY / "scripts/base-image.sh", base, "--insecure"], check=True)
            directory = work / "hello"
            shutil.copytree(REPOSITORY / "examples/hello", directory)
            environment = os.environ | {
                "NOMAD_BUILD_STATE_DIR": str(work / "state"),
                "NOMAD_BUILD_REGISTRY_INSECURE": registry.host,
                "NOMAD_BUILD_LOCAL_SLOTS": "2",
            }
            names = {str(work / "state"): "/var/lib/nomad-build", str(directory): "/home/me/hello", registry.host: HOST}
            with McpProcess([str(find_binary()), "serve"], environment, stderr=work / "log") as server:
                server.initialize()
                recorder = Recorder(server, names)
                record(recorder, base, registry.host, directory)
        document.write_text(recorder.text)
    finally:
        remove_tree(work)


if __name__ == "__main__":
    main()
