"""Program kubernetes: kOS units on a cluster that is there, from the unit.yml files that nodes use."""

from __future__ import annotations

from pathlib import Path

import pulumi
from pulumi_kubernetes.provider import Provider

from kosnode import authored, unit
from kosnode.errors import InputError
from kosnode.schema import refuse

from .. import settings
from . import kubeconfig
from .component import Units
from .rendering import Rendered, render
from .settings import UnitsSettings

OUTPUT = "kos_units"


def main(folder: Path) -> None:
    """Read the stack's settings and its units, and declare what they consist of.

    Args:
        folder: the program's own; paths in settings start from it.

    Raises:
        pulumi.RunError: a setting or a unit breaks a rule; nothing has been registered then.
    """
    config = pulumi.Config()
    where = config.full_key("settings")
    try:
        wanted = settings.read(UnitsSettings, config.get("settings"), where)
        rendered = render(read_units(folder / wanted.units_dir, wanted), wanted, where)
        kubeconfig.check(wanted.context)
    except InputError as error:
        raise pulumi.RunError(str(error)) from None
    for note in rendered.notes:
        pulumi.log.warn(note)
    provider = Provider("cluster", context=wanted.context)
    Units("units", rendered.objects, pulumi.ResourceOptions(provider=provider))
    pulumi.export(OUTPUT, _told(wanted, rendered))


def read_units(folder: Path, wanted: UnitsSettings) -> dict[str, unit.Unit]:
    """Return the units that a stack names, by the path of their file.

    Raises:
        InputError: a file that is not there or breaks a rule, or a unit of another name than its folder.
    """
    units = {}
    for name in wanted.units:
        path = folder / name / "unit.yml"
        found = unit.parse(authored.load(path), str(path))
        if found.id != name:
            refuse(str(path), "id", f"must be {name}, as its folder; it is {found.id}")
        units[str(path)] = found
    return units


def _told(wanted: UnitsSettings, rendered: Rendered) -> dict[str, object]:
    return {
        "namespace": wanted.namespace,
        "units": {
            name: {"kind": made.kind, "replicas": made.replicas, "canary": made.canary is not None}
            for name, made in rendered.workloads.items()
        },
    }
