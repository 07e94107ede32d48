"""Storage: where a repository's keys lie. `base` is the interface, `local` and `memory` serve it."""
