"""The privacy audit: correlation over shifts, and patients as the yardstick."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from IncrementalSegLib.benchmarks import privacy
from IncrementalSegLib.benchmarks.privacy import PATIENT, SYNTHETIC, audit, audit_table, best_correlation
from IncrementalSegLib.cases import read_dataset
from IncrementalSegLib.errors import InputError
from IncrementalSegLib.events import Reporter
from IncrementalSegLib.volumes import to_array


def volume(seed: int, shape: tuple[int, ...] = (24, 20, 22)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5)
    return np.clip(noise / noise.std() / 2, -1, 1).astype(np.float32)


def test_a_box_of_the_scan_is_found_wherever_it_lies() -> None:
    scan = volume(0)
    assert best_correlation(scan[7:19, 3:15, 9:21], scan) == pytest.approx(1.0, abs=1e-6)
    assert best_correlation(scan[7:19, 3:15, 9:21] * 0.5 - 0.2, scan) == pytest.approx(1.0, abs=1e-6)
    assert best_correlation(volume(1)[7:19, 3:15, 9:21], scan) < 0.6


def test_the_correlation_is_that_of_the_definition() -> None:
    scan, box = volume(2, (9, 9, 9)), volume(3, (8, 8, 8))
    padded = np.pad(scan, 2, constant_values=-1.0)
    every = [
        np.corrcoef(padded[x : x + 8, y : y + 8, z : z + 8].ravel(), box.ravel())[0, 1]
        for x, y, z in np.ndindex(6, 6, 6)
    ]
    assert best_correlation(box, scan) == pytest.approx(max(every), abs=1e-6)


def test_a_box_larger_than_the_scan_and_one_of_air_are_compared_too() -> None:
    assert -1 <= best_correlation(volume(0, (30, 30, 30)), volume(1)) < 0.9
    assert best_correlation(np.full((8, 8, 8), -1.0, np.float32), volume(1)) == pytest.approx(0.0, abs=1e-6)


def test_a_repeated_scan_stands_out_against_other_patients() -> None:
    scans = [volume(seed) for seed in range(3)]
    organs = [np.zeros(scan.shape, np.uint8) for scan in scans]
    for organ in organs:
        organ[8:16, 8:14, 8:14] = 1
    rows = audit([scans[1][4:16, 4:16, 4:16], volume(9)[4:16, 4:16, 4:16]], scans, organs, 0, Reporter())
    by_kind = {kind: [row["correlation"] for row in rows if row["kind"] == kind] for kind in (SYNTHETIC, PATIENT)}
    assert by_kind[SYNTHETIC][0] > 0.999 and by_kind[SYNTHETIC][1] < 0.7 and max(by_kind[PATIENT]) < 0.7
    assert "1.000" in audit_table(rows).splitlines()[2]
    with pytest.raises(InputError, match="two training scans or more"):
        audit([scans[0]], scans[:1], organs, 0, Reporter())


def test_the_command_writes_both_kinds(
    base_job: Path, patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ct, _ = read_dataset(patients, names=["a"])[0].read()
    hu = to_array(ct)[4:20, 4:20, 4:20]
    image = sitk.GetImageFromArray(np.clip(hu, -125, 275).transpose(2, 1, 0))
    image.SetSpacing(ct.GetSpacing())
    (tmp_path / "made").mkdir()
    sitk.WriteImage(image, str(tmp_path / "made" / "synthetic_001_ct.nii.gz"))
    where = [
        "--model",
        base_job / "model",
        "--synthetic",
        tmp_path / "made",
        "--cases",
        patients,
        "--out",
        tmp_path / "out",
    ]
    assert privacy.main([str(part) for part in where]) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "privacy.csv").open()))
    assert [row["kind"] for row in rows] == [SYNTHETIC, PATIENT]
    assert float(rows[0]["correlation"]) > 0.95 > float(rows[1]["correlation"])  # it is a scan of the training
    assert "Largest" in capsys.readouterr().out
    where[3] = tmp_path
    assert privacy.main([str(part) for part in where]) == 2
    assert "holds no synthetic volume" in capsys.readouterr().err
