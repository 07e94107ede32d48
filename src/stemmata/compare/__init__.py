"""Compare: what differs between two versions, told from trees, records and small JSON files alone."""
