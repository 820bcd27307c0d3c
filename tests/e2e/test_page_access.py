"""The page as a border: who sees what, what runs in it, and that the words of builds stay words."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from email.message import Message
from html.parser import HTMLParser

from browser import Page
from helpers import file_source, files, sleep_marker, unique
from local_registry import LocalRegistry
from page_site import Site, Visit, configured, driver, site, visit  # noqa: F401
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys
from server import serve
from test_http import tool


def get(site: Site, path: str, **headers: str) -> tuple[int, Message, str]:
    request = urllib.request.Request(site.address + path, headers=headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


class Inline(HTMLParser):
    """Finds what a strict policy forbids, and what a page loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.forbidden: list[str] = []
        self.loaded: list[str] = []
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._script = tag == "script"
        if tag == "style" or (tag == "script" and "src" not in dict(attrs)):
            self.forbidden.append(tag)
        self.forbidden += [name for name, _ in attrs if name == "style" or name.startswith("on")]
        self.loaded += [value for name, value in attrs if value and tag in ("script", "link") and name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if self._script and data.strip():
            self.forbidden.append(data)


def test_the_files_are_bound_by_a_strict_policy(site: Site) -> None:
    status, headers, text = get(site, "/")
    found = Inline(text)
    assert (status, found.forbidden) == (200, [])
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert {"page.css", "page.js"} <= set(found.loaded)
    modules = re.findall(r'from "\./(page/[a-z]+\.js)"', get(site, "/page.js")[2])
    assert modules
    for path in ["/", *(f"/{name}" for name in found.loaded + modules)]:
        status, headers, _ = get(site, path)
        assert status == 200, path
        directives = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert directives["default-src"] == directives["base-uri"] == directives["form-action"] == "'none'"
        assert directives["frame-ancestors"] == "'none'"
        assert directives["script-src"] == directives["style-src"] == directives["connect-src"] == "'self'"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-cache"
        assert get(site, path, **{"If-None-Match": headers["ETag"]})[0] == 304
    assert get(site, "/page/nothing.js")[0] == 404
    assert get(site, "/", Host="evil.example.com")[0] == 403


HOSTILE = [
    "<img src=x onerror=alert(1)><script>alert(2)</script>",
    "</div></main></body><h1>forged</h1>",
    "&lt;b&gt;&#60;i&#62;<!-- ",
    "<svg/onload=alert(3)><iframe src=javascript:alert(4)></iframe>",
    "javascript:alert(5) {{7*7}} ${7*7} ' \" `",
]


def test_what_builds_print_stays_text(visit: Visit, base: str) -> None:
    page = visit.page
    text = f"FROM {base}\nCOPY lines /\nRUN cat /lines; printf '\\033[31mred\\033[0m \\033]8;;javascript:alert(6)\\007link\\033]8;;\\007 \\033]0;title\\007end\\n'; exit 1 # {HOSTILE[0]}\n"
    source = file_source({"Containerfile": text, "lines": "\n".join(HOSTILE) + "\n"})
    status = visit.ended(source=source, tests=[{"name": "t", "command": "true"}])
    elements = "return document.querySelectorAll('main *').length"
    page.sign_in(visit.token, f"#build/{status['build_id']}")
    page.reads("#lines", HOSTILE[-1])
    lines = page.run("return [...document.querySelectorAll('#lines .text')].map((line) => line.textContent)")
    for line in HOSTILE:
        assert line in lines
        assert line in page.text("#failure .excerpt")
    assert "red link end" in lines
    assert HOSTILE[0] in page.text("#failure .anchor")
    assert page.run("return document.querySelectorAll('img, svg, iframe, main script, main b, main i').length") == 0
    assert page.text("h1").strip() == f"Build {status['build_id']}"
    assert "\x1b" not in page.run("return document.body.textContent")
    for search in ("<img src=x onerror=alert(1)>", "<script>"):
        page.one("#search-text").clear()
        page.one("#search-text").send_keys(re.escape(search) if "(" in search else search, Keys.ENTER)
        page.reads("#log-state", "3 of")
    page.reads("#lines mark", "<script>")
    # A test's output, and a reason for the end.
    bad = visit.ended(source=files(Containerfile=f"FROM {base}\n"), tests=[{"command": f"echo '{HOSTILE[0]}'; exit 1"}])
    page.open(f"#build/{bad['build_id']}")
    page.reads("#tests .excerpt", HOSTILE[0])
    killed = visit.build(source=files(Containerfile=f"FROM {base}\nRUN sleep {sleep_marker()}\n"))
    tool(visit.agent, "kill", build_id=killed, reason=HOSTILE[0], wait=40)
    page.open(f"#build/{killed}")
    page.reads("#details", HOSTILE[0])
    assert page.run("return document.querySelectorAll('img, svg, iframe, main script').length") == 0
    assert page.run(elements) > 0
    # Markup made of text is an error, whoever tries.
    refused = page.run("try { document.body.innerHTML = '<b>x</b>'; return false } catch (error) { return error.name }")
    assert refused == "TypeError"
    assert [line for line in page.console() if "TrustedHTML" in line]


def test_only_a_known_token_is_taken(visit: Visit, site: Site, base: str) -> None:
    page = visit.page
    page.open()
    page.seen("#token").send_keys("nbt_wrong", Keys.ENTER)
    page.reads("#token-problem", "The server does not know this token.")
    page.one("#token").send_keys("not a tökén", Keys.ENTER)
    page.reads("#token-problem", "no spaces")
    stored = "return JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie, location.href])"
    assert "nbt_wrong" not in page.run(stored)
    page.sign_in(visit.token)
    page.seen("#no-builds")
    where = json.loads(page.run(stored))
    assert visit.token in where[0].values() and visit.token not in json.dumps(where[1:])
    page.driver.refresh()
    page.seen("#no-builds")
    page.one("#forget").click()
    page.seen("#token")
    assert visit.token not in page.run(stored)
    page.driver.refresh()
    page.seen("#token")
    # A token that is taken away.
    other = site.token("gone")
    page.sign_in(other)
    page.seen("#no-builds")
    tokens = site.server.state / "tokens"
    tokens.write_text("".join(line for line in tokens.read_text().splitlines(True) if not line.startswith("gone ")))
    page.reads("#token-problem", "does not know this token any more")
    assert other not in page.run(stored)


def test_nobody_sees_the_builds_of_others(visit: Visit, site: Site, base: str) -> None:
    page = visit.page
    hers = visit.ended(name="hers", source=files(Containerfile=f"FROM {base}\nRUN echo her-secret\n"))["build_id"]
    page.sign_in(visit.token)
    page.reads("#builds", "hers")
    page.open(f"#build/{hers}")
    page.reads("#lines", "her-secret")
    page.open("#")
    page.reads("#builds", "hers")
    page.one("#forget").click()
    page.seen("#token").send_keys(site.token(unique("bob")), Keys.ENTER)
    page.reads("#no-builds", "There are no builds yet")
    assert "hers" not in page.run("return document.body.textContent")
    page.open(f"#build/{hers}")
    page.reads("#build-problem", "You have no build of this id.")
    text = page.run("return document.body.textContent")
    assert "her-secret" not in text and not page.shown("#log") and not page.shown("#kill")
    page.open("#build/nonsense")
    page.reads("#build-problem", "You have no build of this id.")


def test_without_tokens_none_is_asked_for(registry: LocalRegistry, driver: Chrome) -> None:
    server, port = configured(registry)
    try:
        with serve(server, "--no-auth", at=f"127.0.0.1:{port}") as address:
            page = Page(driver, address)
            page.open()
            page.reads("#no-builds", "There are no builds yet")
            assert not page.shown("#sign-in") and not page.shown("#forget")
            assert page.console() == []
    finally:
        server.remove()
