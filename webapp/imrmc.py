"""The input file of iMRMC, the FDA's program for readers and cases, and the key to its numbers.

Layout: free text, the four sizes N0, N1, NR and NM, `BEGIN DATA:`, and then `reader,case,modality,
score` without spaces; the truth of a case is the score of reader −1 (iMRMC user manual, 4.1.1 and
4.1.3). Readers, cases and modalities are numbers, because RJafroc, which reads the file too, takes
nothing else.
"""

from collections.abc import Mapping

import pandas as pd

from studies.protocol import Protocol
from studies.roc import ordinal_ratings


def imrmc_file(modalities: Mapping[str, pd.DataFrame], protocol: Protocol) -> str:
    """The text of the file; positive is "generated".

    The score is answer and confidence as one scale, from 1, the surest "real", to twice the
    confidence points, the surest "generated".

    Args:
        modalities: first showings by name, such as the unprimed and the primed round, each with
            `participant_id`, `stimulus_id`, `is_synthetic`, `response` and `confidence`.
    """
    table = pd.concat([judged.assign(modality=name) for name, judged in modalities.items()])
    table["score"] = ordinal_ratings(
        table["response"] == "generated", table["confidence"], protocol.confidence_points
    )
    readers, cases = (
        {code: number for number, code in enumerate(sorted(set(table[column])), 1)}
        for column in ("participant_id", "stimulus_id")
    )
    numbers = {name: number for number, name in enumerate(modalities, 1)}
    truth = table.drop_duplicates("stimulus_id").set_index("stimulus_id")["is_synthetic"]
    key = [
        f"{what} {number}: {code}"
        for what, coded in (("reader", readers), ("modality", numbers), ("case", cases))
        for code, number in coded.items()
    ]
    rows = [f"-1,{number},0,{int(truth[code])}" for code, number in cases.items()]
    read = pd.DataFrame(
        {
            "reader": table["participant_id"].map(readers),
            "case": table["stimulus_id"].map(cases),
            "modality": table["modality"].map(numbers),
            "score": table["score"],
        }
    )
    return "\n".join(
        [
            f"{protocol.study_id}: {protocol.title}",
            f"protocol {protocol.protocol_hash}; truth 1 is generated, 0 is real",
            *key,
            "",
            f"N0: {int((~truth).sum())}",
            f"N1: {int(truth.sum())}",
            f"NR: {len(readers)}",
            f"NM: {len(numbers)}",
            "",
            "BEGIN DATA:",
            *rows,
            read.to_csv(index=False, header=False, lineterminator="\n"),
        ]
    )
