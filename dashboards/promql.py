"""Checks a query against the catalogue: its metrics, its labels and their values.

A query for a metric that does not exist returns no data, which looks like a healthy system. Needs the development
tools.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import promql_parser as promql

from dashboards.foreign import PROMETHEUS, TARGET_LABELS, TRANSFER_QUEUE
from exporter.catalogue.metrics import METRICS, prometheus_label, prometheus_name

__all__ = ["Checker", "QueryError"]

_Values = tuple[str, ...] | None
_RATE_INTERVAL: Final = re.compile(r"\$__(rate_interval|interval|range)")
_CHOICE: Final = re.compile(r"(, )?\$\w+(?=\))")  # a variable of the dashboard at the end of a list of labels
_HISTOGRAM_PARTS: Final = {"_bucket": frozenset({"le"}), "_sum": frozenset[str](), "_count": frozenset[str]()}


class QueryError(ValueError):
    """A query that cannot be parsed, or that names a metric, a label or a label value that does not exist."""


class Checker:
    """Checks queries against every series that can exist.

    Args:
        recorded: The recording rules, name to expression. They are checked in order; a rule may use the ones before it.
    """

    def __init__(self, recorded: Mapping[str, str] | None = None) -> None:
        self._series: dict[str, dict[str, _Values]] = {name: {} for name in PROMETHEUS}
        for name, labels in (*PROMETHEUS.items(), *TRANSFER_QUEUE.items()):
            self._series[name] = dict.fromkeys(labels)
        for metric in METRICS:
            declared = {prometheus_label(label): values for label, values in metric.attributes.items()}
            # A scrape renames a label that the target has too.
            declared |= {f"exported_{label}": None for label in TARGET_LABELS & declared.keys()}
            name = prometheus_name(metric)
            if metric.kind == "histogram":
                for suffix, extra in _HISTOGRAM_PARTS.items():
                    self._series[name + suffix] = declared | dict.fromkeys(extra)
            else:
                self._series[name] = declared
        for name, expression in (recorded or {}).items():
            if name in self.metrics(expression):  # it reads its own last value, which has the labels of its first value
                self._series[name] = dict.fromkeys(self._labels(_first(promql.parse(expression))) - TARGET_LABELS)
            labels = self.labels(expression)
            self._series[name] = dict.fromkeys(labels - TARGET_LABELS)

    def labels(self, expression: str) -> frozenset[str]:
        """Check *expression* and return the labels that its result may have.

        Raises:
            QueryError: The query is wrong.
        """
        try:
            parsed = promql.parse(_without_variables(expression))
        except ValueError as error:
            raise QueryError(f"{error}: {expression}") from error
        try:
            return self._labels(parsed)
        except QueryError as error:
            raise QueryError(f"{error}: {expression}") from None

    def metrics(self, expression: str) -> frozenset[str]:
        """Return the names of the series that *expression* selects."""
        found: set[str] = set()
        _collect(promql.parse(_without_variables(expression)), found)
        return frozenset(found)

    def _labels(self, node: Any) -> frozenset[str]:
        if isinstance(node, promql.VectorSelector):
            return self._selected(node)
        if isinstance(node, promql.MatrixSelector):
            return self._selected(node.vector_selector)
        if isinstance(node, (promql.ParenExpr, promql.UnaryExpr, promql.SubqueryExpr)):
            return self._labels(node.expr)
        if isinstance(node, promql.AggregateExpr):
            return self._aggregated(node)
        if isinstance(node, promql.BinaryExpr):
            return self._combined(node)
        if isinstance(node, promql.Call):
            inner = [self._labels(argument) for argument in node.args]
            labels = frozenset[str]().union(*inner)
            if node.func.name == "histogram_quantile":
                if "le" not in labels:
                    raise QueryError("histogram_quantile needs le")
                return labels - {"le"}
            return frozenset() if node.func.name in ("scalar", "vector", "time", "absent") else labels
        if isinstance(node, (promql.NumberLiteral, promql.StringLiteral)):
            return frozenset()
        raise QueryError(f"cannot check {type(node).__name__}")

    def _selected(self, selector: Any) -> frozenset[str]:
        matchers = selector.matchers.matchers
        if selector.name is None:
            [pattern] = [matcher.value for matcher in matchers if matcher.name == "__name__"]
            if not any(re.fullmatch(pattern, name) for name in self._series):
                raise QueryError(f"there is no metric {pattern}")
            return TARGET_LABELS
        declared = self._series.get(selector.name)
        if declared is None:
            raise QueryError(f"there is no metric {selector.name}")
        for matcher in matchers:
            if matcher.name in TARGET_LABELS:
                continue
            if matcher.name not in declared:
                raise QueryError(f"{selector.name} has no label {matcher.name}")
            allowed = declared[matcher.name]
            asked = [matcher.value]
            if matcher.op in (promql.MatchOp.Re, promql.MatchOp.NotRe):
                asked = matcher.value.split("|") if re.fullmatch(r"[\w|+-]*", matcher.value) else []
            for value in asked:
                if allowed is not None and value and value not in allowed:
                    raise QueryError(f"{selector.name}: {matcher.name} is never {value!r}")
        return frozenset(declared) | TARGET_LABELS

    def _aggregated(self, node: Any) -> frozenset[str]:
        labels = self._labels(node.expr)
        keeps_labels = str(node.op) in ("topk", "bottomk")
        if node.modifier is None:
            return labels if keeps_labels else frozenset()
        named = frozenset(node.modifier.labels)
        if unknown := named - labels:
            raise QueryError(f"{node.op} groups by {', '.join(sorted(unknown))}, which its operand lacks")
        if keeps_labels:
            return labels
        return named if node.modifier.type == promql.AggModifierType.By else labels - named

    def _combined(self, node: Any) -> frozenset[str]:
        left, right = self._labels(node.lhs), self._labels(node.rhs)
        modifier = node.modifier
        matching = modifier.matching if modifier is not None else None
        named = frozenset(matching.labels) if matching is not None else frozenset[str]()
        by_name = matching is not None and matching.type == promql.LabelModifierType.Include
        if not left or not right:
            return left or right
        if by_name:
            if unknown := named - (left & right):
                raise QueryError(f"{node.op} matches on {', '.join(sorted(unknown))}, which one side lacks")
        else:
            if unknown := named - (left | right):
                raise QueryError(f"{node.op} ignores {', '.join(sorted(unknown))}, which both sides lack")
            if unmatched := (left ^ right) - named:
                raise QueryError(f"{node.op} matches on {', '.join(sorted(unmatched))}, which one side lacks")
        if str(node.op) == "or":
            return left | right
        if str(node.op) in ("and", "unless"):
            return left
        extra = frozenset(modifier.group_labels or ()) if modifier is not None else frozenset[str]()
        if modifier is not None and modifier.card == promql.VectorMatchCardinality.OneToMany:
            return right | extra
        if extra or (modifier is not None and modifier.card == promql.VectorMatchCardinality.ManyToOne):
            return left | extra
        return named if by_name else left - named


def _without_variables(expression: str) -> str:
    """Return *expression* as it is with the variables of a dashboard at their first choice."""
    return _CHOICE.sub("", _RATE_INTERVAL.sub("5m", expression))


def _first(node: Any) -> Any:
    """Return the first alternative of an ``or``."""
    while isinstance(node, promql.BinaryExpr) and str(node.op) == "or":
        node = node.lhs
    return node


def _collect(node: Any, found: set[str]) -> None:
    if isinstance(node, promql.VectorSelector) and node.name is not None:
        found.add(node.name)
    for attribute in ("vector_selector", "expr", "lhs", "rhs"):
        if (child := getattr(node, attribute, None)) is not None:
            _collect(child, found)
    for argument in getattr(node, "args", ()) or ():
        _collect(argument, found)
