"""Which group, which rollout, since when: questions about the groups of the last listings, and their answers."""

from exporter.groups.answer import Answer, Group, Groups, PartitionListed
from exporter.groups.query import DEFAULT_LIMIT, MAX_LIMIT, BadQuery, Query, read_query

__all__ = [
    "DEFAULT_LIMIT",
    "MAX_LIMIT",
    "Answer",
    "BadQuery",
    "Group",
    "Groups",
    "PartitionListed",
    "Query",
    "read_query",
]
