"""Data sets of people with part labels, and what turns them into training samples.

Nothing is imported here: :mod:`aiparsing_d2.data.datasets` registers the built-in data sets, while
:mod:`aiparsing_d2.data.part_labels` and :mod:`aiparsing_d2.data.drawn_scenes` need no Detectron2.
"""
