"""What the eight drawn cell types look like: the ranges from which a drawn cell takes its traits.

Lengths are in pixels of a 64-px frame; amounts of stain in units of `training.drawing.STAINS`.
"""

from dataclasses import dataclass, fields

Range = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellType:
    """Ranges of what makes up a cell of one class; a cell draws each uniformly."""

    looks_like: tuple[str, ...]
    """The classes that its untypical cells resemble."""
    radius: Range
    elongation: Range = (0.0, 0.12)
    ruggedness: Range = (0.3, 0.8)
    """How far the outline strays from an ellipse, in pixels."""

    # The nucleus is a chain of lobes on an arc; lengths as shares of the cell's radius.
    lobes: Range = (1, 1)
    lobe_radius: Range = (0.0, 0.0)
    chain_length: Range = (0.0, 0.0)
    bend: Range = (0.0, 0.0)
    """Angle by which the arc turns from end to end, in radians."""
    waist: Range = (0.0, 0.0)
    """Half the thickness of what joins two lobes: a strand if thin, a band if thick."""
    off_centre: Range = (0.0, 0.15)

    # Amounts of stain; chromatin is the contrast of clumps in the nucleus.
    nucleus: Range = (0.0, 0.0)
    chromatin: Range = (0.15, 0.25)
    clumping: Range = (0.0, 0.3)
    """0: a fine network, 1: coarse blocks."""
    azure: Range = (0.02, 0.08)
    blue: Range = (0.1, 0.2)
    eosin: Range = (0.05, 0.1)
    mottling: Range = (0.1, 0.2)

    granules: Range = (0, 0)
    granule_radius: Range = (0.7, 0.9)
    granule_azure: Range = (0.0, 0.0)
    granule_eosin: Range = (0.0, 0.0)
    over_nucleus: Range = (0.0, 0.2)
    """How much of a granule shows where it lies over the nucleus."""
    vacuoles: Range = (0, 0)


TRAITS = tuple(f.name for f in fields(CellType) if f.name != "looks_like")

CELL_TYPES = {
    "basophil": CellType(
        looks_like=("ig", "neutrophil"),
        radius=(17, 21),
        ruggedness=(0.6, 1.2),
        lobes=(2, 3),
        lobe_radius=(0.40, 0.52),
        chain_length=(0.55, 0.85),
        bend=(0.2, 1.4),
        waist=(0.25, 0.40),
        nucleus=(0.65, 0.85),
        azure=(0.20, 0.38),
        blue=(0.10, 0.25),
        granules=(110, 230),
        granule_radius=(1.0, 1.5),
        granule_azure=(0.60, 0.90),
        over_nucleus=(0.75, 1.0),
    ),
    "eosinophil": CellType(
        looks_like=("neutrophil",),
        radius=(18, 22),
        lobes=(2, 3),
        lobe_radius=(0.31, 0.40),
        chain_length=(0.75, 1.05),
        bend=(0.6, 2.2),
        waist=(0.05, 0.12),
        off_centre=(0.05, 0.25),
        nucleus=(0.90, 1.10),
        blue=(0.05, 0.14),
        eosin=(0.45, 0.65),
        granules=(190, 260),
        granule_radius=(1.1, 1.5),
        granule_eosin=(0.28, 0.50),
        over_nucleus=(0.0, 0.15),
        vacuoles=(0, 3),
    ),
    "erythroblast": CellType(
        looks_like=("lymphocyte",),
        radius=(10.5, 15),
        elongation=(0.0, 0.25),
        ruggedness=(0.3, 1.0),
        lobe_radius=(0.46, 0.68),
        off_centre=(0.0, 0.25),
        nucleus=(1.20, 1.50),
        chromatin=(0.20, 0.35),
        clumping=(0.6, 1.0),
        blue=(0.28, 0.55),
        eosin=(0.12, 0.30),
    ),
    "ig": CellType(
        looks_like=("neutrophil", "monocyte"),
        radius=(18, 22.5),
        ruggedness=(0.3, 1.0),
        lobes=(2, 3),
        lobe_radius=(0.42, 0.58),
        chain_length=(0.20, 0.70),
        bend=(0.4, 1.8),
        waist=(0.35, 0.50),
        off_centre=(0.05, 0.25),
        nucleus=(0.80, 1.00),
        chromatin=(0.18, 0.30),
        blue=(0.16, 0.36),
        azure=(0.06, 0.16),
        granules=(50, 130),
        granule_radius=(0.6, 0.9),
        granule_azure=(0.22, 0.45),
        over_nucleus=(0.3, 0.7),
    ),
    "lymphocyte": CellType(
        looks_like=("monocyte", "erythroblast"),
        radius=(12.5, 17),
        elongation=(0.0, 0.2),
        ruggedness=(0.3, 1.0),
        lobe_radius=(0.80, 0.92),
        off_centre=(0.0, 0.10),
        nucleus=(0.95, 1.20),
        chromatin=(0.15, 0.28),
        clumping=(0.5, 1.0),
        blue=(0.50, 0.85),
        azure=(0.03, 0.10),
    ),
    "monocyte": CellType(
        looks_like=("ig", "lymphocyte"),
        radius=(19, 23.5),
        elongation=(0.0, 0.22),
        ruggedness=(0.6, 1.8),
        lobes=(4, 4),
        lobe_radius=(0.33, 0.44),
        chain_length=(0.85, 1.35),
        bend=(1.4, 3.8),
        waist=(0.26, 0.36),
        nucleus=(0.76, 0.95),
        chromatin=(0.16, 0.26),
        blue=(0.36, 0.62),
        azure=(0.05, 0.12),
        mottling=(0.15, 0.35),
        granules=(20, 70),
        granule_radius=(0.5, 0.7),
        granule_azure=(0.08, 0.2),
        vacuoles=(0, 8),
    ),
    "neutrophil": CellType(
        looks_like=("ig", "eosinophil"),
        radius=(17.5, 21.5),
        lobes=(3, 5),
        lobe_radius=(0.23, 0.31),
        chain_length=(1.2, 1.8),
        bend=(2.0, 4.6),
        waist=(0.04, 0.12),
        off_centre=(0.0, 0.2),
        nucleus=(1.00, 1.20),
        chromatin=(0.15, 0.28),
        clumping=(0.2, 0.7),
        blue=(0.06, 0.14),
        azure=(0.05, 0.13),
        eosin=(0.12, 0.26),
        granules=(70, 160),
        granule_radius=(0.5, 0.8),
        granule_azure=(0.10, 0.30),
        granule_eosin=(0.0, 0.15),
    ),
    "platelet": CellType(
        looks_like=("erythroblast",),
        radius=(4.5, 9),
        elongation=(0.0, 0.3),
        ruggedness=(0.5, 1.4),
        azure=(0.12, 0.28),
        blue=(0.15, 0.35),
        mottling=(0.2, 0.4),
        granules=(14, 40),
        granule_radius=(0.6, 1.1),
        granule_azure=(0.30, 0.65),
        over_nucleus=(1.0, 1.0),
    ),
}
