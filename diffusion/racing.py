"""Classes race for an image: block after block, those beaten beyond doubt drop out.

A state machine without a network: it says what it wants evaluated next and takes the errors.
`packing` runs many races in one batch.

Shapes: n blocks, N noise draws of a block, K candidate classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from diffusion.draws import DrawPlan
from diffusion.elimination import BlockVariancePrior, beaten_classes, standard_errors_of_means
from diffusion.weighting import Weighting, block_log_likelihoods

N_OPT = 3
"""Blocks after which elimination is sharpest. With a variance prior the boundary is within a tenth
of its best from one block to eight; without one it is out of reach before the third."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One block of draws to be evaluated under some classes."""

    block: int
    class_labels: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceResult:
    """How a race ended, with every error that was computed on the way."""

    class_labels: tuple[int, ...]
    """The candidates, in the order of K."""
    winner: int
    """Label of the class with the highest score, head start included."""
    scores: Tensor
    """Weighted log-likelihoods minus the winner's: what the draws say, without any head start. The
    winner has 0, all others less; with a head start some may have more. (K,)"""
    standard_errors: Tensor
    """Monte-Carlo error of `scores`: 0 for the winner, infinite after one block without a variance
    prior, an upper bound for a class that was beaten by another than the winner. After n blocks a
    score is t-distributed with n - 1 degrees of freedom and those of the prior. (K,)"""
    undecided: tuple[int, ...]
    """Labels of the classes never eliminated, the winner's among them. With a head start a class
    that is missing here may have a higher score than the winner: not enough to make up for it."""
    n_blocks: int
    n_trunk_passes: int
    """Noised images of which the class-free part was computed."""
    n_class_passes: int
    """Noised images times classes of which the rest was computed."""
    errors: Tensor
    """`|noise - predicted noise|^2`; not a number after a class has left. (n * N, K)"""
    log_snr: Tensor
    """Of each draw. (n * N,)"""


