"""Prediction: sliding window with Gaussian blending inside the body's box, one merged label map on the input's grid."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import SimpleITK as sitk
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from .events import Reporter
from .models.bundle import AIR, OVERLAP
from .models.foreign import ForeignNetwork, Usage
from .models.locked import LockedNetwork
from .models.networks import out_of_memory, place
from .models.package import Model
from .organs import OrganTable
from .pieces import keep_largest_pieces
from .preprocessing import box_around, foreground, on_model_grid, resample
from .volumes import to_array, to_image
from .windows import evenly_windowed


def predict_label_map(
    model: Model, ct: sitk.Image, device: torch.device, reporter: Reporter | None = None
) -> sitk.Image:
    """The merged label map of a CT: the organ table's values, uint16 (uint8 where they fit), on the CT's own grid.

    The device holds single patches only; class probabilities are kept on the host at the model's spacing and brought to
    the CT's grid one class at a time.

    Raises:
        Cancelled: the reporter says so; checked before every patch.
    """
    reporter, whole = reporter or Reporter(), ct
    ct = foreground(ct) if model.preprocessing.foreground else ct
    scan = on_model_grid(ct, model.preprocessing)
    image = model.preprocessing.normalise(to_array(scan))
    box = body_box(image) if model.spec.usage is None else tuple(slice(0, n) for n in image.shape)
    inside = torch.from_numpy(image[box])
    warn = partial(reporter.message, level="warning")
    scores = windowed_scores(model.network.eval(), inside, model.patch, device, reporter.check, warn)
    corner = sitk.RegionOfInterest(scan, [s.stop - s.start for s in box], [s.start for s in box])
    organs, merged = list(model.organs), None
    for part in scores.split(parts_of(model.network, len(scores))):
        table = OrganTable(organs[: len(part) - 1])
        organs = organs[len(table) :]
        merged = merge(_votes(part, table, model.spec.usage), corner, ct, table, model.connected, merged)
    assert merged is not None
    return merged if ct is whole else _pasted(merged, whole)


def _pasted(part: sitk.Image, ct: sitk.Image) -> sitk.Image:
    """The label map of a box of the CT on the CT's grid; beyond the box is background."""
    canvas = sitk.Image(ct.GetSize(), part.GetPixelID())
    canvas.CopyInformation(ct)
    return sitk.Paste(canvas, part, part.GetSize(), [0] * 3, ct.TransformPhysicalPointToIndex(part.GetOrigin()))


def body_box(image: np.ndarray) -> tuple[slice, slice, slice]:
    """The box (x, y, z) around all that is not air in an image scaled to [-1, 1]; the whole image where all is air.

    A voxel of air stays around it, so that an organ at its edge does not reach beyond when brought to a finer grid.
    """
    return box_around(image > AIR, 1)


def probabilities(
    network: nn.Module,
    image: Tensor,
    patch: tuple[int, int, int],
    device: torch.device,
    check: Callable[[], None] = lambda: None,
    warn: Callable[[str], None] = warnings.warn,
) -> Tensor:
    """Class probabilities (1 + K, x, y, z), float32 on the host, of an image (x, y, z) in [-1, 1].

    See `windowed_scores`; the branches of a locked network divide the background.
    """
    scores = windowed_scores(network, image, patch, device, check, warn)
    old, *branches = scores.split(parts_of(network, len(scores)))
    q = torch.softmax(old, 0)
    for branch in branches:
        share = q[:1] * torch.softmax(branch, 0)
        q = torch.cat([share[:1], q[1:], share[1:]])
    return q


def parts_of(network: nn.Module, channels: int) -> list[int]:
    """How many of the channels of `windowed_scores` are the old network's and every branch's."""
    return [*network.outputs] if isinstance(network, LockedNetwork) else [channels]


def windowed_scores(
    network: nn.Module,
    image: Tensor,
    patch: tuple[int, int, int],
    device: torch.device,
    check: Callable[[], None] = lambda: None,
    warn: Callable[[str], None] = warnings.warn,
) -> Tensor:
    """Logits (C, x, y, z), float32 on the host, of an image (x, y, z) in [-1, 1], averaged over windows.

    Those of a locked network are its old network's, and behind them those of every branch.

    ``check`` is called before every patch. Where the device has too little memory the image is predicted again on the
    CPU, and ``warn`` gets a sentence that says so.
    """
    try:
        return _windowed(network, image, patch, device, check)
    except RuntimeError as error:
        if device.type == "cpu" or not out_of_memory(error):
            raise
    warn(f"The device ({device}) has too little memory for this prediction: it runs on the CPU, which is slower.")
    return _windowed(network, image, patch, torch.device("cpu"), check)


