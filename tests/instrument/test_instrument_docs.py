"""The programs in docs/instrument.md run as written, against real receivers and a real TransferQueue."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import TQCluster
from tests.support.otlp_receiver import Received, http_receiver

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "instrument.md").read_text()


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Write the page's programs, each to the file that its first line names."""
    for name, source in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / name).write_text(source)
    assert {path.name for path in tmp_path.iterdir()} == {
        "collector.py", "prometheus.py", "plain.py", "observe.py", "driver.py", "nemo.py", "steps.py", "events.py",
    }  # fmt: skip
    return tmp_path


@pytest.fixture
def receiver() -> Iterator[Received]:
    with http_receiver() as received:
        yield received


def _run(programs: Path, source: str, **env: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        env={**os.environ, "PYTHONPATH": f"{programs}:{ROOT}", "TQ_LOGGING_LEVEL": "ERROR", **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return finished.stdout


def _metric_names(received: Received) -> set[str]:
    return {
        metric.name
        for request in received.metrics
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_events_and_snapshot(programs: Path) -> None:
    assert _run(programs, "import events") == "1\n"


def test_step_metrics_of_one_process_and_of_all(programs: Path) -> None:
    output = _run(
        programs,
        """
        import events, steps
        print(sorted(steps.of_this_process(events.client, 2.0)))
        metrics, merged = steps.of_all_workers([events.client.snapshot()] * 2, {}, 2.0)
        print(metrics["now/n_processes"], merged["total_ops"])
        """,
    )
    assert "'step/frac_of_step'" in output
    assert output.endswith("2 2\n")


def test_prometheus_scrapes_the_process(programs: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = _run(
        programs,
        f"""
        import prometheus
        prometheus.configure({port})
        import events
        import urllib.request
        print(urllib.request.urlopen("http://127.0.0.1:{port}/metrics").read().decode())
        """,
    )
    assert 'messaging_client_operation_duration_seconds_count{messaging_destination_name="train",' in text
    assert 'dataplane_client_keys_total{direction="write",operation="put_samples",partition="train"} 1.0' in text


def test_plain_transfer_queue_sends_to_a_collector(cluster: TQCluster, programs: Path, receiver: Received) -> None:
    _run(
        programs,
        f"""
        import ray
        ray.init(address="{cluster.ray_address}", log_to_driver=False, configure_logging=False)
        import plain
        """,
        **cluster.env,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
    )
    assert [span.name for span in receiver.spans()] == [
        "put_samples train",
        "list_metadata train",
        "clear_samples train",
    ]
    assert {"messaging.client.operation.duration", "dataplane.client.keys"} <= _metric_names(receiver)


def test_ray_workers_are_observed_through_the_set_up_hook(
    cluster: TQCluster, programs: Path, receiver: Received
) -> None:
    driver = programs / "driver.py"
    driver.write_text(
        driver.read_text().replace(
            'address="auto", runtime_env={',
            f'address="{cluster.ray_address}", log_to_driver=False, configure_logging=False, runtime_env={{'
            f'"env_vars": {{"PYTHONPATH": "{programs}:{ROOT}", "OTEL_EXPORTER_OTLP_ENDPOINT": "{receiver.url}"}}, ',
        )
    )
    _run(
        programs,
        """
        import driver
        import ray

        @ray.remote(num_cpus=0)
        def generate():
            from opentelemetry import trace
            import transfer_queue as tq
            tq.init()
            tq.kv_batch_put(keys=["a"], partition_id="train", tags=[{"weight_version": 1}])
            trace.get_tracer_provider().force_flush()

        ray.get(generate.remote())
        """,
        **cluster.env,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
    )
    assert [span.name for span in receiver.spans()] == ["put_samples train"]


def test_a_nemo_rl_client_is_wrapped_in_the_driver(programs: Path, receiver: Received) -> None:
    (programs / "nemo_rl").mkdir()
    (programs / "nemo_rl" / "data_plane").mkdir()
    (programs / "nemo_rl" / "data_plane" / "factory.py").write_text(
        textwrap.dedent(
            """
            from dataplane.adapters.noop import NoOpDataPlaneClient

            class Client:
                # NeMo RL's methods and no others.
                def __init__(self):
                    self._inner = NoOpDataPlaneClient()
                    for name in ("register_partition", "claim_meta", "get_data", "check_consumption_status",
                                 "put_samples", "get_samples", "clear_samples", "close"):
                        setattr(self, name, getattr(self._inner, name))

                def save_checkpoint(self, checkpoint_dir, *, metadata=None):
                    return checkpoint_dir

            def build_data_plane_client(cfg, *, bootstrap=True):
                return Client()
            """
        )
    )
    _run(
        programs,
        """
        import nemo, torch
        from tensordict import TensorDict
        client = nemo.observed_client({"enabled": True})
        client.register_partition("rollout_data", ["x"], 2, ["train"])
        keys = ["p_g0", "p_g1"]
        client.put_samples(keys, "rollout_data", TensorDict({"x": torch.ones(2, 1)}, batch_size=[2]),
                           [{"weight_version": 3}] * 2)
        meta = client.claim_meta(partition_id="rollout_data", task_name="train", required_fields=["x"], batch_size=2)
        client.get_data(meta, select_fields=["x"])
        client.publish_weight_version(5)
        client.clear_samples(keys, "rollout_data")
        assert not hasattr(client, "pop")
        assert client.save_checkpoint("here") == "here"
        client.close()
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
    )
    spans = {span.name: span for span in receiver.spans()}
    (link,) = spans["get_data rollout_data"].links
    assert link.span_id == spans["put_samples rollout_data"].span_id
    assert "dataplane.client.consumed.lag" in _metric_names(receiver)


def test_the_table_of_operations_is_the_instrumentors() -> None:
    from dataplane.observability.instrumentor import _FUNCTIONS, _METHODS

    rows = dict(re.findall(r"^\| ((?:client )?`\w+`[^|]*) \| `(\w+)` \|$", PAGE, re.MULTILINE))
    said = {name: operation for names, operation in rows.items() for name in re.findall(r"`(\w+)`", names)}
    assert said == {name: operation.name for name, operation in {**_FUNCTIONS, **_METHODS}.items()}
