#!/usr/bin/env python3
"""Runs the failing builds of tests/failures with real Buildah, and writes what it printed beside each.

    scripts/record_failures.py [--buildah PATH]... [--only TEXT]... [--missing]

A case is tests/failures/FAMILY/NAME.toml: the Containerfile, its files, and what the diagnosis must say. Below the line
MARK this script writes the runs: the version of Buildah, the isolation, the exit status and the output. `--missing`
leaves cases alone that have all runs. In a Containerfile and its files stand @BASE@ for a small image, @TOOLS@ for one
whose programs are this machine's (gcc, go, cargo, python, node, Maven, …), @HOST@ for a registry, @CLOSED@ for a port
where nobody listens, @WEB@ for a server of errors: /404, /403, /503, /hang. As root, builds run as an account for builds.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import http.server
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import tomllib
from pathlib import Path
from typing import Any

from local_registry import LocalRegistry, free_port

REPOSITORY = Path(__file__).resolve().parents[1]
CASES = REPOSITORY / "tests/failures"
MARK = "# Below: recorded by scripts/record_failures.py."
BUILDAHS = ["/usr/bin/buildah", "/usr/local/lib/nomad-build/tools/buildah-1.43.2/buildah"]
ISOLATIONS = {
    "chroot": ["--isolation", "chroot", "--cap-drop", "CAP_SYS_CHROOT"],
    "rootless": ["--isolation", "rootless", "--runtime", "runc", "--network", "host"],
}
LOCKS = Path("/run/nomad-build/users")
SECONDS = 240
MOST_BYTES = 48_000
TRIES = 6
# What stands in recordings for what differs from run to run.
NAMES = {"host": "registry.test:5000", "closed": "registry.test:1", "web": "web.test:8000"}
# Directories of this machine's tools, and where they are in the image of tools.
TOOLS = {
    "/usr": "/usr",
    "/etc/alternatives": "/etc/alternatives",
    "/etc/java-17-openjdk": "/etc/java-17-openjdk",
    "/etc/maven": "/etc/maven",
    "/etc/ssl": "/etc/ssl",
}
RUST = Path.home() / ".rustup/toolchains/stable-x86_64-unknown-linux-gnu"


class Errors(http.server.BaseHTTPRequestHandler):
    """Answers /NUMBER with that status; /hang with nothing."""

    def do_GET(self) -> None:
        """The only method."""
        number = re.search(r"/(\d{3})\b", self.path)
        if "/hang" in self.path:
            threading.Event().wait(60)
        body = b"not what you wanted\n"
        self.send_response(int(number.group(1)) if number else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


class Recorder:
    """Everything that runs need."""

    def __init__(self, work: Path, registry: LocalRegistry, web: str) -> None:
        self.work = work
        self.registry = registry
        self.closed = f"127.0.0.1:{free_port()}"
        self.web = web
        self.user: list[str] = []
        self.lock: Any = None
        if os.geteuid() == 0:
            self._take_user()

    def _take_user(self) -> None:
        """The last account for builds, for as long as this runs."""
        names = [entry.pw_name for entry in pwd.getpwall() if re.fullmatch(r"nomad-build-\d+", entry.pw_name)]
        name = max(names, key=lambda name: int(name.rsplit("-", 1)[1]))
        LOCKS.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.lock = (LOCKS / f"{name}.lock").open("a")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        entry = pwd.getpwnam(name)
        self.user = ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
        self.ids = (entry.pw_uid, entry.pw_gid)

    def own(self, path: Path) -> None:
        """Gives a tree to the account."""
        if self.user:
            subprocess.run(["chown", "-R", "{}:{}".format(*self.ids), str(path)], check=True)

    def buildah(self, binary: str, *arguments: str, auth: bool = False) -> tuple[int, bytes]:
        """Runs Buildah; both streams together."""
        root = self.work / f"storage-{Path(binary).parent.name}"
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.work / "home"),
            "XDG_RUNTIME_DIR": str(self.work / "run"),
            "TMPDIR": str(self.work / "tmp"),
            "CONTAINERS_CONF": str(self.work / "containers.conf"),
        }
        command = [*self.user, "env", "-i", *(f"{key}={value}" for key, value in environment.items())]
        command += [binary, "--storage-driver", "vfs", "--root", str(root), "--runroot", f"{root}-run", *arguments]
        try:
            done = subprocess.run(
                command, cwd=self.work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=SECONDS, check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SystemExit(f"Buildah did not end: {' '.join(arguments)}\n{error.output!r}") from error
        return done.returncode, done.stdout

    def fill(self, text: str) -> str:
        """Puts in what a run needs."""
        for word, value in self.words().items():
            text = text.replace(word, value)
        return text

    def words(self) -> dict[str, str]:
        """What stands for what."""
        return {
            "@BASE@": f"{self.registry.host}/test/base:1",
            "@TOOLS@": f"{self.registry.host}/test/tools:1",
            "@HOST@": self.registry.host,
            "@CLOSED@": self.closed,
            "@WEB@": self.web,
        }

    def anonymous(self, output: bytes, context: Path) -> bytes:
        """Without the names of this run."""
        pairs = [
            (self.registry.host, NAMES["host"]),
            (self.closed, NAMES["closed"]),
            (self.web, NAMES["web"]),
            (str(context), "/context"),
            (str(self.work), "/work"),
        ]
        for old, new in pairs:
            output = output.replace(old.encode(), new.encode())
            host, _, port = old.partition(":")
            if port.isdigit():
                output = output.replace(f"{host} port {port}".encode(), new.replace(":", " port ").encode())
                output = output.replace(f"{host} {port}".encode(), new.replace(":", " ").encode())
        return output

    def prepare(self, binary: str) -> None:
        """The images of all cases in the store of one version."""
        for name in ("home", "run", "tmp"):
            (self.work / name).mkdir(exist_ok=True)
        (self.work / "helpers").mkdir(exist_ok=True)
        # From 1.39 on it wants this program even where it does not use it.
        netavark = self.work / "helpers/netavark"
        netavark.write_text("#!/bin/sh\nexit 0\n")
        netavark.chmod(0o755)
        conf = f'[engine]\nhelper_binaries_dir = ["{self.work}/helpers"]\n'
        (self.work / "containers.conf").write_text(conf)
        self.own(self.work)
        words = self.words()
        status, output = self.buildah(binary, "pull", "--tls-verify=false", words["@BASE@"])
        if status:
            raise SystemExit(output.decode(errors="replace"))
        tools = self.work / "tools"
        root = tools / "root"
        if not root.exists():
            for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
                root.mkdir(parents=True, exist_ok=True)
                if (Path("/") / name).is_symlink():
                    (root / name).symlink_to(f"usr/{name}")
            for name in ("dev", "proc", "sys", "root", "var/lib", "var/cache", "etc", *(to.strip("/") for to in TOOLS.values()), "opt/rust", "opt/site"):
                (root / name).mkdir(parents=True, exist_ok=True)
            (root / "tmp").mkdir(mode=0o1777)
            (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
            (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
            (tools / "Containerfile").write_text(
                "FROM scratch\nCOPY root/ /\nENV PATH=/opt/rust/bin:/usr/local/go/bin:/usr/bin:/bin PYTHONPATH=/opt/site HOME=/root\n"
            )
            self.own(tools)
        status, output = self.buildah(
            binary, "build", "--quiet", "--isolation", "chroot", "--tag", words["@TOOLS@"], str(tools)
        )
        if status:
            raise SystemExit(output.decode(errors="replace"))

    def volumes(self) -> list[str]:
        """The machine's tools, mounted read-only."""
        found = [f"{source}:{target}:ro" for source, target in TOOLS.items() if Path(source).exists()]
        for name in ("rust", "site"):
            if (self.work / "bound" / name).exists():
                found.append(f"{self.work}/bound/{name}:/opt/{name}:ro")
        return [f"--volume={volume}" for volume in found]

    def run(self, case: dict[str, Any], binary: str, isolation: str) -> dict[str, Any]:
        """One build, test or pull."""
        with tempfile.TemporaryDirectory(dir=self.work) as directory:
            context = Path(directory) / "context"
            context.mkdir()
            files = {"Containerfile": case.get("containerfile", "FROM @BASE@\n"), **case.get("files", {})}
            for name, text in files.items():
                path = context / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.fill(text).encode())
                path.chmod(0o755 if text.startswith("#!") else 0o644)
            for name, text in case.get("binaries", {}).items():
                (context / name).write_bytes(base64.b64decode(text))
            self.own(Path(directory))
            options = ISOLATIONS[isolation]
            for setup in case.get("before", []):
                # ONBUILD is nothing that the OCI format has.
                made = ["--format=docker", "--tag", self.fill(setup["tag"]), "--file", str(context / setup["file"])]
                self._build(binary, context, isolation, made)
            if case.get("phase") == "pull":
                argv = ["pull", "--policy", "always"]
                argv += ["--tls-verify=false"] if case.get("insecure", True) else []
                argv += [self.fill(word) for word in case.get("options", [])]
                status, output = self.buildah(binary, *argv, "--", self.fill(case["image"]))
            elif case.get("phase") == "test":
                built, output = self._build(binary, context, isolation, ["--tag", "localhost/tested", "--quiet"])
                if built:
                    raise SystemExit(output.decode(errors="replace"))
                self.buildah(binary, "from", "--quiet", "--pull-never", "--name", "tested", "localhost/tested")
                tools = self.volumes() if "@TOOLS@" in files["Containerfile"] else []
                status, output = self.buildah(binary, "run", *options, *tools, "tested", "--", *case["argv"])
                self.buildah(binary, "rm", "tested")
            else:
                argv = [self.fill(word) for word in case.get("options", [])]
                if "@TOOLS@" in files["Containerfile"]:
                    argv += self.volumes()
                status, output = self._build(binary, context, isolation, argv)
            output = self.anonymous(output, context)
        if len(output) > MOST_BYTES:
            raise SystemExit(f"{len(output)} bytes are too much for a small file")
        version = Path(binary).parent.name.removeprefix("buildah-")
        version = version if version[0].isdigit() else version_of(binary)
        run = {"buildah": version, "isolation": isolation, "status": status}
        try:
            return {**run, "output": output.decode()}
        except UnicodeDecodeError:
            return {**run, "base64": base64.b64encode(output).decode()}

    def _build(self, binary: str, context: Path, isolation: str, options: list[str]) -> tuple[int, bytes]:
        argv = ["build", *ISOLATIONS[isolation], "--pull=never", "--http-proxy=false", "--format=oci"]
        argv += ["--ulimit=core=0:0", "--layers=true"]
        if not any(option == "--file" for option in options):
            argv += ["--file", str(context / "Containerfile")]
        ignore = next((context / name for name in (".containerignore", ".dockerignore") if (context / name).exists()), None)
        argv += ["--ignorefile", str(ignore)] if ignore else []
        return self.buildah(binary, *argv, *options, str(context))


