"""The anatomy of a made-up patient, structure by structure, as mm in one reference adult.

x runs to the left, y to the back, z to the head; 0 is the middle of the trunk at the pancreas. The reference becomes a
patient by scaling, by a smooth deformation of space, and by moving, swelling and roughening each structure. Soft organs
give way to firm ones because those are painted first. Our formulation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from .canvas import Body, spline_field, together

PHANTOM_ORGANS = (
    "Spleen",
    "Right kidney",
    "Left kidney",
    "Gallbladder",
    "Liver",
    "Stomach",
    "Aorta",
    "Inferior vena cava",
    "Pancreas",
)
_SPINE_Y = 42.0


def draw_patient(rng: np.random.Generator, axes: Sequence[npt.NDArray[np.floating]]) -> Body:
    """A patient on the grid with these coordinates (mm, LPS): ``hu`` and ``labels``; ``rng`` decides who it is."""
    body = Body(rng, axes, PHANTOM_ORGANS)
    for structure in _STRUCTURES:
        structure(body)
    return body


def _spine(body: Body) -> None:
    s = body.region((-48, 15, -900), (48, 105, 900))
    y = s.y - _SPINE_Y
    level = np.abs(np.mod(s.z + body.rng.uniform(0, 36), 36) - 18)  # 0 at mid vertebra, 18 at mid disc
    bulk = (1 - (np.abs(s.x / 24) ** 2.5 + np.abs(y / 17) ** 2.5) ** 0.4) * 17 - 2 * np.clip(1 - level / 9, 0, 1)
    marrow = body.rng.uniform(150, 230) + 35 * s.grain
    bone = np.where((bulk < 2.5) | (level > 11.5), 430 + 40 * s.grain, marrow)
    canal = 8 - np.hypot(s.x / 1.2, y - 27)
    spike = np.minimum(np.minimum(4.5 - np.abs(s.x), 26 - np.abs(y - 48)), 9 - np.abs(level + (y - 48) / 6))
    wing = np.minimum(np.minimum(5 - np.abs(y - 20), 44 - np.abs(s.x)), 5 - level)
    arch = np.minimum(np.minimum(canal + 6, np.where(y < 27, 5 - np.abs(level - 2), 13 - level)), y - 15)
    s.paint(canal, 25.0, outside=True)
    s.paint(bulk, np.where(level > 14, 85, bone), outside=True)
    s.paint(np.maximum(np.maximum(spike, wing), arch), 330 + 60 * s.grain, outside=True)


def _ribs(body: Body) -> None:
    s = body.everywhere()
    around = np.arctan2(np.abs(s.x), s.y)  # 0 at the back, pi in front
    across = 4 - np.abs(body.fascia - 6)
    row = np.mod(s.z + 34 * around + body.rng.uniform(0, 30), 30) - 15
    end = np.minimum(s.z + 12 - 75 * np.clip(around - 1.5, 0, None), 60 * (around - 0.35))
    rib = np.minimum(np.minimum(across, 5.5 - np.abs(row)), end)
    s.paint(rib, np.where(around > 2.35, 120, np.where(rib < 2, 420, 220)), outside=True)  # cartilage in front
    crest = -98 - 60 * (around - 1.05) ** 2 - s.z
    wing = together(across + 1, crest, 30 - 30 * np.abs(around - 1.05), rounding=2)
    s.paint(wing, 380 + 60 * s.grain, outside=True)


def _muscles(body: Body) -> None:
    for side in (-1, 1):
        path = ((27, 40, 15, 6), (36, 40, -40, 15), (46, 34, -95, 21), (54, 18, -170, 23))
        s, depth = body.tube([(side * x, y, z, r) for x, y, z, r in path], 2)
        s.paint(depth, 58 + 7 * s.grain, outside=True)
        s, depth = body.tube([(side * 6, 26, 60, 5), (side * 9, 26, 25, 6), (side * 9, 24, -5, 4)], 1)  # crus
        s.paint(depth, 60.0, outside=True)


def _chest(body: Body) -> None:
    s = body.everywhere()
    heart = np.minimum(s.ellipsoid(body.near((14, -38, 122), 4), (62, 48, 42)), -s.below - 2)
    heart += 3 * spline_field(body.rng, 45.0, s.axes)
    s.paint(heart, np.where(heart < 11, 110, body.enhanced(150)) + 6 * s.grain)
    gullet, depth = body.tube([(2, 10, 200, 8), (4, 8, 120, 9), (14, -2, 78, 8), (32, -6, 66, 8)], 2)
    gullet.paint(depth, 45 + 10 * gullet.grain, gap=2)
    middle = np.hypot(s.x, 0.5 * (s.y - 12)) - 27
    s.paint(np.minimum(-s.below - 1, middle), np.clip(-850 + 45 * s.grain, -1000, -500))
    s.paint(np.minimum(2 - np.abs(s.below + 0.5), middle), 50.0)  # diaphragm


def _vessels(body: Body) -> None:
    aorta = (
        (4, 12, 260, 14),
        (6, 13, 130, 13),
        (9, 14, 60, 12.5),
        (10, 15, 0, 12),
        (8, 16, -60, 11),
        (4, 17, -92, 10.5),
    )
    s, depth = body.tube(aorta, 2)
    s.paint(depth, body.enhanced(150) + 4 * s.grain, "Aorta", gap=1)
    cava = (
        (-24, -8, 96, 12), (-26, 0, 70, 13), (-23, 8, 35, 11),
        (-20, 12, -10, 11), (-18, 16, -60, 10), (-14, 20, -98, 9),
    )  # fmt: skip
    s, depth = body.tube(cava, 2)
    s.paint(depth + 0.8, body.enhanced(128) + 6 * s.grain, "Inferior vena cava")
    for side in (-1, 1):
        s, depth = body.tube([(side * 7, 20, -98, 7), (side * 24, 20, -130, 7), (side * 44, 10, -175, 7)], 1)
        s.paint(depth, body.enhanced(140) + 5 * s.grain, gap=1)


def _kidney(body: Body, side: int, organ: str, height: float) -> None:
    low, high = (-115, -15, -110), (-10, 90, 40)
    s = body.region(low, high) if side < 0 else body.region((10, *low[1:]), (115, *high[1:]))
    cx, cy, cz = body.near((side * 66, 40, height), (4, 3, 7))
    size = body.rng.uniform(0.95, 1.15)
    x, y, z = side * (s.x - cx) / size, (s.y - cy) / size, (s.z - cz) / size
    along = 0.95 * z + 0.22 * y - 0.2 * x
    out = 0.92 * x + 0.3 * y + 0.22 * z + 7 * (along / 54) ** 2  # lateral and back; the poles bend to the spine
    ahead = 0.92 * y - 0.3 * x - 0.2 * z
    bean = (1 - np.sqrt((along / 55) ** 2 + (out / 29) ** 2 + (ahead / 26) ** 2)) * 26 + 0.8 * s.grain
    sinus = (1 - np.sqrt((along / 24) ** 2 + ((out + 22) / 23) ** 2 + ((ahead + 3) / 9) ** 2)) * 9
    pyramids = np.cos(along / 3.2) * np.cos(ahead / 4) + 0.4 * s.grain
    cortex, medulla = body.enhanced(186, 6), body.enhanced(152, 6)
    hu = np.where((bean < 7) | (pyramids < -0.3), cortex, medulla) + 4 * s.grain
    depth = np.minimum(bean, -sinus)
    s.paint(depth, hu, organ)
    s.paint(sinus - 3, np.where(s.grain > 0.7, 60, -60).astype(np.float32))  # renal pelvis and its fat
    s.paint(bean - 1, -95 + 5 * s.grain, gap=6)
    target = (-16, 12) if side < 0 else (12, 12)
    vein = ((cx - side * 22, cy - 6, cz, 5), (side * 36, 22, height + 8, 5), (*target, height + 10, 5))
    s, depth = body.tube(vein, 1)
    s.paint(depth, body.enhanced(135) + 4 * s.grain)


def _kidneys(body: Body) -> None:
    _kidney(body, -1, "Right kidney", -34)
    _kidney(body, 1, "Left kidney", -26)


def _pancreas(body: Body) -> None:
    portal = ((-4, 0, -75, 5), (-8, -10, -30, 6), (-8, -12, -2, 7), (-20, -10, 20, 7), (-40, -12, 38, 7))
    splenic = ((-8, -10, 0, 5), (18, -9, 10, 5), (45, 8, 17, 4), (72, 24, 24, 4))
    for path in (portal, splenic):
        s, depth = body.tube(path, 1.5)
        s.paint(depth, body.enhanced(148) + 4 * s.grain)
    gland = (
        (-24, -9, -40, 11), (-30, -17, -16, 16), (-18, -24, -3, 13), (0, -29, 7, 11),
        (20, -24, 13, 12.5), (42, -8, 18, 12.5), (62, 9, 24, 11), (80, 20, 30, 8),
    )  # fmt: skip
    s, depth = body.tube(gland, 4)
    s.paint(depth + 2.2 * s.grain, body.enhanced(98) + 9 * s.grain, "Pancreas", gap=1.5)
    gut = (
        (-34, -40, 12, 13), (-54, -24, -2, 12), (-57, -10, -32, 12),
        (-38, -4, -58, 12), (0, -8, -56, 11), (34, -24, -38, 12),
    )  # fmt: skip
    s, depth = body.tube(gut, 3)
    s.paint(depth + s.grain, np.where(depth < 3.5, 80, 35 + 10 * s.grain), gap=1)


def _liver(body: Body) -> None:
    s, depth = body.tube([(-74, -66, -32, 15), (-68, -56, -16, 15), (-60, -42, 0, 11), (-50, -32, 12, 5)], 5)
    s.paint(depth, body.enhanced(8, 4) + 2 * s.grain, "Gallbladder")
    s = body.region((-150, -110, -110), (105, 95, 110))
    tip, tilt, reach = body.near((14, 0.76, 72), (6, 0.07, 12))
    undulation = 3.5 * spline_field(body.rng, 30.0, s.axes)
    visceral = 0.8 * (s.z - tip - tilt * s.x - 0.15 * s.y + 12 * np.exp(-(((s.x + 45) / 40) ** 2)) * (s.y < -20))
    left = 0.86 * (12 - 0.6 * s.x - s.y - 0.25 * (s.z - 40))
    depth = together(s.wall - 2, 0.8 * s.below - 2, visceral + undulation, left + undulation, 0.8 * (reach - s.x))
    fissure = np.minimum(
        body.rng.uniform(-1, 2.4) - np.abs(s.x - 6 - 0.15 * s.y - undulation), 45 - s.z - 0.7 * (s.y + 70)
    )
    depth = np.minimum(depth, np.where(s.y < -30, -fissure, 99))
    parenchyma = body.enhanced(110, 6)
    vessels = (s.tangle(36.0, 4.5) > 0) & (depth > 6)
    s.paint(depth, np.where(vessels, parenchyma + 32, parenchyma + 3 * s.grain), "Liver")


def _spleen(body: Body) -> None:
    s = body.region((30, -40, -40), (150, 95, 110))
    centre, radii = body.near((104, 40, 34), 6), body.near((61, 54, 62), 7)
    thick = body.rng.uniform(27, 52) + 3 * spline_field(body.rng, 30.0, s.axes)
    depth = together(s.wall - 2, 0.8 * s.below - 2, s.ellipsoid(centre, radii), thick - s.wall, rounding=5)
    s.paint(depth, body.enhanced(121, 5) + 3 * s.grain, "Spleen", gap=1)


def _stomach(body: Body) -> None:
    path = (
        (56, 22, 74, 33), (67, -6, 50, 35), (68, -36, 20, 30), (50, -60, -6, 24),
        (18, -66, -14, 20), (-12, -54, 0, 14), (-30, -44, 8, 10),
    )  # fmt: skip
    filling = body.rng.uniform(0.78, 1.1)
    s, depth = body.tube([(x, y, z, r * filling) for x, y, z, r in path], 5)
    depth = together(depth + 1.5 * s.grain, 0.8 * s.below - 2, s.wall - 3, rounding=3)
    level, content = body.rng.uniform(-115, -52), body.rng.uniform(18, 45)
    inside = np.where(s.y < level, -940, content + 14 * s.grain)
    s.paint(depth, np.where(depth < 5, body.enhanced(75), inside), "Stomach", gap=1)


def _bowel(body: Body) -> None:
    colon = (
        (-92, 22, -165, 24), (-98, 18, -110, 24), (-98, 2, -72, 22), (-82, -44, -70, 20), (-45, -74, -72, 20),
        (5, -80, -72, 20), (55, -72, -56, 20), (98, -30, -12, 20), (108, 16, -30, 16), (106, 26, -85, 15),
        (98, 24, -165, 15),
    )  # fmt: skip
    s, depth = body.tube(colon, 5)
    stool = np.where((s.grain > 0.9) | (depth > 13), -500 + 150 * s.grain, 20 + 60 * s.grain)
    s.paint(depth + 2.5 * s.grain, np.where(depth < 2.5, 65, stool), gap=1.5)
    s = body.region((-110, -110, -900), (110, 30, 15))
    loops = s.tangle(27.0, 15.5) + 0.5 * s.grain
    room = np.minimum(np.minimum(s.wall - 4, 8 - s.y), -12 - s.z)
    s.paint(np.minimum(loops, room), np.where(loops < 3.5, 95, 28 + 12 * s.grain), gap=1)
    s.paint(np.minimum(s.tangle(24.0, 2.2), room), body.enhanced(110))


_STRUCTURES: tuple[Callable[[Body], None], ...] = (
    _spine, _ribs, _muscles, _chest, _vessels, _kidneys, _pancreas, _liver, _spleen, _stomach, _bowel,
)  # fmt: skip
