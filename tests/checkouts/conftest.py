"""A tree that is stored, and what it is read from."""

from __future__ import annotations

import pytest

from stemmata.trees import Tree
from trees_by_hand import FILES, FOLDERS, Objects, tree_of


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def tree(objects: Objects) -> Tree:
    return tree_of(FILES, objects, folders=FOLDERS, executable={"sub/x"})