def _windowed(
    network: nn.Module, image: Tensor, patch: tuple[int, int, int], device: torch.device, check: Callable[[], None]
) -> Tensor:
    def scores_of(apply: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def scores(patches: Tensor) -> Tensor:
            check()
            with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
                return apply(patches).float()

        return scores

    place(network, device)
    slide = partial(sliding_window_inference, sw_batch_size=1, sw_device=device, device="cpu")
    with torch.inference_mode():
        if isinstance(network, ForeignNetwork):  # along its own axes, windows as its own tool lays them
            seen, roi, use = network.to_network(image[None, None]), network.in_its_order(patch), network.usage
            apply = scores_of(network.mirrored)
            if use.family == "nnunet":
                return network.from_network(evenly_windowed(seen, roi, use.overlap, apply, device))[0]
            found = slide(seen, roi, predictor=apply, overlap=use.overlap, mode=use.blend)
            return network.from_network(found)[0]
        apply = scores_of(_all_scores(network) if isinstance(network, LockedNetwork) else network)
        return slide(image[None, None], patch, predictor=apply, overlap=OVERLAP, mode="gaussian", cval=-1)[0]


def _all_scores(network: LockedNetwork) -> Callable[[Tensor], Tensor]:
    return lambda patches: torch.cat(network.features_and_scores(patches)[1], 1)


def _votes(scores: Tensor, organs: OrganTable, usage: Usage | None) -> np.ndarray:
    """What is interpolated to the CT's grid before the largest wins: probabilities; an nnU-Net's logits, as it does."""
    if usage and usage.family == "nnunet" and not organs.parent_channels():
        return (scores - scores.amax(0)).numpy()
    return fold_children(torch.softmax(scores, 0).numpy(), organs)


def fold_children(q: np.ndarray, organs: OrganTable) -> np.ndarray:
    """Probabilities in which a structure inside an organ competes with that organ only (method §1).

    The pair's mass goes to the likelier of the two, so that the organ as a whole is not split against its neighbours.
    """
    for child, parent in organs.parent_channels().items():
        both = q[child] + q[parent]
        child_wins = q[child] > q[parent]
        q[child], q[parent] = np.where(child_wins, both, 0), np.where(child_wins, 0, both)
    return q


def merge(
    q: np.ndarray,
    grid: sitk.Image,
    ct: sitk.Image,
    organs: OrganTable,
    connected: Sequence[str] = (),
    before: sitk.Image | None = None,
) -> sitk.Image:
    """Argmax over classes of probabilities (1 + K, x, y, z) on ``grid``, interpolated linearly to the CT's grid.

    Outside ``grid`` is background; of organs whose key is in ``connected`` the largest piece is kept. What a label map
    ``before`` gives to an organ stays. Two float32 volumes of the CT's size are held at a time.
    """
    labels = [0, *(organ.label for organ in organs)]
    best = np.full(ct.GetSize()[::-1], -np.inf, np.float32)
    merged = np.zeros(best.shape, np.uint8 if max(labels) < 256 else np.uint16)
    for channel, value in enumerate(labels):
        _paint(merged, best, value, resample(to_image(q[channel], grid), ct, outside=1.0 if channel == 0 else 0.0))
    if before is not None:
        merged[sitk.GetArrayViewFromImage(before) > 0] = 0
    keep_largest_pieces(merged, (organ.label for organ in organs if organ.key in connected))
    if before is not None:
        merged = merged + sitk.GetArrayViewFromImage(before)
    image = sitk.GetImageFromArray(merged)
    image.CopyInformation(ct)
    return image


def _paint(merged: np.ndarray, best: np.ndarray, value: int, probability: sitk.Image) -> None:
    there = sitk.GetArrayViewFromImage(probability)
    wins = there > best
    merged[wins] = value
    np.copyto(best, there, where=wins)
