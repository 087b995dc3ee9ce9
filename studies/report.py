"""Results → one HTML file that stands alone: no network, font or script from elsewhere."""

from math import isfinite
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from studies import figures
from studies.analysis import Results
from studies.crossed import CrossedAccuracy

TEMPLATE = "report.html.jinja"

AUTHENTICITY_ONLY = (
    "This study is about authenticity: whether pictures look real to experts. It says nothing "
    "about the diversity of the generated pictures (a model that repeats one perfect cell would "
    "pass) and nothing about their diagnostic fidelity."
)
CHANCE_IS_NOT_EQUIVALENCE = (
    "“Not different from chance” is not equivalence. An interval that contains 50 % does not "
    "show that readers cannot tell the pictures apart; that claim needs an equivalence test with a "
    "margin frozen in the protocol before the data, which this protocol does not hold."
)


def render(results: Results) -> str:
    """The report as HTML. The same results give the same bytes."""
    headline = results.accuracy or results.accuracy_fixed_readers
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": figures.percent, "signed": _signed}
    return environment.get_template(TEMPLATE).render(
        r=results,
        level=f"{100 * results.confidence_level:g} %",
        headline=headline,
        reading=reading(results),
        quantile=_quantile(headline.df),
        interval=figures.interval,
        signed_interval=_signed_interval,
        # Markup: the figures are made here, and escape what comes from the study.
        figure_readers=Markup(figures.readers_forest(results)),
        figure_classes=Markup(figures.classes(results)),
        figure_confidence=Markup(figures.confidence(results)),
        figure_order=Markup(figures.order(results)),
        authenticity_only=AUTHENTICITY_ONLY,
        chance_is_not_equivalence=CHANCE_IS_NOT_EQUIVALENCE,
    )


def reading(results: Results) -> str:
    """The headline in one sentence: where its interval lies, seen from 50 %."""
    headline = results.accuracy or results.accuracy_fixed_readers
    who = _who(headline, results.accuracy is not None)
    if headline.ci_low is None or headline.ci_high is None:
        return f"No interval can be given {who}, because the answers show no variance."
    if headline.ci_low > 0.5:
        return f"The interval {who} lies above 50 %: the pictures could be told apart."
    if headline.ci_high < 0.5:
        return (
            f"The interval {who} lies below 50 %: the pictures could be told apart, but generated "
            "ones were taken for real and real ones for generated."
        )
    return (
        f"The interval {who} contains 50 %: this study shows neither that the pictures can be told "
        "apart nor that they cannot."
    )


def _who(headline: CrossedAccuracy, is_random: bool) -> str:
    if is_random:
        return "for other readers and other pictures of these kinds"
    readers = "this reader" if headline.n_readers == 1 else "these readers"
    return f"for {readers} and other pictures of these kinds"


def _quantile(df: float) -> str:
    # Readers who do not differ at all leave infinitely many.
    return f"t, {df:.1f} degrees of freedom" if isfinite(df) else "normal"


def _signed(value: float) -> str:
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "−")


def _signed_interval(ci_low: float | None, ci_high: float | None) -> str:
    if ci_low is None or ci_high is None:
        return "not estimable"
    return f"{_signed(ci_low)} to {_signed(ci_high)}"
