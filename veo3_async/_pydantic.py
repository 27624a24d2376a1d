"""What lets pydantic, and so FastAPI, take our values; neither is needed for anything else."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["ForPydantic"]


class ForPydantic:
    """Lets pydantic, and so FastAPI, take a value as a field or return it, with its JSON schema."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> Any:  # noqa: ANN401
        from pydantic_core import core_schema  # noqa: PLC0415 - who calls this has it

        return core_schema.no_info_plain_validator_function(
            cls._taken, serialization=core_schema.plain_serializer_function_ser_schema(_shown)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: object, _handler: object) -> Any:  # noqa: ANN401
        (schema,), parts = msgspec.json.schema_components([cls], schema_hook=_schema_of_others)
        return _inlined(schema, parts)

    @classmethod
    def _taken(cls, value: object) -> object:
        """Return a value that pydantic validates: as it is, or made of a dict.

        :raises ValueError: It is neither.
        """
        return value if isinstance(value, cls) else msgspec.convert(value, cls)


def _shown(value: Any) -> Any:  # noqa: ANN401 - one of ours
    return value.to_dict() if hasattr(value, "to_dict") else msgspec.to_builtins(value)


def _schema_of_others(_: type) -> dict[str, Any]:
    return {"type": "object"}


def _inlined(schema: Any, parts: dict[str, Any]) -> Any:  # noqa: ANN401 - as JSON has it
    """Return a JSON schema without references: who takes it in has names of its own."""
    match schema:
        case {"$ref": str(ref)}:
            return _inlined(parts[ref.rpartition("/")[2]], parts)
        case dict():
            return {name: _inlined(item, parts) for name, item in schema.items()}
        case list():
            return [_inlined(item, parts) for item in schema]
    return schema
