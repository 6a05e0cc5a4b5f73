"""TorchScript as a frozen teacher: it predicts, but cannot grow an output, so a network of ours learns from it.

What it needs beside the program comes from the bundle around it, or from what ``monai.bundle ckpt_export`` puts into
the file. A TorchScript is a program: it is run only if its text names nothing but what networks are made of.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, PackageError
from ..events import Reporter
from ..models.foreign import ForeignNetwork
from ..models.networks import NetworkSpec
from ..models.package import Model
from .archive import MOST_BYTES, MOST_FILES, opened
from .description import Description, provenance
from .monai_bundle import described, is_bundle, read_configs

NAME = "TorchScript"
_EDGE = 16  # patch edges are multiples of it, as for our networks
_MOST_TEXT = 32 * 1024**2
_CALLS = re.compile(r"\b(torch|ops)\s*\.\s*([A-Za-z_][\w.]*)")
# What tracing and scripting MONAI's networks gives, and its kin: arithmetic, shapes, layers; nothing with files.
_HARMLESS = frozenset(
    """
    __contains__ __derive_index __getitem__ __is__ __isnot__ __not__ __range_length _convolution _set_item
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d abs adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d add add_ all any append arange avg_pool3d batch_norm bmm bool cat ceil chunk clamp clone
    contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d detach device dim div dropout
    dropout_ einsum elu elu_ eq exp expand expand_as feature_dropout feature_dropout_ fill_ flatten flip float floor
    floor_divide floordiv format full ge gelu group_norm gt hardswish index instance_norm int interpolate item
    layer_norm le leaky_relu leaky_relu_ len linear list log_softmax lt masked_fill matmul max max_pool3d mean min mish
    mul mul_ narrow ne neg nn numel ones ones_like pad permute pop pow prelu relu relu_ remainder repeat reshape reverse
    roll rsub rsqrt scaled_dot_product_attention select sigmoid silu silu_ size slice softmax softplus split
    split_with_sizes sqrt squeeze squeeze_ stack sub sub_ sum tanh tensor_split to transpose type_as unbind unflatten
    unsqueeze unsqueeze_ upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
    upsample_nearest3d upsample_trilinear3d var var_mean view warn where zeros zeros_like
    prim.NumToTensor prim.RaiseException prim.data prim.device prim.dtype prim.is_cuda prim.max prim.min prim.shape
    prim.unchecked_unwrap_optional
    """.split()  # noqa: SIM905
)
_TYPES = "nn."  # torch.nn.modules… in the names of classes


def read_teacher(source: Path | str, reporter: Reporter | None = None, orientation: str = "RAS") -> Model:
    """A TorchScript segmentation network with the preprocessing of its bundle; it can predict and teach, nothing else.

    Args:
        source: a ``.ts`` file as ``monai.bundle ckpt_export`` writes it, or the bundle (folder or zip) around it.
        reporter: is told what the user should know of it.
        orientation: how the scans lay that it was trained on, where the bundle does not say.

    Raises:
        InputError: no TorchScript, no preprocessing beside it, or a program that does more than a network does.
        PackageError: the file is damaged.
    """
    source = Path(source)
    if source.is_file() and source.suffix == ".ts":
        return _teacher(source, *_extra(source), orientation, reporter or Reporter())
    with opened(source) as folder:
        program = folder / "models" / "model.ts"
        if not is_bundle(folder) or not program.exists():
            raise InputError(
                f"{source} holds no TorchScript: give a .ts file or the MONAI bundle with models/model.ts."
            )
        return _teacher(program, *read_configs(folder), orientation, reporter or Reporter())


def _teacher(program: Path, metadata: Any, config: dict[str, Any], orientation: str, reporter: Reporter) -> Model:
    description, notes = described(metadata, config, program, orientation)
    description, classes = replace(description, tool=NAME, network=NAME), len(description.organs) + 1
    for note in notes:
        reporter.message(note)
    trunk = _loaded(program)
    network = ForeignNetwork(trunk, "", set(), description.usage, classes, _EDGE)
    _try(network, description, classes)
    spec = NetworkSpec(NAME, {}, 0, usage=description.usage)
    history = (provenance(description),)
    return Model(network.eval(), spec, description.organs, description.preprocessing, description.patch, history)


def _loaded(program: Path) -> nn.Module:
    require_network_only(program)
    try:
        loaded: nn.Module = torch.jit.load(str(program), map_location="cpu")
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, MemoryError) as error:
        raise PackageError(f"{program} is damaged: copy or export it again.") from error
    return loaded.eval()


def require_network_only(program: Path) -> None:
    """Refuse a TorchScript whose text calls anything that networks do not need, such as what reads or writes files.

    Raises:
        InputError: names the call.  PackageError: the file is damaged.
    """
    with _entries_of(program) as archive:
        texts = [archive.read(entry).decode() for entry in archive.infolist() if entry.filename.endswith(".py")]
    for text in texts:
        for space, name in _CALLS.findall(text):
            harmless = name in _HARMLESS or (space == "torch" and name.startswith(_TYPES))
            if not harmless:
                raise InputError(
                    f"{program} calls {space}.{name}, which no network that is known here needs: it was not run. "
                    "Ask its makers for the bundle with model.pt."
                )


@contextmanager
def _entries_of(program: Path) -> Iterator[zipfile.ZipFile]:
    """The file as the zip archive that it is, of a size that can be read."""
    try:
        with zipfile.ZipFile(program) as archive:
            _require_sane(archive, program)
            yield archive
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise PackageError(f"{program} is damaged ({error}): copy or export it again.") from error


def _require_sane(archive: zipfile.ZipFile, program: Path) -> None:
    entries = archive.infolist()
    texts = sum(entry.file_size for entry in entries if entry.filename.endswith(".py"))
    if len(entries) > MOST_FILES or sum(entry.file_size for entry in entries) > MOST_BYTES or texts > _MOST_TEXT:
        raise InputError(f"{program} is larger than any network that is known here: it was not run.")


def _extra(program: Path) -> tuple[Any, dict[str, Any]]:
    """Metadata and inference configuration that were put into the file."""
    found = {}
    try:
        with _entries_of(program) as archive:
            for entry in archive.infolist():
                if Path(entry.filename).parent.name == "extra" and entry.file_size < _MOST_TEXT:
                    found[Path(entry.filename).name] = archive.read(entry)
            metadata, config = (json.loads(found[f"{name}.json"]) for name in ("metadata", "inference"))
    except KeyError as error:
        raise InputError(
            f"{program} is TorchScript that does not say how its scans were prepared: give the bundle around it, or "
            "export it with  python -m monai.bundle ckpt_export  and its inference.json."
        ) from error
    if not isinstance(config, dict):
        raise InputError(f"{program}: its inference.json is no configuration of a bundle.")
    return metadata, config


def _try(network: ForeignNetwork, description: Description, classes: int) -> None:
    """Run it once on air, to know its outputs before a training relies on them."""
    try:
        with torch.inference_mode():
            logits = network(torch.full((1, 1, *description.patch), -1.0))
    except (RuntimeError, TypeError, AttributeError, IndexError, ValueError, MemoryError) as error:
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise InputError(f"{description.weights} cannot be run on a patch of a CT ({last[0][:120]}).") from error
    expected = (1, classes, *description.patch)
    if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
        raise InputError(
            f"{description.weights} gives {tuple(logits.shape)} for a patch, not {classes} classes of the same size: "
            "its organs and its outputs do not belong together."
        )
