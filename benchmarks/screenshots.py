"""The pictures of the readers' pages in README and docs/reader_studies.md.

    python benchmarks/screenshots.py [--checkpoint checkpoints/pbc64] [--out docs/images]

Every cell on them is drawn by the checkpoint, those that the study calls real too, so that no
picture of somebody's data set gets into the repository. Needs Debian's chromium. With `--report`
the head of a report, `report.png`, is taken as well.
"""

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from diffusion.checkpoint import load_checkpoint
from diffusion.latents import images_from_latents
from diffusion.sampler import sample_latents
from studies.stimuli import Stimulus, write_manifest
from tests.webapp.browser_at_hand import CHROMIUM, leave, name_of_page
from tests.webapp.studies_at_hand import Server
from webapp.pictures import encode_png, pixel_digest

SEEDS = {
    "basophil": (10, 14),
    "eosinophil": (25, 16),
    "erythroblast": (24, 13),
    "ig": (22, 18),
    "lymphocyte": (23, 21),
    "monocyte": (12, 26),
    "neutrophil": (14, 18),
    "platelet": (27, 20),
}
"""By class, of the cell that the study calls real and of the generated one: chosen by eye."""

STUDY: dict[str, Any] = {
    "title": "Blood cells: real or generated?",
    "n_participants": 1,
    "seed": 9305,  # decides which of the cells are shown where
    "blocks": [
        {"design": design, "n_trials": 2}
        for design in ("authenticity", "pair", "classification", "quality")
    ],
    "conduct": {"calibration": True, "undo": True},
    "languages": ["en", "de"],
}
PICTURES = {
    "authenticity": ("reader_trial", "g"),
    "pair": ("reader_pair", "ArrowLeft"),
    "classification": ("reader_classification", "n"),
    "quality": ("reader_quality", "Escape"),
}
"""By design, the file, and the key that chooses an answer: only its digit is still missing."""


def main(
    checkpoint: Annotated[Path, typer.Option()] = Path("checkpoints/pbc64"),
    out: Annotated[Path, typer.Option()] = Path("docs/images"),
    report: Annotated[
        Path | None, typer.Option(help="report.html of `python -m studies analyse`.")
    ] = None,
) -> None:
    """Take all pictures, of a study that is thrown away."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        draw(checkpoint, Path(folder) / "stimuli")
        server = Server(Path(folder))
        (link,) = server.new_study(Path(folder) / "stimuli", **STUDY)
        try:
            server.start()
            take_study(browser.new_page(viewport={"width": 1280, "height": 900}), link, out)
        finally:
            server.stop()
        if report:
            take_report(browser.new_page(viewport={"width": 1180, "height": 1240}), report, out)
        browser.close()


def draw(checkpoint: Path, folder: Path) -> None:
    """A stimulus set with a drawn cell of each class in the place of a real one, and another."""
    model = load_checkpoint(checkpoint)
    folder.mkdir()
    stimuli = []
    for class_name, seeds in SEEDS.items():
        for is_synthetic, seed in enumerate(seeds):
            label = model.class_names.index(class_name)
            latents = sample_latents(model.network, model.scheduler, [label], [seed])
            image = Image.fromarray(images_from_latents(latents)[0])
            name = hashlib.sha256(f"{class_name} {seed}".encode()).hexdigest()[:16]
            (folder / f"{name}.png").write_bytes(encode_png(image))
            stimuli.append(
                Stimulus(
                    stimulus_id=name,
                    file=f"{name}.png",
                    class_name=class_name,
                    is_synthetic=bool(is_synthetic),
                    source_digest=pixel_digest(image),
                )
            )
    write_manifest(folder, stimuli)


def take_study(page: Page, link: str, out: Path) -> None:
    """Go through the study; the last trial of each block is taken."""
    page.goto(link)
    while (name := name_of_page(page)) != "finish":
        if name in ("consent", "calibration"):
            take(page, out / f"reader_{name}.jpg")
        if name != "trial":
            leave(page, name)
            continue
        root = page.locator(".cy").element_handle()
        file, key = PICTURES[root.get_attribute("data-design")]
        page.keyboard.press(key)
        if int(root.get_attribute("data-trial-number")) % 2 == 0:
            take(page, out / f"{file}.jpg")
        page.keyboard.press("4")
        root.wait_for_element_state("hidden")


def take(page: Page, path: Path) -> None:
    page.wait_for_timeout(300)  # until colours have changed
    page.screenshot(path=path, type="jpeg", quality=85)


def take_report(page: Page, report: Path, out: Path) -> None:
    page.goto(report.resolve().as_uri())
    page.screenshot(path=out / "report.png")
    with Image.open(out / "report.png") as image:  # flat colours: a palette halves the file
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
            out / "report.png", optimize=True
        )


if __name__ == "__main__":
    typer.run(main)
