"""A trained model as a file that runs without this package: ONNX, TorchScript or torch.export.

The file holds one graph from the pixels of a picture to its people, for any size of the picture and
any number of people; a JSON file beside it says the rest.
"""

from .exporting import FORMATS, export_predictor
from .image_parser import ImageParser

__all__ = ["FORMATS", "ImageParser", "export_predictor"]
