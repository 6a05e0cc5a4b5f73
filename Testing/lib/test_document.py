"""The report as a document: one self-contained page, readable by everyone and on paper, that names no patient."""

from __future__ import annotations

import json
import re
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helping import files
from pages import Reader

from IncrementalSegLib.api import evaluate
from IncrementalSegLib.document import job_page, result_text, write_document, write_job_document
from IncrementalSegLib.document import page as renderer
from IncrementalSegLib.errors import InputError
from IncrementalSegLib.models.package import load_model
from IncrementalSegLib.organs import Organ, OrganTable
from IncrementalSegLib.phantom import PhantomConfig, write_phantom_cases
from IncrementalSegLib.report import OrganReport, build_report
from IncrementalSegLib.running import run_job

ATTACK = '<script>alert("x")</script>'
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)


def organ(name: str, role: str, **values: Any) -> OrganReport:
    return OrganReport(name, OrganTable.from_names([name]).keys[0], role, **values)


def report_of(*organs: OrganReport, **more: Any) -> dict[str, Any]:
    return build_report("full", organs, (7, 2), 754.0, 2048.0, **more)


LIVER = organ("Liver", "old", dsc_before=0.951, dsc_after=0.948, hd95_before=4.2, hd95_after=4.4, agreement=0.97)
SPLEEN = organ("Spleen", "old", agreement=0.9)
STOMACH = organ("Stomach", "new", dsc_after=0.71, hd95_after=9.1, nsd_after=0.6)
BASE = {"step": 0, "strategy": "base", "organs": ["10200004", "78961009"], "parent": "", "cases": 6, "steps": 4500,
        "data": "d" * 64, "seed": 0, "versions": {"IncrementalSegLib": "0.0.9", "torch": "2.6.0"}}  # fmt: skip
STEP = {**BASE, "step": 1, "strategy": "full", "organs": ["69695003"], "parent": "a" * 64, "cases": 7, "data": "e" * 64,
        "steps": 2500}  # fmt: skip


def model(*names: str, history: tuple[dict[str, Any], ...] = (BASE, STEP)) -> Any:
    table = OrganTable.from_names(names or ("Liver", "Spleen", "Stomach"))
    return SimpleNamespace(organs=table, history=history, hash="b" * 64)


