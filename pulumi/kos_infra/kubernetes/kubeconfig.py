"""Looks whether the cluster that a stack names is known here, without asking it or reading a credential."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from kosnode.errors import InputError


def check(context: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse to begin without a way to the cluster.

    Args:
        context: of the kubeconfig.
        environment: variables of this process.

    Raises:
        InputError: no kubeconfig has such a context; says where was looked, and nothing of what was there.
    """
    home = Path(environment.get("HOME", "/"))
    named = environment.get("KUBECONFIG", "")
    paths = [Path(one) for one in named.split(os.pathsep) if one] or [home / ".kube/config"]
    if any(context in _contexts(path) for path in paths):
        return
    looked = " and ".join(map(str, paths))
    origin = "which KUBECONFIG names" if named else "as KUBECONFIG is not set"
    raise InputError(
        f"context: {context} is in no kubeconfig; looked at {looked}, {origin}. "
        "For EKS, `aws eks update-kubeconfig --alias` makes it",
        key="context",
    )


def _contexts(path: Path) -> set[str]:
    """The names of a file's contexts; none of one that is not there or is no kubeconfig."""
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
        return {str(one["name"]) for one in document["contexts"]}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError):
        return set()
