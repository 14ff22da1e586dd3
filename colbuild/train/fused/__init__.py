"""The passes over memory of a training, each fused into one by compiled code, where the machine has a C++ compiler.

Everything here computes what transformers and torch compute in many passes; where no compiler is, they do.
It may import no other room of training.
"""
