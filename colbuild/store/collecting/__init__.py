"""What may be deleted from a store: roots of projects, pins, the collector, and what a store takes on the disk.

What a build may still need is never deleted. It may import the store.
"""
