"""Messages of the daemon stay one line each, whatever is in them."""

from __future__ import annotations

import logging

import pytest

from jobworker.host.logs import KeyValueFormatter


def record(message: str, **extra: object) -> logging.LogRecord:
    found = logging.makeLogRecord({"name": "jobworker.x", "msg": message, "levelname": "INFO"})
    found.__dict__.update(extra)
    return found


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "value=plain"),
        (7, "value=7"),
        ("two words", 'value="two words"'),
        ("", 'value=""'),
        ("a\nforged=line", 'value="a\\nforged=line"'),
        ('quote"', 'value="quote\\""'),
        ("\x1b[2J", 'value="\\u001b[2J"'),
    ],
)
def test_a_value_cannot_leave_its_line(value: object, shown: str) -> None:
    line = KeyValueFormatter(for_journal=True).format(record("event", value=value))
    assert line == f"<6>jobworker.x: event {shown}"


def test_a_traceback_is_one_value() -> None:
    with pytest.raises(ValueError, match="invalid") as caught:
        int("no")
    found = record("event", exc_info=(caught.type, caught.value, caught.tb))
    line = KeyValueFormatter(for_journal=True).format(found)
    assert "\n" not in line
    assert "ValueError: invalid literal" in line


def test_without_a_journal_a_line_has_time_and_level() -> None:
    line = KeyValueFormatter(for_journal=False).format(record("event"))
    assert line.endswith(" INFO jobworker.x: event")
    assert line[:2] == "20"
