"""Figures of docs that are made of committed results; each says in its file which ones it was made of."""

import io
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline import files
from pipeline.report.blocks import REFERENCE, ROOT
from pipeline.report.surface import surface_figure
from pipeline.report.ttft_blocks import FOLDER
from pipeline.results import SurfaceResult, read

SURFACE = ("docs/ttft_surface.png", REFERENCE / FOLDER / "surface_fit.json")
SOURCE = "Source"  # key of the hash of its source in a figure's file


def draw() -> list[Path]:
    """Write every figure; returns their paths. Raises ResultError for a damaged source."""
    page, source = SURFACE
    figure = surface_figure("ttft_surface", read(source, SurfaceResult), "")
    if figure is None:
        return []
    told = PngInfo()
    told.add_text(SOURCE, files.sha256_of(source))
    with files.atomic_path(ROOT / page) as temporary:
        Image.open(io.BytesIO(figure.png)).save(temporary, format="png", pnginfo=told, optimize=True)
    return [ROOT / page]


def stale() -> list[str]:
    """Figures that are missing or were made of other results, a line each."""
    page, source = SURFACE
    if not (ROOT / page).exists():
        return [f"{page} is missing"]
    with Image.open(ROOT / page) as image:
        stands = image.info.get(SOURCE)
    return (
        []
        if stands == files.sha256_of(source)
        else [f"{page} was made of other results than {source.relative_to(ROOT)}"]
    )
