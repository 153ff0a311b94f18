"""A picture in; people and their parts out, as data and as pictures.

>>> from aiparsing_d2.inference import ParsingPredictor
>>> predictor = ParsingPredictor()
>>> people = predictor("photo.jpg")
"""

from .parsed_image import ParsedImage
from .parsed_person import ParsedPerson
from .pictures import Picture, read_picture
from .predictor import ParsingPredictor

__all__ = ["ParsedImage", "ParsedPerson", "ParsingPredictor", "Picture", "read_picture"]
