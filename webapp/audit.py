"""The blinding audit: does anything but the cells tell which pictures are generated?

It looks for three things: pictures that are stored differently; numbers about how a picture was
made that tell generated from real beyond the declared margin; and generated pictures that are
near-copies of real ones.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, computed_field
from scipy.special import ndtri

from studies.stimuli import MANIFEST, Stimulus, read_stimuli
from webapp.audit_features import GROUPS, Pixels, measured
from webapp.errors import WebappError
from webapp.near_copies import KnownPictures, Pair, training_images
from webapp.pictures import decode
from webapp.stimuli import RealImage
from webapp.telling import ERROR, Check, Feature, Strata, checked, strata_of

Progress = Callable[[str, int, int], None]

SMALLEST_PX = 16
N_CLOSEST = 8
TRAINING, THIS_SET = "the training pictures", "the real pictures of this set"
UNSEEN = "No training pictures were given, so near-copies of them could not be looked for."


class Problem(BaseModel):
    """Why the set must not be shown."""

    model_config = ConfigDict(frozen=True)

    code: str
    """`encoding`, `near_copy`, `together`, or a group of `webapp.audit_features`."""
    sentence: str
    remedy: str


class AuditReport(BaseModel):
    """What the audit found. The same pictures, margin and seed give the same report."""

    model_config = ConfigDict(frozen=True)

    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    """What could not be decided, or not be compared."""
    checks: tuple[Check, ...]
    near_copies: tuple[Pair, ...]
    closest: tuple[Pair, ...]
    """The few closest pairs, copies or not."""
    n_real: int
    n_generated: int
    n_training: int | None
    """None where no training pictures were given."""
    margin: float
    confidence_level: float
    """Of each interval, so that all of them hold together with 95 %."""
    stimuli_digest: str

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether a study of these stimuli may be launched."""
        return not self.problems

    def to_json(self) -> str:
        """The whole report."""
        return self.model_dump_json(indent=2)


def audit_stimuli(
    folder: Path,
    *,
    margin: float = 0.1,
    training: Path | None = None,
    crop_px: int | None = None,
    seed: int = 0,
    on_progress: Progress = lambda _what, _done, _of: None,
) -> AuditReport:
    """Look for all that tells generated from real pictures but the cells themselves.

    Args:
        margin: areas under the ROC curve up to 0.5 + margin are tolerated. A set is refused if an
            area is shown to lie above, all checks together erring with at most 5 %.
        training: what the generator was trained on: a folder by class, or a packed set's .csv.
        crop_px: side of the centred square that it was shown of each training photograph.

    Raises:
        StimulusError: if the set cannot be read.
        WebappError: if it cannot be audited.
    """
    if not 0 < margin < 0.5:
        raise WebappError(
            f"the margin {margin:g} is no area beyond 0.5; give one between 0 and 0.5, such as 0.1."
        )
    stimuli = read_stimuli(folder)
    real = [stimulus for stimulus in stimuli if not stimulus.is_synthetic]
    strata = strata_of([s.is_synthetic for s in stimuli], [s.class_name for s in stimuli])
    if not strata or len(real) < 2:
        raise WebappError(
            f"{folder} has no class with both real and generated pictures, or a single real one, "
            "so nothing can be compared; make a set that is matched by class."
        )
    pictures = pixels_of(folder, stimuli)
    if min(pictures[0].shape[:2]) < SMALLEST_PX:
        raise WebappError(
            f"the pictures of {folder} are smaller than {SMALLEST_PX} px, too small for a "
            "spectrum; make the set larger with --size."
        )
    checks, level = checked(measured(pictures, on_progress), strata, margin=margin, seed=seed)
    known = {
        THIS_SET: KnownPictures(
            [RealImage(name=s.file, read=(folder / s.file).read_bytes) for s in real],
            on_progress=on_progress,
        )
    }
    images = training_images(training) if training else []
    if images:
        known[TRAINING] = KnownPictures(images, crop_px=crop_px, on_progress=on_progress)
    pairs = _pairs(folder, stimuli, known, on_progress)
    near_copies = tuple(pair for pair in pairs if pair.is_near_copy)
    problems = (
        *_encoding(folder, stimuli),
        *_tells(checks, margin),
        *_copies(near_copies, len(pairs)),
    )
    return AuditReport(
        problems=problems,
        warnings=(*_warnings(checks, margin, len(stimuli), strata), *([] if images else [UNSEEN])),
        checks=checks,
        near_copies=tuple(pair.model_copy(update={"png_base64": ""}) for pair in near_copies),
        closest=tuple(pairs[:N_CLOSEST]),
        n_real=len(real),
        n_generated=len(pairs),
        n_training=len(images) or None,
        margin=margin,
        confidence_level=level,
        stimuli_digest=stimuli_digest(folder, stimuli),
    )


def stimuli_digest(folder: Path, stimuli: Sequence[Stimulus]) -> str:
    """SHA-256 of the manifest and, in its order, all pictures."""
    digest = hashlib.sha256((folder / MANIFEST).read_bytes())
    for stimulus in stimuli:
        digest.update((folder / stimulus.file).read_bytes())
    return digest.hexdigest()


