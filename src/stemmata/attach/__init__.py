"""Attach: versions from a command that knows nothing of stemmata (`stemmata run`).

    launch      the parent: starts the command, passes signals on, says at the end what came of it
    bootstrap/  a folder on PYTHONPATH; its sitecustomize runs in every Python below the command
    hook        in such a Python: waits for transformers.Trainer and adds the callback to each one made
    again       in a Python of a command that is run again: where a Trainer writes, when it stops
    guard       what such a Python must not change
    programs    what `rm` and the like would change
    settings    what the parent tells them, and the report that they write for it

Imports nothing heavy: all of it but the callback itself also runs in Pythons that train nothing.
"""
