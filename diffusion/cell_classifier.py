"""The whole classifier: head, race, calibrated verdict, anomaly.

Three rows, always reported apart: `head` alone, `generative` alone (a race of all candidates), and
`fused` (the head proposes, a short race of what it leaves verifies, a calibrated sum decides).

Shapes: B images, K classes of the model, F features of the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion.anomaly import Measurements, assess, error_profiles
from diffusion.checkpoint import Checkpoint
from diffusion.classifier import paired_class_errors
from diffusion.classifier_settings import ClassifierSettings, RowSettings
from diffusion.conformal import AbstentionRule
from diffusion.draws import DrawPlan, keyed_draws
from diffusion.network import CellDenoiser, Flops, PreconditionedNetwork
from diffusion.packing import race_many, turned_latents
from diffusion.probability import Evidence, Row
from diffusion.racing import RaceResult
from diffusion.schedule import sigmas_from_log_snr
from diffusion.verdict import Anomaly, Cost, Verdict, give_verdict
from diffusion.weighting import WEIGHTINGS, Weighting
from diffusion.white_balance import white_balanced

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstView:
    """What one pass of the head shows of B images besides their class."""

    features: Array
    """Last hidden layer. (B, F)"""
    texture: Array
    """Statistics of the finest level. (B, T)"""
    doubt: Array
    """Energy of the logits, higher where less sure. (B,)"""

    @staticmethod
    def joined(parts: Sequence["FirstView"]) -> "FirstView":
        """One after the other."""
        return FirstView(
            features=np.concatenate([part.features for part in parts]),
            texture=np.concatenate([part.texture for part in parts]),
            doubt=np.concatenate([part.doubt for part in parts]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadAnswers:
    """What the head says of B images."""

    log_probabilities: Array
    """Of the mean over the views of each. (B, K)"""
    first: FirstView
    """Of the first view alone, so that images compare."""
    n_views: NDArray[np.int64]
    """(B,)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What was seen of B images, before any calibration."""

    head: Array | None
    """Log-probabilities of the head; None for the row `generative`. (B, K)"""
    first: FirstView | None
    """None for the row `generative`."""
    n_head_views: NDArray[np.int64]
    """Passes of the head; 0 for the row `generative`. (B,)"""
    races: list[RaceResult] | None
    """One for each image; None for the row `head`."""
    flops: Array
    """Floating-point operations of each image. (B,)"""
    n_classes: int
    """K"""

    @property
    def evidence(self) -> Evidence:
        """The same as columns of the model's classes."""
        if self.races is None:
            return Evidence(head=self.head)
        scores = np.full((len(self.races), self.n_classes), np.nan)
        errors = np.zeros(scores.shape)
        for i, race in enumerate(self.races):
            labels = list(race.class_labels)
            scores[i, labels] = race.scores.numpy()
            errors[i, labels] = race.standard_errors.numpy()
        known = np.isfinite(errors).all()
        return Evidence(scores=scores, standard_errors=errors if known else None, head=self.head)


