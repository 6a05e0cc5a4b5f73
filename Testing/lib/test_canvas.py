"""The parametrised image: windows without seams, no voxel-sized noise, nothing outside the body."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from IncrementalSegLib.inversion.canvas import Canvas, smoothed, total_variation

LEVELS = (8, 4, 2, 1)


def random_canvas(
    shape: tuple[int, int, int] = (21, 18, 25), levels: tuple[int, ...] = LEVELS, **options: Tensor
) -> Canvas:
    torch.manual_seed(3)
    canvas = Canvas(torch.rand(2, 1, *shape) * 0.2 - 0.1, levels=levels, **options)
    for grid in canvas.grids:
        grid.data += 0.05 * torch.randn_like(grid)
    return canvas


@pytest.mark.parametrize("levels", [LEVELS, (3, 2), (1,), ()])
@pytest.mark.parametrize("corner", [(0, 0, 0), (5, 2, 9), (13, 10, 17), (1, 7, 4)])
def test_a_window_is_that_part_of_the_whole(levels: tuple[int, ...], corner: tuple[int, int, int]) -> None:
    canvas, size = random_canvas(levels=levels), (8, 8, 8)
    whole = canvas.images()
    box = tuple(slice(a, a + n) for a, n in zip(corner, size, strict=True))
    for number in range(2):
        window = canvas.window(number, corner, size)
        assert torch.allclose(window[0, 0], whole[(number, 0, *box)], atol=1e-6)


def test_an_untouched_canvas_is_its_start() -> None:
    start = torch.rand(1, 1, 9, 10, 11) * 2 - 1
    for levels in (LEVELS, ()):
        assert torch.equal(Canvas(start, levels=levels).images(), start)


def test_noise_of_one_voxel_cannot_be_painted() -> None:
    checkers = torch.tensor([1.0, -1.0]).repeat(6)
    board = checkers[:, None, None] * checkers[None, :, None] * checkers
    canvas = Canvas(torch.zeros(1, 1, 10, 10, 10), levels=(1,))
    canvas.grids[0].data[..., :12, :12, :12] = 0.5 * board
    assert canvas.window(0, (0, 0, 0), (9, 9, 9)).abs().max() < 1e-6
    lines = checkers[:, None, None].expand(12, 12, 12)
    assert smoothed(lines[None, None]).abs().max() < 1e-6


def test_smoothing_keeps_the_mean_and_loses_a_voxel_on_every_side() -> None:
    out = smoothed(torch.full((1, 1, 6, 7, 8), 0.3))
    assert out.shape == (1, 1, 4, 5, 6)
    assert torch.allclose(out, torch.full_like(out, 0.3))


def test_nothing_changes_outside_the_body() -> None:
    body = torch.zeros(2, 1, 21, 18, 25, dtype=torch.bool)
    body[..., 4:15, 3:12, 5:20] = True
    canvas = random_canvas(changeable=body)
    change = canvas.images() - canvas.start
    assert change[~body].abs().max() == 0 and change[body].abs().max() > 0.01


def test_the_gradient_of_a_window_reaches_every_level_of_its_volume_only() -> None:
    canvas = random_canvas()
    canvas.window(1, (4, 4, 4), (8, 8, 8)).sum().backward()
    for grid in canvas.grids:
        assert grid.grad is not None
        assert grid.grad[1].abs().sum() > 0 and grid.grad[0].abs().sum() == 0


def test_images_stay_on_the_scale() -> None:
    canvas = random_canvas()
    canvas.grids[0].data += 5
    assert canvas.images().max() == 1


def test_total_variation_of_a_ramp_is_its_slope() -> None:
    ramp = torch.arange(6.0)[:, None, None].expand(6, 5, 4)[None, None]
    assert total_variation(0.1 * ramp).item() == pytest.approx(0.1)
    assert total_variation(torch.ones(1, 1, 4, 4, 4)).item() == 0