def page_of(folder: Path, *organs: OrganReport, **more: Any) -> Reader:
    write_document(report_of(*(organs or (LIVER, SPLEEN, STOMACH))), more.pop("model", model()), folder, **more)
    return Reader((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_is_whole_html_with_language_title_and_headings_in_order(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert page.declared == "DOCTYPE html"
    assert page.every("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.seen if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(deeper - level <= 1 for level, deeper in pairwise(levels))
    names = [attributes["id"] for _, attributes in page.seen if "id" in attributes]
    assert len(names) == len(set(names))
    assert {section["aria-labelledby"] for section in page.every("section")} == set(names)
    assert all(cell["scope"] in ("col", "row", "rowgroup") for cell in page.every("th"))


def test_the_page_asks_for_nothing_from_elsewhere_and_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "planes.png").write_bytes(PIXEL)
    page = page_of(tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not {"script", "link", "iframe", "object", "embed", "form", "a"} & {tag for tag, _ in page.seen}
    assert "url(" not in text and "@import" not in text and "http:" not in text and "https:" not in text
    assert not [name for _, attributes in page.seen for name in attributes if name.startswith("on")]
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.every("img"))
    (policy,) = [meta["content"] for meta in page.every("meta") if "http-equiv" in meta]
    assert str(policy).startswith("default-src 'none'")


def test_what_names_hold_is_shown_and_never_executed(tmp_path: Path) -> None:
    table = [Organ(ATTACK, 1), Organ("Liver & <b>bile</b>", 2)]
    hostile = {**STEP, "strategy": ATTACK, "organs": [ATTACK], "data": f"{ATTACK}", "versions": {"torch": ATTACK}}
    lines = [OrganReport(one.name, one.key, role, 0.9, 0.9) for one, role in zip(table, ("old", "new"), strict=True)]
    odd = SimpleNamespace(organs=OrganTable(table), history=(BASE, hostile), hash=ATTACK)
    page = page_of(tmp_path, *lines, model=odd, extra={ATTACK: {ATTACK: 0.5}})
    assert not page.every("script") and not page.every("b")
    assert ATTACK in page.text and "Liver & <b>bile</b>" in page.text
    assert "<script" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_every_figure_is_there_as_text_and_said_in_words(tmp_path: Path) -> None:
    text = page_of(tmp_path, extra={"fine-tune": {"Liver": 0.123}}).text
    for number in ("0.951", "0.948", "4.2", "4.4", "0.970", "0.710", "9.1", "0.600", "0.900", "0.123"):
        assert f" {number} " in text, number
    assert "Not good. Lost: Spleen. Learned: Stomach. Kept: Liver." in text
    assert "Spleen lost: the old and the new model agree at 0.900 on 2 held-out cases (not annotated)." in text


def test_the_page_says_what_was_added_how_and_from_what(tmp_path: Path) -> None:
    text = page_of(tmp_path).text
    for fact in (
        "Update report: Stomach",
        "New organ: Stomach SNOMED CT 69695003 (Stomach)",
        "Organs it knew Liver, Spleen",
        "Strategy full",
        "Training steps 2500, seed 0",
        "Training cases 7",
        "Held-out cases 2",
        f"Training data, SHA-256 {'e' * 64}",
    ):
        assert fact in text, fact
    assert text.count("For research use only. Not a medical device.") == 2


def test_an_organ_is_given_with_its_side_and_one_without_a_code_says_so(tmp_path: Path) -> None:
    names = ["Left kidney", "Our structure"]
    text = page_of(tmp_path, *(organ(name, "new", dsc_after=0.5) for name in names), model=model(*names)).text
    assert "Organ: Left kidney SNOMED CT 64033007 (Kidney) with 7771000 (Left)" in text
    assert "Organ: Our structure no SNOMED CT code: known by its name" in text
    assert "Model report: Left kidney, Our structure" in text


def test_the_lineage_gives_every_step_with_the_hash_of_the_model_that_it_made(tmp_path: Path) -> None:
    foreign = {"step": 0, "strategy": "imported", "organs": ["10200004"], "parent": "", "cases": 0,
               "source": {"tool": "nnU-Net", "weights": "f" * 64, "licence": "CC BY 4.0"}}  # fmt: skip
    text = page_of(tmp_path, model=model(history=(foreign, STEP))).text
    assert f"0 imported Liver tool nnU-Net, licence CC BY 4.0 {'a' * 64} {'f' * 64}" in text
    assert f"1 full Stomach 7 cases, 2500 steps IncrementalSegLib 0.0.9, torch 2.6.0 {'b' * 64} {'e' * 64}" in text
    assert page_of(tmp_path, model=model(history=())).text.count("SHA-256") == 0


def test_pictures_have_a_description_and_what_is_too_large_is_named_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "previews").mkdir()
    (tmp_path / "previews" / "planes.png").write_bytes(PIXEL)
    for number in range(5):
        sheet(tmp_path / f"inversion{number}", "fast")
    page = page_of(tmp_path)
    assert len(page.every("img")) == 1 + 3, "the scan and the newest sheets"
    assert all(len(str(image["alt"])) > 30 for image in page.every("img"))
    monkeypatch.setattr(renderer, "PICTURES_MB", 2.5 * len(PIXEL) / 1e6)
    page = page_of(tmp_path)
    assert len(page.every("img")) == 2
    assert page.text.count("A picture is too large for this page") == 2


def sheet(folder: Path, recipe: str | None, told: str = "quality.json") -> None:
    folder.mkdir(parents=True)
    (folder / "contact_sheet.png").write_bytes(PIXEL)
    if recipe:
        (folder / told).write_text(json.dumps({"recipe": recipe}), encoding="utf-8")


def test_a_copy_without_scans_shows_nothing_that_was_made_of_one(base_job: Path, tmp_path: Path) -> None:
    job = copied(base_job, tmp_path)
    for number, recipe in enumerate(("fast", "grounded", None), start=1):
        sheet(job / f"inversion{number}", recipe)
    assert len(Reader(job_page(job)).every("img")) == 1 + 3
    copy = Reader(job_page(job, scans=False))
    assert [str(image["alt"])[:12] for image in copy.every("img")] == ["Synthetic CT"]
    assert "made up by the model: no patient was scanned" in copy.text
    assert "Left out of this copy: the pictures show a patient's scan." in copy.text


def test_what_was_replayed_in_the_training_is_counted_and_shown(tmp_path: Path) -> None:
    counts = {"volumes": 16, "replayed": 12, "requested": 40, "kept": 31, "dropped": 9, "statistics": "batchnorm"}
    sheet(tmp_path / "synthetic" / "fast-1", "fast", "done.json")
    sheet(tmp_path / "synthetic" / "grounded-1", "grounded", "done.json")
    report = report_of(LIVER, STOMACH, synthetic={"organs": ["Spleen"], **counts})
    write_document(report, model(), tmp_path)
    page = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "12 of 16 synthetic volumes were replayed for the sake of Spleen; 31 of 40 organs in them were" in page.text
    assert len(page.every("img")) == 2
    assert page.text.count("started from real scans: keep it as you would these") == 1


def copied(job: Path, folder: Path) -> Path:
    return Path(shutil.copytree(job, folder / "job"))


def test_neither_page_nor_pictures_name_a_patient_a_folder_or_a_user(base_job: Path, tmp_path: Path) -> None:
    cases, out = tmp_path / "ward_A17", tmp_path / "home_of_dr_weber"
    write_phantom_cases(cases, ["Mueller_Hans"], 0, PhantomConfig((32, 28, 28), (12.0, 12.0, 12.0)))
    evaluate(base_job / "model", cases, out, device="cpu")
    assert "data:image/png" in (out / "report.html").read_text(encoding="utf-8")
    for name in ("report.html", "report.md", "report.json", "report.csv", "planes.png", "dsc.png"):
        content = (out / name).read_bytes()
        for secret in (b"Mueller_Hans", b"ward_A17", b"dr_weber", str(tmp_path).encode(), str(base_job).encode()):
            assert secret not in content, f"{secret!r} in {name}"


def test_the_page_of_a_job_names_its_model_by_hash(base_job: Path) -> None:
    text = Reader((base_job / "report.html").read_text(encoding="utf-8")).text
    assert load_model(base_job / "model").hash in text
    assert "Model report: Liver, Spleen" in text and "Job took" in text


def test_a_page_made_anew_is_the_same_and_resuming_makes_it(base_job: Path, tmp_path: Path) -> None:
    job = copied(base_job, tmp_path)
    before = files(job)
    assert write_job_document(job) == job / "report.html"
    assert files(job) == before
    (job / "report.html").unlink()
    run_job(job)
    assert (job / "report.html").read_bytes() == before["report.html"]


@pytest.mark.parametrize(("content", "sentence"), [(None, "has no report yet"), ("{", "is damaged"), ("[]", "damaged")])
def test_a_job_without_a_whole_report_is_explained_and_gets_no_page(
    base_job: Path, tmp_path: Path, content: str | None, sentence: str
) -> None:
    job = copied(base_job, tmp_path)
    (job / "report.html").unlink()
    (job / "report.json").unlink()
    if content is not None:
        (job / "report.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=sentence):
        write_job_document(job)
    assert not (job / "report.html").exists()


def test_the_page_is_complete_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = page_of(tmp_path)
    assert not page.every("img")
    shares = {svg["width"] for svg in page.every("rect")} - {"100%"}
    assert shares == {"95.1%", "94.8%", "90.0%", "71.0%"}


def test_markdown_and_page_tell_the_same(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", (tmp_path / "report.html").read_text(encoding="utf-8"))
    assert [*re.findall(r"^## (.*)$", markdown, re.MULTILINE), "Decision"] == titles
    numbers = set(re.findall(r"\d\.\d{3}", markdown))
    assert numbers and all(number in page.text for number in numbers)


def test_a_terminal_gets_verdict_and_table_only() -> None:
    shown = result_text(report_of(LIVER, STOMACH))
    assert shown.startswith("# Update report: Stomach\n\n**Good. Learned: Stomach. Kept: Liver.**")
    assert "| Liver | old | kept | 0.951 | 0.948 | 4.2 | 4.4 | — | — | 0.970 |" in shown
    assert "SHA-256" not in shown


def test_text_and_bars_stand_out_from_the_paper() -> None:
    style = (Path(renderer.__file__).parent / "page.css").read_text(encoding="utf-8")
    colors = set(re.findall(r"(?:color|border[a-z-]*): (?:[\w.]+ \w+ )?(#[0-9a-f]{3,6})", style)) - {"#fff", "#bbb"}
    assert len(colors) >= 4
    for color in colors:
        assert contrast(color) >= 4.5, color
    assert contrast(renderer.EDGE) >= 3


def contrast(color: str) -> float:
    """Contrast of a colour with white paper (WCAG 2)."""
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
