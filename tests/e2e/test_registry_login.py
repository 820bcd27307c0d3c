"""A registry that wants credentials: pulls and pushes, with the right ones and with others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from conftest import MakeServer
from helpers import ask, fail, files, log_text, refused, succeed, unique
from local_registry import LocalRegistry
from mcp import ClientSession

ENVIRONMENT = "RUN env; cat /run/secrets/* /run/containers/0/auth.json ~/.docker/config.json 2>/dev/null || true\n"


async def test_with_the_right_credentials(session: ClientSession, auth_registry: LocalRegistry) -> None:
    repository = f"e2e/{unique()}"
    base, tag = f"{auth_registry.host}/test/base:1", f"{auth_registry.host}/{repository}:1"
    status = await succeed(session, source=files(Containerfile=f"FROM {base}\n{ENVIRONMENT}"), tags=[tag])
    assert auth_registry.digest(repository, "1") == status["image"]["digest"]
    assert auth_registry.login
    for text in (str(status), await log_text(session, status["build_id"])):
        assert auth_registry.login.password not in text
        assert auth_registry.login.basic not in text


async def test_a_login_of_buildah_is_found_without_an_environment(
    make_server: MakeServer, registry: LocalRegistry, auth_registry: LocalRegistry, base: str
) -> None:
    server = make_server(insecure=[registry], proxies=[auth_registry.host])
    # What hosts of MCP servers hand on.
    server.env.pop("XDG_RUNTIME_DIR", None)
    bare = {"PATH": os.environ["PATH"]}
    uid = os.geteuid()
    places = [Path(f"/run/user/{uid}/containers/auth.json"), Path(f"/run/containers/{uid}/auth.json")]
    new = [place for place in places if not place.exists()]
    login = auth_registry.login
    assert login
    command = ["buildah", "login", "--tls-verify=false", "--username", login.user, "--password-stdin", auth_registry.host]
    subprocess.run(command, env=bare, input=login.password, text=True, check=True, capture_output=True)
    try:
        repository = f"e2e/{unique()}"
        async with server.connect() as session:
            source = files(Containerfile=f"FROM {base}\n")
            status = await succeed(session, source=source, tags=[f"{auth_registry.host}/{repository}:1"])
        assert auth_registry.digest(repository, "1") == status["image"]["digest"]
    finally:
        subprocess.run(["buildah", "logout", auth_registry.host], env=bare, check=True, capture_output=True)
        for place in new:
            place.unlink(missing_ok=True)


async def test_a_pull_without_the_right_credentials(make_server: MakeServer, auth_registry: LocalRegistry) -> None:
    source = files(Containerfile=f"FROM {auth_registry.host}/test/base:1\n")
    async with make_server(wrong_password=True).connect() as session:
        status = await fail(session, "registry_unauthorized", "operator", source=source)
    assert (status["failure"]["phase"], status["failure"]["line"]) == ("source", 1)


async def test_a_push_without_the_right_credentials(
    make_server: MakeServer, auth_registry: LocalRegistry, base: str
) -> None:
    repository = f"e2e/{unique()}"
    source = files(Containerfile=f"FROM {base}\n")
    async with make_server(wrong_password=True).connect() as session:
        tags = [f"{auth_registry.host}/{repository}:1"]
        status = await fail(session, "push_unauthorized", "operator", source=source, tags=tags)
    assert status["failure"]["phase"] == "publish"
    assert not status["image"]["published"]
    assert auth_registry.digest(repository, "1") is None


async def test_a_push_that_fails_at_the_second_registry_tags_nothing(
    make_server: MakeServer, registry: LocalRegistry, auth_registry: LocalRegistry, base: str
) -> None:
    repository = f"e2e/{unique()}"
    tags = [f"{registry.host}/{repository}:1", f"{auth_registry.host}/{repository}:1"]
    async with make_server(wrong_password=True).connect() as session:
        await fail(session, "push_unauthorized", "operator", source=files(Containerfile=f"FROM {base}\n"), tags=tags)
    assert registry.digest(repository, "1") is None


async def test_tags_outside_the_allow_list_are_refused_at_once(
    make_server: MakeServer, registry: LocalRegistry, base: str
) -> None:
    allowed = f"{registry.host}/allowed/"
    source = files(Containerfile=f"FROM {base}\n")
    async with make_server(allow=[allowed]).connect() as session:
        for tag in (f"{registry.host}/other/x:1", f"{registry.host}/allowedx:1"):
            text = await refused(session, "build", {"source": source, "tags": [tag]}, "not_allowed")
            assert "tags[0]" in text and allowed in text
        assert (await ask(session, "status", {}))["offers"]["registries"] == [allowed]
        await succeed(session, source=source, tags=[f"{allowed}{unique()}:1"])
