"""Many races in one packed batch: the draws of all images that race fill the same batches.

Shapes: B images, N noise draws, U units (one noise draw under one class); * is one image's latents.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from diffusion.draws import DrawPlan, keyed_block
from diffusion.elimination import BlockVariancePrior
from diffusion.latents import dihedral
from diffusion.network import SplitDenoiser
from diffusion.racing import N_OPT, Race, RaceResult, Wanted
from diffusion.schedule import sigmas_from_log_snr
from diffusion.weighting import Weighting


def race_many(
    split: SplitDenoiser,
    latents: Tensor,
    image_digests: Sequence[str],
    candidates_per_image: Sequence[Sequence[int]],
    plan: DrawPlan,
    *,
    weighting: Weighting,
    alpha: float,
    max_blocks: int,
    prior: BlockVariancePrior | None = None,
    n_opt: int = N_OPT,
    head_starts: Sequence[ArrayLike] | None = None,
    seed: int = 0,
    micro_batch: int = 256,
) -> list[RaceResult]:
    """The races of many images, packed: whatever races want next fills the same batches.

    A noise draw's class-free part is computed once for all its classes. Images wait until the
    races under way leave room in a batch. An image's answer depends on its digest and the seed, not
    on its neighbours, but for the rounding of a batch of another size.

    Args:
        split: the trained model, without guidance.
        latents: clean images. (B, *)
        image_digests: one for each image; keys its noise.
        candidates_per_image: labels of at least two classes, for each image.
        plan: how blocks are drawn; `max_blocks` replaces its `n_blocks`.
        weighting: what each level counts.
        alpha: probability of eliminating an image's best class; 0 eliminates none. See `Race`.
        max_blocks: the budget of each image.
        prior: of the variance of block differences.
        n_opt: number of blocks after which elimination is to be sharpest.
        head_starts: of each image's candidates, in their order; none by default. See `Race`.
        seed: another seed draws other noise.
        micro_batch: most units in one batch (one draw with all its classes at the least).

    Returns:
        One result for each image, in order.

    Raises:
        ValueError: if images, digests, candidates and head starts differ in number, and as `Race`
            does.
    """
    if not len(latents) == len(image_digests) == len(candidates_per_image):
        raise ValueError(
            f"{len(image_digests)} digests and {len(candidates_per_image)} sets of candidates for "
            f"{len(latents)} images; give one of each for each image."
        )
    if head_starts is not None and len(head_starts) != len(latents):
        raise ValueError(
            f"{len(head_starts)} head starts for {len(latents)} images; give one for each image, "
            "or None."
        )
    races = [
        Race(
            candidates,
            plan,
            weighting=weighting,
            alpha=alpha,
            max_blocks=max_blocks,
            prior=prior,
            n_opt=n_opt,
            head_start=None if head_starts is None else head_starts[i],
        )
        for i, candidates in enumerate(candidates_per_image)
    ]
    packing = Packing(split)
    keys = [
        packing.add(race, image, digest, seed=seed)
        for race, image, digest in zip(races, latents, image_digests, strict=True)
    ]
    results: dict[int, RaceResult] = {}
    while packing:
        results |= packing.step(micro_batch)
    return [results[key] for key in keys]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entrant:
    """An image and its race."""

    race: Race
    latents: Tensor
    image_digest: str
    seed: int


@dataclass(slots=True, kw_only=True)
class _Block:
    """A wanted block under evaluation: the rows before `n_sent` have been put into a batch."""

    key: int
    wanted: Wanted
    log_snr: Tensor
    sigmas: Tensor
    clean: Tensor
    noised: Tensor
    errors: Tensor
    n_sent: int = 0


class Packing:
    """Races that fill the same batches. New ones may come, and old ones leave, between any two.

    True while a race is not over.
    """

    def __init__(self, split: SplitDenoiser) -> None:
        """No race yet. `split` is the trained model, without guidance."""
        self._split = split
        self._entrants: dict[int, _Entrant] = {}
        self._waiting: deque[int] = deque()
        self._wanted: deque[tuple[int, Wanted]] = deque()
        self._n_under_way: Counter[int] = Counter()
        self._current: _Block | None = None
        self._n_added = 0

    def __bool__(self) -> bool:
        return bool(self._entrants)

    def add(self, race: Race, latents: Tensor, image_digest: str, *, seed: int) -> int:
        """Let a race begin when those under way leave room; the key of its result.

        Args:
            race: one that has not begun.
            latents: the clean image. (*)
            image_digest: keys its noise.
            seed: another seed draws other noise.
        """
        key, self._n_added = self._n_added, self._n_added + 1
        self._entrants[key] = _Entrant(
            race=race, latents=latents, image_digest=image_digest, seed=seed
        )
        self._waiting.append(key)
        return key

    def drop(self, key: int) -> None:
        """Forget a race that is not over; what it still wanted is not evaluated."""
        del self._entrants[key]
        self._waiting = deque(one for one in self._waiting if one != key)
        self._wanted = deque(one for one in self._wanted if one[0] != key)
        self._n_under_way.pop(key, None)
        if self._current and self._current.key == key:
            self._current = None

    @torch.no_grad()
    def step(self, room: int) -> dict[int, RaceResult]:
        """Evaluate one batch of at most `room` units (or one draw), and give the races it ended."""
        batch = self._next_batch(room)
        _evaluate(self._split, batch)
        ended: dict[int, RaceResult] = {}
        for block, rows in batch:
            if rows.stop < len(block.sigmas):
                continue
            key, race = block.key, self._entrants[block.key].race
            race.take(block.wanted, block.errors, block.log_snr)
            self._n_under_way[key] -= 1
            if not self._n_under_way[key]:
                if race.is_over:
                    ended[key] = race.result()
                    self.drop(key)
                else:
                    self._ask(key)
        return ended

    def _next_batch(self, room: int) -> list[tuple[_Block, slice]]:
        batch: list[tuple[_Block, slice]] = []
        while room > 0 and (block := self._current_block()):
            n_classes = len(block.wanted.class_labels)
            n_rows = min(len(block.sigmas) - block.n_sent, room // n_classes)
            if n_rows == 0 and batch:
                break
            n_rows = max(n_rows, 1)
            batch.append((block, slice(block.n_sent, block.n_sent + n_rows)))
            block.n_sent += n_rows
            room -= n_rows * n_classes
        return batch

    def _current_block(self) -> _Block | None:
        """A block with rows left to send: races under way go before images that wait."""
        if self._current and self._current.n_sent < len(self._current.sigmas):
            return self._current
        if not self._wanted and self._waiting:
            self._ask(self._waiting.popleft())
        self._current = self._opened(*self._wanted.popleft()) if self._wanted else None
        return self._current

    def _ask(self, key: int) -> None:
        wanted = self._entrants[key].race.wanted()
        self._wanted.extend((key, one) for one in wanted)
        self._n_under_way[key] += len(wanted)

    def _opened(self, key: int, wanted: Wanted) -> _Block:
        entrant = self._entrants[key]
        latents, plan = entrant.latents, entrant.race.plan
        draws = keyed_block(
            plan,
            tuple(latents.shape),
            seed=entrant.seed,
            image_digest=entrant.image_digest,
            block=wanted.block,
        )
        sigmas = sigmas_from_log_snr(draws.log_snr).to(latents)
        clean = latents.expand(len(sigmas), *latents.shape)
        if plan.turned:
            clean = turned_latents(clean, draws.turns)
        return _Block(
            key=key,
            wanted=wanted,
            log_snr=draws.log_snr,
            sigmas=sigmas,
            clean=clean,
            noised=noised_latents(clean, sigmas, draws.noise.to(latents)),
            errors=torch.empty(len(sigmas), len(wanted.class_labels), dtype=torch.float64),
        )


def _evaluate(split: SplitDenoiser, batch: Sequence[tuple[_Block, slice]]) -> None:
    """Fill in the errors of some rows of some blocks by one call of the denoiser."""
    parts = [(block, rows, rows.stop - rows.start) for block, rows in batch]
    clean = torch.cat([block.clean[rows] for block, rows, _ in parts])
    n_classes = torch.tensor([len(b.wanted.class_labels) for b, _, n in parts for _ in range(n)])
    labels = [label for b, _, n in parts for _ in range(n) for label in b.wanted.class_labels]
    errors = unit_errors(
        split,
        clean,
        torch.cat([block.noised[rows] for block, rows, _ in parts]),
        torch.cat([block.sigmas[rows] for block, rows, _ in parts]),
        torch.arange(len(clean)).repeat_interleave(n_classes).to(clean.device),
        torch.tensor(labels, device=clean.device),
    )
    sizes = [n * len(block.wanted.class_labels) for block, _, n in parts]
    for (block, rows, n), of_part in zip(parts, torch.split(errors, sizes), strict=True):
        block.errors[rows] = of_part.view(n, -1)


def unit_errors(
    split: SplitDenoiser,
    clean: Tensor,
    noised: Tensor,
    sigmas: Tensor,
    rows: Tensor,
    class_labels: Tensor,
) -> Tensor:
    """`|noise - predicted noise|^2` of each unit, summed over the image, float64 on the CPU.

    Args:
        split: the trained model.
        clean: what each noised image was before. (N, *)
        noised: (N, *)
        sigmas: their noise levels. (N,)
        rows: which noised image each unit looks at. (U,)
        class_labels: and under which class. (U,)

    Returns:
        (U,)
    """
    denoised = split.finish(split.share(noised, sigmas), rows, class_labels)
    squared = ((denoised - clean[rows]).flatten(1) / sigmas[rows, None]).square()
    # Classes differ in the last digits of these sums, so they are not rounded to float32.
    return squared.sum(dim=1, dtype=torch.float64).cpu()


def noised_latents(clean: Tensor, sigmas: Tensor, noise: Tensor) -> Tensor:
    """`clean + sigma * noise`. (N, *), (N,), (N, *) -> (N, *)"""
    return clean + sigmas.view(-1, *[1] * (clean.ndim - 1)) * noise


def turned_latents(latents: Tensor, turns: Tensor) -> Tensor:
    """Each image in its own symmetry of the square, 0..7. (N, C, H, W), (N,)"""
    turned = torch.empty_like(latents)
    for turn in set(turns.tolist()):
        chosen = turns == turn
        turned[chosen] = dihedral(latents[chosen], turn)
    return turned
