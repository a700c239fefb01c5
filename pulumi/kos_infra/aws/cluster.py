"""A Kubernetes cluster in private subnets: access by entries, encrypted, logged, every version pinned."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pulumi
from pulumi_aws.cloudwatch.log_group import LogGroup
from pulumi_aws.cloudwatch.metric_alarm import MetricAlarm
from pulumi_aws.ec2._inputs import (
    LaunchTemplateBlockDeviceMappingArgs,
    LaunchTemplateBlockDeviceMappingEbsArgs,
    LaunchTemplateMetadataOptionsArgs,
    LaunchTemplateTagSpecificationArgs,
)
from pulumi_aws.ec2.launch_template import LaunchTemplate
from pulumi_aws.eks._inputs import (
    AccessPolicyAssociationAccessScopeArgs,
    AddonPodIdentityAssociationArgs,
    ClusterAccessConfigArgs,
    ClusterEncryptionConfigArgs,
    ClusterEncryptionConfigProviderArgs,
    ClusterKubernetesNetworkConfigArgs,
    ClusterUpgradePolicyArgs,
    ClusterVpcConfigArgs,
    NodeGroupLaunchTemplateArgs,
    NodeGroupNodeRepairConfigArgs,
    NodeGroupScalingConfigArgs,
    NodeGroupUpdateConfigArgs,
)
from pulumi_aws.eks.access_entry import AccessEntry
from pulumi_aws.eks.access_policy_association import AccessPolicyAssociation
from pulumi_aws.eks.addon import Addon
from pulumi_aws.eks.cluster import Cluster
from pulumi_aws.eks.node_group import NodeGroup
from pulumi_aws.iam.role import Role
from pulumi_aws.iam.role_policy_attachment import RolePolicyAttachment

from .cluster_settings import AccessSettings, ClusterSettings, WorkerGroupSettings
from .keys import Keys
from .names import Names
from .network import Network
from .node_group import TAGGED
from .permissions import document, statement, trust

LOG_TYPES = ("api", "audit", "authenticator", "controllerManager", "scheduler")
IMAGES = {"x86_64": "AL2023_x86_64_STANDARD", "aarch64": "AL2023_ARM_64_STANDARD"}
MANAGED = "arn:aws:iam::aws:policy"
ACCESS = "arn:aws:eks::aws:cluster-access-policy"
ACCESS_POLICIES = {
    "admin": f"{ACCESS}/AmazonEKSClusterAdminPolicy",
    "edit": f"{ACCESS}/AmazonEKSEditPolicy",
    "view": f"{ACCESS}/AmazonEKSViewPolicy",
}

# Service account and rights of each addon that asks AWS; it gets them by pod identity, not from its machine.
IDENTITIES = {
    "aws-ebs-csi-driver": ("ebs-csi-controller-sa", f"{MANAGED}/service-role/AmazonEBSCSIDriverPolicy"),
    "vpc-cni": ("aws-node", f"{MANAGED}/AmazonEKS_CNI_Policy"),
}
# Without it a NetworkPolicy is taken and holds nobody back:
# https://docs.aws.amazon.com/eks/latest/userguide/cni-network-policy-configure.html
CONFIGURATION = {"vpc-cni": {"enableNetworkPolicy": "true"}}
# Name, metric that has to be nothing, and for how many minutes it may be something:
# https://docs.aws.amazon.com/eks/latest/userguide/cloudwatch.html
ALARMS = (
    ("api-fails", "apiserver_request_total_5XX", 5),
    ("pods-wait", "scheduler_pending_pods_UNSCHEDULABLE", 15),
)
# A machine is ready when it has these; the others need a machine to run on.
BEFORE_MACHINES = ("eks-pod-identity-agent", "kube-proxy", "vpc-cni")


class KubernetesCluster(pulumi.ComponentResource):
    """The cluster with its addons, its groups of machines, and who may do what in it."""

    def __init__(
        self,
        name: str,
        names: Names,
        settings: ClusterSettings,
        *,
        network: Network,
        keys: Keys,
        alarm_topic_arn: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Args:
        name: logical name.
        names: physical names and tags.
        settings: what the stack says.
        network: where it is.
        keys: what encrypts its secrets, volumes and logs.
        alarm_topic_arn: who hears of its alarms.
        """
        super().__init__("kos:aws:KubernetesCluster", name, None, opts)
        self._own = pulumi.ResourceOptions(parent=self)
        self._names, self._settings = names, settings
        logs = LogGroup(
            "control-plane",
            name=f"{log_groups(names)}cluster",
            retention_in_days=settings.log_days,
            kms_key_id=keys.machines.arn,
            tags=names.tagged("control-plane"),
            opts=self._own,
        )
        role, attached = self._role(
            "cluster", trust("eks.amazonaws.com"), [f"{MANAGED}/AmazonEKSClusterPolicy"]
        )
        self.cluster = Cluster(
            name,
            name=names.of(name),
            role_arn=role.arn,
            version=settings.version,
            access_config=ClusterAccessConfigArgs(
                authentication_mode="API", bootstrap_cluster_creator_admin_permissions=False
            ),
            vpc_config=ClusterVpcConfigArgs(
                subnet_ids=[subnet.id for subnet in network.subnets.values()],
                endpoint_private_access=True,
                endpoint_public_access=bool(settings.public_from),
                public_access_cidrs=[str(one) for one in settings.public_from] or None,
            ),
            kubernetes_network_config=ClusterKubernetesNetworkConfigArgs(
                service_ipv4_cidr=str(settings.service_cidr), ip_family="ipv4"
            ),
            encryption_config=ClusterEncryptionConfigArgs(
                provider=ClusterEncryptionConfigProviderArgs(key_arn=keys.kept.arn), resources=["secrets"]
            ),
            enabled_cluster_log_types=list(LOG_TYPES),
            # An older version is not kept for money past its time without anybody deciding so.
            upgrade_policy=ClusterUpgradePolicyArgs(support_type="STANDARD"),
            bootstrap_self_managed_addons=False,
            deletion_protection=settings.deletion_protection,
            tags=names.tagged(name),
            opts=pulumi.ResourceOptions.merge(
                self._own,
                pulumi.ResourceOptions(protect=settings.deletion_protection, depends_on=[logs, *attached]),
            ),
        )
        for access in settings.access:
            self._access(access)
        self._alarms(alarm_topic_arn)
        first = [self._addon(addon, []) for addon in BEFORE_MACHINES]
        groups = self._groups(network, keys, first)
        for addon in sorted(set(settings.addons) - set(BEFORE_MACHINES)):
            self._addon(addon, groups)
        self.register_outputs({"name": self.cluster.name})

    def _role(
        self, what: str, trusted: pulumi.Output[str], policies: list[str]
    ) -> tuple[Role, list[RolePolicyAttachment]]:
        role = Role(
            what,
            name=self._names.of(what),
            description=f"{what} of {self._names.of('cluster')}",
            assume_role_policy=trusted,
            tags=self._names.tagged(what),
            opts=self._own,
        )
        attached = [
            RolePolicyAttachment(
                f"{what}-{policy.rpartition('/')[2]}", role=role.name, policy_arn=policy, opts=self._own
            )
            for policy in policies
        ]
        return role, attached

    def _access(self, access: AccessSettings) -> None:
        # With the account, since two accounts may have a role of one name.
        name = access.principal.removeprefix("arn:aws:iam::")
        entry = AccessEntry(
            name,
            cluster_name=self.cluster.name,
            principal_arn=access.principal,
            type="STANDARD",
            tags=self._names.tagged("access"),
            opts=self._own,
        )
        scope = AccessPolicyAssociationAccessScopeArgs(type="cluster")
        if access.namespaces:
            scope = AccessPolicyAssociationAccessScopeArgs(
                type="namespace", namespaces=list(access.namespaces)
            )
        AccessPolicyAssociation(
            name,
            cluster_name=self.cluster.name,
            principal_arn=entry.principal_arn,
            policy_arn=ACCESS_POLICIES[access.may],
            access_scope=scope,
            opts=self._own,
        )

    def _addon(self, addon: str, after: Sequence[pulumi.Resource]) -> Addon:
        identities: list[AddonPodIdentityAssociationArgs] = []
        if addon in IDENTITIES:
            account, policy = IDENTITIES[addon]
            role, attached = self._role(addon, self._trust_of_pods(), [policy])
            identities = [AddonPodIdentityAssociationArgs(role_arn=role.arn, service_account=account)]
            after = [*after, *attached]
        return Addon(
            addon,
            cluster_name=self.cluster.name,
            addon_name=addon,
            addon_version=self._settings.addons[addon],
            configuration_values=json.dumps(CONFIGURATION[addon]) if addon in CONFIGURATION else None,
            pod_identity_associations=identities or None,
            resolve_conflicts_on_create="OVERWRITE",
            resolve_conflicts_on_update="OVERWRITE",
            tags=self._names.tagged(addon),
            opts=pulumi.ResourceOptions.merge(self._own, pulumi.ResourceOptions(depends_on=after)),
        )

    def _alarms(self, topic_arn: pulumi.Input[str]) -> None:
        """No data is not health: both go off when nothing is heard of the cluster."""
        for what, metric, minutes in ALARMS:
            MetricAlarm(
                what,
                name=self._names.of(what),
                alarm_description=f"{self._names.of('cluster')}: {metric} for {minutes} minutes",
                namespace="AWS/EKS",
                metric_name=metric,
                dimensions={"ClusterName": self.cluster.name},
                statistic="Sum",
                comparison_operator="GreaterThanThreshold",
                threshold=0,
                period=60,
                evaluation_periods=minutes,
                treat_missing_data="breaching",
                alarm_actions=[topic_arn],
                ok_actions=[topic_arn],
                tags=self._names.tagged(what),
                opts=self._own,
            )

    def _trust_of_pods(self) -> pulumi.Output[str]:
        """Only pods of this very cluster take a role."""
        return document(
            statement(
                "Pods",
                ["sts:AssumeRole", "sts:TagSession"],
                principal={"Service": "pods.eks.amazonaws.com"},
                condition={
                    "StringEquals": {"aws:SourceAccount": self._names.account},
                    "ArnEquals": {"aws:SourceArn": self.cluster.arn},
                },
            )
        )

    def _groups(self, network: Network, keys: Keys, after: list[Addon]) -> list[pulumi.Resource]:
        role, attached = self._role(
            "worker",
            trust("ec2.amazonaws.com"),
            [f"{MANAGED}/AmazonEKSWorkerNodePolicy", f"{MANAGED}/AmazonEC2ContainerRegistryPullOnly"],
        )
        ready = pulumi.ResourceOptions.merge(
            self._own, pulumi.ResourceOptions(depends_on=[network, *after, *attached])
        )
        return [
            NodeGroup(
                # No name of its own: with one, the old machines would have to go before others are made.
                group.name,
                cluster_name=self.cluster.name,
                node_role_arn=role.arn,
                subnet_ids=[subnet.id for subnet in network.subnets.values()],
                ami_type=IMAGES[group.arch],
                release_version=group.release,
                capacity_type="SPOT" if group.spot else "ON_DEMAND",
                instance_types=list(group.instance_types),
                launch_template=self._template(group, network, keys),
                scaling_config=NodeGroupScalingConfigArgs(
                    min_size=group.nodes, max_size=group.max_nodes, desired_size=group.nodes
                ),
                update_config=NodeGroupUpdateConfigArgs(max_unavailable=1),
                node_repair_config=NodeGroupNodeRepairConfigArgs(enabled=True),
                tags=self._names.tagged(group.name),
                # A scaler moves it within its bounds; the next `up` is no reason to move it back.
                opts=pulumi.ResourceOptions.merge(
                    ready, pulumi.ResourceOptions(ignore_changes=["scalingConfig.desiredSize"])
                ),
            )
            for group in self._settings.groups
        ]

    def _template(
        self, group: WorkerGroupSettings, network: Network, keys: Keys
    ) -> NodeGroupLaunchTemplateArgs:
        tags = self._names.tagged(group.name, {"kos:group": group.name, "kos:arch": group.arch})
        security_group = self.cluster.vpc_config.apply(lambda vpc: vpc.cluster_security_group_id or "")
        template = LaunchTemplate(
            group.name,
            name=self._names.of(group.name),
            vpc_security_group_ids=[security_group, network.nodes.id],
            metadata_options=LaunchTemplateMetadataOptionsArgs(
                http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
            ),
            block_device_mappings=[
                LaunchTemplateBlockDeviceMappingArgs(
                    device_name="/dev/xvda",
                    ebs=LaunchTemplateBlockDeviceMappingEbsArgs(
                        volume_type="gp3",
                        volume_size=group.volume_gib,
                        encrypted="true",
                        kms_key_id=keys.machines.arn,
                        delete_on_termination="true",
                    ),
                )
            ],
            tag_specifications=[
                LaunchTemplateTagSpecificationArgs(resource_type=kind, tags=tags) for kind in TAGGED
            ],
            update_default_version=True,
            tags=tags,
            opts=self._own,
        )
        return NodeGroupLaunchTemplateArgs(id=template.id, version=template.latest_version.apply(str))


def log_groups(names: Names) -> str:
    """Return what the names of the cluster's log groups begin with; EKS gives the rest."""
    return f"/aws/eks/{names.of('cluster')}/"


def kubeconfig(name: str, region: str, endpoint: str, authority: str) -> str:
    """Return a kubeconfig without a secret: each call asks AWS who the caller is.

    Args:
        name: of the cluster.
        region: where it is.
        endpoint: address of its API.
        authority: certificate of the API, base64.
    """
    command = ["eks", "get-token", "--cluster-name", name, "--region", region, "--output", "json"]
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "aws", "args": command}}
    user["exec"]["interactiveMode"] = "Never"
    api = {"server": endpoint, "certificate-authority-data": authority}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": api}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }
    return json.dumps(config)
