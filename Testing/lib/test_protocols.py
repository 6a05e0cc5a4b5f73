"""Protocols as data: known organs, each learned once, and splits in which no patient is in two parts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from IncrementalSegLib.benchmarks.datasets import ARCHIVES
from IncrementalSegLib.benchmarks.protocols import EVALUATION, PROTOCOLS, SPLITS, Protocol, part_cases
from IncrementalSegLib.cases import read_split
from IncrementalSegLib.errors import InputError
from IncrementalSegLib.organs import organ_named

PARTS = ("step0", "step1", EVALUATION)
# What the archives hold, by their makers' numbering; which of WORD's 150 numbers is in which part is theirs to say.
NAMES = {
    "btcv": [f"img{i:04d}" for i in (*range(1, 11), *range(21, 41))],
    "word": [f"{part}_word_{i:04d}" for part in ("Tr", "Val", "Ts") for i in range(1, 151)],
    "flare21": [f"train_{i:03d}" for i in range(361)],
    "msd-liver": [f"liver_{i}" for i in range(131)],
    "msd-pancreas": [f"pancreas_{i:03d}" for i in range(1, 421)],
    "msd-spleen": [f"spleen_{i}" for i in range(2, 64)],
    "kits19": [f"case_{i:05d}" for i in range(210)],
}
INSTITUTIONS = PROTOCOLS["institutions"]


def touch(folder: Path, *ids: str) -> Path:
    """The files of MSD spleen, empty: what is in them is not looked at before a case is read."""
    for part, i in itertools.product(("imagesTr", "labelsTr"), ids):
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / f"spleen_{i}.nii.gz").touch()
    return folder


def keys(protocol: Protocol) -> Iterator[str]:
    return (organ_named(name).key for step in protocol.steps for name in step.organs)


class TestEveryProtocol:
    @pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
    def test_its_organs_are_known_learned_once_and_annotated_where_they_are_learned(self, protocol: Protocol) -> None:
        learned = list(keys(protocol))
        assert len(learned) == len(set(learned))
        for step in protocol.steps:
            organs = [organ_named(name) for name in step.organs]
            assert all(organ.type for organ in organs), "an organ of the catalogue has a SNOMED code"
            assert {organ.key for organ in organs} <= set(ARCHIVES[step.archive].organs.keys)

    @pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
    def test_every_organ_is_scored_and_no_step_learns_from_the_part_that_is(self, protocol: Protocol) -> None:
        scored = {key for archive in protocol.evaluation for key in ARCHIVES[archive].organs.keys}
        assert set(keys(protocol)) <= scored
        assert all(step.part in ("step0", "step1") for step in protocol.steps)
        assert protocol.steps[0].part == "step0"
        assert {step.part for step in protocol.steps[1:]} == {"step1"}

    def test_the_sequences_are_those_of_the_design(self) -> None:
        assert list(PROTOCOLS) == ["btcv-4-4", "btcv-2-2", "btcv-13", "btcv-4-1", "word", "institutions"]
        sizes = {name: [len(step.organs) for step in protocol.steps] for name, protocol in PROTOCOLS.items()}
        assert sizes == {
            "btcv-4-4": [4, 4],
            "btcv-2-2": [2, 2, 2, 2],
            "btcv-13": [4, *[1] * 9],
            "btcv-4-1": [4, 1],
            "word": [8, 4, 4],
            "institutions": [1, 1, 1, 1],
        }
        assert set(keys(PROTOCOLS["btcv-4-4"])) == set(keys(PROTOCOLS["btcv-2-2"]))
        assert set(keys(PROTOCOLS["btcv-13"])) == set(ARCHIVES["btcv"].organs.keys)
        assert set(keys(PROTOCOLS["word"])) == set(ARCHIVES["word"].organs.keys)

    def test_institutions_takes_every_step_from_another_archive_and_needs_one_more_to_score(self) -> None:
        archives = [step.archive for step in INSTITUTIONS.steps]
        assert archives == ["flare21", "msd-spleen", "msd-pancreas", "kits19"]
        assert INSTITUTIONS.archives == (*archives, "msd-liver")
        assert PROTOCOLS["btcv-2-2"].archives == ("btcv",)


@pytest.mark.parametrize("archive", ARCHIVES)
class TestEverySplit:
    def test_no_case_is_in_two_parts_and_every_pattern_matches_one(self, archive: str) -> None:
        split = {part: read_split(SPLITS / f"{archive}.json", part) for part in PARTS}
        found = [name for part in PARTS for name in NAMES[archive] if any(fnmatchcase(name, p) for p in split[part])]
        assert len(found) == len(set(found))
        for pattern in itertools.chain(*split.values()):
            assert any(fnmatchcase(name, pattern) for name in NAMES[archive]), pattern
        left_out = set(NAMES[archive]) - set(found)
        assert left_out == {name for name in NAMES[archive] if name.startswith("Val_")}  # WORD's own, for choosing

    def test_it_has_these_parts_and_no_other(self, archive: str) -> None:
        assert list(json.loads((SPLITS / f"{archive}.json").read_text(encoding="utf-8"))) == list(PARTS)
        assert {path.stem for path in SPLITS.iterdir()} == set(ARCHIVES)


def test_btcv_is_split_in_three_times_ten_patients() -> None:
    parts = [read_split(SPLITS / "btcv.json", part) for part in PARTS]
    assert [len(part) for part in parts] == [10, 10, 10]
    assert sorted(itertools.chain(*parts)) == NAMES["btcv"]


class TestCasesOfAPart:
    def test_an_archive_as_downloaded_is_split_as_committed(self, tmp_path: Path) -> None:
        folders = {"msd-spleen": touch(tmp_path, "2", "10", "12", "9", "41")}
        (tmp_path / "dataset.json").write_text('{"labels": {"0": "background", "1": "spleen"}}')  # MSD's own
        found = {part: part_cases(INSTITUTIONS, folders, "msd-spleen", part) for part in PARTS}
        assert {part: [case.name for case in cases] for part, cases in found.items()} == {
            "step0": ["spleen_41", "spleen_9"],
            "step1": ["spleen_12", "spleen_2"],
            EVALUATION: ["spleen_10"],
        }
        assert found["step0"][0].annotated == (organ_named("Spleen").key,)

    def test_another_split_may_be_given(self, tmp_path: Path) -> None:
        split = tmp_path / "mine.json"
        split.write_text('{"step1": ["spleen_9", "spleen_1*"], "evaluation": ["spleen_3"]}')
        folders = {"msd-spleen": touch(tmp_path, "2", "10", "9")}
        cases = part_cases(INSTITUTIONS, folders, "msd-spleen", "step1", split)
        assert [case.name for case in cases] == ["spleen_10", "spleen_9"]
        with pytest.raises(InputError, match=r"mine\.json: no case is called 'spleen_3'"):
            part_cases(INSTITUTIONS, folders, "msd-spleen", EVALUATION, split)

    def test_a_part_of_which_nothing_was_downloaded_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"msd-spleen\.json: no case is called 'spleen_\*\[05\]'"):
            part_cases(INSTITUTIONS, {"msd-spleen": touch(tmp_path, "2", "9")}, "msd-spleen", EVALUATION)

    def test_a_dataset_of_our_own_takes_the_place_of_an_archive(self, dataset: Path) -> None:
        (dataset / "split.json").write_text('{"step0": ["b"], "step1": ["a"], "evaluation": []}')
        other = dataset / "other.json"
        other.write_text('{"step0": ["b", "a"]}')
        protocol, folders = PROTOCOLS["btcv-4-4"], {"btcv": dataset}
        assert [case.name for case in part_cases(protocol, folders, "btcv", "step1")] == ["a"]
        assert [case.name for case in part_cases(protocol, folders, "btcv", "step0", other)] == ["b", "a"]
        (dataset / "split.json").unlink()
        with pytest.raises(InputError, match=r"split\.json cannot be read"):
            part_cases(protocol, folders, "btcv", "step1")

    def test_scans_in_dicom_folders_are_a_dataset_too(self, tmp_path: Path) -> None:
        (tmp_path / "x_ct").mkdir()
        (tmp_path / "labels.csv").write_text("LabelValue,Name\n1,Spleen\n")
        (tmp_path / "split.json").write_text('{"step0": ["x"]}')
        (case,) = part_cases(INSTITUTIONS, {"msd-spleen": tmp_path}, "msd-spleen", "step0")
        assert (case.name, case.label) == ("x", None)

    def test_an_archive_without_folder_is_refused_with_its_name_and_address(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"'institutions' needs 'kits19': .*KiTS19.*github\.com/neheller/kits19"):
            part_cases(INSTITUTIONS, {"msd-spleen": tmp_path}, "kits19", "step1")
