"""A DesNet out of the two anchors around it: mixing tensor by tensor in memory or from disk, search for the shares, refits.

The strategies stand in one table. It may import `prefix` and `files`.
"""
