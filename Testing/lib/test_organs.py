"""Organs and organ tables: codes, names, the labels.csv format, mirrored bodies."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import IncrementalSegLib
from IncrementalSegLib.errors import InputError
from IncrementalSegLib.organs import SIDES, Code, Organ, OrganTable, catalogue, normalise, organ_named

COLUMNS = (
    "LabelValue,Name,"
    "SegmentedPropertyCategoryCodeSequence.CodingSchemeDesignator,"
    "SegmentedPropertyCategoryCodeSequence.CodeValue,"
    "SegmentedPropertyCategoryCodeSequence.CodeMeaning,"
    "SegmentedPropertyTypeCodeSequence.CodingSchemeDesignator,"
    "SegmentedPropertyTypeCodeSequence.CodeValue,"
    "SegmentedPropertyTypeCodeSequence.CodeMeaning,"
    "SegmentedPropertyTypeModifierCodeSequence.CodingSchemeDesignator,"
    "SegmentedPropertyTypeModifierCodeSequence.CodeValue,"
    "SegmentedPropertyTypeModifierCodeSequence.CodeMeaning,"
    "AnatomicRegionSequence.CodingSchemeDesignator,"
    "AnatomicRegionSequence.CodeValue,"
    "AnatomicRegionSequence.CodeMeaning,"
    "AnatomicRegionModifierSequence.CodingSchemeDesignator,"
    "AnatomicRegionModifierSequence.CodeValue,"
    "AnatomicRegionModifierSequence.CodeMeaning"
)
# In the manner of an Auto3DSeg model's file: its own names, rows out of order, a quoted comma, region and modifiers.
AUTO3DSEG = f"""{COLUMNS}
0,background,,,,,,,,,,,,,,,
3,left kidney (cortex),SCT,123037004,Anatomical Structure,SCT,64033007,Kidney,SCT,7771000,left,,,,,,
1,spleen,SCT,123037004,Anatomical Structure,SCT,78961009,Spleen,,,,,,,,,
7,right kidney (cortex),SCT,123037004,Anatomical Structure,SCT,64033007,Kidney,SCT,24028007,right,,,,,,
9,tumour,SCT,49755003,Altered Structure,SCT,86049000,"Neoplasm, Primary",,,,SCT,64033007,Kidney,SCT,7771000,Left
"""
LESION = Organ("Lesion", 4, type=Code("SCT", "52988006", "Lesion"), region=Code("SCT", "10200004", "Liver"))


def test_left_and_right_kidneys_are_two_organs_of_one_type() -> None:
    left, right = organ_named("left kidney"), organ_named("right kidney")
    assert left.type == right.type
    assert left.key != right.key


def test_an_unknown_name_gives_an_organ_without_code_known_by_its_words() -> None:
    organ = organ_named("  Renal cyst ", 5)
    assert (organ.name, organ.label, organ.type, organ.key) == ("Renal cyst", 5, None, "cyst renal")
    assert organ.key == organ_named("cyst_renal").key


@pytest.mark.parametrize("name", ["", "  ", "--", "_"])
def test_refuses_an_organ_without_a_name(name: str) -> None:
    with pytest.raises(InputError, match="without a name"):
        organ_named(name)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (organ_named("esophagus", 1), organ_named("oesophagus", 2)),
        (organ_named("Liver", 1), organ_named("liver", 2)),
        (organ_named("Renal cyst", 1), organ_named("cyst, renal", 2)),
        (Organ("Leber", 1, type=Code("SCT", "10200004", "Liver")), organ_named("Liver", 2)),
    ],
)
def test_refuses_two_organs_of_one_code(first: Organ, second: Organ) -> None:
    with pytest.raises(InputError) as refusal:
        OrganTable([first, second])
    assert first.name in str(refusal.value)
    assert second.name in str(refusal.value)


def test_refuses_two_organs_of_one_name_even_with_different_codes() -> None:
    with pytest.raises(InputError, match=r"'Lesion' and 'lesion' have the same name"):
        OrganTable([LESION, Organ("lesion", 5, type=Code("SCT", "86049000", "Neoplasm, Primary"))])


@pytest.mark.parametrize("label", [0, -1, 65536])
def test_refuses_a_label_value_that_is_none(label: int) -> None:
    with pytest.raises(InputError, match=f"'Liver' has label value {label}"):
        OrganTable([organ_named("Liver", label)])


def test_refuses_two_organs_of_one_label_value() -> None:
    with pytest.raises(InputError, match=r"'Liver' and 'Spleen' have the same label value \(4\)"):
        OrganTable([organ_named("Liver", 4), organ_named("Spleen", 4)])


def test_every_organ_of_the_catalogue_survives_labels_csv() -> None:
    table = OrganTable(replace(organ, label=2 * i + 1) for i, organ in enumerate(dict.fromkeys(catalogue().values())))
    assert OrganTable.from_csv(table.to_csv()) == table


def test_codes_regions_colours_and_parents_survive_labels_csv() -> None:
    lesion = replace(LESION, color=(1, 2, 3), parent="10200004", region_modifier=SIDES["left"])
    table = OrganTable([organ_named("Liver", 3), lesion, Organ('odd, "quoted" name', 9), organ_named("left kidney", 1)])
    again = OrganTable.from_csv(table.to_csv())
    assert again == table
    assert [organ.color for organ in again] == [organ.color for organ in table]


UNKNOWN_NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).filter(
    lambda name: normalise(name) and not organ_named(name).type
)


@given(st.lists(UNKNOWN_NAMES, unique_by=normalise, min_size=1, max_size=4))
def test_any_name_survives_labels_csv(names: list[str]) -> None:
    table = OrganTable(Organ(name.strip(), label) for label, name in enumerate(names, 1))
    assert OrganTable.from_csv(table.to_csv()) == table


def test_labels_csv_has_the_columns_of_auto3dseg() -> None:
    header = OrganTable.from_names(["Liver"]).to_csv().splitlines()[0]
    assert header.startswith(COLUMNS + ",")


def test_a_row_of_labels_csv_holds_the_codes_in_their_columns() -> None:
    (row,) = csv.DictReader(OrganTable([organ_named("left kidney", 3)]).to_csv().splitlines())
    assert row["LabelValue"] == "3"
    assert row["SegmentedPropertyCategoryCodeSequence.CodeValue"] == "123037004"
    assert row["SegmentedPropertyTypeCodeSequence.CodingSchemeDesignator"] == "SCT"
    assert row["SegmentedPropertyTypeCodeSequence.CodeValue"] == "64033007"
    assert row["SegmentedPropertyTypeModifierCodeSequence.CodeMeaning"] == "Left"
    assert row["AnatomicRegionSequence.CodeValue"] == ""


@pytest.mark.parametrize("text", [AUTO3DSEG, "\ufeff" + AUTO3DSEG, AUTO3DSEG.replace("\n", "\r\n")])
def test_reads_the_labels_csv_of_an_auto3dseg_model(text: str) -> None:
    table = OrganTable.from_csv(text)
    assert [organ.label for organ in table] == [3, 1, 7, 9]
    assert table.keys == ["64033007+7771000", "78961009", "64033007+24028007", "86049000+64033007+7771000"]
    tumour = table.organs[3]
    assert tumour.type == Code("SCT", "86049000", "Neoplasm, Primary")
    assert tumour.category == Code("SCT", "49755003", "Altered Structure")
    assert tumour.region_modifier == Code("SCT", "7771000", "Left")
    assert table.find("right kidney").label == 7
    assert table.find("right kidney (cortex)").label == 7
    assert table.find("86049000+64033007+7771000").name == "tumour"


def test_a_labels_csv_without_codes_takes_them_from_the_names() -> None:
    table = OrganTable.from_csv("LabelValue,Name\n2,kidney_left\n5,renal cyst\n")
    assert table.keys == ["64033007+7771000", "cyst renal"]
    assert table.names == ["kidney_left", "renal cyst"]


def test_a_parent_may_be_written_by_name() -> None:
    table = OrganTable.from_csv(
        "LabelValue,Name,Parent\n1,Liver,\n2,Liver lesion,liver\n3,Cyst in lesion,lesion liver\n"
    )
    assert [organ.parent for organ in table] == ["", "10200004", "lesion liver"]
    assert table.parent_channels() == {2: 1, 3: 2}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "needs the columns"),
        ("LabelValue,Name\n", "at least one organ"),
        ("value,organ\n1,Liver\n", "needs the columns"),
        ("LabelValue;Name\n1;Liver\n", "needs the columns"),
        ("LabelValue,Name\none,Liver\n", "not a number"),
        ("LabelValue,Name\n1.5,Liver\n", "not a number"),
        ("LabelValue,Name\n1\n", "without a name"),
        ("LabelValue,Name\n1,\n", "without a name"),
        ("LabelValue,Name,Color\n1,Liver,red\n", "not a number"),
        ("LabelValue,Name,Color\n1,Liver,1 2\n", "not a number"),
        ("LabelValue,Name\n1,Liver\n2,liver\n", "same code"),
        ("LabelValue,Name\n1,Liver\n1,Spleen\n", "same label value"),
    ],
)
def test_refuses_a_damaged_labels_csv_and_names_the_file(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as refusal:
        OrganTable.from_csv(text, "model/labels.csv")
    assert str(refusal.value).startswith("model/labels.csv")


def test_organs_are_found_by_name_alias_and_key_and_others_refused() -> None:
    table = OrganTable([*OrganTable.from_names(["kidney_right", "Oesophagus"]), LESION, Organ("Cyst", 9)])
    for wanted in ("Right kidney", "64033007+24028007", "kidney_right"):
        assert table.find(wanted).label == 1
    assert table.find(LESION.key) is table.organs[2]
    assert table.find("cyst").label == 9
    assert LESION in table
    assert table.channel(LESION.key) == 3
    with pytest.raises(InputError, match="'Left kidney' is not among Right kidney, Esophagus, Lesion, Cyst"):
        table.find("Left kidney")


def test_new_organs_come_behind_the_old_ones_and_get_free_label_values() -> None:
    old = OrganTable([organ_named("Liver", 6), organ_named("Spleen", 1)])
    wider = old.extended([organ_named("Pancreas"), organ_named("Aorta", 6), organ_named("Stomach", 20)])
    assert wider.organs[:2] == old.organs
    assert [organ.label for organ in wider] == [6, 1, 7, 8, 20]
    with pytest.raises(InputError, match="same code"):
        old.extended([organ_named("liver")])


def test_a_declared_parent_is_found_by_channel() -> None:
    table = OrganTable([organ_named("Spleen", 1), organ_named("Liver", 2), replace(LESION, parent="10200004")])
    assert table.parent_channels() == {3: 2}
    assert OrganTable([replace(LESION, parent="10200004")]).parent_channels() == {}


def test_a_mirrored_body_swaps_paired_organs_only() -> None:
    table = OrganTable.from_names(["Liver", "Right kidney", "Left adrenal gland", "Left kidney", "Right adrenal gland"])
    assert table.mirror_channels() == [0, 1, 4, 5, 2, 3]


def test_the_meaning_of_a_side_may_be_spelt_in_any_way() -> None:
    assert OrganTable.from_csv(AUTO3DSEG.rsplit("9,", 1)[0]).mirror_channels() == [0, 3, 2, 1]


def test_a_region_is_mirrored_too() -> None:
    left = replace(LESION, region_modifier=SIDES["left"])
    right = replace(left, name="Other lesion", label=5, region_modifier=SIDES["right"])
    assert OrganTable([left, right]).mirror_channels() == [0, 2, 1]


def test_organs_without_codes_are_mirrored_by_the_words_of_their_names() -> None:
    table = OrganTable([Organ("Left optic nerve", 1), Organ("Optic nerve, right", 2), Organ("Chiasm", 3)])
    assert table.mirror_channels() == [0, 2, 1, 3]


@pytest.mark.parametrize(
    "organs",
    [
        [organ_named("Liver", 1), organ_named("Left kidney", 2)],
        [Organ("Left kidney", 1, type=Code("SCT", "18639004", "Left kidney")), organ_named("Liver", 2)],
    ],
    ids=["the other side is missing", "the codes do not tell the side"],
)
def test_a_body_is_not_mirrored_where_a_partner_is_missing_or_unsure(organs: list[Organ]) -> None:
    assert OrganTable(organs).mirror_channels() is None


@given(st.lists(st.sampled_from(list(dict.fromkeys(catalogue().values()))), unique_by=lambda o: o.key))
def test_mirroring_twice_changes_nothing(organs: list[Organ]) -> None:
    order = OrganTable(replace(organ, label=i) for i, organ in enumerate(organs, 1)).mirror_channels()
    if order is not None:
        assert [order[i] for i in order] == list(range(len(organs) + 1))


def test_importing_the_library_loads_neither_torch_nor_monai() -> None:
    code = (
        "import sys, IncrementalSegLib, IncrementalSegLib.organs, IncrementalSegLib.cases, IncrementalSegLib.events\n"
        "print([name for name in ('torch', 'monai', 'matplotlib', 'scipy', 'qt', 'slicer') if name in sys.modules])"
    )
    root = Path(IncrementalSegLib.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tables_are_compared_by_their_organs() -> None:
    one, two = OrganTable.from_names(["Liver", "Spleen"]), OrganTable.from_names(["Liver", "Spleen"])
    assert one == two
    assert hash(one) == hash(two)
    assert one != OrganTable.from_names(["Spleen", "Liver"])
