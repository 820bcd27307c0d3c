"""What Prometheus is told, and the alerts and the dashboard that live on it (examples/prometheus, examples/grafana)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import distribution_buildah
from helpers import STATES, files, sleep_marker, some_build_id, unique
from local_registry import LocalRegistry
from mcp_http import McpHttp
from server import REPOSITORY, Server, Settings, binary, serve

PROMETHEUS = REPOSITORY / "examples/prometheus"
DASHBOARD = REPOSITORY / "examples/grafana/nomad-build.json"

FAMILIES = {
    "nomad_build_build_seconds": ("histogram", "from their start to their end"),
    "nomad_build_builds": ("gauge", "each server of a cluster tells of all"),
    "nomad_build_clients": ("gauge", "connections, sessions of Streamable HTTP, streams of HTTP+SSE"),
    "nomad_build_dependency_up": ("gauge", "1, or 0 when it or some of it is missing"),
    "nomad_build_ended_total": ("counter", "kind and fault of the failure"),
    "nomad_build_log_bytes_total": ("counter", "given to clients"),
    "nomad_build_upload_bytes_total": ("counter", "have uploaded"),
    "nomad_build_log_lines_total": ("counter", "builds that have ended"),
    "nomad_build_phase_seconds": ("histogram", "phases of builds"),
    "nomad_build_queue_oldest_seconds": ("gauge", "waited for capacity for longest"),
    "nomad_build_queue_seconds": ("histogram", "waited for capacity before they began"),
    "nomad_build_running": ("gauge", "by phase and profile"),
    "nomad_build_tool_call_seconds": ("histogram", "ok, or the code of the error"),
}
"""Each family's type, and some words of its HELP."""

ON_NOMAD = {"nomad_build_backend_requests_total": {"outcome"}, "nomad_build_event_silence_seconds": set()}
"""Labels of the families that only a server on Nomad has."""

OF_PROMETHEUS = {"up": set()}
"""What Prometheus itself has for each target."""

VALUES = {
    "state": set(STATES),
    "fault": {"code", "request", "operator", "transient", "unknown"},
    "outcome": {"ok", "internal", "failed"},
    "kind": {"connection", "session", "stream", ""},
    "tool": {"build", "status", "logs", "kill"},
    "job": {"nomad-build"},
    "le": {"60", r"60\\.0"},
    "dependency": {"state_directory", "buildah", "users", "nomad", "jobs", "repository"},
}
"""What expressions may compare labels with."""

Labels = frozenset[tuple[str, str]]


def labels(**values: str) -> Labels:
    return frozenset(values.items())


