"""Bytes to descriptors."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from jobworker.cli import console


def test_a_slow_reader_gets_everything_through_a_non_blocking_pipe() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data, received = os.urandom(3_000_000), bytearray()

    def read() -> None:
        while part := os.read(reader, 4096):
            received.extend(part)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        console.write(writer, data)
    finally:
        os.close(writer)
        thread.join()
        os.close(reader)
    assert bytes(received) == data


def test_a_reader_that_went_away_is_a_broken_pipe() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with pytest.raises(BrokenPipeError):
            os.write(writer, b"x")
        saved = os.dup(console.STDOUT)
        os.dup2(writer, console.STDOUT)
        try:
            with pytest.raises(console.OutputError) as raised:
                console.show("x")
        finally:
            os.dup2(saved, console.STDOUT)
            os.close(saved)
    finally:
        os.close(writer)
    assert raised.value.is_broken_pipe


def test_a_full_disk_is_told_with_its_reason() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    saved = os.dup(console.STDOUT)
    os.dup2(full, console.STDOUT)
    try:
        with pytest.raises(console.OutputError, match="standard output: No space left") as raised:
            console.show("x")
    finally:
        os.dup2(saved, console.STDOUT)
        os.close(saved)
        os.close(full)
    assert not raised.value.is_broken_pipe


def test_talk_that_nobody_hears_changes_nothing(tmp_path: Path) -> None:
    saved = os.dup(console.STDERR)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, console.STDERR)
    try:
        console.talk("anybody there?")
    finally:
        os.dup2(saved, console.STDERR)
        os.close(saved)
        os.close(full)
