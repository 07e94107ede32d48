"""Histories: what is asked of many versions that came from each other, each question in its module."""
