"""Typed: pictures in characters, for terminals and pipes. Owns how they look there; each module one kind."""
