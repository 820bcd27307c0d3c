"""Each right of the policies of `nomad/` is needed: without it something is refused, and says what is lacking."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import UNFINISHED, items, unique
from local_bao import LocalBao
from local_consul import LocalConsul
from local_nomad import NAMESPACE, LocalNomad
from local_registry import LocalRegistry
from mcp_http import McpHttp
from server import REPOSITORY, binary, listening
from test_check_vault import token_of
from test_ready import get

NOMAD = REPOSITORY / "nomad"
SERVER = LocalNomad.server_rules().relative_to(NOMAD)
"""The policy of a server for the Nomad in use: there is another one for older ones."""
JOB = "nomad-build-default"
_numbers = itertools.count()


@dataclass(frozen=True)
class Right:
    """What a policy allows, in one word."""

    file: str
    block: str
    word: str

    def __str__(self) -> str:
        return f"{Path(self.file).parent.name}/{Path(self.file).name.split('.')[0]}: {self.word} of {self.block}"

    def without(self) -> str:
        """The policy without this right, and with all others."""
        text = (NOMAD / self.file).read_text()
        header = re.search(rf"^ *{re.escape(self.block)} {{$", text, re.MULTILINE)
        assert header
        listed = re.compile(r'capabilities = \[(.*?)\]|policy = "(\w+)"', re.DOTALL).search(text, header.end())
        assert listed
        rest = [word for word in re.findall(r'"([^"]+)"', listed[1] or "") if word != self.word]
        if rest:
            return text[: listed.start(1)] + ", ".join(map(json.dumps, rest)) + text[listed.end(1) :]
        if '"' in self.block:
            nowhere = re.sub('".*"', '"nowhere"', header[0])
            return text[: header.start()] + nowhere + text[header.end() :]
        return text[: header.start()] + text[text.index("}", listed.end()) + 1 :]


def rights() -> Iterator[Right]:
    """Every right of every policy."""
    files = [NOMAD / SERVER, *(NOMAD / f"policies/{task}.policy.hcl" for task in ("build", "publish", "archive"))]
    files += [*NOMAD.glob("vault/*.policy.hcl"), *NOMAD.glob("consul/*.hcl")]
    assert {*NOMAD.glob("policies/*")} - {*files} <= {*NOMAD.glob("policies/server*")}
    for file in files:
        blocks: list[str] = []
        listing = False
        for line in file.read_text().splitlines():
            code = line.split("#")[0].strip()
            if code.endswith("{"):
                blocks.append(code.removesuffix("{").strip())
            elif code == "}":
                blocks.pop()
            elif listing or code.startswith(("capabilities =", "policy =")):
                yield from (Right(str(file.relative_to(NOMAD)), blocks[-1], word) for word in re.findall(r'"([^"]+)"', code))
                listing = (listing or code.startswith("capabilities")) and "]" not in code


RIGHTS = list(rights())


@dataclass
class Cluster:
    """Nomad, Consul and Vault with access control, set up by the policies of `nomad/` alone."""

    nomad: LocalNomad
    consul: LocalConsul
    bao: LocalBao
    registry: LocalRegistry
    base: str
    directory: Path

    def server_token(self, rules: str) -> str:
        """A token of Nomad that may do this."""
        name = f"less-{next(_numbers)}"
        self.nomad.request("POST", f"/v1/acl/policy/{name}", {"Name": name, "Rules": rules})
        token = self.nomad.request("POST", "/v1/acl/token", {"Name": name, "Type": "client", "Policies": [name]})
        return str(token["SecretID"])

    def environment(self, token: str, more: str = "") -> dict[str, str]:
        """Of a server with this token of Nomad."""
        config = self.directory / f"config-{next(_numbers)}.toml"
        config.write_text(
            f"registry.insecure = {json.dumps([self.registry.host])}\n"
            f"nomad.repository = {json.dumps(f'{self.registry.host}/nomad-build')}\n"
            f'nomad.secrets_within = 5\nnomad.kill_grace = 3\nprofiles.default.secrets = ["npm"]\n{more}\n'
        )
        own = {
            "NOMAD_ADDR": self.nomad.address, "NOMAD_TOKEN": token, "NOMAD_NAMESPACE": NAMESPACE,
            "NOMAD_BUILD_CONFIG": str(config), "NOMAD_BUILD_STATE_DIR": str(self.directory / f"state-{next(_numbers)}"),
        }  # fmt: skip
        return os.environ | own

    def check(self, *arguments: str, **env: str) -> list[str]:
        """The lines of `nomad-build check …` that are not `ok`."""
        done = subprocess.run(
            [str(binary()), "check", *arguments], env=self.environment("") | env, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        lines = [line for line in items(done).splitlines() if not line.startswith(("ok ", "untried "))]
        assert done.returncode == (1 if lines else 0), done
        return lines

    def check_vault(self, token: str) -> list[str]:
        """The same of Vault."""
        return self.check("--vault", VAULT_ADDR=self.bao.address, VAULT_TOKEN=token, NO_PROXY="127.0.0.1")

    @contextmanager
    def serving(self, token: str | None = None, more: str = "") -> Iterator[Serving]:
        """A server with this token of Nomad, or with one that has all rights."""
        token = token or self.server_token((NOMAD / SERVER).read_text())
        command = [str(binary()), "serve", "--backend", "nomad", "--http", "127.0.0.1:0", "--no-auth"]
        log = self.directory / f"server-{next(_numbers)}.log"
        with listening(command, log, self.environment(token, more)) as address:
            session = McpHttp(f"{address}/mcp", "none is asked for")
            session.initialize()
            yield Serving(self, address, session, log)

    @contextmanager
    def task_policy(self, task: str, rules: str) -> Iterator[None]:
        """One of the tasks may do this in Nomad, and no more."""
        path = f"/v1/acl/policy/{JOB}-{task}"
        before = self.nomad.request("GET", path)
        self.nomad.request("POST", path, before | {"Rules": rules})
        yield
        self.nomad.request("POST", path, before)

    def allocation(self, build: str) -> dict[str, Any]:
        (job,) = self.nomad.request("GET", f"/v1/jobs?namespace={NAMESPACE}&prefix={JOB}/dispatch-{build}")
        path = f"/v1/job/{job['ID'].replace('/', '%2F')}/allocations?namespace={NAMESPACE}"
        (allocation,) = self.nomad.request("GET", path)
        return allocation

    def stderr(self, build: str, task: str) -> str:
        """What a task of an ended build has told its operator."""

        def over() -> bool:
            # None before the client has said anything.
            states = self.allocation(build)["TaskStates"] or {}
            return states.get(task, {}).get("State") == "dead"

        eventually(over, f"the end of {task}")
        allocation = self.allocation(build)["ID"]
        return self.nomad.run("alloc", "logs", "-namespace", NAMESPACE, "-stderr", "-task", task, allocation)


@dataclass
class Serving:
    """A server while it runs."""

    cluster: Cluster
    address: str
    session: McpHttp
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def ready(self) -> str:
        return get(self.address, "readyz")[1]

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        answer = self.session.call(tool, arguments)
        assert not answer.get("isError"), answer
        return answer["structuredContent"]

    def submit(self, *steps: str, **arguments: Any) -> str:
        """Starts a small build."""
        text = "\n".join([f"FROM {self.cluster.base}", *steps, f"RUN echo {unique()}\n"])
        source = {"files": [{"path": "Containerfile", "text": text}]}
        return str(self.call("build", source=source, **arguments)["build_id"])

    def status(self, build: str, **arguments: Any) -> dict[str, Any]:
        return self.call("status", build_id=build, **arguments)["builds"][0]

    def end(self, build: str) -> dict[str, Any]:
        """How a build has ended."""
        deadline = time.monotonic() + 90
        while (status := self.status(build, wait=20))["state"] in UNFINISHED:
            assert time.monotonic() < deadline, status
        return status

    def run(self, *steps: str, **arguments: Any) -> dict[str, Any]:
        return self.end(self.submit(*steps, **arguments))

    def refused(self) -> str:
        """The error of a build that is not accepted."""
        source = {"files": [{"path": "Containerfile", "text": f"FROM {self.cluster.base}\n"}]}
        answer = self.session.call("build", {"source": source})
        assert answer.get("isError"), answer
        return str(answer["content"][0]["text"])


def eventually(condition: Callable[[], Any], what: str, seconds: float = 40) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster(registry: LocalRegistry, base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ExitStack() as stack:
        bao, consul = stack.enter_context(LocalBao()), stack.enter_context(LocalConsul())
        nomad = stack.enter_context(LocalNomad(memory_mb=4096, more=bao.agent() + consul.agent(consul.nomad_token())))
        bao.set_up(nomad.address, "default")
        for path in ("default/build", "default/publish", "default/archive", "server"):
            bao.put(f"nomad-build/{path}", {"npm": "a secret"})
        tasks = [
            f"state_dir = {json.dumps(str(nomad.directory / 'client'))}",
            f"registry.insecure = {json.dumps([registry.host])}",
            f"nomad.repository = {json.dumps(f'{registry.host}/nomad-build')}",
        ]
        user = "root" if os.geteuid() == 0 else os.environ["USER"]
        shared = {"program": str(binary()), "config": "\n".join(tasks), "user": user, "disk": "512"}
        taken = {"vault": "true", "build_secrets": '["npm"]', "publish_secrets": "[]", "archive_secrets": "[]"}
        job_file = NOMAD / "build-raw-exec.nomad.hcl"
        nomad.set_up(job_file, **shared, **taken, memory="512")
        # One that waits for as long as one likes.
        nomad.run("job", "run", str(job_file), profile="huge", namespace=NAMESPACE, **shared, memory="100000")
        yield Cluster(nomad, consul, bao, registry, base, tmp_path_factory.mktemp("rights"))


@pytest.fixture(scope="module")
def ended(cluster: Cluster) -> str:
    """A build that has ended: rights to builds are tried on one."""
    with cluster.serving() as serving:
        tag = f"{cluster.registry.host}/rights/{unique()}:1"
        status = serving.run("RUN --mount=type=secret,id=npm test -s /run/secrets/npm", secrets=["npm"], tags=[tag])
        assert status["state"] == "succeeded" and status["image"]["published"], status
        assert cluster.stderr(status["build_id"], "archive") is not None
        return str(status["build_id"])


def test_with_all_of_them_nothing_is_lacking(cluster: Cluster, ended: str) -> None:
    with cluster.serving(cluster.nomad.server_token()) as serving:
        assert serving.ready() == "ready\n"
        build = serving.submit("RUN echo begun; sleep 600")
        eventually(lambda: "| begun" in serving.call("logs", build_id=build)["text"], "its first words")
        assert serving.call("kill", build_id=build, wait=15)["kill_result"] == "cancelled"
        assert " WARN " not in serving.log and " ERROR " not in serving.log, serving.log
    assert cluster.check("--backend", "nomad", NOMAD_TOKEN=cluster.nomad.server_token()) == []
    cluster.bao.request("PUT", "sys/policies/acl/nomad-build-check", {"policy": (NOMAD / "vault/check.policy.hcl").read_text()})
    assert cluster.check_vault(token_of(cluster.bao, "nomad-build-check")) == []


Seen = Callable[[Cluster, Right], None]


def checked(line: str) -> Seen:
    """`nomad-build check --backend nomad` says so, and finds nothing else."""

    def seen(cluster: Cluster, right: Right) -> None:
        lines = cluster.check("--backend", "nomad", NOMAD_TOKEN=cluster.server_token(right.without()))
        assert len([one for one in lines if one.startswith(f"missing  {line}")]) == 1, lines

    return seen


def not_ready(said: str) -> Seen:
    """The server is not ready, and its log says why."""

    def seen(cluster: Cluster, right: Right) -> None:
        with cluster.serving(cluster.server_token(right.without())) as serving:
            eventually(lambda: said in serving.log, said)
            assert "nomad: " in serving.ready(), serving.ready()

    return seen


def refuses(said: str) -> Seen:
    """A build is not accepted, and the error says why."""

    def seen(cluster: Cluster, right: Right) -> None:
        with cluster.serving(cluster.server_token(right.without())) as serving:
            why = serving.refused()
            assert why.startswith("error[backend_unavailable]") and said in why, why

    return seen


def cannot_stop(cluster: Cluster, right: Right) -> None:
    with cluster.serving(cluster.server_token(right.without()), 'profiles.huge.description = "waits"') as serving:
        build = serving.submit(profile="huge")
        assert serving.call("kill", build_id=build, wait=15)["kill_result"] == "cancelled"
        assert f"Nomad refuses to stop the job nomad-build-huge/dispatch-{build}" in serving.log, serving.log


def cannot_tell(cluster: Cluster, right: Right) -> None:
    with cluster.serving(cluster.server_token(right.without())) as serving:
        build = serving.submit("RUN sleep 600")
        serving.status(build, until="started", wait=40)
        serving.call("kill", build_id=build)
        assert serving.end(build)["state"] == "cancelled"
        assert "Nomad refuses to signal the task build of" in serving.log, serving.log


def cannot_read_logs(cluster: Cluster, right: Right) -> None:
    with cluster.serving(cluster.server_token(right.without())) as serving:
        build = serving.submit("RUN sleep 600")
        serving.status(build, until="started", wait=40)
        serving.call("logs", build_id=build)
        told = "a log cannot be read error=Nomad refuses to read the output of the task build of"
        eventually(lambda: told in serving.log, told)
        serving.call("kill", build_id=build)
        assert serving.end(build)["state"] == "cancelled"


def cannot_remove(cluster: Cluster, right: Right) -> None:
    with cluster.serving(cluster.server_token(right.without()), "nomad.keep_builds = 0") as serving:
        said = "Nomad refuses to remove the variable nomad-build/b/"
        eventually(lambda: said in serving.log, said)


def both(*seen: Seen) -> Seen:
    def all_of_them(cluster: Cluster, right: Right) -> None:
        for one in seen:
            one(cluster, right)

    return all_of_them


def goes_on(task: str, what: str) -> Seen:
    """The build succeeds, and the task tells its operator what it could not do."""

    def seen(cluster: Cluster, right: Right) -> None:
        with cluster.task_policy(task, right.without()), cluster.serving() as serving:
            status = serving.run()
            assert status["state"] == "succeeded", status
            said = cluster.stderr(status["build_id"], task)
        assert f"Nomad refuses to {what} the variable nomad-build/b/{status['build_id']}: Permission denied" in said, said

    return seen


def not_published(what: str) -> Seen:
    """Nothing is published, and the failure says why."""

    def seen(cluster: Cluster, right: Right) -> None:
        name = f"rights/{unique()}"
        with cluster.task_policy("publish", right.without()), cluster.serving() as serving:
            status = serving.run(tags=[f"{cluster.registry.host}/{name}:1"])
        failure = status["failure"]
        assert (status["state"], failure["fault"]) == ("failed", "operator"), status
        why = f"so nothing was tagged: Nomad refuses to {what} the variable nomad-build/b/{status['build_id']}: Permission denied"
        assert why in failure["message"], failure
        assert cluster.registry.digest(name, "1") is None

    return seen


def not_started(message: str, said: str) -> Seen:
    """A task does not get its secrets, the build fails and says so, and `check --vault` says why."""

    def seen(cluster: Cluster, right: Right) -> None:
        path = "secret/data/nomad-build/default/build"
        rules = right.without().replace("${mount}/data/${prefix}/${secrets}", path)
        cluster.bao.request("PUT", f"sys/policies/acl/{JOB}-build", {"policy": rules})
        try:
            with cluster.serving() as serving:
                failure = serving.run()["failure"]
            lines = cluster.check_vault(cluster.bao.token)
        finally:
            cluster.bao.set_up(cluster.nomad.address, "default")
        assert (failure["kind"], failure["fault"]) == ("not_started", "operator"), failure
        assert message in failure["message"], failure
        assert f"missing  role {JOB}-build: {said}" in [line.split(";")[0] for line in lines], lines

    return seen


def lacks_in_vault(cluster: Cluster, right: Right) -> None:
    cluster.bao.request("PUT", "sys/policies/acl/less", {"policy": right.without()})
    (line,) = cluster.check_vault(token_of(cluster.bao, "less"))
    said = f"{right.word} of {right.block.removeprefix('path ').strip(chr(34))}"
    mend = "mend it: vault policy write nomad-build-check nomad/vault/check.policy.hcl, and take a token of that policy"
    # Vault does not tell a token that may not look at itself from one that it does not know.
    unknown = f"or without the right {said}; mend it: vault login"
    assert line == f"missing  {said}: the token has not this right; {mend}" or unknown in line, line


def not_configured(cluster: Cluster, right: Right) -> None:
    cluster.consul.apply("less", right.without())
    token = cluster.directory / "consul-token"
    token.touch(mode=0o600)
    token.write_text(cluster.consul.token_of("less"))
    cluster.consul.put("nomad-build/nomad/keep_days", "7")
    consul = f'[consul]\nprefix = "nomad-build"\naddress = "{cluster.consul.address}"\ntoken_file = "{token}"\n'
    with cluster.serving(more=consul) as serving:
        eventually(lambda: "the token has not the right key_prefix read" in serving.log, "a refusal")
        assert "consul: Consul does not answer, or refuses this server" in serving.ready()


def not_found(cluster: Cluster, right: Right) -> None:
    cluster.consul.apply("less", right.without())
    service = {"Name": "nomad-build", "ID": "other", "Port": 1}
    cluster.consul.request("PUT", "/v1/agent/service/register", service)
    env = os.environ | {"CONSUL_HTTP_ADDR": cluster.consul.address, "NOMAD_BUILD_TOKEN": "x"}
    env["CONSUL_HTTP_TOKEN"] = cluster.consul.token_of("less")
    command = [str(binary()), "build", "--server", "consul://nomad-build", str(cluster.directory)]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    finally:
        cluster.consul.request("PUT", "/v1/agent/service/deregister/other")
    assert done.returncode and "the token has not the rights service read and node read" in done.stderr, done


REGISTERED = """
job "NAME" {
  group "one" {
    network {
      port "http" {}
    }
    service {
      name     = "nomad-build"
      provider = "consul"
      port     = "http"
    }
    task "one" {
      driver = "raw_exec"
      config {
        command = "/bin/sleep"
        args    = ["600"]
      }
      resources {
        cpu    = 20
        memory = 16
      }
    }
  }
}
"""


@contextmanager
def registered(cluster: Cluster, rules: str) -> Iterator[str]:
    """A job with a service in Consul, which Nomad's agent registers by these rules."""
    name = unique("job-")
    file = cluster.directory / f"{name}.nomad.hcl"
    file.write_text(REGISTERED.replace("NAME", name))
    cluster.consul.apply("nomad-build-nomad", rules)
    try:
        yield str(file)
    finally:
        cluster.consul.nomad_token()
        with contextlib.suppress(RuntimeError):
            cluster.nomad.run("job", "stop", "-purge", "-detach", name)


