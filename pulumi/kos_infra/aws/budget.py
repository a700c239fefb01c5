"""What a stack may cost: a monthly limit, and a watch for days that are not like the others."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
from pulumi_aws.budgets._inputs import BudgetCostFilterArgs, BudgetNotificationArgs
from pulumi_aws.budgets.budget import Budget
from pulumi_aws.costexplorer._inputs import (
    AnomalySubscriptionSubscriberArgs,
    AnomalySubscriptionThresholdExpressionArgs,
    AnomalySubscriptionThresholdExpressionDimensionArgs,
)
from pulumi_aws.costexplorer.anomaly_monitor import AnomalyMonitor
from pulumi_aws.costexplorer.anomaly_subscription import AnomalySubscription

from .names import Names

SPENT_PERCENT = 80
EXPECTED_PERCENT = 100
ANOMALY_PERCENT_OF_BUDGET = 10


class Costs(pulumi.ComponentResource):
    """A budget of everything that carries the fleet's tag, and an anomaly monitor of the same."""

    def __init__(
        self,
        name: str,
        names: Names,
        *,
        monthly_usd: int,
        notify: Sequence[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Args:
        name: logical name.
        names: physical names and tags.
        monthly_usd: the limit in US dollars a month.
        notify: mail addresses that hear of it.
        """
        super().__init__("kos:aws:Costs", name, None, opts)
        own = pulumi.ResourceOptions(parent=self)
        Budget(
            "monthly",
            name=names.of("monthly"),
            budget_type="COST",
            time_unit="MONTHLY",
            limit_amount=str(monthly_usd),
            limit_unit="USD",
            cost_filters=[BudgetCostFilterArgs(name="TagKeyValue", values=[f"user:kos:fleet${names.fleet}"])],
            notifications=[
                BudgetNotificationArgs(
                    comparison_operator="GREATER_THAN",
                    notification_type=kind,
                    threshold=percent,
                    threshold_type="PERCENTAGE",
                    subscriber_email_addresses=list(notify),
                )
                for kind, percent in (("ACTUAL", SPENT_PERCENT), ("FORECASTED", EXPECTED_PERCENT))
            ],
            tags=names.tagged("monthly"),
            opts=own,
        )
        monitor = AnomalyMonitor(
            "anomalies",
            name=names.of("anomalies"),
            monitor_type="CUSTOM",
            monitor_specification=pulumi.Output.json_dumps(
                {"Tags": {"Key": "kos:fleet", "Values": [names.fleet], "MatchOptions": ["EQUALS"]}}
            ),
            tags=names.tagged("anomalies"),
            opts=own,
        )
        AnomalySubscription(
            "anomalies",
            name=names.of("anomalies"),
            frequency="DAILY",
            monitor_arn_lists=[monitor.arn],
            subscribers=[
                AnomalySubscriptionSubscriberArgs(type="EMAIL", address=address) for address in notify
            ],
            threshold_expression=AnomalySubscriptionThresholdExpressionArgs(
                dimension=AnomalySubscriptionThresholdExpressionDimensionArgs(
                    key="ANOMALY_TOTAL_IMPACT_ABSOLUTE",
                    match_options=["GREATER_THAN_OR_EQUAL"],
                    values=[str(max(1, monthly_usd * ANOMALY_PERCENT_OF_BUDGET // 100))],
                )
            ),
            tags=names.tagged("anomalies"),
            opts=own,
        )
        self.register_outputs({})
