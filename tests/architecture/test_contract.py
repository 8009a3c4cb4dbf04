"""The .proto is a public contract: each part is explained, and what was promised once stays.

``contract.txt`` lists what was promised, one fact a line.  A line that is no longer true breaks
clients that are out there; a new fact is added by hand, in the commit that makes the promise.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2 as pb

HERE = Path(__file__).parent
PROTO = HERE.parent.parent / "proto"
FILE_NAME = "jobworker/v1/job_worker.proto"

TYPES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in pb.FieldDescriptorProto.Type.items()
}


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> pb.FileDescriptorProto:
    """The contract with its comments, as the compiler reads it."""
    output = tmp_path_factory.mktemp("proto") / "set.bin"
    options = ["-I", str(PROTO), "--include_source_info", f"--descriptor_set_out={output}"]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", *options, FILE_NAME], check=True
    )
    return pb.FileDescriptorSet.FromString(output.read_bytes()).file[0]


def field_facts(message: pb.DescriptorProto, prefix: str) -> Iterator[str]:
    name = f"{prefix}{message.name}"
    for field in message.field:
        kind = field.type_name.removeprefix(".") or TYPES[field.type]
        label = "repeated " if field.label == field.LABEL_REPEATED else ""
        presence = "optional " if field.proto3_optional else ""
        yield f"{name} {field.number} {presence}{label}{kind} {field.name}"
    for nested in message.nested_type:
        yield from field_facts(nested, f"{name}.")


def facts(file: pb.FileDescriptorProto) -> list[str]:
    """Everything that a client may rely on, one line each."""
    found: list[str] = []
    for service in file.service:
        for rpc in service.method:
            stream = "stream " if rpc.server_streaming else ""
            found.append(f"{service.name}.{rpc.name} {rpc.input_type} -> {stream}{rpc.output_type}")
    for enum in file.enum_type:
        found.extend(f"{enum.name} {value.number} {value.name}" for value in enum.value)
    for message in file.message_type:
        found.extend(field_facts(message, ""))
    return found


def test_nothing_that_was_promised_is_gone_or_changed(contract: pb.FileDescriptorProto) -> None:
    promised = (HERE / "contract.txt").read_text(encoding="utf-8").splitlines()
    now = facts(contract)
    broken = [line for line in promised if line not in now]
    assert not broken, "a client that is out there relies on this"
    new = [line for line in now if line not in promised]
    assert not new, "add these lines to contract.txt: they are promises from now on"


def test_the_check_sees_a_renumbered_field(contract: pb.FileDescriptorProto) -> None:
    changed = pb.FileDescriptorProto.FromString(contract.SerializeToString())
    changed.message_type[0].field[0].number += 1
    assert set(facts(contract)) - set(facts(changed))


# Paths in SourceCodeInfo are made of field numbers of descriptor.proto.
MESSAGE, ENUM, SERVICE = 4, 5, 6
FIELD, ONEOF, VALUE, RPC = 2, 8, 2, 2


def parts(file: pb.FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and path of each part that needs an explanation."""
    for place, message in enumerate(file.message_type):
        yield message.name, (MESSAGE, place)
        for inner, field in enumerate(message.field):
            yield f"{message.name}.{field.name}", (MESSAGE, place, FIELD, inner)
        real = [one for one in message.oneof_decl if not one.name.startswith("_")]
        for inner, oneof in enumerate(real):
            yield f"{message.name}.{oneof.name}", (MESSAGE, place, ONEOF, inner)
    for place, enum in enumerate(file.enum_type):
        yield enum.name, (ENUM, place)
        for inner, value in enumerate(enum.value):
            yield f"{enum.name}.{value.name}", (ENUM, place, VALUE, inner)
    for place, service in enumerate(file.service):
        yield service.name, (SERVICE, place)
        for inner, rpc in enumerate(service.method):
            yield f"{service.name}.{rpc.name}", (SERVICE, place, RPC, inner)


def test_every_part_is_explained(contract: pb.FileDescriptorProto) -> None:
    explained = {
        tuple(location.path)
        for location in contract.source_code_info.location
        if location.leading_comments.strip()
    }
    assert [name for name, path in parts(contract) if path not in explained] == []


def test_zero_of_an_enum_is_unspecified(contract: pb.FileDescriptorProto) -> None:
    # An absent field reads as zero: it must not mean something.
    for enum in contract.enum_type:
        stem = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper()
        assert (enum.value[0].number, enum.value[0].name) == (0, f"{stem}_UNSPECIFIED")
        assert all(value.name.startswith(f"{stem}_") for value in enum.value)


def test_each_rpc_has_messages_of_its_own(contract: pb.FileDescriptorProto) -> None:
    # Shared ones cannot grow a field for one rpc alone.
    for service in contract.service:
        for rpc in service.method:
            assert rpc.input_type == f".jobworker.v1.{rpc.name}Request"
            assert rpc.output_type == f".jobworker.v1.{rpc.name}Response"
