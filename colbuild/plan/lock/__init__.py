"""The lock of a family: its file, what no longer is as it says, and the chain and sources that it pins.

A lock keeps on every machine what was decided once: shapes, the route, and the content of each source. The room may import
`changes`, `steps` and `shapes` of the planner, `fetch`, `store` and `spec`.
"""
