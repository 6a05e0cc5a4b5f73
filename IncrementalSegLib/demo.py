"""The demo: a base model, one more organ, before and after on unseen scans, with plain fine-tuning beside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .api import add_organ, evaluate, load_model, train
from .cases import read_dataset, read_split
from .errors import InputError
from .events import Reporter, Sink
from .jobs import run_job
from .models.package import Model
from .phantom import PhantomConfig, write_phantom_cases
from .report import verdict_sentences
from .training.config import TrainingConfig
from .training.strategies import DEFAULT

PHANTOM_BASE = ("Spleen", "Right kidney", "Left kidney", "Liver")
PHANTOM_NEW = ("Stomach",)
_SPACING = (4.0, 4.0, 4.0)
_BASELINE = "fine-tune"


@dataclass(frozen=True)
class Story:
    """What the demo tells: data, organs and lengths."""

    cases: Path
    parts: Mapping[str, Sequence[str]]
    base_organs: tuple[str, ...]
    new_organs: tuple[str, ...]
    spacing: tuple[float, float, float]
    base: TrainingConfig
    step: TrainingConfig


def demo(
    out: Path | str,
    *,
    cases: Path | str | None = None,
    split: Path | str | None = None,
    base_organs: Sequence[str] | None = None,
    new_organs: Sequence[str] | None = None,
    base_steps: int | None = None,
    steps: int | None = None,
    device: str = "auto",
    sinks: Sequence[Sink] = (),
    cancelled: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Tell the story on phantoms, or on ``cases`` with ``base_organs`` and ``new_organs``; all results go to ``out``.

    ``out`` gets ``report.json``, ``report.md``, pictures, ``base/`` and ``candidate/`` (model packages) and ``jobs/``.
    A demo that was stopped goes on when called again.

    Returns:
        The content of ``report.json``.

    Raises:
        IncrementalSegError: with one sentence that says what to do.
    """
    out = Path(out)
    reporter = Reporter(*sinks, cancelled=cancelled)
    if cases is None:
        story = _phantom_story(out, base_organs, new_organs, reporter)
    else:
        story = _real_story(Path(cases), split, base_organs, new_organs)
    story = replace(
        story,
        base=replace(story.base, steps=base_steps or story.base.steps, device=device),
        step=replace(story.step, steps=steps or story.step.steps, device=device),
    )
    return _tell(story, out, reporter)


def _phantom_story(
    out: Path, base_organs: Sequence[str] | None, new_organs: Sequence[str] | None, reporter: Reporter
) -> Story:
    base, new = tuple(base_organs or PHANTOM_BASE), tuple(new_organs or PHANTOM_NEW)
    folders = {"step0": (base, 6, 0), "step1": (new, 5, 100), "evaluation": (base + new, 3, 200)}
    names = {part: [f"{part}_{i:02}" for i in range(count)] for part, (_, count, _) in folders.items()}
    for number, (part, (organs, _, seed)) in enumerate(folders.items(), start=1):
        if not (out / "phantoms" / part / "dataset.json").exists():
            write_phantom_cases(out / "phantoms" / part, names[part], seed, PhantomConfig(spacing=_SPACING), organs)
        reporter.progress("phantoms", number, len(folders))
    training = TrainingConfig(steps=400, patch=(48, 48, 48), batch=2)
    return Story(
        out / "phantoms", names, base, new, _SPACING, training, replace(training, steps=250, learning_rate=1e-3)
    )


def _real_story(
    cases: Path, split: Path | str | None, base_organs: Sequence[str] | None, new_organs: Sequence[str] | None
) -> Story:
    if not base_organs or not new_organs:
        raise InputError("With --cases, name the organs too: --base-organs Liver Spleen … --new-organ Pancreas.")
    parts = ("step0", "step1", "evaluation")
    if split or (cases / "split.json").exists():
        names = {part: read_split(split or cases / "split.json", part) for part in parts}
    else:
        everything = [case.name for case in read_dataset(cases)]
        if len(everything) < 3:
            raise InputError(
                f"{cases} has {len(everything)} cases: the demo needs three or more (base, step, evaluation)."
            )
        names = {part: everything[i::3] for i, part in enumerate(parts)}
    base, step = TrainingConfig(steps=3000), TrainingConfig(steps=800, learning_rate=3e-4)
    return Story(cases, names, tuple(base_organs), tuple(new_organs), (3.0, 3.0, 3.0), base, step)


