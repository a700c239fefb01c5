"""Buckets of a fleet: the mirror that its nodes read, and the backups that nobody deletes."""

from __future__ import annotations

import pulumi
from pulumi_aws.s3._inputs import (
    BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs,
    BucketLifecycleConfigurationRuleArgs,
    BucketLifecycleConfigurationRuleFilterArgs,
    BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs,
    BucketLifecycleConfigurationRuleTransitionArgs,
    BucketObjectLockConfigurationRuleArgs,
    BucketObjectLockConfigurationRuleDefaultRetentionArgs,
    BucketOwnershipControlsRuleArgs,
    BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs,
    BucketServerSideEncryptionConfigurationRuleArgs,
    BucketVersioningVersioningConfigurationArgs,
)
from pulumi_aws.s3.bucket import Bucket
from pulumi_aws.s3.bucket_lifecycle_configuration import BucketLifecycleConfiguration
from pulumi_aws.s3.bucket_object_lock_configuration import BucketObjectLockConfiguration
from pulumi_aws.s3.bucket_objectv2 import BucketObjectv2
from pulumi_aws.s3.bucket_ownership_controls import BucketOwnershipControls
from pulumi_aws.s3.bucket_policy import BucketPolicy
from pulumi_aws.s3.bucket_public_access_block import BucketPublicAccessBlock
from pulumi_aws.s3.bucket_server_side_encryption_configuration import BucketServerSideEncryptionConfiguration
from pulumi_aws.s3.bucket_versioning import BucketVersioning

from ..bundle import Bundle
from .fleet_settings import BackupSettings
from .names import Names
from .permissions import Statement, document, plain_refused, statement, tls_only

UNFINISHED_DAYS = 7
MIRROR_HISTORY_DAYS = 30


class Mirror(pulumi.ComponentResource):
    """Static files that the fleet's network reads without credentials; what is in them is signed."""

    def __init__(
        self,
        name: str,
        names: Names,
        *,
        endpoint_id: pulumi.Input[str],
        bundle: Bundle,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Args:
        name: logical name.
        names: physical names and tags.
        endpoint_id: the network's endpoint of S3, the only way in for readers.
        bundle: kosctl's bundle, which is put on the mirror for nodes that boot for the first time.
        """
        super().__init__("kos:aws:Mirror", name, None, opts)
        own = pulumi.ResourceOptions(parent=self)
        self.bucket = Bucket(name, bucket=names.bucket(name), tags=names.tagged(name), opts=own)
        arn = bucket_arn(names, name)
        # Readers have no credentials, so the bucket's own key encrypts: a key of the account wants a caller.
        _harden(
            name,
            self.bucket,
            own,
            BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
                sse_algorithm="AES256"
            ),
            [
                statement(
                    "FleetReads",
                    ["s3:GetObject"],
                    [f"{arn}/*"],
                    principal="*",
                    condition={"StringEquals": {"aws:SourceVpce": endpoint_id}},
                ),
                # With it, a file that is not there is 404; without it 403, which says nothing to a node.
                statement(
                    "FleetLists",
                    ["s3:ListBucket"],
                    [arn],
                    principal="*",
                    condition={"StringEquals": {"aws:SourceVpce": endpoint_id}},
                ),
                plain_refused(arn),
                tls_only(arn),
            ],
            [_forget_old_versions(MIRROR_HISTORY_DAYS)],
        )
        self.bundle = BucketObjectv2(
            "bundle",
            bucket=self.bucket.bucket,
            key=bundle.key,
            source=pulumi.FileAsset(str(bundle.path)),
            content_type="application/gzip",
            tags=names.tagged("bundle"),
            # An earlier bundle stays: a refresh that turns back starts machines that were told of it.
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=True),
        )
        self.register_outputs({"bucket": self.bucket.bucket})


class Backup(pulumi.ComponentResource):
    """Backups under a lock: no version of an object goes away before its time, and the bucket stays."""

    def __init__(
        self,
        name: str,
        names: Names,
        settings: BackupSettings,
        *,
        key_arn: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Args:
        name: logical name.
        names: physical names and tags.
        settings: how long the lock holds.
        key_arn: key that encrypts the backups.
        """
        super().__init__("kos:aws:Backup", name, None, opts)
        kept = pulumi.ResourceOptions(parent=self, protect=True, retain_on_delete=True)
        self.bucket = Bucket(
            name,
            bucket=names.bucket(name),
            object_lock_enabled=True,
            tags=names.tagged(name, {"kos:holds": "backups"}),
            opts=kept,
        )
        arn = bucket_arn(names, name)
        versioning = _harden(
            name,
            self.bucket,
            kept,
            BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
                sse_algorithm="aws:kms", kms_master_key_id=key_arn
            ),
            [plain_refused(arn), tls_only(arn)],
            [
                BucketLifecycleConfigurationRuleArgs(
                    id="cool",
                    status="Enabled",
                    filter=BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
                    transitions=[
                        BucketLifecycleConfigurationRuleTransitionArgs(
                            days=settings.cool_after_days, storage_class="GLACIER_IR"
                        )
                    ],
                ),
                _forget_old_versions(settings.lock_days),
            ],
        )
        BucketObjectLockConfiguration(
            name,
            bucket=self.bucket.bucket,
            rule=BucketObjectLockConfigurationRuleArgs(
                default_retention=BucketObjectLockConfigurationRuleDefaultRetentionArgs(
                    mode=settings.lock, days=settings.lock_days
                )
            ),
            opts=pulumi.ResourceOptions.merge(kept, pulumi.ResourceOptions(depends_on=[versioning])),
        )
        self.register_outputs({"bucket": self.bucket.bucket})


