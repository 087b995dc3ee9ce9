"""The life of a study, its log and its hashes; on both kinds of database."""

import json
import re

import pytest
from sqlalchemy import text

from studies.allocation import AllocationError
from tests.webapp.studies_at_hand import (
    ALL_DESIGNS,
    begin,
    open_study,
    pictures,
    protocol,
    take,
)
from webapp.errors import WebappError
from webapp.registry import Registry


@pytest.fixture
def draft(registry, stimuli):
    registry.create(protocol(), {"main": pictures(stimuli)})


@pytest.fixture
def opened(registry, stimuli):
    return open_study(registry, protocol(), stimuli)


def change(database, statement):
    with database.write() as connection:
        assert connection.exec_driver_sql(statement).rowcount == 1


def kinds(registry):
    return [one.kind for one in registry.events("tiny")]


def detail(registry, kind):
    return json.loads(next(one for one in registry.events("tiny") if one.kind == kind).detail_json)


def test_a_study_goes_from_draft_to_report_and_the_log_says_who_did_what_and_when(
    database, clock, stimuli
):
    registry = Registry(database, clock, actor="eva")
    registry.create(protocol(), {"main": pictures(stimuli)})
    registry.record_audit("tiny", '{"auc": 0.5}', passed=True)
    states = [registry.summary("tiny").state]
    for step in (
        lambda: registry.freeze("tiny"),
        lambda: registry.open("tiny"),
        lambda: registry.close("tiny"),
        lambda: registry.open("tiny"),
        lambda: registry.close("tiny"),
        lambda: registry.unblind("tiny", "the last reader has finished"),
        lambda: registry.mark_reported("tiny", "ab" * 32),
    ):
        clock.pass_s(60)
        step()
        states.append(registry.summary("tiny").state)
    assert " ".join(states) == "audited frozen open closed open closed unblinded reported"
    log = registry.events("tiny")
    assert " ".join(one.kind for one in log) == (
        "created audited frozen opened closed opened closed unblinded reported"
    )
    assert {one.actor for one in log} == {"eva"}
    assert log[-1].at == "2026-01-31T09:37:00+00:00"
    assert detail(registry, "unblinded") == {"reason": "the last reader has finished"}
    assert detail(registry, "created")["n_stimuli"] == {"main": 12}
    assert registry.verify("tiny") == []


def test_nothing_is_done_out_of_turn(registry, draft):
    refused = {
        "draft": ("freeze", "open", "close", "unblind", "mark_reported"),
        "audited": ("open", "close", "unblind"),
        "frozen": ("record_audit", "freeze", "close", "unblind"),
        "open": ("record_audit", "freeze", "open", "unblind", "mark_reported"),
        "closed": ("freeze", "close", "mark_reported"),
        "unblinded": ("open", "close", "unblind"),
    }
    steps = {
        "record_audit": lambda: registry.record_audit("tiny", "{}", passed=True),
        "freeze": lambda: registry.freeze("tiny"),
        "open": lambda: registry.open("tiny"),
        "close": lambda: registry.close("tiny"),
        "unblind": lambda: registry.unblind("tiny", "it is over"),
        "mark_reported": lambda: registry.mark_reported("tiny", "ab"),
    }
    for state, on in zip(
        refused, ["record_audit", "freeze", "open", "close", "unblind", None], strict=True
    ):
        assert registry.summary("tiny").state == state
        for step in refused[state]:
            with pytest.raises(WebappError, match=f"'tiny' is {state} and cannot be"):
                steps[step]()
        if on:
            steps[on]()
    with pytest.raises(WebappError, match="it stays as it is"):
        registry.amend("tiny", protocol(title="Late"), "too late")
    assert registry.verify("tiny") == []


def test_a_refusal_names_the_next_step(registry, draft):
    with pytest.raises(WebappError, match=r"needs one that is audited; .*`python -m webapp audit`"):
        registry.freeze("tiny")


def test_a_failed_audit_is_overridden_on_the_record_only(registry, draft):
    registry.record_audit("tiny", '{"auc": 0.9}', passed=False)
    assert registry.summary("tiny").audit_passed is False
    for reason in ("", "  "):
        with pytest.raises(WebappError, match="audit of study 'tiny' failed; make the stimuli"):
            registry.freeze("tiny", override=reason)
    registry.freeze("tiny", override="a demonstration")
    assert kinds(registry) == ["created", "audited", "override", "frozen"]
    assert detail(registry, "override") == {"reason": "a demonstration"}


