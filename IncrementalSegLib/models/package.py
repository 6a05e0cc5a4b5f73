"""The model package: a MONAI bundle plus ``labels.csv``, ``memory/`` and ``history.json``, with checksums.

```
configs/metadata.json   what it is, for MONAI and for us (key "incrementalseg")
configs/inference.json  runs the model in plain MONAI
models/model.pt         state dict
labels.csv              organ table        memory/        what the model remembers of its training (no image)
history.json            a record per step  checksums.json SHA-256 of every other file
```
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, PackageError, StorageError
from ..organs import OrganTable
from ..preprocessing import Preprocessing
from ..storage import move, write_json, write_text
from .bundle import inference_config, metadata
from .checkpoint import load_state, save_state
from .contents import FORMAT, checksums, package_hash, read_contents, undescribed, verify_package
from .locked import LockedNetwork
from .networks import NetworkSpec, build_network
from .widen import widen

__all__ = ["Model", "load_model", "package_hash", "save_package", "verify_package"]


@dataclass(frozen=True)
class Model:
    """A segmentation model in memory: everything that prediction and a further step need.

    ``patch`` is the sliding window's size in voxels; ``history`` holds a record per step (organs, parent's hash, data
    fingerprint, metrics, versions); ``memory`` maps file names to tensors (prototypes, statistics, mask bank);
    ``connected`` are keys of the organs that are predicted in one piece.
    """

    network: nn.Module
    spec: NetworkSpec
    organs: OrganTable
    preprocessing: Preprocessing = Preprocessing()
    patch: tuple[int, int, int] = (64, 64, 64)
    history: tuple[dict[str, Any], ...] = ()
    memory: dict[str, Any] = field(default_factory=dict)
    hash: str = ""
    connected: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """Number of output channels, background included."""
        return len(self.organs) + 1

    def widened(self, classes: int, from_background: bool = True) -> nn.Module:
        """A copy of the network on the CPU with ``classes`` outputs that computes the same (see `widen`).

        Raises:
            PackageError: the network's output layer has no bias.
            ValueError: the model is locked.
        """
        if self.spec.branches:
            raise ValueError("a locked model is not widened: it grows by branches")
        state = {key: tensor.cpu() for key, tensor in self.network.state_dict().items()}
        return widen(lambda n: build_network(self.spec, n), state, self.classes, classes, from_background)

    def with_weights(self, state: Mapping[str, Tensor]) -> Model:
        """The same model with a network of its own that has these weights, ready for prediction."""
        network = build_network(self.spec, self.classes)
        network.load_state_dict(state)
        return replace(self, network=network.eval())

    def with_branch(self, new: int) -> Model:
        """A copy whose network is this one, locked, and a fresh branch for ``new`` organs (see `locked`)."""
        spec = replace(self.spec, branches=(*self.spec.branches, new))
        network = build_network(spec, self.classes + new)
        prefix = "" if self.spec.branches else "core."
        state = {f"{prefix}{key}": tensor.cpu() for key, tensor in self.network.state_dict().items()}
        network.load_state_dict({**network.state_dict(), **state})
        assert isinstance(network, LockedNetwork)
        return replace(self, spec=spec, network=network.only_last_learns())


def save_package(model: Model, folder: Path | str) -> Model:
    """Write the package into a new folder, whole or not at all, and return the model with its hash.

    Raises:
        StorageError: the folder exists with something in it, the disk is full, or there is no permission.
    """
    folder = Path(folder)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StorageError(f"{folder} already holds something: give a new folder name.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial_", dir=folder.parent))
    except OSError as error:
        raise StorageError(f"{folder} cannot be written ({error.strerror}): choose another folder.") from error
    try:
        _write(model, partial)
        partial.chmod(0o755)
        if folder.exists():
            folder.rmdir()  # Windows does not replace a folder, not even an empty one
        move(partial, folder)
    except OSError as error:
        raise StorageError(f"{folder} could not be written ({error.strerror}): free space and try again.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return replace(model, hash=package_hash(folder))


def _write(model: Model, folder: Path) -> None:
    ours = {
        "format": FORMAT,
        "network": asdict(model.spec),
        "preprocessing": asdict(model.preprocessing),
        "patch": list(model.patch),
        "connected": list(model.connected),
    }
    write_json(
        folder / "configs" / "metadata.json",
        {**metadata(model.organs, model.patch, model.connected), "incrementalseg": ours},
    )
    write_json(
        folder / "configs" / "inference.json",
        inference_config(model.spec, model.organs, model.preprocessing, model.patch, model.connected),
    )
    weights = model.network.state_dict().items()
    contiguous = {key: tensor.cpu().clone(memory_format=torch.contiguous_format) for key, tensor in weights}
    save_state(folder / "models" / "model.pt", contiguous)
    write_text(folder / "labels.csv", model.organs.to_csv())
    write_json(folder / "history.json", list(model.history))
    (folder / "memory").mkdir()
    write_text(
        folder / "memory" / "README.txt",
        "What the model remembers of its training: vectors and label maps, no image.\n",
    )
    for name, state in model.memory.items():
        save_state(folder / "memory" / f"{name}.pt", state)
    write_json(folder / "checksums.json", checksums(folder))


def load_model(folder: Path | str) -> Model:
    """Load a package, ready for prediction (network in evaluation mode, on the CPU).

    Raises:
        PackageError: not a package, damaged, newer than this software, or weights that do not fit.
    """
    contents = read_contents(folder)
    try:
        spec = NetworkSpec(**contents.network)
        network = build_network(spec, len(contents.organs) + 1)
    except (KeyError, TypeError, ValueError, IndexError, InputError) as error:
        raise undescribed(folder, error) from error
    folder = Path(folder)
    try:
        network.load_state_dict(load_state(folder / "models" / "model.pt"))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise PackageError(
            f"{folder}/models/model.pt does not fit a {spec.name} with {len(contents.organs)} organs: weights and "
            "description of this package do not belong together."
        ) from error
    if not set(contents.connected) <= set(contents.organs.keys):
        raise PackageError(f"{folder} keeps organs in one piece that it does not have: copy the package again.")
    kept = sorted(name for name in contents.files if name.startswith("memory/") and name.endswith(".pt"))
    memory = {Path(name).stem: load_state(folder / name) for name in kept}
    return Model(
        network.eval(),
        spec,
        contents.organs,
        contents.preprocessing,
        contents.patch,
        contents.history,
        memory,
        contents.hash,
        contents.connected,
    )
