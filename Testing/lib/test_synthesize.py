"""Inversion: the image moves until the model sees what was asked for; windows, recipes, competition, quality."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from IncrementalSegLib.errors import Cancelled, IncrementalSegError, InputError
from IncrementalSegLib.inversion import synthesize
from IncrementalSegLib.inversion.intensities import Intensities
from IncrementalSegLib.inversion.quality import Synthetic, diversity, quality_table
from IncrementalSegLib.inversion.recipes import RECIPES, Recipe, recipe_named
from IncrementalSegLib.inversion.statistics import FeatureStatistics, feature_distance, watch
from IncrementalSegLib.inversion.synthesize import Inverter, jensen_shannon
from IncrementalSegLib.losses.unbiased import IGNORE
from IncrementalSegLib.models.networks import NetworkSpec, build_network
from IncrementalSegLib.organs import OrganTable

pytestmark = pytest.mark.usefixtures("one_thread")

SPEC = NetworkSpec(
    "UNet", {"spatial_dims": 3, "channels": [4, 8], "strides": [2], "num_res_units": 0, "norm": "batch"}, 4
)
EDGE, CPU = 16, torch.device("cpu")
BRIGHT, MIDDLE = 0.6, 0.1


def images(generator: torch.Generator, count: int, edge: int = EDGE) -> tuple[Tensor, Tensor]:
    """Boxes of organ 1 (bright) and organ 2 (middle) in a dark body: images (N, 1, …) and channels (N, …)."""
    labels = torch.zeros(count, edge, edge, edge, dtype=torch.long)
    for sample in labels:
        a, b = torch.randint(1, 5, (2, 3), generator=generator).tolist()
        sample[a[0] : a[0] + 5, a[1] : a[1] + 6, a[2] : a[2] + 7] = 1
        sample[b[0] + 6 : b[0] + 11, b[1] + 5 : b[1] + 10, b[2] + 4 : b[2] + 10] = 2
    levels = torch.tensor([-0.5, BRIGHT, MIDDLE])[labels]
    return (levels + 0.05 * torch.randn(labels.shape, generator=generator))[:, None], labels


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    """A tiny network that has learned to tell the boxes apart."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network, generator = build_network(SPEC, 3), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(120):
        image, labels = images(generator, 4)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(image), labels, torch.tensor([0.2, 1.0, 1.0])).backward()
        optimizer.step()
    return network.eval()


def inverter(teacher: nn.Module, recipe: Recipe, **options: object) -> Inverter:
    return Inverter(teacher, FeatureStatistics.of_batchnorm(teacher), recipe, (EDGE,) * 3, CPU, **options)  # type: ignore[arg-type]


def seen(teacher: nn.Module, image: Tensor, mask: Tensor) -> tuple[float, float]:
    """Mean DSC of both organs, and R."""
    statistics = FeatureStatistics.of_batchnorm(teacher)
    with torch.inference_mode(), watch(teacher, statistics) as features:
        predicted = teacher(image).argmax(1)
        distance = float(feature_distance(features, statistics))
    scores = [2 * ((predicted == c) & (mask == c)).sum() / ((predicted == c).sum() + (mask == c).sum()) for c in (1, 2)]
    return float(np.mean(scores)), distance


def asked() -> tuple[Tensor, Tensor]:
    """A start without contrast and the mask that is wanted."""
    _, mask = images(torch.Generator().manual_seed(9), 2)
    return torch.full((2, 1, EDGE, EDGE, EDGE), -0.3), mask


@pytest.mark.parametrize("name", ["fast", "reference"])
def test_the_model_comes_to_see_what_was_asked_for(teacher: nn.Module, name: str) -> None:
    start, mask = asked()
    recipe = replace(
        RECIPES[name], iterations=60, learning_rate=0.1, half=False, levels=(4, 2, 1)[: 3 * (name == "fast")]
    )
    before, after = seen(teacher, start, mask), seen(teacher, run(inverter(teacher, recipe), start, mask), mask)
    assert before[0] < 0.3 and after[0] > 0.85
    assert after[1] < before[1]


