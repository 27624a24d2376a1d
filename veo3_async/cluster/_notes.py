"""Texts that all workers of a cluster share."""

from __future__ import annotations

from veo3_async.cluster._names import Names
from veo3_async.cluster._nats.jetstream import Engine

__all__ = ["Notes"]


class Notes:
    """Texts by name. Of two workers that replace the same text at once, the first one does."""

    def __init__(self, engine: Engine, names: Names) -> None:
        self._engine = engine
        self._names = names
        self._loaded: dict[str, int] = {}

    async def load(self, name: str) -> str | None:
        """Return the text of this name, or None.

        :raises ServiceUnavailable: The server cannot be reached.
        """
        found = await self._engine.last(self._names.shared, self._names.entry(name), fresh=True)
        self._loaded[name] = 0 if found is None else found[0]
        return None if found is None else found[1].decode(errors="replace")

    async def save(self, name: str, content: str) -> None:
        """Replace the text that was loaded, unless somebody else has done so since.

        :raises ServiceUnavailable: The server cannot be reached.
        """
        entry, loaded = self._names.entry(name), self._loaded.get(name, 0)
        await self._engine.publish(entry, content.encode(), expect=loaded)
