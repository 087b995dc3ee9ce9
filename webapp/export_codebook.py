"""What the columns of an export mean."""

import pandas as pd

from studies.responses import codebook

MEANINGS = {
    "trial_number": ("position in the reader's order, from 1, practice not counted", "trials"),
    "block_number": ("part of the study, as the protocol numbers its blocks, from 1", "none"),
    "primed": ("true if readers had been told something before this block", "none"),
    "design": ("what was asked: authenticity, pair, classification or quality", "none"),
    "kind": ("main, repeat, or attention for an obvious control", "none"),
    "left_stimulus_id": ("picture on the left, or the only one", "none"),
    "right_stimulus_id": ("picture on the right of a pair", "none"),
    "truth": ("the right answer, in the words of `response`", "none"),
    "response": ("what the reader answered; of a rating, points from 1, the poorest", "none"),
    "revision": ("2 if an earlier answer to this trial was taken back, else 1", "answers"),
    "hidden_s": ("how long the page was hidden while the trial stood; empty if unknown", "seconds"),
    "case_code": ("the picture or the pair, in code", "none"),
    "arm_code": (
        "A or B: real or generated, or where the real one was; which, no one says",
        "none",
    ),
    "arm": ("order of the blocks, from 0", "none"),
    "language": ("in which the reader took part", "none"),
    "is_bot": ("true for a scripted reader of a dry run", "none"),
    "consent_version": ("version of the text that the reader agreed to", "none"),
    "consented_at": ("when, ISO 8601", "UTC"),
    "withdrawn_at": ("when the reader withdrew, ISO 8601; empty if not", "UTC"),
    "n_answered": ("answers that count, practice not among them", "answers"),
    "median_response_time_s": ("over those answers", "seconds"),
    "last_seen_at": ("last consent, showing or answer, ISO 8601", "UTC"),
    "hidden_share": ("share of the answers given to a page that was hidden at times", "none"),
    "attention_right": ("obvious controls that the reader got right", "trials"),
    "attention_of": ("obvious controls that the reader judged", "trials"),
    "background_role": ("profession, as the reader gave it", "none"),
    "background_years": ("in which the reader has read blood smears", "years"),
    "background_colour_vision": ("normal, deficient or unknown, as the reader gave it", "none"),
    "background_display": ("monitor, laptop, tablet or phone", "none"),
    "calibration_dark": ("faint squares seen in the black field, of 4", "squares"),
    "calibration_light": ("faint squares seen in the white field, of 4", "squares"),
    "calibration_number": ("read from the zoom chart; 384 is right", "none"),
    "calibration_zoom_max": ("largest zoom used on the chart", "none"),
    "calibration_screen_width": ("of the screen", "CSS pixels"),
    "calibration_screen_height": ("of the screen", "CSS pixels"),
    "calibration_view_width": ("of the page", "CSS pixels"),
    "calibration_view_height": ("of the page", "CSS pixels"),
    "calibration_pixel_ratio": ("device pixels in a CSS pixel", "none"),
    "calibration_gamut": ("colour gamut that the browser reports", "none"),
}
"""Meaning and unit of each column that `studies.responses` does not know."""


def explained(table: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Meaning, unit and type of each column."""
    known = {
        name: (column["description"], column["unit"])
        for name, column in codebook()["properties"].items()
    } | MEANINGS
    return {
        name: {
            "meaning": known[name][0],
            "unit": known[name][1],
            "type": str(table[name].dtype),
        }
        for name in map(str, table)
    }
