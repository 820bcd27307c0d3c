"""`nomad-build check` and `nomad-build setup` as an ordinary user runs them."""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess

from conftest import MakeServer
from helpers import files, succeed
from local_registry import LocalRegistry, free_port
from machine import ORDINARY_USER
from server import Server, binary


def run(server: Server, *arguments: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a subcommand in a server's environment."""
    command = [str(binary()), *arguments]
    if user and os.geteuid() == 0:
        command = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups", *command]
    return subprocess.run(command, env=server.env, capture_output=True, text=True)


def test_where_tests_run_nothing_is_missing(make_server: MakeServer) -> None:
    for user in (None, ORDINARY_USER):
        answer = run(make_server(user=user), "check", user=user)
        lines = answer.stdout.splitlines()
        assert all(line.startswith("ok ") for line in lines), answer.stdout
        assert answer.returncode == 0
        items = {line.removeprefix("ok").strip().split(":")[0] for line in lines}
        assert {"buildah", "runc", "newuidmap", "pasta", "/dev/net/tun", "user namespaces", "overlay", "sandbox"} <= items


def test_what_is_missing_is_named_with_what_mends_it(make_server: MakeServer) -> None:
    server = make_server()
    server.env["NOMAD_BUILD_BUILDAH"] = "buildah-of-nobody"
    answer = run(server, "check")
    assert answer.returncode == 1
    missing = [line for line in answer.stdout.splitlines() if not line.startswith("ok ")]
    assert len(missing) == 1, answer.stdout
    assert missing[0].startswith("missing  buildah: buildah-of-nobody is not there; mend it: apt-get install buildah")


async def test_the_sandbox_and_the_registries_are_told(
    make_server: MakeServer, registry: LocalRegistry, auth_registry: LocalRegistry, base: str
) -> None:
    server = make_server()
    before = json.loads(run(server, "check", "--json").stdout)
    assert before["ok"] and all(item["state"] == "ok" for item in before["items"])
    found = {item["item"]: item["found"] for item in before["items"]}
    assert found["sandbox"].startswith("not tried yet")
    assert found[f"registry {registry.host}"] == "it answers; there are no credentials for it"
    assert found[f"registry {auth_registry.host}"] == "it answers, and takes the credentials"
    async with server.connect() as session:
        await succeed(session, source=files(Containerfile=f"FROM {base}\n"))
    after = run(server, "check").stdout
    assert re.search(r"^ok       sandbox: --isolation rootless.*reached this host's files", after, re.MULTILINE), after

    wrong = make_server(wrong_password=True)
    # Nobody listens at the first of them.
    wrong.env["NOMAD_BUILD_REGISTRY_INSECURE"] = f"127.0.0.1:{free_port()},{auth_registry.host}"
    answer = run(wrong, "check")
    assert answer.returncode == 1
    faults = [line for line in answer.stdout.splitlines() if not line.startswith("ok ")]
    assert len(faults) == 2 and "pass word" not in answer.stdout, faults
    gone = re.compile(r"missing  registry 127\.0\.0\.1:\d+: .*can't be reached: the connection was refused")
    assert any(gone.match(line) for line in faults), faults
    assert any("didn't accept the credentials; mend it: put the right ones into registry.auth_file" in line for line in faults)


def test_an_ordinary_user_is_told_and_changes_nothing(make_server: MakeServer) -> None:
    server = make_server(user=ORDINARY_USER)
    answer = run(server, "setup", user=ORDINARY_USER)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.endswith(": all there\n")
    answer = run(server, "setup", "--users", "3", user=ORDINARY_USER)
    assert answer.returncode == 2
    assert "accounts are made by root" in answer.stderr
    if os.geteuid() == 0:
        answer = run(server, "setup", user="nobody")
        assert answer.returncode == 1
        last = answer.stdout.splitlines()[-1]
        assert last.startswith("sudo usermod --add-subuids ") and last.endswith(" nobody")
