"""What models cost: counted from their layers, and measured where they run.

``aiparsing analyze`` and ``aiparsing benchmark`` print it.
"""
