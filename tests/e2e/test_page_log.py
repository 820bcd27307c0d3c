"""The page's view of a log: a window that moves, searches and follows."""

from __future__ import annotations

import re

import pytest
from browser import Page
from helpers import files, sleep_marker, unique
from page_site import Site, Visit, driver, release, site, visit, waiting  # noqa: F401
from selenium.webdriver.common.keys import Keys
from test_http import tool

LINES = 5000


@pytest.fixture(scope="module")
def long_log(site: Site, base: str) -> tuple[str, str]:
    """A token, and a build of its owner with a long log."""
    token = site.token("reader")
    agent = site.agent(token)
    text = f"FROM {base}\nRUN i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line-$i-of-it; done; echo SHOUTED\n"
    build = tool(agent, "build", source=files(Containerfile=text), wait=50)
    assert build["state"] == "succeeded", build
    return token, build["build_id"]


def numbers(page: Page) -> list[int]:
    return page.run("return [...document.querySelectorAll('#lines .line')].map((line) => Number(line.dataset.number))")


def test_the_log_is_a_window_that_moves(visit: Visit, long_log: tuple[str, str]) -> None:
    page, (token, build_id) = visit.page, long_log
    page.sign_in(token, f"#build/{build_id}")
    page.until(lambda: numbers(page)[-1:] > [LINES], "the end of the log")
    total = numbers(page)[-1]
    page.reads("#log-state", f"to {total} of {total}")
    assert page.run("return lines.scrollTop + lines.clientHeight > lines.scrollHeight - 40"), "it begins at the end"
    for _ in range(8):
        first = numbers(page)[0]
        page.one("#log-older").click()
        page.until(lambda first=first: numbers(page)[0] < first, "older lines")
        shown = numbers(page)
        assert shown == list(range(shown[0], shown[-1] + 1)), "no gap, nothing twice"
        assert len(shown) <= 2000, "the page stays small"
    assert numbers(page)[-1] < total
    page.one("#log-begin").click()
    page.until(lambda: numbers(page)[:1] == [1], "the beginning")
    page.one("#log-newer").click()
    page.until(lambda: len(numbers(page)) > 400, "newer lines")
    shown = numbers(page)
    assert shown == list(range(1, shown[-1] + 1))
    page.one("#log-end").click()
    page.until(lambda: numbers(page)[-1:] == [total], "the end")


def test_the_log_is_searched(visit: Visit, long_log: tuple[str, str]) -> None:
    page, (token, build_id) = visit.page, long_log
    page.sign_in(token, f"#build/{build_id}")
    page.until(lambda: numbers(page), "the log")
    field = page.one("#search-text")
    field.send_keys("line-17[0-9]-of", Keys.ENTER)
    page.reads("#log-state", "10 of")
    assert all(re.search(r"line-17\d-of-it", line) for line in page.text("#lines").splitlines() if "line" in line)
    page.until(lambda: page.run("return document.getElementById('said').textContent").startswith("10 of"), "it is said")
    # Upper and lower case are the same until one wants otherwise.
    field.clear()
    field.send_keys("^shouted", Keys.ENTER)
    page.reads("#log-state", "1 of")
    page.one("#search-case").click()
    page.reads("#log-state", "None of")
    field.clear()
    field.send_keys("(", Keys.ENTER)
    page.reads("#search-problem", "not a regular expression")
    field.clear()
    field.send_keys("line-4321-", Keys.ENTER)
    page.reads("#log-state", "1 of")
    assert not page.text("#search-problem")
    assert page.text("#lines mark") == "line-4321-"
    number = numbers(page)[0]
    page.one("#lines a.number").click()
    page.until(lambda: "line-4320-of-it" in page.text("#lines"), "the line among its neighbours")
    assert page.focused.get_attribute("data-number") == str(number)
    assert field.get_attribute("value") == ""
    # More than is read at once.
    field.send_keys("line", Keys.ENTER)
    page.reads("#log-state", "there may be more before these")
    first = numbers(page)[0]
    page.one("#log-older").click()
    page.until(lambda: numbers(page)[0] < first, "older matches")
    field.send_keys(Keys.ESCAPE)
    page.reads("#log-state", "Lines ")
    assert field.get_attribute("value") == ""


def test_the_end_is_followed_unless_one_reads_elsewhere(visit: Visit, base: str) -> None:
    page, one, two = visit.page, sleep_marker(), sleep_marker()
    text = f"FROM {base}\nRUN seq 1000 1300; {waiting(one)}; echo first-''news; {waiting(two)}; echo last-''news\n"
    build_id = visit.build(source=files(Containerfile=text))
    # Whether a call waits for lines that come.
    page.before_loading(
        """
        const real = window.fetch;
        window.following = false;
        window.fetch = async (address, options) => {
          const { name, arguments: args } = JSON.parse(options.body).params;
          if (name !== "logs" || !args.wait) return real(address, options);
          following = true;
          try { return await real(address, options); } finally { following = false; }
        };
        """
    )
    page.sign_in(visit.token, f"#build/{build_id}")
    page.until(lambda: len(numbers(page)) > 300 and page.run("return following"), "all lines")
    page.reads("#log-state", "following")
    page.run("lines.scrollTop = 0")
    page.reads("#log-state", "new ones are shown when you are at the end", seconds=10)
    release(one)
    page.until(lambda: not page.run("return following"), "the call that waited for news is answered")
    page.next_frame()
    assert "first-news" not in page.text("#lines") and page.run("return lines.scrollTop") == 0
    page.run("lines.scrollTop = lines.scrollHeight")
    page.reads("#lines", "first-news")
    release(two)
    page.reads("#lines", "last-news")
    page.until(lambda: "following" not in page.text("#log-state"), "the end of the log")


def test_a_flood_does_not_drown_the_page(visit: Visit, base: str) -> None:
    page, marker, lines = visit.page, sleep_marker(), 100_000
    text = f"FROM {base}\nRUN yes {unique('x' * 80)} | head -n {lines}; {waiting(marker)}; echo afterwards\n"
    build_id = visit.build(source=files(Containerfile=text))
    page.sign_in(visit.token, f"#build/{build_id}")
    page.until(lambda: numbers(page)[-1:] > [lines], "it is at the end")
    assert len(numbers(page)) <= 2000
    page.reads("#log-state", "following")
    release(marker)
    page.reads("#lines .line:nth-last-child(-n+5)", "afterwards")
