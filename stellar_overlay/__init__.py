"""The Stellar peer-to-peer overlay: a Twisted application and a library."""

__version__ = "0.1.0"