class Scrape:
    """An answer of /metrics."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.types: dict[str, str] = {}
        self.help: dict[str, str] = {}
        self.samples: dict[str, dict[Labels, float]] = {}
        for line in text.splitlines():
            if described := re.fullmatch(r"# (HELP|TYPE) (\w+) (.+)", line):
                what, name, words = described.groups()
                into = self.help if what == "HELP" else self.types
                assert name not in into, f"{what} of {name} is there twice"
                into[name] = words
            else:
                sample = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
                assert sample, line
                series = self.samples.setdefault(sample[1], {})
                key = frozenset(re.findall(r'(\w+)="([^"]*)"', sample[2] or ""))
                assert key not in series, f"twice: {line}"
                series[key] = float(sample[3])

    def value(self, name: str, **values: str) -> float:
        series = self.samples[name]
        assert labels(**values) in series, f"no {values} in {series}"
        return series[labels(**values)]

    def labels_of(self, name: str) -> set[str]:
        return {label for key in self.samples[name] for label, _ in key}


@dataclass
class Watched:
    """What was done to a server, and what it told of it."""

    first: Scrape
    """After one build had ended."""
    second: Scrape
    """After one more of the profile `small` succeeded, one failed, and while one runs and one waits."""
    log_bytes: int
    log_lines: int
    private: dict[str, str] = field(default_factory=dict)
    """What must not be told, by what it is."""


def eventually(probe: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def watched(registry: LocalRegistry, base: str) -> Iterator[Watched]:
    server = Server(Settings(distribution_buildah(), [registry], slots=1, profiles={"small": {}}))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with serve(server) as address:
            principal, name, tag = unique("ann"), unique("name"), unique("tag")
            made = subprocess.run([str(binary()), "token", principal], env=server.env, check=True, capture_output=True, text=True)
            token = made.stdout.strip()
            session = McpHttp(f"{address}/mcp", token)
            session.initialize()

            def ask(tool: str, **arguments: Any) -> dict[str, Any]:
                result = session.call(tool, arguments)
                assert not result.get("isError"), result
                return result["structuredContent"]

            def scrape() -> Scrape:
                # As Prometheus does: without a token.
                with opener.open(f"{address}/metrics", timeout=30) as answer:
                    assert answer.headers.get_content_type() == "text/plain"
                    return Scrape(answer.read().decode())

            def ended(state: str, **arguments: Any) -> str:
                build = ask("build", wait=45, **arguments)
                assert build["state"] == state, build
                return build["build_id"]

            reference = f"{registry.host}/metrics/{tag}:1"
            text = f"FROM {base}\nRUN echo {unique()}\n"
            before = ended("succeeded", source=files(Containerfile=text), name=name, tags=[reference])
            first = scrape()
            succeeded = ended("succeeded", source=files(Containerfile=text), profile="small")
            failed = ended("failed", source=files(Containerfile=f"FROM {base}\nRUN exit 3\n"))
            logs = [ask("logs", **{"build_id": build, "from": "start"}) for build in (succeeded, failed)]
            assert session.call("logs", {"build_id": some_build_id()}).get("isError")
            sleeps = files(Containerfile=f"FROM {base}\nRUN sleep {sleep_marker()}\n")
            runs = ask("build", source=sleeps)["build_id"]
            running = {"state": "running", "phase": "build"}
            eventually(lambda: running.items() <= ask("status", build_id=runs, wait=0)["builds"][0].items(), "a build that runs")
            waits = ask("build", source=sleeps, no_cache=True)["build_id"]
            # The same is told to whoever asks within a second.
            queued = labels(profile="default", state="queued")
            eventually(lambda: scrape().samples["nomad_build_builds"].get(queued) == 1, "what is told of a build that waits")
            second = scrape()
            for build in (waits, runs):
                assert ask("kill", build_id=build, wait=45)["state"] == "cancelled"
            ids = {f"id {number}": build for number, build in enumerate((before, succeeded, failed, runs, waits))}
            private = ids | {"principal": principal, "name": name, "tag": tag, "registry": registry.host, "token": token}
            yield Watched(
                first,
                second,
                sum(len(log["text"].encode()) for log in logs),
                sum(log["total_lines"] for log in logs),
                private | {"state directory": str(server.directory)},
            )
    finally:
        server.remove()


def promtool(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool")
    assert found, "promtool is missing: scripts/setup.sh test"
    return subprocess.run([found, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=120)


def accepted(*arguments: str | Path, stdin: str | None = None) -> str:
    """What promtool says of what it must accept."""
    done = promtool(*arguments, stdin=stdin)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_prometheus_takes_the_metrics(watched: Watched) -> None:
    for scrape in (watched.first, watched.second):
        assert accepted("check", "metrics", stdin=scrape.text) == ""


def test_every_family_is_there_and_explained(watched: Watched) -> None:
    scrape = watched.second
    assert scrape.types == {name: kind for name, (kind, _) in FAMILIES.items()}
    assert set(scrape.help) == set(FAMILIES)
    for name, (_, words) in FAMILIES.items():
        assert words in scrape.help[name], f"{name}: {scrape.help[name]}"
        assert scrape.help[name].endswith("."), scrape.help[name]
    parts = {name: ("_bucket", "_sum", "_count") if kind == "histogram" else ("",) for name, (kind, _) in FAMILIES.items()}
    assert set(scrape.samples) == {name + part for name in parts for part in parts[name]}


def test_the_values_are_those_of_the_builds(watched: Watched) -> None:
    scrape = watched.second
    assert scrape.samples["nomad_build_builds"] == {
        labels(profile="default", state="succeeded"): 1,
        labels(profile="default", state="failed"): 1,
        labels(profile="default", state="running"): 1,
        labels(profile="default", state="queued"): 1,
        labels(profile="small", state="succeeded"): 1,
        labels(profile="small", state="running"): 0,
        labels(profile="small", state="queued"): 0,
    }
    running = {key: value for key, value in scrape.samples["nomad_build_running"].items() if value}
    assert running == {labels(phase="build", profile="default"): 1}
    assert scrape.value("nomad_build_running", phase="publish", profile="small") == 0
    assert scrape.value("nomad_build_queue_oldest_seconds", profile="small") == 0
    assert 0 < scrape.value("nomad_build_queue_oldest_seconds", profile="default") < 60
    assert scrape.value("nomad_build_log_lines_total") == watched.log_lines > 0
    assert scrape.value("nomad_build_log_bytes_total") == watched.log_bytes > 0
    assert scrape.value("nomad_build_clients", kind="connection") >= 1
    assert scrape.value("nomad_build_clients", kind="session") == scrape.value("nomad_build_clients", kind="stream") == 0
    needs = ("state_directory", "buildah", "users")
    assert scrape.samples["nomad_build_dependency_up"] == {labels(dependency=one): 1 for one in needs}
    calls = scrape.samples["nomad_build_tool_call_seconds_count"]
    assert calls.pop(labels(tool="status", outcome="ok")) >= 1
    assert calls == {
        labels(tool="build", outcome="ok"): 5,
        labels(tool="logs", outcome="ok"): 2,
        labels(tool="logs", outcome="not_found"): 1,
    }
    durations = scrape.samples["nomad_build_build_seconds_sum"]
    assert all(0 < seconds < 60 for seconds in durations.values()), durations
    phases = scrape.samples["nomad_build_phase_seconds_count"]
    assert phases == {labels(phase=phase, profile=profile): 1 for phase in ("source", "build") for profile in ("default", "small")}


def test_only_ends_after_the_first_scrape_are_counted(watched: Watched) -> None:
    assert watched.first.value("nomad_build_builds", profile="default", state="succeeded") == 1
    assert watched.first.value("nomad_build_log_lines_total") == 0
    for name in watched.first.samples:
        assert not re.match(r"nomad_build_(ended|build_seconds|phase_seconds|queue_seconds)", name), name
    assert watched.second.samples["nomad_build_ended_total"] == {
        labels(profile="small", state="succeeded", kind="", fault=""): 1,
        labels(profile="default", state="failed", kind="command_failed", fault="code"): 1,
    }
    ends = {labels(profile="small", state="succeeded"): 1, labels(profile="default", state="failed"): 1}
    assert watched.second.samples["nomad_build_build_seconds_count"] == ends
    waited = {labels(profile="small"): 1, labels(profile="default"): 1}
    assert watched.second.samples["nomad_build_queue_seconds_count"] == waited


def test_nobody_and_nothing_is_named(watched: Watched) -> None:
    for scrape in (watched.first, watched.second):
        told = {what for what, word in watched.private.items() if word in scrape.text}
        assert not told, scrape.text
        names = {label for name in scrape.samples for label in scrape.labels_of(name)}
        assert names <= {"state", "profile", "phase", "kind", "fault", "tool", "outcome", "le", "dependency"}


def test_prometheus_takes_the_examples() -> None:
    assert "SUCCESS" in accepted("check", "rules", "--lint-fatal", PROMETHEUS / "alerts.yml")
    said = accepted("check", "config", PROMETHEUS / "prometheus.yml")
    assert "1 rule files found" in said
    assert "SUCCESS" in accepted("test", "rules", PROMETHEUS / "alerts.test.yml")


def test_prometheus_takes_the_example_for_consul(tmp_path: Path) -> None:
    config = PROMETHEUS / "prometheus-consul.yml"
    done = promtool("check", "config", config)
    if "field consul_sd_configs not found" in done.stderr:
        # Debian compiles it without Consul: then it checks everything around.
        text, found = re.subn(r"consul_sd_configs:\n(?: {6}.*\n)+", "http_sd_configs: [{url: 'http://127.0.0.1/'}]\n", config.read_text())
        assert found == 1
        shutil.copy(PROMETHEUS / "alerts.yml", tmp_path)
        rest = tmp_path / config.name
        rest.write_text(text)
        done = promtool("check", "config", rest)
    assert done.returncode == 0 and "1 rule files found" in done.stdout, done.stdout + done.stderr


def alerts() -> dict[str, str]:
    """The text of each alert."""
    text = (PROMETHEUS / "alerts.yml").read_text()
    _, *found = re.split(r"^ +- alert: ", text, flags=re.MULTILINE)
    return {alert.split("\n", 1)[0]: alert for alert in found}


def test_every_alert_says_what_to_do_and_is_tested() -> None:
    tests = (PROMETHEUS / "alerts.test.yml").read_text()
    fired = re.findall(r"ALERTS\{alertname=\"(\w+)\", alertstate=\"firing\"", tests)
    assert len(alerts()) >= 10
    assert set(fired) == set(alerts())
    for name, text in alerts().items():
        assert re.search(r"^ +severity: (critical|warning)$", text, re.MULTILINE), name
        assert re.search(r"^ +summary: \"[^\"]{20,}\.\"$", text, re.MULTILINE), name
        assert re.search(r"^ +description: >-\n +\S.{40,}", text, re.MULTILINE), name


def rule_expressions() -> list[str]:
    """Expressions of alerts.yml, of one line or a block."""
    text = (PROMETHEUS / "alerts.yml").read_text()
    found = re.findall(r"^( +)expr: (?:\|\n((?:\1 +.*\n)+)|(.+)\n)", text, re.MULTILINE)
    assert len(found) == text.count("expr:") == len(re.findall(r"- (?:alert|record):", text)) > 0
    return [block or line for _, block, line in found]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def dashboard_expressions() -> list[str]:
    """Expressions of the dashboard, with values for Grafana's variables."""
    values = {"$__rate_interval": "1m", "$__range": "6h", "$instance": ".*", "$profile": ".*"}
    found = []
    for panel in panels():
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            text = target["expr"]
            for variable, value in values.items():
                text = text.replace(variable, value)
            assert "$" not in text, text
            found.append(text)
    return found


