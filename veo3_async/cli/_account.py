"""The commands ``models`` and ``balance``: what the service offers, and what is left to pay it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from veo3_async import Veo3Client, VideoModel
from veo3_async.cli._access import Service
from veo3_async.cli._exits import ExitCode
from veo3_async.cli._follow import on_loop
from veo3_async.cli._options import Json
from veo3_async.cli._output import emit, note, wants_json
from veo3_async.cli._show import show_rows

__all__ = ["balance", "models"]

_T = TypeVar("_T")


def models(*, json: Json = False, service: Service) -> int:
    """List the models of the unified endpoint, with their options and prices.

    The models of the other endpoints need no listing: veo3-pro, veo3-fast, veo3, veo2, veo3-v2.
    """
    found = _asked(service, lambda veo: veo.models())
    if wants_json(json):
        for model in found:
            emit(model)
    else:
        show_rows(("model", "from", "price", "options"), map(_cells, found))
    return ExitCode.DONE


def balance(*, json: Json = False, service: Service) -> int:
    """Print the balance of the account in PTC, of which one is 1 USD."""
    amount = _asked(service, lambda veo: veo.balance())
    if amount is None:
        note("the account does not say what its balance is")
        return ExitCode.FAILED
    emit({"balance": amount} if json else str(amount))
    return ExitCode.DONE


def _asked(service: Service, ask: Callable[[Veo3Client], Coroutine[Any, Any, _T]]) -> _T:
    veo = service.access().client()

    async def main() -> _T:
        async with veo:
            return await ask(veo)

    return on_loop(main)


def _cells(model: VideoModel) -> Iterable[str]:
    takes = {"text": model.takes_text, "image": model.takes_image, "video": model.takes_video}
    yield model.name
    yield ", ".join(word for word, taken in takes.items() if taken)
    yield model.price
    yield " ".join(parameter.name for parameter in model.parameters)
