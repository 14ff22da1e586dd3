"""From a family to its plan: shapes, the route, the steps that build it, their keys, and what each is going to do.

`planning.py` calls the rooms in the order of the story, and `family_plan.py` holds the values that come out. A plan is made
without torch, transformers and onnx: the rooms import `fetch`, `store`, `arch` and `spec`, and nothing above them.
"""