def test_a_service_is_registered(cluster: Cluster) -> None:
    with registered(cluster, (NOMAD / "consul/nomad.policy.hcl").read_text()) as file:
        cluster.nomad.run("job", "run", "-detach", file)
        eventually(lambda: cluster.consul.request("GET", "/v1/catalog/service/nomad-build"), "the service")
    eventually(lambda: not cluster.consul.request("GET", "/v1/catalog/service/nomad-build"), "its end")


def not_registered(cluster: Cluster, right: Right) -> None:
    with registered(cluster, right.without()) as file:
        cluster.nomad.run("job", "run", "-detach", file)
        said = "lacks permission 'service:write' on \"nomad-build\""
        eventually(lambda: said in (cluster.nomad.directory / "agent.log").read_text(), said)
    assert cluster.consul.request("GET", "/v1/catalog/service/nomad-build") == []


def no_consul(cluster: Cluster, right: Right) -> None:
    cluster.consul.apply("less", right.without())
    # It looks for Consul until it has found one.
    with LocalNomad(more=cluster.consul.agent(cluster.consul.token_of("less"))) as nomad:
        said = "lacks permission 'agent:read'"
        eventually(lambda: said in (nomad.directory / "agent.log").read_text(), said)
        file = cluster.directory / "plan.nomad.hcl"
        file.write_text(REGISTERED)
        # Which ends with 1 where something is to be done.
        try:
            plan = nomad.run("job", "plan", str(file))
        except RuntimeError as error:
            plan = str(error)
        assert "${attr.consul.version} semver >= 1.8.0" in plan, plan


