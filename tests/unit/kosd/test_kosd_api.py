"""The endpoints: what openapi.json says is what they answer, and errors are problem documents."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import fastjsonschema
import httpx
import pytest
from kosd_node import Client, Node

from kosd import api
from kosd.api import openapi_document
from kosd.daemon import Daemon

OPENAPI = openapi_document()
# One address for each path of the document, and a media type to ask for.
CALLS = [
    ("/", "/", None),
    ("/health", "/health", None),
    ("/metrics", "/metrics", None),
    ("/openapi.json", "/openapi.json", None),
    ("/v1/status", "/v1/status", None),
    ("/v1/units", "/v1/units", None),
    ("/v1/units/{name}", "/v1/units/sysinfo", None),
    ("/v1/units/{name}", "/v1/units/nothing", None),
    ("/v1/events", "/v1/events?since=0&limit=3", None),
    ("/v1/events", "/v1/events?since=soon", None),
    ("/static/{name}", "/static/status.css", None),
    ("/static/{name}", "/static/passwd", None),
]


def described(path: str, answer: httpx.Response) -> dict[str, Any]:
    """Returns the document's media types for an answer, local references resolved."""
    responses = OPENAPI["paths"][path]["get"]["responses"]
    response = responses.get(str(answer.status_code), responses["default"])
    if "$ref" in response:
        response = OPENAPI["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    content: dict[str, Any] = response["content"]
    return content


@pytest.mark.parametrize(("path", "address", "accept"), CALLS)
def test_every_answer_is_as_the_openapi_document_says(
    client: Client, path: str, address: str, accept: str | None
) -> None:
    answer = client.get(address)
    media = answer.headers["content-type"].split(";")[0]

    content = described(path, answer)
    assert media in content
    if media.endswith("json"):
        schema = {**content[media]["schema"], "components": OPENAPI["components"]}
        fastjsonschema.validate(schema, answer.json())


def test_the_answers_hold_to_the_document_when_nothing_is_well(
    node: Node, daemon: Daemon, client: Client, look: Callable[[Daemon], None]
) -> None:
    node.systemd.error = "away"
    node.current.unlink()
    node.config_path.write_text("{")
    daemon.reload()
    look(daemon)
    node.pass_time(60)

    for path in ("/health", "/v1/status", "/v1/units", "/v1/events"):
        answer = client.get(path)
        schema = described(path, answer)["application/json"]["schema"]
        fastjsonschema.validate({**schema, "components": OPENAPI["components"]}, answer.json())
    assert client.get("/health").status_code == 503


def test_the_openapi_document_names_every_route_and_no_other(daemon: Daemon) -> None:
    routes = {route.path for route in api.build(daemon).app.routes}  # type: ignore[attr-defined]  # all are Route

    assert set(OPENAPI["paths"]) == routes == {path for path, _, _ in CALLS}
    assert OPENAPI["openapi"].startswith("3.1")


def test_every_reference_in_the_openapi_document_leads_somewhere() -> None:
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(OPENAPI))):
        target: Any = OPENAPI
        for part in reference.split("/"):
            target = target[part]


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/nowhere", 404, "There is nothing at /nowhere."),
        ("GET", "/v1/units/", 404, "There is nothing at /v1/units/."),
        ("GET", "/v1/units/nothing", 404, "There is no unit of that name; /v1/units lists them."),
        ("POST", "/health", 405, "POST is not served here; the API is read-only."),
        ("DELETE", "/v1/units/kosd", 405, "DELETE is not served here; the API is read-only."),
        ("GET", "/v1/events?since=-1", 400, "since must be a whole number from 0 to 9007199254740992."),
        ("GET", "/v1/events?since=1e3", 400, "since must be a whole number from 0 to 9007199254740992."),
        ("GET", "/v1/events?limit=0", 400, "limit must be a whole number from 1 to 1000."),
        ("GET", "/v1/events?sinse=3", 400, "The parameter 'sinse' is unknown; known are since, limit."),
        ("GET", "/v1/units?state=ok", 400, "The parameter 'state' is unknown; this address takes none."),
    ],
)
def test_an_error_is_a_problem_document(
    client: Client, method: str, path: str, status: int, detail: str
) -> None:
    answer = client.request(method, path)

    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (answer.status_code, document["status"], document["detail"]) == (status, status, detail)
    if status == 405:
        assert "GET" in answer.headers["allow"]


