"""Results of `studies.blocks` → one HTML file that stands alone."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from studies.blocks import BlockResults, Finding
from studies.plotting import FORMATS, percent_estimate, signed_estimate, signed_percent_estimate
from studies.protocol import Protocol

TITLES = {
    "pairs": "Which of the two is real?",
    "classifications": "Which class?",
    "ratings": "How good is the picture?",
    "second round": "The second round",
}


def render_blocks(protocol: Protocol, results: tuple[BlockResults, ...]) -> str:
    """The report as HTML. The same results give the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("blocks.html.jinja").render(
        **FORMATS,
        protocol=protocol,
        results=results,
        title_of=title_of,
        shown=shown,
        p_text=p_text,
        level=f"{100 * protocol.analysis.confidence_level:g} %",
    )


def title_of(found: BlockResults) -> str:
    """The heading of a block's section."""
    design, _, primed = found.name.partition(", ")
    return TITLES[design] + (" (told before)" if primed else "")


def shown(one: Finding) -> str:
    """The number and its interval: shares in percent, differences of shares with their sign."""
    if not one.is_share:
        return signed_estimate(one.estimate)
    if one.null == 0:
        return signed_percent_estimate(one.estimate)
    return f"{percent_estimate(one.estimate)} %"


def p_text(one: Finding) -> str:
    """The test, or a dash where nothing was tested."""
    if one.p_value is None:
        return "–"
    return "< 0.001" if one.p_value < 0.001 else f"{one.p_value:.3f}"


def summary_of(found: BlockResults) -> str:
    """One line for the terminal."""
    first = found.findings[0]
    return (
        f"{title_of(found)} {found.n_readers} readers, {found.n_cases} cases, "
        f"{found.n_judgements} judgements. {first.label}: {shown(first)}."
    )
