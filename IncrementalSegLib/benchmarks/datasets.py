"""Public archives of abdominal CT, read as they were downloaded and unpacked: scans, label values, licences.

Nothing is downloaded and nothing is converted: every `Archive` says where its scans and label maps lie, which organ a
label value is, and under which licence and citation its makers give it away. Where a licence here and the archive's own
page differ, the page counts. A tumour is a structure inside its organ: where a model has only the organ, it counts as
the organ, in training (`Case.channels`) and in scores (`evaluation`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ..cases import Case
from ..errors import InputError
from ..organs import Organ, OrganTable, organ_named


@dataclass(frozen=True)
class Layout:
    """Where an archive keeps the scan and the label map of a case; ``*`` is the same text in all three."""

    scan: str
    label: str
    case: str

    def cases(self, folder: Path) -> Iterator[tuple[str, Path, Path]]:
        """Name, scan and label map of every case below ``folder`` that has both."""
        before, after = self.scan.split("*")
        for scan in folder.glob(self.scan):
            mark = scan.relative_to(folder).as_posix().removeprefix(before).removesuffix(after)
            label = folder / self.label.replace("*", mark)
            if label.is_file():
                yield self.case.replace("*", mark), scan, label


@dataclass(frozen=True)
class Archive:
    """One public archive.

    ``labels`` names label values 1, 2, 3 …; with ``tumour``, the value behind them is a tumour inside the first.
    ``folders`` are the places, below the folder it was unpacked to, where ``layouts`` may begin.
    """

    name: str
    title: str
    layouts: tuple[Layout, ...]
    folders: tuple[str, ...]
    labels: tuple[str, ...]
    licence: str
    citation: str
    address: str
    tumour: bool = False

    @property
    def organs(self) -> OrganTable:
        """The organ of every label value."""
        organs = [organ_named(name, value) for value, name in enumerate(self.labels, start=1)]
        inside = [Organ(f"{organs[0].name} tumour", len(organs) + 1, parent=organs[0].key)] if self.tumour else []
        return OrganTable(organs + inside)

    def cases(self, folder: Path) -> list[Case]:
        """The annotated cases in ``folder``, sorted by name; none where it is not this archive."""
        organs = self.organs
        for place in self.folders:
            found = sorted(case for layout in self.layouts for case in layout.cases(folder / place))
            if found:
                return [Case(name, scan, label, organs, tuple(organs.keys)) for name, scan, label in found]
        return []


def _decathlon(task: str, organ: str, tumour: bool) -> Archive:
    """A task of the Medical Segmentation Decathlon; its test scans (``imagesTs``) have no public label maps."""
    stem = organ.lower()
    return Archive(
        f"msd-{stem}",
        f"MSD {task}_{organ} (Medical Segmentation Decathlon)",
        (Layout(f"imagesTr/{stem}_*.nii.gz", f"labelsTr/{stem}_*.nii.gz", f"{stem}_*"),),
        (".", f"{task}_{organ}"),
        (organ,),
        "CC BY-SA 4.0",
        "Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13:4128, 2022",
        "http://medicaldecathlon.com",
        tumour,
    )


_ARCHIVES = (
    Archive(
        "btcv",
        "BTCV (Multi-Atlas Labeling Beyond the Cranial Vault, abdomen)",
        (Layout("img/img*.nii.gz", "label/label*.nii.gz", "img*"),),
        ("RawData/Training", "Abdomen/RawData/Training", "Training", "."),
        (
            "Spleen",
            "Right kidney",
            "Left kidney",
            "Gallbladder",
            "Oesophagus",
            "Liver",
            "Stomach",
            "Aorta",
            "Inferior vena cava",
            "Portal and splenic vein",
            "Pancreas",
            "Right adrenal gland",
            "Left adrenal gland",
        ),
        "CC BY 4.0 (download after registration; see the archive's page)",
        "Landman et al., MICCAI Multi-Atlas Labeling Beyond the Cranial Vault workshop and challenge, 2015",
        "https://www.synapse.org/Synapse:syn3193805",
    ),
    Archive(
        "word",
        "WORD (Whole abdominal ORgan Dataset)",
        tuple(
            Layout(f"images{part}/word_*.nii.gz", f"labels{part}/word_*.nii.gz", f"{part}_word_*")
            for part in ("Tr", "Val", "Ts")
        ),
        (".", "WORD-V0.1.0", "WORD"),
        (
            "Liver",
            "Spleen",
            "Left kidney",
            "Right kidney",
            "Stomach",
            "Gallbladder",
            "Oesophagus",
            "Pancreas",
            "Duodenum",
            "Colon",
            "Intestine",
            "Adrenal",
            "Rectum",
            "Bladder",
            "Left femur head",
            "Right femur head",
        ),
        "GPL-3.0 by its makers, who give it out on request and for academic research only; see the archive's page",
        "Luo et al., WORD: A large scale dataset, benchmark and clinical applicable study for abdominal organ "
        "segmentation from CT image, Medical Image Analysis 82:102642, 2022",
        "https://github.com/HiLab-git/WORD",
    ),
    Archive(
        "flare21",
        "FLARE21 (Fast and Low GPU memory Abdominal oRgan sEgmentation, training set)",
        (Layout("TrainingImg/train_*_0000.nii.gz", "TrainingMask/train_*.nii.gz", "train_*"),),
        (".", "FLARE21"),
        ("Liver", "Kidney", "Spleen", "Pancreas"),
        "for research, under the terms of the challenge; see the archive's page",
        "Ma et al., Fast and Low-GPU-memory abdomen CT organ segmentation: The FLARE challenge, Medical Image Analysis "
        "82:102616, 2022",
        "https://flare.grand-challenge.org",
    ),
    _decathlon("Task03", "Liver", tumour=True),
    _decathlon("Task07", "Pancreas", tumour=True),
    _decathlon("Task09", "Spleen", tumour=False),
    Archive(
        "kits19",
        "KiTS19 (Kidney Tumor Segmentation Challenge 2019)",
        (Layout("case_*/imaging.nii.gz", "case_*/segmentation.nii.gz", "case_*"),),
        ("data", "kits19/data", "."),
        ("Kidney",),
        "CC BY-NC-SA 4.0; see the archive's page",
        "Heller et al., The KiTS19 Challenge Data, arXiv:1904.00445, 2019",
        "https://github.com/neheller/kits19",
        tumour=True,
    ),
)
ARCHIVES = {archive.name: archive for archive in _ARCHIVES}


def read_archive(name: str, folder: Path) -> list[Case]:
    """The annotated cases of an archive, sorted by name, all its organs annotated; scans without label map left out.

    Args:
        name: key of `ARCHIVES`.
        folder: where the archive was unpacked to.

    Raises:
        InputError: no such archive or folder, the folder holds another archive or no annotated case.
    """
    if name not in ARCHIVES:
        raise InputError(f"Archive '{name}' is not known: choose from {', '.join(ARCHIVES)}.")
    archive = ARCHIVES[name]
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder: give the one that {archive.title} was unpacked to, from {archive.address}."
        )
    cases = archive.cases(folder)
    if not cases:
        raise InputError(_nothing_found(archive, folder))
    return cases


def _nothing_found(archive: Archive, folder: Path) -> str:
    there = next((other.title for other in _ARCHIVES if other.cases(folder)), "")
    layout = archive.layouts[0]
    scan, label = (Path(archive.folders[0], path).as_posix() for path in (layout.scan, layout.label))
    return (
        f"{folder} holds {f'{there}, not' if there else 'no annotated case of'} {archive.title}: give the folder with "
        f"{scan} and {label}, from {archive.address}."
    )


def chosen(cases: Sequence[Case], patterns: Sequence[str], source: Path | str) -> list[Case]:
    """The cases whose name is, or matches (``case_*[05]``), one of the patterns of ``source``; sorted by name.

    Raises:
        InputError: a pattern matches no case.
    """
    for pattern in patterns:
        if not any(fnmatchcase(case.name, pattern) for case in cases):
            raise InputError(
                f"{source}: no case is called '{pattern}'; there are {len(cases)}, such as "
                f"{', '.join(case.name for case in cases[:3]) or 'none'}: complete the data or change the split."
            )
    wanted = [case for case in cases if any(fnmatchcase(case.name, pattern) for pattern in patterns)]
    return sorted(wanted, key=lambda case: case.name)
