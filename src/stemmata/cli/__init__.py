"""The command line. Owns what people type and see; every rule it applies is the library's."""
