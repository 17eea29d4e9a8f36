"""The translation table: each row is tested by raising what it names, and every TransferQueue error has a row.

``test_tq_real_errors`` shows that real faults look as the table says.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import pickle
import pkgutil
import sys
from types import ModuleType

import pytest

from dataplane.adapters.transfer_queue.calls import TransferQueueCalls
from dataplane.errors import (
    DataPlaneBadRequest,
    DataPlaneClearError,
    DataPlaneError,
    DataPlaneNotReady,
    DataPlaneReadError,
    DataPlaneTimeout,
    DataPlaneUnavailable,
    DataPlaneWriteError,
    error_type,
)
from dataplane.errors.translation import ROWS, STORE_CODES, Row, error_class, store_code


def _resolve(name: str) -> type[Exception]:
    module, _, cls = name.rpartition(".")
    resolved: type[Exception] = getattr(importlib.import_module(module), cls)
    return resolved


def _make(name: str, message: str) -> Exception:
    """Return an instance of the class *name* with *message*, whatever arguments its constructor needs."""
    cls = _resolve(name)
    sub = type(cls.__name__, (cls,), {"__init__": lambda self: None, "__str__": lambda self: message})
    made: Exception = sub()
    return made


def _raise(error: Exception, operation: str, default: type[DataPlaneError] = DataPlaneReadError) -> DataPlaneError:
    """Return the error that a call raises when it fails with *error*."""

    def fail() -> None:
        raise error

    with pytest.raises(DataPlaneError) as caught:
        TransferQueueCalls(ModuleType("transfer_queue"), timeout_s=5.0)._call_tq(
            operation, fail, default, partition_id="p"
        )
    return caught.value


_PAIRS = [(row, name) for row in ROWS for name in row.types]


@pytest.mark.full
@pytest.mark.parametrize(("row", "name"), _PAIRS, ids=[f"{name} {row.phrase}".strip() for row, name in _PAIRS])
def test_every_row_by_raising_what_it_names(row: Row, name: str) -> None:
    operation = row.operation or "put_samples"
    error = _make(name, f"[id]: {row.phrase} and more")
    raised = _raise(error, operation, DataPlaneWriteError)
    assert type(raised) is (row.error or DataPlaneWriteError)
    assert (raised.operation, raised.partition_id, raised.__cause__) == (operation, "p", error)


@pytest.mark.full
def test_every_name_in_the_table_is_a_real_class() -> None:
    if sys.version_info >= (3, 11):  # only on 3.10 are these two separate classes
        assert asyncio.TimeoutError is TimeoutError is concurrent.futures.TimeoutError
    for row in ROWS:
        for name in row.types:
            assert issubclass(_resolve(name), Exception), name


@pytest.mark.full
def test_every_exception_of_transfer_queue_is_in_the_table() -> None:
    import transfer_queue

    for module in pkgutil.walk_packages(transfer_queue.__path__, "transfer_queue."):
        try:
            importlib.import_module(module.name)
        except ImportError:  # a backend whose own package is not installed
            continue
    known = {name for row in ROWS for name in row.types}
    found = {
        f"{value.__module__}.{value.__qualname__}"
        for module in list(sys.modules.values())
        if getattr(module, "__name__", "").startswith("transfer_queue")
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseException) and value.__module__.startswith("transfer_q")
    }
    assert found, "TransferQueue has exception classes of its own"
    assert found <= known


@pytest.mark.full
def test_no_row_hides_behind_an_earlier_one() -> None:
    for row, name in _PAIRS:
        if row.error is not None:
            assert error_class(_make(name, row.phrase), row.operation or "ping", DataPlaneError) is row.error


@pytest.mark.parametrize(
    "operation", ["ping", "put_samples", "get_samples", "claim_meta", "clear_samples", "register_partition"]
)
def test_a_failed_lookup_is_unavailable_only_where_it_is_made(operation: str) -> None:
    error = ValueError("Failed to look up actor with name 'TransferQueueController'")
    assert type(_raise(error, "attach")) is DataPlaneUnavailable
    assert type(_raise(error, operation)) is DataPlaneBadRequest


@pytest.mark.parametrize(
    "error", [ValueError("name is taken"), KeyError("sampler"), TypeError("not a config")], ids=repr
)
def test_an_attach_has_no_arguments_that_could_be_wrong(error: Exception) -> None:
    assert type(_raise(error, "attach", DataPlaneUnavailable)) is DataPlaneUnavailable
    assert type(_raise(error, "put_samples", DataPlaneWriteError)) is DataPlaneBadRequest


@pytest.mark.parametrize("default", [DataPlaneReadError, DataPlaneWriteError, DataPlaneClearError])
@pytest.mark.parametrize(
    "message", ["something new", "the actor of the play", "storage unit of measure", "no timeout", "not ready"]
)
def test_what_nobody_knows_is_the_operations_default(message: str, default: type[DataPlaneError]) -> None:
    """Words in a message that only resemble those of the table do not match."""
    assert type(_raise(RuntimeError(message), "put_samples", default)) is default


def test_the_cause_decides_what_the_wrapper_does_not_say() -> None:
    wrapper = RuntimeError("Failed in async_kv_retrieve_meta: reset by peer")
    wrapper.__cause__ = ConnectionResetError("reset by peer")
    assert type(_raise(wrapper, "get_samples")) is DataPlaneUnavailable
    wrapper.__cause__ = TypeError("a mistake inside TransferQueue")
    assert type(_raise(wrapper, "get_samples")) is DataPlaneReadError


@pytest.mark.full
def test_a_task_error_of_ray_is_unwrapped() -> None:
    from ray.exceptions import RayTaskError

    for cause, expected in (
        (KeyError("k"), DataPlaneBadRequest),
        (TimeoutError("t"), DataPlaneTimeout),
        (RuntimeError("r"), DataPlaneReadError),
        (DataPlaneNotReady("ours"), DataPlaneNotReady),
    ):
        wrapped = RayTaskError("get_config", "Traceback …", cause)
        nested = RayTaskError("attach", "Traceback …", wrapped)  # of a task that waited for another one
        for error in (wrapped, wrapped.as_instanceof_cause(), nested, nested.as_instanceof_cause()):
            assert error_type(_raise(error, "get_samples")) == expected.__name__


def test_a_message_is_one_line() -> None:
    raised = _raise(ConnectionError("The actor died.\n\tclass_name: X\n\tpid: 1"), "ping")
    assert str(raised) == "ConnectionError: The actor died."


@pytest.mark.full
def test_what_is_raised_pickles() -> None:
    for row, name in _PAIRS:
        raised = _raise(_make(name, row.phrase), row.operation or "put_samples")
        copy = pickle.loads(pickle.dumps(raised))
        assert (type(copy), str(copy), copy.operation, copy.partition_id) == (
            type(raised),
            str(raised),
            raised.operation,
            "p",
        )


@pytest.mark.parametrize(("code", "expected"), [(code, kind) for code, (kind, _) in STORE_CODES.items()])
def test_a_code_of_the_store_decides(code: int, expected: type[DataPlaneError]) -> None:
    error = RuntimeError(f"batch_get_into failed for keys ['0@x', '1@x'] with error codes [-1, {code}].")
    assert type(_raise(error, "get_samples", DataPlaneError)) is expected


def test_of_several_codes_the_one_that_explains_the_others_decides() -> None:
    error = RuntimeError("batch_get_into failed for keys ['0@x', '1@x', '2@x'] with error codes [-704, -900, -200]")
    assert store_code(error) == -900
    assert store_code(ValueError("error codes [-900]")) is store_code(RuntimeError("error codes [-1]")) is None


def test_a_cause_wins_over_the_text_that_transfer_queue_wraps_it_in() -> None:
    for cause, expected in (
        (ConnectionRefusedError("refused"), DataPlaneUnavailable),
        (TimeoutError(), DataPlaneTimeout),
        (RuntimeError("batch_get_into failed for keys ['0@x'] with error codes [-704]"), DataPlaneReadError),
        (ValueError("lack of something"), DataPlaneClearError),  # TransferQueue's own mistake, not the caller's
    ):
        error = RuntimeError(f"Error in clear_samples operation: {cause}")
        error.__cause__ = cause
        assert type(_raise(error, "clear_samples", DataPlaneError)) is expected
