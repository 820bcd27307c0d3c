"""What builds hand over: paths of the image, what tests leave, the image itself; and reports of tests."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

import httpx
import pytest
from conftest import MakeServer
from helpers import ask_both, fail, file_source, refused, run, succeed, text_of, unique
from mcp import ClientSession
from pydantic import AnyUrl
from server import Server, serve

MAKES = """\
FROM {base}
RUN mkdir -p /out/deep && printf 'echo {word}\\n' >/out/app && chmod 755 /out/app && printf data >/out/deep/file \
 && ln -s /etc/passwd /out/deep/link && ln -s /out/app /app
"""
REPORT = """\
cat >/tmp/junit.xml <<'X'
<testsuite><testcase classname="sum" name="good"/><testcase classname="sum" name="bad">
<failure message="3 is not 4">tests/sum.py:7: AssertionError</failure></testcase></testsuite>
X
"""


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def token(server: Server, name: str) -> str:
    command = [*server.command[:-1], "token", name]
    made = subprocess.run(command, env=server.env, check=True, capture_output=True, text=True)
    return made.stdout.strip()


def by_name(status: dict) -> dict[str, dict]:
    return {output["name"]: output for output in status["outputs"]}


async def test_paths_of_the_image_and_what_tests_leave_come_as_files(session: ClientSession, base: str) -> None:
    word = unique()
    status = await succeed(
        session,
        source=file_source({"Containerfile": MAKES.format(base=base, word=word)}),
        outputs=["/app", "/out"],
        tests=[
            {"name": "unit", "command": f"echo left >/tmp/left; {REPORT}", "outputs": ["/tmp/left", "/tmp/none"],
             "report": "/tmp/junit.xml"},
            {"name": "other", "command": "ln -sf /etc/shadow /tmp/left", "outputs": ["/tmp/left", "/dev/null"]},
        ],
    )  # fmt: skip
    outputs = by_name(status)
    app = outputs["app"]
    data = Path(app["path"]).read_bytes()
    assert data == f"echo {word}\n".encode()
    assert (app["from"], app["kind"], app["executable"]) == ("/app", "file", True)
    assert (app["size_bytes"], app["digest"]) == (len(data), sha256(data))
    assert app["uri"] == f"build://{status['build_id']}/outputs/app"
    with tarfile.open(outputs["out.tar"]["path"]) as tar:
        names = {entry.name: entry for entry in tar}
    assert set(names) == {"app", "deep", "deep/file", "deep/link"}
    assert names["deep/link"].issym() and names["app"].mode & 0o111
    left = outputs["left"]
    assert (left["test"], Path(left["path"]).read_text()) == ("unit", "left\n")
    missing = {(one["test"], one["from"]): one["missing"] for one in status["outputs"] if "missing" in one}
    assert missing[("unit", "/tmp/none")] == "there is nothing at this path"
    assert missing[("other", "/dev/null")]
    # The link led into the image, which has such a file or none; never to that of this machine.
    host = Path("/etc/shadow").read_bytes() if Path("/etc/shadow").exists() else b"?"
    others = [one for one in status["outputs"] if one.get("test") == "other" and "path" in one]
    assert all(Path(one["path"]).read_bytes() != host for one in others)
    # A report tells, and does not judge.
    unit = status["tests"][0]
    assert unit["status"] == "passed"
    assert (unit["report"]["cases"], unit["report"]["failed"]) == (2, 1)

    _, text = await ask_both(session, "status", {"build_id": status["build_id"]})
    assert f"output app (/app, {len(data)} bytes): {app['path']}" in text
    assert "no output /tmp/none of test unit: there is nothing at this path" in text


async def test_the_image_comes_as_an_archive_that_others_load(
    session: ClientSession, base: str, tmp_path: Path
) -> None:
    word = unique()
    status = await succeed(
        session,
        source=file_source({"Containerfile": f"FROM {base}\nRUN echo {word} >/word\nCMD cat /word\n"}),
        outputs=["image"],
        tests=[{"command": "cat /word"}],
    )
    (image,) = status["outputs"]
    assert (image["name"], image["kind"]) == ("image.tar", "image")
    archive = tmp_path / "image.tar"
    archive.write_bytes(Path(image["path"]).read_bytes())
    assert sha256(archive.read_bytes()) == image["digest"]
    inspected = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci-archive:{archive}"], check=True, capture_output=True, text=True
    )
    assert json.loads(inspected.stdout)["config"]["digest"] == status["image"]["id"]
    # Podman wants short paths.
    with tempfile.TemporaryDirectory(prefix="nb-") as store:
        podman = ["podman", f"--root={store}/root", f"--runroot={store}/run", "--storage-driver=vfs"]
        loaded = subprocess.run([*podman, "load", "-i", str(archive)], capture_output=True, text=True)
        name = f"localhost/{status['build_id']}:latest"
        assert loaded.returncode == 0 and name in loaded.stdout, loaded
        inspect = [*podman, "image", "inspect", "--format", "{{.Id}}", name]
        found = subprocess.run(inspect, check=True, capture_output=True, text=True)
        assert f"sha256:{found.stdout.strip()}" == status["image"]["id"]


async def test_links_lead_to_resources(plain: ClientSession, base: str) -> None:
    source = file_source({"Containerfile": f"FROM {base}\nRUN printf small >/small; head -c 2000000 /dev/zero >/large\n"})
    answer = await plain.call_tool(
        "build", {"source": source, "outputs": ["/small", "/large"], "wait": 50}, read_timeout_seconds=None
    )
    assert not answer.isError, text_of(answer)
    links = {block.name: block for block in answer.content if block.type == "resource_link"}
    assert set(links) == {"small", "large"}
    assert links["small"].size == 5
    content = (await plain.read_resource(links["small"].uri)).contents[0]
    assert base64.b64decode(content.blob) == b"small"
    with pytest.raises(Exception, match=r"2000000 bytes, and a resource at most 1048576"):
        await plain.read_resource(links["large"].uri)
    with pytest.raises(Exception, match="no output of this name(.|\n)*one of: small, large"):
        await plain.read_resource(AnyUrl(str(links["small"].uri) + "er"))


async def test_what_the_image_does_not_have_is_said(session: ClientSession, base: str) -> None:
    source = file_source({"Containerfile": f"FROM {base}\n"})
    failed = await fail(session, "output_missing", "request", source=source, outputs=["/bin/sh", "/nothing/there"])
    assert failed["failure"]["message"] == "/nothing/there cannot be handed over: there is nothing at this path"
    assert failed["phase"] == "build"
    assert [one["name"] for one in failed["outputs"]] == ["sh"]
    text = await refused(session, "build", {"source": source, "outputs": ["app", "/../x"]}, "invalid_argument")
    assert "outputs[0]: it is not absolute" in text and "outputs[1]: it has . or .. in it" in text


async def test_no_more_is_handed_over_than_the_operator_allows(make_server: MakeServer, base: str) -> None:
    server = make_server(limits={"outputs_mb": 1}, profiles={"none": {"outputs_mb": 0}})
    text = f"FROM {base}\nRUN head -c 900000 /dev/urandom >/a && cp /a /b && mkdir /d && cp /a /b /d\n"
    source = file_source({"Containerfile": text})
    async with server.connect() as session:
        for outputs in (["/a", "/b"], ["/d"], ["/a", "image"]):
            failed = await fail(session, "limit_reached", "code", source=source, outputs=outputs)
            assert "more than their limit" in failed["failure"]["message"]
        tests = [{"name": "t", "command": "true", "outputs": ["/a", "/b"]}]
        status = await succeed(session, source=source, tests=tests)
        first, second = status["outputs"]
        assert first["size_bytes"] == 900000 and "more than their limit" in second["missing"]
        # A report is told all the same, and where nothing is handed over at all.
        tests = [{"name": "t", "command": REPORT, "outputs": ["/a", "/b"], "report": "/tmp/junit.xml"}]
        status = await succeed(session, source=source, tests=tests)
        assert status["tests"][0]["report"]["cases"] == 2
        tests = [{"name": "t", "command": REPORT, "report": "/tmp/junit.xml"}]
        status = await succeed(session, source=source, tests=tests, profile="none")
        assert status["tests"][0]["report"]["cases"] == 2
        text = await refused(session, "build", {"source": source, "outputs": ["image"], "profile": "none"}, "not_allowed")
        assert "outputs: builds of the profile none hand nothing over" in text and "a profile of: default" in text


async def test_reaching_the_disk_s_limit_is_told_as_that(make_server: MakeServer, base: str) -> None:
    server = make_server(limits={"disk_mb": 64})
    text = f"FROM {base}\nRUN head -c 40000000 /dev/urandom >/large\n"
    async with server.connect() as session:
        source = file_source({"Containerfile": text})
        failed = await fail(session, "limit_reached", "code", source=source, outputs=["/large"])
        assert "disk_mb" in failed["failure"]["message"]


async def test_cases_that_failed_are_named_with_their_places(session: ClientSession, base: str) -> None:
    source = file_source({"Containerfile": f"FROM {base}\nCOPY . /src\nWORKDIR /src\n", "tests/sum.py": "x\n" * 9})
    tests = [{"name": "unit", "command": f"{REPORT}exit 1", "report": "/tmp/junit.xml"}]
    failed = await fail(session, "test_failed", "code", source=source, tests=tests)
    report = failed["tests"][0]["report"]
    assert (report["cases"], report["failed"], report["skipped"]) == (2, 1, 0)
    assert report["failures"] == [{"name": "sum.bad", "file": "tests/sum.py", "line": 7, "message": "3 is not 4"}]
    failure = failed["failure"]
    assert failure["locations"][0] == {"file": "tests/sum.py", "line": 7, "message": "3 is not 4"}
    assert failure["message"].endswith("1 of 2 cases failed")
    _, text = await ask_both(session, "status", {"build_id": failed["build_id"]})
    assert "tests/sum.py:7: 3 is not 4" in text

    tests = [{"name": "unit", "command": "exit 1", "report": "/tmp/junit.xml"}]
    failed = await fail(session, "test_failed", "code", source=source, tests=tests)
    assert failed["tests"][0]["report"]["problem"] == "there is nothing at this path"


async def test_outputs_are_fetched_over_http_by_their_owner_alone(
    make_server: MakeServer, base: str, tmp_path: Path
) -> None:
    server = make_server()
    tokens = {name: token(server, name) for name in ("ann", "bob")}
    data = unique()
    project = tmp_path / "project"
    project.mkdir()
    (project / "Containerfile").write_text(f"FROM {base}\nRUN printf {data} >/data && mkdir /d && touch /d/x\n")
    with serve(server) as url:
        ann = ["--server", url, "--json"]
        command = [*server.command[:-1], "build", str(project), *ann, "-o", "image.tar", "--extract", "/data", "--extract", "/d=d.tar"]
        done = subprocess.run(
            command, env=server.env | {"NOMAD_BUILD_TOKEN": tokens["ann"]}, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done
        assert (tmp_path / "data").read_text() == data
        assert tarfile.open(tmp_path / "d.tar").getnames() == ["x"]
        assert "index.json" in tarfile.open(tmp_path / "image.tar").getnames()
        status = json.loads(done.stdout)
        outputs = by_name(status)
        # Where it lies on the server is nothing that its callers could use.
        assert "path" not in outputs["data"]
        at = f"{url}/v1/builds/{status['build_id']}/outputs"
        asked = httpx.get(f"{at}/data", headers={"Authorization": f"Bearer {tokens['ann']}"})
        assert (asked.status_code, asked.text) == (200, data)
        assert asked.headers["content-disposition"] == 'attachment; filename="data"'
        assert asked.headers["x-content-type-options"] == "nosniff"
        assert asked.headers["etag"] == f'"{outputs["data"]["digest"]}"'
        assert httpx.get(f"{at}/data").status_code == 401
        foreign = httpx.get(f"{at}/data", headers={"Authorization": f"Bearer {tokens['bob']}"})
        unknown = httpx.get(
            at.replace(status["build_id"], "b7k2m-9xqdt") + "/data", headers={"Authorization": f"Bearer {tokens['bob']}"}
        )
        assert foreign.status_code == unknown.status_code == 404
        none = httpx.get(f"{at}/..%2Frecord.json", headers={"Authorization": f"Bearer {tokens['ann']}"})
        assert none.status_code == 404


async def test_the_command_line_saves_them(make_server: MakeServer, base: str, tmp_path: Path) -> None:
    server = make_server()
    project = tmp_path / "project"
    project.mkdir()
    (project / "Containerfile").write_text(f"FROM {base}\nRUN printf 'echo hi' >/hi && chmod 755 /hi\n")
    base_command = [*server.command[:-1], "build", "."]

    def build(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*base_command, *words], env=server.env, cwd=project, capture_output=True, text=True, timeout=120
        )

    done = build("--extract", "/hi=out", "-o", "../image.tar")
    assert done.returncode == 0, done
    assert (project / "out").stat().st_mode & 0o777 == 0o755
    assert "image is in ../image.tar" in done.stderr
    with tarfile.open(tmp_path / "image.tar") as tar:
        index = json.load(io.BytesIO(tar.extractfile("index.json").read()))
    assert index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].startswith("localhost/")
    done = build("--extract", "/none")
    assert done.returncode == 1 and "/none cannot be handed over" in done.stdout
    assert not (project / "none").exists()


async def test_they_go_with_their_build(make_server: MakeServer, base: str) -> None:
    server = make_server()
    async with server.connect() as session:
        status = await run(session, source=file_source({"Containerfile": f"FROM {base}\n"}), outputs=["/bin/sh"])
        (output,) = status["outputs"]
        path = Path(output["path"])
        path.unlink()
        told, _ = await ask_both(session, "status", {"build_id": status["build_id"]})
        assert "path" not in told["builds"][0]["outputs"][0]
        with pytest.raises(Exception, match="not there any more"):
            await session.read_resource(AnyUrl(output["uri"]))
