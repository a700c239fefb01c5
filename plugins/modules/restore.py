# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of kos.fleet.restore; the work is done by the action plugin of that name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore
short_description: Source of a node is brought back from a backup
version_added: 1.0.0
description:
  - Fetches a snapshot beside the live data, verifies it against its manifest, the witness and the checks
    of its
    method, and only then exchanges it with the live data by a rename. The old state stays until somebody
    confirms.
  - Needs root.
author:
  - kOS Fleet authors (@kos-fleet)
extends_documentation_fragment:
  - kos.fleet.attributes
  - kos.fleet.attributes.group
attributes:
  check_mode:
    support: full
    details:
      - Names the run that would be restored, and fails where there is none.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details:
      - O(state=confirmed) and O(state=undone) are. A restore is done each time.
options:
  state:
    description:
      - V(restored) brings O(source) back, V(confirmed) keeps what the restore O(id) brought and removes
        the old state,
        V(undone) brings the old state back.
    type: str
    choices: [restored, confirmed, undone]
    default: restored
  source:
    description: Its name in the table of the node. Required for O(state=restored).
    type: str
  id:
    description: What O(state=restored) returned as RV(id). Required for the other states.
    type: str
  run:
    description: The snapshot of this run. The newest one by default.
    type: str
  time:
    description: The state at this time, such as C(2026-01-31T12:00:00Z); UTC unless it says otherwise.
    type: str
  repository:
    description: From this repository. The first one that has the snapshot by default.
    type: str
  to:
    description: Into this directory on the node, and live data is left alone.
    type: str
  paths:
    description: Only these paths of the source.
    type: list
    elements: str
    default: []
  in_place:
    description: What is in the live directory is exchanged, and not the directory itself.
    type: bool
    default: false
  older:
    description: The word for a snapshot that is older than the newest one that the witness knows.
    type: bool
    default: false
  no_witness:
    description: The word for doing without a witness that cannot be reached.
    type: bool
    default: false
  accept_loss:
    description: The word for giving up the records of a ledger that the anchor in O(anchor_dir) knows and the
      snapshot lacks. Without it such a restore is refused.
    type: bool
    default: false
  anchor_dir:
    description:
      - Folder on the controller where role P(kos.fleet.kairoschain#role) keeps the last block seen of each
        node. A ledger that comes back has to go on from that block, or O(accept_loss) has to say that it need
        not.
      - With that word, and where the witness agrees, the anchor is moved to the last block that came back.
        The old one stays beside it until the restore is confirmed, and comes back where it is undone.
    type: path
    default: build/anchors
  stop:
    description: The word for stopping the service of the source while its data is exchanged.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Yesterday's state of a file lies beside it
  kos.fleet.restore:
    source: documents
    time: "2026-01-30T18:00:00Z"
    older: true
    paths: [/srv/documents/plan.odt]
    to: /root/restored

- name: Database is as it was at its last backup
  kos.fleet.restore:
    source: app-database
    stop: true
  register: restored

- name: Restored database is kept
  kos.fleet.restore:
    state: confirmed
    id: "{{ restored.id }}"
"""

RETURN = r"""
actions:
  description: What was done, or would be done, in order.
  type: list
  elements: str
  returned: always
id:
  description: Id of the restore.
  type: str
  returned: success, without check mode
state:
  description: V(VERIFIED), V(SWAPPED), V(CONFIRMED) or V(UNDONE).
  type: str
  returned: success, without check mode
source:
  description: The source.
  type: str
  returned: success
run:
  description: The run it is of.
  type: str
  returned: success
verified:
  description: What was compared.
  type: dict
  returned: success, with O(state=restored)
live:
  description: Where the restored data is.
  type: str
  returned: success, with O(state=restored)
before:
  description: Where the old state is kept.
  type: str
  returned: success, with O(state=restored)
seconds:
  description: How long fetching, verifying and exchanging took.
  type: dict
  returned: success, with O(state=restored)
anchor:
  description: What is given up of a ledger; none where it holds every block that was seen.
  type: dict
  returned: success, without check mode
  contains:
    known:
      description: The last block that was seen, index and hash.
      type: str
    restored:
      description: The last block that came back.
      type: str
    lost:
      description: How many records the anchor knew more.
      type: int
    agreed:
      description: Whether the witness agreed that the snapshot ends there, so that the anchor was moved.
      type: bool
bytes:
  description: How much was restored.
  type: int
  returned: success, with O(state=restored)
"""
