"""The inventory plugin kos.fleet.pulumi, read as Ansible reads it."""
