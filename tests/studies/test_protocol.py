import hashlib
import tomllib

import pytest
from pydantic import ValidationError

from studies.protocol import (
    AnalysisPlan,
    Block,
    Conduct,
    ExclusionRules,
    Protocol,
    ProtocolError,
    Texts,
    load_protocol,
)

CONTRACT = """
study_id = "first-light"
title = "Real or generated?"
question = "authenticity"
consent_text = "Yes?"
consent_version = "1"
instructions = "Look."
seed = 1
n_participants = 6
n_trials = 40
confidence_points = 6
[analysis]
confidence_level = 0.95
primary = "accuracy"
"""


@pytest.fixture
def refused(tmp_path):
    def refusal(text):
        path = tmp_path / "protocol.toml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ProtocolError) as caught:
            load_protocol(path)
        return str(caught.value)

    return refusal


def test_a_written_protocol_reads_back_as_the_same_value_with_the_same_hash(tmp_path):
    protocol = Protocol(
        study_id="s-1",
        title='Said "real"? \\ × ∞ \x7f',
        consent_text='first\nsecond """ third\\\n\ttabbed',
        n_trials=12,
    )
    protocol.write(tmp_path / "p.toml")
    again = load_protocol(tmp_path / "p.toml")
    assert again == protocol
    assert again.protocol_hash == protocol.protocol_hash


EVERYTHING = Protocol(
    study_id="s-2",
    title="T",
    consent_text="C",
    consent_version="2",
    instructions="I",
    seed=7,
    n_participants=12,
    n_trials=80,
    confidence_points=4,
    analysis=AnalysisPlan(
        confidence_level=0.9,
        primary="auc",
        equivalence_margin=0.075,
        secondary=("sensitivity", "drift", "class"),
        index='a "column"',
        looks=(5, 12),
        spending="pocock",
        exclusions=ExclusionRules(
            fewest_share=0.75, fastest_median_s=0.5, longest_run=20, fewest_attention=0.9
        ),
    ),
    blocks=(
        Block(
            design="pair",
            n_trials=60,
            n_practice=2,
            n_repeats=3,
            n_attention=4,
            exposure_s=2.5,
            rating_points=7,
            primed=True,
            introduction='Look at the "nucleus".\nThen at the rim.',
        ),
        Block(n_trials=20),
    ),
    conduct=Conduct(
        background=True,
        calibration=True,
        undo=True,
        break_every=20,
        longest_run=3,
        repeat_gap=12,
        block_order="balanced",
        live_days=7,
        disclosure="score",
        withdrawal="erase",
        audit_margin=0.05,
    ),
    languages=("de", "en"),
    texts={"en": Texts(title="E", consent_text="C", instructions="I", introductions=("1", "2"))},
)


def test_every_promise_reads_back_from_the_file(tmp_path):
    EVERYTHING.write(tmp_path / "p.toml")
    again = load_protocol(tmp_path / "p.toml")
    assert again == EVERYTHING
    assert again.protocol_hash == EVERYTHING.protocol_hash
    # None of the fields has its default, so that none of them can have been left out.
    plan = again.analysis
    for model in (
        *(again, plan, plan.exclusions, again.conduct),
        *(again.blocks[0], again.texts["en"]),
    ):
        fields = type(model).model_fields.items()
        same = {name for name, field in fields if getattr(model, name) == field.default}
        assert same <= {"question"}


@pytest.mark.parametrize(
    "plan",
    [
        AnalysisPlan(),
        AnalysisPlan(equivalence_margin=0.05),
        AnalysisPlan(exclusions=ExclusionRules()),
        AnalysisPlan(exclusions=ExclusionRules(longest_run=9)),
        AnalysisPlan(looks=(2, 3, 4), spending="obrien-fleming"),
    ],
)
def test_part_of_the_promises_reads_back_too(tmp_path, plan):
    protocol = Protocol(study_id="s", analysis=plan)
    protocol.write(tmp_path / "p.toml")
    assert load_protocol(tmp_path / "p.toml") == protocol


