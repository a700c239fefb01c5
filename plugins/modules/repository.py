# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of kos.fleet.repository; the work is done by the action plugin of that name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: repository
short_description: Repository of signed releases, made, signed and published
version_added: 1.0.0
description:
  - Makes a repository with its keys, builds a release from a tree, signs with the keys that are at hand, and
    publishes what enough holders have signed.
  - Each step is taken only where it is missing. What still waits for signatures of other holders is
    returned, with the file that they sign on their own machines.
  - Runs on the controller, whatever host the task is for. Never on a node or a mirror.
author:
  - kOS Fleet authors (@kos-fleet)
extends_documentation_fragment:
  - kos.fleet.attributes
attributes:
  check_mode:
    support: partial
    details:
      - Whether a tree differs from the release that was built from it is only known by building it. In
        check mode a version that the repository has counts as built.
  diff_mode:
    support: none
  idempotent:
    support: full
requirements:
  - cryptography and PyYAML on the controller, and the Python package kosnode with its publisher
options:
  path:
    description: Folder of the repository. Its C(public) folder is what mirrors serve.
    type: path
    required: true
  state:
    description:
      - V(present) is a repository with the keys, and with the release if O(tree) names one, signed with
        O(sign_with).
      - V(published) is that, visible to nodes. Fails where signatures are still missing.
    type: str
    choices: [present, published]
    default: published
  root_keys:
    description: Public keys of the holders of root. Needed to make a repository.
    type: list
    elements: path
    default: []
  root_threshold:
    description: Signatures that root needs. All by default.
    type: int
  releases_keys:
    description: Public keys of the holders who sign releases. Needed to make a repository.
    type: list
    elements: path
    default: []
  releases_threshold:
    description: Signatures that releases need. All by default.
    type: int
  online_key:
    description: Encrypted private key that signs snapshot and timestamp. Needed to make a repository.
    type: path
  online_passphrase_file:
    description: File with the passphrase of O(online_key). Needed to make a repository and to publish.
    type: path
  sign_with:
    description: Keys that are at hand here, and sign whatever waits for them.
    type: list
    elements: dict
    default: []
    suboptions:
      key:
        description: Encrypted private key.
        type: path
        required: true
      passphrase_file:
        description: File with its passphrase.
        type: path
        required: true
  make_keys:
    description:
      - Make keys of O(root_keys), O(releases_keys), O(online_key) and O(sign_with) that are not there,
        with the passphrases of O(sign_with) and O(online_passphrase_file).
      - For trying things out. Holders of a real fleet make their keys on their own machines.
    type: bool
    default: false
  tree:
    description: Folder from which a release is built.
    type: path
  version:
    description: Version of that release.
    type: str
  name:
    description: Release line of that release.
    type: str
  arch:
    description: Architecture of that release.
    type: str
    choices: [any, x86_64, aarch64]
  release_file:
    description: YAML, TOML or JSON that says the rest of the manifest.
    type: path
  channels:
    description: Channels of that release.
    type: list
    elements: str
    default: [stable]
  mirror_dir:
    description: Copy what is published to this folder as well, in an order in which a node may read it
      meanwhile.
    type: path
  engine:
    description:
      - Folder that holds the Python package kosnode. By default C(runtime) beside the collection's
        plugins, else what the controller's Python finds.
    type: path
"""

EXAMPLES = r"""
- name: Release 1.1.0 is published
  kos.fleet.repository:
    path: build/repository
    tree: build/tree-1.1.0
    name: kos
    version: 1.1.0
    online_passphrase_file: keys/online.pass
    sign_with:
      - key: keys/ada
        passphrase_file: keys/ada.pass
      - key: keys/ben
        passphrase_file: keys/ben.pass
"""

RETURN = r"""
actions:
  description: What was done, or would be done, in order.
  type: list
  elements: str
  returned: always
root:
  description: Root of the release that was built.
  type: str
  returned: when there is a tree
waiting:
  description: Documents that wait for signatures, by role, each with its file and who has signed.
  type: dict
  returned: success
public:
  description: Folder that mirrors serve.
  type: str
  returned: success
trust_root:
  description: First root of trust, which nodes pin.
  type: str
  returned: success, when the repository was published
releases:
  description: All releases of the repository.
  type: list
  elements: dict
  returned: success
"""