def pixels_of(folder: Path, stimuli: Sequence[Stimulus]) -> list[Pixels]:
    """The pixels of each picture. (H, W, 3)"""
    return [np.asarray(decode((folder / s.file).read_bytes(), name=s.file)) for s in stimuli]


def _encoding(folder: Path, stimuli: Sequence[Stimulus]) -> Iterator[Problem]:
    # Length, header and first chunk's size, and what ends the file: all but the pixels.
    files = [(folder / stimulus.file).read_bytes() for stimulus in stimuli]
    layouts = [(len(png), png[:43], png[-12:]) for png in files]
    common, n_common = Counter(layouts).most_common(1)[0]
    if n_common < len(files):
        odd = next(s for s, layout in zip(stimuli, layouts, strict=True) if layout != common)
        yield Problem(
            code="encoding",
            sentence=f"{len(files) - n_common} of {len(files)} pictures are stored differently "
            f"from the others, such as {odd.file}: another number of bytes, or other chunks.",
            remedy="Encode all pictures with one encoder, uncompressed, as `python -m webapp "
            "stimuli` does.",
        )


def _tells(checks: Sequence[Check], margin: float) -> Iterator[Problem]:
    telling = [check for check in checks if check.finding == "tells"]
    for check in telling:
        if check.code != "together":
            found, remedy = (
                f"by {GROUPS[check.code].by}: {_what_tells(check)}",
                GROUPS[check.code].remedy,
            )
        elif len(telling) == 1:
            found = f"by all numbers together, though by no group alone: {_auc(check)}"
            remedy = "Look at the features that tell most, and make both kinds alike in them."
        else:
            continue
        yield Problem(
            code=check.code,
            sentence=f"Generated pictures can be told from real ones {found}; the margin allows "
            f"{0.5 + margin:.2f}.",
            remedy=remedy,
        )


def _what_tells(check: Check) -> str:
    first, *others = check.features
    first_is = f"“{first.name}” is {'higher' if first.is_higher_in_generated else 'lower'}"
    if not first.tells:
        return f"its numbers tell together ({_auc(check)}), and most of all {first_is} in them"
    n_more = sum(feature.tells for feature in others)
    more = f", and {n_more} more number{'s' * (n_more > 1)} of this kind" if n_more else ""
    return f"{first_is} in generated ones ({_auc(first)}){more}"


def _auc(found: Check | Feature) -> str:
    return f"AUC {found.auc:.2f}, {found.ci_low:.2f} to {found.ci_high:.2f}"


def _copies(near_copies: Sequence[Pair], n_generated: int) -> Iterator[Problem]:
    if near_copies:
        first, n = near_copies[0], len(near_copies)
        yield Problem(
            code="near_copy",
            sentence=f"{n} of {n_generated} generated pictures "
            f"{'is a near-copy' if n == 1 else 'are near-copies'} of real ones, such as "
            f"{first.stimulus_id} of {first.copy_of} among {first.among} ({first.how}).",
            remedy="Draw them anew with other seeds; if many are copies, train on more pictures or "
            "for a shorter time.",
        )


def _warnings(
    checks: Sequence[Check], margin: float, n_stimuli: int, strata: Strata
) -> Iterator[str]:
    open_ones = [check for check in checks if check.finding == "inconclusive"]
    if open_ones:
        first = open_ones[0]
        areas = ", ".join(f"{one.excludes_above:.2f} ({_name(one)})" for one in open_ones)
        n_least = ceil(float(ndtri(1 - ERROR)) ** 2 / (6 * margin**2))
        is_small = min(first.n_real, first.n_generated) < n_least
        needed = f"{n_least} or more of each kind are" if is_small else "more pictures are"
        yield (
            f"Inconclusive: {first.n_real} real and {first.n_generated} generated pictures can "
            f"only exclude areas above {areas}, while the margin allows {0.5 + margin:.2f}. "
            f"Nothing was shown to tell there, but it may; {needed} needed."
        )
    n_alone = n_stimuli - sum(len(rows) for kinds in strata for rows in kinds)
    if n_alone:
        yield (
            f"{n_alone} pictures are of classes that are all real or all generated here: they were "
            "compared with nothing, and their class alone gives the answer."
        )


def _name(check: Check) -> str:
    return GROUPS[check.code].by if check.code in GROUPS else "all together"


def _pairs(
    folder: Path,
    stimuli: Sequence[Stimulus],
    known: dict[str, KnownPictures],
    on_progress: Progress,
) -> list[Pair]:
    """Each generated picture with the real one that it is most like, the closest first."""
    drawn = [stimulus for stimulus in stimuli if stimulus.is_synthetic]
    pairs = []
    for number, stimulus in enumerate(drawn, 1):
        image = decode((folder / stimulus.file).read_bytes(), name=stimulus.file)
        found = [of.pair(stimulus, image, among) for among, of in known.items()]
        pairs.append(min(found, key=lambda pair: pair.closeness))
        on_progress("looking for near-copies", number, len(drawn))
    return sorted(pairs, key=lambda pair: pair.closeness)
