"""Containers: how a file's own structure says where to cut it. `cut.plan` is the way in."""
