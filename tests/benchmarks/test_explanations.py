"""A swap counts as valid only where it was found and another classifier agrees; cells are fresh."""

import numpy as np
import torch

from benchmarks.explanations import fresh, is_valid, missed
from diffusion.counterfactual import Counterfactual
from training.data import LabelledImages


def edit(value, source, target, is_found=True):
    return Counterfactual(
        latents=torch.full((3, 4, 4), float(value)),
        source=source,
        target=target,
        is_found=is_found,
        probability=0.95,
        log_snr=0.0,
        identity_error=0.0,
    )


FOUND = [edit(1, 0, 1), edit(0, 1, 0), edit(0, 0, 1), edit(1, 0, 1, is_found=False)] * 20


def by_brightness(latents, digests):
    """Class 1 is bright."""
    bright = latents.mean(dim=(1, 2, 3))
    return torch.stack([1 - bright, bright], dim=1)


def test_validity_needs_another_classifier_to_agree_and_the_edit_to_be_found():
    assert is_valid(FOUND, by_brightness) == [True, True, False, False] * 20


def test_each_edit_is_judged_under_noise_of_its_own():
    asked = []

    def remembering(latents, digests):
        asked.extend(digests)
        return by_brightness(latents, digests)

    is_valid(FOUND, remembering)
    assert len(set(asked)) == len(FOUND)


def test_what_was_missed_is_counted_by_pair():
    found = [*FOUND, edit(0, 1, 0, is_found=False)]
    assert missed(found, ["dark", "bright"]) == {"dark > bright": 20, "bright > dark": 1}


def test_fresh_cells_are_none_of_those_left_out_and_as_many_of_each_class():
    rng = np.random.default_rng(0)
    cells = LabelledImages(
        images=np.zeros((60, 2, 2, 3), np.uint8),
        labels=rng.permutation(np.repeat([0, 1, 2], 20)),
        class_names=("a", "b", "c"),
        digests=tuple(f"{i}" for i in range(60)),
    )
    developed, reported = fresh(cells, 0, 12, 0), fresh(cells, 12, 24, 0)
    assert not set(developed.digests) & set(reported.digests)
    assert np.bincount(developed.labels).tolist() == [4, 4, 4]
    assert np.bincount(reported.labels).tolist() == [8, 8, 8]
