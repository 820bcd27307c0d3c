"""Directories of callers elsewhere: uploads, the tickets for them, and what is refused."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import os
import re
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import distribution_buildah
from helpers import unique
from local_registry import LocalRegistry
from mcp_http import McpHttp
from server import Server, Settings, binary, serve

LIMITS = {"context_mb": 8, "context_entries": 100}


@dataclass
class Elsewhere:
    """A server, and callers who have nothing but its address."""

    server: Server
    address: str
    sessions: dict[str, McpHttp] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    def token(self, name: str) -> str:
        if name not in self.tokens:
            made = subprocess.run([str(binary()), "token", name], env=self.server.env, check=True, capture_output=True, text=True)
            self.tokens[name] = made.stdout.strip()
        return self.tokens[name]

    def call(self, name: str, tool: str, **arguments: Any) -> dict[str, Any]:
        if name not in self.sessions:
            self.sessions[name] = McpHttp(f"{self.address}/mcp", self.token(name))
        return self.sessions[name].call(tool, arguments)

    def build(self, name: str, **arguments: Any) -> dict[str, Any]:
        result = self.call(name, "build", **arguments, wait=50)
        assert not result.get("isError"), result
        return result["structuredContent"]

    def refused(self, name: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
        result = self.call(name, "build", **arguments)
        assert result.get("isError"), result
        return result["content"][0]["text"], result["_meta"]["nomad-build/error"]

    def put(self, token: str, archive: bytes) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=60)
        connection.request("PUT", "/v1/contexts", archive, {"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def said(self, head: str, body: bytes = b"") -> str:
        """What is answered to a request that is not finished: its head, and what comes before the body."""
        host, port = self.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(f"PUT /v1/contexts HTTP/1.1\r\nHost: {host}\r\n{head}\r\n\r\n".encode() + body)
            return connection.recv(4096).decode()

    def uploads(self) -> list[str]:
        return sorted(os.listdir(self.server.state / "uploads"))

    def note(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Changes what is remembered of every principal's uploads, as time would."""
        for path in (self.server.state / "uploads").glob("*.json"):
            note = json.loads(path.read_text())
            change(note["uploads"])
            path.write_text(json.dumps(note))


@pytest.fixture(scope="module")
def elsewhere(registry: LocalRegistry) -> Iterator[Elsewhere]:
    principals = {"token:small": {"upload_mb": 1}}
    server = Server(Settings(distribution_buildah(), [registry], limits=LIMITS, principals=principals))
    with serve(server) as address:
        yield Elsewhere(server, address)
    server.remove()


