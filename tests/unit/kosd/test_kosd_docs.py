"""docs/reference/kosd.md says what the schema, the routes and the metrics say."""

from __future__ import annotations

import json
import re

from kosd_node import REPOSITORY, Client

from kosd.api import openapi_document
from kosd.documents import schema

PAGE = (REPOSITORY / "docs/reference/kosd.md").read_text()


def rows() -> list[str]:
    """Returns the rows that the table of the configuration must have."""
    found = []
    for group, rules in schema("config.schema.json")["properties"].items():
        for key, rule in rules["properties"].items():
            description, at_start, _ = rule["description"].removesuffix(".").partition("; takes effect at")
            star = "*" if at_start else ""
            found.append(f"| `{group}.{key}`{star} | `{json.dumps(rule['default'])}` | {description} |")
    return found


def test_the_table_of_the_configuration_is_that_of_the_schema() -> None:
    documented = [line for line in PAGE.splitlines() if re.match(r"\| `[a-z]+\.[a-z_]+`\*? \|", line)]

    assert documented == rows()


def test_every_endpoint_and_every_metric_is_documented_and_no_other(client: Client) -> None:
    paths = set(openapi_document()["paths"]) - {"/static/{name}"}
    assert set(re.findall(r"^\| `(/[^`]*)` \|", PAGE, re.MULTILINE)) == paths

    client.get("/health")
    text = client.get("/metrics").text
    metrics = set(re.findall(r"^# TYPE (\S+) (?:gauge|counter|histogram)$", text, re.MULTILINE))
    own = {name for name in metrics if not name.startswith("kosd_process_") and not name.endswith("_created")}
    documented = set(re.findall(r"^\| `(kosd_[a-z_]+)` \|", PAGE, re.MULTILINE))
    assert documented - {"kosd_process_pss_bytes"} == own
