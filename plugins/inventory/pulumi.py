# Copyright (c) 2026 the kOS Fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory of a cluster made by Pulumi: its contract says what there is, the cloud says what runs."""

from __future__ import annotations

DOCUMENTATION = r"""
name: pulumi
short_description: Nodes of a cluster that a Pulumi program of kOS Fleet made
version_added: 1.1.0
description:
  - Reads the contract of a cluster (stack output C(kos_fleet), format 1) and asks the cloud which instances
    run.
  - Hosts are named by instance id. They are in the groups, and have the variables, that the playbooks of
    this collection want, so that nothing has to be copied by hand.
  - Groups are C(nodes); C(mirrors), which is empty where a bucket is the mirror; C(stack_FLEET_STACK); and
    C(zone_*), C(class_*), C(arch_*) and C(wave_*), one of each for a node. What is neither letter, digit
    nor C(_) in a name becomes C(_).
  - C(stack_FLEET_STACK) carries C(bootstrap_fleet), C(bootstrap_mirrors) and what a connection needs;
    C(zone_*) carries C(bootstrap_zone), and C(class_*) carries C(bootstrap_class). Files in C(group_vars)
    override them.
  - A host carries C(ansible_host), C(ansible_aws_ssm_instance_id) and C(kos_instance) with C(id), C(type),
    C(image), C(private_ip), C(availability_zone), C(launched), C(tags), C(autoscaling_group), C(group) and
    C(wave).
  - Expressions of O(compose), O(groups) and O(keyed_groups) see these, and the contract as C(kos_contract).
author:
  - kOS Fleet authors (@kos-fleet)
requirements:
  - fastjsonschema
  - boto3
  - for connections over SSM, the AWS CLI and its session-manager-plugin
extends_documentation_fragment:
  - constructed
  - inventory_cache
notes:
  - A contract holds no secret, and one with a secret in it is refused. No other output of a stack is kept.
  - Nodes are reached by SSH inside a session of SSM, with no port open. The connection
    C(amazon.aws.aws_ssm) does not end the standard input of a command, from which kosctl reads its request,
    so that it cannot be used for this collection. Its variables are set nevertheless, for other content.
options:
  plugin:
    description: Says that this file is for this plugin.
    type: str
    required: true
    choices: [kos.fleet.pulumi]
  stack:
    description:
      - Name of the stack, as in C(pulumi stack ls).
      - Goes with O(project_dir), or with O(project) and O(state).
    type: str
  project_dir:
    description:
      - Folder of the Pulumi program, relative to this file. The stack is then read by the command
        C(pulumi).
    type: str
  project:
    description:
      - Name of the program in its C(Pulumi.yaml). The stack is then read from O(state), without the
        command.
    type: str
  state:
    description:
      - Address of the state, either V(file://FOLDER), relative to this file, or V(s3://BUCKET/PREFIX) with
        C(region), C(profile) and C(endpoint) as parameters.
      - With O(project_dir) it is any address that the command knows; by default the one that it is logged
        in to.
    type: str
  file:
    description:
      - A file, relative to this one, that is read in place of a stack. It is what one of C(pulumi stack
        output kos_fleet --json), C(pulumi stack output --json) and C(pulumi stack export) wrote.
    type: str
  regions:
    description:
      - Regions in which the fleet may live. A cluster in another one is refused. By default all are
        allowed.
    type: list
    elements: str
    default: []
  aws_profile:
    description: Profile of the AWS configuration to ask and connect with. By default the environment says.
    type: str
    env:
      - name: AWS_PROFILE
"""

EXAMPLES = r"""
---
# fleet.pulumi.yml: a stack, by the command
plugin: kos.fleet.pulumi
stack: prod
project_dir: ../../pulumi/aws_fleet
---
# A stack, out of its state in a bucket, and only where the fleet may live
plugin: kos.fleet.pulumi
stack: prod
project: kos-aws-fleet
state: s3://example-pulumi-state?region=eu-central-1
regions: [eu-central-1, eu-west-1]
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/kos-fleet
cache_timeout: 300
---
# What somebody exported with `pulumi stack output kos_fleet --json`, with groups and variables of one's own
plugin: kos.fleet.pulumi
file: prod.json
compose:
  bootstrap_tribe: kos_instance.tags.tribe
  backup_bucket: kos_contract.backup.bucket
keyed_groups:
  - key: kos_instance.type
    prefix: type
"""

import hashlib
import json
import typing as t
from pathlib import Path

from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.module_utils.basic import missing_required_lib
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ansible_collections.kos.fleet.plugins.plugin_utils import _cloud, _contract, _fleet_groups, _stack

