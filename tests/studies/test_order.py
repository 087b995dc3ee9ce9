from collections import Counter
from itertools import groupby

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from studies.order import apart, below, halves, in_turns, limited, shuffled, spread_places

thorough = settings(max_examples=200, deadline=None, derandomize=True)
truths = st.lists(st.booleans(), min_size=1, max_size=40)


def runs(order):
    return [len(list(same)) for _, same in groupby(order)]


def test_an_order_depends_on_the_names_and_not_on_how_they_lie():
    assert shuffled("edcba", 1, "p") == shuffled("abcde", 1, "p")


def test_every_order_is_as_likely_over_seeds_and_over_purposes():
    over_seeds = Counter("".join(shuffled("abc", seed, "p")) for seed in range(6000))
    over_purposes = Counter("".join(shuffled("abc", 1, str(i))) for i in range(6000))
    for counts in (over_seeds, over_purposes):
        # Six orders, each 1000 times, standard deviation 29.
        assert len(counts) == 6
        assert max(abs(count - 1000) for count in counts.values()) < 120


def test_every_number_below_is_drawn_as_often():
    counts = Counter(below(6, 1, "die", throw) for throw in range(6000))
    assert sorted(counts) == [0, 1, 2, 3, 4, 5]
    # Six cells of 1000, standard deviation 29.
    assert max(abs(count - 1000) for count in counts.values()) < 120


def test_groups_take_turns_and_the_lowest_rank_begins():
    taken = in_turns(["a1", "a2", "a3", "b1", "c1", "c2"], group=lambda x: x[0], rank=lambda x: x)
    assert taken == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_halves_are_equal_and_of_an_odd_number_either_may_be_one_more():
    assert all(sum(halves(8, 1, str(purpose))) == 4 for purpose in range(20))
    assert {sum(halves(7, 1, str(purpose))) for purpose in range(20)} == {3, 4}


@thorough
@given(st.integers(0, 12), st.integers(3, 40), st.integers(0, 3), st.integers(0, 99))
def test_spread_places_are_one_in_each_stretch_and_none_too_early(n, n_others, n_before, seed):
    places = spread_places(n, n_others, n_before, seed, "p")
    n_free = n + n_others - n_before
    assert len(places) == n
    for i, place in enumerate(places):
        assert n_before + i * n_free // n <= place < n_before + (i + 1) * n_free // n


@thorough
@given(truths, st.integers(2, 5))
def test_runs_are_limited_wherever_they_can_be(order, longest):
    fewer, more = sorted((sum(order), len(order) - sum(order)))
    assume(more <= longest * (fewer + 1))
    kept = limited(order, bool, longest)
    assert Counter(kept) == Counter(order)
    assert max(runs(kept)) <= longest


@thorough
@given(truths)
def test_an_order_within_the_limit_stays_as_it_is(order):
    items = list(enumerate(order))
    assert limited(items, lambda item: item[1], max(runs(order))) == items


@thorough
@given(truths, st.integers(2, 4))
def test_the_limit_treats_both_truths_alike(order, longest):
    # So that of equal halves each is as likely at every place.
    fewer, more = sorted((sum(order), len(order) - sum(order)))
    assume(more <= longest * (fewer + 1))
    turned = limited([not truth for truth in order], bool, longest)
    assert turned == [not truth for truth in limited(order, bool, longest)]


@st.composite
def showings(draw):
    """An order of items of which some come twice, increasing places, and a gap that is possible."""
    n = draw(st.integers(2, 16))
    n_twice = draw(st.integers(0, n))
    order = draw(st.permutations([*range(n), *range(n_twice)]))
    steps = draw(st.lists(st.integers(1, 3), min_size=len(order), max_size=len(order)))
    places = [sum(steps[: i + 1]) for i in range(len(steps))]
    return order, places, draw(st.integers(1, n - 1))


@thorough
@given(showings())
def test_second_showings_are_kept_apart_wherever_fewer_than_all_lie_between(case):
    order, places, gap = case
    kept = apart(order, places, gap)
    assert Counter(kept) == Counter(order)
    shown_at = {}
    for item, place in zip(kept, places, strict=True):
        assert item not in shown_at or place - shown_at[item] > gap
        shown_at[item] = place


@thorough
@given(showings())
def test_showings_that_are_apart_stay_as_they_are(case):
    kept = apart(*case)
    assert apart(kept, *case[1:]) == kept
