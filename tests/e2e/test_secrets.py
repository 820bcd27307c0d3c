"""Secrets of the operator in RUN --mount=type=secret: there for the step, and nowhere else."""

from __future__ import annotations

from conftest import MakeServer
from helpers import ask, files, log_text, succeed, unique
from local_registry import LocalRegistry

SECRET = "s3cr3t-of-the-operator"


async def test_a_secret_is_there_for_its_step_only(make_server: MakeServer, registry: LocalRegistry, base: str) -> None:
    repository = f"e2e/{unique()}"
    text = (
        f"FROM {base}\n"
        "RUN --mount=type=secret,id=token,required=true "
        f"wc -c < /run/secrets/token | grep -x {len(SECRET)} && echo said-$(cat /run/secrets/token)-aloud\n"
        "RUN test ! -s /run/secrets/token\n"
    )
    async with make_server(secrets={"token": SECRET, "other": "not asked for"}).connect() as session:
        assert set((await ask(session, "status", {}))["offers"]["secrets"]) == {"token", "other"}
        status = await succeed(
            session,
            source=files(Containerfile=text),
            secrets=["token"],
            tests=[{"command": "test ! -s /run/secrets/token"}],
            tags=[f"{registry.host}/{repository}:1"],
        )
        log = await log_text(session, status["build_id"])
    assert "said-" in log and "-aloud" in log
    assert SECRET not in log
    assert SECRET not in str(status)
    assert SECRET not in str(registry.config(repository, "1"))


async def test_only_what_was_asked_for_is_given(make_server: MakeServer, base: str) -> None:
    text = f"FROM {base}\nRUN --mount=type=secret,id=other test ! -s /run/secrets/other\n"
    async with make_server(secrets={"token": SECRET, "other": "not asked for"}).connect() as session:
        await succeed(session, source=files(Containerfile=text), secrets=["token"])