@pytest.mark.parametrize(
    "changes",
    [
        {"blocks": (Block(n_trials=4), Block(design="quality", n_trials=6, rating_points=3))},
        {"conduct": Conduct(undo=True)},
        {"languages": ("en", "de")},
        {"languages": ("en", "de"), "texts": {"de": Texts(title="Echt?")}},
    ],
)
def test_part_of_the_conduct_reads_back_too(tmp_path, changes):
    protocol = Protocol(study_id="s", **changes)
    protocol.write(tmp_path / "p.toml")
    again = load_protocol(tmp_path / "p.toml")
    assert again == protocol
    assert again.protocol_hash == protocol.protocol_hash


def test_a_protocol_without_blocks_is_one_of_authenticity():
    assert Protocol(study_id="s", n_trials=12).rounds == (Block(n_trials=12),)
    assert Protocol(study_id="s", n_trials=12).n_shown == 12


def test_the_trials_of_the_blocks_are_those_of_the_protocol():
    blocks = (Block(n_trials=20, n_repeats=4, n_attention=3, n_practice=2), Block(n_trials=6))
    protocol = Protocol(study_id="s", blocks=blocks)
    assert (protocol.n_trials, protocol.n_shown) == (26, 33)


def test_words_that_a_language_lacks_are_those_of_the_first():
    blocks = (Block(n_trials=4, introduction="One."), Block(n_trials=4, introduction="Two."))
    german = Texts(title="Echt?", introductions=("Eins.", "Zwei."))
    protocol = Protocol(
        study_id="s", blocks=blocks, languages=("en", "de"), texts={"de": german}, title="Real?"
    )
    assert protocol.words("de") == Texts(
        title="Echt?",
        consent_text=protocol.consent_text,
        instructions=protocol.instructions,
        introductions=("Eins.", "Zwei."),
    )
    assert protocol.words("en").title == "Real?"
    assert protocol.words("en").introductions == ("One.", "Two.")


def test_a_plan_tests_at_one_less_its_confidence_and_has_rules_without_declaring_them():
    assert AnalysisPlan(confidence_level=0.9).alpha == pytest.approx(0.1)
    assert AnalysisPlan().exclusions is None
    assert AnalysisPlan().rules == ExclusionRules(
        fewest_share=1.0, fastest_median_s=None, longest_run=None
    )


def test_the_hash_does_not_depend_on_comments_order_or_spacing(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(CONTRACT, encoding="utf-8")
    one = load_protocol(path)
    reversed_lines = CONTRACT.split("[analysis]")[0].strip().splitlines()[::-1]
    path.write_text("# other\n" + "\n\n".join(reversed_lines), encoding="utf-8")
    assert load_protocol(path).protocol_hash == one.protocol_hash


def test_the_hash_of_a_known_protocol_never_changes():
    # Computed once with `printf … | sha256sum` on the canonical JSON: a change of this number
    # orphans the responses of every study that is running.
    protocol = Protocol.model_validate(tomllib.loads(CONTRACT))
    assert protocol.protocol_hash == (
        "73eb323aa85d17f9e4450c27249f41f96f27baa992fd36b990b937b418773a3c"
    )


def test_a_protocol_of_first_light_keeps_its_hash_whatever_later_ones_can_say():
    # Computed by first light, which knew neither blocks nor conduct nor languages.
    assert Protocol(study_id="x").protocol_hash == (
        "e3ee58e8e84bca78ddb7a6eef7a7f8b27c1e27abf7a82e9003e55bf2de226880"
    )


def test_what_is_not_promised_has_no_part_in_the_hash():
    # So that a protocol keeps its hash when later versions have more to promise.
    protocol = Protocol(
        study_id="s",
        consent_text="C",
        instructions="I",
        analysis=AnalysisPlan(exclusions=ExclusionRules(longest_run=9)),
    )
    canonical = (
        '{"analysis":{"confidence_level":0.95,"exclusions":{"fewest_share":1.0,"longest_run":9},'
        '"primary":"accuracy"},"confidence_points":6,"consent_text":"C","consent_version":"1",'
        '"instructions":"I","n_participants":6,"n_trials":40,"question":"authenticity","seed":1,'
        '"study_id":"s","title":"Real or generated?"}'
    )
    assert protocol.protocol_hash == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"title": "Other"},
        {"analysis": {"confidence_level": 0.9}},
        {"analysis": {"primary": "auc"}},
        {"analysis": {"equivalence_margin": 0.05}},
        {"analysis": {"secondary": ["drift"]}},
        {"analysis": {"index": "consensus"}},
        {"analysis": {"looks": [5, 10], "spending": "pocock"}},
        {"analysis": {"exclusions": {}}},
        {"analysis": {"exclusions": {"fewest_share": 0.5}}},
        {"analysis": {"exclusions": {"fewest_attention": 0.5}}},
        {"blocks": [{"n_trials": 40}]},
        {"blocks": [{"n_trials": 40, "n_repeats": 1}]},
        {"conduct": {"longest_run": 3}},
        {"conduct": {"withdrawal": "erase"}},
        {"languages": ["de"]},
        {"languages": ["en", "de"], "texts": {"de": {"title": "Echt?"}}},
    ],
)
def test_every_change_makes_another_hash(change):
    values = tomllib.loads(CONTRACT)
    one = Protocol.model_validate(values)
    assert Protocol.model_validate(values | change).protocol_hash != one.protocol_hash


