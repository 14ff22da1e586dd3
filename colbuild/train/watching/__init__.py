"""What is read of a training: losses on held-out text, throughput, the ledger, and the trackers that a user names.

Nothing here changes a weight. It may import `loop`, `corpus` and `losses`.
"""
