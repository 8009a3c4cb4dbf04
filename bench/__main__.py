"""``script/bench``: run figures and write down what came out.

Each figure has its own service, its own peers and its own temporary folder, and leaves nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench.measure import Result
from bench.processes import ROOT
from bench.report import append_result, read_results, table, write_report
from bench.stage import Figure, Stage

FIGURES: Final = (
    "start",
    "throughput",
    "cli",
    "stream",
    "beside",
    "full-speed",
    "followers",
    "latency",
    "memory",
    "daemon-memory",
    "history",
    "lines",
    "idle",
)
#: The users of jobs must be able to pass through.
_TRAVERSABLE: Final = 0o711


def main() -> None:
    options = _parse()
    # As Ctrl-C, which asyncio turns into a cancellation: whatever was started is ended.  Also in
    # the background, where a shell has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.jsonl"
    for name in options.figure or FIGURES:
        print(f"{name} …", file=sys.stderr, flush=True)
        results = _run(name, is_quick=options.quick)
        for result in results:
            append_result(file, result)
        print(table(results), flush=True)
    order = {name: place for place, name in enumerate(FIGURES)}
    everything = sorted(read_results([file]), key=lambda result: order[result.figure])
    command = shlex.join(["script/bench", *sys.argv[1:]])
    write_report(options.out, everything, command)
    print(f"all results so far: {options.out}/table.md, results.jsonl, plots/", file=sys.stderr)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    parser.add_argument("figure", nargs="*", metavar="FIGURE", help=", ".join(FIGURES))
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller amounts")
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "build" / "bench",
        metavar="DIR",
        help="where results are added to those of earlier runs (default: build/bench)",
    )
    options = parser.parse_args()
    for name in options.figure:
        if name not in FIGURES:
            parser.error(f"there is no figure {name!r}: take {', '.join(FIGURES)}")
    return options


def _run(name: str, *, is_quick: bool) -> list[Result]:
    figure: Figure = importlib.import_module(f"bench.figures.{name.replace('-', '_')}").run
    # A real file system: on one in memory nothing is ever written back or synchronised.
    directory = Path(tempfile.mkdtemp(prefix="jw-bench-", dir="/var/tmp"))
    directory.chmod(_TRAVERSABLE)
    try:
        return asyncio.run(figure(Stage(directory=directory, is_quick=is_quick)))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