def test_a_protocol_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Protocol(study_id="s").seed = 2


def test_an_unknown_key_is_refused_with_the_known_ones(refused):
    assert "`n_trial` is not a key of a protocol; use one of study_id, title" in refused(
        "n_trial = 3\n" + CONTRACT
    )


def test_an_unknown_key_of_the_analysis_is_refused_with_the_known_ones(refused):
    assert "`analysis.margin` is not a key of a protocol; use one of confidence_level" in refused(
        CONTRACT + "margin = 0.05\n"
    )


def test_an_unknown_key_of_the_exclusions_is_refused_with_the_known_ones(refused):
    assert (
        "`analysis.exclusions.shortest` is not a key of a protocol; use one of fewest_share, "
        "fastest_median_s, longest_run, fewest_attention."
    ) in refused(CONTRACT + "[analysis.exclusions]\nshortest = 1\n")


def test_a_missing_study_id_is_refused(refused):
    assert "`study_id` is missing; add it." in refused("seed = 1")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("n_trials = 40", "`n_trials` is 1, but should be greater than or equal to 2; change it."),
        ("seed = 1", "`seed` is '1', but should be a valid integer; change it."),
        ('question = "authenticity"', "`question` is 'beauty', but should be 'authenticity'"),
        ('study_id = "first-light"', "`study_id` is 'First light', but "),
        ("confidence_level = 0.95", "`analysis.confidence_level` is 95, but should be less than 1"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_with_the_rule(refused, line, words):
    bad = {
        "n_trials": "1",
        "seed": '"1"',
        "question": '"beauty"',
        "study_id": '"First light"',
        "confidence_level": "95",
    }
    name = line.split(" = ")[0]
    assert words in refused(CONTRACT.replace(line, f"{name} = {bad[name]}"))


TWICE = "`analysis`: secondary names an outcome twice, or the primary one; name each once."
INCREASING = "`analysis`: looks should increase and have at least two, the last at the end."
SPENDING = (
    '`analysis`: looks need a spending function ("obrien-fleming" or "pocock"), which needs looks.'
)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('secondary = ["drift", "auc", "drift"]', TWICE),
        ('secondary = ["auc", "d_prime"]\nprimary = "auc"', TWICE),
        ('looks = [5, 5]\nspending = "pocock"', INCREASING),
        ('looks = [10, 5]\nspending = "pocock"', INCREASING),
        ('looks = [10]\nspending = "pocock"', INCREASING),
        ("looks = [5, 10]", SPENDING),
        ('spending = "pocock"', SPENDING),
        ('looks = [1, 10]\nspending = "pocock"', "`analysis.looks.0` is 1, but should be greater"),
        ('looks = [5, 10]\nspending = "wald"', "but should be 'obrien-fleming' or 'pocock'"),
        ("equivalence_margin = 0", "`analysis.equivalence_margin` is 0, but should be greater tha"),
        ("equivalence_margin = 0.5", "`analysis.equivalence_margin` is 0.5, but should be less th"),
        ('primary = "d_prime"', "`analysis.primary` is 'd_prime', but should be 'accuracy', 'sens"),
        ('secondary = ["beauty"]', "`analysis.secondary.0` is 'beauty', but should be 'sensitivi"),
        ('index = ""', "`analysis.index` is '', but String should have at least 1 character"),
        ("exclusions.fewest_share = 0", "`analysis.exclusions.fewest_share` is 0, but should be"),
        ("exclusions.fewest_share = 75", "should be less than or equal to 1; change it."),
        ("exclusions.fastest_median_s = 0", "fastest_median_s` is 0, but should be greater than 0"),
        ("exclusions.longest_run = 1", "longest_run` is 1, but should be greater than or equal to"),
        ("confidence_level = 0.5", "`analysis.confidence_level` is 0.5, but should be greater"),
    ],
)
def test_a_plan_that_cannot_be_kept_is_refused_with_the_rule(refused, lines, words):
    assert words in refused(f'study_id = "s"\n[analysis]\n{lines}\n')


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("n_repeats = 5", "n_repeats=5 of 4 trials; repeat each once at most."),
        (
            'design = "quality"\nn_attention = 1',
            "attention checks have an answer in authenticity and pair blocks only, not in qu",
        ),
        ("primed = true", "a primed block needs an introduction that tells what readers learn."),
        ('design = "beauty"', "design` is 'beauty', but should be 'authenticity', 'pair', 'class"),
        ("exposure_s = 0", "exposure_s` is 0, but should be greater than or equal to 0.1"),
        ("n_practice = -1", "n_practice` is -1, but should be greater than or equal to 0"),
        ("rating_points = 11", "rating_points` is 11, but should be less than or equal to 10"),
        ("n_trials_ = 4", "n_trials_` is not a key of a protocol; use one of "),
    ],
)
def test_a_block_that_cannot_be_shown_is_refused_with_the_rule(refused, lines, words):
    assert words in refused(f'study_id = "s"\n[[blocks]]\nn_trials = 4\n{lines}\n')


