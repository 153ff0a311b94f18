"""Data sets of people with part labels, and what turns them into training samples.

Nothing is imported here: :mod:`aiparsing_d2.data.datasets` registers the built-in data sets, while
:mod:`aiparsing_d2.data.annotations` and :mod:`aiparsing_d2.data.image_files` need no Detectron2.
"""
