"""Drawn: pictures as matplotlib figures. Owns how they look there; each module one kind.

Figures are made without pyplot: no window, no global state, nothing to close.
"""