def version_of(binary: str) -> str:
    """Its version."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    return said.split()[2]


def _escaped(line: str) -> str:
    """A line within a basic string of TOML."""
    text = json.dumps(line, ensure_ascii=False)[1:-1]
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def render(run: dict[str, Any]) -> str:
    """A run in TOML, with every line of the output on a line of its own."""
    lines = [f"\n[[run]]\nbuildah = {json.dumps(run['buildah'])}\nisolation = {json.dumps(run['isolation'])}\nstatus = {run['status']}"]
    if "base64" in run:
        lines.append(f"base64 = {json.dumps(run['base64'])}")
    else:
        body = "\n".join(_escaped(line) for line in run["output"].split("\n"))
        lines.append('output = """\n' + body + '"""')
    return "\n".join(lines) + "\n"


def main() -> None:
    """Records what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--buildah", action="append", help="a program; may be given several times")
    parser.add_argument("--only", action="append", default=[], help="cases whose path has this text")
    parser.add_argument("--missing", action="store_true", help="leave cases alone that have all runs")
    options = parser.parse_args()
    binaries = options.buildah or [path for path in BUILDAHS if Path(path).exists()]
    cases = [path for path in sorted(CASES.glob("*/*.toml")) if not options.only or any(text in str(path) for text in options.only)]
    with tempfile.TemporaryDirectory(prefix="nomad-build-failures-") as directory, LocalRegistry() as registry:
        work = Path(directory)
        work.chmod(0o755)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Errors)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        subprocess.run(
            [str(REPOSITORY / "scripts/base-image.sh"), f"{registry.host}/test/base:1", "--insecure"], check=True, capture_output=True
        )
        bind(work / "bound")
        recorder = Recorder(work, registry, f"127.0.0.1:{server.server_port}")
        try:
            for binary in binaries:
                recorder.prepare(binary)
            for path in cases:
                record(path, recorder, binaries, options.missing)
        finally:
            for binary in binaries:
                root = work / f"storage-{Path(binary).parent.name}"
                recorder.buildah(binary, "unshare", "rm", "-rf", str(root), f"{root}-run")
            for name in ("rust", "site"):
                subprocess.run(["umount", "-l", str(work / "bound" / name)], check=False, capture_output=True)


