"""The answer to "which class is this cell?", with all that tells how far to trust it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from diffusion.conformal import (
    AbstentionRule,
    ConformalCalibration,
    keyed_uniforms,
)
from diffusion.probability import (
    Array,
    Evidence,
    PosteriorCalibration,
    Row,
    difference_of_scores,
    log_odds,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a verdict took."""

    trunk_passes: int
    class_passes: int
    flops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """Whether an image is like the reference cells of any class."""

    p_value: float
    """Conformal: a cell like the reference gets one this small with this probability at most; of
    the texture about, and at worst somewhat over twice (`TextureReference.p_values`)."""
    alarm_rate: float
    """Wanted rate of alarms on such cells; p-values up to it are flagged."""

    @property
    def is_anomalous(self) -> bool:
        """The flag."""
        return self.p_value <= self.alarm_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One image's class, or why none is given."""

    class_names: tuple[str, ...]
    """The candidates: the answer holds among these only."""
    excluded_class_names: tuple[str, ...]
    """Classes of the model that were not considered."""
    best_class: str
    """The most probable candidate, also where the verdict abstains."""
    probabilities: Mapping[str, float]
    """Of the candidates, best first; they sum to 1."""
    conforming_set: tuple[str, ...]
    """Conformal set at `set_level`; may be empty. Its rate of holding the true class is the level.
    """
    shown_set: tuple[str, ...]
    """The same with undecided classes, and with the best class if it would be empty."""
    set_level: float
    is_set_classwise: bool
    runner_up: str
    log_odds: float
    """Of the best class to the runner-up, in nats: the logarithm of their probabilities' ratio."""
    generative_log_odds: float | None
    """What the race says of the same two: score of the best class minus the runner-up's, in
    weighted nats; negative where the head outvotes it. None for the head alone, or if the head had
    ruled one of the two out of the race. That is common where the verdict is sure: once the race
    has put every other class that it held far behind, the runner-up is one that it did not hold."""
    generative_log_odds_standard_error: float | None
    """Monte-Carlo error of `generative_log_odds`; None for a single block."""
    undecided_classes: tuple[str, ...]
    """Classes that the draws could not tell apart within the budget; none if one was left."""
    reasons: tuple[str, ...]
    """Why the verdict abstains, in words; empty if it does not."""
    texture: Anomaly | None
    """Whether the picture looks close by as those of the reference cells do: foreign stains are
    found, and strong blur or noise. Measured in every pass of the head; None for the row
    `generative`, or without reference cells."""
    anomaly: Anomaly | None
    """Whether the cell is like the reference cells in every respect; None if not looked for."""
    cost: Cost
    weighting: str
    row: Row
    """Which evidence decided."""
    seed: int
    image_digest: str

    @property
    def is_abstained(self) -> bool:
        """No class is given."""
        return bool(self.reasons)

    @property
    def predicted_class(self) -> str | None:
        """The best class; None when abstained."""
        return None if self.is_abstained else self.best_class

    def as_json(self) -> dict[str, Any]:
        """Plain values at full precision."""
        flat = asdict(self) | {
            "predicted_class": self.predicted_class,
            "is_abstained": self.is_abstained,
            "probabilities": dict(self.probabilities),
        }
        for name, found in (("texture", self.texture), ("anomaly", self.anomaly)):
            if found is not None:
                flat[name]["is_anomalous"] = found.is_anomalous
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in flat.items()
        }

    def lines(self) -> Iterator[tuple[str, str]]:
        """What is printed: pairs of a heading and its words, the first one being the answer."""
        best = f"{self.best_class} ({probability_words(self.probabilities[self.best_class])})"
        if self.is_abstained:
            yield "no verdict", f"most probable: {best}"
        else:
            yield "verdict", best
        for reason in self.reasons:
            yield "because", reason
        yield "candidates", _candidates_words(self.class_names, self.excluded_class_names)
        others = list(self.probabilities)[1:3]
        rest = [f"{name} {probability_words(self.probabilities[name])}" for name in others]
        yield "next", ", ".join(rest)
        yield f"{100 * self.set_level:g} % set", _set_words(self)
        pair = f"{self.best_class} to {self.runner_up}"
        yield "log-odds", f"{pair}: {self.log_odds:.4g} nats"
        yield "race", _race_words(self, pair)
        if self.undecided_classes:
            names = ", ".join(self.undecided_classes)
            yield "undecided", f"{names}: the draws did not tell them apart"
        for name, found in (("texture", self.texture), ("anomaly", self.anomaly)):
            if found is not None:
                yield name, _anomaly_words(found)
        yield (
            "cost",
            f"{self.cost.trunk_passes} trunk and {self.cost.class_passes} class passes, "
            f"{self.cost.flops / 1e9:.2f} GFLOP",
        )
        yield "from", f"{self.row} row, seed {self.seed}, image {self.image_digest[:12]}"

    def __str__(self) -> str:
        return "\n".join(f"{heading:<11} {words}" for heading, words in self.lines())

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        # Text from the console that asks: this library itself needs no rich.
        for i, line in enumerate(str(self).split("\n")):
            style = ("bold yellow" if self.is_abstained else "bold green") if i == 0 else ""
            yield console.render_str(line, style=style, markup=False, highlight=False, emoji=False)