class Race:
    """The race of one image's candidate classes.

    After each block every class is compared with the leader (`elimination`), each comparison at
    error rate `alpha / (K - 1)`. The class with the highest expected block score can be eliminated
    only in a comparison with one of its K - 1 rivals, so the probability that it ever is, over all
    blocks and all leaders, is at most `alpha`. This holds for block differences that are normal;
    with a variance prior, on average over images whose variances follow it. Heavier tails (t with
    four degrees of freedom) stay below `alpha` too in tests/diffusion/test_elimination.py. A class
    that has left cannot come back. With a capped weighting a class's expected block score is the
    one among the classes still in the race.

    A head start is what other evidence says of each class, in units of block scores. It is added
    wherever classes are compared: leader, best class and winner are by the sum of both, and the
    race goes on only while more draws could change that order. It takes no part in `scores`. The
    variance prior must then hold for images of any head start.
    """

    def __init__(
        self,
        class_labels: Sequence[int],
        plan: DrawPlan,
        *,
        weighting: Weighting,
        alpha: float,
        max_blocks: int,
        prior: BlockVariancePrior | None = None,
        n_opt: int = N_OPT,
        head_start: ArrayLike | None = None,
    ) -> None:
        """A race that has not begun.

        Args:
            class_labels: candidate classes, at least two; all that the model knows, or the
                plausible ones.
            plan: how the blocks are drawn.
            weighting: what each level counts.
            alpha: probability of ever eliminating the best class; 0 eliminates none.
            max_blocks: the budget. The classes left at its end are undecided.
            prior: of the variance of block differences, for eliminations from the first block on.
            n_opt: number of blocks after which elimination is to be sharpest.
            head_start: of each class, up to a common constant; none by default. (K,)

        Raises:
            ValueError: for fewer than two classes, a repeated one, no blocks, an alpha outside
                [0, 1), one block as `n_opt` without a prior, or head starts that are not finite or
                not as many as classes.
        """
        if len(set(class_labels)) < 2 or len(set(class_labels)) != len(class_labels):
            raise ValueError(
                f"class_labels={list(class_labels)}; give at least two different candidate classes."
            )
        if not 0 <= alpha < 1:
            raise ValueError(
                f"alpha={alpha}; give a probability such as 0.05, or 0 to eliminate no class."
            )
        if max_blocks < 1:
            raise ValueError(f"max_blocks={max_blocks}; give the race at least one block.")
        if n_opt < 2 and prior is None and alpha > 0:
            raise ValueError(
                f"n_opt={n_opt}: without a variance prior one block tells nothing; give at least "
                "2, or a prior from `fit_block_variance_prior`."
            )
        n_classes = len(class_labels)
        self.head_start = np.zeros(n_classes)
        if head_start is not None:
            self.head_start = np.array(head_start, dtype=np.float64)
        if self.head_start.shape != (n_classes,):
            raise ValueError(
                f"a head start of shape {self.head_start.shape} for {n_classes} candidate classes; "
                "give one number for each, in their order."
            )
        if not np.isfinite(self.head_start).all():
            raise ValueError(
                f"head_start={self.head_start.tolist()}; give finite numbers, and leave a class "
                "that cannot win out of the race."
            )
        self.class_labels = tuple(class_labels)
        self.plan, self.weighting = plan, weighting
        self.alpha, self.max_blocks = alpha, max_blocks
        self.prior, self.n_opt = prior, n_opt
        self._is_in = np.ones(n_classes, dtype=bool)
        self._beaten: list[tuple[int, int]] = []  # (class, the leader that beat it), in order
        self._blocks = np.empty((0, n_classes))
        self._errors: list[Tensor] = []
        self._log_snr: list[Tensor] = []

    @property
    def n_blocks(self) -> int:
        """Blocks taken so far."""
        return len(self._blocks)

    @property
    def is_over(self) -> bool:
        """Whether one class is left or the budget is spent."""
        return self.n_blocks == self.max_blocks or int(self._is_in.sum()) == 1

    @property
    def undecided(self) -> tuple[int, ...]:
        """Labels of the classes not eliminated so far."""
        return tuple(
            label for label, is_in in zip(self.class_labels, self._is_in, strict=True) if is_in
        )

    def wanted(self) -> tuple[Wanted, ...]:
        """Blocks that can be evaluated now; one alone wherever its outcome may end the race."""
        if self.is_over:
            return ()
        end = self.max_blocks if self.alpha == 0 else self.n_blocks + 1
        return tuple(
            Wanted(block=block, class_labels=self.undecided) for block in range(self.n_blocks, end)
        )

    def take(self, wanted: Wanted, errors: Tensor, log_snr: Tensor) -> None:
        """Take in the errors of one wanted block; blocks come in order.

        Args:
            wanted: the first of those that `wanted()` names.
            errors: `|noise - predicted noise|^2` of its draws under its classes. (N, its classes)
            log_snr: of the draws. (N,)

        Raises:
            ValueError: if the block is another one, or an error is not a finite number.
        """
        expected = Wanted(block=self.n_blocks, class_labels=self.undecided)
        if self.is_over or wanted != expected:
            raise ValueError(
                f"the race wants {'nothing more' if self.is_over else expected} and was given "
                f"{wanted}; hand in its blocks in order."
            )
        if not bool(torch.isfinite(errors).all()):
            raise ValueError(
                "the denoiser's error is not a finite number; look for infinite pixels in the "
                "latents, or evaluate the network in float32."
            )
        scores = block_log_likelihoods(errors, log_snr, self.plan, self.weighting)
        self._blocks = np.vstack([self._blocks, np.full(len(self.class_labels), np.nan)])
        self._blocks[-1, self._is_in] = scores[0].numpy()
        of_all = torch.full((len(log_snr), len(self.class_labels)), torch.nan, dtype=torch.float64)
        of_all[:, torch.from_numpy(self._is_in)] = errors.double().cpu()
        self._errors.append(of_all)
        self._log_snr.append(log_snr.double().cpu())
        if self.alpha > 0:
            self._eliminate()

    def _eliminate(self) -> None:
        (present,) = self._is_in.nonzero()
        leader, is_beaten = beaten_classes(
            self._blocks[:, present],
            error_rate=self.alpha / (len(self.class_labels) - 1),
            n_opt=self.n_opt,
            prior=self.prior,
            head_start=self.head_start[present],
        )
        self._beaten += [(int(k), int(present[leader])) for k in present[is_beaten]]
        self._is_in[present[is_beaten]] = False

    def result(self) -> RaceResult:
        """The standing, normally of a race that is over.

        A class still in the race is compared with the winner over all blocks. A class that has left
        is compared with the leader that beat it, over the blocks in which both took part, and that
        one with the winner in the same way; so no class that was beaten can come out ahead, head
        start included.

        Raises:
            ValueError: before the first block.
        """
        if not self.n_blocks:
            raise ValueError("the race has not begun; take at least one block before its result.")
        (present,) = self._is_in.nonzero()
        standing = self._blocks[:, present].mean(axis=0) + self.head_start[present]
        winner = int(present[standing.argmax()])
        pairs = [(int(k), winner) for k in present if k != winner]
        scores, standard_errors = np.zeros((2, len(self.class_labels)))
        # The last to leave come first: a class is reached after the one that beat it.
        for k, better in pairs + self._beaten[::-1]:
            differences = self._blocks[:, k] - self._blocks[:, better]
            differences = differences[~np.isnan(differences)]
            scores[k] = scores[better] + differences.mean()
            # At most the sum, whatever the correlation of the two steps.
            own_error = float(standard_errors_of_means(differences, self.prior))
            standard_errors[k] = standard_errors[better] + own_error
        errors = torch.cat(self._errors)
        return RaceResult(
            class_labels=self.class_labels,
            winner=self.class_labels[winner],
            scores=torch.from_numpy(scores),
            standard_errors=torch.from_numpy(standard_errors),
            undecided=self.undecided,
            n_blocks=self.n_blocks,
            n_trunk_passes=len(errors),
            n_class_passes=int((~errors.isnan()).sum()),
            errors=errors,
            log_snr=torch.cat(self._log_snr),
        )