SUFFIXES = ("pulumi.yml", "pulumi.yaml")


_NEEDED = {"id", "autoscaling_group", "availability_zone"}


def _is_whole(kept: t.Any) -> bool:
    """Whether a cache holds what this plugin puts into one."""
    instances = kept.get("instances") if isinstance(kept, dict) and "contract" in kept else None
    return isinstance(instances, list) and all(
        isinstance(one, dict) and one.keys() >= _NEEDED for one in instances
    )


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """The inventory plugin kos.fleet.pulumi."""

    NAME = "kos.fleet.pulumi"

    def verify_file(self, path: str) -> bool:
        """Whether the file is one of ours, by its name."""
        return bool(super().verify_file(path)) and path.endswith(SUFFIXES)

    def parse(self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True) -> None:
        """Fill the inventory.

        Raises:
            AnsibleParserError: one message for whatever is wrong, before any host is added.
        """
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        try:
            contract, instances = self._known(path, cache)
            hosts = _fleet_groups.join(contract, instances, self.get_option("aws_profile"))
        except ImportError as error:
            # What boto3 brings is not what somebody has to install.
            library = "boto3" if error.name == "botocore" else str(error.name)
            raise AnsibleParserError(f"{path}: {missing_required_lib(library)}") from None
        except (_contract.ContractError, _stack.StackError, _cloud.CloudError) as error:
            raise AnsibleParserError(f"{path}: {error}") from None
        for sentence in hosts.warnings:
            self.display.warning(f"{path}: {sentence}")
        self._fill(inventory, contract, hosts)

    def _known(self, path: str, cache: bool) -> tuple[_contract.Contract, list[dict[str, t.Any]]]:
        """The contract and the instances, from the cache where that is wanted and filled."""
        self.load_cache_plugin()
        key = self._key(path)
        wanted = bool(self.get_option("cache"))
        kept: t.Any = self._cache.get(key) if wanted and cache else None
        if not _is_whole(kept):
            contract = self._read(path)
            instances = _cloud.running_instances(
                contract.region, contract.account, contract.tags, self.get_option("aws_profile")
            )
            if wanted:
                self._cache[key] = {"contract": dict(contract.document), "instances": instances}
            return contract, instances
        where = f"the cache of {path}"
        contract = _contract.check(kept["contract"], where)
        _contract.refuse_foreign_region(contract, self.get_option("regions"), where)
        return contract, kept["instances"]

    def _key(self, path: str) -> str:
        """A key of the cache that another stack, account or format of contracts never has."""
        names = ("stack", "project_dir", "project", "state", "file", "aws_profile")
        said = json.dumps([_contract.FORMAT, *(self.get_option(name) for name in names)])
        return f"{self.get_cache_key(path)}_{hashlib.sha256(said.encode()).hexdigest()[:12]}"

    def _read(self, path: str) -> _contract.Contract:
        source = self._source(Path(path).resolve().parent)
        contract = _contract.check(source.value, source.where)
        _contract.refuse_foreign_region(contract, self.get_option("regions"), source.where)
        return contract

    def _source(self, base: Path) -> _stack.Source:
        stack, project_dir, project, state, file = (
            self.get_option(name) for name in ("stack", "project_dir", "project", "state", "file")
        )
        if file and not (stack or project_dir or project or state):
            return _stack.from_file(base / Path(file).expanduser())
        if stack and project_dir and not (project or file):
            return _stack.from_command(stack, base / Path(project_dir).expanduser(), state)
        if stack and project and state and not (project_dir or file):
            return _stack.from_state(state, project, stack, base)
        raise _stack.StackError(
            "names no source, or several: give stack and project_dir, or stack, project and state, or file"
        )

    def _fill(
        self, inventory: InventoryData, contract: _contract.Contract, hosts: _fleet_groups.Hosts
    ) -> None:
        for group, variables in hosts.groups.items():
            inventory.add_group(group)
            for name, value in variables.items():
                inventory.set_variable(group, name, value)
        strict = self.get_option("strict")
        for host in hosts.hosts:
            inventory.add_host(host.name)
            for group in host.groups:
                inventory.add_child(group, host.name)
            for name, value in host.variables.items():
                inventory.set_variable(host.name, name, value)
            known = {**host.variables, "kos_contract": contract.document}
            self._set_composite_vars(self.get_option("compose"), known, host.name, strict=strict)
            self._add_host_to_composed_groups(self.get_option("groups"), known, host.name, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), known, host.name, strict=strict)
