"""Pictures: parsings drawn over images, legends, and sheets of results."""

from .legend import noticeable_labels, part_legend, with_legend
from .parsing_overlay import draw_edges, draw_parsing
from .result_sheet import ParsingExample, image_grid, result_sheet

__all__ = [
    "ParsingExample",
    "draw_edges",
    "draw_parsing",
    "image_grid",
    "noticeable_labels",
    "part_legend",
    "result_sheet",
    "with_legend",
]
