"""A cloud that is a folder: what the fake providers made, what they were asked, and what shall go wrong next.

Providers are processes that the engine starts and stops at will, so everything is in files. A test makes a
cloud, looks at it, changes it behind the engine's back, and orders faults.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

FOLDER_VARIABLE = "KOS_FAKE_CLOUD"

Json = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """A resource as the cloud has it: `state` is all that a read gives, `inputs` what it was asked for."""

    type: str
    name: str
    id: str
    inputs: Json
    state: Json


@dataclass(frozen=True)
class Call:
    """What a provider was asked: an operation (`create`, `update`, `delete`, …) on one resource."""

    operation: str
    type: str
    name: str
    id: str = ""
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fault:
    """What goes wrong with the next `times` operations that match.

    They fail with a message, or kill what `kills` names: the `provider`, or the `engine` with it.
    """

    operation: str
    type: str
    name: str
    message: str
    times: int
    kills: str = ""

    def matches(self, call: Call) -> bool:
        """Say whether a call meets this fault."""
        return (
            fnmatchcase(call.operation, self.operation)
            and fnmatchcase(call.type, self.type)
            and fnmatchcase(call.name, self.name)
        )


class Cloud:
    """What a folder holds of a cloud.

    Args:
        folder: An absolute path; it is made when it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._resources = folder / "resources"
        self._resources.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of_environment(cls) -> Cloud:
        """Return the cloud that the environment names, as a provider does."""
        return cls(Path(os.environ[FOLDER_VARIABLE]))

    def put(self, resource: Resource) -> None:
        """Keep a resource in place of the one of the same type and id."""
        _write(self._path(resource.type, resource.id), asdict(resource))

    def get(self, kind: str, identity: str) -> Resource | None:
        """Return the resource of a type and id, or None."""
        try:
            return Resource(**json.loads(self._path(kind, identity).read_text()))
        except FileNotFoundError:
            return None

    def delete(self, kind: str, identity: str) -> None:
        """Forget a resource, whether it is there or not."""
        self._path(kind, identity).unlink(missing_ok=True)

    def all(self, kind: str = "*", name: str = "*") -> list[Resource]:
        """Return the resources whose type and logical name match, by type and name."""
        # A type without wildcards is found by the names of files alone.
        names = "*.json" if set("*?[") & set(kind) else f"{_digest(kind)}-*.json"
        read = (Resource(**json.loads(path.read_text())) for path in self._resources.glob(names))
        found = [each for each in read if fnmatchcase(each.type, kind) and fnmatchcase(each.name, name)]
        return sorted(found, key=lambda each: (each.type, each.name, each.id))

    def one(self, kind: str, name: str = "*") -> Resource:
        """Return the only resource whose type and logical name match."""
        (found,) = self.all(kind, name)
        return found

    def edit(self, kind: str, name: str, **values: Any) -> None:
        """Change a resource behind the engine's back: as a person in the console does."""
        found = self.one(kind, name)
        inputs = {**found.inputs, **{key: value for key, value in values.items() if key in found.inputs}}
        self.put(Resource(found.type, found.name, found.id, inputs, {**found.state, **values}))

    def fail(
        self,
        operation: str,
        kind: str = "*",
        name: str = "*",
        message: str = "the cloud said no",
        times: int = 1,
        kills: str = "",
    ) -> None:
        """Order a fault for the next `times` matching operations; see Fault."""
        with self._locked():
            self._write_faults([*self._read_faults(), Fault(operation, kind, name, message, times, kills)])

    def meet(self, call: Call) -> Fault | None:
        """Write a call down and return the fault that it meets, which is used up by one."""
        with self._locked():
            with self._calls.open("a") as log:
                log.write(json.dumps(asdict(call)) + "\n")
            faults = self._read_faults()
            met = next((fault for fault in faults if fault.times > 0 and fault.matches(call)), None)
            if met is not None:
                faults[faults.index(met)] = Fault(**{**asdict(met), "times": met.times - 1})
                self._write_faults(faults)
            return met

    def calls(self, operation: str = "*", kind: str = "*") -> list[Call]:
        """Return the calls so far whose operation and type match, oldest first."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        read = (json.loads(line) for line in lines)
        calls = [Call(**{**each, "changed": tuple(each["changed"])}) for each in read]
        return [
            call for call in calls if fnmatchcase(call.operation, operation) and fnmatchcase(call.type, kind)
        ]

    def forget_calls(self) -> None:
        """Empty the log of calls, so that a test sees those of its next step alone."""
        self._calls.unlink(missing_ok=True)

    @property
    def _calls(self) -> Path:
        return self.folder / "calls.jsonl"

    def _path(self, kind: str, identity: str) -> Path:
        return self._resources / f"{_digest(kind)}-{_digest(identity)}.json"

    def _read_faults(self) -> list[Fault]:
        path = self.folder / "faults.json"
        return [Fault(**each) for each in json.loads(path.read_text())] if path.exists() else []

    def _write_faults(self, faults: list[Fault]) -> None:
        _write(self.folder / "faults.json", [asdict(fault) for fault in faults])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _write(path: Path, value: Any) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.write_text(json.dumps(value, sort_keys=True))
    temporary.rename(path)
