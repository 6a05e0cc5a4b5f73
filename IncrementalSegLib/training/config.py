"""What a training run is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a patch: angles in degrees per axis (x, y, z), intensities on the [-1, 1] scale.

    ``shading`` is the largest standard deviation of a smooth field that is added, ``organ_shift`` the largest change of
    an annotated organ's brightness against what surrounds it (contrast phases, fatty livers), ``blur`` the chance of
    smoothing; ``flip`` is the chance of a left-right mirror, which swaps paired organs; it is 0 because most abdominal
    organs have no mirrored partner. ``copies``: warped copies of every scan, in which organs change their size, shape
    and place; they pay from about 2,000 steps on.
    """

    rotation: tuple[float, float, float] = (10.0, 10.0, 15.0)
    scale: tuple[float, float] = (0.75, 1.3)
    contrast: tuple[float, float] = (0.75, 1.3)
    brightness: float = 0.2
    shading: float = 0.2
    organ_shift: float = 0.4
    noise: float = 0.1
    blur: float = 0.2
    flip: float = 0.0
    copies: int = 8


@dataclass(frozen=True)
class TrainingConfig:
    """Length and shape of a run.

    The budget of a run is ``steps × batch × voxels of a patch``. ``precision`` is ``float32``, ``bfloat16``,
    ``float16`` (GPU only) or ``auto``: float16 on a GPU, bfloat16 on CPUs that compute it natively. ``head_rate``: the
    head's learning rate against the other layers'. After an organ was added its biases have a way to go: the background
    begins at a fraction of its probability, and Adam moves no weight faster than the rate (our formulation).
    """

    steps: int = 1000
    batch: int = 2
    patch: tuple[int, int, int] = (64, 64, 64)
    learning_rate: float = 3e-3
    head_rate: float = 1.0
    weight_decay: float = 1e-2
    warmup: float = 0.1
    clip_norm: float = 12.0
    organ_fraction: float = 0.67
    augmentation: Augmentation = Augmentation()
    seed: int = 0
    precision: str = "auto"
    device: str = "auto"
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if self.steps < 1 or self.batch < 1 or min(self.patch) < 32:
            raise InputError(
                f"steps {self.steps}, batch {self.batch}, patch {self.patch}: ask for 1 step, 1 patch, 32 voxels or "
                "more."
            )
        if self.seed < 0 or not min(self.learning_rate, self.head_rate) > 0 or self.precision not in PRECISIONS:
            raise InputError(
                f"seed {self.seed}, learning rate {self.learning_rate} (head: times {self.head_rate}), precision "
                f"{self.precision}: ask for a seed of 0 or more, rates above 0, and {', '.join(PRECISIONS)}."
            )

    def with_settings(self, content: dict[str, Any]) -> TrainingConfig:
        """This configuration with the settings that a job's JSON names; lists become tuples.

        Raises:
            InputError: an unknown setting.
        """
        try:
            inner = replace(self.augmentation, **_tuples(content.get("augmentation", {})))
            return replace(self, **{**_tuples(content), "augmentation": inner})
        except TypeError as error:
            raise InputError(f"The training settings hold something unknown ({error}): correct job.json.") from error


def _tuples(content: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}


# What the benchmark on real CT was run with.
BASE_TRAINING = TrainingConfig(steps=4500)
STEP_TRAINING = TrainingConfig(steps=2500, learning_rate=2e-3, head_rate=10.0)
