"""Mass annotation: many pictures through one or more estimators, on one machine or on a Ray cluster.

sources ▶ decode ▶ network ▶ encode ▶ sinks; the manifest remembers what is whole. Nothing here is imported before
`fathom annotate` is given more than single photos.
"""
