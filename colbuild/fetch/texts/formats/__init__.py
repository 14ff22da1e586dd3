"""The formats of text, one file each: plain text, JSON lines and arrays, delimited values, columns, MediaWiki dumps.

Each reads documents as a stream, in memory that does not grow with the text.
They may import `colbuild.fetch.texts` and the root, and libraries of their format inside functions.
"""
