"""Secrets of builds as jobs of Nomad: from Vault's API (OpenBao), by Nomad's Vault integration alone."""

from __future__ import annotations

import base64
import gzip
import json
import os
import pwd
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import push_base
from demo_nomad import server_user
from git_http import commit
from git_ssh import GitSsh
from helpers import ask, file_source, files, log_text, refused, run, submit, succeed, unique, wait_final, wait_for
from local_bao import LocalBao
from local_consul import LocalConsul
from local_nomad import NAMESPACE, LocalNomad
from local_registry import LocalRegistry, Login, write_auth_file
from mcp import ClientSession
from search import Search
from server import REPOSITORY, binary
from test_nomad_server import NAME, Served, make_token

PROFILES = ("default", "large")
SECRET = "s3cr3t/of+npm=" + "x" * 20
OTHER = "0ther-s3cret-of-the-profile-large"


@dataclass
class Cluster:
    """A cluster where every right and every secret is in force."""

    bao: LocalBao
    consul: LocalConsul
    finds: str
    """Token of who looks for the server in Consul."""
    reads: str
    """Token of the server in Consul."""
    nomad: LocalNomad
    served: Served
    git: GitSsh
    pulled: LocalRegistry
    pushed: LocalRegistry
    kept: LocalRegistry
    base: str
    registers: str
    """Token of Nomad's agent in Consul."""
    before: set[Path] = field(repr=False)
    """What was there where builds may leave something, before all of this."""

    @property
    def secrets(self) -> dict[str, str]:
        """Everything that must be found nowhere."""
        logins = {"pull": self.pulled.login, "push": self.pushed.login, "keep": self.kept.login}
        passwords = {name: login.password for name, login in logins.items() if login}
        lines = self.git.key.read_text().splitlines()[1:-1]
        tokens = {
            "bao": self.bao.token, "consul": self.consul.token, "finds": self.finds, "reads": self.reads,
            "registers": self.registers, "nomad": self.nomad.token, "ann": self.served.tokens["ann"],
        }  # fmt: skip
        return passwords | tokens | {"npm": SECRET, "other": OTHER, "key": lines[1]}


