"""The shared annotator layer: from a picture to a typed signal, for every estimator."""
