"""A process whose Ray goes away under its client. Runs as ``python -m tests.faults.adapter_child ADDRESS``.

It attaches and prints a line, waits for a line, makes every call, tries to attach again, closes, and prints the outcome
of each as JSON. It is a separate process, since Ray kills a driver about a minute after its GCS has gone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys

from dataplane.adapters.transfer_queue import TQDataPlaneClient
from tests.faults.adapter_calls import CALLS, load, outcome_of, outcomes_of


def main() -> None:
    import ray

    ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
    client = TQDataPlaneClient({"timeout_s": 30.0}, bootstrap=False)
    load(client)
    client._timeout_s = 0.5
    print("attached", flush=True)
    sys.stdin.readline()
    outcomes = outcomes_of(client, tuple(CALLS))
    outcomes["close"] = outcome_of(client.close, "close")
    outcomes["attach"] = outcome_of(lambda: TQDataPlaneClient({"timeout_s": 30.0}, bootstrap=False), "attach")
    print(json.dumps({name: dataclasses.asdict(outcome) for name, outcome in outcomes.items()}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