BUILDS = 'namespace "builds"'
RECORDS = 'path "nomad-build/*"'
RECORD = 'path "nomad-build/b/*"'
OWN_VARIABLES = 'variables "nomad-build/*": Nomad refuses to'
STOPS = both(checked("deregister-job: Nomad refuses to stop the job"), cannot_stop)
OF_SERVER: dict[tuple[str, str], Seen] = {
    (BUILDS, "list-jobs"): both(checked("list-jobs: Nomad refuses to list jobs"), not_ready("Nomad refuses to list jobs")),
    (BUILDS, "read-job"): both(checked("read-job: Nomad refuses to read the job"), not_ready("Nomad refuses to")),
    (BUILDS, "dispatch-job"): both(
        checked("dispatch-job: Nomad refuses to dispatch the job"), refuses(f"Nomad refuses to dispatch the job {JOB}"),
    ),
    # Its name since Nomad 1.11.2, and before.
    (BUILDS, "deregister-job"): STOPS,
    (BUILDS, "submit-job"): STOPS,
    (BUILDS, "read-logs"): both(checked("read-logs: Nomad refuses to read the output"), cannot_read_logs),
    (BUILDS, "alloc-lifecycle"): both(checked("alloc-lifecycle: Nomad refuses to signal the task"), cannot_tell),
    (RECORDS, "read"): both(checked(f"{OWN_VARIABLES} read the variable"), not_ready("Nomad refuses to read the variable nomad-build/b/")),
    (RECORDS, "write"): both(checked(f"{OWN_VARIABLES} write the variable"), refuses("Nomad refuses to write the variable")),
    (RECORDS, "destroy"): both(checked(f"{OWN_VARIABLES} remove the variable"), cannot_remove),
    ("node", "read"): checked("nodes: Nomad refuses to list nodes"),
}  # fmt: skip
SEEN: dict[tuple[str, str, str], Seen] = {(str(SERVER), *right): seen for right, seen in OF_SERVER.items()} | {
    ("policies/build.policy.hcl", RECORD, "read"): goes_on("build", "read"),
    ("policies/publish.policy.hcl", RECORD, "read"): not_published("read"),
    ("policies/publish.policy.hcl", RECORD, "write"): not_published("write"),
    ("policies/archive.policy.hcl", RECORD, "read"): goes_on("archive", "read"),
    ("policies/archive.policy.hcl", RECORD, "write"): goes_on("archive", "write"),
    ("vault/task.policy.hcl", 'path "${mount}/data/${prefix}/${secrets}"', "read"): not_started(
        "Missing: vault.read(secret/data/nomad-build/default/build)",
        "no policy of it reads secret/data/nomad-build/default/build",
    ),
    ("vault/task.policy.hcl", 'path "auth/token/renew-self"', "update"): not_started(
        "at the policy of the task's role",
        "no policy of it has update of auth/token/renew-self, and Nomad starts no task whose token it cannot renew",
    ),
    ("consul/server.policy.hcl", 'key_prefix "nomad-build/"', "read"): not_configured,
    ("consul/client.policy.hcl", 'service "nomad-build"', "read"): not_found,
    ("consul/client.policy.hcl", 'node_prefix ""', "read"): not_found,
    ("consul/nomad.policy.hcl", 'agent_prefix ""', "read"): no_consul,
    ("consul/nomad.policy.hcl", 'service "nomad-build"', "write"): not_registered,
}


@pytest.mark.parametrize("right", RIGHTS, ids=str)
def test_each_right_is_missed_by_name(cluster: Cluster, ended: str, right: Right) -> None:
    if right.file == "vault/check.policy.hcl":
        lacks_in_vault(cluster, right)
    else:
        SEEN[right.file, right.block, right.word](cluster, right)
