"""The procedural scenes and the training of Fathom Tiny. Nothing in the node pack imports this package."""