class CellClassifier:
    """A network with its settings; what it answers depends on an image's pixels and the seed."""

    def __init__(
        self,
        network: CellDenoiser,
        settings: ClassifierSettings,
        class_names: Sequence[str],
        *,
        background: Sequence[float] | None,
        bfloat16: bool = True,
    ) -> None:
        self.network, self.settings = network, settings
        self.class_names = tuple(class_names)
        self.background = None if background is None else torch.tensor(list(background))
        self.bfloat16 = bfloat16
        self.split: PreconditionedNetwork = network.split(
            appearance=settings.appearance, bfloat16=bfloat16
        )
        self.flops: Flops = network.flops()

    @staticmethod
    def from_checkpoint(checkpoint: Checkpoint, *, bfloat16: bool = True) -> "CellClassifier":
        """The classifier that a checkpoint describes."""
        header = checkpoint.header
        return CellClassifier(
            checkpoint.network,
            header.classifier,
            header.class_names,
            background=header.background,
            bfloat16=bfloat16,
        )

    # --- looking

    def prepared(self, latents: Tensor) -> Tensor:
        """The images under the light of the training set. (B, C, H, W)"""
        if self.background is None:
            return latents
        return white_balanced(latents, self.background.to(latents))

    @torch.no_grad()
    def head_answers(self, prepared: Tensor) -> HeadAnswers:
        """What the head says of B images: one view of each, and more where that leaves doubt."""
        settings = self.settings
        log_p, first = self._head_view(prepared)
        n_views = np.ones(len(prepared), dtype=np.int64)
        unsure = (log_p.exp().amax(dim=1) <= settings.look_again_below).nonzero()[:, 0]
        if settings.head_views > 1 and len(unsure):
            views = [log_p[unsure]] + [
                self._head_view(prepared[unsure], view)[0] for view in range(1, settings.head_views)
            ]
            log_p[unsure] = torch.stack(views).logsumexp(dim=0) - np.log(len(views))
            n_views[unsure.cpu().numpy()] = len(views)
        return HeadAnswers(
            log_probabilities=log_p.double().cpu().numpy(), first=first, n_views=n_views
        )

    @torch.no_grad()
    def _head_view(self, prepared: Tensor, view: int = 0) -> tuple[Tensor, FirstView]:
        """Log-probabilities (B, K), and what else one pass shows, in a symmetry of the square."""
        if view:
            prepared = turned_latents(prepared, torch.full((len(prepared),), 3 * view % 8))
        with self.split.precision(prepared.device):
            features, texture = self.network.features_and_texture(prepared)
            logits = self.network.head(features).float()
        return logits.log_softmax(dim=1), FirstView(
            features=features.double().cpu().numpy(),
            texture=texture.double().cpu().numpy(),
            doubt=-logits.logsumexp(dim=1).double().cpu().numpy(),
        )

    def look(
        self,
        prepared: Tensor,
        image_digests: Sequence[str],
        *,
        row: Row = "fused",
        candidates: Sequence[int] | None = None,
        max_blocks: int | None = None,
        weighting: Weighting | None = None,
        plan: DrawPlan | None = None,
        alpha: float | None = None,
        head_start: bool = True,
        seed: int = 0,
        micro_batch: int = 256,
    ) -> Looked:
        """The evidence on some images.

        Args:
            prepared: from `prepared`. (B, C, H, W)
            image_digests: one for each image; keys its noise.
            row: `head` races nothing, `generative` asks the head nothing that decides.
            candidates: labels of the classes in question; all of them by default.
            max_blocks: budget of each race; the settings' own by default.
            weighting, plan, alpha: other than the settings'.
            head_start: whether races of the row `fused` are about its calibrated sum, and so end as
                soon as more draws would not change its order; otherwise they are about the draws
                alone, as they always are with another weighting or plan than was calibrated.
            seed: another seed draws other noise.
            micro_batch: most units in one batch.
        """
        settings = self.settings
        labels = list(candidates if candidates is not None else range(len(self.class_names)))
        n_classes = len(self.class_names)
        flops = np.zeros(len(prepared))
        head, first = None, None
        n_head_views = np.zeros(len(prepared), dtype=np.int64)
        if row == "generative":
            racing = [labels] * len(prepared)
            max_blocks = max_blocks or settings.generative_blocks
        else:
            answers = self.head_answers(prepared)
            head, first = answers.log_probabilities, answers.first
            n_head_views = answers.n_views
            flops += self.flops.head * n_head_views
            racing = [self._left_by_head(of_image, labels) for of_image in head]
            max_blocks = max_blocks or settings.fused_blocks
        if row == "head":
            return Looked(
                head=head,
                first=first,
                n_head_views=n_head_views,
                races=None,
                flops=flops,
                n_classes=n_classes,
            )
        head_starts = None
        if head is not None and head_start and weighting is None and plan is None:
            head_starts = self._head_starts(head, racing)
        races = race_many(
            self.split,
            prepared,
            image_digests,
            racing,
            plan or settings.draw_plan,
            weighting=weighting or settings.weighting_function,
            alpha=settings.alpha if alpha is None else alpha,
            max_blocks=max_blocks,
            prior=settings.variance_prior,
            head_starts=head_starts,
            seed=seed,
            micro_batch=micro_batch,
        )
        for i, race in enumerate(races):
            flops[i] += race.n_trunk_passes * self.flops.trunk
            flops[i] += race.n_class_passes * self.flops.decoder
        return Looked(
            head=head,
            first=first,
            n_head_views=n_head_views,
            races=races,
            flops=flops,
            n_classes=n_classes,
        )

    def _left_by_head(self, log_probabilities: Array, labels: list[int]) -> list[int]:
        """Candidates that the head finds plausible, best first; two at least."""
        posterior = self.settings.rows["head"].posterior
        among = posterior.log_probabilities(
            Evidence(head=log_probabilities[None]), candidates=labels
        )[0]
        order = sorted(labels, key=lambda k: -among[k])
        plausible = [k for k in order if among[k] >= np.log(max(self.settings.prune_below, 1e-300))]
        return plausible if len(plausible) >= 2 else order[:2]

    def _head_starts(self, head: Array, racing: Sequence[list[int]]) -> list[Array] | None:
        """What the calibrated sum adds to each racing class's block score, in the score's units."""
        posterior = self.settings.rows["fused"].posterior
        generative, of_head = posterior.generative_scale, posterior.head_scale
        if not generative or of_head is None or posterior.n_cells <= 1:
            return None
        added = of_head * head + np.array(posterior.class_bias)
        return [
            of_image[labels] / generative for of_image, labels in zip(added, racing, strict=True)
        ]

    def profiles(
        self,
        prepared: Tensor,
        image_digests: Sequence[str],
        class_labels: Sequence[int],
        *,
        seed: int = 0,
        micro_batch: int = 256,
    ) -> Array:
        """Denoising error of each image under one class, by level of the anomaly plan. (B, L)"""
        plan = self.settings.anomaly_plan
        draws = [
            keyed_draws(plan, tuple(prepared.shape[1:]), seed=seed, image_digest=digest)
            for digest in image_digests
        ]
        log_snr = torch.stack([d.log_snr for d in draws])
        errors = paired_class_errors(
            self.network.split(appearance="clean", bfloat16=self.bfloat16),
            prepared,
            sigmas_from_log_snr(log_snr).to(prepared),
            torch.stack([d.noise for d in draws]).to(prepared),
            torch.tensor(list(class_labels), device=prepared.device)[:, None],
            turns=torch.stack([d.turns for d in draws]) if plan.turned else None,
            micro_batch=micro_batch,
        )
        edges = np.linspace(plan.log_snr_min, plan.log_snr_max, plan.n_levels + 1)
        return error_profiles(errors[..., 0], log_snr, edges, prepared[0].numel())

    def measurements(
        self,
        prepared: Tensor,
        image_digests: Sequence[str],
        looked: Looked,
        log_probabilities: Array,
        *,
        seed: int = 0,
    ) -> Measurements:
        """What the anomaly score looks at."""
        best = log_probabilities.argmax(axis=1).tolist()
        first = looked.first or self._head_view(prepared)[1]
        return Measurements(
            profiles=self.profiles(prepared, image_digests, best, seed=seed),
            features=first.features,
            texture=first.texture,
            doubt=first.doubt,
            posteriors=np.exp(log_probabilities),
        )

    def texture_p_values(self, looked: Looked) -> Array | None:
        """How far they look close by as the reference cells do, for nothing extra. (B,)

        None for the row `generative`, which has no pass of the head, or without reference cells.
        """
        reference = self.settings.anomaly
        if looked.first is None or reference is None:
            return None
        return reference.texture.p_values(looked.first.texture)

    # --- deciding

    def classify(
        self, latents: Tensor, image_digests: Sequence[str], **options: Any
    ) -> list[Verdict]:
        """One verdict for each image; the options are those of `judge`."""
        verdicts, _ = self.judge(latents, image_digests, **options)
        return verdicts

    def judge(
        self,
        latents: Tensor,
        image_digests: Sequence[str],
        *,
        row: Row = "fused",
        candidates: Sequence[int] | None = None,
        max_blocks: int | None = None,
        weighting: str | None = None,
        level: float = 0.9,
        classwise: bool = False,
        risk: float | None = None,
        anomaly: bool = False,
        seed: int = 0,
        micro_batch: int = 256,
    ) -> tuple[list[Verdict], Looked]:
        """One verdict for each image, and what all of them rest on.

        Args:
            latents: clean images. (B, C, H, W)
            image_digests: one for each image; keys its noise.
            row: what decides.
            candidates: labels of at least two classes that a laboratory declared; stated in the
                verdict. All of them by default.
            max_blocks: budget of each race.
            weighting: `elbo` or `robust` instead of the checkpoint's own, for the row
                `generative`; its probabilities are then not calibrated.
            level: of the prediction set.
            classwise: whether the set's level holds within each class.
            risk: largest rate of wrong verdicts among those that are not withheld; the
                checkpoint's own by default.
            anomaly: also measure how unlike the reference cells the image is.
            seed: another seed draws other noise.
            micro_batch: most units in one batch.

        Raises:
            ValueError: for a bad option; the message says which.
        """
        settings = self.settings
        if weighting is not None and row != "generative":
            raise ValueError(
                f"weighting={weighting!r} with row={row!r}; another weighting is for the row "
                "'generative' only, as the fused row was calibrated with its own."
            )
        if anomaly and settings.anomaly is None:
            raise ValueError(
                "This checkpoint has no reference cells to find anomalies with; fit it again on at "
                "least twenty held-out cells of each class, or ask without `anomaly`."
            )
        calibrations = settings.rows[row]
        if weighting is not None and weighting != settings.weighting_name:
            plain = ClassifierSettings.uncalibrated(len(self.class_names), settings.draw_plan)
            calibrations = plain.rows[row]
        rule = _abstention_rule(calibrations, risk)
        prepared = self.prepared(latents)
        looked = self.look(
            prepared,
            image_digests,
            row=row,
            candidates=candidates,
            max_blocks=max_blocks,
            weighting=None if weighting is None else WEIGHTINGS[weighting],
            seed=seed,
            micro_batch=micro_batch,
        )
        log_probabilities = calibrations.posterior.log_probabilities(
            looked.evidence, candidates=candidates
        )
        textures = self.texture_p_values(looked)
        anomalies: list[Anomaly | None] = [None] * len(prepared)
        n_profile = 0
        if anomaly and settings.anomaly is not None:
            seen = self.measurements(prepared, image_digests, looked, log_probabilities, seed=seed)
            anomalies = [
                Anomaly(p_value=a.p_value, alarm_rate=settings.false_alarm_rate)
                for a in assess(settings.anomaly, seen)
            ]
            n_profile = settings.anomaly_plan.n_draws
        verdicts = [
            give_verdict(
                looked.evidence.take(np.array([i])),
                model_class_names=self.class_names,
                posterior=calibrations.posterior,
                conformal=calibrations.conformal,
                cost=self._cost(looked, i, n_profile),
                weighting=weighting or settings.weighting_name,
                seed=seed,
                image_digest=image_digests[i],
                level=level,
                classwise=classwise,
                candidates=candidates,
                undecided=() if looked.races is None else looked.races[i].undecided,
                abstention=rule,
                texture=None
                if textures is None
                else Anomaly(p_value=float(textures[i]), alarm_rate=settings.false_alarm_rate),
                anomaly=anomalies[i],
            )
            for i in range(len(prepared))
        ]
        return verdicts, looked

    def _cost(self, looked: Looked, i: int, n_profile: int) -> Cost:
        race = None if looked.races is None else looked.races[i]
        # The generative row asks the head for its features only where anomaly is measured.
        n_late = 1 if looked.first is None and n_profile else 0
        n_head = n_late + int(looked.n_head_views[i])
        return Cost(
            trunk_passes=n_head + n_profile + (race.n_trunk_passes if race else 0),
            class_passes=n_profile + (race.n_class_passes if race else 0),
            flops=int(looked.flops[i]) + n_late * self.flops.head + n_profile * self.flops.forward,
        )


def _abstention_rule(calibrations: RowSettings, risk: float | None) -> AbstentionRule | None:
    if calibrations.abstention is None:
        if risk is not None:
            raise ValueError(
                f"risk={risk:g}, but no calibration cells vouch for a rate of wrong verdicts here; "
                "ask without `risk`."
            )
        return None
    wanted = calibrations.default_risk if risk is None else risk
    return None if wanted is None else calibrations.abstention.rule(wanted)