def run(tool: Inverter, start: Tensor, mask: Tensor, listener: Callable[..., None] = lambda *heard: None) -> Tensor:
    return tool.run(start, mask, None, np.random.default_rng(2), listener)


def holding(teacher: nn.Module, most: int) -> nn.Module:
    """The teacher on a device that has memory for so many windows."""
    copy = deepcopy(teacher)

    def refuse(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if len(given[0]) > most:
            raise RuntimeError("CUDA error: out of memory")

    copy.register_forward_pre_hook(refuse)
    return copy


def test_windows_that_do_not_fit_together_are_seen_one_by_one(teacher: nn.Module) -> None:
    recipe = replace(RECIPES["fast"], iterations=3, half=False)
    small = inverter(holding(teacher, 1), recipe)
    assert torch.equal(run(small, *asked()), run(inverter(teacher, recipe, batch=1), *asked()))
    assert small.batch == 1
    with pytest.raises(IncrementalSegError, match="too little memory for synthetic volumes"):
        run(replace(inverter(teacher, recipe), teacher=holding(teacher, 0)), *asked())


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_only_gpus_that_have_bfloat16_use_it(monkeypatch, teacher: nn.Module, capability, dtype) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    tool = replace(inverter(teacher, replace(RECIPES["fast"], half=True)), device=torch.device("cuda"))
    assert tool._precision().dtype is dtype


def test_the_teacher_is_left_as_it_was(teacher: nn.Module) -> None:
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    run(inverter(teacher, replace(RECIPES["fast"], iterations=2)), *asked())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert not any(module._forward_pre_hooks for module in teacher.modules())


def test_the_same_seed_gives_the_same_image_and_a_listener_can_stop(teacher: nn.Module) -> None:
    recipe = replace(RECIPES["fast"], iterations=3)
    first, second = (run(inverter(teacher, recipe), *asked()) for _ in range(2))
    assert torch.equal(first, second)

    def stop(iteration: int, parts: dict[str, float], current: Callable[[], Tensor]) -> None:
        assert {"mask", "features"} <= parts.keys()
        assert current().shape == asked()[0].shape and not current().requires_grad
        if iteration == 2:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        run(inverter(teacher, recipe), *asked(), stop)


def test_a_volume_larger_than_a_window_is_made_whole(teacher: nn.Module) -> None:
    image, mask = (part[..., :20, :] for part in images(torch.Generator().manual_seed(3), 1, edge=28))
    recipe = replace(RECIPES["fast"], iterations=50, learning_rate=0.1, half=False, levels=(4, 2, 1), jitter=4)
    made = run(inverter(teacher, recipe), torch.full_like(image, -0.3), mask)
    assert made.shape == image.shape and seen(teacher, made, mask)[0] > 0.8


def test_windows_cover_every_voxel_of_every_volume(teacher: nn.Module) -> None:
    tool, generator = inverter(teacher, replace(RECIPES["fast"], jitter=4)), np.random.default_rng(0)
    for _ in range(20):
        covered = np.zeros((2, 40, 16, 33), int)
        for number, corner in tool._windows(covered.shape, generator):
            box = tuple(slice(a, a + EDGE) for a in corner)
            assert covered[number][box].shape == (EDGE,) * 3
            covered[number][box] += 1
        assert covered[:, 4:-4, :, 4:-4].min() > 0


def test_a_single_window_moves_within_its_volume() -> None:
    starts = {synthesize._starts(20, 16, 8, np.random.default_rng(seed))[0] for seed in range(40)}
    assert starts == {0, 1, 2, 3, 4}
    assert synthesize._starts(16, 16, 8, np.random.default_rng(0)) == [0]


def test_jensen_shannon_is_0_for_equal_and_1_for_opposite_models_with_new_organs_as_background() -> None:
    sure = torch.tensor([20.0, -20.0, -20.0]).view(1, 3, 1, 1, 1)
    other = torch.tensor([-20.0, 20.0, -20.0]).view(1, 3, 1, 1, 1)
    assert jensen_shannon(sure, sure).item() == pytest.approx(0, abs=1e-6)
    assert jensen_shannon(sure, other).item() == pytest.approx(1, abs=1e-4)
    new = torch.tensor([-20.0, -20.0, -20.0, 20.0]).view(1, 4, 1, 1, 1)
    assert jensen_shannon(sure, new).item() == pytest.approx(0, abs=1e-4)


def test_competition_makes_images_on_which_the_student_disagrees(teacher: nn.Module) -> None:
    student = deepcopy(teacher)
    with torch.no_grad():
        student.get_submodule("head").bias[1] += 4.0  # type: ignore[operator, index]
    start, mask = asked()
    base = replace(RECIPES["fast"], iterations=25, learning_rate=0.1, half=False, levels=(4, 2, 1), mask=0.1)

    def agreement(weight: float) -> float:
        made = run(inverter(teacher, replace(base, competition=weight), student=student), start, mask)
        with torch.inference_mode():
            return 1 - jensen_shannon(teacher(made), student(made)).item()

    assert agreement(50.0) < agreement(0.0) - 0.01


def test_refuses_a_recipe_that_is_not_known() -> None:
    with pytest.raises(InputError, match="'quick' is not known: choose one of reference, fast, grounded"):
        recipe_named("quick")


def test_the_reference_recipe_is_the_published_one() -> None:
    r = RECIPES["reference"]
    assert (r.start, r.iterations, r.learning_rate, r.mask, r.statistics, r.variation) == (
        "noise",
        2000,
        0.1,
        10,
        1,
        2.5e-5,
    )
    assert r.published_distance and not r.levels and not r.jitter


ORGANS = OrganTable.from_names(["Liver", "Spleen"])


def sample(spleen_found: bool = True) -> Synthetic:
    requested = np.zeros((10, 10, 10), np.uint8)
    requested[:4], requested[6:, :5] = 1, 2
    predicted = requested.copy()
    predicted[3] = 0
    if not spleen_found:
        predicted[requested == 2] = 0
        predicted[9, 9, 9] = 2
    return Synthetic(np.full(requested.shape, 0.5, np.float32), requested, predicted, {"first": 0.2, "second": 0.4})


def test_an_organ_that_did_not_come_out_is_ignored_and_the_others_are_learned() -> None:
    good, bad = sample(), sample(spleen_found=False)
    assert good.dice(1) == pytest.approx(6 / 7) and good.kept(1) and good.kept(2)
    assert np.array_equal(good.target(2), good.predicted)
    assert not bad.kept(2)
    target = bad.target(2)
    assert (target[bad.requested == 2] == IGNORE).all() and target[9, 9, 9] == IGNORE
    assert (target[:3] == 1).all() and (target[3:6] == 0).all()


def test_how_little_a_mask_was_changed_is_told_where_there_was_a_scan() -> None:
    zeros = np.zeros(7, np.float32)
    known = Intensities(zeros, zeros, np.zeros((7, 3)), np.ones((7, 64), np.float32))
    shifted = np.roll(sample().requested, 2, 0)  # half of the liver's four layers, half of the spleen's
    table = quality_table([replace(sample(), unwarped=shifted)], ORGANS, known, 400.0)
    assert table["dice_to_scan"] == pytest.approx(0.5)


def test_the_table_counts_and_averages() -> None:
    zeros = np.zeros(7, np.float32)
    histogram = np.zeros((7, 64), np.float32)
    histogram[:, 48] = 1
    table = quality_table(
        [sample(), sample(False)], ORGANS, Intensities(zeros, zeros, np.zeros((7, 3)), histogram), 400.0
    )
    assert (table["requested"], table["kept"], table["dropped"]) == (4, 3, 1)
    liver, spleen = (table["organs"][organ.key] for organ in ORGANS)
    assert liver["dice"] == pytest.approx(6 / 7) and spleen["kept"] == 1 and spleen["requested"] == 2
    assert liver["histogram_distance_hu"] == pytest.approx(0, abs=1e-3)
    assert table["feature_distance"] == pytest.approx((10 * 0.2 + 0.4) / 2)
    assert table["layers"] == pytest.approx({"first": 0.2, "second": 0.4})
    assert table["dice_to_scan"] is None
    assert diversity([sample(), sample()]) == {"image_diversity": 0.0, "mask_diversity": 0.0}
