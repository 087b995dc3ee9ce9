"""Who counts: the rules that the protocol declared before the data, applied in one place."""

from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from studies.protocol import Protocol
from studies.responses import n_planned, without_attention


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """One reader who is left out of the primary result, and why."""

    participant_id: str
    reason: str
    """As a clause, with the number and the rule."""


def excluded(first: pd.DataFrame, protocol: Protocol) -> tuple[Excluded, ...]:
    """The readers whom a declared rule leaves out, each with the first rule that does.

    Args:
        first: first presentations only, attention checks among them. A rule about time, order or
            attention holds nobody back where the responses do not have it.
    """
    rules, n_stimuli = protocol.analysis.rules, n_planned(protocol)
    checks = first[first["is_attention"]] if "is_attention" in first else first.iloc[:0]
    found = []
    for name, rows in without_attention(first).groupby("participant_id", sort=False):
        reason = None
        if len(rows) / n_stimuli < rules.fewest_share:
            reason = (
                f"judged {len(rows)} of {n_stimuli} stimuli; at least "
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
        own_checks = checks[checks["participant_id"] == name]
        if reason is None and rules.fewest_attention is not None and len(own_checks):
            is_right = (own_checks["response"] == "generated") == own_checks["is_synthetic"]
            if is_right.mean() < rules.fewest_attention:
                reason = (
                    f"was right on {is_right.sum()} of {len(is_right)} attention checks; at least "
                    f"{100 * rules.fewest_attention:g} % were declared"
                )
        if reason is not None:
            found.append(Excluded(participant_id=str(name), reason=reason))
    return tuple(found)
