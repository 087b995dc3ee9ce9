"""What each page looks like: values in, HTML out. Layout only."""

from html import escape
from pathlib import Path

from studies.protocol import Protocol
from webapp.blinding import BlindedTrial

HERE = Path(__file__).parent
CSS = (HERE / "page.css").read_text(encoding="utf-8")
SCRIPT = (HERE / "page.js").read_text(encoding="utf-8")

HEAD = '<meta name="color-scheme" content="light"><meta name="robots" content="noindex">'

FAVICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">
<circle cx="8" cy="8" r="6.5" fill="none" stroke="#1f566d" stroke-width="2"/>
<circle cx="8" cy="8" r="2.5" fill="#1f566d"/></svg>"""

RESPONSES = (("real", "R", "Real"), ("generated", "G", "Generated"))


def consent_page(protocol: Protocol) -> str:
    """The consent text, word for word, and one button."""
    return _page(
        "consent",
        protocol.title,
        f"""
        <article class="cy-card">
          <h1 tabindex="-1">Before you begin</h1>
          {_paragraphs(protocol.consent_text)}
          <p class="cy-quiet">If you do not wish to take part, close this page; nothing is stored.
          (Version {escape(protocol.consent_version)} of this text)</p>
          <div class="cy-actions">
            <button type="button" class="cy-primary" data-send="consent">
              I agree to take part</button>
          </div>
        </article>""",
    )


def instructions_page(protocol: Protocol, n_trials: int) -> str:
    """How to judge, with the keys."""
    points = protocol.confidence_points
    return _page(
        "instructions",
        protocol.title,
        f"""
        <article class="cy-card">
          <h1 tabindex="-1">How it works</h1>
          {_paragraphs(protocol.instructions)}
          <dl class="cy-keys">
            <div><dt><kbd>R</kbd> then <kbd>1</kbd> – <kbd>{points % 10}</kbd></dt>
              <dd>Real, and how sure you are</dd></div>
            <div><dt><kbd>G</kbd> then <kbd>1</kbd> – <kbd>{points % 10}</kbd></dt>
              <dd>Generated, and how sure you are</dd></div>
            <div><dt><kbd>Esc</kbd></dt><dd>Take back the letter</dd></div>
            <div><dt><kbd>P</kbd></dt><dd>Show the picture smooth, or as pixels</dd></div>
          </dl>
          <p>With a mouse or a finger, one press on a number answers. You will see
          <strong>{n_trials} cells</strong>. You may stop at any time: your link brings you back to
          the cell where you stopped, on any device.</p>
          <div class="cy-actions">
            <button type="button" class="cy-primary" data-send="begin">Begin</button>
          </div>
        </article>""",
    )


def trial_page(protocol: Protocol, trial: BlindedTrial, *, notice: str = "") -> str:
    """One cell, one question, one press."""
    points = protocol.confidence_points
    rows = "".join(_answers(*response, points) for response in RESPONSES)
    return _page(
        "trial",
        protocol.title,
        f"""
        <h1 class="cy-question" tabindex="-1">Is this cell real or generated?</h1>
        <div class="cy-stage">
          <img class="cy-cell" src="{escape(trial.image_url)}" alt="cell image" draggable="false">
        </div>
        <div class="cy-view">
          <button type="button" class="cy-toggle" data-toggle="pixels" aria-pressed="false">
            <kbd>P</kbd> Show pixels</button>
        </div>
        <div class="cy-panel" style="--points: {points}">
          {rows}
          <div class="cy-ends" aria-hidden="true"><span>guess</span><span>certain</span></div>
        </div>
        <p class="cy-hint" role="status" data-hint>{escape(notice)}</p>""",
        progress=(trial.trial_number, trial.n_trials),
        attributes=f'data-presentation="{escape(trial.presentation_token)}" '
        f'data-trial-number="{trial.trial_number}" data-n-trials="{trial.n_trials}" '
        f'data-confidence-points="{points}"',
    )


def finish_page(protocol: Protocol, n_trials: int) -> str:
    """Thanks, and nothing that would tell the next reader."""
    return _page(
        "finish",
        protocol.title,
        f"""
        <article class="cy-card">
          <h1 tabindex="-1">Thank you</h1>
          <p>All {n_trials} answers are stored. You can close this page now.</p>
          <p class="cy-quiet">Please do not talk about single pictures with other readers while
          the study is open.</p>
        </article>""",
        progress=(n_trials, n_trials),
    )


def notice_page(title: str, text: str) -> str:
    """A whole page outside the study: a link that does not open, an address that is none."""
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>{HEAD}<style>{CSS}</style></head>
<body><main class="cy"><article class="cy-card">
<h1>{escape(title)}</h1><p>{escape(text)}</p></article></main></body></html>
"""


def _page(
    name: str,
    title: str,
    content: str,
    *,
    progress: tuple[int, int] | None = None,
    attributes: str = "",
) -> str:
    counter = ""
    if progress:
        number, n_trials = progress
        counter = (
            f'<span class="cy-counter">{number} of {n_trials}</span>'
            f'<progress class="cy-progress" max="{n_trials}" value="{number}" '
            f'aria-label="progress: {number} of {n_trials}"></progress>'
        )
    return f"""
    <div class="cy" data-page="{name}" {attributes}>
      <header class="cy-bar"><span class="cy-title">{escape(title)}</span>{counter}</header>
      {content}
      <div class="cy-lost" role="alert" data-lost></div>
    </div>"""


def _answers(response: str, key: str, label: str, points: int) -> str:
    buttons = "".join(
        f'<button type="button" data-response="{response}" data-confidence="{confidence}" '
        f'aria-label="{label}, confidence {confidence} of {points}">{confidence}</button>'
        for confidence in range(1, points + 1)
    )
    return (
        f'<div class="cy-row" role="group" aria-label="{label}" data-row="{response}">'
        f'<span class="cy-label"><kbd>{key}</kbd> {label}</span>{buttons}</div>'
    )


def _paragraphs(text: str) -> str:
    blocks = (" ".join(block.split()) for block in text.split("\n\n"))
    return "".join(f"<p>{escape(block)}</p>" for block in blocks if block)
