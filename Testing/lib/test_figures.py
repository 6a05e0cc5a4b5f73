"""Figures: what they say, how the body is turned, and what they refuse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from IncrementalSegLib.errors import InputError, StorageError
from IncrementalSegLib.figures import planes, plot_organ_bars, plot_planes, plot_strategies
from IncrementalSegLib.organs import OrganTable, organ_named
from IncrementalSegLib.report import OrganReport, build_report

TABLE = OrganTable.from_names(["Liver", "Pancreas"])
REPORT = build_report(
    "full",
    [
        OrganReport("Spleen", organ_named("Spleen").key, "old", 0.93, 0.92),
        OrganReport("Liver", organ_named("Liver").key, "old", 0.95, 0.90),
        OrganReport("Aorta", organ_named("Aorta").key, "old", agreement=0.97),
        OrganReport("Pancreas", organ_named("Pancreas").key, "new", dsc_after=0.21),
        OrganReport("Stomach", organ_named("Stomach").key, "new"),
    ],
    (7, 2),
    10.0,
    None,
)
ROWS = [
    {"protocol": "4-4", "strategy": strategy, "seed": 0, "step": 1, "organ": organ, "role": role, "dsc": dsc}
    for strategy, organ, role, dsc in (
        ("base", "Liver", "old", 0.94),
        ("mib", "Liver", "old", 0.91),
        ("mib", "Pancreas", "new", 0.55),
        ("joint", "Liver", "old", 0.96),
        ("joint", "Pancreas", "new", 0.66),
    )
]


def words(path: Path) -> list[str]:
    """Texts of an SVG in drawing order; matplotlib notes each as a comment beside its outline."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip()[5:-4] for line in lines if line.strip().startswith("<!-- ")]


def png_width(path: Path) -> int:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big")


def test_bars_name_organs_print_values_and_mark_losses_in_words(tmp_path: Path) -> None:
    plot_organ_bars(REPORT, tmp_path / "bars.svg", {"fine-tune": {"Liver": 0.12, organ_named("Pancreas").key: 0.34}})
    found = words(tmp_path / "bars.svg")
    assert {"Spleen", "Liver", "Aorta", "Pancreas (new)", "0.92", "0.97", "0.12", "0.34", "fine-tune"} <= set(found)
    assert found.count("LOST (−0.05)") == 1
    assert found.count("NOT LEARNED") == 2
    assert "not measured" in found
    assert "Agreement of old and new model (not annotated)" in found
    assert "Verdict: old organ lost (full)" in found


def test_a_good_step_shows_no_word_of_loss(tmp_path: Path) -> None:
    good = REPORT | {"organs": REPORT["organs"][:1], "verdict": "good"}
    plot_organ_bars(good, tmp_path / "bars.svg")
    assert not any("LOST" in word or "LEARNED" in word for word in words(tmp_path / "bars.svg"))


def test_strategies_are_drawn_best_first_with_the_base_as_a_line(tmp_path: Path) -> None:
    plot_strategies(ROWS, tmp_path / "strategies.svg")
    found = words(tmp_path / "strategies.svg")
    assert found.index("joint") < found.index("mib")
    assert "base" not in found
    assert {"Base model, old organs (0.94)", "0.81", "0.73", "0.55"} <= set(found)


def test_figures_are_1200_pixels_wide(tmp_path: Path) -> None:
    labels = np.zeros((20, 20, 20), dtype=np.uint8)
    labels[5:9, 5:9, 5:9] = 1
    plot_organ_bars(REPORT, tmp_path / "bars.png")
    plot_strategies(ROWS, tmp_path / "strategies.png")
    plot_planes(labels * 100.0, {"Before": labels}, TABLE, (1, 1, 1), tmp_path / "planes.png")
    assert [png_width(tmp_path / f"{name}.png") for name in ("bars", "strategies", "planes")] == [1200, 1200, 1200]