def auth(registry: LocalRegistry, directory: Path) -> str:
    assert registry.login
    return write_auth_file(directory / f"auth-{registry.host}.json", {registry.host: registry.login}).read_text()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    work = tmp_path_factory.mktemp("vault")
    before = set(scratch())
    with ExitStack() as stack:
        enter = stack.enter_context
        pulled = enter(LocalRegistry(Login("puller", "pull-pass-" + unique())))
        pushed = enter(LocalRegistry(Login("pusher", "push-pass-" + unique())))
        kept = enter(LocalRegistry(Login("keeper", "keep-pass-" + unique()), delete=True))
        base = push_base(pulled, work)
        ssh = enter(GitSsh())
        bao = enter(LocalBao())
        consul = enter(LocalConsul())
        registers = consul.nomad_token()
        nomad = enter(LocalNomad(memory_mb=6144, more=bao.agent() + consul.agent(registers)))
        bao.set_up(nomad.address, *PROFILES)
        build = json.loads(auth(pulled, work))
        build["auths"] |= json.loads(auth(kept, work))["auths"]
        for profile in PROFILES:
            secret = {"npm": SECRET} if profile == "default" else {"gpg": OTHER}
            fields = {"auth.json": json.dumps(build), "deploy-key": ssh.key.read_text(), "known_hosts": ssh.known_hosts.read_text()}
            bao.put(f"nomad-build/{profile}/build", fields | secret)
            bao.put(f"nomad-build/{profile}/publish", {"auth.json": auth(pushed, work)})
            bao.put(f"nomad-build/{profile}/archive", {"auth.json": auth(kept, work)})
        bao.put("nomad-build/server", {"auth.json": auth(kept, work), "consul-token": (reads := consul.server_token())})
        hosts = [registry.host for registry in (pulled, pushed, kept)]
        repository = f"{kept.host}/nomad-build"
        shared = [f"registry.insecure = {json.dumps(hosts)}", f"nomad.repository = {json.dumps(repository)}"]
        secrets = '{{ env "NOMAD_SECRETS_DIR" }}'
        tasks = [f"state_dir = {json.dumps(str(nomad.directory / 'client'))}", *shared]
        own = [
            "[[git.credentials]]", f'url = "{ssh.address}"',
            f'ssh_key = "{secrets}/deploy-key"', f'known_hosts = "{secrets}/known_hosts"',
        ]  # fmt: skip
        for profile in PROFILES:
            mine = "npm" if profile == "default" else "gpg"
            nomad.set_up(
                REPOSITORY / "nomad/build-raw-exec.nomad.hcl", profile, vault="true", program=str(binary()),
                config="\n".join(tasks), build_config="\n".join(own), user="root" if os.geteuid() == 0 else os.environ["USER"],
                build_secrets=json.dumps(["auth.json", "deploy-key", "known_hosts", mine]), disk="1024", memory="1024",
            )  # fmt: skip
        user = pwd.getpwnam(server_user())
        token, line = make_token("ann")
        rules = [
            "nomad.secrets_within = 10", "[consul]", f'address = "{consul.address}"', 'prefix = "nomad-build/"',
            f'token_file = "{secrets}/consul-token"', "[profiles.default]", 'secrets = ["npm"]',
        ]  # fmt: skip
        consul.put("nomad-build/profiles/large/secrets", '["gpg", "gone"]')
        variables = {
            "program": str(binary()), "config": "\n".join([*shared, *rules]), "user": user.pw_name, "vault": "true",
            "uid": str(user.pw_uid), "provider": "consul", "server_secrets": '["auth.json", "consul-token"]',
        }  # fmt: skip
        job_file = REPOSITORY / "nomad/server-raw-exec.nomad.hcl"
        nomad.set_up_server(job_file, NAME, line, **variables)
        finds = consul.client_token()
        served = Served(nomad, passing(consul, finds), {"ann": token}, job_file, variables)
        yield Cluster(bao, consul, finds, reads, nomad, served, ssh, pulled, pushed, kept, base, registers, before)


def passing(consul: LocalConsul, token: str, seconds: float = 90) -> str:
    """Where the server is, by Consul, once its checks pass."""
    deadline = time.monotonic() + seconds
    while not (found := consul.request("GET", f"/v1/health/service/{NAME}?passing", token=token)):
        assert time.monotonic() < deadline, consul.request("GET", f"/v1/health/service/{NAME}")
        time.sleep(0.1)
    assert set(found[0]["Service"]["Tags"]) >= {"mcp", "metrics"}
    assert {check["Name"] for check in found[0]["Checks"]} >= {"alive", "ready"}
    return f"http://{found[0]['Service']['Address']}:{found[0]['Service']['Port']}"


@pytest.fixture
async def ann(cluster: Cluster) -> AsyncIterator[ClientSession]:
    async with cluster.served.connect("ann") as session:
        yield session


