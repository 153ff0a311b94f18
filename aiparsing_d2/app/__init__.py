"""The web page of ``aiparsing app``: a picture in, its people and their parts to look at and take.

:mod:`.upload` says what is done with a picture, :mod:`.page` what is seen of it; only the latter
needs Gradio.
"""
