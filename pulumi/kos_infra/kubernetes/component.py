"""The component that registers rendered objects: each as it is, after what it waits for."""

from __future__ import annotations

from collections.abc import Iterable

import pulumi

from .objects import Object


class Units(pulumi.ComponentResource):
    """All objects of a stack of units.

    Args:
        name: logical name.
        objects: as `rendering.render` orders them.
    """

    def __init__(
        self, name: str, objects: Iterable[Object], opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kos:kubernetes:Units", name, None, opts)
        registered: dict[str, pulumi.Resource] = {}
        for one in objects:
            options = pulumi.ResourceOptions(
                parent=self,
                depends_on=[registered[key] for key in one.after],
                protect=one.protect,
                retain_on_delete=one.protect,
            )
            registered[one.key] = pulumi.CustomResource(kind_of(one), one.name, dict(one.body), options)
        self.register_outputs({})


def kind_of(one: Object) -> str:
    """Return the type under which Pulumi's provider knows an object; what has no group is of `core`."""
    version = one.body["apiVersion"]
    return f"kubernetes:{version if '/' in version else f'core/{version}'}:{one.body['kind']}"
