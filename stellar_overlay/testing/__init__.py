"""Shipped for users' tests too: networks and peers without sockets, on a simulated clock."""
