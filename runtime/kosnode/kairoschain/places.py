"""Where the parts of a KairosChain node are on its host, beside code and data, which the spec names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import units


@dataclass(frozen=True)
class Places:
    """Paths of the host.

    Args:
        root: directory that stands for `/`.
    """

    root: Path

    @property
    def home(self) -> Path:
        """Home of the account; the data directory is in it unless the spec says otherwise."""
        return self.root / "var/lib/kairos"

    @property
    def token(self) -> Path:
        """The admin token, for root alone."""
        return self.root / "etc/kairos/admin.token"

    @property
    def spare_token(self) -> Path:
        """A token that was made and is not in its place yet."""
        return self.home / ".admin-token"

    @property
    def proxy(self) -> Path:
        return self.root / units.PROXY_ETC.lstrip("/")

    @property
    def logrotate(self) -> Path:
        return self.root / "etc/logrotate.d/kairos-chain"

    def unit(self, name: str) -> Path:
        return self.root / "etc/systemd/system" / name

    def wanted(self, name: str) -> Path:
        """The link by which a boot starts a unit."""
        target = "timers" if name.endswith(".timer") else "multi-user"
        return self.root / f"etc/systemd/system/{target}.target.wants" / name

    @property
    def record(self) -> Path:
        """What was made here last: the deep check, the next run and a removal need no spec."""
        return self.root / "var/lib/kos/kairoschain.json"

    @property
    def lock(self) -> Path:
        return self.root / "run/kos/kairoschain.lock"

    @property
    def started(self) -> Path:
        """What the server was started with."""
        return self.root / "run/kairos-chain/started.json"

    def seen(self, path: Path) -> Path:
        """Return a path as the host itself sees it."""
        return Path("/") / path.relative_to(self.root)