def bind(where: Path) -> None:
    """Makes tools readable that lie below root's home; the mounts are gone with this process's namespace."""
    if os.geteuid() != 0:
        return
    import pytest

    for name, source in {"rust": RUST, "site": Path(pytest.__file__).parents[1]}.items():
        if source.exists():
            (where / name).mkdir(parents=True)
            subprocess.run(["mount", "--bind", str(source), str(where / name)], check=True)


def recorded(recorder: Recorder, case: dict[str, Any], binary: str, isolation: str) -> dict[str, Any]:
    """One run; once more where Buildah lost what the command printed last, as it can with the isolation chroot."""
    for _ in range(TRIES):
        run = recorder.run(case, binary, isolation)
        # Only a STEP line or the id of a layer stands before what Buildah says of its child.
        if not re.search(r"\n(\[\d+/\d+\] )?(STEP |--> ).*\nsubprocess exited with status ", run.get("output", "")):
            break
    return run


def record(path: Path, recorder: Recorder, binaries: list[str], missing: bool) -> None:
    """Writes the runs of one case."""
    head = path.read_text().partition(MARK)[0].rstrip() + "\n"
    case = tomllib.loads(head)
    isolations = case.get("isolations", list(ISOLATIONS))
    wanted = [binary for binary in binaries if not case.get("buildah") or version_of(binary) in case["buildah"]]
    if case.get("phase") == "pull":
        isolations = isolations[:1]
    if missing and len(tomllib.loads(path.read_text()).get("run", [])) == len(wanted) * len(isolations):
        return
    runs = [recorded(recorder, case, binary, isolation) for binary in wanted for isolation in isolations]
    passed = [run for run in runs if run["status"] == 0]
    print(path.relative_to(CASES), *(run["status"] for run in runs), "PASSED" if passed else "", flush=True)
    path.write_text(f"{head}\n{MARK}\n" + "".join(render(run) for run in runs))


if __name__ == "__main__":
    if os.geteuid() == 0 and "NOMAD_BUILD_RECORDS" not in os.environ:
        # Mounts of this script are nobody else's.
        os.environ["NOMAD_BUILD_RECORDS"] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv])
    if not shutil.which("docker-registry"):
        raise SystemExit("docker-registry is missing: run scripts/setup.sh test")
    main()
