"""Exporting: a version's record as what others read: a model card, a script, a list of requirements."""
