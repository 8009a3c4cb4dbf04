"""What no file of this project may say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
#: Written with a class of one character, so that this file does not say them.
EVERYWHERE = {
    "the address of a package registry": r"https?://\S*(?:/simpl[e]\b|\.wh[l]\b)|\b(?:files\.)?py[pt]hon[h]osted|\bpyp[i]\.org",
    "a path of somebody's machine": r"(?<![\w.])/(?:wor[k]|hom[e]|opt/whee[l]s)/\w",
    "a private key": r"BEGIN (?:EC |RSA )?PRIVATE KE[Y]-----\n[A-Za-z0-9+/]{20}",
}
IN_CODE = {"unfinished work": r"\b(?:TOD[O]|FIXM[E]|XX[X]|HAC[K]|NotImplementedErro[r])\b"}


def tracked(*folders: str) -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "-z", "--", *folders], cwd=ROOT, capture_output=True, check=True
    )
    files = (ROOT / name.decode() for name in done.stdout.split(b"\0") if name)
    return [file for file in files if file.is_file()]


def is_made(file: Path) -> bool:
    """Did a generator write it?"""
    return "_pb2" in file.name


def said(pattern: str, files: list[Path]) -> list[str]:
    found = []
    for file in files:
        text = file.read_bytes().decode("utf-8", "replace")
        for match in re.finditer(pattern, text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{file.relative_to(ROOT)}:{line}: {match.group()}")
    return found


@pytest.mark.parametrize("what", EVERYWHERE)
def test_no_file_names(what: str) -> None:
    assert said(EVERYWHERE[what], tracked()) == []


@pytest.mark.parametrize("what", IN_CODE)
def test_no_code_has(what: str) -> None:
    written = [
        file for file in tracked("src", "script", "tests", "bench", "proto") if not is_made(file)
    ]
    assert said(IN_CODE[what], written) == []


def test_a_planted_word_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("# " + "TO" + "DO: later\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert len(said(IN_CODE["unfinished work"], [planted])) == 1
