"""The same patient through the eyes of every strategy (as Fig. 3 of the PGCD + DAPD paper)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..events import Reporter
from ..figures import plot_planes
from ..inference import predict_label_map
from ..models.networks import device_named
from ..models.package import load_model
from ..organs import Organ, OrganTable
from ..volumes import oriented, to_array, to_image
from .runs import BASE, Benchmark


def plot_predictions(
    benchmark: Benchmark, strategies: Sequence[str], case: str | None, path: Path, reporter: Reporter
) -> None:
    """Three planes of one evaluation case with the organs that the last model of every strategy sees.

    Args:
        benchmark: whose models are all trained.
        strategies: one row each, the annotation below them.
        case: name of the case; the first one when None.
        path: file to write.
        reporter: told of progress.

    Raises:
        InputError: no such case.  StorageError: the file cannot be written.
    """
    found = [one for one in benchmark.evaluation_cases() if case in (None, one.name)]
    if not found:
        raise InputError(f"The evaluation part has no case '{case}': name one of its cases with --picture.")
    ct, label = found[0].read()
    organs = OrganTable.from_names([name for step in benchmark.protocol.steps for name in step.organs])
    maps = {}
    for strategy in strategies:
        last = 0 if strategy == BASE else len(benchmark.protocol.steps) - 1
        model = load_model(benchmark.folder(strategy) / f"step{last}" / "model")
        seen = to_array(predict_label_map(model, ct, device_named(benchmark.step.device), reporter))
        maps[strategy] = _as_channels(seen, model.organs, organs)
    if label is not None:
        maps["annotation"] = found[0].channels(to_array(label), organs)
    lps = oriented(ct)
    shown = {title: to_array(oriented(to_image(labels, ct))) for title, labels in maps.items()}
    window = benchmark.preprocessing.window
    plot_planes(to_array(lps), shown, organs, lps.GetSpacing(), path, window, caption=f"Case {found[0].name}")


def _as_channels(labels: np.ndarray, table: OrganTable, wanted: OrganTable) -> np.ndarray:
    """A model's label values as channels of another table with the same organs."""
    lookup = np.zeros(int(labels.max(initial=0)) + 1, np.uint8)
    for organ in _shared(table, wanted):
        if organ.label < len(lookup):
            lookup[organ.label] = wanted.channel(organ.key)
    return lookup[labels]


def _shared(table: OrganTable, wanted: OrganTable) -> list[Organ]:
    return [organ for organ in table if organ.key in wanted.keys]
