"""Who counts: the rules that the protocol declared before the data, applied in one place."""

from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from studies.protocol import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """One reader who is left out of the primary result, and why."""

    participant_id: str
    reason: str
    """As a clause, with the number and the rule."""


def excluded(first: pd.DataFrame, protocol: Protocol) -> tuple[Excluded, ...]:
    """The readers whom a declared rule leaves out, each with the first rule that does.

    Args:
        first: first presentations only. A rule about time or order holds nobody back where the
            responses do not have it.
    """
    rules, n_planned = protocol.analysis.rules, protocol.n_trials
    found = []
    for name, rows in first.groupby("participant_id", sort=False):
        reason = None
        if len(rows) / n_planned < rules.fewest_share:
            reason = (
                f"judged {len(rows)} of {n_planned} stimuli; at least "
                f"{100 * rules.fewest_share:g} % were declared"
            )
        elif rules.fastest_median_s is not None and "response_time_s" in rows:
            median = float(rows["response_time_s"].median())
            if median < rules.fastest_median_s:
                reason = (
                    f"took {median:.2g} s at the median; at least {rules.fastest_median_s:g} s "
                    "were declared"
                )
        if reason is None and rules.longest_run is not None and "trial_number" in rows:
            answers = rows.sort_values("trial_number")["response"]
            run = max(len(list(same)) for _, same in groupby(answers))
            if run > rules.longest_run:
                reason = (
                    f"gave the same answer {run} times in a row; at most {rules.longest_run} were "
                    "declared"
                )
        if reason is not None:
            found.append(Excluded(participant_id=str(name), reason=reason))
    return tuple(found)
