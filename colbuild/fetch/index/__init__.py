"""The reader of `pypi://`: one file out of a wheel or sdist of the index that pip is configured to use.

Pages of an index, pip's settings and the session that asks have a file each.
It may import what `colbuild.fetch` may, and knows nothing of the hub or of texts.
"""
