"""What the account says: balance, costs, submissions, uploads, and the list of models.

All of it is for people: a reply that cannot be read is a `Problem`, and what a reply does not say
is None. Nothing here decides what becomes of a task.
"""

from __future__ import annotations

import decimal
import math
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from veo3_async._errors import InvalidRequest
from veo3_async._models import VideoTask
from veo3_async._protocol.errors import SUCCESS, Problem, own_error, problem_of
from veo3_async._protocol.families._fields import flag, url_or_none
from veo3_async._protocol.families._route import call_for_id
from veo3_async._protocol.http import Call, Reply
from veo3_async._protocol.parsing import json_of
from veo3_async._reports import Cost, ModelParameter, VideoModel

__all__ = [
    "MAX_RECORDS",
    "MAX_UPLOAD_BYTES",
    "UPLOAD_PATH",
    "balance_call",
    "check_against",
    "cost_call",
    "cost_request_ids",
    "models_call",
    "read_balance",
    "read_cost",
    "read_models",
    "read_records",
    "read_upload",
    "records_call",
    "request_id_of_http",
]

UPLOAD_PATH: Final = "/302/upload-file"
"""Takes a multipart form with the field ``file``."""
MAX_UPLOAD_BYTES: Final = 50_000_000
"""Of one file: the service takes up to 50 MB."""
MAX_RECORDS: Final = 50
"""Of one page of `records_call`."""


# --- calls ----------------------------------------------------------------------------------


def balance_call() -> Call:
    """Return the request for the balance."""
    return Call("GET", "/dashboard/balance")


def cost_call(http_request_id: str) -> Call:
    """Return the request for what one HTTP request cost.

    :param http_request_id: What the header ``request-id`` of its reply said, no task's id.
    """
    return call_for_id("/dashboard/record/", http_request_id)


def records_call(since: float, until: float, *, page: int = 1, limit: int = MAX_RECORDS) -> Call:
    """Return the request for what was charged in a span of time.

    :param since: Seconds since the epoch; ``until`` likewise.
    :param page: From 1.
    :param limit: Records of one page, 1 to 50.
    """
    query = {
        "page": page,
        "limit": min(max(1, limit), MAX_RECORDS),
        "start_time": int(since),
        "end_time": int(until),
    }
    return Call("GET", f"/dashboard/api-record?{urllib.parse.urlencode(query)}")


def models_call() -> Call:
    """Return the request for the models of the unified endpoint."""
    return Call("GET", "/302/v2/model/video")


# --- replies --------------------------------------------------------------------------------


def read_balance(reply: Reply, *, wall_now: float) -> decimal.Decimal | Problem | None:
    """Return the balance in PTC; None where the reply does not say it."""
    content = _content(reply, wall_now)
    return content if isinstance(content, Problem) else _amount(_data(content).get("balance"))


def read_cost(reply: Reply, *, wall_now: float) -> Cost | Problem:
    """Return what an HTTP request cost."""
    content = _content(reply, wall_now)
    if isinstance(content, Problem):
        return content
    data = _data(content)
    return Cost(
        cost=_amount(data.get("cost")),
        model=_text(data, "model"),
        input_token=_count(data.get("input_token")),
        output_token=_count(data.get("output_token")),
        process_time=_number(data.get("process_time")),
    )


def read_records(reply: Reply, *, wall_now: float) -> tuple[dict[str, Any], ...] | Problem:
    """Return what was charged, as the service has it: its fields are not documented."""
    content = _content(reply, wall_now)
    if isinstance(content, Problem):
        return content
    data = content.get("data")
    holder = data if isinstance(data, dict) else content
    items = data if isinstance(data, list) else holder.get("items")
    return tuple(i for i in items if isinstance(i, dict)) if isinstance(items, list) else ()


def read_upload(reply: Reply, *, wall_now: float) -> str | Problem:
    """Return the URL of a file that was uploaded."""
    content = _content(reply, wall_now)
    if isinstance(content, Problem):
        return content
    url = url_or_none(content.get("data")) or url_or_none(content.get("url"))
    return url or problem_of(reply, content, wall_now=wall_now)


def read_models(reply: Reply, *, wall_now: float) -> tuple[VideoModel, ...] | Problem:
    """Return the models of the unified endpoint, with parameters and prices."""
    content = _content(reply, wall_now)
    if isinstance(content, Problem):
        return content
    models = content.get("models") or _data(content).get("models")
    if not isinstance(models, list):
        return problem_of(reply, content, wall_now=wall_now)
    return tuple(_model(one) for one in models if isinstance(one, dict))