def give_verdict(
    evidence: Evidence,
    *,
    model_class_names: Sequence[str],
    posterior: PosteriorCalibration,
    conformal: ConformalCalibration,
    cost: Cost,
    weighting: str,
    seed: int,
    image_digest: str,
    level: float = 0.9,
    classwise: bool = False,
    candidates: Sequence[int] | None = None,
    log_prior: Array | None = None,
    undecided: Collection[int] = (),
    abstention: AbstentionRule | None = None,
    texture: Anomaly | None = None,
    anomaly: Anomaly | None = None,
) -> Verdict:
    """The verdict on one image.

    It abstains if the rule says so, or the texture or the anomaly is flagged. Undecided classes
    alone are no reason: what they leave open is in the probabilities, and they stay in the set.

    Args:
        evidence: of this image, with all classes of the model. n = 1
        model_class_names: in the model's order. K
        posterior: its row decides which evidence is used.
        conformal: of the same row.
        cost, weighting, seed, image_digest: for the record; seed and digest key the set's lots.
        level, classwise: of the set.
        candidates: labels of the declared classes; all by default.
        log_prior: see `PosteriorCalibration.log_probabilities`. (K,)
        undecided: labels that racing left alive; a single one is a decision.
        abstention: None never abstains for lack of confidence.
        texture, anomaly: None if it was not looked for.

    Raises:
        ValueError: if the evidence is not of one image or does not fit the calibrations, or an
            undecided class is no candidate.
    """
    if len(evidence) != 1 or evidence.shape[1] != len(model_class_names):
        raise ValueError(
            f"Evidence of {evidence.shape} images and classes for one image and "
            f"{len(model_class_names)} class names; give one image, and all classes of the model."
        )
    log_p = posterior.log_probabilities(evidence, candidates=candidates, log_prior=log_prior)
    (uniforms,) = keyed_uniforms([image_digest], seed)
    order = [int(c) for c in np.argsort(-log_p[0], kind="stable") if log_p[0, c] > -np.inf]
    best, second = order[:2]
    if not set(undecided) <= set(order):
        raise ValueError(
            f"undecided={sorted(undecided)} are not all candidates {sorted(order)}; race the "
            "candidates only."
        )
    alive = tuple(sorted(undecided)) if len(undecided) > 1 else ()
    sets = conformal.prediction_set(
        log_p[0], level, uniforms=uniforms, classwise=classwise, always=alive
    )
    margin, margin_error = None, None
    if posterior.row != "head":
        margin, margin_error = _margin(evidence, best, second)
    return Verdict(
        class_names=tuple(name for c, name in enumerate(model_class_names) if c in order),
        excluded_class_names=tuple(n for c, n in enumerate(model_class_names) if c not in order),
        best_class=model_class_names[best],
        runner_up=model_class_names[second],
        probabilities={model_class_names[c]: float(np.exp(log_p[0, c])) for c in order},
        conforming_set=tuple(model_class_names[c] for c in sets.conforming),
        shown_set=tuple(model_class_names[c] for c in sets.shown),
        set_level=level,
        is_set_classwise=classwise,
        log_odds=float(log_p[0, best] - log_p[0, second]),
        generative_log_odds=margin,
        generative_log_odds_standard_error=margin_error,
        undecided_classes=tuple(model_class_names[c] for c in alive),
        reasons=tuple(_reasons(log_p, abstention, texture, anomaly)),
        texture=texture,
        anomaly=anomaly,
        cost=cost,
        weighting=weighting,
        row=posterior.row,
        seed=seed,
        image_digest=image_digest,
    )


