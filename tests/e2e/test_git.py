"""Sources from git, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from git_http import GitHttp, commit, git
from helpers import fail, file_source, log_text, submit, succeed, wait_final
from local_registry import free_port
from mcp import ClientSession


@dataclass
class Repository:
    """A repository on a server, and its commits."""

    url: str
    main: str
    feature: str
    server: str


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, base: str) -> Iterator[Repository]:
    root = tmp_path_factory.mktemp("git")
    work = root / "work"
    work.mkdir()
    git(work, "init", "--quiet", "--initial-branch=main")
    containerfile = f"FROM {base}\nCOPY . /app\nRUN cat /app/word\n"
    main = commit(work, "main", {"app/Containerfile": containerfile, "app/word": "of-main\n", "README": "x\n"})
    git(work, "tag", "v1")
    git(work, "checkout", "--quiet", "-b", "feature/x")
    feature = commit(work, "feature", {"app/word": "of-feature\n"})
    git(work, "checkout", "--quiet", "main")
    served = root / "served"
    served.mkdir()
    git(root, "clone", "--quiet", "--bare", str(work), str(served / "repo.git"))
    with GitHttp(served) as server:
        yield Repository(f"{server.url}/repo.git", main, feature, server.url)


async def test_the_default_branch_is_built(session: ClientSession, repository: Repository) -> None:
    status = await succeed(session, source={"git": repository.url, "subdir": "app"})
    assert status["source"]["git"] == repository.url
    assert status["source"]["commit"] == repository.main
    assert "of-main" in await log_text(session, status["build_id"], phase="build")


@pytest.mark.parametrize("kind", ["branch", "tag", "commit"])
async def test_a_ref_is_built(plain: ClientSession, repository: Repository, kind: str) -> None:
    ref, expected, word = {
        "branch": ("feature/x", repository.feature, "of-feature"),
        "tag": ("v1", repository.main, "of-main"),
        "commit": (repository.feature, repository.feature, "of-feature"),
    }[kind]
    status = await succeed(plain, source={"git": repository.url, "ref": ref, "subdir": "app"})
    assert status["source"]["ref"] == ref
    assert status["source"]["commit"] == expected
    assert word in await log_text(plain, status["build_id"], phase="build")


PATCH = """\
diff --git a/app/word b/app/word
--- a/app/word
+++ b/app/word
@@ -1 +1 @@
-of-{old}
+of-patch
"""


async def test_patch_and_files_lie_over_the_checkout(plain: ClientSession, repository: Repository) -> None:
    status = await succeed(
        plain,
        source={
            "git": repository.url,
            "ref": "feature/x",
            "subdir": "app",
            "patch": PATCH.format(old="feature"),
            **file_source({"app/more": "of-files\n"}),
        },
        tests=[{"command": "grep -x of-patch /app/word && grep -x of-files /app/more && test ! -e /app/.git"}],
    )
    assert status["source"]["commit"] == repository.feature


async def test_a_patch_that_does_not_apply_names_file_and_hunk(plain: ClientSession, repository: Repository) -> None:
    source = {"git": repository.url, "ref": "main", "subdir": "app", "patch": PATCH.format(old="nothing")}
    status = await fail(plain, "patch_rejected", "request", source=source)
    failure = status["failure"]
    assert failure["phase"] == "source"
    assert "app/word" in failure["message"]
    assert "hunk" in failure["message"].lower()


@pytest.mark.parametrize(
    ("url", "ref", "kind", "fault"),
    [
        ("{server}/repo.git", "no-such-branch", "git_ref_not_found", "request"),
        ("{server}/repo.git", "0123456789012345678901234567890123456789", "git_ref_not_found", "request"),
        ("{server}/nothing.git", "main", "git_repository_not_found", "request"),
        ("{server}/private/repo.git", "main", "git_auth_failed", "operator"),
        ("http://127.0.0.1:{closed}/repo.git", "main", "git_unreachable", "transient"),
        ("http://git.invalid/repo.git", "main", "git_unreachable", "unknown"),
    ],
)
async def test_what_git_cannot_fetch_is_told(
    plain: ClientSession, repository: Repository, url: str, ref: str, kind: str, fault: str
) -> None:
    source = {"git": url.format(server=repository.server, closed=free_port()), "ref": ref}
    status = await fail(plain, kind, fault, source=source)
    assert status["failure"]["phase"] == "source"


async def test_a_link_out_of_the_repository_leads_nowhere(plain: ClientSession, tmp_path: Path, base: str) -> None:
    work, served = tmp_path / "work", tmp_path / "served"
    work.mkdir()
    served.mkdir()
    secret = tmp_path / "host-secret"
    secret.write_text("host-secret-text")
    git(work, "init", "--quiet", "--initial-branch=main")
    (work / "leak").symlink_to(secret)
    (work / ".containerignore").symlink_to(secret)
    commit(work, "links", {"Containerfile": f"FROM {base}\nCOPY leak /leak\nRUN cat /leak\n"})
    git(tmp_path, "clone", "--quiet", "--bare", str(work), str(served / "repo.git"))
    with GitHttp(served) as server:
        build_id = await submit(plain, source={"git": f"{server.url}/repo.git"})
        status = await wait_final(plain, build_id)
    assert status["state"] == "failed", status
    assert status["failure"]["fault"] in ("code", "request")
    assert "host-secret-text" not in str(status)
    assert "host-secret-text" not in await log_text(plain, build_id)
