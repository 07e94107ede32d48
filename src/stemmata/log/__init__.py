"""The log: what happened to a repository, entry by entry, and what that amounts to."""
