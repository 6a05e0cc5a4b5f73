"""Prediction: the input's grid, the organ table's values, bounded memory, out-of-memory fallback, cancelling."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor, nn

from IncrementalSegLib import inference
from IncrementalSegLib.errors import Cancelled
from IncrementalSegLib.events import Reporter
from IncrementalSegLib.inference import body_box, fold_children, merge, predict_label_map, probabilities
from IncrementalSegLib.models.networks import NetworkSpec
from IncrementalSegLib.models.package import Model
from IncrementalSegLib.organs import OrganTable
from IncrementalSegLib.phantom import PhantomConfig, make_phantom
from IncrementalSegLib.preprocessing import Preprocessing
from IncrementalSegLib.volumes import to_array, to_image

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
LIVER, BONE = 75, 235  # HU; 0 and 0.8 on the network's scale


class Thresholds(nn.Module):
    """Calls tissue of -0.3 to 0.4 on the [-1, 1] scale the first organ and what is denser the second; counts calls."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        return torch.cat([torch.zeros_like(x), 20 * (x + 0.3), 40 * x - 2], 1)


def model_of(labels: tuple[int, int] = (5, 300), spacing: float = 3.0, patch: int = 16) -> Model:
    pairs = zip(OrganTable.from_names(["Liver", "Spleen"]), labels, strict=True)
    organs = OrganTable(replace(organ, label=label) for organ, label in pairs)
    return Model(Thresholds(), NetworkSpec(), organs, Preprocessing((spacing,) * 3), (patch,) * 3)


def scan(
    size: tuple[int, int, int] = (40, 36, 30), spacing: tuple[float, float, float] = (3.0, 3.0, 3.0)
) -> sitk.Image:
    """Air, in it a body of fat, in it a ball of liver and a block of bone, no symmetry."""
    x, y, z = np.meshgrid(*((np.arange(n) + 0.5) / n for n in size), indexing="ij")
    hu = np.full(size, -1000, np.int16)
    hu[(abs(x - 0.5) < 0.4) & (abs(y - 0.5) < 0.35)] = -100
    hu[(x - 0.35) ** 2 + (y - 0.4) ** 2 + (z - 0.5) ** 2 < 0.18**2] = LIVER
    hu[(abs(x - 0.7) < 0.12) & (abs(y - 0.6) < 0.12) & (abs(z - 0.6) < 0.3)] = BONE
    image = sitk.GetImageFromArray(hu.transpose(2, 1, 0))
    image.SetSpacing(spacing)
    image.SetOrigin((-50.0, 31.5, 12.25))
    return image


def dsc(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def assert_right(prediction: sitk.Image, ct: sitk.Image, least: float, labels: tuple[int, int] = (5, 300)) -> None:
    for tell in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(prediction, tell)() == getattr(ct, tell)()
    hu, values = to_array(ct), to_array(prediction)
    assert set(np.unique(values)) == {0, *labels}
    for label, tissue in zip(labels, (LIVER, BONE), strict=True):
        assert dsc(values == label, hu == tissue) >= least


def test_predicts_on_the_models_own_grid_voxel_by_voxel() -> None:
    ct = scan()
    assert_right(predict_label_map(model_of(), ct, CPU), ct, 1.0)


@pytest.mark.parametrize("axes", ["RAS", "LPI", "SAR", "PIL"])
def test_any_orientation_comes_back_as_it_was(axes: str) -> None:
    ct = sitk.DICOMOrient(scan(), axes)
    assert_right(predict_label_map(model_of(), ct, CPU), ct, 1.0)


def test_an_oblique_scan_comes_back_on_its_grid() -> None:
    ct = scan()
    ct.SetDirection(sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.1, -0.2, 0.3).GetMatrix())
    assert_right(predict_label_map(model_of(), ct, CPU), ct, 1.0)


def test_thick_slices_come_back_on_their_grid() -> None:
    ct = scan((60, 54, 20), (1.5, 1.5, 5.0))
    assert_right(predict_label_map(model_of(spacing=2.5), ct, CPU), ct, 0.75)  # partial volume at every edge


def test_a_scan_smaller_than_a_patch_is_predicted() -> None:
    ct = scan((12, 10, 9), (9.0, 9.0, 9.0))
    assert_right(predict_label_map(model_of(spacing=9.0, patch=32), ct, CPU), ct, 1.0)


