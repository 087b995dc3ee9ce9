"""A whole table of responses of simulated readers, to test a report before there are any.

Each bot is an equal-variance observer: its evidence of a picture is normal around −d′/2 for real
and d′/2 for generated ones, and above its criterion it says "generated". A difficult picture moves
the evidence towards the wrong side, whichever that is.
"""

import numpy as np
import pandas as pd
from scipy.special import ndtr

PBC_CLASSES = (
    "basophil",
    "eosinophil",
    "erythroblast",
    "ig",
    "lymphocyte",
    "monocyte",
    "neutrophil",
    "platelet",
)


def simulated_responses(
    *,
    n_readers: int = 10,
    n_cases: int = 200,
    seed: int = 1,
    d_prime: float = 0.2,
    criterion: float = 0.0,
    d_prime_sd: float = 0.3,
    criterion_sd: float = 0.3,
    case_sd: float = 0.5,
    lapse_rate: float = 0.02,
    learning: float = 0.0,
    confidence_points: int = 6,
    class_names: tuple[str, ...] = PBC_CLASSES,
) -> pd.DataFrame:
    """Responses of every reader to every case, each in an order of its own; half are generated.

    Without bias, lapses and learning these are the bots of `studies.planning`: mu = d′/2, reader_sd
    half of `d_prime_sd`.

    Args:
        d_prime: mean over readers, for a picture of average difficulty. Differing pictures bring
            what a table shows down to about d′ / √(1 + case_sd²).
        criterion: mean over readers; above 0 they say "real" more often.
        d_prime_sd: how readers differ in d′.
        criterion_sd: how they differ in the criterion, which is their bias.
        case_sd: how pictures differ in difficulty, in units of the noise.
        lapse_rate: share of answers, and of their confidence, given at random.
        learning: by how much d′ rises from the first trial to the last.

    Returns:
        One row for each judgement, by reader and trial number, with the columns that
        `studies.responses` needs and `trial_number`, `class_name`, `confidence` (all values as
        common as the others where d′ is 0 and the pictures alike) and `response_time_s`.
    """
    rng = np.random.default_rng(seed)
    shape = (n_readers, n_cases)
    is_synthetic = np.arange(n_cases) % 2 == 1
    order = rng.permuted(np.tile(np.arange(n_cases), (n_readers, 1)), axis=1)
    sensitivity = rng.normal(d_prime, d_prime_sd, (n_readers, 1))
    # Trials run along the columns from here on.
    progress = np.linspace(-0.5, 0.5, n_cases)
    ease = rng.normal(0, case_sd, n_cases)[order] + (sensitivity + learning * progress) / 2
    side = np.where(is_synthetic, 1, -1)[order]
    evidence = side * ease + rng.standard_normal(shape)
    above = evidence - rng.normal(criterion, criterion_sd, (n_readers, 1))
    above = np.where(rng.random(shape) < lapse_rate, rng.standard_normal(shape), above)
    certainty = 2 * ndtr(np.abs(above)) - 1
    confidence = np.minimum(1 + np.floor(confidence_points * certainty), confidence_points)
    seconds = rng.lognormal(1.7 - 0.5 * certainty - 0.3 * progress, 0.4)
    classes = np.array(class_names)[np.arange(n_cases) // 2 % len(class_names)]
    return pd.DataFrame(
        {
            "participant_id": np.repeat([f"reader-{i + 1}" for i in range(n_readers)], n_cases),
            "trial_number": np.tile(np.arange(1, n_cases + 1), n_readers),
            "stimulus_id": [f"case-{i + 1}" for i in order.ravel()],
            "class_name": classes[order].ravel(),
            "is_synthetic": is_synthetic[order].ravel(),
            "response": np.where(above > 0, "generated", "real").ravel(),
            "confidence": confidence.astype(np.int64).ravel(),
            "response_time_s": seconds.ravel(),
        }
    )