def probability_words(probability: float) -> str:
    """A probability in per cent that never reads 0 % or 100 % by rounding."""
    if probability > 0.999:
        return "over 99.9 %"
    if probability < 0.001:
        return "under 0.1 %"
    return f"{100 * probability:.1f} %"


def _margin(evidence: Evidence, best: int, second: int) -> tuple[float | None, float | None]:
    difference, errors = difference_of_scores(evidence, best, second)
    if np.isnan(difference[0]):
        return None, None
    return float(difference[0]), None if errors is None else float(errors[0])


def _reasons(
    log_p: Array,
    abstention: AbstentionRule | None,
    texture: Anomaly | None,
    anomaly: Anomaly | None,
) -> Iterator[str]:
    if abstention is not None and abstention.abstains(log_p)[0]:
        left, allowed = 1 / (1 + np.exp([log_odds(log_p).max(), abstention.log_odds_min]))
        yield (
            f"{100 * left:.2g} % is left for the other classes, and a risk of "
            f"{100 * abstention.risk:g} % allows {100 * allowed:.2g} %"
        )
    if texture is not None and texture.is_anomalous:
        yield (
            "its texture is unlike the reference cells', as under another stain or microscope "
            f"({_anomaly_words(texture)})"
        )
    if anomaly is not None and anomaly.is_anomalous:
        yield f"it is unlike the reference cells of every class ({_anomaly_words(anomaly)})"


def _candidates_words(names: Sequence[str], excluded: Sequence[str]) -> str:
    listed = ", ".join(names)
    if not excluded:
        return f"{listed} (all classes of the model)"
    return f"{listed}, as declared; not considered: {', '.join(excluded)}"


def _set_words(verdict: Verdict) -> str:
    kind = " (classwise)" if verdict.is_set_classwise else ""
    conforming, shown = verdict.conforming_set, verdict.shown_set
    if not conforming:
        return f"no class conforms; shown: {', '.join(shown)}{kind}"
    kept = [name for name in shown if name not in conforming]
    return ", ".join(conforming) + (f"; kept: {', '.join(kept)}" if kept else "") + kind


def _race_words(verdict: Verdict, pair: str) -> str:
    if verdict.row == "head":
        return "none, the head alone decides"
    if verdict.generative_log_odds is None:
        return f"{pair}: none, the head had ruled one of them out"
    error = verdict.generative_log_odds_standard_error
    spread = "" if error is None else f" ± {error:.2g}"
    return f"{pair}: {verdict.generative_log_odds:.4g}{spread} weighted nats ({verdict.weighting})"


def _anomaly_words(anomaly: Anomaly) -> str:
    p = "p < 0.001" if anomaly.p_value < 0.001 else f"p = {anomaly.p_value:.2g}"
    relation = "at or below" if anomaly.is_anomalous else "above"
    return f"{p}, {relation} the alarm rate of {anomaly.alarm_rate:g}"
