"""Whether a cell is unlike all cells that a model was measured on, at a stated false-alarm rate.

Each *part* looks at a cell in its own way and gives a score:

    high_noise         denoising error at high noise, against that of its class: shape and colour
    low_noise          the same at low noise: texture, focus, sensor. Too easy is as odd as too hard
    profile            Mahalanobis distance of the whole error profile to the nearest class
    features           Mahalanobis distance of the head's features to the nearest class
    texture            the same of the finest level's statistics: stain, and large changes of focus
                       or sensor
    relative_texture   texture minus the distance to all cells taken as one class: granules
    doubt              minus the log of the sum of the head's exponentiated logits (its energy)

By default `PARTS` count; on networks that had never seen a class, the other two found its cells
worse than chance (docs/notes/measurements.md).

One half of the reference cells fits means, covariances and tails. The other half is only ranked: a
cell's p-value is its place among them (split conformal), so that among cells exchangeable with the
reference ones at most a share a is flagged at level a, whatever the scores are worth. Folds, as in
`diffusion.texture`, leave less to the luck of the division but promise only about twice the level;
halving it for a sure 1 % would flag nothing with fewer than 995 reference cells.

Shapes: B images, N draws, L log-SNR bins, F features, K classes, P parts, R ranked reference cells.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from diffusion.mahalanobis import Array, ClassGaussians, fit_class_gaussians, six_digits
from diffusion.texture import (
    N_FOLDS,
    TextureReference,
    fit_texture_reference,
    folds_of_each_class,
)

QUANTILES = np.arange(10) / 10
"""Where a tail is tabulated; above the last, scores are taken to fall off exponentially."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """What the anomaly score looks at, for B images."""

    profiles: Array
    """From `error_profiles`, under each image's best class or without a class. (B, L)"""
    features: Array
    """Last hidden layer of the head. (B, F)"""
    texture: Array
    """Statistics of the finest level, see `CellDenoiser.features_and_texture`. (B, T)"""
    doubt: Array
    """Energy of the head's logits, higher where less sure. (B,)"""
    posteriors: Array
    """Probability of each class: which class's profile is to be expected. (B, K)"""
    others: Mapping[str, Array] = field(default_factory=dict)
    """Further scores by name, higher where more anomalous. (B,) each"""

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong to the same images, or hold no number."""
        arrays = {"profiles": self.profiles, "features": self.features}
        arrays |= {"texture": self.texture, "doubt": self.doubt}
        arrays |= {"posteriors": self.posteriors} | dict(self.others)
        for name, values in arrays.items():
            if len(values) != len(self.profiles):
                raise ValueError(
                    f"{name} has {len(values)} rows for {len(self.profiles)} profiles; "
                    "give one for each image."
                )
            if not np.isfinite(values).all():
                raise ValueError(
                    f"{name} holds a value that is not a finite number; leave out images whose "
                    "measurement failed."
                )

    def __len__(self) -> int:
        return len(self.profiles)

    @staticmethod
    def joined(parts: Sequence["Measurements"]) -> "Measurements":
        """One after the other."""
        return Measurements(
            profiles=np.concatenate([part.profiles for part in parts]),
            features=np.concatenate([part.features for part in parts]),
            texture=np.concatenate([part.texture for part in parts]),
            doubt=np.concatenate([part.doubt for part in parts]),
            posteriors=np.concatenate([part.posteriors for part in parts]),
            others={
                name: np.concatenate([part.others[name] for part in parts])
                for name in parts[0].others
            },
        )

    def where(self, chosen: NDArray[np.int64]) -> "Measurements":
        """The measurements of some images, by number."""
        return Measurements(
            profiles=self.profiles[chosen],
            features=self.features[chosen],
            texture=self.texture[chosen],
            doubt=self.doubt[chosen],
            posteriors=self.posteriors[chosen],
            others={name: values[chosen] for name, values in self.others.items()},
        )


def error_profiles(
    errors: ArrayLike, log_snr: ArrayLike, edges: ArrayLike, n_dimensions: int
) -> Array:
    """Log of the mean squared noise error per dimension, at the middle of each log-SNR bin. (B, L)

    The error grows with the log-SNR within a bin, and where in the bin an image was drawn is
    chance: the profile is the line through the bins' means, read at their middles.

    Args:
        errors: `|noise - predicted noise|^2` summed over the image, of one class. (B, N)
        log_snr: of each draw. (B, N)
        edges: of the bins, rising. (L + 1,)
        n_dimensions: number of values in one image's latents.

    Raises:
        ValueError: if an image has draws in fewer than two bins, or an error is not positive.
    """
    squared, levels = np.asarray(errors, np.float64), np.asarray(log_snr, np.float64)
    borders = np.asarray(edges, np.float64)
    n_bins = len(borders) - 1
    bins = np.clip(np.searchsorted(borders, levels, side="right") - 1, 0, n_bins - 1)
    in_bin = bins[:, :, None] == np.arange(n_bins)  # (B, N, L)
    n_draws = in_bin.sum(axis=1)
    if (n_draws > 0).sum(axis=1).min() < 2:
        raise ValueError(
            "an image was drawn in fewer than two of the log-SNR bins; draw more levels, or give "
            "wider bins."
        )
    if not (squared > 0).all():
        raise ValueError(
            "an error is zero, negative or not a number and has no logarithm; give the squared "
            "errors of a class that was evaluated in every draw."
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        at = (levels[:, :, None] * in_bin).sum(axis=1) / n_draws
        log_errors = np.log((squared[:, :, None] * in_bin).sum(axis=1) / n_draws / n_dimensions)
    middles = (borders[1:] + borders[:-1]) / 2
    return np.stack(
        [
            _line(middles, x[n > 0], y[n > 0])
            for x, y, n in zip(at, log_errors, n_draws, strict=True)
        ]
    )


def _line(at: Array, x: Array, y: Array) -> Array:
    """Linear interpolation, continued straight beyond both ends."""
    # Next but one: the means of neighbouring bins may lie so close that their slope is noise.
    step = min(2, len(x) - 1)
    first = (y[step] - y[0]) / (x[step] - x[0])
    last = (y[-1] - y[-1 - step]) / (x[-1] - x[-1 - step])
    before, beyond = np.minimum(at - x[0], 0), np.maximum(at - x[-1], 0)
    continued: Array = np.interp(at, x, y) + first * before + last * beyond
    return continued


class Tail(BaseModel):
    """How often the reference reaches a score: tabulated to the 90 % quantile, then exponential."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantiles: tuple[float, ...]
    """Scores at `QUANTILES`."""
    mean_excess: float
    """Mean distance of the highest tenth above the last quantile."""

    def surprise(self, scores: Array) -> Array:
        """-ln of the share of the reference that lies above, in nats; never saturates."""
        nats = np.interp(scores, self.quantiles, -np.log1p(-QUANTILES))
        surprise: Array = nats + np.maximum(scores - self.quantiles[-1], 0) / self.mean_excess
        return surprise


