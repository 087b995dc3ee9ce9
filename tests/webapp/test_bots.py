import json

import pytest

from webapp.bots import Given, Played, ShownPage, known_by_pixels, read_links
from webapp.errors import WebappError


def given(response, is_synthetic, number=1, **changes):
    values = {
        "trial_number": number,
        "is_practice": False,
        "is_attention": False,
        "is_repeat": False,
        "design": "authenticity",
        "stimulus_ids": ("ab" * 8,),
        "is_synthetic": is_synthetic,
        "response": response,
        "confidence": 3,
    }
    return Given(**values | changes)


def test_counts_are_named_as_signal_detection_names_them():
    answers = [
        given("generated", True),
        given("generated", True),
        given("real", True),
        given("generated", False),
        given("real", False),
    ]
    record = Played(participant_id="P01", given=tuple(answers), has_left=False).to_json()
    answered = record.pop("answers")
    assert record == {
        "participant_id": "P01",
        "hits": 2,
        "misses": 1,
        "false_alarms": 1,
        "correct_rejections": 1,
        "n": 5,
        "has_left": False,
    }
    assert json.loads(json.dumps(answered))[0]["stimulus_ids"] == ["ab" * 8]


@pytest.mark.parametrize(
    "changes",
    [{"is_practice": True}, {"is_attention": True}, {"is_repeat": True}, {"design": "pair"}],
)
def test_only_first_showings_of_authenticity_are_counted(changes):
    answers = (given("real", False), given("real", False, **changes))
    assert Played(participant_id="P01", given=answers, has_left=False).to_json()["n"] == 1


def test_a_page_is_read_as_a_browser_shows_it():
    page = ShownPage.of(
        '<div data-page="trial" data-design="pair" data-presentation="tok" data-block="2" '
        'data-trial-number="3" data-n-trials="8" data-practice><button data-response="left">1'
        '</button><button data-response="left">2</button><button data-response="right">1</button>'
    )
    assert page.name == "trial"
    assert page.image_urls == ("/image/tok/left", "/image/tok/right")
    assert page.responses == ("left", "right")
    assert page.place == ("2", True, 3)


def test_a_form_is_filled_with_what_it_takes():
    page = ShownPage.of(
        '<form data-page="background"><input type="radio" name="role" value="student">'
        '<input type="radio" name="role" value="other"><input type="number" name="years" min="0">'
        '<input name="number"></form>'
    )
    assert page.form == {"role": "student", "years": "0", "number": "1"}


def test_what_a_picture_is_is_known_by_its_pixels_alone(
    stimuli, practice_stimuli, attention_stimuli
):
    known = known_by_pixels([stimuli, practice_stimuli], attention_stimuli)
    assert len(known) == 36
    assert sum(one.is_attention for one in known.values()) == 12
    assert sum(one.stimulus.is_synthetic for one in known.values()) == 18


@pytest.mark.parametrize("line", ["http://x/s/1", "P01 http://x/other/1", "P01 http://x/s/1 more"])
def test_a_line_that_is_no_link_is_named_with_advice(tmp_path, line):
    path = tmp_path / "links.txt"
    path.write_text(f"P00 http://127.0.0.1/s/0\n{line}\n")
    with pytest.raises(WebappError, match="line 2 is not `participant link`"):
        read_links(path)