def caught_figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The list into which `plot_planes` puts its figures from now on, instead of writing them."""
    kept: list[Any] = []
    monkeypatch.setattr(planes, "save_figure", lambda figure, path: kept.append(figure))
    return kept


def bright_boxes(
    monkeypatch: pytest.MonkeyPatch, blob: tuple[slice, ...], spacing: tuple[float, ...]
) -> list[np.ndarray]:
    """Where the bright blob of a dark CT appears in each panel: left, right, top, bottom, in pixels and panel size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    kept = caught_figures(monkeypatch)
    ct, labels = np.full((24, 20, 12), -125.0), np.zeros((24, 20, 12), dtype=np.uint8)
    ct[blob], labels[blob] = 275.0, 1
    plot_planes(ct, {"Before": labels}, TABLE, spacing, "unused.png")
    for axes in kept[0].axes:
        for artist in (*axes.texts, *axes.collections):
            artist.set_visible(False)
    canvas = FigureCanvasAgg(kept[0])
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., 0]
    found = []
    for axes in kept[0].axes:
        panel = axes.get_window_extent()
        inside = picture[::-1][int(panel.y0) + 3 : int(panel.y1) - 3, int(panel.x0) + 3 : int(panel.x1) - 3][::-1] > 128
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        found.append(np.array([columns[0], columns[-1], rows[0], rows[-1], *inside.shape[::-1]]))
    return found


def test_the_patients_right_is_on_the_left_and_the_head_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # LPS: small x is the patient's right, small y is anterior, large z is the head.
    blob = (slice(2, 7), slice(2, 6), slice(8, 11))
    for left, right, top, bottom, width, height in bright_boxes(monkeypatch, blob, (1.0, 1.0, 1.5)):
        assert right < width / 2, "right of the patient (or the front, in the sagittal plane) belongs on the left"
        assert bottom < height / 2, "the front (axial) or the head (coronal, sagittal) belongs at the top"
        assert (left, top) > (0, 0)


def test_a_cube_looks_square_in_every_plane_whatever_the_spacing(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = (slice(6, 16), slice(5, 15), slice(5, 7))  # 10 x 10 x 10 mm
    for left, right, top, bottom, *_ in bright_boxes(monkeypatch, blob, (1.0, 1.0, 5.0)):
        assert (right - left) / (bottom - top) == pytest.approx(1.0, abs=0.06)


def test_planes_go_through_the_named_organ_and_list_what_they_show(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.text import Text

    kept = caught_figures(monkeypatch)
    labels = np.zeros((60, 60, 60), dtype=np.uint8)
    labels[2:20, 2:20, 2:20], labels[30:54, 30:54, 30:54] = 1, 2
    maps = {"Before": np.where(labels == 1, labels, 0), "After": labels}
    plot_planes(labels * 50.0, maps, TABLE, (1, 1, 1), "unused", reference="pancreas", caption="CT: a phantom")
    found = [text.get_text() for text in kept[0].findobj(Text)]
    assert {"Before", "After", "Axial", "Coronal", "Sagittal", "1 Pancreas", "CT: a phantom"} <= set(found)
    assert "1 Liver" not in found
    assert [found.count(letter) for letter in "RLAPSI"] == [4, 4, 4, 4, 4, 4]
    assert found.count("1") == 3, "the pancreas carries its number on the three planes of the row that shows it"


def test_refuses_a_label_map_of_another_grid(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="resample"):
        plot_planes(np.zeros((4, 4, 4)), {"a": np.zeros((4, 4, 5))}, TABLE, (1, 1, 1), tmp_path / "p.png")


@pytest.mark.parametrize("reference", ["pancreas", None])
def test_refuses_planes_through_an_organ_that_no_map_shows(tmp_path: Path, reference: str | None) -> None:
    with pytest.raises(InputError, match="Pancreas"):
        plot_planes(
            np.zeros((4, 4, 4)), {"a": np.zeros((4, 4, 4))}, TABLE, (1, 1, 1), tmp_path / "p.png", reference=reference
        )


def test_refuses_a_report_without_organs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no organ"):
        plot_organ_bars(REPORT | {"organs": []}, tmp_path / "bars.png")


def test_refuses_a_format_that_matplotlib_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.docx"):
        plot_organ_bars(REPORT, tmp_path / "bars.docx")
    assert list(tmp_path.iterdir()) == []


def test_a_figure_that_cannot_be_written_is_reported_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "job").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match=r"bars\.png could not be written"):
        plot_organ_bars(REPORT, tmp_path / "job" / "bars.png")


def test_missing_matplotlib_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"pip install IncrementalSegLib\[figures\]"):
        plot_organ_bars(REPORT, tmp_path / "bars.png")


def test_figures_use_no_pyplot_and_leave_no_global_state(tmp_path: Path) -> None:
    code = (
        "import sys; from IncrementalSegLib.figures import plot_strategies;"
        f"plot_strategies({ROWS!r}, {str(tmp_path / 's.png')!r}); print('matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
