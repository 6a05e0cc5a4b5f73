"""The organs known by name: their codes, colours, aliases and other sides."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import IncrementalSegLib
from IncrementalSegLib.organs import SIDES, catalogue, normalise, organ_named


def catalogue_rows() -> list[dict[str, str]]:
    source = Path(IncrementalSegLib.__file__).parent / "catalogue.csv"
    return list(csv.DictReader(source.read_text(encoding="utf-8").splitlines()))


def is_sctid(code: str) -> bool:
    """Whether the digits are a SNOMED CT concept: 6 to 18 of them, partition 00 or 10, Verhoeff's check digit."""

    def times(a: int, b: int) -> int:  # in the dihedral group of order 10
        turned = (a + b) % 5 if a < 5 else (a - b) % 5
        return turned + 5 * ((a < 5) != (b < 5))

    order = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    check = 0
    for place, digit in enumerate(map(int, reversed(code))):
        for _ in range(place % 8):
            digit = order[digit]
        check = times(check, digit)
    return 6 <= len(code) <= 18 and code[0] != "0" and code[-3:-1] in ("00", "10") and check == 0


def test_the_check_of_snomed_codes_finds_a_wrong_digit() -> None:
    assert is_sctid("78961009")
    assert not is_sctid("78961008")
    assert not is_sctid("87961009")


@pytest.mark.parametrize("row", catalogue_rows(), ids=lambda row: row["Name"])
def test_every_organ_of_the_catalogue_has_a_real_snomed_code_and_a_colour(row: dict[str, str]) -> None:
    assert is_sctid(row["TypeCode"])
    assert row["TypeMeaning"]
    assert row["Side"] in ("", *SIDES)
    assert (row["Side"] != "") == (row["Name"].split()[0].lower() in SIDES)
    assert all(0 <= int(part) <= 255 for part in row["Color"].split())
    assert len(row["Color"].split()) == 3


def test_names_aliases_and_codes_of_the_catalogue_each_mean_one_organ() -> None:
    owners: dict[str, str] = {}
    for row in catalogue_rows():
        for alias in [row["Name"], *filter(None, row["Aliases"].split(";"))]:
            assert owners.setdefault(normalise(alias), row["Name"]) == row["Name"], alias
            assert catalogue()[normalise(alias)].name == row["Name"]
    keys = [organ_named(row["Name"]).key for row in catalogue_rows()]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("one", catalogue_rows(), ids=lambda row: row["Name"])
def test_every_sided_organ_of_the_catalogue_has_its_other_side_there(one: dict[str, str]) -> None:
    organ = organ_named(one["Name"])
    partner = organ_named(organ.mirrored_key)
    assert partner.mirrored_key == organ.key
    assert partner.type == organ.type
    assert (partner.name == organ.name) == (not one["Side"])
    assert not organ.mirror_unsure


@pytest.mark.parametrize(
    "names",
    [
        ["esophagus", "oesophagus", "Oesophagus", "ESOPHAGUS"],
        ["kidney_right", "Right kidney", "right kidney", "kidney right", "Kidney R", "r kidney", "64033007+24028007"],
        ["inferior_vena_cava", "IVC", "postcava"],
        ["portal_splenic_vein", "portal vein and splenic vein", "portal_vein_and_splenic_vein"],
        ["adrenal_gland_left", "Left adrenal gland", "left adrenal"],
        ["gallbladder", "Gall bladder", "28231008"],
    ],
)
def test_an_organ_is_found_under_all_its_names(names: list[str]) -> None:
    assert len({organ_named(name).key for name in names}) == 1
    assert organ_named(names[0]).type is not None
