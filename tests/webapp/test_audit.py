from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studies.stimuli import read_stimuli
from tests.webapp.audit_at_hand import (
    DATA,
    PBC,
    by_class,
    cells,
    fields,
    jpeg,
    resampled,
    shifted,
    write_set,
)
from webapp.audit import AuditReport, audit_stimuli, stimuli_digest
from webapp.audit_features import measured
from webapp.audit_report import write_report
from webapp.errors import WebappError
from webapp.pictures import framed
from webapp.telling import checked, strata_of

TELLS = {
    "JPEG 95": (jpeg(95), "compression", "by traces of JPEG: “zeros of", "never stored as JPEG"),
    "one level up": (shifted(1), "palette", "by the palette: “", "not even by one level"),
    "one level down": (shifted(-1), "palette", "by the palette: “", "not even by one level"),
    "bilinear, down and up": (
        resampled(0.5, Image.Resampling.BILINEAR),
        "spectrum",
        "by the spectrum",
        "through the same resampling",
    ),
    "Lanczos, a little": (
        resampled(0.85, Image.Resampling.LANCZOS),
        "spectrum",
        "by the spectrum",
        "through the same resampling",
    ),
}


@pytest.fixture(scope="module")
def eighty():
    return fields(80)


@pytest.fixture(scope="module")
def real_cells():
    return cells(PBC / "val.csv")


@pytest.fixture(scope="module")
def honest(eighty, tmp_path_factory) -> tuple[Path, AuditReport]:
    folder = write_set(tmp_path_factory.mktemp("honest") / "set", eighty)
    return folder, audit_stimuli(folder)


def assert_told(report: AuditReport, code: str, words: str, remedy: str) -> None:
    assert not report.passed
    assert report.problems[0].code == code
    assert words in report.problems[0].sentence
    assert "the margin allows 0.60" in report.problems[0].sentence
    assert remedy in report.problems[0].remedy


def test_an_honest_set_passes(honest):
    _, report = honest
    assert report.passed
    assert report.problems == ()
    assert report.near_copies == ()
    assert (report.n_real, report.n_generated) == (40, 40)


@pytest.mark.parametrize("treatment", TELLS)
def test_a_treated_half_is_refused_with_the_reason(eighty, tmp_path, treatment):
    treat, *told = TELLS[treatment]
    assert_told(audit_stimuli(write_set(tmp_path / "set", eighty, treatment=treat)), *told)


@pytest.mark.parametrize("treatment", TELLS)
def test_real_cells_of_which_half_are_treated_are_refused(real_cells, tmp_path, treatment):
    treat, *told = TELLS[treatment]
    chosen = by_class(*real_cells, 8, seed=1)
    names = sorted(set(real_cells[1]))
    folder = write_set(tmp_path / "set", chosen, classes=names, treatment=treat)
    assert_told(audit_stimuli(folder), *told)


def test_resampling_does_not_pass_for_jpeg_nor_a_shift_for_resampling(real_cells, tmp_path):
    chosen, names = by_class(*real_cells, 8, seed=1), sorted(set(real_cells[1]))
    for number, (treatment, not_told) in enumerate(
        [(resampled(0.95, Image.Resampling.LANCZOS), "compression"), (shifted(1), "spectrum")]
    ):
        folder = write_set(tmp_path / str(number), chosen, classes=names, treatment=treatment)
        assert not_told not in {problem.code for problem in audit_stimuli(folder).problems}


def test_an_exact_tell_is_found_with_20_pictures(tmp_path):
    report = audit_stimuli(
        write_set(tmp_path / "set", fields(20), treatment=lambda pixels: pixels & 0xFE)
    )
    assert "palette" in {problem.code for problem in report.problems}
    palette = next(check for check in report.checks if check.code == "palette")
    odd = next(f for f in palette.features if f.name == "share of odd levels of green")
    assert (odd.auc, odd.is_higher_in_generated, odd.tells) == (1.0, False, True)


def test_too_few_pictures_are_inconclusive_in_words(tmp_path):
    report = audit_stimuli(write_set(tmp_path / "set", fields(20, seed=3)))
    assert report.passed
    assert report.warnings[0].startswith(
        "Inconclusive: 10 real and 10 generated pictures can only exclude areas above "
    )
    assert "46 or more of each kind are needed" in report.warnings[0]
    assert {check.finding for check in report.checks} == {"inconclusive"}


def test_a_shift_within_the_spread_of_brightness_leaves_no_trace(tmp_path):
    pictures = fields(120, ground=200, ground_sd=4)
    report = audit_stimuli(write_set(tmp_path / "set", pictures, treatment=shifted(1)))
    # One level of four: an area of 0.57 at best, within the margin.
    assert report.passed


def test_a_picture_that_is_stored_differently_is_refused(tmp_path):
    folder = write_set(tmp_path / "set", fields(20))
    odd = folder / read_stimuli(folder)[3].file
    Image.open(odd).save(odd, "PNG", compress_level=9)
    problem = audit_stimuli(folder).problems[0]
    assert problem.code == "encoding"
    assert problem.sentence == (
        f"1 of 20 pictures are stored differently from the others, such as {odd.name}: "
        "another number of bytes, or other chunks."
    )