def test_label_values_are_the_tables_in_the_smallest_type() -> None:
    ct = scan()
    wide, narrow = (predict_label_map(model_of(labels), ct, CPU) for labels in ((5, 300), (255, 7)))
    assert wide.GetPixelID() == sitk.sitkUInt16 and narrow.GetPixelID() == sitk.sitkUInt8
    assert_right(narrow, ct, 1.0, (255, 7))


def test_a_scan_of_air_alone_is_background() -> None:
    ct = scan() * 0 - 1000
    assert not to_array(predict_label_map(model_of(), ct, CPU)).any()


# Body crop


def test_the_body_box_leaves_out_nothing_but_air() -> None:
    image = Preprocessing().normalise(to_array(scan()))
    inside = np.zeros(image.shape, bool)
    inside[body_box(image)] = True
    assert (image[~inside] == -1).all() and inside.sum() < 0.7 * inside.size
    assert body_box(np.full((4, 5, 6), -1.0)) == (slice(0, 4), slice(0, 5), slice(0, 6))


def test_a_voxel_of_air_stays_around_the_body_where_there_is_one() -> None:
    image = np.full((10, 10, 10), -1.0)
    image[3:6, 0:4, 5:10] = 0.0
    assert body_box(image) == (slice(2, 7), slice(0, 5), slice(4, 10))


class Blurred(nn.Module):
    """Looks at a neighbourhood of 5 voxels before it decides, as a network does."""

    def __init__(self) -> None:
        super().__init__()
        self.last = Thresholds()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(nn.functional.avg_pool3d(x, 5, 1, 2, count_include_pad=False))


def test_the_body_crop_does_not_change_the_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    ct, _ = make_phantom(np.random.default_rng(5), PhantomConfig((64, 56, 40), (6.0, 6.0, 6.0)))
    model = replace(model_of(spacing=6.0, patch=64), network=Blurred())
    cropped = to_array(predict_label_map(model, ct, CPU))
    monkeypatch.setattr(inference, "body_box", lambda image: tuple(slice(0, n) for n in image.shape))
    whole = to_array(predict_label_map(model, ct, CPU))
    inner = body_box(Preprocessing().normalise(to_array(ct)))
    away = tuple(slice(s.start + 3, s.stop - 3) for s in inner)
    for label in (5, 300):
        assert (whole[away] == label).sum() > 100
        assert dsc(cropped[away] == label, whole[away] == label) >= 0.999
    outside = np.ones(whole.shape, bool)
    outside[inner] = False
    assert not whole[outside].any()


# A structure inside an organ


def test_a_structure_competes_with_its_organ_only() -> None:
    liver, spleen = OrganTable.from_names(["Liver", "Spleen"])
    tumour = replace(spleen, name="Tumour", type=None, label=3, parent=liver.key)
    organs = OrganTable([liver, spleen, tumour])
    voxels = np.array([[0.4, 0.3, 0.05, 0.25], [0.4, 0.25, 0.05, 0.3], [0.5, 0.2, 0.1, 0.2], [0.1, 0.2, 0.6, 0.1]])
    q = np.ascontiguousarray(voxels.T.reshape(4, 4, 1, 1))
    folded = fold_children(q.copy(), organs)
    assert folded[:, :, 0, 0].argmax(0).tolist() == [1, 3, 0, 2]
    assert np.allclose(folded.sum(0), 1) and np.allclose(folded[1] + folded[3], q[1] + q[3])
    assert (np.minimum(folded[1], folded[3]) == 0).all()


def test_without_a_parent_nothing_is_folded() -> None:
    q = np.random.default_rng(0).random((3, 2, 2, 2))
    assert np.array_equal(fold_children(q.copy(), OrganTable.from_names(["Liver", "Spleen"])), q)


# Memory


def test_the_network_sees_one_patch_at_a_time() -> None:
    model, network = model_of(patch=16), Thresholds()
    predict_label_map(replace(model, network=network), scan(), CPU)
    assert len(network.shapes) > 8
    assert set(network.shapes) == {(1, 1, 16, 16, 16)}


def test_merging_holds_no_array_of_all_classes_at_full_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    classes, ct = 24, sitk.Image([64, 64, 64], sitk.sitkInt16)
    small = sitk.Image([8, 8, 8], sitk.sitkUInt8)
    small.SetSpacing((9.0, 9.0, 9.0))
    names = [f"organ {i}" for i in range(1, classes)]
    q = np.random.default_rng(0).random((classes, 8, 8, 8)).astype(np.float32)
    real, seen = inference.resample, []

    def recorded(image: sitk.Image, *args: Any, **kwargs: Any) -> sitk.Image:
        seen.append((image.GetSize(), image.GetNumberOfComponentsPerPixel()))
        return real(image, *args, **kwargs)

    monkeypatch.setattr(inference, "resample", recorded)
    tracemalloc.start()
    merge(q, small, ct, OrganTable.from_names(names))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == [((8, 8, 8), 1)] * classes
    assert peak < 3 * 4 * 64**3  # three float32 volumes; all classes would be 24


