"""`nomad-build check` and `nomad-build setup` as an ordinary user runs them."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess

import pytest
from conftest import MakeServer
from helpers import fail, files, log_text, sleep_marker, succeed, wait_for
from local_registry import LocalRegistry, free_port
from machine import ORDINARY_USER
from processes import running
from server import Server, binary


def run(server: Server, *arguments: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a subcommand in a server's environment."""
    command = [str(binary()), *arguments]
    if user and os.geteuid() == 0:
        command = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups", *command]
    return subprocess.run(command, env=server.env, capture_output=True, text=True)


def faults(answer: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of what is in the way of builds; the status says whether there are any."""
    found = [line for line in answer.stdout.splitlines() if line.startswith(("missing ", "wrong "))]
    assert answer.returncode == (1 if found else 0), answer
    return found


def about(answer: subprocess.CompletedProcess[str], item: str) -> str:
    """The line about an item."""
    (line,) = [line for line in answer.stdout.splitlines() if line.split(maxsplit=1)[1].startswith(f"{item}: ")]
    return line


@pytest.mark.parametrize("user", [None, ORDINARY_USER])
def test_where_tests_run_nothing_is_missing(make_server: MakeServer, user: str | None) -> None:
    server = make_server(user=user)
    answer = run(server, "check", user=user)
    assert not faults(answer), answer.stdout
    assert answer.stderr.endswith("nomad-build: nothing is missing\n")
    lines = answer.stdout.splitlines()
    assert all(line.startswith(("ok ", "unenforced ")) for line in lines), answer.stdout
    items = {line.split(maxsplit=1)[1].split(":")[0] for line in lines}
    assert {"buildah", "runc", "newuidmap", "pasta", "/dev/net/tun", "user namespaces", "overlay", "sandbox"} <= items
    told = about(answer, "sandbox")
    assert re.match("ok       sandbox: --isolation rootless .*tried as .* just now, nothing in it reached this host's files", told)
    assert not server.state.exists()


def test_what_is_missing_is_named_with_what_mends_it(make_server: MakeServer) -> None:
    server = make_server()
    server.env["NOMAD_BUILD_BUILDAH"] = "buildah-of-nobody"
    answer = run(server, "check")
    buildah, sandbox = faults(answer)
    assert answer.stderr.endswith("nomad-build: 2 lines say what is missing or wrong, and what mends it\n")
    assert buildah.startswith("missing  buildah: buildah-of-nobody is not there; mend it: apt-get install buildah")
    assert sandbox.startswith("missing  sandbox: builds are refused: Buildah is not there: buildah-of-nobody; mend it: Install")


@pytest.mark.parametrize("user", [None, ORDINARY_USER])
async def test_where_builds_are_refused_check_says_so(make_server: MakeServer, user: str | None) -> None:
    """With everything in its place, and a Buildah that builds nothing."""
    server = make_server(user=user)
    refuses = server.directory / "refuses"
    buildah = server.env["NOMAD_BUILD_BUILDAH"]
    refuses.write_text(
        f'#!/bin/sh\ncase "$*" in --version | *" images --quiet") exec {buildah} "$@" ;; esac\necho "Error: not here" >&2\nexit 125\n'
    )
    refuses.chmod(0o755)
    server.env["NOMAD_BUILD_BUILDAH"] = str(refuses)
    answer = run(server, "check", user=user)
    (sandbox,) = faults(answer)
    assert sandbox.startswith("missing  sandbox: builds are refused: no sandbox holds on this host: "), sandbox
    assert "Error: not here" in sandbox and "; mend it: Unprivileged user namespaces, newuidmap" in sandbox, sandbox
    assert not server.state.exists()
    told = json.loads(run(server, "check", "--json", user=user).stdout)
    (item,) = [item for item in told["items"] if item["item"] == "sandbox"]
    assert told["ok"] is False and item["state"] == "missing" and item["mend"]
    async with server.connect() as session:
        await fail(session, "sandbox_unavailable", "operator", source=files(Containerfile="FROM scratch\n"))
    assert faults(run(server, "check", user=user)) == [sandbox]


async def test_a_weaker_isolation_is_taken_where_the_stronger_does_not_work_and_not_for_a_moment(make_server: MakeServer) -> None:
    server = make_server(first=True)
    buildah, refuses = server.env["NOMAD_BUILD_BUILDAH"], server.directory / "refuses"
    marker = f"0.2{sleep_marker()}"
    server.env["NOMAD_BUILD_BUILDAH"] = str(refuses)
    # What it sees of the host in a sandbox is itself.
    refuses.write_text(
        '#!/bin/sh\ncase "$*" in *"--isolation rootless"*)\n'
        f'test -g "$0" && while test -g "$0"; do sleep {marker}; done && refuse=yes\n'
        f'if test "$refuse" || test -k "$0"; then echo "Error: not now" >&2; exit 125; fi ;;\nesac\nexec {buildah} "$@"\n'
    )
    refuses.chmod(0o2755)
    with subprocess.Popen([str(binary()), "check"], env=server.env, stdout=subprocess.PIPE, text=True) as check:
        await wait_for(lambda: running("sleep", marker), "the first try")
        refuses.chmod(0o755)
        told, _ = check.communicate(timeout=120)
    assert "sandbox: --isolation rootless " in told and "stronger" not in told, told
    refuses.chmod(0o1755)
    told = about(run(server, "check"), "sandbox")
    why = "what is stronger does not work: --isolation rootless --runtime runc: Error: not now"
    assert told.startswith("ok       sandbox: --isolation chroot ") and told.endswith(why), told
    async with server.connect() as session:

        async def announced() -> str:
            status = await succeed(session, source=files(Containerfile="FROM scratch\nCOPY Containerfile /\n"), name="same")
            return await log_text(session, status["build_id"], phase="source")

        text = await announced()
        assert "isolation: --isolation chroot" in text and why in text
        refuses.chmod(0o755)
        assert "isolation: --isolation chroot" in await announced()
        (kept,) = server.state.glob("cache/*/probe.json")
        found = json.loads(kept.read_text())
        found["at"] -= 3600
        kept.write_text(json.dumps(found))
        text = await announced()
        assert "isolation: --isolation rootless" in text and "stronger" not in text


async def test_only_an_answer_to_the_same_question_is_believed(make_server: MakeServer) -> None:
    server = make_server(first=True)
    async with server.connect() as session:
        await succeed(session, source=files(Containerfile="FROM scratch\nCOPY Containerfile /\n"))
    (kept,) = server.state.glob("cache/*/probe.json")
    before = sorted(server.state.iterdir())
    found = json.loads(kept.read_text())
    found["host"]["isolation"] = ["--isolation", "as-kept"]
    kept.write_text(json.dumps(found))
    told = about(run(server, "check"), "sandbox")
    assert told.startswith("ok       sandbox: --isolation as-kept; tried as ") and "by an earlier build of this boot" in told
    # It was tried with another network.
    told = about(run(server, "check", "--set", "sandbox.network=none"), "sandbox")
    assert "as-kept" not in told and "just now" in told and told.endswith("; it has no network")
    found["key"] = "another boot" + found["key"][8:]
    kept.write_text(json.dumps(found))
    told = about(run(server, "check"), "sandbox")
    assert told.startswith("ok       sandbox: --isolation rootless ") and "just now" in told
    assert json.loads(kept.read_text()) == found and sorted(server.state.iterdir()) == before


def test_what_a_sandbox_does_not_stop_is_not_claimed(make_server: MakeServer) -> None:
    server = make_server(profiles={"closed": {"network": "none"}})
    answer = run(server, "check", "--set", "sandbox.network=host", "--set", "sandbox.no_new_privileges=false")
    assert not faults(answer)
    told = about(answer, "sandbox")
    assert "abstract sockets" not in told and told.endswith(", processes; this host's network is open to it"), told
    assert about(answer, "sandbox of closed").endswith("abstract sockets); it has no network")
    assert about(answer, "network").startswith("unenforced  network: RUN and tests of the profiles default share this host's")
    assert about(answer, "no_new_privileges").startswith("unenforced  no_new_privileges: ")


@pytest.mark.parametrize("user", [None, ORDINARY_USER])
async def test_limits_that_do_not_hold_are_unenforced_as_in_the_log(make_server: MakeServer, user: str | None) -> None:
    server = make_server(user=user, limits={"memory_mb": 512})
    answer = run(server, "check", user=user)
    assert not faults(answer)
    memory = about(answer, "limits.memory_mb")
    async with server.connect() as session:
        build = await succeed(session, source=files(Containerfile="FROM scratch\nCOPY Containerfile /\n"))
        log = await log_text(session, build["build_id"])
    said = re.search("unenforced on this host: (.*)", log)
    if said and "the limit on memory" in said[1]:
        assert memory.startswith("unenforced  limits.memory_mb: 512 MiB of default; ") and "Delegate=yes" in memory
        told = json.loads(run(server, "check", "--json", user=user).stdout)
        (item,) = [item for item in told["items"] if item["item"] == "limits.memory_mb"]
        assert item["state"] == "unenforced" and item["why"] and item["mend"] and told["ok"]
    else:
        assert memory == "ok       limits.memory_mb: 512 MiB of default; a cgroup can limit it"


def test_a_ca_file_that_cannot_be_read_is_one_line_of_many(make_server: MakeServer, tmp_path: Path) -> None:
    bad = tmp_path / "ca.pem"
    bad.write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
    answer = run(make_server(), "check", "--set", f"registry.ca_file={bad}")
    (ca_file,) = faults(answer)
    assert ca_file.startswith("wrong    registry.ca_file: ") and str(bad) in ca_file
    assert about(answer, "sandbox").startswith("ok ")


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user looks at its own")
def test_root_is_sent_to_the_user_whose_server_it_is(make_server: MakeServer) -> None:
    server = make_server(user=ORDINARY_USER)
    server.state.mkdir()
    shutil.chown(server.state, ORDINARY_USER, ORDINARY_USER)
    answer = run(server, "check")
    (user,) = faults(answer)
    assert user.startswith(f"wrong    user: this is root, but {server.state} belongs to {ORDINARY_USER}: "), user
    config = server.env["NOMAD_BUILD_CONFIG"]
    assert user.endswith(f"; mend it: sudo -u {ORDINARY_USER} nomad-build check --config {config} --set state_dir={server.state}")
    for item in ("sandbox", "/dev/net/tun", "registries", "limits.memory_mb"):
        assert about(answer, item).startswith("untried "), answer.stdout
    assert "nomad-build-0" not in answer.stdout
    # What it is told to call answers.
    arguments = user.split(" nomad-build check ")[1].split()
    assert not faults(run(server, "check", *arguments, user=ORDINARY_USER))


async def test_the_registries_are_told(
    make_server: MakeServer, registry: LocalRegistry, auth_registry: LocalRegistry
) -> None:
    told = json.loads(run(make_server(), "check", "--json").stdout)
    assert told["ok"] and all(item["state"] in ("ok", "unenforced") for item in told["items"])
    found = {item["item"]: item.get("found") for item in told["items"]}
    assert found[f"registry {registry.host}"] == "it answers; there are no credentials for it"
    assert found[f"registry {auth_registry.host}"] == "it answers, and takes the credentials"

    wrong = make_server(wrong_password=True)
    # Nobody listens at the first of them.
    wrong.env["NOMAD_BUILD_REGISTRY_INSECURE"] = f"127.0.0.1:{free_port()},{auth_registry.host}"
    answer = run(wrong, "check")
    gone, refused = sorted(faults(answer))
    assert "pass word" not in answer.stdout
    assert re.match(r"missing  registry 127\.0\.0\.1:\d+: .*can't be reached: the connection was refused", gone), gone
    assert "didn't accept the credentials; mend it: put the right ones into registry.auth_file" in refused


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
