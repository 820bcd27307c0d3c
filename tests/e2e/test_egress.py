"""The way out that foreign code has: to a peer, by its name; and where there can be none.

Needs root, which alone can make such a network; nothing of it is reachable from this machine's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import MakeServer
from helpers import fail, log_text, succeed

BUSYBOX = "/bin/busybox"
PEER = "10.213.7.2"
# Answers every question for an A record with its own address (RFC 1035, section 4).
NAME_SERVER = f"""
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("{PEER}", 53))
while True:
    query, asker = server.recvfrom(512)
    question = query[12 : query.index(0, 12) + 5]
    is_a = question[-4:-2] == bytes([0, 1])
    head = query[:2] + bytes([0x81, 0x80, 0, 1, 0, int(is_a), 0, 0, 0, 0])
    answer = bytes([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]) + socket.inet_aton("{PEER}")
    server.sendto(head + question + (answer if is_a else b""), asker)
"""


@dataclass
class Peer:
    """A host with a file and a name server, which is all there is in the network of `within`."""

    within: list[str]
    """What runs a command in the network of the peer's only neighbour."""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    here, there = (f"nb-e2e-{os.getpid()}-{side}" for side in ("here", "there"))
    configured = Path("/etc/netns", here)
    with ExitStack() as stack:
        for name in (here, there):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", here, "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", there)
        for name, address in ((here, "10.213.7.1"), (there, PEER)):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "veth0")
            _ip("-n", name, "link", "set", "veth0", "up")
        _ip("-n", here, "route", "add", "default", "via", PEER)
        # ip-netns(8) mounts it on /etc/resolv.conf.
        had_parent = configured.parent.exists()
        configured.mkdir(parents=True)
        stack.callback(shutil.rmtree, configured if had_parent else configured.parent)
        (configured / "resolv.conf").write_text(f"nameserver {PEER}\n")
        (tmp_path / "file").write_text("a file of the peer\n")
        web = [sys.executable, "-m", "http.server", "8080", "--bind", PEER, "--directory", str(tmp_path)]
        for command in (web, [sys.executable, "-c", NAME_SERVER]):
            process = subprocess.Popen(["ip", "netns", "exec", there, *command], stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        within = ["ip", "netns", "exec", here]
        fetch = [*within, sys.executable, "-c", f"import socket; socket.create_connection(('{PEER}', 8080), 1)"]
        deadline = time.monotonic() + 30
        while subprocess.run(fetch, capture_output=True).returncode:
            assert time.monotonic() < deadline, "the peer does not answer its neighbour"
            time.sleep(0.1)
        yield Peer(within)


def _context(directory: Path, *lines: str) -> dict[str, str]:
    """A source without a registry: there is none in that network."""
    directory.mkdir()
    shutil.copy(BUSYBOX, directory / "busybox")
    (directory / "Containerfile").write_text("\n".join(["FROM scratch", "COPY busybox /bin/", *lines]) + "\n")
    return {"path": str(directory)}


def _shell(script: str) -> list[str]:
    return ["/bin/busybox", "sh", "-c", script]


def _run(script: str) -> str:
    return f"RUN {json.dumps(_shell(script))}"


async def test_a_peer_is_reached_by_its_name(make_server: MakeServer, buildah: Path, peer: Peer, tmp_path: Path) -> None:
    fetch = "busybox wget -qO- http://peer.example:8080/file | busybox grep 'a file of the peer'"
    add = "ADD http://peer.example:8080/file /file"
    source = _context(tmp_path / "context", _run(fetch), add, _run("busybox grep peer /file"))
    server = make_server(buildah=buildah, within=peer.within)
    async with server.connect() as session:
        test = {"name": "fetch", "argv": _shell(fetch)}
        await succeed(session, source=source, timeout=120, tests=[test])


# As the neighbours' network itself, and as one around it: neither may be reached by the way to neighbours.
@pytest.mark.parametrize("denied", ["10.0.0.0/8", "10.213.7.0/24", f"{PEER}/32"])
async def test_a_denied_neighbour_is_not_reached(make_server: MakeServer, peer: Peer, tmp_path: Path, denied: str) -> None:
    reach = f"! busybox wget -qO- http://{PEER}:8080/file"
    server = make_server(within=peer.within, deny=[denied])
    source = _context(tmp_path / "context", _run(reach))
    async with server.connect() as session:
        status = await succeed(session, source=source, timeout=120)
        assert "a file of the peer" not in await log_text(session, status["build_id"])


async def test_without_its_device_the_operator_is_told_at_once(make_server: MakeServer, tmp_path: Path) -> None:
    hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh"]
    server = make_server(within=hide)
    source = _context(tmp_path / "context", _run("true"))
    async with server.connect() as session:
        status = await fail(session, "sandbox_unavailable", "operator", source=source)
    failure = status["failure"]
    assert "/dev/net/tun" in failure["message"], failure
    assert "modprobe tun" in failure["hint"], failure
    # It does not wait for pasta, which would take longer than that to give up.
    assert status["elapsed_seconds"] < 5, status