def _folder(story: Story, part: str) -> Path:
    return story.cases / part if (story.cases / part).is_dir() else story.cases


def _tell(story: Story, out: Path, reporter: Reporter) -> dict[str, Any]:
    base = _job(out, "base", reporter, lambda job, **session: _train(story, job, **session))
    _publish(out, "base", "base")
    candidates = {}
    for strategy in (DEFAULT, _BASELINE):
        candidates[strategy] = _job(
            out,
            strategy,
            reporter,
            lambda job, strategy=strategy, **session: _add(story, base, strategy, job, **session),
        )
    _publish(out, DEFAULT, "candidate")
    return _compare(story, out, base, candidates, reporter)


def _job(out: Path, name: str, reporter: Reporter, start: Callable[..., Model]) -> Model:
    """A finished, begun or new job of this name."""
    job = out / "jobs" / name
    if (job / "model").exists():
        return load_model(job / "model")
    reporter.message({"base": "Base model", _BASELINE: "Fine-tuning, for comparison"}.get(name, "Adding the new organ"))
    if (job / "job.json").exists():
        return run_job(job, *reporter.sinks, cancelled=reporter.cancelled)
    return start(job, sinks=reporter.sinks, cancelled=reporter.cancelled)


def _train(story: Story, job: Path, **session: Any) -> Model:
    return train(
        _folder(story, "step0"),
        story.base_organs,
        job,
        train_cases=story.parts["step0"],
        heldout=[],
        spacing=story.spacing,
        training=story.base,
        **session,
    )


def _add(story: Story, base: Model, strategy: str, job: Path, **session: Any) -> Model:
    return add_organ(
        base,
        _folder(story, "step1"),
        story.new_organs,
        job,
        strategy=strategy,
        train_cases=story.parts["step1"],
        heldout=[],
        training=story.step,
        allow_overlap=True,
        **session,
    )


def _publish(out: Path, job: str, name: str) -> None:
    if not (out / name).exists():
        shutil.copytree(out / "jobs" / job / "model", out / name)


def _compare(
    story: Story, out: Path, base: Model, candidates: Mapping[str, Model], reporter: Reporter
) -> dict[str, Any]:
    cases = read_dataset(_folder(story, "evaluation"), names=story.parts["evaluation"])
    beside = evaluate(candidates[_BASELINE], cases, out / _BASELINE, old=base, reporter=reporter)
    baseline = {organ["name"]: organ["dsc_after"] for organ in beside["organs"]}
    report = evaluate(candidates[DEFAULT], cases, out, old=base, reporter=reporter, extra={_BASELINE: baseline})
    reporter.message(_table(report, baseline))
    for sentence in verdict_sentences(report):
        reporter.message(sentence)
    reporter.message(f"Verdict: {report['verdict']}. Report and pictures: {out}")
    return report


def _table(report: Mapping[str, Any], baseline: Mapping[str, float | None]) -> str:
    lines = [f"{'DSC on unseen scans':<24}{'before':>8}{'after':>8}{_BASELINE:>11}"]
    for organ in report["organs"]:
        name = f"{organ['name']}{' (new)' if organ['role'] == 'new' else ''}"
        values = (organ["dsc_before"], organ["dsc_after"], baseline.get(organ["name"]))
        before, after, other = ("—" if value is None else f"{value:.3f}" for value in values)
        lines.append(f"{name:<24}{before:>8}{after:>8}{other:>11}")
    return "\n".join(lines)
