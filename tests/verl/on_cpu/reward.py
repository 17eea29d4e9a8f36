"""The reward function: something that differs within a group."""

from __future__ import annotations

from typing import Any

__all__ = ["compute_score"]


def compute_score(data_source: str, solution_str: str, ground_truth: str, **rest: Any) -> dict[str, float]:
    """Return a score as verl's reward managers expect it."""
    score = float(len(solution_str) % 2)
    return {"score": score, "acc": score}