async def test_a_build_has_what_it_needs_and_nothing_of_it_is_anywhere(
    cluster: Cluster, ann: ClientSession, tmp_path: Path
) -> None:
    repository = cluster.git.repository("app")
    text = (
        f"FROM {cluster.base}\nCOPY greeting /\n"
        f"RUN --mount=type=secret,id=npm test \"$(cat /run/secrets/npm)\" = '{SECRET}' && cat /run/secrets/npm && echo {unique()}\n"
    )
    # What is compared stands in the Containerfile, so that is where it is not looked for.
    text = text.replace(f"test \"$(cat /run/secrets/npm)\" = '{SECRET}'", "test $(wc -c < /run/secrets/npm) = " + str(len(SECRET)))
    commit(repository, "first", {"Containerfile": text, "greeting": "hello", "data": "x" * 100_000})
    tag = f"{cluster.pushed.host}/vault/{unique()}:1"
    status = await succeed(
        ann,
        source={"git": f"{cluster.git.address}/app"},
        secrets=["npm"],
        tests=[{"name": "greets", "command": "grep hello /greeting && ! ls /run/secrets/npm"}],
        tags=[tag],
        name="with-secrets",
    )
    name, version = tag.removeprefix(f"{cluster.pushed.host}/").split(":")
    assert cluster.pushed.digest(name, version) == status["image"]["digest"]
    log = await log_text(ann, status["build_id"])
    assert "hello" in log and SECRET not in log
    # A person with a terminal finds the server by its name.
    (tmp_path / "project").mkdir()
    (tmp_path / "project/Containerfile").write_text(f"FROM {cluster.base}\nRUN echo {unique()}\n")
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    env |= {"CONSUL_HTTP_ADDR": cluster.consul.address, "CONSUL_HTTP_TOKEN": cluster.finds, "NOMAD_BUILD_TOKEN": cluster.served.tokens["ann"]}
    command = [str(binary()), "build", "--server", f"consul://{NAME}", str(tmp_path / "project")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done

    search = Search(cluster.secrets)
    collect(cluster, search)
    search.text("the command line", done.stdout + done.stderr)
    async for kind, answer in answers(ann, status["build_id"]):
        search.text(kind, answer)
    assert search.found == [], search.found
    # The same search finds what is there: wherever it looks,
    with planted_everywhere(cluster) as places:
        search = Search(cluster.secrets)
        collect(cluster, search)
    for place in places:
        assert any(one.startswith("npm in ") and place in one for one in search.found), (place, search.found)
    # and in whatever form it stands.
    planted = tmp_path / "planted"
    assert search.files > 100 and search.unpacked > 10, "it has looked into something"
    for name in cluster.secrets:
        for form in search.forms(name):
            again = Search(cluster.secrets)
            planted.write_bytes(b"before" + form + b"after")
            again.tree(planted.parent, but=lambda path: path.name == "project")
            again.packed("an item", base64.b64encode(gzip.compress(b"x" + form + b"x")).decode())
            assert len(again.found) >= 2, (name, form)


async def answers(session: ClientSession, build: str) -> AsyncIterator[tuple[str, str]]:
    """What the tools say of a build."""
    for tool, arguments in (
        ("status", {"build_id": build}), ("status", {}), ("logs", {"build_id": build, "from": "start", "lines": 1000}),
    ):  # fmt: skip
        result = await session.call_tool(tool, arguments)
        yield tool, result.model_dump_json()


def scratch() -> Iterator[Path]:
    """What is in the directories that everybody may write to, or that are in memory."""
    for directory in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/run/user/*"):
        yield from Path("/").glob(f"{directory[1:]}/*")


@contextmanager
def planted_everywhere(cluster: Cluster) -> Iterator[list[str]]:
    """Puts a secret where services and builds keep and leave things; how the search calls these places."""
    encoded = base64.b64encode(SECRET.encode()).decode()
    logs = [cluster.bao.directory / "bao.log", cluster.consul.directory / "agent.log", cluster.nomad.directory / "agent.log"]
    left = [Path(directory, f"left-{unique()}") for directory in ("/dev/shm", "/tmp", cluster.nomad.data)]
    with ExitStack() as stack:
        for path in left:
            path.write_text(SECRET)
            stack.callback(path.unlink)
        for path in logs:
            size = path.stat().st_size
            with path.open("a") as log:
                log.write(f"{encoded}\n")
            stack.callback(os.truncate, path, size)
        cluster.consul.put("other/planted", SECRET)
        stack.callback(cluster.consul.delete, "other/planted")
        cluster.nomad.run("var", "put", "-namespace", NAMESPACE, "-force", "other/planted", f"planted={encoded}")
        stack.callback(cluster.nomad.run, "var", "purge", "-namespace", NAMESPACE, "other/planted")
        yield [*map(str, [*left, *logs]), "key other/planted", "item planted"]


def collect(cluster: Cluster, search: Search) -> None:
    """Looks at every file, log, job, record, metric and artifact."""
    nomad, bao, consul = cluster.nomad, cluster.bao, cluster.consul
    # A task's own secrets lie in its directory `secrets`, a tmpfs, as long as Nomad keeps its allocation. The
    # configuration of Nomad's agent is where operators give it its token for Consul.
    config = nomad.directory / "agent.hcl"
    search.tree(nomad.directory, but=lambda path: path == config or (path.name == "secrets" and path.is_mount()))
    search.text(str(config), config.read_text().replace(cluster.registers, ""))
    # OpenBao keeps its storage, and Consul its data, in memory; that they hold what they were given is what they are
    # for. To whoever starts it for development, OpenBao tells the token that may do everything, once.
    log = bao.directory / "bao.log"
    search.tree(bao.directory, but=lambda path: path == log)
    search.text(str(log), log.read_text(errors="replace").replace(f"Root Token: {bao.token}\n", ""))
    search.tree(consul.directory)
    for pair in consul.request("GET", "/v1/kv/?recurse=true"):
        search.packed(f"key {pair['Key']}", pair["Value"] or "")
    for path in ("agent/services", "agent/checks", "catalog/services", "catalog/nodes", "acl/policies?full=true", "event/list"):
        search.text(path, json.dumps(consul.request("GET", f"/v1/{path}")))
    for path in (
        "jobs?meta=true", "allocations?task_states=true&resources=true", "evaluations", "vars", "nodes", "deployments",
        "services", "acl/policies", "acl/tokens",
    ):  # fmt: skip
        listed = nomad.request("GET", f"/v1/{path}{'&' if '?' in path else '?'}namespace=*")
        search.text(path, json.dumps(listed))
        for one in listed:
            namespace = one.get("Namespace", NAMESPACE)
            if path.startswith("jobs"):
                job = one["ID"].replace("/", "%2F")
                job = nomad.request("GET", f"/v1/job/{job}?namespace={namespace}")
                search.text("job", json.dumps(job))
                search.packed("payload", job.get("Payload") or "")
            elif path.startswith("allocations"):
                search.text("allocation", json.dumps(nomad.request("GET", f"/v1/allocation/{one['ID']}?namespace={namespace}")))
            elif path == "vars":
                variable = nomad.request("GET", f"/v1/var/{one['Path']}?namespace={namespace}")
                search.text("variable", json.dumps(variable))
                for name, item in variable["Items"].items():
                    search.packed(f"item {name}", item)
    status, metrics, _ = cluster.served.get("/metrics")
    assert status == 200
    search.text("metrics", metrics)
    for registry in (cluster.pulled, cluster.pushed, cluster.kept):
        # Accounts are the registry's own matter.
        search.tree(registry.storage)
        search.text("requests", "\n".join(registry.requests()))
    search.text("git", (cluster.git.directory / "log").read_text(errors="replace"))
    # What builds may have left. The services have directories of their own, with their keys and accounts.
    registries = (registry.storage.parent for registry in (cluster.pulled, cluster.pushed, cluster.kept))
    own = {nomad.directory, bao.directory, consul.directory, cluster.git.directory, *registries}
    for path in set(scratch()) - cluster.before - own:
        search.file(path)
        if not path.is_symlink():
            search.tree(path)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "exe") == str(binary()):
                search.bytes(f"{process}/environ", (process / "environ").read_bytes())
                search.bytes(f"{process}/cmdline", (process / "cmdline").read_bytes())
        except OSError:
            pass


async def test_a_profile_has_its_own_secrets(cluster: Cluster, ann: ClientSession) -> None:
    text = f"FROM {cluster.base}\nRUN --mount=type=secret,id=gpg test $(wc -c < /run/secrets/gpg) = {len(OTHER)}; echo {unique()}\n"
    status = await succeed(ann, source=files(Containerfile=text), secrets=["gpg"], profile="large")
    assert status["profile"] == "large"
    why = await refused(ann, "build", {"source": files(Containerfile=text), "secrets": ["gpg"]}, "invalid_argument")
    assert "builds of the profile default do not get it, those of large do" in why and "one of: npm" in why
    why = await refused(ann, "build", {"source": files(Containerfile=text), "secrets": ["../x"]}, "invalid_argument")
    assert "there is no secret of this name" in why
    # Offered, and not in Vault: the operator's fault, by name.
    text = f"FROM {cluster.base}\nRUN --mount=type=secret,id=gone true\n"
    status = await run(ann, source=files(Containerfile=text), secrets=["gone"], profile="large")
    failure = status["failure"]
    assert (status["state"], failure["fault"]) == ("failed", "operator") and "gone" in failure["message"], status


LOOK = r"""
hit() { echo "F""OUND $*"; }
for file in $(find / -xdev -type f -size -300k 2>/dev/null | grep -v -e ^/proc -e ^/sys); do
  if grep -q -a -e '[-]pass-' -e 'OPENSSH PRIVATE[ ]KEY' -e 'hvs[.]' -e '^eyJ' "$file" 2>/dev/null; then hit "$file"; fi
done
for process in /proc/[0-9]*; do
  tr '\0' '\n' < $process/environ 2>/dev/null | grep -e '[-]pass-' -e TOKEN -e NOMAD_ -e VAULT && hit "$process/environ"
  tr '\0' '\n' < $process/cmdline 2>/dev/null | grep -e '[-]pass-' && hit "$process/cmdline"
  for dir in secrets private alloc local; do ls $process/root/$dir 2>/dev/null && hit "$process/root/$dir"; done
  ls -l $process/fd 2>/dev/null | grep -e secrets -e auth.json -e nomad_token && hit "$process/fd"
done
find / -xdev -type s 2>/dev/null | grep . && hit socket
env | grep -e TOKEN -e NOMAD -e VAULT -e AUTH && hit environment
grep -v ' /run/secrets/' /proc/self/mountinfo | grep -e auth.json -e /secrets -e /private -e api.sock && hit mount
echo | nc -w 3 169.254.169.254 80 && hit metadata
echo it has looked
"""

PLANTED = r"""
echo x-pass-x > /planted
mkdir /secrets && echo x > /secrets/x
NOMAD_TOKEN=x sleep 600 &
sh -c 'sleep 600; :' x-pass-x &
exec 3< /run/auth.json
NOMAD_ADDR=x sh /look.sh
kill $(jobs -p)
"""
"""Something of each kind that `LOOK` looks for, but a socket and the metadata of a cloud."""


async def test_the_hunt_finds_what_is_there(cluster: Cluster, ann: ClientSession) -> None:
    text = (
        f"FROM {cluster.base}\nCOPY look.sh planted.sh /\n"
        f"RUN --mount=type=bind,source=auth.json,target=/run/auth.json sh /planted.sh; echo {unique()}\n"
    )
    sources = {"Containerfile": text, "look.sh": LOOK, "planted.sh": PLANTED, "auth.json": "{}"}
    planted = {"name": "look", "command": "sh /look.sh", "env": ["NOMAD_TOKEN=x"]}
    status = await succeed(ann, source=file_source(sources), tests=[planted])
    log = await log_text(ann, status["build_id"])
    assert log.count("it has looked") == 2, log
    build, test = (log.split("it has looked")[part] for part in (0, 1))
    for what in (
        "/planted", "environment", "mount", "/proc/[0-9]+/environ", "/proc/[0-9]+/cmdline", "/proc/[0-9]+/fd",
        "/proc/[0-9]+/root/secrets",
    ):  # fmt: skip
        assert re.search(rf"FOUND {what}$", build, re.MULTILINE), (what, build)
    # A file of the image, and the environment of the test.
    for what in ("/planted", "environment", "/proc/[0-9]+/environ"):
        assert re.search(rf"FOUND {what}$", test, re.MULTILINE), (what, test)


@pytest.mark.parametrize("profile", PROFILES)
async def test_hostile_builds_find_no_credentials(cluster: Cluster, ann: ClientSession, profile: str) -> None:
    text = f"FROM {cluster.base}\nCOPY look.sh /\nRUN sh /look.sh; echo {unique()}\n"
    tag = f"{cluster.pushed.host}/vault/{unique()}:1"
    # With a secret of its own: whoever has one must not have others.
    mine = "npm" if profile == "default" else "gpg"
    text += f"RUN --mount=type=secret,id={mine} sh /look.sh\n"
    status = await succeed(
        ann, source={"files": [{"path": "Containerfile", "text": text}, {"path": "look.sh", "text": LOOK}]},
        secrets=[mine], tests=[{"name": "look", "command": "sh /look.sh"}], tags=[tag], profile=profile,
    )  # fmt: skip
    log = await log_text(ann, status["build_id"])
    assert log.count("it has looked") == 3, log
    assert "FOUND" not in log, log


async def test_what_is_renewed_or_revoked_meanwhile_does_not_restart_a_build(cluster: Cluster, ann: ClientSession) -> None:
    text = f"FROM {cluster.base}\nRUN echo begun; sleep 8; echo {unique()}\n"
    tag = f"{cluster.pushed.host}/vault/{unique()}:1"
    build = await submit(ann, source=files(Containerfile=text), tags=[tag])

    async def begun() -> bool:
        return "| begun" in await log_text(ann, build)

    await wait_for(begun, "its first words")
    path = "secret/data/nomad-build/default/build"
    there = cluster.bao.request("GET", path)["data"]["data"]
    cluster.bao.put("nomad-build/default/build", there | {"npm": "another"})
    # Every token that was given to a task ends.
    cluster.bao.request("PUT", "sys/leases/revoke-force/auth/jwt-nomad/login")
    status = await wait_final(ann, build)
    cluster.bao.put("nomad-build/default/build", there)
    assert status["state"] == "succeeded" and status["image"]["published"], status
    log = await log_text(ann, build)
    assert log.count("| begun") == 1, log


def test_no_secret_is_written_after_the_end_of_its_task(cluster: Cluster) -> None:
    """Nomad may go on to watch a template when its task's token changes just as the task ends: then it writes what changes
    later into a directory that is no tmpfs any more. What is read only once is not watched."""
    for profile in PROFILES:
        job = cluster.nomad.request("GET", f"/v1/job/nomad-build-{profile}?namespace={NAMESPACE}")
        tasks = {task["Name"]: task["Templates"] for group in job["TaskGroups"] for task in group["Tasks"]}
        secret = {name: [one for one in templates if "with secret" in one["EmbeddedTmpl"]] for name, templates in tasks.items()}
        assert {name: len(templates) for name, templates in secret.items()} == {"build": 4, "publish": 1, "archive": 1}
        assert all(one["Once"] for templates in secret.values() for one in templates), secret


def break_policy(bao: LocalBao) -> None:
    bao.request("PUT", "sys/policies/acl/nomad-build-default-build", {"policy": 'path "x" { capabilities = ["read"] }'})


def break_role(bao: LocalBao) -> None:
    bao.request("DELETE", "auth/jwt-nomad/role/nomad-build-default-build")


def break_binding(bao: LocalBao) -> None:
    role = bao.request("GET", "auth/jwt-nomad/role/nomad-build-default-build")["data"]
    bao.request("POST", "auth/jwt-nomad/role/nomad-build-default-build", role | {"bound_claims": {"nomad_task": "other"}})


def break_publish(bao: LocalBao) -> None:
    bao.request("PUT", "sys/policies/acl/nomad-build-default-publish", {"policy": 'path "x" { capabilities = ["read"] }'})


BROKEN = {
    "sealed": (LocalBao.seal, "Vault is sealed"),
    "no such role": (break_role, 'role "nomad-build-default-build" could not be found'),
    "another's role": (break_binding, "nomad_task"),
    "silent": (LocalBao.stop, "was not started within 10 s, and Nomad does not say why"),
    "no right": (break_policy, "look whether Vault answers, at the policy of the task's role"),
    "no right to push": (break_publish, "look whether Vault answers, at the policy of the task's role"),
    "nothing there": (lambda bao: bao.request("DELETE", "secret/metadata/nomad-build/default/build"), "Missing: vault.read(secret/data/nomad-build/default/build)"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_wrong_with_vault_is_named(cluster: Cluster, ann: ClientSession, name: str) -> None:
    breaks, said = BROKEN[name]
    there = cluster.bao.request("GET", "secret/data/nomad-build/default/build")["data"]["data"]
    breaks(cluster.bao)
    try:
        text = f"FROM {cluster.base}\nRUN echo {unique()}\n"
        tag = f"{cluster.pushed.host}/vault/{unique()}:1"
        status = await run(ann, source=files(Containerfile=text), tags=[tag])
    finally:
        if name == "sealed":
            cluster.bao.unseal()
        if name == "silent":
            cluster.bao.go_on()
        cluster.bao.put("nomad-build/default/build", there)
        cluster.bao.set_up(cluster.nomad.address, *PROFILES)
    failure = status["failure"]
    assert (status["state"], failure["kind"], failure["fault"]) == ("failed", "not_started", "operator"), status
    assert said in failure["message"], failure
    assert not status.get("image", {}).get("published")
    # Nothing of it goes on, and the next one is well.
    await succeed(ann, source=files(Containerfile=f"FROM {cluster.base}\nRUN echo {unique()}\n"))


def role_of(bao: LocalBao, **changes: Any) -> None:
    """Changes the role of the task `build`."""
    path = "auth/jwt-nomad/role/nomad-build-default-build"
    bao.request("POST", path, bao.request("GET", path)["data"] | changes)


async def test_a_token_that_ends_before_its_build_does_not_end_the_build(cluster: Cluster, ann: ClientSession) -> None:
    role_of(cluster.bao, token_period=0, token_ttl=2, token_max_ttl=2, token_explicit_max_ttl=2)
    try:
        text = (
            f"FROM {cluster.base}\nRUN echo begun; sleep 8; echo {unique()}\n"
            f"RUN --mount=type=secret,id=npm test $(wc -c < /run/secrets/npm) = {len(SECRET)}\n"
        )
        tag = f"{cluster.pushed.host}/vault/{unique()}:1"
        status = await succeed(ann, source=files(Containerfile=text), secrets=["npm"], tags=[tag])
    finally:
        cluster.bao.set_up(cluster.nomad.address, *PROFILES)
    assert status["image"]["published"]
    log = await log_text(ann, status["build_id"])
    assert log.count("| begun") == 1, log
    # It did end: Nomad has taken others.
    assert "failed to renew Vault token" in (cluster.nomad.directory / "agent.log").read_text()


async def test_a_token_that_ends_before_the_secrets_are_there_is_named(cluster: Cluster, ann: ClientSession) -> None:
    # Good for one use, by which Nomad renews it.
    role_of(cluster.bao, token_num_uses=1)
    try:
        status = await run(ann, source=files(Containerfile=f"FROM {cluster.base}\nRUN echo {unique()}\n"))
    finally:
        cluster.bao.set_up(cluster.nomad.address, *PROFILES)
    failure = status["failure"]
    assert (status["state"], failure["kind"], failure["fault"]) == ("failed", "not_started", "operator"), status
    assert "at how long its tokens last" in failure["message"], failure
    await succeed(ann, source=files(Containerfile=f"FROM {cluster.base}\nRUN echo {unique()}\n"))


async def test_retention_changes_while_the_server_runs(cluster: Cluster, ann: ClientSession) -> None:
    def index() -> str:
        return cluster.served.get("/metrics")[1].split("\nnomad_build_config_index ")[1].split("\n")[0]

    def source() -> dict[str, Any]:
        return files(Containerfile=f"FROM scratch\nCOPY Containerfile /{unique()}\n")

    for _ in range(3):
        await succeed(ann, source=source())
    known = index()
    cluster.consul.put("nomad-build/nomad/keep_builds", "1")
    await wait_for(lambda: index() != known, "what Consul says now")
    last = await succeed(ann, source=source())

    async def kept() -> bool:
        listed = [one["build_id"] for one in (await ask(ann, "status", {"limit": 50}))["builds"]]
        records = cluster.nomad.request("GET", f"/v1/vars?prefix=nomad-build/b/&namespace={NAMESPACE}")
        assert last["build_id"] in listed
        return len(listed) <= 2 and len(records) <= 2

    await wait_for(kept, "the end of what is not to be kept any more")
    cluster.consul.delete("nomad-build/nomad/keep_builds")
