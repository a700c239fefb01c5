"""The policy pack: `pulumi up --policy-pack pulumi/policies`; see kos_infra/policies."""

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT / "pulumi"), str(PROJECT / "runtime")]

from pulumi_policy import EnforcementLevel, PolicyPack  # noqa: E402 - as below

from kos_infra.policies import pack  # noqa: E402 - found through the line above

# Serves until the engine ends it.
PolicyPack(name=pack.NAME, enforcement_level=EnforcementLevel.MANDATORY, policies=pack.policies())
