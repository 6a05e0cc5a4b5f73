"""What the tests share: made-up patients, real CT where there is some, and devices."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
REAL_CT_VARIABLE = "INCREMENTALSEG_REAL_CT"


def _real_ct() -> Path | None:
    named = os.environ.get(REAL_CT_VARIABLE)
    places = [Path(named)] if named else [base / "shared" / "data" for base in (REPOSITORY.parent, REPOSITORY)]
    return next((place for place in places if (place / "abdomen_3mm" / "dataset.json").exists()), None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine has no scans or no device for, and say so."""
    if item.get_closest_marker("real_ct") and _real_ct() is None:
        pytest.skip(f"no real CT: none in ../shared/data, and {REAL_CT_VARIABLE} names no folder with abdomen_3mm/")
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device on this machine")


@pytest.fixture(scope="session")
def real_ct_folder() -> Path:
    """The folder of real CT (`abdomen_3mm`, `abdomen_original`); the test is skipped where there is none."""
    folder = _real_ct()
    if folder is None:
        pytest.skip(f"no real CT: none in ../shared/data, and {REAL_CT_VARIABLE} names no folder with abdomen_3mm/")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread, as bit-identical results need, and as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def phantom_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small made-up patients, `a` and `b`, all organs annotated; for reading only."""
    from IncrementalSegLib.phantom import PhantomConfig, write_phantom_cases

    folder = tmp_path_factory.mktemp("phantoms")
    write_phantom_cases(folder, ["a", "b"], 0, PhantomConfig((32, 28, 28), (12.0, 12.0, 12.0)))
    return folder


@pytest.fixture
def dataset(phantom_dataset: Path, tmp_path: Path) -> Path:
    """A copy of the made-up patients that the test may change."""
    return Path(shutil.copytree(phantom_dataset, tmp_path / "dataset"))
