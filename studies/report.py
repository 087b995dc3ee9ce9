"""Results → one HTML file that stands alone: no network, font or script from elsewhere."""

from collections.abc import Iterator
from math import isfinite
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from studies import figures
from studies.analysis import Primary, Results
from studies.equivalence import Verdict
from studies.estimate import Estimate
from studies.outcomes import Outcome, Tested
from studies.plotting import FORMATS, interval, percent, share_estimate, signed, signed_interval
from studies.references import cited
from studies.section_agreement_figures import agreement_context
from studies.section_confidence_figures import confidence_context
from studies.section_psychometric_figures import psychometric_context

TEMPLATE = "report.html.jinja"

LIMITS = (
    "This study is about authenticity: whether pictures look real to experts. It says nothing "
    "about the diversity of the generated pictures (a model that repeats one perfect cell would "
    "pass) and nothing about their diagnostic fidelity.",
    "“Not different from chance” is not equivalence. An interval that contains 50 % does not "
    "show that readers cannot tell the pictures apart; only an equivalence test with a margin "
    "frozen before the data can.",
    "The intervals hold for readers like these and pictures like these, shown like these: on the "
    "same kind of screen, at the same size, without a patient.",
)


def render(results: Results) -> str:
    """The report as HTML. The same results give the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "signed": signed}
    sections = (
        confidence_context(results.confidence)
        | psychometric_context(results.psychometric)
        | agreement_context(results.agreement)
    )
    methods = tuple(methods_of(results))
    shown = {
        name: Markup(draw(results) if has_parts else "")
        for name, draw, has_parts in (
            ("readers", figures.readers_forest, True),
            ("classes", figures.classes, results.by_class_real or results.by_class_generated),
            ("groups", figures.groups, results.by_generator or results.by_experience),
            ("confidence", figures.confidence, results.by_confidence),
            ("order", figures.order, results.by_block),
        )
    }
    sections_methods = [
        sentence
        for part in ("confidence", "psychometric", "agreement")
        for sentence in sections[f"{part}_methods"]
    ]
    return environment.get_template(TEMPLATE).render(
        **sections,
        r=results,
        level=f"{100 * results.confidence_level:g} %",
        answer=answer(results),
        headline=results.primary,
        quantile=_quantile(results.primary.interval.df),
        tested=[(one, tested_text(one)) for one in results.secondary],
        shown=shown,
        limits=LIMITS,
        methods=methods,
        all_sources=cited([*methods, *sections_methods]),
    )


# ------------------------------------------------------------------------------- the answer


def answer(results: Results) -> str:
    """The whole study in one paragraph: what was found, for whom, and what may be concluded."""
    return " ".join(_answer(results))


def _answer(results: Results) -> Iterator[str]:
    primary, found = results.primary, results.primary.outcome
    headline = primary.interval
    readers = _count(found.n_readers, "reader")
    judged = (
        f"{readers} judged {_count(found.n_cases, 'picture')} ({found.n_judgements} judgements)"
    )
    if headline.estimate is None:
        yield f"{judged}. {found.label} is not estimable: {headline.reason}."
        return
    whom = "for other readers and other pictures"
    if found.n_readers == 1:
        whom = "for this reader and other pictures"
    value = f"{percent(headline.estimate)} %" if found.name != "auc" else signed(headline.estimate)
    yield f"{judged}."
    if not headline.is_estimable:
        yield f"{found.label} was {value}; no interval can be given: {headline.reason}."
        return
    limits = _limits(found, headline)
    yield (
        f"{found.label} was {value} ({100 * headline.confidence_level:g} % interval {limits}, "
        f"{whom})."
    )
    yield conclusion(primary)


def conclusion(primary: Primary) -> str:
    """What the tests of difference and of equivalence say together."""
    test = primary.equivalence
    is_different = primary.p_difference is not None and primary.p_difference <= primary.alpha
    side = "better" if (primary.interval.estimate or 0) > 0.5 else "worse"
    tested = _p(primary.p_difference)
    if primary.look is not None:
        tested += f", to be {primary.alpha:.2g} or less at this look"
    difference = (
        f"That differs from guessing ({tested}): the pictures could be told apart, {side} than by "
        "chance."
        if is_different
        else f"A difference from guessing was not shown ({tested})."
    )
    if test is None:
        return difference + (
            " Whether they are indistinguishable was not tested, as the protocol declares no "
            "margin of equivalence."
        )
    is_area = primary.outcome.name == "auc"
    margin, found = (
        signed_interval(low, high) if is_area else f"{interval(low, high)} %"
        for low, high in ((test.low, test.high), (test.ci_low, test.ci_high))
    )
    inside = f"{100 * test.confidence_level:g} % interval {found}, {_p(test.p_value)}"
    return {
        Verdict.BOTH: f"{difference} The difference is small: equivalence within the declared "
        f"margin of {margin} was shown too ({inside}).",
        Verdict.DIFFERENT: f"{difference} Equivalence within the declared margin of {margin} was "
        f"not shown ({inside}).",
        Verdict.EQUIVALENT: f"{difference} Equivalence with guessing was shown: the outcome lies "
        f"within the declared margin of {margin} ({inside}).",
        Verdict.NEITHER: f"{difference} Equivalence within the declared margin of {margin} was not "
        f"shown either ({inside}): the study is too small, or too noisy, for both claims.",
        Verdict.NOT_ESTIMABLE: "Neither a difference from guessing nor equivalence can be tested.",
    }[primary.verdict or Verdict.NOT_ESTIMABLE]


def tested_text(one: Tested) -> dict[str, str]:
    """A row of the table of secondary outcomes, as it is printed."""
    is_share = one.null == 0.5 and one.name != "auc"
    is_points = one.name in ("class", "generator", "experience", "drift")
    write = FORMATS[
        "percent_estimate"
        if is_share
        else "signed_percent_estimate"
        if is_points
        else "signed_estimate"
    ]
    unit = " %" if is_share else " points" if is_points else ""
    if one.name == "response_time":
        unit = " (natural logarithm)"
    return {
        "estimate": write(one.estimate) + (unit if one.estimate.estimate is not None else ""),
        "null": "50 %" if is_share else f"{one.null:g}",
        "p": "–" if one.p_value is None else _p(one.p_value).removeprefix("P ").lstrip("= "),
        "p_adjusted": "–"
        if one.p_adjusted is None
        else _p(one.p_adjusted).removeprefix("P ").lstrip("= "),
        "reason": one.estimate.reason or "",
    }


# ----------------------------------------------------------------------------------- methods


def methods_of(results: Results) -> Iterator[str]:
    """How the main results were made: sentences that depend on what was run."""
    primary = results.primary
    yield (
        "A reader counts who has judged the share of the stimuli that the protocol asks for, and "
        "whom no other declared rule leaves out. First presentations only; a stimulus judged twice "
        "by one reader in the same presentation is refused."
    )
    yield (
        "Accuracy is the mean over readers, each kind of picture counting by its share. Its "
        "variance follows Obuchowski and Rockette [Obuchowski 1995] for one modality, with "
        "unbiased covariances over pictures within each kind, as the numbers of real and "
        "generated pictures are fixed by design, and the degrees of freedom of Hillis [Hillis "
        "2007]. So it holds for other readers and other pictures. For complete tables of one kind "
        "it is the variance of Gallas’ U-statistics [Gallas 2006], but that a negative covariance "
        "counts as 0. “These readers” treats readers as fixed."
    )
    yield "Limits are clipped in print to what the quantity can be."
    if primary.equivalence is not None:
        yield (
            "Equivalence: two one-sided t tests against the declared margin with the crossed "
            f"standard error [Schuirmann 1987], each at {primary.equivalence.alpha:.4g}."
        )
    if primary.look is not None:
        yield (
            f"Looks at the data were declared: this is look {primary.look.number} of "
            f"{primary.n_looks}, with {primary.look.information:g} readers. The error rate is "
            f"spent over the looks [Lan 1983]; the level here is {primary.alpha:.4g}, and the "
            "interval is a repeated confidence interval [Jennison 1989]."
        )
    if results.secondary:
        yield (
            "Secondary outcomes were declared in the protocol; their P values are corrected "
            "together by Holm’s method [Holm 1979]. Classes and generators are compared with all "
            "others, with readers and pictures random; groups of readers by Welch’s t test over "
            "readers; drift is the least-squares change of accuracy over the session of each "
            "reader, tested over readers."
        )
    yield (
        "Accuracy of parts (classes, confidence, quarters of the session): U-statistics for "
        "readers and pictures [Gallas 2008]. These are descriptive, not corrected for their "
        "number. Intervals of single readers and the naive comparison: Wilson [Wilson 1927]."
    )


def _limits(found: Outcome, estimate: Estimate) -> str:
    if found.name == "auc":
        return share_estimate(estimate).partition("(")[2].removesuffix(")")
    return interval(estimate.ci_low, estimate.ci_high)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _p(value: float | None) -> str:
    if value is None:
        return "not testable"
    return (
        "P < 0.001" if value < 0.001 else f"P = {value:.2g}" if value < 0.1 else f"P = {value:.2f}"
    )


def _quantile(df: float | None) -> str:
    # Readers who do not differ at all leave infinitely many.
    return f"t, {df:.1f} degrees of freedom" if df is not None and isfinite(df) else "normal"
