"""The error tree: base classes, attributes, and that errors survive pickling."""

from __future__ import annotations

import copy
import pickle

import pytest

import dataplane
from dataplane import errors
from dataplane.adapters.arguments import UnknownSampleError, UnstorableValueError
from dataplane.errors import (
    ERROR_TYPES,
    OTHER_ERROR_TYPE,
    DataPlaneBadRequest,
    DataPlaneError,
    DataPlaneNotReady,
    DataPlaneReadError,
    DataPlaneTimeout,
    error_type,
)

CLASSES = [getattr(errors, name) for name in ERROR_TYPES]


def test_the_list_of_error_types_is_complete() -> None:
    public = {name for name in errors.__all__ if isinstance(getattr(errors, name), type)}
    assert public == set(ERROR_TYPES)
    assert public <= set(dataplane.__all__)


@pytest.mark.parametrize("cls", CLASSES)
def test_one_except_catches_all(cls: type[DataPlaneError]) -> None:
    assert issubclass(cls, DataPlaneError)
    assert issubclass(cls, RuntimeError)


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (DataPlaneTimeout, TimeoutError),
        (DataPlaneBadRequest, ValueError),
        (DataPlaneNotReady, KeyError),
        (UnknownSampleError, KeyError),
        (UnstorableValueError, TypeError),
    ],
)
def test_what_callers_of_the_old_interface_catch(cls: type[DataPlaneError], builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match=r"^it broke$"):
        raise cls("it broke")


@pytest.mark.parametrize("cls", [*CLASSES, UnknownSampleError, UnstorableValueError])
def test_every_error_survives_pickling_and_copying(cls: type[DataPlaneError]) -> None:
    error = cls("it broke: 'x'\nbadly", operation="put_samples", partition_id="train")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is cls
        assert str(twin) == "it broke: 'x'\nbadly"
        assert (twin.operation, twin.partition_id) == ("put_samples", "train")


@pytest.mark.parametrize("cls", [*CLASSES, UnknownSampleError, UnstorableValueError])
def test_an_error_needs_no_details(cls: type[DataPlaneError]) -> None:
    error = pickle.loads(pickle.dumps(cls()))
    assert (str(error), error.operation, error.partition_id) == ("", None, None)


def test_the_cause_is_kept() -> None:
    cause = OSError("reset")
    with pytest.raises(DataPlaneReadError) as caught:
        raise DataPlaneReadError("listing failed") from cause
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("cls", CLASSES)
def test_the_error_type_is_the_name_of_the_class(cls: type[DataPlaneError]) -> None:
    assert error_type(cls("x")) == error_type(cls) == cls.__name__


def test_the_error_type_of_a_subclass_is_the_nearest_class_of_the_tree() -> None:
    assert error_type(UnknownSampleError("x")) == error_type(UnstorableValueError("x")) == "DataPlaneBadRequest"


@pytest.mark.parametrize("error", [ValueError("x"), TimeoutError(), KeyboardInterrupt()])
def test_what_is_not_ours_is_other(error: BaseException) -> None:
    assert error_type(error) == OTHER_ERROR_TYPE


def test_a_namesake_from_elsewhere_is_other() -> None:
    namesake = type("DataPlaneTimeout", (Exception,), {})
    assert error_type(namesake()) == OTHER_ERROR_TYPE