def fit_tail(scores: Array) -> Tail:
    """The tail of a sample of scores. (n,)"""
    quantiles = np.quantile(scores, QUANTILES)
    excess = float((scores[scores >= quantiles[-1]] - quantiles[-1]).mean())
    if not excess > 0:
        raise ValueError(
            "a part gives its highest score to a tenth of the reference cells or more; "
            "leave it out, it cannot rank."
        )
    return Tail(
        quantiles=tuple(six_digits(quantiles).tolist()), mean_excess=float(six_digits(excess))
    )


class FittedParts(BaseModel):
    """What the first half of the reference cells fits: each part's score."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    high_noise: tuple[int, ...]
    low_noise: tuple[int, ...]
    """Bins of the profile in each band."""
    profile: ClassGaussians
    features: ClassGaussians
    texture: ClassGaussians
    all_textures: ClassGaussians
    """The textures of all classes as one."""
    other_names: tuple[str, ...]

    def scores(self, cells: Measurements) -> dict[str, Array]:
        """Score of each part, (B,) each; the two bands are odd at both ends."""
        self._check(cells)
        expected = cells.posteriors @ np.array(self.profile.means)
        z = self.profile.scaled(cells.profiles) - expected
        features = self.features.squared_distances(cells.features).min(axis=1)
        texture = self.texture.squared_distances(cells.texture).min(axis=1)
        return {
            "high_noise": z[:, self.high_noise].mean(axis=1),
            "low_noise": z[:, self.low_noise].mean(axis=1),
            "profile": np.sqrt(self.profile.squared_distances(cells.profiles).min(axis=1)),
            "features": np.sqrt(features),
            "texture": np.sqrt(texture),
            "relative_texture": texture - self.all_textures.squared_distances(cells.texture)[:, 0],
            "doubt": cells.doubt,
            **{name: cells.others[name] for name in self.other_names},
        }

    def _check(self, cells: Measurements) -> None:
        found = (
            cells.profiles.shape[1],
            cells.features.shape[1],
            cells.texture.shape[1],
            cells.posteriors.shape[1],
            *sorted(cells.others),
        )
        gaussians = (self.profile, self.features, self.texture)
        fitted = (*(len(g.scales) for g in gaussians), len(self.profile.means))
        if found != (*fitted, *self.other_names):
            raise ValueError(
                f"the cells have (bins, features, textures, classes, others) = {found} but the "
                f"reference has {(*fitted, *self.other_names)}; measure both with the same model "
                "and plan."
            )


TWO_SIDED = ("high_noise", "low_noise")
PARTS = ("low_noise", "texture", "relative_texture", "doubt")
"""What counts by default."""


class AnomalyReference(BaseModel):
    """Reference cells, boiled down to what a p-value takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fitted: FittedParts
    upper_tails: dict[str, Tail]
    lower_tails: dict[str, Tail]
    """Of the two-sided parts, on the negative score."""
    part_names: tuple[str, ...]
    """Parts that count, in the order of the columns of `surprises`."""
    surprises: tuple[tuple[float, ...], ...]
    """Of the ranked half of the reference cells. (R, P)"""
    texture: TextureReference
    """Of both halves, for the p-value of the texture alone."""

    def surprises_of(self, cells: Measurements) -> Array:
        """How far out each part finds each cell, in nats. (B, P)"""
        scores = self.fitted.scores(cells)
        columns = []
        for name in self.part_names:
            surprise = self.upper_tails[name].surprise(scores[name])
            if name in TWO_SIDED:
                below = self.lower_tails[name].surprise(-scores[name])
                surprise = np.maximum(np.maximum(surprise, below) - np.log(2), 0)
            columns.append(surprise)
        return six_digits(np.stack(columns, axis=1))


