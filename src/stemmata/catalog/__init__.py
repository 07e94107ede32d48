"""The catalog: the log folded into SQLite. A cache, rebuilt from the log at will and never evidence."""
