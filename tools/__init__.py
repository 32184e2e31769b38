"""Pure functions from signals to signals, images and masks."""
