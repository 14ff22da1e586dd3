"""Training and measuring of a student: the loop, the losses, packed text, and readings.

A batch of text and compiled code stand beside the rooms, since all of them use these. It may import `weights`, and what lies
below.
"""
