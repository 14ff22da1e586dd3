"""A package as it runs on a device: session and cache, prompts and chat templates, generation, speed, and a trial under bounds.

Packages from anywhere are run, so each is bounded in time and memory.
It may import `colbuild.export.manifest`, the scans of `colbuild.export.graph`, and what is below; torch nowhere at the top.
"""
