"""Privacy audit: how close does a synthetic volume come to a training scan, compared with another patient?

``python -m IncrementalSegLib.benchmarks.privacy --model MODEL --synthetic DIR --cases DIR --out DIR``

For every synthetic volume, the largest normalised cross-correlation with any training scan over all shifts; beside it
the same for boxes cut from each training scan against all other patients. Synthetic volumes that are no closer to a
training scan than patients are to each other do not show that nothing can leak: only that no scan is repeated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import fftconvolve

from ..cancel import cancel_on_signals
from ..cases import read_dataset, read_split
from ..errors import InputError
from ..events import Reporter, for_people
from ..inversion.anatomy import Anatomy
from ..inversion.crop import draw_crop
from ..models.package import load_model
from ..preprocessing import on_model_grid, resample
from ..report import csv_text, decimals, markdown_table, rounded_row
from ..storage import write_text
from ..volumes import read_ct, to_array
from .command import execute, parser_of

SYNTHETIC, PATIENT = "synthetic volume to training scan", "patient to another patient"
Volume = npt.NDArray[np.float32]
_LEAST_VARIANCE = 1e-4  # of a box, on the [-1, 1] scale: nothing but air


def best_correlation(box: Volume, scan: Volume) -> float:
    """Largest zero-mean normalised cross-correlation of a box with a scan over shifts by whole voxels.

    Both are on the [-1, 1] scale. The box may stick out by a quarter on every side, where the scan goes on as air.
    Rotations are not searched.
    """
    room = [(max(n // 4, -(-(n - size) // 2)),) * 2 for n, size in zip(box.shape, scan.shape, strict=True)]
    padded = np.pad(scan.astype(np.float64), room, constant_values=-1.0)
    centred = box.astype(np.float64) - box.mean()
    ones = np.ones_like(centred)
    product = fftconvolve(padded, centred[::-1, ::-1, ::-1], "valid")
    total, squares = fftconvolve(padded, ones, "valid"), fftconvolve(padded**2, ones, "valid")
    variance = squares / box.size - (total / box.size) ** 2
    scale = np.sqrt(np.maximum(variance, _LEAST_VARIANCE)) * np.sqrt(box.size) * np.linalg.norm(centred)
    return float((product / scale).max()) if scale.max() > 0 else 0.0


def nearest(box: Volume, scans: Sequence[Volume]) -> float:
    """The best correlation of a box with any of the scans."""
    return max(best_correlation(box, scan) for scan in scans)


def audit(
    synthetic: Sequence[Volume], scans: Sequence[Volume], organs: Sequence[np.ndarray], seed: int, reporter: Reporter
) -> list[dict[str, Any]]:
    """CSV rows: the nearest training scan of every synthetic volume, and of boxes of every patient in the others.

    ``organs`` are the scans' channels of the model: boxes lie around an organ, as those of synthetic volumes do.

    Raises:
        InputError: no synthetic volume, or fewer than two scans.
    """
    if not synthetic or len(scans) < 2:
        raise InputError("The audit compares synthetic volumes with two training scans or more: give both.")
    generator, rows = np.random.default_rng(seed), []
    total = 2 * len(synthetic)
    for number, volume in enumerate(synthetic, start=1):
        rows.append({"kind": SYNTHETIC, "number": number, "correlation": nearest(volume, scans)})
        reporter.progress("audit", number, total)
    for number, volume in enumerate(synthetic, start=1):
        own = (number - 1) % len(scans)
        anatomy = Anatomy(organs[own], np.ones(organs[own].shape, np.uint8))
        box = draw_crop(anatomy, volume.shape, generator).array(scans[own], -1.0).astype(np.float32)
        others = [scan for i, scan in enumerate(scans) if i != own]
        rows.append({"kind": PATIENT, "number": number, "correlation": nearest(box, others)})
        reporter.progress("audit", len(synthetic) + number, total)
    return [rounded_row(row) for row in rows]


def audit_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: mean, spread and largest correlation per kind."""
    lines = []
    for kind in (SYNTHETIC, PATIENT):
        found = [row["correlation"] for row in rows if row["kind"] == kind]
        numbers = (np.mean(found), np.std(found), np.max(found))
        lines.append([kind, str(len(found)), *(decimals(float(number), 3) for number in numbers)])
    return markdown_table(["Nearest", "Volumes", "Correlation", "SD", "Largest"], lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; prints the table and writes CSV and Markdown."""
    parser = parser_of(__doc__, network=False)
    parser.add_argument("--model", type=Path, required=True, help="package that the volumes were made from")
    parser.add_argument("--synthetic", type=Path, required=True, help="folder made by incrementalseg synthesize")
    parser.add_argument("--cases", type=Path, required=True, help="dataset folder of the training scans")
    parser.add_argument("--split", type=Path, help="JSON file of case lists (default: CASES/split.json)")
    parser.add_argument("--part", default="step0", help="case list of the model's training scans (%(default)s)")
    parser.add_argument("--out", type=Path, required=True)
    return execute(parser, arguments, _run)


def _run(options: argparse.Namespace) -> str:
    model = load_model(options.model)
    images = [read_ct(path) for path in sorted(options.synthetic.glob("synthetic_*_ct.nii.gz"))]
    if not images:
        raise InputError(f"{options.synthetic} holds no synthetic volume: make some with incrementalseg synthesize.")
    preprocessing, scans, organs = model.preprocessing, [], []
    names = read_split(options.split or options.cases / "split.json", options.part)
    for case in read_dataset(options.cases, model.organs.names, names):
        ct, label = case.read()
        if label is None:
            raise InputError(f"{case.name} has no label map: the audit cuts boxes around its organs.")
        scan = on_model_grid(ct, preprocessing)
        scans.append(preprocessing.normalise(to_array(scan)))
        organs.append(case.channels(to_array(resample(label, scan, label=True)), model.organs))
    reporter = Reporter(for_people(), cancelled=cancel_on_signals())
    synthetic = [preprocessing.normalise(to_array(image)) for image in images]
    rows = audit(synthetic, scans, organs, options.seed, reporter)
    write_text(options.out / "privacy.csv", csv_text(list(rows[0]), rows))
    table = audit_table(rows)
    write_text(options.out / "privacy.md", table + "\n")
    return table


if __name__ == "__main__":
    sys.exit(main())