# What names may stand for in an expression: keywords, or labels in parentheses after some of them.
GROUPED = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
KEYWORDS = {"and", "or", "unless", "offset", "bool"}
SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def names_in(expression: str) -> set[str]:
    """Names of metrics in an expression."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", GROUPED.sub(" ", expression))
    bare = re.sub(r"\boffset\s+\w+", " ", bare)
    return set(re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?![\w:]*\s*\()", bare)) - KEYWORDS


@pytest.mark.parametrize("expressions", [dashboard_expressions, rule_expressions])
def test_every_name_in_an_expression_exists(watched: Watched, expressions: Callable[[], list[str]]) -> None:
    recorded = set(re.findall(r"- record: (\S+)", (PROMETHEUS / "alerts.yml").read_text()))
    known = {name: watched.second.labels_of(name) for name in watched.second.samples} | ON_NOMAD | OF_PROMETHEUS
    used = set()
    for expression in expressions():
        names = names_in(expression)
        assert names, expression
        # The dashboard does without the rules.
        assert names <= known.keys() | (recorded if expressions is rule_expressions else set()), expression
        used |= names
        for name, matchers in SELECTOR.findall(expression):
            for label, _, value in MATCHER.findall(matchers):
                assert label in known[name] | {"instance", "job"}, f"{name} has no {label}: {expression}"
                if label not in ("instance", "profile"):
                    assert set(value.split("|")) <= VALUES[label], f"{label} is never {value}: {expression}"
    if expressions is dashboard_expressions:
        shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
        assert shown == FAMILIES.keys() | ON_NOMAD.keys(), "a family that the dashboard does not show"
    else:
        assert recorded <= used, "recorded for nothing"


def test_prometheus_takes_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(dashboard_expressions())]
    path = tmp_path / "rules.yml"
    # JSON is YAML.
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in accepted("check", "rules", path)


def test_the_dashboard_can_be_imported() -> None:
    text = DASHBOARD.read_text()
    dashboard = json.loads(text)
    assert dashboard["id"] is None and dashboard["schemaVersion"] >= 39
    [wanted] = dashboard["__inputs"]
    assert (wanted["type"], wanted["pluginId"]) == ("datasource", "prometheus")
    sources = {"-- Grafana --", f"${{{wanted['name']}}}"}
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert set(variables) == {"instance", "profile"}
    for datasource in re.findall(r'"datasource": \{[^}]*"uid": "((?:[^"]|\\")*)"', text):
        assert datasource in sources, datasource
    for variable in variables.values():
        assert variable["datasource"]["uid"] in sources
        assert variable["includeAll"] and variable["multi"]
    everything = json.loads(text)["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    assert len({panel["title"] for panel in everything}) == len(everything)
    required = {one["id"] for one in dashboard["__requires"] if one["type"] == "panel"}
    assert {panel["type"] for panel in panels()} == required
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, f"{panel['title']} lies on another"
        taken |= cells
    for panel in panels():
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] in sources, panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters), panel["title"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] in sources
            assert "$instance" in target["expr"], panel["title"]
