"""What foreign code sees of the host: nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import MakeServer
from helpers import ask, fail, files, log_text, succeed
from machine import ORDINARY_USER, leftovers, mounts_below, processes_left

# Looks for whatever it could reach, as the code of a Containerfile and as a test would.
LOOK = "; ".join(
    [
        "echo user $(id -u)",
        "echo env $(env | cut -d= -f1 | sort | tr '\\n' ' ')",
        "echo processes $(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ')",
        "for f in /etc/shadow /root /home /var/lib/nomad-build /srv; do [ -e $f ] && echo there $f $(ls -A $f 2>&1 | head -3); done",
        "cat /proc/1/root/etc/hostname /proc/*/environ 2>/dev/null | tr '\\0' '\\n' | sed 's/^/leak /'",
        "mount -t tmpfs none /mnt 2>/dev/null && echo mounted",
        "true",
    ]
)


@pytest.mark.parametrize("isolation", ["rootless", "chroot"])
async def test_foreign_code_sees_no_host(
    make_server: MakeServer, buildah: Path, base: str, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOMAD_BUILD_E2E_CANARY", "canary-value")
    server = make_server(buildah=buildah, isolation=isolation)
    async with server.connect() as session:
        status = await succeed(
            session,
            source=files(Containerfile=f"FROM {base}\nRUN {LOOK}\n"),
            tests=[{"name": "look", "command": LOOK}],
        )
        text = (await ask(session, "logs", {"build_id": status["build_id"], "lines": 2000, "max_bytes": 30720, "from": "start"}))["text"]
    seen = [line.split(" | ", 1)[1] for line in text.splitlines() if " | " in line]
    assert any(line.startswith("user 0") for line in seen), text
    for hidden in (str(server.state), "nomad-build serve", "credentials", "canary", "auth.json"):
        shown = [line for line in seen if hidden in line and not line.startswith("STEP")]
        # Under chroot isolation Buildah's own command line is in the same namespace.
        shown = [line for line in shown if not (isolation == "chroot" and line.startswith("processes"))]
        assert not shown, f"{hidden}: {shown}"
    assert not [line for line in seen if line.startswith(("there /root ", "there /home ", "there /srv ", "mounted"))], text


async def test_a_process_may_have_any_name(make_server: MakeServer, base: str) -> None:
    # So long would a container without a runtime be waited for.
    step = "RUN printf 'runc:[2:INIT]' > /proc/$$/comm; cat /proc/$$/comm; sleep 8; echo 'still there'"
    async with make_server(isolation="rootless").connect() as session:
        status = await succeed(session, source=files(Containerfile=f"FROM {base}\n{step}\n"))
        text = await log_text(session, status["build_id"], phase="build")
    assert "| runc:[2:INIT]" in text and "| still there" in text, text


async def test_the_host_is_out_of_reach_of_mounts(make_server: MakeServer, buildah: Path, base: str) -> None:
    server = make_server(buildah=buildah)
    canary = server.directory / "canary"
    canary.write_text("canary-of-the-host")
    canary.chmod(0o644)
    text = (
        f"FROM {base} AS evil\nRUN mkdir /evil && ln -s {server.directory} /evil/link\n"
        f"FROM {base}\nRUN --mount=type=bind,from=evil,source=/evil/link,target=/m cat /m/canary; ls /m; true\n"
    )
    async with server.connect() as session:
        arguments = {"source": files(Containerfile=text), "wait": 45}
        answer = (await session.call_tool("build", arguments)).structuredContent
        assert answer["state"] in ("succeeded", "failed"), answer
        shown = (await ask(session, "logs", {"build_id": answer["build_id"], "lines": 2000, "from": "start"}))["text"]
    assert "canary-of-the-host" not in shown


async def test_an_ordinary_user_needs_no_root(make_server: MakeServer, buildah: Path, base: str) -> None:
    user = ORDINARY_USER if os.geteuid() == 0 else None
    server = make_server(buildah=buildah, user=user)
    async with server.connect() as session:
        status = await succeed(
            session,
            source=files(Containerfile=f"FROM {base}\nRUN echo x > /x && chown 1000 /x\n"),
            tests=[{"name": "there", "command": "grep x /x"}],
        )
        failed = await fail(session, "command_failed", "code", source=files(Containerfile=f"FROM {base}\nRUN exit 3\n"))
    for build in (status, failed):
        assert not leftovers(server.state, build["build_id"])
        assert not (server.state / "b" / build["build_id"] / "work").exists()
        assert not processes_left(build["build_id"])
    assert not mounts_below(server.state)