def test_merging_takes_the_likeliest_class_and_background_outside_the_grid() -> None:
    ct = scan((10, 10, 10), (1.0, 1.0, 1.0))
    corner = sitk.RegionOfInterest(ct, [4, 4, 4], [3, 3, 3])
    q = np.zeros((3, 4, 4, 4), np.float32)
    q[1] = 0.6
    q[2], q[1] = np.where(np.arange(4)[:, None, None] > 1, 0.9, 0), np.where(np.arange(4)[:, None, None] > 1, 0.1, 0.6)
    merged = to_array(merge(q, corner, ct, model_of().organs))
    expected = np.zeros((10, 10, 10))
    expected[3:5, 3:7, 3:7], expected[5:7, 3:7, 3:7] = 5, 300
    near = np.zeros(expected.shape, bool)
    near[2:8, 2:8, 2:8] = True  # up to a voxel beyond its edge the grid is extended
    assert np.array_equal(merged[3:7, 3:7, 3:7], expected[3:7, 3:7, 3:7])
    assert not merged[~near].any()


def test_probabilities_are_those_of_the_network_and_add_up() -> None:
    image = torch.linspace(-1, 1, 24**3).reshape(24, 24, 24)
    q = probabilities(Thresholds(), image, (16, 16, 16), CPU)
    assert q.shape == (3, 24, 24, 24) and q.dtype == torch.float32 and q.device.type == "cpu"
    assert torch.allclose(q.sum(0), torch.ones(24, 24, 24), atol=1e-5)
    assert torch.allclose(q, Thresholds()(image[None, None])[0].softmax(0), atol=1e-4)


class SmallDevice(Thresholds):
    """A network that does not fit on the GPU."""

    def to(self, *device: torch.device, **layout: torch.memory_format) -> SmallDevice:  # type: ignore[override]
        if device and device[0].type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self


def test_a_device_without_memory_hands_over_to_the_cpu_and_says_so() -> None:
    ct, events = scan(), list[dict[str, Any]]()
    model = replace(model_of(), network=SmallDevice())
    assert_right(predict_label_map(model, ct, torch.device("cuda"), Reporter(events.append)), ct, 1.0)
    (message,) = [event for event in events if event["event"] == "message"]
    assert message["level"] == "warning" and "cuda" in message["text"] and "CPU" in message["text"]


def test_without_a_reporter_the_fallback_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="runs on the CPU"):
        probabilities(SmallDevice(), torch.zeros(16, 16, 16), (16, 16, 16), torch.device("cuda"))


def test_nothing_is_said_where_the_memory_suffices() -> None:
    events: list[dict[str, Any]] = []
    predict_label_map(model_of(), scan(), CPU, Reporter(events.append))
    assert not events


# Cancelling


def cancelled_after(network: Thresholds, patches: int) -> Callable[[], bool]:
    return lambda: len(network.shapes) >= patches


@pytest.mark.parametrize("patches", [0, 3])
def test_cancelling_stops_before_the_next_patch(patches: int) -> None:
    model = model_of()
    assert isinstance(model.network, Thresholds)
    with pytest.raises(Cancelled):
        predict_label_map(model, scan(), CPU, Reporter(cancelled=cancelled_after(model.network, patches)))
    assert len(model.network.shapes) == patches


def test_the_network_is_in_evaluation_mode() -> None:
    model = replace(model_of(), network=nn.Sequential(nn.Dropout(0.9), Thresholds()).train())
    ct = scan()
    assert_right(predict_label_map(model, ct, CPU), ct, 1.0)


@pytest.mark.gpu
def test_gpu_and_cpu_agree() -> None:
    ct, model = scan(), model_of()
    on_gpu = to_array(predict_label_map(model, ct, torch.device("cuda")))
    assert np.array_equal(on_gpu, to_array(predict_label_map(model, ct, CPU)))


def test_an_image_made_of_an_array_keeps_its_axes() -> None:
    ct = scan((4, 5, 6))
    assert np.array_equal(to_array(to_image(to_array(ct), ct)), to_array(ct))