def request_id_of_http(reply: Reply) -> str | None:
    """Return the id of the HTTP request that a reply answers, which is no task's id."""
    return reply.headers.get("request-id") or None


def cost_request_ids(task: VideoTask) -> tuple[str, ...]:
    """Return the HTTP requests that a task of the unified endpoint was charged by."""
    said = task.extra.get("ai302_cost_request_ids")
    ids = said.split(",") if isinstance(said, str) else said if isinstance(said, list) else ()
    return tuple(one.strip() for one in ids if isinstance(one, str) and one.strip())


# --- models ---------------------------------------------------------------------------------


def check_against(
    model: VideoModel, *, image: object | None, options: Mapping[str, Any] | None
) -> None:
    """Refuse what a model is listed not to take.

    :raises InvalidRequest: The image, the lack of one, or an option or its value.
    """
    _check_image(model, image)
    known = {one.name: one for one in model.parameters}
    if not known:
        return  # the list says nothing of it
    given = {name: value for name, value in (options or {}).items() if value is not None}
    if unknown := sorted(given.keys() - known.keys()):
        takes = ", ".join(sorted(name for name in known if not name.startswith("image")))
        message = f"{model.name} does not take {', '.join(unknown)}; it takes {takes}"
        raise InvalidRequest(message)
    for name, value in given.items():
        if (allowed := known[name].options) and str(value) not in allowed:
            message = f"{name} of {model.name} is one of {', '.join(allowed)}, not {value!r:.64}"
            raise InvalidRequest(message)


def _check_image(model: VideoModel, image: object | None) -> None:
    if not (model.takes_text or model.takes_image or model.takes_video):
        return  # the list says nothing of it
    if image is not None and not model.takes_image:
        message = f"{model.name} takes no image; see models() for those that do"
        raise InvalidRequest(message)
    if image is None and not model.takes_text and not model.takes_video:
        message = f"{model.name} makes a video from an image: pass image= too"
        raise InvalidRequest(message)


def _model(fields: Mapping[str, Any]) -> VideoModel:
    can = fields.get("capabilities")
    can = can if isinstance(can, dict) else {}
    parameters = fields.get("parameters")
    return VideoModel(
        name=_text(fields, "model_name"),
        display_name=_text(fields, "display_name"),
        provider=_text(fields, "provider_en", "provider"),
        price=_text(fields, "price_text_en", "price_text"),
        description=_text(fields, "description_en", "description"),
        takes_text=_flag(can.get("t2v")),
        takes_image=_flag(can.get("i2v")),
        takes_video=_flag(can.get("v2v")),
        parameters=tuple(_parameter(one) for one in parameters if isinstance(one, dict))
        if isinstance(parameters, list)
        else (),
    )


def _parameter(fields: Mapping[str, Any]) -> ModelParameter:
    span = fields.get("range")
    span = span if isinstance(span, dict) else {}
    row, limits = span.get("list"), span.get("range") or span.get("slider")
    options = row.get("options") if isinstance(row, dict) else None
    limits = limits if isinstance(limits, dict) else {}
    return ModelParameter(
        name=_text(fields, "name"),
        required=_flag(fields.get("required")),
        description=_text(fields, "description_en", "description"),
        options=tuple(map(str, options)) if isinstance(options, list) else (),
        minimum=_number(limits.get("min")),
        maximum=_number(limits.get("max")),
        step=_number(limits.get("step")),
    )


# --- fields ---------------------------------------------------------------------------------


def _content(reply: Reply, wall_now: float) -> dict[str, Any] | Problem:
    content = json_of(reply.body)
    if reply.status in SUCCESS and isinstance(content, dict) and own_error(content) is None:
        return content
    return problem_of(reply, content, wall_now=wall_now)


def _data(content: Mapping[str, Any]) -> Mapping[str, Any]:
    data = content.get("data")
    return data if isinstance(data, dict) else content


def _text(fields: Mapping[str, Any], *names: str) -> str:
    values = (fields.get(name) for name in names)
    return next((v for v in values if isinstance(v, str) and v.strip(" …")), "")


def _flag(value: object) -> bool:
    try:
        return bool(flag(value))
    except (msgspec.ValidationError, ValueError):
        return False


def _count(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and math.isfinite(number) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _amount(value: object) -> decimal.Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        amount = decimal.Decimal(str(value).strip())
    except (decimal.InvalidOperation, ValueError):
        return None
    return amount if amount.is_finite() else None
