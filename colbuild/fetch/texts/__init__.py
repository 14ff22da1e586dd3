"""Documents out of the files of a source of text: which files are meant, their format, and the reader of each.

The corpus step reads whole texts here, and a plan the first document and the size.
It may import what `colbuild.fetch` may; columns and workers are imported when a format needs them.
"""