def test_an_audit_can_be_repeated_and_the_last_one_counts(registry, draft):
    registry.record_audit("tiny", '{"auc": 0.9}', passed=False)
    registry.record_audit("tiny", '{"auc": 0.5}', passed=True)
    assert registry.summary("tiny").audit_json == '{"auc": 0.5}'
    registry.freeze("tiny")
    assert registry.verify("tiny") == []


def test_what_needs_a_reason_is_not_done_without(registry, opened):
    for step in (
        lambda: registry.unblind("tiny", " "),
        lambda: registry.amend("tiny", protocol(title="New"), ""),
    ):
        with pytest.raises(WebappError, match="needs a reason, which the log keeps"):
            step()


def test_a_study_that_is_not_there_is_named_with_those_that_are(registry, draft):
    with pytest.raises(WebappError, match="no study 'huge' in this database, which holds tiny"):
        registry.open("huge")
    with pytest.raises(WebappError, match="no study 'huge'"):
        registry.monitor("huge")


def test_a_study_is_not_created_twice(registry, draft, stimuli):
    with pytest.raises(WebappError, match="created already; go on with it"):
        registry.create(protocol(), {"main": pictures(stimuli)})
    with pytest.raises(WebappError, match=r"amend it .* or give the changed one another study_id"):
        registry.refuse_second(protocol(seed=2))
    assert len(registry.studies()) == 1


def test_stimuli_that_cannot_serve_the_protocol_make_no_study(registry, stimuli):
    with pytest.raises(AllocationError, match="there are 12 for it alone; add 2"):
        registry.create(protocol(n_trials=14), {"main": pictures(stimuli)})
    assert registry.studies() == []


def frozen_hash(registry, plan, folder, **pools):
    open_study(registry, plan, folder, **pools)
    return registry.summary(plan.study_id).frozen_hash


def test_the_frozen_hash_covers_protocol_analysis_plan_and_every_pixel(registry, stimuli, tmp_path):
    plan = protocol("one")
    first = frozen_hash(registry, plan, stimuli)
    assert len(first) == 64
    others = {
        "protocol": frozen_hash(registry, protocol("two"), stimuli),
        "seed": frozen_hash(registry, protocol("three", seed=2), stimuli),
        "plan": frozen_hash(registry, protocol("four", analysis={"primary": "auc"}), stimuli),
    }
    assert len({first, *others.values()}) == 4
    registry.create(protocol("five"), {"main": pictures(stimuli)})
    registry.record_audit("five", "{}", passed=True)
    registry.freeze("five")
    assert registry.verify("five") == []


TAMPERED = {
    "protocol": (
        """UPDATE study SET protocol_json = REPLACE(protocol_json, '"seed":1', '"seed":2')""",
        "protocol is not the one of its hash",
    ),
    "hash": ("UPDATE study SET frozen_hash = 'abc'", "frozen_hash"),
    "state": ("UPDATE study SET state = 'unblinded'", "log ends with state 'open', the study"),
    "audit": ("UPDATE study SET audit_json = '{\"auc\": 0.5}'", "log ends with report_digest"),
    "log": ("UPDATE event SET actor = 'nobody' WHERE number = 2", "event 2 .* was changed"),
    "reason": (
        "UPDATE event SET detail_json = '{\"reason\": \"good\"}' WHERE kind = 'override'",
        "was changed after it was written",
    ),
    "missing": ("DELETE FROM event WHERE number = 3", "event 3 is missing"),
    "truth": (
        "UPDATE stimulus SET is_synthetic = NOT is_synthetic WHERE stimulus_id ="
        " (SELECT MIN(stimulus_id) FROM stimulus)",
        "not those that were frozen",
    ),
    "pixels": (
        "UPDATE stimulus SET png = (SELECT png FROM stimulus ORDER BY stimulus_id DESC LIMIT 1)"
        " WHERE stimulus_id = (SELECT MIN(stimulus_id) FROM stimulus)",
        "not those that were frozen",
    ),
    "schedule": (
        "UPDATE trial SET stimulus_id = (SELECT stimulus_id FROM trial WHERE position = 2)"
        " WHERE position = 1",
        "schedule of tiny-P01 is not the one",
    ),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_whatever_is_changed_behind_the_logs_back_is_found(registry, store, database, opened, what):
    begin(store, opened[0])
    assert registry.verify("tiny") == []
    statement, problem = TAMPERED[what]
    change(database, statement)
    assert re.search(problem, "; ".join(registry.verify("tiny")))


def test_words_and_numbers_of_readers_are_amended_while_readers_are_at_work(
    registry, store, stimuli, clock
):
    plan = protocol(analysis={"looks": [2, 4], "spending": "pocock"}, n_participants=4)
    reader = begin(store, open_study(registry, plan, stimuli)[0])
    take(store, reader, clock, n=3)
    before = registry.summary("tiny")
    amended = protocol(
        analysis={"looks": [2, 4, 6], "spending": "pocock"},
        n_participants=6,
        instructions="Look closely.",
        languages=["en", "de"],
    )
    registry.amend("tiny", amended, "more readers are needed")
    after = registry.summary("tiny")
    assert (after.state, after.protocol) == ("open", amended)
    assert after.frozen_hash != before.frozen_hash
    logged = detail(registry, "amended")
    assert logged["changed"] == ["analysis.looks", "instructions", "languages", "n_participants"]
    assert logged["previous_protocol_hash"] == plan.protocol_hash
    assert logged["protocol_hash"] == amended.protocol_hash
    assert logged["reason"] == "more readers are needed"
    assert registry.verify("tiny") == []
    assert store.protocol("tiny") == amended
    assert len(take(store, reader, clock)) == 9, "the reader goes on"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 2}, "seed"),
        ({"n_trials": 8}, "n_trials"),
        ({"confidence_points": 4}, "confidence_points"),
        ({"conduct": {"undo": True}}, "conduct"),
        ({"analysis": {"equivalence_margin": 0.1}}, "analysis.equivalence_margin"),
    ],
)
def test_what_readers_answered_to_is_not_amended(registry, store, opened, changes, named):
    begin(store, opened[0])
    with pytest.raises(WebappError, match=f"have begun, and {named} would change what they"):
        registry.amend("tiny", protocol(**changes), "second thoughts")
    assert registry.summary("tiny").protocol == protocol()


