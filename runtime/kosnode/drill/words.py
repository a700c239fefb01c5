"""Times and sizes as people read them."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024


def duration(ms: int | None) -> str:
    """Return a time in its two largest units; None is not known."""
    if ms is None:
        return "unknown"
    if 0 < ms < 1000:
        return f"{ms} ms"
    whole = round(ms / 1000)
    if whole < 60:
        return f"{ms / 1000:.1f} s" if ms % 1000 else f"{whole} s"
    for name, length, small, part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length} {name}" + (f" {rest} {small}" if rest else "")
    raise AssertionError("a minute or more has a unit")


def size(count: int) -> str:
    """Return bytes in the largest unit that fits."""
    amount, unit = float(count), 0
    while amount >= _STEP and unit < len(_UNITS) - 1:
        amount, unit = amount / _STEP, unit + 1
    return f"{amount:.1f} {_UNITS[unit]}" if unit else f"{count} B"


def when(time: str | None) -> str:
    """Return a time as reports write it for people; None is no time."""
    return "none" if time is None else time.replace("T", " ").replace("Z", " UTC")