def tar(*files: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for one in files:
            if isinstance(one, tarfile.TarInfo):
                archive.addfile(one)
                continue
            info = tarfile.TarInfo(one[0])
            info.size = len(one[1])
            archive.addfile(info, io.BytesIO(one[1]))
    return out.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zstd(data: bytes, *options: str) -> bytes:
    return subprocess.run(["zstd", "-q", "-c", *options], input=data, check=True, capture_output=True).stdout


def test_the_error_for_a_path_brings_the_directory_here(elsewhere: Elsewhere, base: str, tmp_path: Path, registry: LocalRegistry) -> None:
    project = tmp_path / "it's a project"
    project.mkdir()
    git = ["git", "-C", str(project), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    containerfile = f"FROM {base}\nCOPY . /src\nRUN cat /src/committed /src/new; ls -A /src; ls /src/secret /src/log /src/.git; echo {unique()}\n"
    written = {"Containerfile": containerfile, "committed": "old", "secret": "x", "log": "x", ".gitignore": "secret\n", ".containerignore": "log\n"}
    for name, text in written.items():
        (project / name).write_text(text)
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    # What is not committed is what an agent wants to try.
    (project / "committed").write_text("changed")
    (project / "new").write_text("new")
    (project / "Containerfile").write_text(containerfile.replace("; ls /src/secret", "; ! ls /src/secret"))
    text, error = elsewhere.refused("ann", source={"path": str(project)})
    assert text.startswith("error[path_not_reachable] source.path:"), text
    line = error["upload"]["command"]
    assert line in text and 0 < error["upload"]["expires_in_seconds"] <= 600
    # Another directory than the caller's, as its shell may be anywhere.
    done = subprocess.run(["sh", "-c", line], cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    answer = json.loads(done.stdout)
    assert answer["files"] == 6, "everything but what git ignores; .containerignore is the build's"
    built = elsewhere.build("ann", source={"context": error["upload"]["context"]})
    assert built["state"] == "succeeded", built
    log = elsewhere.call("ann", "logs", build_id=built["build_id"], **{"from": "start"})["structuredContent"]["text"]
    assert "changednew" in log
    # It is good once, and what came by it can be named by its digest, too.
    again = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)
    assert "the ticket was used: it names its upload now" in again.stdout, again
    assert answer["next"] == f'build {json.dumps({"source": {"context": answer["context"]}}, separators=(",", ":"))}'
    other = elsewhere.build("ann", source={"context": answer["context"]}, validate_only=True)
    assert other["state"] == "valid" and other["plan"]["bases"] == [base]
    # An earlier build can be repeated when its ticket is over.
    elsewhere.note(lambda uploads: uploads["tickets"].clear())
    like = elsewhere.build("ann", like=built["build_id"], no_cache=True)
    assert like["state"] == "succeeded", like
    assert not [name for name in elsewhere.uploads() if name.startswith("on-the-way-")]


def test_the_line_packs_what_it_says(elsewhere: Elsewhere, base: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shown = f"FROM {base}\nCOPY . /src\nRUN cd /src && find . ! -type d | sort | sed 's/^/has /'; echo {unique()}\n"

    def git(*arguments: str, at: Path = project) -> None:
        subprocess.run(["git", "-C", str(at), "-c", "user.name=x", "-c", "user.email=x@example.com", *arguments], check=True, capture_output=True)

    def packed(path: Path, env: dict[str, str] | None = None, **source: Any) -> tuple[set[str], str]:
        _, error = elsewhere.refused("ann", source={"path": str(path)})
        done = subprocess.run(["sh", "-c", error["upload"]["command"]], env=env, capture_output=True, text=True, timeout=60)
        files = [{"path": "Containerfile", "text": shown}]
        result = elsewhere.call("ann", "build", source={"context": error["upload"]["context"], "files": files}, wait=50)
        if result.get("isError"):
            return set(), done.stdout + done.stderr
        built = result["structuredContent"]
        log = elsewhere.call("ann", "logs", build_id=built["build_id"], **{"from": "start"})["structuredContent"]["text"]
        return set(re.findall(r"has \./(.*)", log)) - {"Containerfile"}, done.stderr

    for path in (".env", "kept/f", "kept/.env", "gone", "-rf", "ignored/x/f", "nested/f", "a b/new file"):
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text("x")
    (project / ".gitignore").write_text("ignored\n.env\n")
    (project / "dangling").symlink_to("nowhere")
    git("init", "-q")
    git("init", "-q", at=project / "nested")
    git("add", "gone", "kept")
    git("commit", "-q", "-m", "x")
    (project / "gone").unlink()
    # Tracked or not, but not what is ignored, gone, or another repository's.
    wanted = {".gitignore", "kept/f", "-rf", "dangling", "a b/new file"}
    assert packed(project) == (wanted, "")
    # A directory that is ignored as a whole, where git names nothing.
    assert packed(project / "ignored") == ({"x/f"}, "")
    # Without git there is no telling what it ignores.
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "find", "xargs", "tar", "gzip", "curl"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    everything = wanted | {".env", "kept/.env", "ignored/x/f", "nested/f"}
    assert packed(project, env={"PATH": str(tools)}) == (everything, "")
    # Git names nothing of a repository that is somebody else's: nothing is uploaded rather than secrets.
    if os.geteuid() == 0:
        for path in (project, project / ".git"):
            os.chown(path, 65534, 65534)
        files, said = packed(project)
        assert not files and "dubious ownership" in said and "it holds no files" in said, said


def test_without_git_all_is_packed(elsewhere: Elsewhere, tmp_path: Path) -> None:
    (tmp_path / "a directory").mkdir()
    (tmp_path / "a directory/-file").write_text("x")
    (tmp_path / "Containerfile").write_text("FROM scratch\nCOPY . /\n")
    _, error = elsewhere.refused("ann", source={"path": str(tmp_path)})
    done = subprocess.run(["sh", "-c", error["upload"]["command"]], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["files"] == 2, done
    assert elsewhere.build("ann", source={"context": error["upload"]["context"]})["state"] == "succeeded"


def test_the_same_is_the_same_however_it_is_packed(elsewhere: Elsewhere) -> None:
    plain = tar(("Containerfile", b"FROM scratch\nCOPY . /\n"), ("sub/Containerfile", b"FROM scratch\nCOPY x /\n"), ("sub/x", b"1"))
    token = elsewhere.token("ann")
    answers = [elsewhere.put(token, packed) for packed in (plain, gzip.compress(plain), zstd(plain), zstd(plain, "-19"))]
    assert {status for status, _ in answers} == {201}, answers
    assert len({json.loads(text)["context"] for _, text in answers}) == 1
    context = json.loads(answers[0][1])["context"]
    built = elsewhere.build("ann", source={"context": context, "subdir": "sub", "files": [{"path": "sub/x", "text": "2"}]})
    assert built["state"] == "succeeded", built
    text, _ = elsewhere.refused("ann", source={"context": context, "subdir": "none"})
    assert "source.subdir" in text and "it is not there" in text
    # What this machine has elsewhere cannot be told by links that lead there.
    ignored = tar((".containerignore", b"out\n"), ("Containerfile", b"FROM scratch\n"), special("out", tarfile.SYMTYPE, "/"))
    context = json.loads(elsewhere.put(token, ignored)[1])["context"]
    subdirs = ("out/etc", "out/etc/passwd", "out/nowhere")
    said = {elsewhere.refused("ann", source={"context": context, "subdir": path})[0].replace(path, "PATH") for path in subdirs}
    assert len(said) == 1, said
    text, _ = elsewhere.refused("ann", source={"context": "latest"})
    assert text.startswith("error[invalid_argument] source.context: it is neither a digest nor a ticket"), text


def test_an_upload_is_its_principals_alone(elsewhere: Elsewhere) -> None:
    archive = tar(("Containerfile", f"FROM scratch\n# {unique()}\nCOPY . /\n".encode()))
    status, text = elsewhere.put(elsewhere.token("ann"), archive)
    context = json.loads(text)["context"]
    assert status == 201
    foreign, _ = elsewhere.refused("bob", source={"context": context})
    unknown, _ = elsewhere.refused("bob", source={"context": f"sha256:{'0' * 64}"})
    assert foreign.replace(context, "ID") == unknown.replace(f"sha256:{'0' * 64}", "ID")
    assert foreign.startswith("error[not_found] source.context:"), foreign
    _, error = elsewhere.refused("ann", source={"path": "/nowhere"})
    status, text = elsewhere.put(error["upload"]["context"], archive)
    assert status == 201, text
    text, _ = elsewhere.refused("bob", source={"context": error["upload"]["context"]})
    assert text.startswith("error[not_found]"), text


def test_nobody_unknown_uploads(elsewhere: Elsewhere) -> None:
    archive = tar(("Containerfile", b"FROM scratch\n"))
    for token in ("", "wrong", f"upload-{'0' * 64}", "upload-x"):
        status, text = elsewhere.put(token, archive)
        assert status in (401, 403), (token, text)
    # A ticket lets nobody do anything else.
    _, error = elsewhere.refused("ann", source={"path": "/nowhere"})
    connection = http.client.HTTPConnection(elsewhere.address.removeprefix("http://"), timeout=60)
    connection.request("POST", "/mcp", b"{}", {"Authorization": f"Bearer {error['upload']['context']}"})
    assert connection.getresponse().status == 401
    log = (elsewhere.server.directory / "http.log").read_text()
    assert error["upload"]["context"] not in log and elsewhere.token("ann") not in log
    # Not even the state directory knows it.
    notes = "".join(path.read_text() for path in (elsewhere.server.state / "uploads").glob("*.json"))
    assert error["upload"]["context"] not in notes


def bomb() -> bytes:
    return tar(("zeros", bytes(9 << 20)))


def hidden_bomb(kind: bytes, size: int, times: int) -> bytes:
    """Headers that say nothing, and much of it."""
    info = special("pax", kind)
    info.size = size
    length = len(str(size))
    text = f"{size} comment=".encode() + b"x" * (size - length - len(" comment=") - 1) + b"\n"
    return zstd((info.tobuf() + text + bytes(-size % 512)) * times, "-19")


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "traversal": (lambda: tar(("../x", b"x")), "the name is absolute, has a `..`"),
    "absolute": (lambda: tar(("/etc/x", b"x")), "the name is absolute"),
    "device": (lambda: tar(special("null", tarfile.CHRTYPE)), "are not taken"),
    "block device": (lambda: tar(special("sda", tarfile.BLKTYPE)), "are not taken"),
    "fifo": (lambda: tar(special("fifo", tarfile.FIFOTYPE)), "are not taken"),
    "link out": (lambda: tar(special("out", tarfile.SYMTYPE, "/etc/passwd")), "is a link that leaves"),
    "link up": (lambda: tar(special("a/out", tarfile.SYMTYPE, "../../etc")), "is a link that leaves"),
    "hard link out": (lambda: tar(special("out", tarfile.LNKTYPE, "../../token")), "the name is absolute, has a `..`"),
    "hard link to nothing": (lambda: tar(special("out", tarfile.LNKTYPE, "tokens")), "hard link to something"),
    "through a link": (lambda: tar(special("a", tarfile.SYMTYPE, "."), ("a/x", b"x")), "no directory in the archive"),
    "gzip bomb": (lambda: gzip.compress(bomb()), "more than 8 MiB"),
    "zstd bomb": (lambda: zstd(bomb(), "-19"), "more than 8 MiB"),
    "bomb in a global header": (lambda: hidden_bomb(b"g", 64 << 20, 1), "extended headers"),
    "bomb in headers": (lambda: hidden_bomb(b"x", 60_000, 300), "bytes when it is unpacked"),
    "zstd with a wide window": (lambda: zstd(os.urandom(1 << 20), "--ultra", "-22", "--long=27"), "memory"),
    "many": (lambda: tar(*((f"{n}", b"") for n in range(200))), "more than 100 files"),
    "large": (lambda: tar(("x", os.urandom(9 << 20))), "bytes"),
    "cut off": (lambda: tar(("x", b"x" * 5000))[:3000], "the archive ends within it"),
    "cut off, packed": (lambda: gzip.compress(tar(("x", os.urandom(5000))))[:-20], "archive"),
    "nothing": (lambda: b"", "not a whole tar archive"),
    "no files": (lambda: tar(), "it holds no files"),
    "something else": (lambda: b"<html>" * 1000, "archive"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_is_refused_and_leaves_nothing(elsewhere: Elsewhere, name: str) -> None:
    make, said = HOSTILE[name]
    archive = make()
    _, error = elsewhere.refused("mallory", source={"path": "/nowhere"})
    before = elsewhere.uploads()
    status, text = elsewhere.put(error["upload"]["context"], archive)
    assert status == 400 and text.startswith("error[invalid_argument] archive:") and said in text, text
    assert elsewhere.uploads() == before
    # Who was refused may mend it: the ticket is still good.
    status, text = elsewhere.put(error["upload"]["context"], tar(("Containerfile", b"FROM scratch\n")))
    assert status == 201, text


def test_uploads_of_a_principal_are_bounded_together(elsewhere: Elsewhere) -> None:
    token = elsewhere.token("small")

    def upload(size: int = 600_000) -> tuple[int, str]:
        return elsewhere.put(token, tar(("Containerfile", b"FROM scratch\nCOPY . /\n"), ("x", os.urandom(size))))

    def tars() -> set[str]:
        return {name for name in elsewhere.uploads() if name.endswith(".tar")}

    before = tars()
    status, text = upload()
    assert status == 201
    first, context = tars() - before, json.loads(text)["context"]
    assert elsewhere.build("small", source={"context": context}, validate_only=True)["state"] == "valid"
    # The next one needs its room: builds have copies of their own.
    assert upload()[0] == 201
    assert not first & tars() and len(tars()) == len(before) + 1
    text, _ = elsewhere.refused("small", source={"context": context})
    assert text.startswith("error[not_found] source.context:") and "later ones needed its room" in text, text
    # One that is too big by itself will be too big tomorrow.
    for archive in (tar(("x", os.urandom(2 << 20))), gzip.compress(tar(("x", bytes(2 << 20))))):
        status, text = elsewhere.put(token, archive)
        assert status == 400 and text.startswith("error[invalid_argument] archive: it has"), text
    # When their time is over they are gone.
    elsewhere.note(lambda uploads: [context.update(expires=1) for context in uploads["contexts"] if context["bytes"] > 500_000])
    second = tars() - before
    assert upload()[0] == 201
    assert not second & tars()


def test_what_cannot_be_removed_is_not_forgotten(elsewhere: Elsewhere) -> None:
    token, place = elsewhere.token("stuck"), "a-directory.tar"
    # As a context that no server can remove now.
    (elsewhere.server.state / "uploads" / place / "x").mkdir(parents=True)
    assert elsewhere.put(token, tar(("Containerfile", b"FROM scratch\n"), ("x", b"1")))[0] == 201

    def over() -> list[str]:
        notes = (json.loads(path.read_text())["uploads"] for path in (elsewhere.server.state / "uploads").glob("*.json"))
        return [place for uploads in notes if uploads["principal"] == "token:stuck" for place in uploads["over"]]

    def expire(uploads: dict[str, Any]) -> None:
        if uploads["principal"] == "token:stuck":
            uploads["contexts"][0].update(expires=1, place=place)

    elsewhere.note(expire)
    assert elsewhere.put(token, tar(("Containerfile", b"FROM scratch\n"), ("x", b"2")))[0] == 201
    assert over() == [place]
    shutil.rmtree(elsewhere.server.state / "uploads" / place)


def test_a_ticket_ends(elsewhere: Elsewhere) -> None:
    _, error = elsewhere.refused("late", source={"path": "/nowhere"})
    elsewhere.note(lambda uploads: [ticket.update(expires=1) for ticket in uploads["tickets"].values()])
    status, text = elsewhere.put(error["upload"]["context"], tar(("Containerfile", b"FROM scratch\n")))
    assert status == 403 and "its ten minutes are over" in text, text


def test_an_upload_may_end_after_its_ticket(elsewhere: Elsewhere) -> None:
    _, error = elsewhere.refused("late", source={"path": "/nowhere"})
    ticket = error["upload"]["context"]
    text, _ = elsewhere.refused("late", source={"context": ticket})
    assert "nothing has come by this ticket yet" in text and "run the line first" in text, text
    archive = tar(("Containerfile", f"FROM scratch\n# {unique()}\nCOPY . /\n".encode()))
    host, port = elsewhere.address.removeprefix("http://").split(":")
    before = elsewhere.uploads()
    with socket.create_connection((host, int(port))) as connection:
        head = f"PUT /v1/contexts HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {ticket}\r\nContent-Length: {len(archive)}\r\n\r\n"
        connection.sendall(head.encode() + archive[:1000])
        while elsewhere.uploads() == before:
            time.sleep(0.02)
        elsewhere.note(lambda uploads: [ticket.update(expires=1) for ticket in uploads["tickets"].values() if not ticket["context"]])
        connection.sendall(archive[1000:])
        assert connection.recv(4096).startswith(b"HTTP/1.1 201")
    assert elsewhere.build("late", source={"context": ticket})["state"] == "succeeded"


def test_many_uploads_by_tickets(elsewhere: Elsewhere) -> None:
    archive = tar(("Containerfile", b"FROM scratch\n"))
    for _ in range(33):
        _, error = elsewhere.refused("busy", source={"path": "/nowhere"})
        assert elsewhere.put(error["upload"]["context"], archive)[0] == 201
    tickets = [elsewhere.refused("busy", source={"path": "/nowhere"})[1]["upload"]["context"] for _ in range(2)]
    for ticket in tickets:
        status, text = elsewhere.put(ticket, archive)
        assert status == 201, text


def test_a_refusal_is_heard_by_who_still_sends(elsewhere: Elsewhere, tmp_path: Path) -> None:
    large = os.urandom(50 << 20)
    for token, wanted in ((elsewhere.token("ann"), 400), ("wrong", 401), (f"upload-{'0' * 64}", 403)):
        status, text = elsewhere.put(token, large)
        assert status == wanted, text
    # Who asks first need not send at all; who tells how much it is, not all of it.
    by = f"Authorization: Bearer {elsewhere.token('ann')}\r\nContent-Length: {50 << 20}"
    assert elsewhere.said(f"{by}\r\nExpect: 100-continue").startswith("HTTP/1.1 400")
    assert elsewhere.said(by, b"x").startswith("HTTP/1.1 400")
    assert elsewhere.said("Authorization: Bearer wrong\r\nContent-Length: 1\r\nExpect: 100-continue").startswith("HTTP/1.1 401")
    (tmp_path / "large").write_bytes(large)
    (tmp_path / "Containerfile").write_text("FROM scratch\n")
    command = [str(binary()), "build", "--server", elsewhere.address, str(tmp_path)]
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    for token, wanted in ((elsewhere.token("ann"), "it has more than"), ("wrong", "401")):
        done = subprocess.run(command, env=env | {"NOMAD_BUILD_TOKEN": token}, capture_output=True, text=True, timeout=120)
        assert done.returncode == 2 and wanted in done.stderr, done


def test_who_goes_away_keeps_the_ticket_and_leaves_nothing(elsewhere: Elsewhere) -> None:
    _, error = elsewhere.refused("ann", source={"path": "/nowhere"})
    before = elsewhere.uploads()
    host, port = elsewhere.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"PUT /v1/contexts HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {error['upload']['context']}\r\nContent-Length: 100000\r\n\r\n"
        connection.sendall(head.encode() + b"x" * 5000)
        deadline = time.monotonic() + 20
        while elsewhere.uploads() == before:
            assert time.monotonic() < deadline, "it was not begun"
            time.sleep(0.02)
        status, text = elsewhere.put(error["upload"]["context"], b"")
        assert status == 403 and "an upload by this ticket is under way" in text, "one upload at a time"
    while elsewhere.uploads() != before:
        assert time.monotonic() < deadline, elsewhere.uploads()
        time.sleep(0.02)
    while (answer := elsewhere.put(error["upload"]["context"], tar(("Containerfile", b"FROM scratch\n"))))[0] == 403:
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)
    assert answer[0] == 201, answer


def test_slow_uploads_keep_nobody_waiting(elsewhere: Elsewhere) -> None:
    host, port = elsewhere.address.removeprefix("http://").split(":")
    begun = len(elsewhere.uploads())
    slow: list[socket.socket] = []
    for n in range(30):
        connection = socket.create_connection((host, int(port)))
        token = elsewhere.token(f"slow-{n % 5}")
        connection.sendall(f"PUT /v1/contexts HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Length: 100000\r\n\r\nx".encode())
        slow.append(connection)
    deadline = time.monotonic() + 30
    while len(elsewhere.uploads()) < begun + 20:
        assert time.monotonic() < deadline, "four of each go on at the same time"
        time.sleep(0.02)
    status, text = elsewhere.put(elsewhere.token("slow-0"), tar(("x", b"")))
    assert status == 429 and "4 of your uploads are under way" in text, text
    # Whoever has nothing to do with it is served, with uploads, too.
    assert not elsewhere.call("ann", "status").get("isError")
    status, text = elsewhere.put(elsewhere.token("ann"), tar(("Containerfile", f"FROM scratch\n# {unique()}\nCOPY . /\n".encode())))
    assert status == 201, text
    assert elsewhere.build("ann", source={"context": json.loads(text)["context"]})["state"] == "succeeded"
    for connection in slow:
        connection.close()
    while any(name.startswith("on-the-way-") for name in elsewhere.uploads()):
        assert time.monotonic() < deadline, elsewhere.uploads()
        time.sleep(0.02)


def test_many_that_upload_the_same_leave_one(elsewhere: Elsewhere) -> None:
    archive = tar(("Containerfile", f"FROM scratch\n# {unique()}\n".encode()), ("x", os.urandom(100_000)))
    before = {name for name in elsewhere.uploads() if name.endswith(".tar")}
    token = elsewhere.token("twins")
    answers: list[tuple[int, str]] = []
    threads = [threading.Thread(target=lambda: answers.append(elsewhere.put(token, archive))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [status for status, _ in answers] == [201] * 4, answers
    assert len({json.loads(text)["context"] for _, text in answers}) == 1
    assert len({name for name in elsewhere.uploads() if name.endswith(".tar")} - before) == 1


def test_by_a_socket(registry: LocalRegistry, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text("FROM scratch\nCOPY . /\n")
    server = Server(Settings(distribution_buildah(), [registry]))
    path = server.directory / "mcp.sock"
    with serve(server, at=f"unix:{path}"):
        connection = http.client.HTTPConnection("localhost", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        arguments = {"source": {"path": str(tmp_path)}}
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "build", "arguments": arguments}}
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        connection.request("POST", "/mcp", json.dumps(request), headers)
        answer = connection.getresponse().read().decode()
        answer = json.loads(answer[answer.index("{") :])
        line = answer["result"]["_meta"]["nomad-build/error"]["upload"]["command"]
        assert f"--unix-socket '{path}'" in line
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)
        assert json.loads(done.stdout)["files"] == 1, done
    server.remove()


def test_the_command_line_builds_what_is_not_committed(elsewhere: Elsewhere, base: str, tmp_path: Path, registry: LocalRegistry) -> None:
    (tmp_path / ".containerignore").write_text("ignored\n")
    (tmp_path / "ignored").write_bytes(os.urandom(9 << 20))
    (tmp_path / "greeting").write_text("hello")
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nARG NAME\nCOPY . /src\nRUN ! test -e /src/ignored; echo $NAME > /name\n")
    tag = f"{registry.host}/uploads/{unique()}:1"
    token = tmp_path.parent / "token"
    token.write_text(elsewhere.token("ann"))
    token.chmod(0o600)
    command = [str(binary()), "build", "--server", elsewhere.address, "--token-file", str(token), str(tmp_path)]
    wanted = [*command, "-t", tag, "--test", "grep hello /src/greeting", "--test", "grep agent /name", "--build-arg", "NAME=agent"]
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run([*wanted, "--json"], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done
    status = json.loads(done.stdout)
    assert status["state"] == "succeeded" and [test["status"] for test in status["tests"]] == ["passed", "passed"]
    name, version = tag.removeprefix(f"{registry.host}/").split(":")
    assert registry.digest(name, version) == status["image"]["digest"]
    # A build that fails, a request that is refused, a token that is wrong.
    failed = subprocess.run([*command, "--test", "grep other /src/greeting"], env=env, capture_output=True, text=True, timeout=120)
    assert failed.returncode == 1 and "FAILED" in failed.stdout, failed
    refused = subprocess.run([*command, "-t", "no tag"], env=env, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2 and "error[invalid_argument] tags" in refused.stderr, refused
    token.write_text("wrong")
    refused = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2 and "401" in refused.stderr, refused


def test_the_command_line_outlives_the_server(base: str, registry: LocalRegistry, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nCOPY . /src\nRUN echo {unique()}; sleep 8\n")
    server = Server(Settings(distribution_buildah(), [registry]))
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}

    def begin(address: str, *options: str) -> tuple[subprocess.Popen[str], str]:
        command = [str(binary()), "build", "--server", address, *options, str(tmp_path)]
        program = subprocess.Popen(command, env=env | {"NOMAD_BUILD_TOKEN": server.token}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert program.stderr
        return program, program.stderr.readline().strip()

    with serve(server) as address:
        program, build = begin(address)
    assert program.poll() is None, program.communicate()
    with serve(server, at=address.removeprefix("http://")):
        out, errors = program.communicate(timeout=120)
        assert program.returncode == 0 and build in out, (out, errors)
        program, build = begin(address, "--patience", "1", "--tag", f"{registry.host}/{unique()}:1")
    # Where it stays away, it is told which build goes on.
    out, errors = program.communicate(timeout=120)
    assert program.returncode == 3 and f"the build {build} goes on" in errors, (out, errors)
    server.remove()


def test_strangers_cannot_keep_the_server_busy(elsewhere: Elsewhere) -> None:
    _, error = elsewhere.refused("ann", source={"path": "/nowhere"})
    answers = [elsewhere.put(f"upload-{n:064x}", b"x")[0] for n in range(200)]
    assert set(answers) == {403, 429} and answers[0] == 403, answers
    # Who has one that is good does not notice.
    status, text = elsewhere.put(error["upload"]["context"], tar(("Containerfile", b"FROM scratch\n")))
    assert status == 201, text
