"""Transfer: does a model that never saw the inversion find the organs in synthetic volumes? (method §5)

``python -m IncrementalSegLib.benchmarks.transfer --model MODEL --judge OTHER --cases DIR --out build/transfer``

The judge is a model of the same organs, best of another architecture and seed, trained on the same cases. Its DSC on
kept organs of synthetic volumes stands beside its DSC on the split's ``evaluation`` scans: an adversarial pattern fools
the model it was made from, not the judge. ``grounded`` starts from the ``step1`` scans and what the model sees there.
Recipes that are finished are not run again; table and CSV hold all that were run on the same models and scans.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..cancel import cancel_on_signals
from ..cases import read_dataset, read_split
from ..errors import InputError
from ..evaluation import dice, summarise
from ..events import Reporter, for_people
from ..inference import probabilities
from ..inversion.memory import Scan, recall
from ..inversion.quality import Synthetic, quality_table
from ..inversion.recipes import RECIPES, recipe_named
from ..inversion.samples import synthesize
from ..inversion.session import scan_of
from ..inversion.starts import Request, usual_size
from ..models.networks import device_named
from ..models.package import Model, load_model
from ..report import csv_text, decimals, markdown_table, rounded, rounded_row
from ..storage import write_json, write_text
from .command import execute, parser_of
from .runs import score_model

COLUMNS = (
    "recipe",
    "volumes",
    "organ",
    "requested",
    "kept",
    "dice",
    "judge",
    "judge_on_real",
    "dice_to_scan",
    "feature_distance",
)


def judged(
    samples: Sequence[Synthetic], judge: Model, device: torch.device, reporter: Reporter
) -> list[dict[int, float]]:
    """Per volume, by channel: DSC of the judge's answer against the training label, for every organ that was kept."""
    scores = []
    warn = partial(reporter.message, level="warning")
    for sample in samples:
        image = torch.from_numpy(sample.image)
        found = probabilities(judge.network.eval(), image, judge.patch, device, reporter.check, warn).argmax(0).numpy()
        kept = [c for c in range(1, judge.classes) if sample.kept(c)]
        scores.append({c: dice(sample.predicted == c, found == c) or 0.0 for c in kept})
    return scores


def transfer_rows(
    recipe: str, quality: dict[str, Any], scores: Sequence[dict[int, float]], judge: Model
) -> list[dict[str, Any]]:
    """CSV rows of a recipe, one per organ: what was asked for and kept, and what the judge finds."""
    rows = []
    for channel, organ in enumerate(judge.organs, start=1):
        found = [score[channel] for score in scores if channel in score]
        row = {part: quality[part] for part in ("dice_to_scan", "feature_distance")}
        row |= {part: quality["organs"][organ.key][part] for part in ("requested", "kept", "dice")}
        row |= {"judge": float(np.mean(found)) if found else None}
        rows.append(rounded_row({"recipe": recipe, "volumes": len(scores), "organ": organ.name, **row}))
    return rows


