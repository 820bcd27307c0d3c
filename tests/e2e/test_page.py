"""The page for people, in a real browser: builds as they go, how they failed, and how they are killed."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from helpers import file_source, files, sleep_marker, unique
from local_registry import LocalRegistry
from machine import processes_with
from page_site import SLOTS, Visit, driver, release, site, slow, visit, waiting  # noqa: F401
from selenium.webdriver.common.keys import Keys
from test_http import tool


def test_a_build_is_followed_in_the_list(visit: Visit, base: str) -> None:
    page, marker = visit.page, sleep_marker()
    page.sign_in(visit.token)
    page.reads("#no-builds", "There are no builds yet")
    page.run("window.never_reloaded = true")
    build_id = visit.build(name="list-me", source=slow(base, marker))
    page.reads("#builds tbody", "list-me", build_id, "running", "build 2/3")
    page.reads("#counts", "1 running")
    release(marker)
    page.reads("#builds tbody", "succeeded", "not tested, NOT published")
    assert page.run("return document.getElementById('said').textContent").startswith("list-me succeeded")
    second = visit.ended(name="other", source=files(Containerfile=f"FROM {base}\nRUN exit 3\n"))
    page.reads("#builds tbody", "code/command_failed at Containerfile:2", second["build_id"])
    page.one("#filter-name").send_keys("list-me", Keys.ENTER)
    page.until(lambda: "other" not in page.text("#builds tbody") and "list-me" in page.text("#builds tbody"), "one name")
    page.one("#filter-state option[value=lost]").click()
    page.reads("#no-builds", "None of your builds is like that")
    assert page.run("return window.never_reloaded")


def test_more_builds_are_shown_when_they_are_wanted(visit: Visit, base: str) -> None:
    page = visit.page
    # Pages of two rows in place of fifty.
    page.before_loading(
        """
        const real = window.fetch;
        window.fetch = (address, options) =>
          real(address, { ...options, body: options.body.replace('"limit":50', '"limit":2') });
        """
    )
    made = [visit.ended(name=f"b{at}", source=files(Containerfile=f"FROM {base}\n"))["build_id"] for at in range(5)]

    def rows() -> list[str]:
        return page.run("return [...builds.tBodies[0].rows].map((row) => row.dataset.key)")

    page.sign_in(visit.token)
    for shown in (2, 4):
        page.until(lambda shown=shown: rows() == made[: -shown - 1 : -1], f"{shown} rows")
        page.seen("#more-builds").click()
    page.until(lambda: rows() == made[::-1], "all rows")
    assert not page.shown("#more-builds")


def test_a_build_that_waits_says_why(visit: Visit, base: str) -> None:
    page, markers = visit.page, [sleep_marker() for _ in range(SLOTS)]
    for marker in markers:
        visit.build(source=slow(base, marker))
    build_id = visit.build(name="waits", source=files(Containerfile=f"FROM {base}\nRUN echo {unique()}\n"))
    page.sign_in(visit.token)
    page.reads("#builds tbody", "waits", "queued", "position 1")
    page.open(f"#build/{build_id}")
    page.reads("#standing", "queued", "position 1", "gives up in")
    page.reads("#log-state", "The log has no lines yet")
    release(markers[0])
    page.reads("#standing", "succeeded")
    page.reads("#lines", "COMMIT")
    release(markers[1])


def test_a_build_is_followed_from_start_to_end(visit: Visit, registry: LocalRegistry, base: str) -> None:
    page, one, two = visit.page, sleep_marker(), sleep_marker()
    repository = f"e2e/{unique()}"
    tag = f"{registry.host}/{repository}:1"
    text = f"FROM {base} AS first\nRUN echo one-{one}; {waiting(one)}\nFROM first\nRUN true\nRUN echo three\n"
    build_id = visit.build(
        name="live",
        source=files(Containerfile=text),
        tests=[{"name": "unit", "command": f"echo tested; {waiting(two)}"}, {"name": "more", "command": "true"}],
        tags=[tag],
    )
    page.sign_in(visit.token, f"#build/{build_id}")
    page.run("window.never_reloaded = true")
    page.reads("#standing", "running", "build, step 2 of 2 of stage first", "line 2:", f"RUN echo one-{one}")
    page.reads("#phases", "build", "now", "publish", "not yet")
    page.reads("#image", tag, "to be pushed after the tests")
    page.reads("#lines", f"one-{one}")
    page.until(lambda: "running: live" in page.driver.title, "the title")
    page.one("#steps summary").click()
    page.reads("#steps", "AS first", "2/2", f"RUN echo one-{one}")
    assert "echo three" not in page.text("#steps")
    release(one)
    page.reads("#standing", "running", "test")
    page.reads("#tests", "unit", "not yet")
    page.reads("#steps", "RUN echo three", "3/3")
    page.reads("#lines", "tested")
    release(two)
    page.reads("#standing", "succeeded", "tests 2/2 passed, published 1 tag(s)")
    digest = registry.digest(repository, "1")
    page.reads("#image", "yes", digest, tag, "pushed")
    page.reads("#tests", "passed", "line ")
    page.reads("#phases", "done")
    page.reads("#lines", f"pushed {tag} @ {digest}")
    page.until(lambda: "succeeded: live" in page.driver.title, "the title")
    assert "live: succeeded" in page.run("return document.getElementById('said').textContent")
    assert page.run("return window.never_reloaded")
    assert not page.shown("#kill")
    # To the clipboard, as far as a browser without a window has one.
    page.one(f"[aria-label='Copy the tag {tag}']").click()
    page.until(lambda: page.text(f"[aria-label='Copy the tag {tag}']") == "Copied", "it is copied")
    page.one("#tests a").click()
    page.until(lambda: "tested" in page.focused.text, "the link leads to the output of the test")


def test_a_failure_is_anchored_to_the_containerfile(visit: Visit, registry: LocalRegistry, base: str) -> None:
    page = visit.page
    source = file_source(
        {
            "docker/Containerfile": f"# a comment\nFROM {base} AS one\nWORKDIR /src\nCOPY . .\nFROM one AS two\n"
            "RUN echo compiling && \\\n    sh compile\n",
            "src/main.c": "int main(void) { return x; }\n",
            "compile": "echo \"src/main.c:1:25: error: 'x' undeclared\" >&2\nexit 2\n",
        }
    )
    tag = f"{registry.host}/e2e/{unique()}:1"
    arguments = {"containerfile": "docker/Containerfile", "tests": [{"name": "never", "command": "true"}], "tags": [tag]}
    status = visit.ended(name="broken", source=source, **arguments)
    failure = status["failure"]
    assert (failure["file"], failure["line"]) == ("docker/Containerfile", 6)
    page.sign_in(visit.token, f"#build/{status['build_id']}")
    shown = page.reads("#failure", "the command ended with status 2", "code/compile_error", "exit status 2")
    assert "To be mended in the code" in shown
    assert "docker/Containerfile:6, stage two, step 2" in shown
    anchor = page.text("#failure .anchor pre").splitlines()
    assert anchor[0].startswith("6 | RUN echo compiling &&") and anchor[0].endswith("sh compile")
    assert anchor[1].strip() == "| ^^^ here"
    assert anchor[1].index("^") == anchor[0].index("RUN")
    assert page.text("#failure .places").startswith("src/main.c:1:25") and "undeclared" in page.text("#failure .places")
    assert "undeclared" in page.text("#failure .excerpt")
    assert "Nothing was published." in shown
    page.reads("#tests", "never", "not run")
    page.reads("#image", tag, "not pushed")
    page.reads("#phases", "ended here: failed")
    page.one("#failure a").click()
    page.until(lambda: page.focused.get_attribute("data-number") == str(int(failure["log_cursor"]) + 1), "the log there")
    # Once more, from elsewhere.
    page.one("#search-text").click()
    page.one("#failure a").click()
    page.until(lambda: page.focused.get_attribute("data-number"), "the log there again")


def test_a_test_that_failed_is_shown(visit: Visit, base: str) -> None:
    page = visit.page
    tests = [{"name": "good", "command": "true"}, {"name": "bad", "command": "echo expected 1; exit 3"}]
    status = visit.ended(source=files(Containerfile=f"FROM {base}\n"), tests=tests)
    page.sign_in(visit.token, f"#build/{status['build_id']}")
    page.reads("#failure", "code/test_failed", "in the test bad")
    rows = page.reads("#tests table", "good").splitlines()
    assert any(re.match(r"good passed 0 ", row) for row in rows) and any(re.match(r"bad failed 3 ", row) for row in rows)
    assert "expected 1" in page.text("#tests .excerpt")


def test_what_a_build_hands_over_can_be_saved(visit: Visit, base: str, tmp_path: Path) -> None:
    page = visit.page
    page.cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    source = files(Containerfile=f"FROM {base}\nRUN echo {unique()} >/app\n")
    ended = visit.ended(source=source, outputs=["/app", "/bin/busybox"])
    assert ended["state"] == "succeeded", ended
    page.sign_in(visit.token, f"#build/{ended['build_id']}")
    page.seen("[data-save$='/outputs/busybox']").click()
    said = "return document.getElementById('said').textContent"
    page.until(lambda: page.run(said) == "The browser has busybox", "it is said")
    wanted = next(one["digest"] for one in ended["outputs"] if one["name"] == "busybox")
    saved = tmp_path / "busybox"
    page.until(
        lambda: saved.exists() and f"sha256:{hashlib.sha256(saved.read_bytes()).hexdigest()}" == wanted,
        "it is there, as it was handed over",
    )
    page.run("document.querySelector('[data-save$=\"/outputs/app\"]').dataset.save += '-which'")
    page.seen("[data-save$='/outputs/app-which']").click()
    page.until(lambda: page.run(said).startswith("app cannot be saved: "), "why it cannot be saved is said")
    # The token was asked for, and what is not there was, too.
    complaints = page.console()
    assert any("404" in line for line in complaints), complaints
    assert all("404" in line or "401" in line for line in complaints), complaints


def test_a_build_is_killed_after_a_question(visit: Visit, base: str) -> None:
    page, marker = visit.page, sleep_marker()
    build_id = visit.build(name="victim", source=slow(base, marker))
    page.sign_in(visit.token, f"#build/{build_id}")
    page.reads("#standing", "running", "build")
    for leave in ("#kill-cancel", Keys.ESCAPE):
        page.seen("#kill").click()
        assert f"Kill victim ({build_id})?" in page.text("#kill-dialog")
        if leave == Keys.ESCAPE:
            page.press(leave)
        else:
            page.one(leave).click()
        page.until(lambda: not page.shown("#kill-dialog"), "the dialog is closed")
        assert page.focused.get_attribute("id") == "kill", "the focus comes back"
    assert visit.status(build_id)["state"] == "running"
    assert "cancel" not in visit.status(build_id)
    page.one("#kill").click()
    page.one("#kill-reason").send_keys("no longer needed")
    page.one("#kill-confirm").click()
    page.reads("#standing", "cancelled", "nothing was published")
    page.reads("#details", "no longer needed")
    assert not page.shown("#kill") and not page.shown("#kill-dialog")
    status = visit.status(build_id)
    assert (status["state"], status["cancel"]["reason"]) == ("cancelled", "no longer needed")
    assert not processes_with(f"sleep {marker}")
