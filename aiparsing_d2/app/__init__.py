"""The web page of ``aiparsing app``: a picture or clip in, people and parts to look at and take.

:mod:`.upload` says what is done with a picture, :mod:`.clip` with a clip, :mod:`.page` what is seen
of it; only the last needs Gradio.
"""
