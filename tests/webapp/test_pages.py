"""The pages themselves: the same in all languages, everything escaped, a key for every class."""

import re
import string

import grimp
import pytest

from studies.protocol import Protocol
from webapp import pages
from webapp.blinding import BlindedTrial, Feedback
from webapp.pages import RESERVED_KEYS, Frame, class_keys
from webapp.strings import LANGUAGES, preferred, strings

PBC = ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil")


def leaves(words, path=""):
    if isinstance(words, dict):
        return {
            k: v for key, value in words.items() for k, v in leaves(value, f"{path}.{key}").items()
        }
    return {path: words}


def placeholders(text):
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name)


def frame(language="en", **changes):
    values = {"study_id": "s", "n_trials": 4, "languages": LANGUAGES}
    return Frame(Protocol.model_validate(values | changes), language)


def trial(design="authenticity", **changes):
    values = {
        "design": design,
        "presentation_token": "here",
        "next_presentation_token": None,
        "trial_number": 1,
        "n_trials": 4,
        "is_practice": False,
        "block_number": 1,
        "exposure_s": None,
        "can_undo": False,
    }
    return BlindedTrial(**values | changes)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_everything_and_fills_in_the_same(language):
    here, english = leaves(strings(language)), leaves(strings("en"))
    assert here.keys() == english.keys()
    assert {k: placeholders(v) for k, v in here.items()} == {
        k: placeholders(v) for k, v in english.items()
    }


def test_german_is_not_english():
    german, english = leaves(strings("de")), leaves(strings("en"))
    same = {key for key in german if german[key] == english[key] and len(english[key]) > 1}
    assert same <= {
        *(f".background.{key}" for key in ("colour_visions.normal", "displays.laptop")),
        *(".background.displays.tablet", ".classes.erythroblast"),
    }


@pytest.mark.parametrize(
    ("header", "language"),
    [("de-AT,de;q=0.9,en", "de"), ("en-GB", "en"), ("fr,de", "en"), ("", "en")],
)
def test_pages_outside_a_study_speak_the_browsers_language(header, language):
    assert preferred(header) == language


def test_the_page_of_a_trial_says_what_is_asked_and_nothing_else():
    html = frame().trial(trial(trial_number=3, next_presentation_token="ahead"))
    assert "Is this cell real or generated?" in html
    assert "3 of 4" in html
    assert re.findall(r'<img[^>]*src="([^"]*)" alt="([^"]*)"', html) == [
        ("/image/here", "cell image")
    ]
    assert 'data-next="/image/ahead"' in html
    assert len(re.findall(r'data-response="real" data-confidence="\d"', html)) == 6


@pytest.mark.parametrize(
    ("design", "responses"),
    [
        ("authenticity", ["real"] * 6 + ["generated"] * 6),
        ("pair", ["left"] * 6 + ["right"] * 6),
        ("classification", ["ig", "monocyte"]),
        ("quality", ["1", "2", "3"]),
    ],
)
def test_each_design_offers_its_answers(design, responses):
    block = {"design": design, "n_trials": 4, "rating_points": 3}
    html = frame(blocks=[block]).trial(trial(design), ("ig", "monocyte"))
    assert re.findall(r'data-response="(\w+)"', html) == responses


@pytest.mark.parametrize("can_undo", [False, True])
def test_undo_is_offered_where_it_is_possible(can_undo):
    assert ("data-undo" in frame().trial(trial(can_undo=can_undo))) is can_undo


def test_practice_is_counted_by_itself_and_told_what_was_right():
    assert "Practice 1 of 4" in frame().trial(trial(is_practice=True))
    wrong = frame().feedback(Feedback(was_right=False, truth="right"))
    assert "That is not right." in wrong
    assert "The real cell is on the right." in wrong
    assert "labelled: Immature granulocyte" in frame().feedback(
        Feedback(was_right=True, truth="ig")
    )


@pytest.mark.parametrize("disclosed", [None, (30, 40)])
def test_the_last_page_tells_the_score_only_if_it_is_given_one(disclosed):
    assert ("You were right in 30 of 40." in frame().finish(44, disclosed)) is bool(disclosed)


def test_a_reader_is_told_what_becomes_of_the_answers_on_withdrawal():
    assert "are kept under your code" in frame().consent()
    assert "are then erased" in frame(conduct={"withdrawal": "erase"}).consent()


def test_what_the_protocol_says_is_shown_as_text_and_not_as_html():
    hostile = "<script>alert(1)</script>"
    blocks = [{"n_trials": 4, "introduction": hostile}]
    made = frame(title=hostile, consent_text=hostile, instructions=hostile, blocks=blocks)
    shown = [made.consent(), made.instructions(), made.block(1), made.trial(trial())]
    shown.append(made.trial(trial(), notice=hostile))
    shown.append(
        frame(blocks=[{"design": "classification", "n_trials": 4}]).trial(
            trial("classification"), (hostile, '" onclick="alert(1)')
        )
    )
    for html in shown:
        assert "<script" not in html
        assert ' onclick="' not in html
        assert "&lt;script&gt;" in html


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_class_has_a_letter_of_its_own(language):
    labels = [frame(language).class_label(name) for name in PBC]
    keys = class_keys(labels)
    assert len(set(keys)) == len(keys)
    assert all(key in label.lower() for key, label in zip(keys, labels, strict=True))
    assert not RESERVED_KEYS & set(keys)


def test_first_letters_come_first_and_no_letter_twice():
    assert class_keys(["Eosinophil", "Erythroblast", "Reticulocyte", "Uu"]) == ["e", "y", "r", "a"]
    assert class_keys([f"a{number}" for number in range(30)])[-6:] == [""] * 6


def test_a_picture_whose_time_is_over_is_not_shown_again():
    assert 'data-exposure="0.0"' in frame().trial(trial(exposure_s=0.0))
    assert "data-exposure" not in frame().trial(trial())


@pytest.mark.parametrize("name", ["no_link", "unknown", "expired", "revoked", "withdrawn"])
def test_a_link_that_does_not_open_gives_a_whole_page_that_says_what_to_do(name):
    page = pages.notice_page(name, "de")
    assert page.lstrip().startswith("<!doctype html>")
    assert '<html lang="de">' in page
    assert strings("de")["notice"][name]["heading"] in page
    assert "<script" not in page


def test_the_readers_app_knows_nothing_of_the_researchers():
    imported = grimp.build_graph("webapp").find_upstream_modules("webapp.app")
    assert "webapp.visit" in imported
    assert not [name for name in imported if name.startswith(("webapp.admin", "webapp.registry"))]
