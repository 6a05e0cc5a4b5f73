"""What the benchmark scripts share: common options, errors in one sentence, the printed table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import torch

from ..errors import IncrementalSegError


def parser_of(description: str | None, network: bool = True, seed: bool = True) -> argparse.ArgumentParser:
    """A parser with ``--seed``, and ``--device`` and ``--threads`` where a network runs; the script adds its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if seed:
        parser.add_argument("--seed", type=int, default=0)
    if network:
        parser.add_argument("--device", default="auto")
        parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch decides)")
    return parser


def execute(parser: argparse.ArgumentParser, arguments: Sequence[str] | None, work: Callable[..., str]) -> int:
    """Print what ``work`` returns for the parsed options; an expected error is one sentence on stderr."""
    options = parser.parse_args(arguments)
    if getattr(options, "threads", 0):
        torch.set_num_threads(options.threads)
    try:
        print(work(options))
    except IncrementalSegError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
