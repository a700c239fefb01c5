"""What a KairosChain node is to be: read from JSON, checked against a schema and against what loses data."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import ledger, schema
from ..errors import InputError, RefusedError

OLDEST = (3, 64, 0)
LOOPBACK = "127.0.0.1"
_DEFAULT_EXPIRY_DAYS = 90


@dataclass(frozen=True)
class Proxy:
    """The TLS proxy in front of the server.

    Args:
        port: TCP port.
        certificate: chain, PEM.
        key: of the certificate, PEM.
        address: to listen on; all where it is empty.
        server_name: name of the server.
        body_bytes: the largest request.
        rate_per_s: requests a second from one address.
        connections: at once from one address.
    """

    port: int
    certificate: str
    key: str = field(repr=False)
    address: str = ""
    server_name: str = "_"
    body_bytes: int = 262_144
    rate_per_s: int = 20
    connections: int = 20


@dataclass(frozen=True)
class Spec:
    """What a KairosChain node is to be.

    Args:
        version: of the gem.
        sha256: of the gem, hexadecimal.
        code: folder of the gem's versions.
        data: data directory.
        gem: where the gem lies on the node, if it was brought.
        config: settings, laid over what skills/config.yml says.
        proxy: None where the server is reached on the node alone.
        token_days: age at which the admin token is replaced.
        check_interval_s: seconds between two deep checks.
        metrics: file of the textfile collector, if there is one.
        anchor: a block that the ledger has to have.
    """

    version: str
    sha256: str
    code: Path
    data: Path
    gem: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)
    proxy: Proxy | None = None
    token_days: int = 60
    check_interval_s: int = 300
    metrics: Path | None = None
    anchor: ledger.Anchor | None = None

    @property
    def http(self) -> dict[str, Any]:
        """Host, port and TLS of the server."""
        return {"host": LOOPBACK, "port": 8080, **self.config.get("http", {})}

    @property
    def settings(self) -> dict[str, Any]:
        """What has to stand in skills/config.yml; its other keys are the gem's."""
        http = {"enabled": True, "default_token_expiry_days": _DEFAULT_EXPIRY_DAYS, **self.http}
        storage = {"backend": "file", **self.config.get("storage", {})}
        return {**self.config, "storage": storage, "http": http}


def version_of(text: str) -> tuple[int, ...]:
    """Return a version as numbers that can be compared."""
    return tuple(int(part) for part in text.split("."))


def parse(value: Any, root: Path) -> Spec:
    """Read a spec.

    Args:
        value: what `files.parse` made of it.
        root: directory that stands for `/`.

    Raises:
        InputError: it breaks a rule; names the key.
        RefusedError: it asks for what is known to lose data, or to be open to everybody.
    """
    schema.check(value, "kairoschain", where="the spec")
    proxy = value.get("proxy")
    spec = Spec(
        version=value["version"],
        sha256=value["sha256"],
        code=_below(root, value["code"]),
        data=_below(root, value["data"]),
        gem=Path(value["gem"]) if "gem" in value else None,
        config=value.get("config", {}),
        proxy=Proxy(**proxy) if proxy is not None else None,
        token_days=value.get("token_days", 60),
        check_interval_s=value.get("check_interval_s", 300),
        metrics=_below(root, value["metrics"]) if "metrics" in value else None,
        anchor=ledger.parse_anchor(value["anchor"]) if "anchor" in value else None,
    )
    _refuse(spec)
    return spec


def _refuse(spec: Spec) -> None:
    if version_of(spec.version) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise RefusedError(
            f"version: {spec.version} takes a torn ledger for a new one and writes over it; "
            f"{oldest} is the oldest that may be installed",
            key="version",
        )
    if spec.config.get("storage", {}).get("backend") == "sqlite":
        raise RefusedError(
            "config.storage.backend: sqlite is broken for the ledger since 3.64.0: nothing can be recorded, "
            "and the database lands in the working directory; use file",
            key="config.storage.backend",
        )
    http = spec.http
    if not _is_loopback(http["host"]) and not http.get("tls", {}).get("enabled"):
        raise RefusedError(
            f"config.http.host: {http['host']} would serve others without TLS; leave it at {LOOPBACK} and "
            "set the proxy, or set config.http.tls",
            key="config.http.host",
        )
    expiry = spec.settings["http"]["default_token_expiry_days"]
    if spec.token_days >= expiry:
        raise InputError(
            f"token_days: {spec.token_days} is not before tokens expire, after {expiry} days "
            "(config.http.default_token_expiry_days)",
            key="token_days",
        )
    if spec.proxy is not None and spec.proxy.port == http["port"]:
        raise InputError(
            f"proxy.port: {spec.proxy.port} is the server's own (config.http.port)", key="proxy.port"
        )
    if spec.code == spec.data or spec.data in spec.code.parents:
        raise InputError(f"data: {spec.data} may not hold the code, {spec.code}", key="data")
    if spec.code in spec.data.parents and spec.data.parent != spec.code:
        raise InputError(
            f"data: in {spec.code} it has to be a folder of its own, such as {spec.code}/data", key="data"
        )
    if spec.code in spec.data.parents and spec.data.name[:1].isdigit():
        raise InputError(f"data: {spec.data} looks like a version of the gem", key="data")


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
