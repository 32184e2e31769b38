"""Make models/catalog.json anew: what `fathom models` tells of every estimator without importing torch.

python scripts/catalog.py
"""

from __future__ import annotations

from fathom.models import families, offered
from fathom.models._catalog import CATALOG, catalog_text


def text() -> str:
    """What the file should hold."""
    return catalog_text({family: offered(family) for family in families()})


if __name__ == "__main__":
    CATALOG.write_text(text(), encoding="utf-8")
