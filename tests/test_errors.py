"""The error tree: who must act, what is carried, and that it travels."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any, Final

import pytest

import veo3_async._errors as errors
from veo3_async._errors import StillPending, TaskFailed, Veo3Error
from veo3_async._models import VideoTask

ALL: Final = [getattr(errors, name) for name in errors.__all__]
LEAVES: Final = [cls for cls in ALL if cls is not Veo3Error]
EVIDENCE: Final[dict[str, Any]] = {
    "request_id": "veo3-pro:1",
    "http_status": 400,
    "err_code": -10011,
    "attempts": 7,
    "elapsed": 12.5,
    "task": VideoTask(id="veo3-pro:1", status="failed", extra={"a": [1]}),
    "body": "<html>",
}


def names(tree: str) -> set[str]:
    return set(re.findall(r"[├└]── ([A-Z]\w+)", tree))


def descendants(cls: type[Veo3Error]) -> set[type[Veo3Error]]:
    own = {sub for sub in cls.__subclasses__() if sub.__module__ == errors.__name__}
    return own.union(*(descendants(sub) for sub in own))


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Every error is drawn once, every drawn one exists, and all are exported."""
    drawn = errors.__doc__ or ""
    assert names(drawn) == {cls.__name__ for cls in LEAVES}
    assert names(drawn) == {cls.__name__ for cls in descendants(Veo3Error)}
    assert sorted(errors.__all__) == errors.__all__


@pytest.mark.parametrize("cls", LEAVES)
def test_each_error_says_when_it_is_raised(cls: type[Veo3Error]) -> None:
    """The first words of every class are the condition."""
    assert (cls.__doc__ or "").startswith("Raised when ")


@pytest.mark.parametrize("cls", ALL)
def test_an_error_carries_its_evidence(cls: type[Veo3Error]) -> None:
    """What was known is there by name, and nothing is there that was not known."""
    assert vars(cls("oh", **EVIDENCE)) == {"message": "oh", **EVIDENCE}
    nothing = dict.fromkeys(EVIDENCE) | {"attempts": 0}
    assert vars(cls("oh")) == {"message": "oh", **nothing}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("cls", ALL)
def test_an_error_can_be_pickled(cls: type[Veo3Error], protocol: int) -> None:
    """It comes out of another process as it went in."""
    error = cls("oh", **EVIDENCE)
    twin = pickle.loads(pickle.dumps(error, protocol))
    assert (type(twin), vars(twin), str(twin)) == (cls, vars(error), str(error))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("cls", ALL)
def test_an_error_can_be_copied(cls: type[Veo3Error], copied: Any) -> None:
    """A copy says the same and keeps what was noted on it."""
    error = cls("oh", **EVIDENCE)
    error.add_note("seen twice")
    twin = copied(error)
    assert (type(twin), vars(twin), twin.args) == (cls, vars(error), ("oh",))


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        ({}, "oh"),
        ({"attempts": 7, "elapsed": 1.0, "body": "<html>"}, "oh"),
        ({"request_id": "veo3-pro:1"}, "oh (request veo3-pro:1)"),
        ({"http_status": 503}, "oh (HTTP 503)"),
        (EVIDENCE, "oh (request veo3-pro:1, HTTP 400, err_code -10011)"),
    ],
)
def test_an_error_reads_as_a_sentence_and_its_evidence(evidence: dict[str, Any], text: str) -> None:
    """The message, then what identifies the request, where it is known."""
    assert str(TaskFailed("oh", **evidence)) == text


def test_still_pending_is_a_timeout_error() -> None:
    """Who catches timeouts catches ours, and no other error of ours."""
    assert [cls for cls in ALL if issubclass(cls, TimeoutError)] == [StillPending]
    assert StillPending("oh").errno is None
