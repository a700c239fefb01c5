# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of kos.fleet.release; the work is done by the action plugin of that name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Take a node to a signed release, and back by itself if that fails
version_added: 1.0.0
description:
  - Has a node fetch and verify a release, switch to it on trial, and confirms the trial over a fresh
    connection when the node has been healthy through the bake time.
  - A trial that is not confirmed, for whatever reason, ends by itself in the release that ran before. The
    task then fails and says why, what the node runs now, and where the evidence is.
  - Needs no root. Connects as root or as the operator account C(kosops), whose only right is to ask
    C(kosctl).
author:
  - kOS Fleet authors (@kos-fleet)
extends_documentation_fragment:
  - kos.fleet.attributes
  - kos.fleet.attributes.group
attributes:
  check_mode:
    support: full
    details:
      - The node itself makes the plan, and fetches signed metadata and the manifest for it. On a host without
        C(kosctl) the plan is what the controller knows, and says so in RV(plan_by).
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(confirmed) is the release of O(release) running and confirmed.
      - V(present) is some confirmed release running; O(release) is installed only where there is none.
      - V(staged) is the release fetched, verified and ready, without switching to it.
      - V(absent) is no slot of the release on the node. The slots of the current and the previous release,
        and of a running trial, are never removed.
    type: str
    choices: [present, staged, confirmed, absent]
    default: confirmed
  release:
    description:
      - A version in the node's channel, a release root (64 hexadecimal digits, or 12 and more that name
        one), or V(previous).
      - V(previous) only leads back. On a node whose previous release is newer than the one that it runs,
        because it was rolled back already, nothing is done.
      - The newest release of the node's channel by default.
      - Required for O(state=absent).
    type: str
  bake:
    description: Seconds for which the release has to be healthy before it is confirmed. The node's policy
      by default.
    type: int
  deadline:
    description:
      - Seconds after which a trial that is not confirmed ends. The node's policy by default.
      - Has to be longer than the bake time and the time that services need to settle.
    type: int
  allow_downgrade:
    description: The word for going to an older version than the node runs. Without it that is refused.
    type: bool
    default: false
  accept_risk:
    description: The word for a release that says of itself that it breaks something, or that it is risky.
    type: bool
    default: false
  lease:
    description: Lease of the rollout that this task belongs to, see M(kos.fleet.lease).
    type: str
  timeout:
    description: Seconds past the deadline for which a node that cannot be reached is still called.
    type: int
    default: 120
  evidence_dir:
    description: Folder on the controller for what a failed trial left; in it a folder for each node and
      trial.
    type: path
    default: build/evidence
seealso:
  - module: kos.fleet.bootstrap
  - module: kos.fleet.node_info
  - module: kos.fleet.lease
"""

EXAMPLES = r"""
- name: Node runs release 1.4.2
  kos.fleet.release:
    release: 1.4.2

- name: Node runs some release; the newest of its channel where there was none
  kos.fleet.release:
    state: present

- name: Release 1.5.0 is on the node, to be switched to later
  kos.fleet.release:
    release: 1.5.0
    state: staged

- name: Node goes back to the release before
  kos.fleet.release:
    release: previous
    allow_downgrade: true
"""

RETURN = r"""
release:
  description: Version of the release.
  type: str
  returned: when the release is known
  sample: 1.4.2
root:
  description: Root of the release, which names its slot.
  type: str
  returned: when the release is known
name:
  description: Release line.
  type: str
  returned: when the release is known
  sample: kos
outcome:
  description:
    - V(confirmed), V(present) where the node ran it already, V(staged), V(absent), or V(planned) in check
      mode.
    - V(reverted-healthy), V(reverted-unhealthy) or V(reverted-unknown) where the trial ended in the old
      release.
    - V(unreachable) where the node could not be asked how the trial ended.
  type: str
  returned: always
reason:
  description: Why a trial was not confirmed. Empty if it was.
  type: str
  returned: when there was a trial
trial:
  description: Name of the trial, also of its evidence.
  type: str
  returned: when there was a trial
seconds:
  description: Seconds from the first request to the end.
  type: float
  returned: when the release was staged
started:
  description: When the task began, in seconds since 1970.
  type: float
  returned: when the release was staged
downtime_s:
  description: Seconds for which units were stopped by the switch, as systemd saw it.
  type: float
  returned: when there was a trial
bytes:
  description: Bytes that the node fetched, metadata included.
  type: int
  returned: when the release was staged or planned
mirror:
  description: Mirror that gave the release.
  type: str
  returned: when the release was staged
mirrors_left:
  description: Mirrors that were left for the next one, with the reason.
  type: list
  elements: dict
  returned: when the release was staged
how:
  description: V(present), V(patch), V(whole) or V(mixed), after how the bytes came.
  type: str
  returned: when the release was staged or planned
evidence:
  description: Folder on the controller with what a failed trial left.
  type: str
  returned: when a trial was reverted and the node could give it
actions:
  description: What was done, or would be done, in order.
  type: list
  elements: str
  returned: always
plan:
  description: The node's whole plan, with its steps, restarts, breaking changes and disk.
  type: dict
  returned: in check mode, where the node made it
plan_by:
  description: V(node), or V(controller) where C(kosctl) is not on the host yet.
  type: str
  returned: in check mode
node_state:
  description: What the node is doing now, V(EMPTY), V(TRIAL), V(CONFIRMED) or V(REVERTED).
  type: str
  returned: on failure, where it is known
kind:
  description: Kind of the error, as C(kosctl) names it.
  type: str
  returned: on failure
key:
  description: The input that is wrong.
  type: str
  returned: on failure, where there is one
exit:
  description: Exit code of C(kosctl).
  type: int
  returned: on failure
"""