def fit_anomaly_reference(
    cells: Measurements,
    labels: NDArray[np.int64],
    *,
    high_noise: Iterable[int],
    low_noise: Iterable[int],
    parts: Iterable[str] = PARTS,
    seed: int = 0,
) -> AnomalyReference:
    """The reference against which cells are judged, from labelled cells that nothing was fitted on.

    Args:
        cells: of the reference split, measured as later cells will be.
        labels: their true classes, 0 .. K - 1. (n,)
        high_noise: bins of the profile that make up the high-noise band.
        low_noise: bins that make up the low-noise band.
        parts: which parts count.
        seed: of the division into halves.

    Raises:
        ValueError: if a class has too few cells, or a part is unknown.
    """
    order = np.random.default_rng(seed).permutation(len(cells))
    fitting, ranked = np.sort(order[: len(cells) // 2]), np.sort(order[len(cells) // 2 :])
    _check_enough(labels[fitting], cells.posteriors.shape[1])
    bands = (tuple(high_noise), tuple(low_noise))
    fitted = _fit_parts(cells.where(fitting), labels[fitting], bands)
    # Tails come from cells that the Gaussians have not seen: their own cells look too near.
    out_of_fold = _out_of_fold_scores(cells.where(fitting), labels[fitting], bands)
    names = tuple(parts)
    if not names or not set(names) <= set(out_of_fold):
        raise ValueError(f"parts={names}; choose some of {', '.join(out_of_fold)}.")
    reference = AnomalyReference(
        fitted=fitted,
        upper_tails={name: fit_tail(out_of_fold[name]) for name in names},
        lower_tails={name: fit_tail(-out_of_fold[name]) for name in names if name in TWO_SIDED},
        part_names=names,
        surprises=(),
        texture=fit_texture_reference(cells.texture, labels),
    )
    surprises = reference.surprises_of(cells.where(ranked))
    return reference.model_copy(update={"surprises": tuple(map(tuple, surprises.tolist()))})


def _check_enough(labels: NDArray[np.int64], n_classes: int) -> None:
    counts = np.bincount(labels, minlength=n_classes)
    if len(counts) > n_classes or counts.min() < N_FOLDS:
        k = int(counts.argmin())
        raise ValueError(
            f"class {k} has {counts[k]} cells in the half that fits means; give at least "
            f"{4 * N_FOLDS} reference cells of each of the {n_classes} classes."
        )


def _fit_parts(
    cells: Measurements,
    labels: NDArray[np.int64],
    bands: tuple[tuple[int, ...], tuple[int, ...]],
) -> FittedParts:
    return FittedParts(
        high_noise=bands[0],
        low_noise=bands[1],
        profile=fit_class_gaussians(cells.profiles, labels),
        features=fit_class_gaussians(cells.features, labels),
        texture=fit_class_gaussians(cells.texture, labels),
        all_textures=fit_class_gaussians(cells.texture, np.zeros_like(labels)),
        other_names=tuple(sorted(cells.others)),
    )


def _out_of_fold_scores(
    cells: Measurements,
    labels: NDArray[np.int64],
    bands: tuple[tuple[int, ...], tuple[int, ...]],
) -> dict[str, Array]:
    """Scores of each cell by parts that were fitted without it."""
    scored = []
    for held_out in folds_of_each_class(labels):
        rest = np.setdiff1d(np.arange(len(labels)), held_out)
        parts = _fit_parts(cells.where(rest), labels[rest], bands)
        scored.append(parts.scores(cells.where(held_out)))
    return {name: np.concatenate([one[name] for one in scored]) for name in scored[0]}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyAssessment:
    """How unusual one cell is among the reference cells."""

    p_value: float
    """Of the combined score: at most a share p of reference-like cells is this unusual."""
    score: float
    """Sum of the parts' surprises, in nats; ranks cells beyond all reference cells too."""
    bonferroni_p_value: float
    """Smallest p-value of a part times the number of parts: the same guarantee, less power."""
    parts: Mapping[str, float]
    """Conformal p-value of each part by itself."""
    n_reference: int
    """Reference cells that were ranked, R; no p-value is below 1 / (R + 1)."""

    def is_anomalous(self, false_alarm_rate: float) -> bool:
        """Whether the cell is flagged, at a rate of false alarms in (0, 1).

        Raises:
            ValueError: if the reference is too small for the rate.
        """
        n_needed = int(np.ceil(1 / false_alarm_rate)) - 1 if 0 < false_alarm_rate < 1 else -1
        if n_needed < 0:
            raise ValueError(f"false_alarm_rate={false_alarm_rate}; give a fraction such as 0.05.")
        if self.n_reference < n_needed:
            raise ValueError(
                f"a false-alarm rate of {false_alarm_rate} takes {n_needed} ranked reference cells "
                f"and there are {self.n_reference}; add cells or allow more false alarms."
            )
        return self.p_value <= false_alarm_rate


def assess(reference: AnomalyReference, cells: Measurements) -> tuple[AnomalyAssessment, ...]:
    """The verdict of the reference on each cell.

    The combined score is Fisher's, the sum of the parts' log tail probabilities. Its distribution
    under dependent parts is not known, so it is ranked once more among the reference cells' own
    sums: the p-value is exact under exchangeability and nothing is paid for the number of parts.

    Source: Bates, Candès, Lei, Romano & Sesia (2023), "Testing for outliers with conformal
        p-values"; split conformal prediction is of Vovk, Gammerman & Shafer (2005).
    """
    surprises, ranked = reference.surprises_of(cells), np.array(reference.surprises)
    part_p_values = np.stack(
        [conformal_p_values(s, r) for s, r in zip(surprises.T, ranked.T, strict=True)], axis=1
    )
    scores, ranked_scores = surprises.sum(axis=1), ranked.sum(axis=1)
    p_values = conformal_p_values(scores, ranked_scores)
    n_parts = len(reference.part_names)
    return tuple(
        AnomalyAssessment(
            p_value=float(p_value),
            score=float(score),
            bonferroni_p_value=float(min(1.0, n_parts * of_parts.min())),
            parts=dict(zip(reference.part_names, of_parts.tolist(), strict=True)),
            n_reference=len(ranked),
        )
        for p_value, score, of_parts in zip(p_values, scores, part_p_values, strict=True)
    )


def conformal_p_values(scores: Array, reference: Array) -> Array:
    """(1 + number of reference scores at least as high) / (1 + R). (B,), (R,) -> (B,)"""
    n_below = np.searchsorted(np.sort(reference), scores, side="left")
    p_values: Array = (1 + len(reference) - n_below) / (1 + len(reference))
    return p_values
