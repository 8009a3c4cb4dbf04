"""What all conversions share: which fields are set, and whose mistake a bad one is."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from jobworker.errors import DataLossError, InvalidArgumentError
from jobworker.model.limits import Limits
from jobworker.model.usage import OutputTotals, Pressure, Usage


def refuse_unknown_fields(message: Message, name: str) -> None:
    """Raises InvalidArgumentError if a newer peer set fields that would be dropped here.

    For requests in which a dropped field would be a promise not kept, such as a limit.
    """
    unknown = UnknownFieldSet(message)
    if len(unknown):
        why = "this version of jobworker knows no such field"
        raise InvalidArgumentError(f"{name} field", unknown[0].field_number, why)


@contextlib.contextmanager
def reading_an_answer() -> Iterator[None]:
    """What the model refuses of an answer is the service's mistake: DataLossError."""
    try:
        yield
    except InvalidArgumentError as error:
        raise DataLossError("read the answer of the service", str(error)) from error


def given(record: Limits | Usage | OutputTotals | Pressure) -> dict[str, Any]:
    """The fields that are set.  The messages of these records have fields of the same names."""
    found = ((field.name, getattr(record, field.name)) for field in dataclasses.fields(record))
    return {name: value for name, value in found if value is not None}


def present(message: Message) -> dict[str, Any]:
    """The fields that are set, a zero too if the field is ``optional``; unknown ones left out."""
    return {field.name: value for field, value in message.ListFields()}


def shown_text(text: str) -> str:
    """With ``?`` for what is not Unicode, such as a path that the kernel named: shown to people."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