def test_a_failure_within_the_daemon_is_a_problem_document_without_its_inside(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(daemon: Daemon) -> None:
        raise RuntimeError("inner secret")

    monkeypatch.setattr("kosd.answers.status", broken)
    answer = Client(daemon).get("/v1/status")

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "inner secret" not in answer.text


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/v1/status", "/v1/events", "/openapi.json"])
def test_head_answers_as_get_without_a_body(client: Client, path: str) -> None:
    head = client.request("HEAD", path, {"Accept": "text/event-stream"})

    assert head.status_code == 200
    assert head.headers["content-type"] == client.get(path).headers["content-type"]


def test_a_sane_request_id_comes_back_and_any_other_is_replaced(client: Client) -> None:
    assert client.get("/health", {"X-Request-ID": "drill-7"}).headers["x-request-id"] == "drill-7"
    for strange in ("a b", "x" * 65, '"}', ""):
        assert re.fullmatch(
            r"[0-9a-f]{32}", client.get("/health", {"X-Request-ID": strange}).headers["x-request-id"]
        )


def test_events_after_an_id_are_given_oldest_first(daemon: Daemon, client: Client) -> None:
    known = client.get("/v1/events").json()["last"]
    daemon.events.add("test.one", "first")
    daemon.events.add("test.two", "second")

    document = client.get(f"/v1/events?since={known}").json()
    assert [event["kind"] for event in document["events"]] == ["test.one", "test.two"]
    assert [event["kind"] for event in client.get(f"/v1/events?since={known}&limit=1").json()["events"]] == [
        "test.one"
    ]


def test_waiting_for_events_ends_with_news_with_time_and_with_the_daemon(daemon: Daemon) -> None:
    async def scenario() -> None:
        ring, known = daemon.events, daemon.events.last_id
        assert await ring.wait(known, 0.01) == []
        waiting = asyncio.create_task(ring.wait(known, 5))
        await asyncio.sleep(0)
        added = ring.add("test", "news")
        assert await waiting == [added]
        waiting = asyncio.create_task(ring.wait(added.id, 5))
        await asyncio.sleep(0)
        ring.close()
        assert await waiting == []

    asyncio.run(asyncio.wait_for(scenario(), 4))


def test_metrics_tell_units_costs_and_requests_and_no_stranger_can_grow_them(
    node: Node, daemon: Daemon, client: Client, look: Callable[[Daemon], None]
) -> None:
    node.systemd.set("kos-heartbeat.service", active="failed", sub="failed", restarts=2)
    look(daemon)
    for number in range(5):
        client.get(f"/stranger-{number}")
        client.request("BREW", "/health")
    lines = client.get("/metrics").text.splitlines()

    for line in (
        'kosd_unit_state{state="failed",unit="heartbeat"} 1.0',
        'kosd_unit_status{from="release",tier="2",unit="heartbeat"} 2.0',
        'kosd_unit_restarts_total{unit="heartbeat"} 2.0',
        'kosd_unit_memory_bytes{unit="kosd"} 2.1e+07',
        'kosd_health{status="failing"} 1.0',
        'kosd_samples_total{result="taken"} 2.0',
        'kosd_http_request_duration_seconds_count{method="GET",route="unmatched",status="404"} 5.0',
        'kosd_http_request_duration_seconds_count{method="other",route="/health",status="405"} 5.0',
    ):
        assert line in lines
    assert any(line.startswith("kosd_process_pss_bytes ") for line in lines)
    assert not [line for line in lines if "stranger" in line]


def test_the_page_shows_units_and_events_without_javascript_and_escapes_what_it_shows(
    node: Node, daemon: Daemon, client: Client, look: Callable[[Daemon], None]
) -> None:
    node.write_config({"node": {"name": "<b>node</b>"}})
    daemon.reload()
    node.systemd.set("kos-heartbeat.service", active="failed", sub="failed", result="<script>")
    look(daemon)
    page = client.get("/").text

    for name in ("heartbeat", "kosd", "sysinfo"):
        assert f'id="unit-{name}"' in page
    assert "&lt;b&gt;node&lt;/b&gt;" in page
    assert "<b>node" not in page
    assert "(&lt;script&gt;)" in page
    assert "<script>" not in page
    assert '<noscript><meta http-equiv="refresh"' in page


def test_the_page_allows_nothing_from_elsewhere_and_nothing_inline(client: Client) -> None:
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]

    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not re.findall(r"\sstyle=|\son[a-z]+=|<style|<script>|https?://", answer.text)
    for address in re.findall(r'(?:src|href)="([^"]+)"', answer.text):
        assert client.get(address).status_code in (200, 503), address
