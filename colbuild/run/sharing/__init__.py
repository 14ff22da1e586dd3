"""The store between builds: what lies in it and who needs it, whether it is whole, pins, and results sent to and from a remote.

Collecting garbage and the remote's protocol are the store's own; here they meet families and their plans. The room may import
`plan`, `fetch` and `store`, and nothing that imports PyTorch.
"""
