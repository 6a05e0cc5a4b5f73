"""The demo: a base model, one more organ, before and after on unseen scans, with plain fine-tuning beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .api import add_organ, evaluate, load_model, train
from .cases import read_dataset, read_split
from .errors import InputError
from .events import Reporter, Sink
from .models.package import Model, package_hash, save_package
from .organs import OrganTable
from .phantom import PhantomConfig, phantom_table, write_phantom_cases
from .report import verdict_sentences
from .running import run_job
from .starter import starter_model
from .storage import write_json
from .training.config import BASE_TRAINING, STEP_TRAINING, TrainingConfig
from .training.strategies import DEFAULT

PHANTOM_BASE = ("Spleen", "Right kidney", "Left kidney", "Liver")
PHANTOM_NEW = ("Stomach",)
_PHANTOM = PhantomConfig(spacing=(4.0, 4.0, 4.0))
_BASELINE = "fine-tune"
_PHANTOMS = {"step0": (6, 0), "step1": (5, 100), "evaluation": (3, 200)}  # number of patients and seed


@dataclass(frozen=True)
class Story:
    """What the demo tells: data, organs and lengths; with ``starter`` that model is the base."""

    cases: Path
    parts: Mapping[str, Sequence[str]]
    base_organs: tuple[str, ...]
    new_organs: tuple[str, ...]
    spacing: tuple[float, float, float]
    base: TrainingConfig
    step: TrainingConfig
    starter: bool = False


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
    """Tell the story on phantoms, or on ``cases`` with ``new_organs``; all results go to ``out``.

    The base model learns ``base_organs``; with ``cases`` and without them it is the starter model.

    ``out`` gets ``report.json``, ``report.md``, ``report.html``, pictures, ``base/`` and ``candidate/``
    (model packages) and ``jobs/``.
    A demo that was stopped goes on when called again.

    Returns:
        The content of ``report.json``.

    Raises:
        IncrementalSegError: with one sentence that says what to do.
    """
    out, reporter = Path(out).resolve(), Reporter(*sinks, cancelled=cancelled)
    if cases is None:
        story = _phantom_story(out, base_organs, new_organs)
    else:
        story = _real_story(Path(cases).resolve(), split, base_organs, new_organs)
    story = replace(
        story,
        base=replace(story.base, steps=story.base.steps if base_steps is None else base_steps, device=device),
        step=replace(story.step, steps=story.step.steps if steps is None else steps, device=device),
    )
    OrganTable.from_names(story.base_organs + story.new_organs)  # refuses an organ that is named twice
    _keep_to_one_story(story, out)
    if cases is None:
        _make_phantoms(story, reporter)
    return _tell(story, out, reporter)


def _keep_to_one_story(story: Story, out: Path) -> None:
    """Note what this demo is about; a second call may go on with it but not mix another one in."""
    told = asdict(story) | {"cases": "" if story.cases.is_relative_to(out) else str(story.cases)}
    told["base"], told["step"] = ({**asdict(config), "device": ""} for config in (story.base, story.step))
    told, path = json.loads(json.dumps(told)), out / "demo.json"
    if not path.exists():
        write_json(path, told)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: give another folder with --out.") from error
    if other := [name for name in told if before.get(name) != told[name]]:
        raise InputError(
            f"{out} holds a demo with other settings ({', '.join(other)}): give another one with --out, or delete it."
        )


def _phantom_story(out: Path, base_organs: Sequence[str] | None, new_organs: Sequence[str] | None) -> Story:
    base, new = tuple(base_organs or PHANTOM_BASE), tuple(new_organs or PHANTOM_NEW)
    for name in (*base, *new):
        phantom_table().find(name)
    names = {part: [f"{part}_{i:02}" for i in range(count)] for part, (count, _) in _PHANTOMS.items()}
    training = TrainingConfig(steps=1000, patch=(48, 48, 48))
    few = replace(training.augmentation, copies=0)  # they need longer training to pay
    step = replace(STEP_TRAINING, steps=800, patch=training.patch, augmentation=few)
    return Story(out / "phantoms", names, base, new, _PHANTOM.spacing, training, step)


def _make_phantoms(story: Story, reporter: Reporter) -> None:
    base, new = story.base_organs, story.new_organs
    annotated = {"step0": base, "step1": new, "evaluation": base + new}
    for number, (part, (_, seed)) in enumerate(_PHANTOMS.items(), start=1):
        folder = story.cases / part
        if not (folder / "dataset.json").exists():
            write_phantom_cases(folder, story.parts[part], seed, _PHANTOM, annotated[part])
        reporter.progress("phantoms", number, len(_PHANTOMS))


def _real_story(
    cases: Path, split: Path | str | None, base_organs: Sequence[str] | None, new_organs: Sequence[str] | None
) -> Story:
    if not new_organs:
        raise InputError("With --cases, name the organs to add too: --new-organ Pancreas.")
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
    base = tuple(base_organs or load_model(starter_model()).organs.names)
    lengths = ((3.0, 3.0, 3.0), BASE_TRAINING, STEP_TRAINING)
    story = Story(cases, names, base, tuple(new_organs), *lengths, starter=not base_organs)
    for part, organs in (("step0", base_organs or None), ("step1", new_organs), ("evaluation", None)):
        read_dataset(_folder(story, part), organs, names[part])  # refuses now what would fail after a long training
    return story


def _folder(story: Story, part: str) -> Path:
    return story.cases / part if (story.cases / part).is_dir() else story.cases


def _tell(story: Story, out: Path, reporter: Reporter) -> dict[str, Any]:
    if not story.starter:
        base = _job(out, "base", reporter, lambda job, **session: _train(story, job, **session))
        _publish(out / "jobs" / "base" / "model", out / "base")
    else:
        _publish(starter_model(), out / "base")
        base = load_model(out / "base")
    candidates = {}
    for strategy in (DEFAULT, _BASELINE):
        candidates[strategy] = _job(
            out,
            strategy,
            reporter,
            lambda job, strategy=strategy, **session: _add(story, base, strategy, job, **session),
        )
    _publish(out / "jobs" / DEFAULT / "model", out / "candidate")
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


def _publish(package: Path, place: Path) -> None:
    if (place / "checksums.json").exists() and package_hash(place) == package_hash(package):
        return
    shutil.rmtree(place, ignore_errors=True)
    save_package(load_model(package), place)


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