def test_what_cannot_be_audited_is_refused_with_advice(tmp_path):
    folder = write_set(tmp_path / "set", fields(8))
    with pytest.raises(WebappError, match=r"between 0 and 0\.5, such as 0\.1"):
        audit_stimuli(folder, margin=0.6)
    one_kind = write_set(tmp_path / "one", fields(2))
    with pytest.raises(WebappError, match="make a set that is matched by class"):
        audit_stimuli(one_kind)
    small = write_set(tmp_path / "small", fields(8, size=8))
    with pytest.raises(WebappError, match=r"smaller than 16 px.* larger with --size"):
        audit_stimuli(small)


def test_classes_of_one_kind_are_named_as_not_compared(tmp_path):
    folder = write_set(tmp_path / "set", fields(9), classes=("a", "b", "a", "b", "c"))
    assert any("their class alone gives the answer" in w for w in audit_stimuli(folder).warnings)


def test_the_same_set_gives_the_same_report(honest):
    folder, report = honest
    assert audit_stimuli(folder) == report


def test_the_report_survives_as_json(honest):
    _, report = honest
    assert AuditReport.model_validate_json(report.to_json()) == report
    assert '"passed": true' in report.to_json()


def test_progress_is_told_to_the_end(tmp_path):
    said = []
    audit_stimuli(
        write_set(tmp_path / "set", fields(20)), on_progress=lambda *one: said.append(one)
    )
    assert {"measuring pictures", "reading known pictures", "looking for near-copies"} <= {
        what for what, _, _ in said
    }
    assert said[-1] == ("looking for near-copies", 10, 10)


def test_the_page_stands_alone_and_says_what_was_found(eighty, tmp_path):
    folder = write_set(tmp_path / "set", eighty, treatment=shifted(-1))
    report = audit_stimuli(folder)
    page = write_report(report, folder, tmp_path / "out").read_text()
    assert "should not be shown to readers yet" in page
    assert report.problems[0].remedy in page
    assert report.stimuli_digest in page
    assert page.count("<svg") >= 3
    outside = page.replace("http://www.w3.org/", "")
    assert "http" not in outside
    assert "<script" not in page
    saved = AuditReport.model_validate_json((tmp_path / "out" / "audit.json").read_text())
    assert saved == report


def test_no_page_is_written_for_stimuli_that_have_changed(tmp_path):
    folder = write_set(tmp_path / "set", fields(20))
    report = audit_stimuli(folder)
    stimuli = read_stimuli(folder)
    assert stimuli_digest(folder, stimuli) == report.stimuli_digest
    first, second = (folder / stimulus.file for stimulus in stimuli[:2])
    first.write_bytes(second.read_bytes())
    with pytest.raises(WebappError, match="have changed since the audit; audit them anew"):
        write_report(report, folder, tmp_path / "out")


@pytest.mark.slow
def test_of_200_honest_halves_of_real_cells_at_most_5_percent_are_refused(real_cells):
    pictures, classes = real_cells
    values, n_refused = measured(pictures, lambda *_: None), 0
    names = np.array(classes)
    for seed, per_class in ((seed, n) for n in (5, 25) for seed in range(100)):
        rng = np.random.default_rng(seed)
        rows = np.concatenate(
            [
                rng.choice(np.flatnonzero(names == name), 2 * per_class, replace=False)
                for name in np.unique(names)
            ]
        )
        checks, _ = checked(
            {
                group: {name: of[rows] for name, of in found.items()}
                for group, found in values.items()
            },
            strata_of(np.arange(len(rows)) % 2 == 1, names[rows]),
            margin=0.1,
            seed=seed,
        )
        n_refused += any(check.finding == "tells" for check in checks)
    assert n_refused <= 10


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [Image.Resampling.LANCZOS, Image.Resampling.BILINEAR])
def test_another_kernel_from_the_photograph_on_is_found(tmp_path, kernel):
    photographs, classes = cells(DATA / "pbc_original" / "examples.csv")
    names = sorted(set(classes))
    chosen = by_class([np.asarray(p) for p in photographs], classes, 20, seed=0)

    def scaled(pixels, by):
        image = Image.fromarray(pixels)
        left, top = (image.width - 200) // 2, (image.height - 200) // 2
        return np.asarray(image.crop((left, top, left + 200, top + 200)).resize((64, 64), by))

    honest = [np.asarray(framed(Image.fromarray(p), 64, crop_px=200)) for p in chosen]
    mixed = [
        scaled(p, kernel) if number // len(names) % 2 else same
        for number, (p, same) in enumerate(zip(chosen, honest, strict=True))
    ]
    assert audit_stimuli(write_set(tmp_path / "honest", honest, classes=names)).passed
    report = audit_stimuli(write_set(tmp_path / "mixed", mixed, classes=names))
    assert report.problems[0].code in ("spectrum", "noise")
    assert "through the same resampling" in report.problems[0].remedy