def test_a_block_without_trials_is_refused(refused):
    assert "n_trials` is missing; add it." in refused('study_id = "s"\n[[blocks]]\nn_repeats = 1\n')


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            "n_trials = 5\n[[blocks]]\nn_trials = 4",
            "n_trials=5 but the blocks have 4 together; leave n_trials out.",
        ),
        ('languages = ["fr"]', "`languages.0` is 'fr', but should be 'en' or 'de'; change it."),
        ("languages = []", "`languages` is [], but Tuple should have at least 1 item"),
        (
            '[texts.de]\ntitle = "Echt?"',
            "texts has 'de', which is not among the languages; add it.",
        ),
        (
            'languages = ["en", "de"]\n[texts.de]\nintroductions = ["Eins.", "Zwei."]',
            "texts.de has 2 introductions for 1 blocks; give one for each, empty where there is ",
        ),
        ("[conduct]\nbreak_every = 4", "`conduct.break_every` is 4, but should be greater than or"),
        ("[conduct]\nlongest_run = 1", "`conduct.longest_run` is 1, but should be greater than or"),
        ("[conduct]\nrepeat_gap = 0", "`conduct.repeat_gap` is 0, but should be greater than or"),
        ('[conduct]\nblock_order = "any"', "`conduct.block_order` is 'any', but should be 'fixed'"),
        ('[conduct]\nwithdrawal = "sell"', "`conduct.withdrawal` is 'sell', but should be 'keep'"),
        ("[conduct]\naudit_margin = 0.5", "`conduct.audit_margin` is 0.5, but should be less than"),
        ("[conduct]\nbreaks = 3", "`conduct.breaks` is not a key of a protocol; use one of "),
        (
            "analysis.exclusions.fewest_attention = 0",
            "fewest_attention` is 0, but should be greate",
        ),
    ],
)
def test_a_conduct_that_cannot_be_kept_is_refused_with_the_rule(refused, lines, words):
    assert words in refused(f'study_id = "s"\n{lines}\n')


def test_a_file_that_is_not_toml_is_refused_with_its_line(refused):
    words = refused("study_id = first")
    assert "is not a TOML file" in words
    assert "line 1" in words


def test_a_missing_file_is_refused_with_the_command_that_writes_one(tmp_path):
    with pytest.raises(ProtocolError, match="write one with `python -m studies plan"):
        load_protocol(tmp_path / "none.toml")


def test_a_protocol_is_never_overwritten(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text("precious", encoding="utf-8")
    with pytest.raises(ProtocolError, match="exists already and may belong to a running study"):
        Protocol(study_id="s").write(path)
    assert path.read_text(encoding="utf-8") == "precious"


def test_a_folder_that_does_not_exist_is_refused_with_advice(tmp_path):
    with pytest.raises(ProtocolError, match="give a path in a folder that exists"):
        Protocol(study_id="s").write(tmp_path / "none" / "p.toml")
