"""`status` of one build and of many."""

from __future__ import annotations

import time

from conftest import MakeServer
from helpers import ask, ask_both, fail, files, refused, sleep_marker, submit, succeed, unique, wait_state
from mcp import ClientSession


async def test_lists_filters_counts_and_pages(make_server: MakeServer, base: str) -> None:
    server = make_server()
    async with server.connect() as session:
        good = await succeed(session, source=files(Containerfile=f"FROM {base}\n"), name="good")
        bad = await fail(
            session, "command_failed", "code", source=files(Containerfile=f"FROM {base}\nRUN exit 1\n"), name="bad"
        )
        endless = files(Containerfile=f"FROM {base}\nRUN sleep {sleep_marker()}\n")
        running = await submit(session, source=endless, name="endless")
        await wait_state(session, running, "running")
        ids = {good["build_id"], bad["build_id"], running}

        answer, text = await ask_both(session, "status", {})
        assert {build["build_id"] for build in answer["builds"]} == ids
        assert answer["builds"][0]["build_id"] == running, "unfinished builds come first"
        assert all(build["mine"] for build in answer["builds"])
        assert all(build["summary"] for build in answer["builds"])
        counts = {state: n for state, n in answer["counts"].items() if n}
        assert counts == {"running": 1, "succeeded": 1, "failed": 1}
        assert "default" in answer["offers"]["profiles"]
        assert {"git", "path", "files"} <= set(answer["offers"]["sources"])
        assert all(build_id in text for build_id in ids)

        for args, expected in (
            ({"name": "good"}, {good["build_id"]}),
            ({"state": ["failed"]}, {bad["build_id"]}),
            ({"state": "unfinished"}, {running}),
            ({"state": ["succeeded", "failed"]}, {good["build_id"], bad["build_id"]}),
            ({"name": "nothing"}, set()),
        ):
            filtered = await ask(session, "status", args)
            assert {build["build_id"] for build in filtered["builds"]} == expected, args
            assert "offers" not in filtered, args

        seen, cursor = [], None
        while True:
            page = await ask(session, "status", {"limit": 1} | ({"cursor": cursor} if cursor else {}))
            seen += [build["build_id"] for build in page["builds"]]
            cursor = page.get("next_cursor")
            if not cursor:
                break
            assert len(seen) < 4, "the pages do not end"
        assert len(seen) == 3 and set(seen) == ids

        async with server.connect() as other:
            rows = (await ask(other, "status", {}))["builds"]
            assert {row["build_id"] for row in rows} == ids
            assert not any(row.get("mine") for row in rows)
        await ask(session, "kill", {"build_id": running})


async def test_a_build_is_found_by_uri_and_by_a_unique_beginning(plain: ClientSession, base: str) -> None:
    build_id = (await succeed(plain, source=files(Containerfile=f"FROM {base}\nRUN echo {unique()}\n")))["build_id"]
    for name in (build_id, f"build://{build_id}", build_id[:9], build_id.upper()):
        answer = await ask(plain, "status", {"build_id": name})
        assert answer["builds"][0]["build_id"] == build_id
    await refused(plain, "status", {"build_id": build_id[:1]}, "invalid_argument", "not_found")


async def test_waiting_ends_with_what_was_waited_for(plain: ClientSession, base: str) -> None:
    marker = sleep_marker()
    source = files(Containerfile=f"FROM {base}\nRUN echo last-words; sleep {marker}\n")
    build_id = await submit(plain, source=source)
    started = await ask(plain, "status", {"build_id": build_id, "until": "started", "wait": 40})
    assert started["builds"][0]["state"] == "running"

    begun = time.monotonic()
    answer, text = await ask_both(plain, "status", {"build_id": build_id, "wait": 2})
    assert 1.5 <= time.monotonic() - begun < 10
    status = answer["builds"][0]
    assert status["state"] == "running"
    assert status["next"].startswith("status ")
    assert status["elapsed_seconds"] >= 1
    assert "next: status" in text

    await ask(plain, "kill", {"build_id": build_id})
    begun = time.monotonic()
    await ask(plain, "status", {"build_id": build_id, "wait": 40})
    assert time.monotonic() - begun < 5, "waits for the end of a build that has ended"


async def test_a_running_build_tells_its_step(plain: ClientSession, base: str) -> None:
    text = f"FROM {base} AS one\nRUN true\nRUN echo last-words; sleep {sleep_marker()}\n"
    build_id = await submit(plain, source=files(Containerfile=text), name=unique("steps"))
    status = await wait_state(plain, build_id, "running", "build")
    while status.get("step", {}).get("index") != 3 or "last-words" not in status.get("last_line", ""):
        answer = await ask(plain, "status", {"build_id": build_id, "until": "change", "wait": 5})
        status = answer["builds"][0]
        assert status["state"] == "running", status
    assert status["step"]["of"] == 3
    assert status["step"]["stage"] == "one"
    assert status["step"]["line"] == 3
    _, shown = await ask_both(plain, "status", {"build_id": build_id, "wait": 0})
    assert "build 3/3" in shown
    await ask(plain, "kill", {"build_id": build_id})


async def test_no_call_blocks_for_longer_than_50_seconds(plain: ClientSession, base: str) -> None:
    build_id = await submit(plain, source=files(Containerfile=f"FROM {base}\nRUN sleep {sleep_marker()}\n"))
    begun = time.monotonic()
    status = await ask(plain, "status", {"build_id": build_id, "wait": 50})
    took = time.monotonic() - begun
    assert not status["builds"][0]["state"] == "succeeded"
    assert 45 < took <= 50, took
    await ask(plain, "kill", {"build_id": build_id})
