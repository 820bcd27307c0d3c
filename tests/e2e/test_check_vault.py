"""`nomad-build check --vault` against a real OpenBao that nomad/vault/setup.sh has set up."""

from __future__ import annotations

import contextlib
import base64
import json
import os
import secrets
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers import items
from local_bao import LocalBao
from server import REPOSITORY, binary

CANARY = "value-of-a-secret-" + secrets.token_hex(8)
ROLE = "nomad-build-default"
SECRETS = ("default/build", "default/publish", "default/archive", "server")


@contextmanager
def serve(answer: Callable[[BaseHTTPRequestHandler], tuple[int, bytes]]) -> Iterator[str]:
    """A server on loopback; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_LIST = do_POST = do_PUT = do_DELETE = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def keys(_: BaseHTTPRequestHandler) -> tuple[int, bytes]:
    """A public key of nobody, where Nomad's would be."""
    modulus = b"\xc0" + secrets.token_bytes(254) + b"\x01"
    key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "k", "e": "AQAB"}
    key["n"] = base64.urlsafe_b64encode(modulus).decode().rstrip("=")
    return 200, json.dumps({"keys": [key]}).encode()


@dataclass
class Vault:
    """What is checked, and with which token."""

    bao: LocalBao
    nomad: str
    token: str
    directory: Path

    def set_up(self, *arguments: str) -> None:
        profiles = [one for one in arguments if not one.startswith("-")]
        self.bao.set_up(self.nomad, *arguments, *([] if profiles else ["default"]))

    def check(self, *arguments: str, **env: str) -> tuple[int, list[str]]:
        """Exit status, and the lines that are not `ok`."""
        status, text = self.run(*arguments, **env)
        return status, [line for line in text.splitlines() if not line.startswith("ok ")]

    def run(self, *arguments: str, **env: str) -> tuple[int, str]:
        """Exit status and all that it says, in which no secret is."""
        own = {"VAULT_ADDR": self.bao.address, "VAULT_TOKEN": self.token, "NOMAD_NAMESPACE": "builds"}
        more = {"HOME": str(self.directory), "RUST_LOG": "trace", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        base = {name: value for name, value in os.environ.items() if not name.startswith(("VAULT_", "NOMAD_"))}
        done = subprocess.run(
            [str(binary()), "check", "--vault", *arguments], env=base | own | more | env,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        text = items(done)
        for secret in (CANARY, self.token, self.bao.token, *([env["VAULT_TOKEN"]] if env.get("VAULT_TOKEN") else [])):
            assert secret not in text
        return done.returncode, text

    def role(self, name: str, changes: dict[str, Any], of: str = f"{ROLE}-build") -> None:
        """Writes a role like another with changes."""
        role = self.bao.request("GET", f"auth/jwt-nomad/role/{of}")["data"]
        self.bao.request("POST", f"auth/jwt-nomad/role/{name}", role | changes)

    def policy(self, name: str, text: str, more: bool = False) -> None:
        """Writes a policy, or lengthens it."""
        if more:
            text = self.bao.request("GET", f"sys/policies/acl/{name}")["data"]["policy"] + text
        self.bao.request("PUT", f"sys/policies/acl/{name}", {"policy": text})


def token_of(bao: LocalBao, policy: str, path: str = "") -> str:
    body = {"policies": [policy], "no_default_policy": True}
    return str(bao.request("POST", f"{path}auth/token/create", body)["auth"]["client_token"])


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    with LocalBao() as bao, serve(keys) as nomad:
        bao.set_up(nomad, "default")
        for path in SECRETS:
            bao.put(f"nomad-build/{path}", {"auth.json": CANARY})
        # The rights of this file are all that the check has: were one missing, every test would see it.
        text = (REPOSITORY / "nomad/vault/check.policy.hcl").read_text()
        bao.request("PUT", "sys/policies/acl/nomad-build-check", {"policy": text})
        yield Vault(bao, nomad, token_of(bao, "nomad-build-check"), tmp_path_factory.mktemp("vault"))


def test_what_setup_makes_is_right(vault: Vault) -> None:
    status, text = vault.run()
    assert status == 0, text
    lines = text.splitlines()
    assert all(line.startswith("ok ") for line in lines), text
    assert f"ok       vault: {vault.bao.address}, version 2." in text
    assert f"ok       auth method jwt-nomad: Nomad's keys are at {vault.nomad}/.well-known/jwks.json" in lines
    for task in ("build", "publish", "archive"):
        who = f"task {task} of job {ROLE} of the namespace builds"
        assert f"ok       role {ROLE}-{task}: {who} can take it, and nobody else" in lines
        assert f"ok       policy {ROLE}-{task}: reads secret/data/nomad-build/default/{task} and nothing else" in lines
    assert "ok       secrets server: there, in version 1" in lines


def test_no_request_is_for_a_secret(vault: Vault) -> None:
    asked: list[tuple[str, str]] = []

    def forward(handler: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        asked.append((handler.command, handler.path))
        request = urllib.request.Request(vault.bao.address + handler.path, method=handler.command)
        if token := handler.headers.get("X-Vault-Token"):
            request.add_header("X-Vault-Token", token)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    with serve(forward) as address:
        # With a token that could read them all.
        assert vault.check(VAULT_ADDR=address, VAULT_TOKEN=vault.bao.token) == (0, [])
    assert {method for method, _ in asked} == {"GET", "LIST"}
    assert ("GET", "/v1/secret/metadata/nomad-build/default/build") in asked
    assert not [path for _, path in asked if path.startswith("/v1/secret/") and not path.startswith("/v1/secret/metadata/")]


Broken = Callable[[Vault], None]
CASES: dict[str, tuple[Broken, str, str]] = {
    "role missing": (
        lambda vault: vault.bao.request("DELETE", f"auth/jwt-nomad/role/{ROLE}-publish"),
        f"missing  role {ROLE}-publish",
        f"not there, so task publish of job {ROLE} of the namespace builds gets no secrets",
    ),
    "job not bound": (
        lambda vault: vault.role(
            f"{ROLE}-publish", {"bound_claims": {"nomad_namespace": "builds", "nomad_task": "publish"}}, of=f"{ROLE}-publish"
        ),
        f"wrong    role {ROLE}-publish",
        "it can be taken by task publish of any job of the namespace builds: nomad_job_id is not bound",
    ),
    "job and task not bound": (
        lambda vault: vault.role(f"{ROLE}-publish", {"bound_claims": {"nomad_namespace": "builds"}}, of=f"{ROLE}-publish"),
        f"wrong    role {ROLE}-publish",
        "it can be taken by any job of the namespace builds: nomad_job_id is not bound, nomad_task is not bound",
    ),
    "task not bound": (
        lambda vault: vault.role(f"{ROLE}-build", {"bound_claims": {"nomad_namespace": "builds", "nomad_job_id": ROLE}}),
        f"wrong    role {ROLE}-build",
        f"it can be taken by any task of job {ROLE} of the namespace builds: nomad_task is not bound",
    ),
    "namespace not bound": (
        lambda vault: vault.role(f"{ROLE}-build", {"bound_claims": {"nomad_task": "build", "nomad_job_id": ROLE}}),
        f"wrong    role {ROLE}-build",
        f"it can be taken by task build of job {ROLE} of any namespace: nomad_namespace is not bound",
    ),
    "bound by a pattern": (
        lambda vault: vault.role(
            f"{ROLE}-build",
            {"bound_claims_type": "glob",
             "bound_claims": {"nomad_namespace": "builds", "nomad_task": "build", "nomad_job_id": "nomad-*"}},
        ),
        f"wrong    role {ROLE}-build",
        "it can be taken by task build of any job like nomad-* of the namespace builds: nomad_job_id is bound by the pattern `nomad-*`",
    ),
    "bound to others, too": (
        lambda vault: vault.role(
            f"{ROLE}-build", {"bound_claims": {"nomad_namespace": "builds", "nomad_task": ["build", "x"], "nomad_job_id": ROLE}}
        ),
        f"wrong    role {ROLE}-build",
        f"it can be taken by task build or x of job {ROLE} of the namespace builds: nomad_task is bound to x",
    ),
    "no audience": (
        lambda vault: vault.role(f"{ROLE}-build", {"bound_audiences": []}),
        f"wrong    role {ROLE}-build",
        "no audience is bound: identities that were made for others than Vault are as good",
    ),
    "no policy": (
        lambda vault: vault.role(f"{ROLE}-build", {"token_policies": []}),
        f"missing  role {ROLE}-build",
        "it has no policy, so its task reads no secrets",
    ),
    "policies of more": (
        lambda vault: vault.role(f"{ROLE}-build", {"token_policies": [f"{ROLE}-build", f"{ROLE}-publish"]}),
        f"wrong    policy {ROLE}-publish",
        "it reads the secrets of default/publish: read of secret/data/nomad-build/default/publish",
    ),
    "policy shared": (
        lambda vault: vault.role(f"{ROLE}-archive", {"token_policies": [f"{ROLE}-publish"]}, of=f"{ROLE}-archive"),
        f"wrong    policy {ROLE}-publish",
        f"several roles have it, so what one reads all read: {ROLE}-archive, {ROLE}-publish",
    ),
    "policy missing": (
        lambda vault: vault.bao.request("DELETE", f"sys/policies/acl/{ROLE}-build"),
        f"missing  policy {ROLE}-build",
        f"not there, and the role {ROLE}-build has it",
    ),
    "policy reads all": (
        lambda vault: vault.policy(f"{ROLE}-build", 'path "secret/data/*" { capabilities = ["read"] }', more=True),
        f"wrong    policy {ROLE}-build",
        "it reads the secrets of default/publish, default/archive, server: read of secret/data/*",
    ),
    "policy with a plus": (
        lambda vault: vault.policy(f"{ROLE}-build", 'path "secret/data/nomad-build/+/build" { capabilities = ["read"] }', more=True),
        f"wrong    policy {ROLE}-build",
        "it reaches more of the store than secret/data/nomad-build/default/build: read of secret/data/nomad-build/+/build",
    ),
    "policy writes": (
        lambda vault: vault.policy(
            f"{ROLE}-build", '{"path": {"secret/data/nomad-build/default/build": {"capabilities": ["read", "update"]}}}'
        ),
        f"wrong    policy {ROLE}-build",
        "it allows more than read of secret/data/nomad-build/default/build: update",
    ),
    "policy of other things": (
        lambda vault: vault.policy(f"{ROLE}-build", 'path "sys/auth/*" { capabilities = ["sudo"] }', more=True),
        f"wrong    policy {ROLE}-build",
        "it allows what the task does not need: sudo of sys/auth/*",
    ),
    "no keys": (
        lambda vault: vault.bao.request(
            "POST", "auth/jwt-nomad/config", {"jwt_validation_pubkeys": [public_key()], "jwks_url": ""}
        ),
        "missing  auth method jwt-nomad",
        "it has no jwks_url, so it does not know Nomad's keys",
    ),
    "default role for all": (
        lambda vault: (
            vault.role("everybody", {"bound_claims": {"nomad_namespace": "builds"}, "token_policies": ["none"]}),
            vault.bao.request(
                "POST", "auth/jwt-nomad/config",
                {"jwks_url": f"{vault.nomad}/.well-known/jwks.json", "default_role": "everybody"},
            ),
        )[1],
        "wrong    auth method jwt-nomad",
        "its default_role everybody can be taken by any job of the namespace builds, and is what a task gets that names no role",
    ),
}


def public_key() -> str:
    done = subprocess.run(
        "openssl genpkey -algorithm ed25519 | openssl pkey -pubout", shell=True, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_named_and_mended(vault: Vault, name: str) -> None:
    broken, item, wrong = CASES[name]
    broken(vault)
    status, lines = vault.check()
    # What mends it is the script, and it does.
    mend = f"; mend it: nomad/vault/setup.sh --jwks {vault.nomad}/.well-known/jwks.json default"
    if name == "no keys":
        mend = "; mend it: nomad/vault/setup.sh --jwks ADDRESS_OF_NOMAD/.well-known/jwks.json default"
    # Of the auth method itself only when that is said: others may use it.
    anew = ["--overwrite"] if item.endswith("auth method jwt-nomad") else []
    if anew:
        mend = mend.replace("setup.sh", "setup.sh --overwrite")
        with contextlib.suppress(RuntimeError):
            vault.set_up()
        assert vault.check()[0] == 1, name
    assert (status, f"{item}: {wrong}{mend}" in lines) == (1, True), lines
    vault.set_up(*anew)
    assert vault.check() == (0, []), name


def test_roles_of_others_that_lead_to_these_secrets(vault: Vault) -> None:
    claims = {"nomad_namespace": "builds"}
    vault.role("nb-publish", {"bound_claims": claims, "token_policies": [f"{ROLE}-publish"]})
    status, lines = vault.check()
    wrong = "it can be taken by any job of the namespace builds, and reads the secrets of default/publish"
    mend = "vault delete auth/jwt-nomad/role/nb-publish, or give it policies without these paths"
    assert (status, lines) == (1, [f"wrong    role nb-publish: {wrong}; mend it: {mend}"])
    vault.bao.request("DELETE", "auth/jwt-nomad/role/nb-publish")
    assert vault.check() == (0, [])


def test_secrets_and_their_store(vault: Vault) -> None:
    vault.bao.request("DELETE", "secret/metadata/nomad-build/default/archive")
    put = "vault kv put -mount=secret nomad-build/default/archive auth.json=@FILE"
    none = f"missing  secrets default/archive: none: a task that wants some waits; mend it: {put}"
    assert vault.check() == (1, [none])
    vault.bao.put("nomad-build/default/archive", {"auth.json": CANARY})
    vault.bao.request("DELETE", "secret/data/nomad-build/default/archive")
    status, lines = vault.check()
    assert status == 1 and "their newest version is deleted" in lines[0], lines
    vault.bao.put("nomad-build/default/archive", {"auth.json": CANARY})
    assert vault.check() == (0, [])

    root = vault.bao.token
    missing = vault.check("--mount", "kv", VAULT_TOKEN=root)
    assert missing[0] == 1
    assert missing[1][0] == "missing  store kv: no store has this path; mend it: vault secrets enable -path=kv -version=2 kv"
    vault.bao.request("POST", "sys/mounts/kv", {"type": "kv", "options": {"version": "1"}})
    _, lines = vault.check("--mount", "kv", VAULT_TOKEN=root)
    assert lines[0] == (
        "wrong    store kv: it is a key-value store of version 1, and the jobs read version 2; mend it: vault kv enable-versioning kv"
    )
    vault.bao.request("DELETE", "sys/mounts/kv")


def test_the_auth_method_is_there_and_of_its_type(vault: Vault) -> None:
    status, lines = vault.check("--auth", "jwt-other", VAULT_TOKEN=vault.bao.token)
    setup = "nomad/vault/setup.sh --jwks ADDRESS_OF_NOMAD/.well-known/jwks.json --auth jwt-other default"
    assert (status, lines) == (1, [f"missing  auth method jwt-other: no auth method has this path; mend it: {setup}"])
    vault.bao.request("POST", "sys/auth/jwt-other", {"type": "approle"})
    _, lines = vault.check("--auth", "jwt-other", VAULT_TOKEN=vault.bao.token)
    vault.bao.request("DELETE", "sys/auth/jwt-other")
    assert lines[0].startswith("wrong    auth method jwt-other: it is of the type approle instead of jwt; mend it: ")


def test_profiles_are_looked_at_each(vault: Vault, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[profiles.large]\ndescription = "more"\n')
    env = {"NOMAD_BUILD_CONFIG": str(config)}
    status, lines = vault.check(**env)
    assert status == 1
    assert [line for line in lines if line.startswith("missing  role nomad-build-large-publish: not there")]
    assert lines[0].endswith("/.well-known/jwks.json default large"), lines
    vault.set_up("default", "large")
    for task in ("build", "publish", "archive"):
        vault.bao.put(f"nomad-build/large/{task}", {"auth.json": CANARY})
    assert vault.check(**env) == (0, [])
    vault.policy("nomad-build-large-build", 'path "secret/data/nomad-build/+/build" { capabilities = ["read"] }', more=True)
    status, lines = vault.check(**env)
    assert (status, len(lines)) == (1, 1), lines
    assert "it reads the secrets of default/build: read of secret/data/nomad-build/+/build" in lines[0]
    vault.set_up("default", "large")


def test_profiles_that_differ_in_capitals_alone(vault: Vault, tmp_path: Path) -> None:
    def role() -> str:
        return str(vault.bao.request("GET", "auth/jwt-nomad/role/nomad-build-large-build")["data"]["bound_claims"]["nomad_job_id"])

    # One of them is well, and has the names that Vault makes of its own.
    vault.set_up("default", "Large")
    for task in ("build", "publish", "archive"):
        vault.bao.put(f"nomad-build/Large/{task}", {"auth.json": CANARY})
    config = tmp_path / "config.toml"
    config.write_text("[profiles.Large]\n")
    assert vault.check(NOMAD_BUILD_CONFIG=str(config)) == (0, [])
    assert role() == "nomad-build-Large"
    # Together one would have what is the other's.
    with pytest.raises(RuntimeError, match="the profiles Large and large differ in capitals alone"):
        vault.set_up("default", "Large", "large")
    assert role() == "nomad-build-Large"
    config.write_text("[profiles.Large]\n[profiles.large]\n")
    status, lines = vault.check(NOMAD_BUILD_CONFIG=str(config))
    assert status == 1 and lines[0].startswith("wrong    profiles Large, large: Vault takes Large, large for one name"), lines
    for task in ("build", "publish", "archive"):
        vault.bao.request("DELETE", f"auth/jwt-nomad/role/nomad-build-large-{task}")
        vault.bao.request("DELETE", f"secret/metadata/nomad-build/Large/{task}")


def test_tokens(vault: Vault) -> None:
    login = "; mend it: vault login, or set VAULT_TOKEN"
    assert vault.check(VAULT_TOKEN="") == (1, ["missing  token: none in VAULT_TOKEN or ~/.vault-token" + login])
    refused = "it is refused: expired, revoked, of another Vault, or without the right read of auth/token/lookup-self"
    wrong = f"wrong    token: {refused}{login}"
    assert vault.check(VAULT_TOKEN="s.nobodys-token") == (1, [wrong])
    kept = vault.directory / ".vault-token"
    kept.write_text(vault.token + "\n")
    assert vault.check(VAULT_TOKEN="") == (0, [])
    kept.unlink()


def test_a_namespace_of_vault(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    vault.bao.request("POST", "sys/namespaces/team", {})
    monkeypatch.setenv("VAULT_NAMESPACE", "team")
    monkeypatch.setenv("BAO_NAMESPACE", "team")
    vault.set_up()
    for path in SECRETS:
        vault.bao.request("POST", f"team/secret/data/nomad-build/{path}", {"data": {"auth.json": CANARY}})
    text = (REPOSITORY / "nomad/vault/check.policy.hcl").read_text()
    vault.bao.request("PUT", "team/sys/policies/acl/nomad-build-check", {"policy": text})
    token = token_of(vault.bao, "nomad-build-check", "team/")
    assert vault.check(VAULT_NAMESPACE="team", VAULT_TOKEN=token) == (0, [])
    vault.bao.request("DELETE", f"team/auth/jwt-nomad/role/{ROLE}-build")
    status, lines = vault.check(VAULT_NAMESPACE="team", VAULT_TOKEN=token)
    assert (status, len(lines)) == (1, 1) and lines[0].startswith(f"missing  role {ROLE}-build: not there"), lines


def test_over_tls_the_certificate_counts(vault: Vault, tmp_path: Path) -> None:
    with LocalBao(tls=True) as bao:
        status, lines = vault.check(VAULT_ADDR=bao.address, VAULT_TOKEN=bao.token)
        assert (status, len(lines)) == (1, 1), lines
        assert lines[0].startswith(f"missing  vault: {bao.address} does not answer: invalid peer certificate"), lines
        status, lines = vault.check(VAULT_ADDR=bao.address, VAULT_TOKEN=bao.token, VAULT_CACERT=str(bao.ca))
        assert lines[0].startswith("missing  auth method jwt-nomad: no auth method has this path"), lines
    status, text = vault.run(VAULT_ADDR=bao.address, VAULT_CACERT=str(tmp_path / "gone"))
    assert status == 2 and "VAULT_CACERT: " in text and "No such file" in text


def test_vault_down_sealed_or_something_else(vault: Vault) -> None:
    with LocalBao() as bao:
        bao.seal()
        assert vault.check(VAULT_ADDR=bao.address) == (
            1, [f"wrong    vault: {bao.address} is sealed; mend it: vault operator unseal"],
        )  # fmt: skip
    status, lines = vault.check(VAULT_ADDR=bao.address)
    assert (status, len(lines)) == (1, 1)
    assert lines[0].startswith(f"missing  vault: {bao.address} does not answer: Connection refused")
    told = json.dumps({"initialized": False, "sealed": True}).encode()
    with serve(lambda _: (200, told)) as address:
        assert vault.check(VAULT_ADDR=address) == (
            1, [f"missing  vault: {address} is not initialized; mend it: vault operator init"],
        )  # fmt: skip
    with serve(lambda _: (502, b"<html>")) as address:
        assert "does not answer: HTTP 502;" in vault.check(VAULT_ADDR=address)[1][0]
    status, text = vault.run(VAULT_ADDR="vault.example.com")
    assert status == 2 and "VAULT_ADDR must be" in text
