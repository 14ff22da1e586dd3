"""A store shared between machines: a folder or a bucket that is read through and written to, and trusted with nothing.

Every byte from there is checked against its digest. It may import the store.
"""
