"""What ``scripts/generate_xdr_check.py`` is made of.

``idl`` reads the XDR language into plain values and ``source`` finds its text in the installed
stellar-sdk; ``schema`` answers questions about types; ``rules`` holds what XDR does not say. Then
``reader`` and ``writer`` write the Python for a value, ``functions`` makes functions of it, and
``module`` puts them together.
"""
