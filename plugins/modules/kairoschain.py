# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of kos.fleet.kairoschain; the work is done by the action plugin of that name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kairoschain
short_description: Make a host a KairosChain node, in one transaction
version_added: 1.0.0
description:
  - Installs the gem C(kairos-chain) that is named by version and digest, from a file on the controller or
    from a gem server that the controller asks. The node needs no network for it.
  - Makes account, directories, settings, a hardened service with a guard at its start, an admin token, log
    rotation, a deep check with metrics at intervals, and a TLS proxy where a certificate is given.
  - An upgrade is done on a copy of the data and verified there before it takes the place of the data. Where
    it fails, or the server is not well with it, version and data are as they were.
  - The ledger is verified before anything is touched, and compared with the anchor that an earlier run left
    on the controller. A ledger that is damaged, absent, or has lost blocks is not worked on.
  - Needs root, and C(kosctl) on the host (role C(bootstrap)).
author:
  - kOS Fleet authors (@kos-fleet)
extends_documentation_fragment:
  - kos.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Secrets are not shown.
  idempotent:
    support: full
options:
  state:
    description: V(present) is a node as described, V(absent) a host without it, on which the data stays.
    type: str
    choices: [present, absent]
    default: present
  version:
    description:
      - Version of the gem, 3.64.0 or later. An older node is upgraded to it, a newer one is refused.
      - Required for O(state=present).
    type: str
  gem:
    description:
      - Path of the gem on the controller, or the address of a gem server, or of the gem itself.
      - Required for O(state=present).
    type: str
  gem_sha256:
    description: SHA-256 of the gem. Required for O(state=present).
    type: str
  code_dir:
    description: Folder of the gem's versions.
    type: path
    default: /opt/kairos
  data_dir:
    description: Data directory. It may be O(code_dir) with C(/data) added, so that all is in one directory.
    type: path
    default: /var/lib/kairos/data
  config:
    description:
      - Settings, laid over C(skills/config.yml). An unknown key is refused.
      - C(http.host) is C(127.0.0.1) unless C(http.tls) is set.
    type: dict
    default: {}
  tls_certificate:
    description: Certificate chain on the controller. With O(tls_key) there is a TLS proxy.
    type: path
  tls_key:
    description: Key of O(tls_certificate) on the controller. On the host only root and the proxy read it.
    type: path
  tls_port:
    description: TCP port of the proxy.
    type: int
    default: 443
  tls_address:
    description: Address that the proxy listens on. All by default.
    type: str
    default: ""
  server_name:
    description: Name of the server.
    type: str
    default: _
  body_bytes:
    description: The largest request that the proxy passes on, in bytes.
    type: int
    default: 262144
  rate_per_s:
    description: Requests a second that the proxy takes from one address.
    type: int
    default: 20
  connections:
    description: Connections at once that the proxy takes from one address.
    type: int
    default: 20
  token_days:
    description: Age in days at which the admin token is replaced, with the restart that this needs.
    type: int
    default: 60
  check_interval_s:
    description: Seconds between two deep checks.
    type: int
    default: 300
  metrics_dir:
    description: Folder of the textfile collector on the host. No metrics are written without it.
    type: path
  anchor_dir:
    description: Folder on the controller that keeps the last block seen of each node.
    type: path
    default: build/anchors
  purge:
    description: The word for removing the data, its tokens and the account as well, for O(state=absent).
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Host is a KairosChain node
  kos.fleet.kairoschain:
    version: 3.75.0
    gem: files/kairos-chain-3.75.0.gem
    gem_sha256: "{{ kairos_gem_sha256 }}"
    config:
      instructions_mode: developer
  become: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done, in order.
  type: list
  elements: str
  returned: always
version:
  description: Version of the gem.
  type: str
  returned: success, with O(state=present)
previous:
  description: Version before, where that was another.
  type: str
  returned: success, with O(state=present)
ledger:
  description: Length of the ledger, index and hash of its last block.
  type: dict
  returned: success, with O(state=present), unless there is no ledger yet
anchor:
  description: Index and hash of the last block, as they are kept in O(anchor_dir).
  type: str
  returned: success, with O(state=present), unless there is no ledger yet
upgrade:
  description: What the application said of an upgrade.
  type: str
  returned: success, with O(state=present)
"""
