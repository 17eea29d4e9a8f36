"""One set of metrics for pull and push: those of the SDK instruments and those rendered from the snapshot."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.sdk.metrics.export import Metric, MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

__all__ = ["MergedMetrics"]


class MergedMetrics:
    """Adds the rendered metrics to the SDK's.

    Args:
        resource: The resource of all metrics.
        scope: Their instrumentation scope; the instruments must have the same one.
        rendered: Returns the metrics of the latest snapshot. Called once per scrape and per push; does no I/O.
    """

    def __init__(self, resource: Resource, scope: InstrumentationScope, rendered: Callable[[], list[Metric]]) -> None:
        self._resource = resource
        self._scope = scope
        self._rendered = rendered

    def complete(self, collected: MetricsData | None) -> MetricsData:
        """Return *collected* (None when the SDK is disabled or has nothing) with the rendered metrics."""
        ours: list[Metric] = []
        others: list[ScopeMetrics] = []
        for resource_metrics in collected.resource_metrics if collected is not None else ():
            for scope_metrics in resource_metrics.scope_metrics:
                if scope_metrics.scope == self._scope:
                    ours.extend(scope_metrics.metrics)
                else:
                    others.append(scope_metrics)
        ours.extend(self._rendered())
        scopes = [ScopeMetrics(self._scope, ours, self._scope.schema_url or ""), *others]
        return MetricsData([ResourceMetrics(self._resource, scopes, self._resource.schema_url)])
