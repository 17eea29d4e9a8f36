"""Writes rows as NeMo RL's generators write them, and prints the groups that the exporter makes of them."""

from __future__ import annotations

from typing import Any

from dataplane import DataPlaneClient, build_data_plane_client

__all__ = ["MAIN", "NEWER", "STAGED", "main"]

GROUP = "0f6c1a5e"

MAIN = [{"weight_version": 7}] * 4
"""The tags of a group on NeMo RL's main: the version at the start of the rollout."""

NEWER = [
    {"group_id": GROUP, "weight_version": 7, "prompt_idx": 12, "rollout_environment": "math", "tokens__row_shapes": "8"}
] * 4
"""The same on its newer branches: the group's id on every row, and no tag that says committed."""

STAGED = [
    {
        "rollout_id": f"{GROUP}_g0",
        "model_call_id": f"call-{call}",
        "prev_len": 8 * call,
        "delta_len": 8,
        "cum_len": 8 * (call + 1),
        "weight_version": 7,
        "digest": "d41d8cd98f00b204",
        "schema_version": 1,
    }
    for call in range(3)
]
"""The rows of ``rollout_staging``, where token capture is on: one per call of the model, nothing to train on."""

_GROUP_KEYS = [f"{GROUP}_g{index}" for index in range(4)]
_STAGED_KEYS = [f"{GROUP}_g0/{call}" for call in range(3)]


def _show(title: str, client: DataPlaneClient) -> None:
    print(title)
    for partition in client.list_partitions():
        groups = client.list_metadata(partition)
        states = ", ".join(f"{len(group.keys)} keys {group.state} v{group.weight_version}" for group in groups)
        print(f"  {partition}: depth {client.depth(partition)}: {states}")


def main() -> None:
    """Show each kind of rows on a data plane in this process."""
    written: list[tuple[str, list[tuple[str, list[str], list[dict[str, Any]]]]]] = [
        ("main", [("rollout_data", _GROUP_KEYS, MAIN)]),
        ("newer", [("rollout_data", _GROUP_KEYS, NEWER), ("rollout_staging", _STAGED_KEYS, STAGED)]),
        (
            "main, while the second half of a group is being written",
            [
                ("rollout_data", _GROUP_KEYS, [*MAIN[:2], {}, {}]),
            ],
        ),
    ]
    for title, puts in written:
        client = build_data_plane_client({"enabled": True, "impl": "noop"}, allow_noop=True)
        for partition, keys, tags in puts:
            client.put_samples(keys, partition, tags=tags)
        _show(title, client)
        client.close()


if __name__ == "__main__":
    main()
