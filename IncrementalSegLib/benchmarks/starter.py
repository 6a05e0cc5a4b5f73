"""How the starter model in ``Resources/Models`` was made, and its model card.

``python -m IncrementalSegLib.benchmarks.starter --cases abdomen_3mm --out build/starter``

It learns its organs from the patients of ``step0`` and ``step1`` and is scored on those of ``evaluation``, whom it
never sees. It remembers no patient's anatomy: its mask bank comes from phantoms alone. It is no part of any protocol.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..cancel import cancel_on_signals
from ..cases import read_dataset, read_split
from ..evaluation import Summary, summarise
from ..events import EventFile, Reporter, for_people
from ..inversion.memory import recall
from ..models.package import Model, load_model, save_package
from ..organs import OrganTable
from ..preprocessing import Preprocessing
from ..report import decimals, markdown_table
from ..storage import write_text
from ..training.base import train_base
from ..training.config import BASE_TRAINING
from ..training.workspace import Workspace
from .command import execute, parser_of
from .runs import score_model

ORGANS = ("Liver", "Spleen", "Right kidney", "Left kidney", "Stomach", "Aorta", "Inferior vena cava")
NAME = "Abdomen"
_STEPS, _SPACING = 7000, (3.0, 3.0, 3.0)
_CARD = """# {name}: the starter model

Segments in portal-venous abdominal CT: {organs}.
It is what IncrementalSeg offers as current model to those who have none. **For research use only. Not a medical
device.**

## Quality

Mean over the {cases} evaluation patients, whom the model was never trained or tuned on:

{table}

## Training

{network} with {parameters:.1f} million parameters at {spacing:g} mm, {steps} steps of two patches of 64³ voxels, seed
{seed}, on {trained} patients, by `python -m IncrementalSegLib.benchmarks.starter`.

## Data, licence and attribution

{trained} of the abdominal CT scans of BTCV (*Multi-Atlas Labeling Beyond the Cranial Vault*, Vanderbilt University,
2015, https://www.synapse.org/Synapse:syn3193805, listed as CC BY 4.0), resampled to 3 mm, HU clipped to [-125, 275].
The model is distributed under the same terms with this attribution; changes: the scans were used to train a network,
none of them is part of it. `memory/` holds label maps of made-up phantoms, average features per organ, and a
histogram of CT numbers per organ and tissue: no image and no patient's label map.

## Limits

* Adults, portal-venous phase, upper abdomen, one hospital. Nothing is known of other phases, children, unusual
  anatomy or post-operative scans; HU beyond [-125, 275] were never seen.
* Large spleens and small or displaced kidneys may be found in part; a stomach full of contrast or air too.
* Six evaluation patients are few: read the figures as ± 0.05.
* Trained on a CPU as a starting point; whoever owns a better model should start from that.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; writes the package with its model card and prints the card."""
    parser = parser_of(__doc__)
    parser.add_argument("--cases", type=Path, required=True, help="dataset folder with split.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for the training and the package")
    parser.add_argument("--organs", nargs="+", default=ORGANS)
    parser.add_argument("--steps", type=int, default=_STEPS)
    return execute(parser, arguments, _run)


def _run(options: argparse.Namespace) -> str:
    reporter = Reporter(EventFile(options.out / "events.jsonl"), for_people(), cancelled=cancel_on_signals())
    split = options.cases / "split.json"
    names = read_split(split, "step0") + read_split(split, "step1")
    if not (options.out / "trained").exists():
        cases = read_dataset(options.cases, options.organs, names)
        config = replace(BASE_TRAINING, steps=options.steps, seed=options.seed, device=options.device)
        table, preprocessing = OrganTable.from_names(options.organs), Preprocessing(_SPACING)
        trained = train_base(cases, table, config, Workspace(options.out, reporter), preprocessing=preprocessing)
        save_package(trained, options.out / "trained")
    model = without_patients(load_model(options.out / "trained"))
    package = options.out / NAME
    shutil.rmtree(package, ignore_errors=True)
    small = replace(model, network=model.network.half())  # half as large; loaded as float32
    save_package(small, package)
    evaluation = read_dataset(options.cases, options.organs, read_split(split, "evaluation"))
    scores = summarise(score_model(load_model(package), evaluation, options.device, reporter))
    metrics = {key: round(one["dsc"], 3) for key, one in scores.items() if one["dsc"] is not None}
    shutil.rmtree(package)
    save_package(replace(small, history=(*model.history[:-1], {**model.history[-1], "metrics": metrics})), package)
    card = model_card(model, scores, len(names))
    write_text(package / "README.md", card)
    return card


def without_patients(model: Model) -> Model:
    """The model with a mask bank of phantoms in place of what it remembers of its patients' anatomy.

    Raises:
        InputError: phantoms have none of its organs.
    """
    masks = recall(replace(model, memory={})).bank
    made_up = replace(masks, source=f"phantoms: {masks.source}")
    return replace(model, memory={**model.memory, "masks": made_up.to_state()})


def model_card(model: Model, scores: Mapping[str, Summary], trained: int) -> str:
    """The card as Markdown: quality per organ, training, data, limits."""
    names = dict(zip(model.organs.keys, model.organs.names, strict=True))
    lines = [
        [names[key], decimals(one["dsc"], 3), decimals(one["hd95"], 1), decimals(one["nsd"], 3)]
        for key, one in scores.items()
    ]
    record = model.history[0]
    return _CARD.format(
        name=NAME,
        organs=", ".join(model.organs.names).lower(),
        cases=max((int(one["cases"] or 0) for one in scores.values()), default=0),
        table=markdown_table(["Organ", "DSC", "HD95 (mm)", "NSD at 2 mm"], lines),
        network=model.spec.name,
        parameters=sum(p.numel() for p in model.network.parameters()) / 1e6,
        spacing=model.preprocessing.spacing[0],
        steps=record["steps"],
        seed=record["seed"],
        trained=trained,
    )


if __name__ == "__main__":
    sys.exit(main())
