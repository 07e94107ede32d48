"""Words that several commands use for one thing. Owns what an intake's outcome is called."""

MEANINGS = {
    "new": "new",
    "named": "new name",
    "known": "there already",
    "incomplete": "incomplete",
    "gone": "vanished",
    "failed": "failed",
}
