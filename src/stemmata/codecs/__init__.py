"""Codecs: bytes of one object to its encoded form and back. Owns FORMAT.md, section 5; knows no packs."""
