"""Foreign models that are broken, unsupported or meant to do harm: a sentence, nothing executed, nothing written."""

from __future__ import annotations

import copy
import json
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import auto3dseg, bundle, nnunet, write_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from IncrementalSegLib.cli import main
from IncrementalSegLib.errors import IncrementalSegError, InputError, PackageError
from IncrementalSegLib.importers import archive
from IncrementalSegLib.importers.reading import import_model
from IncrementalSegLib.models.package import Model

pytestmark = pytest.mark.usefixtures("one_thread")
WEIGHTS = {"bundle": "models/model.pt", "auto3dseg": "model.pt", "nnunet": "fold_0/checkpoint_final.pth"}
WRITERS: dict[str, Callable[..., Any]] = {"bundle": bundle, "auto3dseg": auto3dseg, "nnunet": nnunet}


@pytest.fixture(params=WRITERS)
def theirs(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A good model's folder and its weights."""
    folder = tmp_path / "theirs"
    WRITERS[request.param](folder)
    return folder, folder / WEIGHTS[request.param]


class Harm:
    """Runs a command when it is unpickled."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.flag}",)


def test_code_in_a_checkpoint_is_not_executed(theirs: tuple[Path, Path], tmp_path: Path) -> None:
    folder, weights = theirs
    for content in (Harm(tmp_path / "done"), {"state_dict": Harm(tmp_path / "done"), "network_weights": {}}):
        torch.save(content, weights)
        with pytest.raises(PackageError, match="more than weights, or is damaged; it was not loaded"):
            import_model(folder)
    weights.write_bytes(pickle.dumps(Harm(tmp_path / "done")))
    with pytest.raises(PackageError, match=r"it was not loaded|is damaged"):
        import_model(folder)
    assert not (tmp_path / "done").exists()


def test_truncated_weights_are_a_sentence(theirs: tuple[Path, Path]) -> None:
    folder, weights = theirs
    whole = weights.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 100):
        weights.write_bytes(whole[:length])
        with pytest.raises(PackageError, match=r"damaged|it was not loaded"):
            import_model(folder)


def test_weights_of_another_shape_or_missing_ones_are_a_sentence(theirs: tuple[Path, Path]) -> None:
    folder, weights = theirs
    content = torch.load(weights, weights_only=False)
    state = next((content[key] for key in ("state_dict", "network_weights") if key in content), content)
    first = next(key for key, value in state.items() if value.dim() > 1)
    for broken in (torch.zeros(3, 3), None):
        state[first] = broken
        torch.save(content, weights)
        with pytest.raises(PackageError, match="weights and description do not belong together"):
            import_model(folder)


UNSUPPORTED = [
    (bundle, {"inferer": {}}, "roi_size"),
    (bundle, {"network_def": {"_target_": "os.system", "command": "true"}}, "not among those"),
    (bundle, {"pixdim": "$__import__('os').system('true')"}, "computes a setting"),
    (bundle, {"postprocessing": [{"_target_": "Activationsd", "sigmoid": True}]}, "overlapping regions"),
    (bundle, {"preprocessing": [{"_target_": "Spacingd", "pixdim": 2}]}, "how it scales HU"),
    (bundle, {"preprocessing": [{"_target_": "ScaleIntensityRanged", "a_min": 0, "a_max": 1}]}, "which spacing"),
    (
        bundle,
        {"preprocessing": [{"_target_": "Spacingd", "pixdim": 2}, {"_target_": "HistogramNormalized"}]},
        "HistogramNormalize, which is not known",
    ),
    (auto3dseg, {"sigmoid": True}, "overlapping regions"),
    (auto3dseg, {"normalize_mode": "meanstd"}, "not as CT"),
    (auto3dseg, {"resample_resolution": None}, "which spacing"),
    (auto3dseg, {"network": {"_target_": "SwinUNETR", "out_channels": 4}}, "only SegResNetDS"),
    (auto3dseg, {"roi_size": [1e9, 2, 3]}, "not three numbers"),
    (nnunet, {"patch_size": [64, 64]}, "2D configuration"),
    (nnunet, {"normalization_schemes": ["ZScoreNormalization"]}, "not trained on CT alone"),
    (nnunet, {"previous_stage": "3d_lowres"}, "second stage of a cascade"),
    (nnunet, {"architecture": {}}, "lacks something"),
]


@pytest.mark.parametrize(("write", "changes", "sentence"), UNSUPPORTED)
def test_what_is_not_supported_is_refused_by_name(
    write: Callable[..., Any], changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    write(tmp_path / "theirs", **changes)
    with pytest.raises(InputError, match=sentence):
        import_model(tmp_path / "theirs")


def test_networks_larger_than_any_real_one_take_no_memory(tmp_path: Path) -> None:
    for huge in ({"channels": [2**30, 2**30]}, {"channels": [4096] * 3, "strides": [2, 2]}, {"strides": [2] * 10_000}):
        bundle(tmp_path / "theirs", huge)
        with pytest.raises(IncrementalSegError, match=r"not one of a network|do not belong together|cannot be built"):
            import_model(tmp_path / "theirs")


def test_regions_and_a_missing_background_are_refused(tmp_path: Path) -> None:
    nnunet(tmp_path / "regions")
    write_json(tmp_path / "regions/dataset.json", {"labels": {"background": 0, "whole": [1, 2], "core": 2}})
    with pytest.raises(InputError, match="overlapping regions"):
        import_model(tmp_path / "regions")
    bundle(tmp_path / "bundle")
    metadata = json.loads((tmp_path / "bundle/configs/metadata.json").read_text())
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"]["0"] = "liver"
    write_json(tmp_path / "bundle/configs/metadata.json", metadata)
    with pytest.raises(InputError, match="first channel is not the background"):
        import_model(tmp_path / "bundle")


def test_torchscript_is_named_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "model.ts").write_bytes(b"")
    with pytest.raises(InputError, match="TorchScript, which cannot grow"):
        import_model(tmp_path / "model.ts")
    bundle(tmp_path / "theirs")
    (tmp_path / "theirs/models/model.pt").rename(tmp_path / "theirs/models/model.ts")
    with pytest.raises(InputError, match=r"TorchScript \(model.ts\) only"):
        import_model(tmp_path / "theirs")


@pytest.mark.parametrize(
    "name", ["../out.txt", "a/../../out.txt", "/nowhere/out.txt", "C:/out.txt", "a\\..\\..\\out.txt"]
)
def test_a_zip_entry_that_climbs_out_is_not_written(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "sent.zip", "w") as packed:
        packed.writestr("configs/metadata.json", "{}")
        packed.writestr(zipfile.ZipInfo(name), "harm")
    with pytest.raises(InputError, match="leads out of its folder"):
        import_model(tmp_path / "sent.zip")
    assert not list(tmp_path.rglob("out.txt")) and not Path("/nowhere/out.txt").exists()


def test_a_link_in_a_zip_is_not_followed(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("models")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "sent.zip", "w") as packed:
        packed.writestr(entry, "/etc")
    with pytest.raises(InputError, match="leads out of its folder"):
        import_model(tmp_path / "sent.zip")


def test_a_zip_that_unpacks_to_too_much_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "sent.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("models/model.pt", bytes(1 << 24))
    assert (tmp_path / "sent.zip").stat().st_size < 100_000
    with pytest.raises(InputError, match="unpacks to more than"):
        import_model(tmp_path / "sent.zip")
    monkeypatch.setattr(archive, "MOST_FILES", 0)
    with pytest.raises(InputError, match="this is no model"):
        import_model(tmp_path / "sent.zip")


def test_the_command_line_says_it_in_a_sentence_and_leaves_nothing(tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    for source in ("empty", "nowhere"):
        assert main(["import", str(tmp_path / source), "--out", str(tmp_path / "ours")]) == 2
        assert "Error: " in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()


# Descriptions with parts replaced, left out or nested too deep

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=True),
    st.text(max_size=8),
    st.sampled_from(["$1", "@pixdim", "@nowhere", "", "SwinUNETR"]),
    st.lists(st.integers(-3, 10), max_size=6),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=3),
)


def _paths(content: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path for key, part in inner for path in [(*at, key), *_paths(part, (*at, key))]]


def _fuzz(kind: str, names: tuple[str, ...], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "theirs"
        WRITERS[kind](folder)
        path = folder / data.draw(st.sampled_from(names))
        path.write_text(json.dumps(_mutated(json.loads(path.read_text()), data)))
        before = sorted(Path(name).rglob("*"))
        try:
            assert isinstance(import_model(folder), Model)
        except IncrementalSegError as error:
            assert len(str(error)) > 20
        assert sorted(Path(name).rglob("*")) == before


def _mutated(whole: Any, data: st.DataObject) -> Any:
    """A copy with one to three parts replaced or left out."""
    content = copy.deepcopy(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        paths = _paths(content)
        if not paths:
            break
        path, inner = data.draw(st.sampled_from(paths)), content
        for key in path[:-1]:
            inner = inner[key]
        if data.draw(st.booleans()):
            inner[path[-1]] = data.draw(ODD)
        else:
            del inner[path[-1]]
    return content


FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
DESCRIPTIONS = {
    "bundle": ("configs/inference.json", "configs/metadata.json"),
    "nnunet": ("plans.json", "dataset.json"),
}


@pytest.mark.parametrize("kind", DESCRIPTIONS)
@FEW
@given(data=st.data())
def test_a_spoiled_description_is_a_model_or_a_sentence(kind: str, data: st.DataObject) -> None:
    _fuzz(kind, DESCRIPTIONS[kind], data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DESCRIPTIONS)
@MANY
@given(data=st.data())
def test_thousands_of_spoiled_descriptions(kind: str, data: st.DataObject) -> None:
    _fuzz(kind, DESCRIPTIONS[kind], data)
