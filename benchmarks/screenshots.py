"""The pictures in README: the study page with a generated cell, and the head of a report.

    python benchmarks/screenshots.py --link LINK --stimuli stimuli \\
        --report report/report.html --out docs/images

Needs a running `python -m webapp` and Debian's chromium. Only a generated cell is photographed, so
that no picture of somebody's data set gets into the repository.
"""

import hashlib
import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from studies.stimuli import read_stimuli


def main(
    link: Annotated[str, typer.Option(help="A personal link nobody has used.")],
    stimuli: Annotated[Path, typer.Option(help="The study's stimulus set.")],
    report: Annotated[Path, typer.Option(help="report.html of `python -m studies analyse`.")],
    out: Annotated[Path, typer.Option(help="Folder for study.png and report.png.")],
) -> None:
    """Take both pictures."""
    generated = {
        pixels_of((stimuli / stimulus.file).read_bytes())
        for stimulus in read_stimuli(stimuli)
        if stimulus.is_synthetic
    }
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("PLAYWRIGHT_CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-gpu"],
        )
        page = browser.new_page(viewport={"width": 1180, "height": 900})
        page.goto(link)
        page.get_by_role("button", name="I agree to take part").click()
        page.get_by_role("button", name="Begin").click()
        page.wait_for_selector("[data-state=ready]")
        while shown(page) not in generated:
            source = page.locator("img").first.get_attribute("src")
            page.keyboard.press("r")
            page.keyboard.press("3")
            page.wait_for_function(
                "old => { const i = document.querySelector('img');"
                " return i && i.getAttribute('src') !== old; }",
                arg=source,
            )
            page.wait_for_selector("[data-state=ready]")
        page.keyboard.press("g")
        page.wait_for_timeout(200)
        page.screenshot(path=out / "study.png")
        page.goto(report.resolve().as_uri())
        page.set_viewport_size({"width": 1180, "height": 1240})
        page.screenshot(path=out / "report.png")
        browser.close()
    for name in ("study.png", "report.png"):  # flat colours: a palette halves the file
        with Image.open(out / name) as image:
            image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
                out / name, optimize=True
            )


def shown(page: Page) -> str:
    """Digest of the pixels that the reader sees now."""
    source = page.locator("img").first.get_attribute("src")
    reply = page.request.get(page.evaluate("path => new URL(path, location.href).href", source))
    return pixels_of(reply.body())


def pixels_of(png: bytes) -> str:
    """Digest of a picture's pixels."""
    with Image.open(io.BytesIO(png)) as image:
        return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


if __name__ == "__main__":
    typer.run(main)
