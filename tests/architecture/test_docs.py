"""What the documents say is so: dependencies, links, help texts, and the library's example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

from support.guards import need

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README = ROOT / "README.md"
BIN = Path(sys.executable).parent


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def blocks(document: Path, language: str) -> list[str]:
    """Fenced blocks of a document in one language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", document.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )


def prose(document: Path) -> list[str]:
    """Lines that are no code and no table."""
    text = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [line for line in text.splitlines() if not line.startswith(("|", "    "))]


def declared_dependencies() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    lists = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    return {re.split(r"[<>=~! \[]", item)[0] for items in lists for item in items}


def test_each_dependency_says_what_it_is_for() -> None:
    text = (ROOT / "docs/dependencies.md").read_text("utf-8")
    assert set(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)) == declared_dependencies()


@pytest.mark.parametrize("name", ["client", "server", "dev", "build", "lock"])
def test_pins_have_hashes_and_name_no_place(name: str) -> None:
    text = (ROOT / f"requirements/{name}.txt").read_text("utf-8")
    pins = re.findall(r"^[\w.-]+==\S+ .*\\$", text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[^\s#-]", text, re.MULTILINE)), "something has no hash"
    assert "://" not in text
    assert not re.search(r"^\s*--(?!hash)", text, re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", "\n".join(prose(document)))
    assert [one for one in targets if not (document.parent / one).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_one_sentence_a_line(document: Path) -> None:
    # So that a change of one sentence is a change of one line.
    assert [line for line in prose(document) if re.search(r"[a-z)`][.!?] [A-Z]", line)] == []


#: A command that asks for help, and all up to the next prompt.
HELP = re.compile(r"(?ms)^[$#] ((?:jobctl|jobworker)\b[^\n]*--help)\n(.*?)(?=^[$#] |\Z)")


def help_blocks() -> list[tuple[str, str]]:
    """Commands that ask for help, and what the documents say they answer."""
    shown = (block for document in DOCUMENTS for block in blocks(document, "console"))
    return [match.groups() for block in shown for match in HELP.finditer(block)]  # type: ignore[misc]  # a tuple of as many as the pattern has


@pytest.mark.parametrize(("command", "answer"), help_blocks(), ids=lambda value: value[:30])
def test_help_is_as_shown(command: str, answer: str) -> None:
    program, *arguments = command.split()
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(
        [BIN / program, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.rstrip() == answer.rstrip()


def test_the_example_of_the_library_runs() -> None:
    need(os.geteuid() == 0, "root")
    (example,) = blocks(README, "python")
    (shown,) = blocks(README, "text")
    # pytest's own folders are closed to the users of jobs: the worker would make one elsewhere.
    with tempfile.TemporaryDirectory(prefix="jobworker-test-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)
        done = subprocess.run(
            [sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, check=False
        )
    assert done.stdout == shown, done.stderr
