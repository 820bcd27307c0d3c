"""How the page calls its server: when that goes away, when nobody looks, and however it answers."""

from __future__ import annotations

from browser import Page
from helpers import files, sleep_marker
from local_registry import LocalRegistry
from mcp_http import McpHttp
from page_site import Visit, configured, driver, release, site, slow, visit  # noqa: F401
from selenium.webdriver import Chrome
from server import serve
from test_http import tool


def test_a_server_that_comes_back_is_found(registry: LocalRegistry, driver: Chrome, base: str) -> None:
    server, port = configured(registry)
    marker = sleep_marker()
    try:
        page = Page(driver, f"http://127.0.0.1:{port}")
        with serve(server, "--no-auth", at=f"127.0.0.1:{port}") as address:
            session = McpHttp(f"{address}/mcp", "any")
            session.initialize()
            build_id = tool(session, "build", source=slow(base, marker))["build_id"]
            page.open(f"#build/{build_id}")
            page.reads("#standing", "running", "build")
            page.run("window.never_reloaded = true")
        page.reads("#connection", "No answer (the server cannot be reached); trying again in")
        page.reads("#standing", "running")
        release(marker)
        with serve(server, "--no-auth", at=f"127.0.0.1:{port}"):
            page.reads("#standing", "succeeded", seconds=90)
            page.reads("#lines", f"after-{marker}")
            page.until(lambda: page.text("#connection") == "", "all is well again")
        assert page.run("return window.never_reloaded")
    finally:
        server.remove()


def test_nothing_is_asked_while_nobody_looks(visit: Visit, base: str) -> None:
    page, marker = visit.page, sleep_marker()
    # Counts the calls, and lets the test say whether the tab can be seen.
    page.before_loading(
        """
        let seen = true;
        Object.defineProperty(Document.prototype, "hidden", { get: () => !seen });
        window.look = (now) => { seen = now; document.dispatchEvent(new Event("visibilitychange")); };
        window.calls = { begun: 0, open: 0 };
        const real = window.fetch;
        window.fetch = async (...all) => {
          calls.begun += 1;
          calls.open += 1;
          try { return await real(...all); } finally { calls.open -= 1; }
        };
        """
    )
    build_id = visit.build(source=slow(base, marker))
    page.sign_in(visit.token, f"#build/{build_id}")
    page.reads("#lines", f"begun-{marker}")
    page.run("look(false)")
    page.until(lambda: page.run("return calls.open") == 0, "nothing is waited for")
    begun = page.run("return calls.begun")
    release(marker)
    assert visit.status(build_id, wait=40)["state"] == "succeeded"
    assert page.run("return calls.begun") == begun
    assert "running" in page.text("#standing")
    page.run("look(true)")
    page.reads("#standing", "succeeded")
    page.reads("#lines", f"after-{marker}")


def test_answers_may_come_as_a_stream_of_events(visit: Visit, base: str) -> None:
    page = visit.page
    # As a server may answer that tells of progress, in pieces that end anywhere.
    page.before_loading(
        """
        const real = window.fetch;
        window.fetch = async (...all) => {
          const answer = await real(...all);
          if (!answer.ok) return answer;
          const progress = { jsonrpc: "2.0", method: "notifications/progress", params: { progress: 1 } };
          const event = (message) => `: a comment\\r\\nevent: message\\r\\nid: 1\\r\\ndata: ${JSON.stringify(message)}\\r\\n\\r\\n`;
          const text = `data:\\n\\n${event(progress)}${event(await answer.json())}`;
          const bytes = new TextEncoder().encode(text);
          let at = 0;
          window.streams = (window.streams ?? 0) + 1;
          const body = new ReadableStream({
            // It is not closed: the answer is what ends a call.
            pull(controller) {
              if (at < bytes.length) controller.enqueue(bytes.slice(at, at += 301));
              else return new Promise(() => {});
            },
          });
          return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
        };
        """
    )
    status = visit.ended(source=files(Containerfile=f"FROM {base}\nRUN echo grüße-{'x' * 500}\n"))
    page.sign_in(visit.token, f"#build/{status['build_id']}")
    page.reads("#lines", "grüße-xxx")
    page.reads("#standing", "succeeded")
    assert page.run("return window.streams") >= 2
