"""Base images are fetched once per host, and each build proves its own access."""

from __future__ import annotations

import os
import platform
import re
import signal
from pathlib import Path

import pytest
from conftest import MakeServer
from helpers import fail, files, log_text, sleep_marker, submit, succeed, unique, wait_final, wait_for
from images import extend
from local_registry import LocalRegistry, Login
from processes import running


def fetched(registry: LocalRegistry, repository: str) -> tuple[int, int]:
    """How often manifests of a repository were asked for, and how many layers were handed out."""
    config, _ = registry.config(repository, "1")
    asked = re.compile(rf'"(GET|HEAD) /v2/{repository}/.*" 200 ')
    lines = [line for line in registry.requests() if asked.search(line)]
    manifests = sum("/manifests/" in line for line in lines)
    layers = sum("/blobs/" in line and config not in line for line in lines)
    return manifests, layers


async def test_layers_are_fetched_once_and_access_is_proven_each_time(
    make_server: MakeServer, registry: LocalRegistry, base: str
) -> None:
    async with make_server().connect() as session:
        before = fetched(registry, "test/base")
        await succeed(session, source=files(Containerfile=f"FROM {base}\nRUN echo {unique()}\n"))
        first = fetched(registry, "test/base")
        await succeed(session, source=files(Containerfile=f"FROM {base}\nRUN echo {unique()}\n"))
        second = fetched(registry, "test/base")
    assert first[1] > before[1], "the first build did not fetch the layers"
    assert second[1] == first[1], "the second build fetched layers again"
    # Each look at the configuration costs a manifest, too.
    assert second[0] - first[0] >= 2, "the second build did not ask the registry"


async def test_layers_are_fetched_once_for_all_users(make_server: MakeServer, buildah: Path, registry: LocalRegistry) -> None:
    """Builds at the same time run as several users when the server is root; what is damaged is fetched again."""
    name = unique("base")
    extend(registry, "test/base", "1", name, 100_000)
    image, marker = f"{registry.host}/test/base:{name}", sleep_marker()
    server = make_server(buildah=buildah, slots=3, first=True)

    def layers() -> int:
        return len([line for line in registry.requests() if re.search(r'"GET /v2/test/base/blobs/.*" 200 ', line)])

    async with server.connect() as session:
        before = layers()
        await submit(session, source=files(Containerfile=f"FROM {image}\nRUN sleep {marker} || true\n"), name="one")
        await wait_for(lambda: running("sleep", marker), "the first user's build")
        first = layers()
        assert first > before, "the first build did not fetch the layers"
        other = await submit(session, source=files(Containerfile=f"FROM {image}\nRUN sleep {marker} && true || true\n"))
        await wait_for(lambda: len(running("sleep", marker)) > 1, "the second user's build")
        assert layers() == first, "the second build fetched layers again"
        for blob in server.state.glob("blobs/*"):
            blob.write_bytes(b"damaged")
        await succeed(session, source=files(Containerfile=f"FROM {image}\nRUN true\n"), name="three")
        if os.geteuid() == 0:
            assert layers() > first, "nothing was fetched anew in place of what is damaged"
            assert len(list(server.state.glob("cache/*"))) == 3
        for process in running("sleep", marker):
            os.kill(process.pid, signal.SIGTERM)
        await wait_final(session, other)


@pytest.mark.parametrize("how", ["{name}@{digest}", "{name}:1@{digest}", "--platform=linux/{machine} {name}:1", "{name}"])
async def test_however_it_is_called_the_build_sees_it(
    make_server: MakeServer, buildah: Path, registry: LocalRegistry, base: str, how: str
) -> None:
    latest = how == "{name}"
    extend(registry, "test/base", "1", "latest", 1)
    digest = registry.digest("test/base", "1")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    image = how.format(name=base.rsplit(":", 1)[0], digest=digest, machine=machine)
    async with make_server(buildah=buildah).connect() as session:
        for word in ("first", "second"):
            text = f"FROM {image}\nRUN echo {word} && test {'-f' if latest else '! -f'} /layer-latest\n"
            await succeed(session, source=files(Containerfile=text), tests=[{"command": "true"}])


async def test_what_is_in_the_store_is_not_had_without_credentials(
    make_server: MakeServer, auth_registry: LocalRegistry
) -> None:
    text = f"FROM {auth_registry.host}/test/base:1\n"
    server = make_server()
    async with server.connect() as session:
        await succeed(session, source=files(Containerfile=text))
    login, auth_registry.login = auth_registry.login, Login("builder", "wrong")
    try:
        other = make_server()
    finally:
        auth_registry.login = login
    # The same state and store, other credentials.
    other.env["NOMAD_BUILD_STATE_DIR"] = server.env["NOMAD_BUILD_STATE_DIR"]
    async with other.connect() as session:
        await fail(session, "registry_unauthorized", "operator", source=files(Containerfile=text + "LABEL x=1\n"))


async def test_a_base_image_that_moves_is_followed(
    make_server: MakeServer, buildah: Path, registry: LocalRegistry, base: str
) -> None:
    name = f"{registry.host}/{unique('moving')}:1"
    server = make_server(buildah=buildah, slots=1)
    async with server.connect() as session:
        for word in ("one", "two", "one", "three", "two"):
            source = files(Containerfile=f"FROM {base}\nRUN echo {word} > /word\n")
            await succeed(session, source=source, tags=[name])
            follower = files(Containerfile=f"FROM {name}\nRUN echo now $(cat /word) {unique()}\n")
            built = await succeed(session, source=follower)
            assert f"now {word}" in await log_text(session, built["build_id"], phase="build")
