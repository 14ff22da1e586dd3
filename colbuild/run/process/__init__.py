"""One step, in a process of its own: how processes start, what they are told, how a step is carried out and how it fails.

`nursery` keeps a process that has imported what steps need and forks one for each of them; `perform` finds or makes a result.
The room may import every room below `run`; it imports operations, and with them PyTorch, inside these processes alone.
"""