def bucket_arn(names: Names, what: str) -> str:
    """Return the ARN of a bucket of the fleet, which is known before the bucket is made."""
    return f"arn:aws:s3:::{names.bucket(what)}"


def _forget_old_versions(days: int) -> BucketLifecycleConfigurationRuleArgs:
    return BucketLifecycleConfigurationRuleArgs(
        id="forget",
        status="Enabled",
        filter=BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
        noncurrent_version_expiration=BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
            noncurrent_days=days
        ),
        abort_incomplete_multipart_upload=BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(
            days_after_initiation=UNFINISHED_DAYS
        ),
    )


def _harden(
    name: str,
    bucket: Bucket,
    own: pulumi.ResourceOptions,
    encryption: BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs,
    policy: list[Statement],
    lifecycle: list[BucketLifecycleConfigurationRuleArgs],
) -> BucketVersioning:
    """Give a bucket what every bucket has; return its versioning, on which a lock depends."""
    BucketOwnershipControls(
        name,
        bucket=bucket.bucket,
        rule=BucketOwnershipControlsRuleArgs(object_ownership="BucketOwnerEnforced"),
        opts=own,
    )
    block = BucketPublicAccessBlock(
        name,
        bucket=bucket.bucket,
        block_public_acls=True,
        block_public_policy=True,
        ignore_public_acls=True,
        restrict_public_buckets=True,
        opts=own,
    )
    BucketServerSideEncryptionConfiguration(
        name,
        bucket=bucket.bucket,
        rules=[
            BucketServerSideEncryptionConfigurationRuleArgs(
                apply_server_side_encryption_by_default=encryption, bucket_key_enabled=True
            )
        ],
        opts=own,
    )
    versioning = BucketVersioning(
        name,
        bucket=bucket.bucket,
        versioning_configuration=BucketVersioningVersioningConfigurationArgs(status="Enabled"),
        opts=own,
    )
    after_versioning = pulumi.ResourceOptions.merge(own, pulumi.ResourceOptions(depends_on=[versioning]))
    BucketLifecycleConfiguration(name, bucket=bucket.bucket, rules=lifecycle, opts=after_versioning)
    # S3 refuses two changes of a bucket's access at the same moment.
    after_block = pulumi.ResourceOptions.merge(own, pulumi.ResourceOptions(depends_on=[block]))
    BucketPolicy(name, bucket=bucket.bucket, policy=document(*policy), opts=after_block)
    return versioning
