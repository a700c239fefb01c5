# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of kos.fleet.kairoschain, what a host needs for it, and where a gem server has a gem. Pure."""

from __future__ import annotations

import re
import typing as t

ARGUMENTS: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "version": {"type": "str"},
    "gem": {"type": "str"},
    "gem_sha256": {"type": "str"},
    "code_dir": {"type": "path", "default": "/opt/kairos"},
    "data_dir": {"type": "path", "default": "/var/lib/kairos/data"},
    "config": {"type": "dict", "default": {}},
    "tls_certificate": {"type": "path"},
    "tls_key": {"type": "path", "no_log": False},
    "tls_port": {"type": "int", "default": 443},
    "tls_address": {"type": "str", "default": ""},
    "server_name": {"type": "str", "default": "_"},
    "body_bytes": {"type": "int", "default": 262144},
    "rate_per_s": {"type": "int", "default": 20},
    "connections": {"type": "int", "default": 20},
    "token_days": {"type": "int", "default": 60, "no_log": False},
    "check_interval_s": {"type": "int", "default": 300},
    "metrics_dir": {"type": "path"},
    "anchor_dir": {"type": "path", "default": "build/anchors"},
    "purge": {"type": "bool", "default": False},
}

MIN_RUBY = (3, 3)
PACKAGES = ("logrotate", "puma", "ruby", "ruby-base64", "ruby-rack")
PROXY_PACKAGES = ("nginx",)
GEM = "kairos-chain"

_RUBY = re.compile(r"(?:[0-9]+:)?([0-9]+)\.([0-9]+)")


def packages(tls: bool) -> tuple[str, ...]:
    """Return the Debian packages that a host needs."""
    return (*PACKAGES, *PROXY_PACKAGES) if tls else PACKAGES


def too_old(ruby: str) -> bool:
    """Whether a version of Ruby, or of Debian's package, is one that the gem refuses."""
    found = _RUBY.match(ruby)
    return found is not None and (int(found[1]), int(found[2])) < MIN_RUBY


def gem_address(server: str, version: str) -> str:
    """Return where a gem server has the gem of a version; an address of the gem itself stays as it is."""
    return server if server.endswith(".gem") else f"{server.rstrip('/')}/gems/{GEM}-{version}.gem"


def spec(args: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return what `kosctl kairoschain apply` is told, without certificate, gem and anchor."""
    made: dict[str, t.Any] = {
        "format": 1,
        "version": args["version"],
        "sha256": args["gem_sha256"],
        "code": args["code_dir"],
        "data": args["data_dir"],
        "config": dict(args["config"]),
        "token_days": args["token_days"],
        "check_interval_s": args["check_interval_s"],
    }
    if args["metrics_dir"]:
        made["metrics"] = f"{args['metrics_dir']}/kairoschain.prom"
    return made


def proxy(args: t.Mapping[str, t.Any], certificate: str, key: str) -> dict[str, t.Any]:
    """Return the proxy of that spec."""
    same = ("server_name", "body_bytes", "rate_per_s", "connections")
    made = {name: args[name] for name in same}
    return {
        **made,
        "port": args["tls_port"],
        "address": args["tls_address"],
        "certificate": certificate,
        "key": key,
    }
