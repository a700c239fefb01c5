"""Whatever a unit says: its objects are what a cluster takes, break no policy, and are always the same."""

from __future__ import annotations

import os
from typing import Any

import kubernetes_validate
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from infra.kubernetes.samples import IMAGE, rendered
from kos_infra import policies
from kos_infra.kubernetes.component import kind_of
from kos_infra.kubernetes.rendering import Rendered
from kos_infra.recording import Registration
from kosnode.errors import InputError

ROUNDS = settings(
    max_examples=int(os.environ.get("KOS_ROUNDS", "1")) * 10,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)

text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20)
sources = st.lists(
    st.sampled_from(["any", "localhost", "10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]), min_size=1, max_size=3
)
port = st.integers(1024, 65535)
proto = st.sampled_from(["tcp", "udp"])


@st.composite
def documents(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Units that obey the schema; some of what they say Kubernetes cannot."""
    ports = draw(st.lists(port, unique=True, max_size=3))
    ingress = [{"port": one, "proto": draw(proto), "from": draw(sources)} for one in ports]
    egress = draw(
        st.lists(
            st.fixed_dictionaries(
                {"host": sources.map(lambda some: some[0])}, optional={"port": port, "proto": proto}
            ),
            max_size=3,
        )
    )
    checks = [{"command": ["/bin/check", draw(text.filter(bool))]}, {"file_age": {"path": "x", "max": "5m"}}]
    checks += [{"tcp": {"port": one}} for one in ports]
    checks += [{"http": {"url": f"http://localhost:{one}/h"}} for one in ports]
    optional: dict[str, Any] = {
        "max_replicas": draw(st.integers(1, 9)),
        "affinity": draw(st.sampled_from([{}, {"spread": "zone"}, {"spread": "node"}, {"every_node": True}])),
        "state": draw(st.sampled_from([{}, {"migrated": True}, {"size": "3G"}])),
        "health": [draw(st.sampled_from(checks))],
        "description": draw(text),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(optional))))
    native = draw(st.booleans())
    entry: dict[str, Any] = {"env": {"TOLD": draw(text)}, "timeout": f"{draw(st.integers(1, 900))}s"}
    if native:
        entry["command"] = ["bin/run", draw(text.filter(bool))]
    memory = draw(st.integers(1, 1 << 20))
    return {
        "id": name,
        "version": "1.0.0",
        "tier": draw(st.integers(0, 3)),
        "format": "native" if native else "oci",
        "image": IMAGE,
        "entry": entry,
        "resources": {"max": {"memory": f"{memory}K", "cpu": f"{draw(st.integers(1, 800))}%"}},
        "network": {"ingress": ingress, "egress": egress},
        **{key: optional[key] for key in chosen},
    }


wishes = st.fixed_dictionaries(
    {}, optional={"replicas": st.integers(1, 9), "config": st.dictionaries(text, text, max_size=2)}
)


@ROUNDS
@given(
    document=documents("web"),
    wish=wishes,
    canary=st.sampled_from([None, {"zone": "a"}, {"zone": "b", "bake_s": 3600}]),
)
def test_any_unit_is_refused_or_becomes_good_objects(
    document: dict[str, Any], wish: dict[str, Any], canary: dict[str, Any] | None
) -> None:
    try:
        stack = rendered(document, canary=canary, web=wish)
    except InputError as error:
        refused: InputError | None = error
    else:
        refused = None
    event("refused" if refused else "rendered")
    if refused is not None:
        assert refused.key
        assert refused.key in refused.message
        return
    for one in stack.objects:
        kubernetes_validate.validate(dict(one.body), "1.35", strict=True)
    assert policies.violations(_registrations(stack), policies.RULES) == ()
    assert _count(stack) == (None if stack.workloads["web"].kind == "DaemonSet" else wish.get("replicas", 1))
    assert rendered(document, canary=canary, web=wish) == stack
    known: set[str] = set()
    for one in stack.objects:
        assert set(one.after) <= known
        known.add(one.key)


def _registrations(stack: Rendered) -> list[Registration]:
    return [
        Registration(urn=one.key, type=kind_of(one), name=one.name, inputs=one.body, protect=one.protect)
        for one in stack.objects
    ]


def _count(stack: Rendered) -> int | None:
    """How many there are in the end, canary and others together."""
    made = stack.workloads["web"]
    counts = [one.body["spec"].get("replicas") for one in (made.canary, made.main) if one is not None]
    return None if None in counts else sum(counts)
