"""Twisted: the only place with a transport and a reactor."""
