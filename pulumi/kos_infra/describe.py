"""Says what a stack consists of and costs, before it is made or from what was made.

    python -m kos_infra.describe aws_fleet/Pulumi.prod.yaml --svg topology.svg
    pulumi stack export | python -m kos_infra.describe -

The program runs against mocks: no cloud is asked, and nothing is made.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import pulumi

from kosnode.errors import InputError

from . import costs, recording, stackfile, topology
from .recording import Registration

# The program wants to know that there are some; nothing is asked with them.
_NO_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}


def main(arguments: list[str] | None = None) -> int:
    """Print the table of costs, and draw the picture where one is asked for."""
    parser = argparse.ArgumentParser(prog="python -m kos_infra.describe", description=__doc__)
    parser.add_argument("source", help="a stack file, an exported state, or - for one on standard input")
    parser.add_argument("--svg", type=Path, help="where to draw the topology")
    options = parser.parse_args(arguments)
    try:
        title, registrations = read(options.source)
    except (InputError, pulumi.RunError) as error:
        print(f"describe: {error}", file=sys.stderr)
        return 2
    kinds = Counter(one.type for one in registrations if one.custom)
    print(f"{title}: {sum(kinds.values())} resources of {len(kinds)} types\n")
    print(costs.table(registrations), end="")
    if options.svg:
        options.svg.write_text(topology.svg(registrations, title), "utf-8")
    return 0


def read(source: str) -> tuple[str, Sequence[Registration]]:
    """Return what the stack is called and what it consists of.

    Args:
        source: path of a stack file or of an exported state; `-` for one on standard input.

    Raises:
        InputError: it is neither.
        pulumi.RunError: the program refuses its settings.
    """
    if source.endswith(".yaml"):
        file = stackfile.read(Path(source))
        with patch.dict(os.environ, _NO_CREDENTIALS):
            recorded = recording.record_file(
                file.program / "__main__.py",
                project=file.project,
                stack=file.stack,
                config=file.handed_over(),
            )
        return f"{file.project} {file.stack}", recorded.registrations
    try:
        document = json.loads(sys.stdin.read() if source == "-" else Path(source).read_text("utf-8"))
        made = recording.from_export(document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{source}: is neither a stack file nor what `pulumi stack export` wrote") from None
    if not made:
        raise InputError(f"{source}: the stack has no resources")
    stack, project = made[0].urn.split("::")[:2]
    return f"{project} {stack.removeprefix('urn:pulumi:')}", made


if __name__ == "__main__":
    sys.exit(main())
