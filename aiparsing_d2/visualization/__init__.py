"""Pictures: parsings drawn over images, sheets of results, and training curves."""

from .legend import noticeable_labels, part_legend, with_legend
from .parsing_overlay import draw_edges, draw_parsing
from .result_sheet import ParsingExample, image_grid, result_sheet
from .training_curves import plot_training_curves

__all__ = [
    "ParsingExample",
    "draw_edges",
    "draw_parsing",
    "image_grid",
    "noticeable_labels",
    "part_legend",
    "plot_training_curves",
    "result_sheet",
    "with_legend",
]
