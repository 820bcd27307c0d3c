"""The page by keyboard alone, and as assistive programs see it."""

from __future__ import annotations

from contextlib import ExitStack

from accessibility import check_for_everybody
from helpers import file_source, files, sleep_marker, unique
from local_registry import LocalRegistry
from page_site import Visit, driver, site, slow, visit  # noqa: F401
from selenium.webdriver.common.keys import Keys


def test_the_keyboard_alone_is_enough(visit: Visit, base: str) -> None:
    page, marker = visit.page, sleep_marker()
    build_id = visit.build(name="by-keys", source=slow(base, marker))
    page.open()
    page.until(lambda: page.focused.get_attribute("id") == "token", "the field has the focus")
    page.press(visit.token, Keys.ENTER)
    page.reads("#builds", "by-keys", "build 2/3")
    page.until(lambda: page.focused.get_attribute("id") == "list-title", "the heading has the focus")
    page.tab_to(lambda now: now.text == "by-keys", "the build")
    page.press(Keys.ENTER)
    page.reads("#lines", f"begun-{marker}")
    assert page.focused.get_attribute("id") == "build-title"
    page.press("/")
    assert page.focused.get_attribute("id") == "search-text"
    page.press("begun-[0-9]+$", Keys.ENTER)
    page.reads("#log-state", "1 of")
    page.press(Keys.ESCAPE)
    page.reads("#log-state", "Lines 1 to")
    assert page.focused.get_attribute("id") == "lines", "the lines can be scrolled"
    page.tab_to(lambda now: now.get_attribute("id") == "kill", "the button that kills", back=True)
    page.press(Keys.ENTER)
    page.until(lambda: page.focused.get_attribute("id") == "kill-cancel", "the harmless button has the focus")
    page.press("/")
    assert page.shown("#kill-dialog")
    page.tab_to(lambda now: now.get_attribute("id") == "kill-confirm", "the confirmation")
    page.press(Keys.ENTER)
    page.reads("#standing", "cancelled")
    page.until(lambda: page.focused.get_attribute("id") == "build-title", "the focus is not lost with the button")
    assert visit.status(build_id)["state"] == "cancelled"
    page.tab_to(lambda now: now.text == "All builds", "the way back", back=True)
    page.press(Keys.ENTER)
    page.until(lambda: page.focused.text == "by-keys", "the focus is where it was")
    # The first stop leads past what stands on every page.
    page.driver.refresh()
    page.reads("#builds", "by-keys")
    page.press(Keys.TAB)
    assert page.focused.text == "Skip to the content"
    page.press(Keys.ENTER)
    assert page.focused.tag_name == "main" and page.shown("#builds")
    # The key can be switched off.
    page.tab_to(lambda now: now.get_attribute("id") == "keys", "the switch")
    page.press("/")
    assert page.focused.get_attribute("id") == "filter-name"
    page.tab_to(lambda now: now.get_attribute("id") == "keys", "the switch")
    page.press(Keys.SPACE, "/")
    assert page.focused.get_attribute("id") == "keys"
    page.press(Keys.SPACE)


def test_it_is_there_for_everybody(visit: Visit, registry: LocalRegistry, base: str) -> None:
    page, marker = visit.page, sleep_marker()
    tests = [{"name": "unit", "command": "echo tested"}]
    good = visit.ended(name="good", source=files(Containerfile=f"FROM {base}\n"), tests=tests, tags=[f"{registry.host}/e2e/{unique()}:1"])
    wrong = {"Containerfile": f"FROM {base}\nCOPY . .\nRUN sh x\n", "x": "echo 'a.c:1:2: error: wrong'; exit 1\n"}
    bad = visit.ended(name="bad", source=file_source(wrong), tests=tests)
    running = visit.build(name="running", source=slow(base, marker))
    page.open()
    page.seen("#token")
    check_for_everybody(page, "the question for the token")
    page.one("#token").send_keys("wrong", Keys.ENTER)
    page.reads("#token-problem", "does not know")
    check_for_everybody(page, "a wrong token")
    page.sign_in(visit.token)
    page.reads("#builds", "good", "bad", "running")
    check_for_everybody(page, "the list")
    page.open(f"#build/{good['build_id']}")
    page.reads("#lines", "pushed")
    page.one("#steps summary").click()
    page.reads("#steps", "FROM")
    check_for_everybody(page, "a build that succeeded")
    page.open(f"#build/{bad['build_id']}")
    page.reads("#failure", "a.c:1:2")
    page.one("#search-text").send_keys("wrong", Keys.ENTER)
    page.seen("#lines mark")
    check_for_everybody(page, "a build that failed, and a search")
    page.open(f"#build/{bad['build_id']}/3")
    page.seen("#lines .wanted")
    check_for_everybody(page, "a line of a log")
    page.open(f"#build/{running}")
    page.reads("#standing", "step 2 of 3")
    page.reads("#lines", f"begun-{marker}")
    check_for_everybody(page, "a build that runs")
    # News of a state are told; lines of a log are not read aloud one after the other.
    assert page.run("return document.querySelector('#lines').closest('[aria-live], [role=log], [role=status]')") is None
    assert page.run("return document.getElementById('said').getAttribute('role')") == "status"
    page.one("#kill").click()
    page.seen("#kill-dialog")
    dialog = page.one("#kill-dialog")
    assert (dialog.aria_role, dialog.accessible_name) == ("dialog", f"Kill running ({running})?")
    check_for_everybody(page, "the dialog")
    page.press(Keys.ESCAPE)
    with ExitStack() as undo:
        undo.callback(page.cdp, "Emulation.setEmulatedMedia", features=[])
        page.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "no-preference"}])
        assert page.run("return getComputedStyle(document.querySelector('.state.running'), '::before').animationName") == "breathe"
