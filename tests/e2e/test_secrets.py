"""Secrets of the operator in RUN --mount=type=secret: there for the step, and nowhere else."""

from __future__ import annotations

import base64

from conftest import MakeServer
from helpers import ask, fail, files, log_text, succeed, unique
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


async def test_no_way_to_write_a_secret_tells_it(make_server: MakeServer, base: str) -> None:
    secret, key = "S3/cr+t p@ss-w0rd", "-----BEGIN KEY-----\n" + "\n".join(f"{n}kEyLiNe{n}/Qx" for n in range(4)) + "\n-----END KEY-----\n"
    said = "; ".join(
        [
            "s=/run/secrets/token; head -c 7 $s; sleep 0.3; tail -c +8 $s; echo",
            "base64 $s; (printf x; cat $s) | base64; (printf xy; cat $s) | base64; base64 /run/secrets/key",
            "od -An -v -tx1 $s | tr -d ' \\n'; echo; hexdump -v -e '1/1 \"%02X\"' $s; echo",
            "echo S3%2fcr%2Bt%20p%40ss-w0rd; echo S3%2Fcr%2bt+p@ss%2dw0rd; echo '\"S3\\/cr+t p\\u0040ss-w0rd\"'",
            "e=$(printf '\\033'); sed \"s/c/$e[1mc$e[0m/\" $s; echo; sed 's/^/  | /' /run/secrets/key",
            "echo error: cannot use \"$(cat $s)\"; exit 3",
        ]
    )
    mounts = "--mount=type=secret,id=token --mount=type=secret,id=key"
    # Who writes it into the Containerfile does not find it in the log either.
    text = f"FROM {base}\nLABEL said='{secret}'\nRUN {mounts} : '{secret}'; {said}\n"
    async with make_server(secrets={"token": secret, "key": key}).connect() as session:
        status = await fail(session, "command_failed", "code", source=files(Containerfile=text), secrets=["token", "key"])
        log = await log_text(session, status["build_id"], max_bytes=30720)
    everything = log + str(status)
    assert "[secret]" in status["failure"]["excerpt"] and "[secret]" in status["failure"]["instruction"]
    assert "cannot use [secret]" in log
    hexadecimal = secret.encode().hex()
    wrong = [secret, "S3%2", "p@ss", "p%40ss", "u0040", "kEyLiNe", hexadecimal[:16], hexadecimal.upper()[:16]]
    for shift in range(3):
        wrong.append(base64.b64encode(b"x" * shift + secret.encode()).decode()[2 + shift : -4])
    for part in wrong:
        assert part not in everything, (part, log)
