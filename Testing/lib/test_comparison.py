"""Benchmark rows, their CSV, and the table of strategies."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from IncrementalSegLib.benchmarks.tables import benchmark_report, organ_table, step_table
from IncrementalSegLib.comparison import benchmark_rows, case_scores, interval, strategy_means, write_benchmark_csv
from IncrementalSegLib.errors import InputError
from IncrementalSegLib.organs import OrganTable

RUN = {"protocol": "4-4", "strategy": "mib", "seed": 0, "step": 1, "seconds": 60.0, "peak_memory_mb": 900.0}


def row(strategy: str, organ: str, dsc: Any, role: str = "old", **other: Any) -> dict[str, Any]:
    return {
        "protocol": "4-4",
        "strategy": strategy,
        "seed": 0,
        "step": 1,
        "organ": organ,
        "role": role,
        "dsc": dsc,
    } | other


ROWS = [
    row("fine-tune", "Liver", 0.1),
    row("fine-tune", "Spleen", 0.3),
    row("fine-tune", "Pancreas", 0.8, "new"),
    row("mib", "Liver", 0.9),
    row("mib", "Spleen", 0.7),
    row("mib", "Pancreas", 0.5, "new"),
    row("mib", "Pancreas", 0.7, "new", seed=1),
    row("joint", "Liver", 0.9),
    row("joint", "Spleen", 0.9),
    row("joint", "Pancreas", 0.6, "new"),
    row("base", "Liver", 0.95, "new", step=0),
    row("base", "Spleen", 0.65, "new", step=0),
]


def test_rows_carry_the_run_the_role_and_the_means() -> None:
    table = OrganTable.from_names(["Liver", "Pancreas", "Spleen"])
    summary = {key: {"dsc": 0.5, "hd95": None, "nsd": 0.4, "cases": 6} for key in table.keys[:2]}
    rows = benchmark_rows(RUN, table, [table.keys[1]], summary)
    assert [(r["organ"], r["role"], r["strategy"], r["dsc"], r["cases"]) for r in rows] == [
        ("Liver", "old", "mib", 0.5, 6),
        ("Pancreas", "new", "mib", 0.5, 6),
    ]


def test_refuses_a_run_that_does_not_say_its_seed() -> None:
    with pytest.raises(InputError, match="seed"):
        benchmark_rows({k: v for k, v in RUN.items() if k != "seed"}, OrganTable(), [], {})


def test_the_csv_has_the_header_of_the_contract_and_reads_back(tmp_path: Path) -> None:
    table = OrganTable.from_names(["Liver"])
    rows = benchmark_rows(RUN, table, [], {table.keys[0]: {"dsc": 0.91, "hd95": None, "nsd": 0.8, "cases": 6}})
    write_benchmark_csv(rows, tmp_path / "results" / "4-4.csv")
    lines = (tmp_path / "results" / "4-4.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "protocol,strategy,seed,step,organ,role,dsc,hd95,nsd,cases,seconds,peak_memory_mb"
    assert lines[1] == "4-4,mib,0,1,Liver,old,0.91,,0.8,6,60.0,900.0"
    assert strategy_means(csv.DictReader(lines))["mib"]["all"] == 0.91


def test_means_retention_and_share_of_joint_are_as_computed_by_hand() -> None:
    means = strategy_means(ROWS)
    assert list(means) == ["base", "joint", "mib", "fine-tune"]
    mib = means["mib"]
    assert [mib[key] for key in ("old", "new", "all")] == pytest.approx([0.8, 0.6, 0.7])
    assert mib["retention"] == pytest.approx(1.6 / 1.6)
    assert mib["of_joint"] == pytest.approx(2.1 / 2.4)
    assert means["fine-tune"]["retention"] == pytest.approx(0.4 / 1.6)
    assert (means["base"]["old"], means["base"]["new"], means["base"]["of_joint"]) == (pytest.approx(0.8), None, None)
    assert means["base"]["all"] is None and means["joint"]["forgetting"] is None


def test_only_the_last_step_of_a_strategy_counts() -> None:
    earlier = [row("mib", organ, 0.0, step=0) for organ in ("Liver", "Spleen")]
    with_earlier, without = (strategy_means(rows)["mib"] for rows in (earlier + ROWS, ROWS))
    assert {key for key in without if with_earlier[key] != without[key]} == {"forgetting", "most_forgotten"}


def test_an_organ_without_a_score_is_left_out_of_the_mean() -> None:
    assert (
        strategy_means([row("mib", "Liver", 0.9), row("mib", "Spleen", ""), row("mib", "Aorta", None)])["mib"]["all"]
        == 0.9
    )


def test_the_table_of_organs_has_one_line_per_strategy() -> None:
    lines = organ_table(strategy_means(ROWS), "dsc", 3).splitlines()
    assert lines[0] == "| DSC | Liver | Spleen | Pancreas |"
    assert lines[2:] == [
        "| base | 0.950 | 0.650 | — |",
        "| joint | 0.900 | 0.900 | 0.600 |",
        "| mib | 0.900 | 0.700 | 0.600 |",
        "| fine-tune | 0.100 | 0.300 | 0.800 |",
    ]


def test_an_organ_that_nobody_learned_counts_in_no_mean() -> None:
    rows = [*ROWS, row("mib", "Aorta", 0.2, "new"), row("joint", "Aorta", 0.29, "new")]
    assert strategy_means(rows)["mib"]["new"] == strategy_means(ROWS)["mib"]["new"]
    assert strategy_means(rows)["mib"]["dsc"]["Aorta"] == 0.2
    assert strategy_means([*rows, row("fine-tune", "Aorta", 0.3, "new")])["mib"]["new"] == pytest.approx(
        (0.35 + 0.7) / 2
    )


def test_forgetting_counts_from_the_step_that_learned_an_organ() -> None:
    rows = [
        *(row("base", organ, dsc, step=0) for organ, dsc in (("Liver", 0.9), ("Spleen", 0.8))),
        *(
            row("mib", organ, dsc)
            for organ, dsc in (("Liver", 0.9), ("Spleen", 0.8), ("Aorta", 0.7), ("Pancreas", 0.4))
        ),
        *(row("mib", organ, dsc, step=2) for organ, dsc in (("Liver", 0.92), ("Spleen", 0.74), ("Aorta", 0.66))),
        *(row("mib", organ, dsc, step=2) for organ, dsc in (("Pancreas", 0.1), ("Stomach", 0.5))),
    ]
    line = strategy_means(rows)["mib"]
    assert line["forgetting"] == pytest.approx((-0.02 + 0.06 + 0.04) / 3)  # no pancreas, no stomach of the last step
    assert line["most_forgotten"] == pytest.approx(0.06)
    assert strategy_means(rows)["base"]["forgetting"] is None
    table = step_table(rows, ["base", "mib"]).splitlines()
    assert table[0] == "| Strategy | Step | Liver | Spleen | Aorta | Pancreas | Stomach |"
    assert table[3] == "| mib | 1 | 0.900 | 0.800 | 0.700 | 0.400 | — |"


def test_seconds_add_up_over_steps_and_memory_is_the_largest() -> None:
    rows = [row("mib", "Liver", 0.9, seed=seed, step=step, seconds=10 * step, peak_memory_mb=100 + step)
            for seed in (0, 1) for step in (1, 2)]  # fmt: skip
    line = strategy_means(rows)["mib"]
    assert (line["seconds"], line["peak_memory_mb"]) == (30.0, 102.0)


def test_every_seed_is_compared_with_its_own_base() -> None:
    ends = {"base": (0.9, 0.6), "mib": (0.9, 0.3)}
    rows = [
        row(name, "Liver", dsc, seed=seed, step=int(name != "base"))
        for name, values in ends.items()
        for seed, dsc in enumerate(values)
    ]
    assert strategy_means(rows)["mib"]["retention"] == pytest.approx((1 + 0.5) / 2)
    only_one = [r for r in rows if r["strategy"] == "base" or r["seed"] == 0]
    assert strategy_means(only_one)["mib"]["retention"] == pytest.approx(1)
    assert strategy_means(only_one)["base"]["old"] == pytest.approx(0.75)


def test_intervals_are_over_cases_and_differences_are_paired() -> None:
    cases = [
        {"strategy": strategy, "seed": seed, "step": 1, "organ": "Liver", "case": case, "dsc": dsc}
        for strategy, values in (("full", (0.9, 0.5)), ("mib", (0.8, 0.4)))
        for case, dsc in zip("ab", values, strict=True)
        for seed in (0, 1)
    ]
    assert case_scores(cases, "mib", ["Liver"])["b", "1", "Liver"] == 0.4
    later = cases[-1] | {"step": 2, "dsc": 1.0}
    assert case_scores([*cases, later], "mib", ["Liver"]) == {("b", "1", "Liver"): 1.0}
    mean, low, high = interval(case_scores(cases, "mib", ["Liver"]))
    assert (mean, low, high) == (pytest.approx(0.6), pytest.approx(0.4), pytest.approx(0.8)) and interval({}) is None
    rows = [row("full", "Liver", 0.7), row("mib", "Liver", 0.6)]
    unpaired = cases[0] | {"strategy": "mib", "seed": 2, "dsc": 0.0}
    (line,) = [t for t in benchmark_report(rows, [*cases, unpaired]).splitlines() if t.startswith("| mib | 0.600 [")]
    assert line.split("|")[5].strip() == "-10.0 [-10.0, -10.0]"


def test_without_base_and_joint_there_is_nothing_to_compare_against() -> None:
    means = strategy_means([r for r in ROWS if r["strategy"] == "mib"])
    assert (means["mib"]["retention"], means["mib"]["of_joint"]) == (None, None)


@pytest.mark.parametrize("rows", [[], [*ROWS, row("mib", "Liver", 0.5) | {"protocol": "2-2"}]])
def test_refuses_rows_that_are_not_of_one_protocol(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError, match="one protocol"):
        benchmark_report(rows, [])