def test_before_any_reader_has_begun_everything_is_amended_and_audited_anew(registry, opened):
    registry.amend("tiny", protocol(n_trials=8), "shorter")
    found = registry.summary("tiny")
    assert (found.state, found.frozen_hash) == ("draft", "")
    assert registry.verify("tiny") == []
    registry.record_audit("tiny", "{}", passed=True)
    registry.freeze("tiny")
    registry.open("tiny")
    assert registry.verify("tiny") == []


def test_an_amendment_is_of_the_same_study_changes_something_and_can_be_served(registry, opened):
    with pytest.raises(WebappError, match="is of study 'other'; an amendment keeps the study_id"):
        registry.amend("tiny", protocol("other"), "why not")
    with pytest.raises(WebappError, match="is the one in force"):
        registry.amend("tiny", protocol(), "why not")
    with pytest.raises(AllocationError, match="add"):
        registry.amend("tiny", protocol(n_trials=14), "longer")
    assert kinds(registry)[-1] == "invited"


def test_an_export_is_logged(registry, opened):
    registry.record_export("tiny", files=["responses.csv"], sha256="ab" * 32)
    assert kinds(registry)[-1] == "exported"
    assert detail(registry, "exported") == {"files": ["responses.csv"], "sha256": "ab" * 32}
    assert registry.verify("tiny") == []


def test_a_study_of_all_designs_is_whole(
    registry, store, stimuli_48, practice_stimuli, attention_stimuli, clock
):
    pools = {"practice": practice_stimuli, "attention": attention_stimuli}
    reader = begin(store, open_study(registry, protocol(**ALL_DESIGNS), stimuli_48, **pools)[0])
    take(store, reader, clock)
    assert registry.verify("tiny") == []
    assert detail(registry, "created")["n_stimuli"] == {"main": 48, "practice": 12, "attention": 12}


def test_a_password_lets_in_its_researcher_only_and_is_kept_as_a_salted_hash(registry, database):
    assert not registry.has_researcher()
    registry.set_password("eva", "correct horse")
    registry.set_password("adam", "correct horse")
    assert registry.has_researcher()
    assert registry.check_password("eva", "correct horse")
    assert not registry.check_password("eva", "correct horses")
    assert not registry.check_password("lilith", "correct horse")
    with database.read() as connection:
        stored = connection.execute(text("SELECT password_scrypt FROM researcher")).scalars().all()
    assert len(set(stored)) == 2
    assert not any("horse" in one for one in stored)
    registry.set_password("eva", "another horse")
    assert not registry.check_password("eva", "correct horse")
    assert registry.check_password("eva", "another horse")


def test_a_short_password_is_refused(registry):
    with pytest.raises(WebappError, match="has 5 characters; take 10 or more"):
        registry.set_password("eva", "short")
    assert not registry.has_researcher()