def transfer_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: one line per recipe, organs averaged; share of organs dropped at most; the judge against real scans."""
    lines = []
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        own = [row for row in rows if row["recipe"] == recipe and row["requested"]]
        asked, kept = (sum(row[part] for row in own) for part in ("requested", "kept"))
        pairs = [(row["judge"], row["judge_on_real"]) for row in own]
        seen = [pair for pair in pairs if None not in pair]
        here, real = np.mean(seen, axis=0).tolist() if seen else (None, None)
        model = float(np.average([row["dice"] for row in own], weights=[row["requested"] for row in own]))
        dropped = max((1 - row["kept"] / row["requested"] for row in own), default=0.0)
        share = f"{100 * here / real:.0f} %" if here is not None and real else "—"
        numbers = [decimals(value, 3) for value in (model, here, real)]
        change = [decimals(own[0]["dice_to_scan"], 2), decimals(own[0]["feature_distance"], 3)]
        lines.append(
            [recipe, str(own[0]["volumes"]), f"{kept}/{asked}", f"{100 * dropped:.0f} %", *numbers, share, *change]
        )
    head = ["Recipe", "Volumes", "Organs kept", "Worst organ dropped", "Model's DSC (all)", "Judge's DSC (kept)"]
    return markdown_table([*head, "Judge on real scans", "Transfer", "Mask DSC to its scan", "R"], lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; prints the table and writes CSV and Markdown."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="package to make volumes from")
    parser.add_argument("--judge", type=Path, required=True, help="package of the same organs that never saw a volume")
    parser.add_argument("--cases", type=Path, required=True, help="dataset folder with split.json")
    parser.add_argument("--split", type=Path, help="JSON with step1 and evaluation (default: CASES/split.json)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES, metavar="NAME")
    parser.add_argument("--count", type=int, default=12, help="volumes of every recipe (%(default)s)")
    return execute(parser, arguments, _run)


def _run(options: argparse.Namespace) -> str:
    model, judge, device = load_model(options.model), load_model(options.judge), device_named(options.device)
    if model.organs.keys != judge.organs.keys or model.preprocessing != judge.preprocessing:
        raise InputError(f"{options.judge} has other organs or another preprocessing than {options.model}.")
    reporter = Reporter(for_people(), cancelled=cancel_on_signals())
    split = options.split or options.cases / "split.json"
    current = read_dataset(options.cases, [], read_split(split, "step1"))
    prints = [case.fingerprint() for case in current]
    settings = {"model": model.hash, "judge": judge.hash, "seed": options.seed, "scans": prints}
    for name in options.recipes:
        recipe = {**json.loads(json.dumps(asdict(RECIPES[name]))), "count": options.count}
        if _finished(options.out, name, settings).get("recipe") != recipe:
            scans = [scan_of(model, case, device, reporter) for case in current if recipe["start"] == "grounded"]
            quality, samples = _synthesized(model, name, scans, options, device, reporter)
            made = transfer_rows(name, quality, judged(samples, judge, device, reporter), judge)
            write_json(options.out / f"{name}.json", {"settings": settings, "recipe": recipe, "rows": made})
    rows = [row for name in RECIPES for row in _finished(options.out, name, settings).get("rows", [])]
    real = _on_real(judge, options, split, reporter)
    rows = [{**row, "judge_on_real": real[row["organ"]]} for row in rows]
    write_text(options.out / "transfer.csv", csv_text(COLUMNS, rows))
    table = transfer_table(rows)
    write_text(options.out / "transfer.md", table + "\n")
    return table


def _finished(folder: Path, recipe: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What ``folder`` holds of a recipe that was run on these models and scans."""
    path = folder / f"{recipe}.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known = json.loads(json.dumps(asdict(RECIPES[recipe]))).items() <= content.get("recipe", {}).items()
    return content if content.get("settings") == settings and known else {}


def _on_real(judge: Model, options: argparse.Namespace, split: Path, reporter: Reporter) -> dict[str, float | None]:
    """The judge's DSC by organ name on real scans, its answers as they are: synthetic volumes show parts of organs."""
    cases = read_dataset(options.cases, judge.organs.names, read_split(split, "evaluation"))
    summary = summarise(score_model(replace(judge, connected=()), cases, options.device, reporter))
    return {organ.name: rounded(summary[organ.key]["dsc"]) for organ in judge.organs}


def _synthesized(
    model: Model,
    name: str,
    scans: Sequence[Scan],
    options: argparse.Namespace,
    device: torch.device,
    reporter: Reporter,
) -> tuple[dict[str, Any], list[Synthetic]]:
    low, high = model.preprocessing.window
    memory, recipe = recall(model), recipe_named(name)
    request = Request(recipe, options.count, usual_size(model, recipe), options.seed, scans=scans)
    samples = synthesize(model, memory, request, device, reporter)
    return quality_table(samples, model.organs, memory.intensities, high - low), samples


if __name__ == "__main__":
    sys.exit(main())
